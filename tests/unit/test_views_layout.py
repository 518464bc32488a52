"""Where nodes are drawn: the same places everywhere, in the shape that a textbook draws."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import time
from itertools import combinations

import networkx as nx
import pytest

from cloudlab.views.layout import positions, stable


def star(guests: int) -> nx.Graph[str]:
    return nx.Graph([("s1", f"n{n}") for n in range(1, guests + 1)])


def tree(depth: int, fanout: int) -> nx.Graph[str]:
    return named(nx.balanced_tree(fanout, depth))


def named(graph: nx.Graph[int]) -> nx.Graph[str]:
    return nx.relabel_nodes(graph, {node: f"n{number}" for number, node in enumerate(graph, 1)})


def leaf_spine(spines: int, leaves: int, guests: int) -> nx.Graph[str]:
    graph = nx.Graph([(f"spine{s}", f"leaf{n}") for s in range(spines) for n in range(leaves)])
    graph.add_edges_from((f"leaf{n % leaves}", f"n{n}") for n in range(leaves * guests))
    return graph


def linear(switches: int) -> nx.Graph[str]:
    graph = nx.Graph([(f"s{s}", f"s{s + 1}") for s in range(1, switches)])
    graph.add_edges_from((f"s{s}", f"n{s}") for s in range(1, switches + 1))
    return graph


def ring(switches: int) -> nx.Graph[str]:
    graph = linear(switches)
    graph.add_edge("s1", f"s{switches}")
    return graph


def apart() -> nx.Graph[str]:
    return nx.union_all([star(4), nx.relabel_nodes(star(3), lambda name: f"b-{name}"), nx.Graph({"alone": {}})])


SHAPES = {
    "pair": star(1),
    "star of 3": star(3),
    "star of 4": star(4),
    "star of 20": star(20),
    "star of 40": star(40),
    "star of 300": star(300),
    "tree": tree(3, 2),
    "wide tree": tree(2, 17),
    "deep tree": tree(7, 2),
    "leaf-spine": leaf_spine(2, 4, 3),
    "large leaf-spine": leaf_spine(4, 12, 24),
    "chain": linear(4),
    "long chain": linear(60),
    "ring": ring(6),
    "bare ring": named(nx.cycle_graph(8)),
    "mesh": named(nx.complete_graph(6)),
    "grid": named(nx.grid_2d_graph(6, 6)),
    "large grid": named(nx.grid_2d_graph(17, 18)),
    "Petersen": named(nx.petersen_graph()),
    "parts": apart(),
    "300 alone": nx.Graph({f"n{n}": {} for n in range(300)}),
}
EVERY = pytest.mark.parametrize("graph", SHAPES.values(), ids=SHAPES)


def nearest(places: dict[str, tuple[float, float]]) -> float:
    """The smallest distance in a picture twice as wide as high."""
    return min(math.dist((2 * ax, ay), (2 * bx, by)) for (ax, ay), (bx, by) in combinations(places.values(), 2))


@EVERY
def test_every_node_has_a_place_inside_the_picture(graph: nx.Graph[str]) -> None:
    places = positions(graph)
    assert set(places) == set(graph)
    assert all(0 <= value <= 1 and value == round(value, 4) for place in places.values() for value in place)


@EVERY
def test_no_two_nodes_are_too_near(graph: nx.Graph[str]) -> None:
    assert nearest(positions(graph)) > 0.25 * math.sqrt(2 / len(graph))


@EVERY
def test_the_order_in_which_things_were_added_does_not_matter(graph: nx.Graph[str]) -> None:
    nodes, edges = sorted(graph.nodes), [(b, a) for a, b in sorted(graph.edges)]
    chance = random.Random(7)
    chance.shuffle(nodes)
    chance.shuffle(edges)
    shuffled: nx.Graph[str] = nx.Graph()
    shuffled.add_nodes_from(nodes)
    shuffled.add_edges_from(edges)
    assert positions(shuffled) == positions(graph)


def test_another_process_finds_the_same_places() -> None:
    code = "import json, networkx as nx\nfrom cloudlab.views.layout import positions\n"
    code += "print(json.dumps(positions(nx.relabel_nodes(nx.petersen_graph(), str))))"
    answers = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        answers.add(
            subprocess.run(
                [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
            ).stdout
        )
    assert len(answers) == 1
    assert len(json.loads(answers.pop())) == 10


def test_one_node_is_in_the_middle_and_none_is_nowhere() -> None:
    assert positions(nx.Graph({"n1": {}})) == {"n1": (0.5, 0.5)}
    assert positions(nx.Graph()) == {}


def test_two_nodes_are_beside_each_other() -> None:
    assert sorted(positions(star(1)).values()) == [(0, 0.5), (1, 0.5)]


@pytest.mark.parametrize("guests", [4, 20, 300])
def test_a_star_has_its_switch_in_the_middle(guests: int) -> None:
    places = positions(star(guests))
    assert places["s1"] == pytest.approx((0.5, 0.5), abs=0.02)
    assert {place[0] > 0.5 for name, place in places.items() if name != "s1"} == {True, False}


def test_a_tree_has_a_layer_for_each_distance_from_the_root_and_parents_over_their_children() -> None:
    graph = tree(3, 2)
    places = positions(graph)
    distance = nx.single_source_shortest_path_length(graph, "n1")
    for name, (x, y) in places.items():
        assert y == pytest.approx(1 - distance[name] / 3, abs=1e-3)
        below = [places[other][0] for other in graph[name] if distance[other] > distance[name]]
        if below:
            assert x == pytest.approx(sum(below) / 2, abs=1e-3)


def test_an_uplink_is_the_root_of_its_tree() -> None:
    graph = nx.Graph([("up", "r1"), ("r1", "s1"), ("s1", "n1"), ("s1", "n2")])
    graph.nodes["up"]["kind"] = "uplink"
    places = positions(graph)
    assert places["up"][1] > places["r1"][1] > places["s1"][1] > places["n1"][1] == places["n2"][1]


def test_a_ring_is_round() -> None:
    places = positions(named(nx.cycle_graph(8)))
    assert len({round(math.dist(place, (0.5, 0.5)), 3) for place in places.values()}) == 1


def test_guests_of_a_ring_are_outside_it() -> None:
    places = positions(ring(6))
    for number in range(1, 7):
        assert math.dist(places[f"n{number}"], (0.5, 0.5)) > math.dist(places[f"s{number}"], (0.5, 0.5))


def test_leaf_spine_has_two_rows_of_switches_and_the_guests_below() -> None:
    places = positions(leaf_spine(2, 4, 3))
    rows = [{place[1] for name, place in places.items() if name.startswith(kind)} for kind in ("spine", "leaf", "n")]
    assert [len(row) for row in rows] == [1, 1, 1]
    assert rows[0].pop() > rows[1].pop() > rows[2].pop()


def test_the_switches_of_a_chain_are_in_one_row_in_their_order() -> None:
    places = positions(linear(4))
    across = [places[f"s{number}"][0] for number in range(1, 5)]
    assert across in (sorted(across), sorted(across)[::-1])
    assert len({places[f"s{number}"][1] for number in range(1, 5)}) == 1


def test_parts_are_beside_each_other() -> None:
    places = positions(apart())
    first = [x for name, (x, _) in places.items() if name[0] in "ns"]
    second = [x for name, (x, _) in places.items() if name.startswith("b-")]
    assert max(first) < min(second)
    assert places["alone"][1] < min(y for name, (_, y) in places.items() if name != "alone")


@pytest.mark.parametrize(
    "graph",
    [
        star(1000),
        tree(3, 9),
        named(nx.gnm_random_graph(1000, 1400, seed=1)),
        named(nx.grid_2d_graph(32, 32)),
        linear(500),
    ],
    ids=["star", "tree", "random", "grid", "chain"],
)
def test_a_thousand_nodes_take_a_moment(graph: nx.Graph[str]) -> None:
    before = time.process_time()
    positions(graph)
    assert time.process_time() - before < 0.6  # 0.2 s on an idle computer


# --- stable -----------------------------------------------------------------------------------------------------------
def test_what_was_there_keeps_its_place() -> None:
    graph = star(4)
    old = positions(graph)
    graph.add_edge("s1", "n5")
    graph.remove_node("n2")
    new = stable(old, graph)
    assert set(new) == set(graph)
    assert {name: new[name] for name in ("s1", "n1", "n3", "n4")} == {
        name: old[name] for name in ("s1", "n1", "n3", "n4")
    }


def test_newcomers_are_near_their_neighbours_and_not_on_others() -> None:
    graph = star(3)
    places = positions(graph)
    for number in range(4, 40):
        graph.add_edge("s1", f"n{number}")
        places = stable(places, graph)
    assert nearest(places) > 0.03
    assert all(0 <= value <= 1 for place in places.values() for value in place)


def test_with_nothing_to_keep_places_are_found_anew() -> None:
    assert stable({}, star(4)) == stable({"gone": (0.1, 0.1)}, star(4)) == positions(star(4))


def test_nothing_new_means_nothing_moves() -> None:
    old = {"s1": (0.1, 0.2), "n1": (0.3, 0.4), "n2": (0.9, 0.9)}
    assert stable(old, star(2)) == old
    assert stable(old, star(1)) == {"s1": (0.1, 0.2), "n1": (0.3, 0.4)}
