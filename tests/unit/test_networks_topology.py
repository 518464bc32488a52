"""Topologies are data: shapes, YAML there and back, and mistakes that are told with their place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import networkx as nx
import pytest

from cloudlab import UsageError
from cloudlab.networks import Topology, leaf_spine, ring, star, tree


def same(a: Topology, b: Topology) -> bool:
    return nx.utils.graphs_equal(a.graph, b.graph) and a.links == b.links


# --- shapes -----------------------------------------------------------------------------------------------------


def test_a_star_is_guests_on_one_switch() -> None:
    topology = star(4, memory="256M")
    assert topology.named("machine") == ["n1", "n2", "n3", "n4"]
    assert topology.named("switch") == ["s1"]
    assert topology.links == [(f"n{number}", "s1", {}) for number in range(1, 5)]
    assert topology.graph.nodes["n3"]["options"] == {"memory": "256M"}
    assert repr(topology) == "<topology: 4 machines, 1 switch, 4 links>"


@pytest.mark.parametrize(("depth", "fanout", "switches"), [(1, 3, 1), (2, 2, 3), (3, 2, 7), (2, 4, 5)])
def test_a_tree_has_a_level_of_switches_for_each_of_its_depth(depth: int, fanout: int, switches: int) -> None:
    topology = tree(depth, fanout)
    assert topology.named("switch") == [f"s{number}" for number in range(1, switches + 1)]
    assert topology.named("machine") == [f"n{number}" for number in range(1, fanout**depth + 1)]
    assert nx.is_tree(topology.graph)
    assert set(nx.single_source_shortest_path_length(topology.graph, "s1").values()) == set(range(depth + 1))


def test_a_ring_is_a_circle_of_switches_with_guests() -> None:
    topology = ring(4, guests=2)
    assert len(topology.named("machine")) == 8
    assert topology.loops == [["s1", "s2", "s3", "s4"]]
    assert all(topology.graph.nodes[name]["options"]["spanning_tree"] for name in topology.named("switch"))
    assert not ring(3, spanning_tree=False).graph.nodes["s1"]["options"]["spanning_tree"]
    assert ring(3, guests=0).named("machine") == []


def test_leaf_and_spine_links_each_leaf_to_each_spine() -> None:
    topology = leaf_spine(3, 2)
    assert topology.named("switch") == ["s1", "s2", "s3", "s4", "s5"]
    assert len(topology.named("machine")) == 6
    assert {frozenset(link[:2]) for link in topology.links[:6]} == {
        frozenset({leaf, spine}) for leaf in ("s3", "s4", "s5") for spine in ("s1", "s2")
    }
    assert sorted(nx.neighbors(topology.graph, "s3")) == ["n1", "n2", "s1", "s2"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: star(0),
        lambda: star(2.5),  # type: ignore[arg-type]
        lambda: star(True),
        lambda: star("4"),  # type: ignore[arg-type]
        lambda: star(1001),
        lambda: tree(9, 1),
        lambda: tree(1, 0),
        lambda: ring(2),
        lambda: leaf_spine(0, 1),
        lambda: leaf_spine(1, 0),
    ],
)
def test_a_number_that_makes_no_shape_is_refused(wrong: Callable[[], Topology]) -> None:
    with pytest.raises(UsageError, match=r"is no number of .*\nAllowed: \d"):
        wrong()


# --- by hand ----------------------------------------------------------------------------------------------------


def by_hand() -> Topology:
    return (
        Topology()
        .switch("s1", spanning_tree=True)
        .switch("s2", subnet="203.0.113.0/24")
        .machine("web-server", memory="512M")
        .machine("n2")
        .router("r1")
        .uplink("u1")
        .link("web-server", "s1", vlan=10)
        .link("n2", "s1", delay="50ms", jitter=0.01, loss=0.1, rate="10M")
        .link("r1", "s1", trunk=[10, 20])
        .link("r1", "s2")
        .link("u1", "s2")
    )


def test_calls_are_chained_and_keep_their_order() -> None:
    topology = by_hand()
    assert list(topology.graph) == ["s1", "s2", "web-server", "n2", "r1", "u1"]
    assert [link[:2] for link in topology.links][:2] == [("web-server", "s1"), ("n2", "s1")]
    assert topology.named("machine", "router") == ["web-server", "n2", "r1"]
    assert repr(topology) == "<topology: 2 machines, 2 switches, 1 router, 1 uplink, 5 links>"


@pytest.mark.parametrize("kind", ["machine", "switch", "router", "uplink"])
def test_a_name_is_given_once(kind: str) -> None:
    with pytest.raises(UsageError, match=r"'n1' is in the topology already\.\nAllowed: a name that is free"):
        getattr(Topology().machine("n1"), kind)("n1")


def test_a_link_needs_two_ends_that_are_there_and_not_the_same() -> None:
    topology = Topology().machine("n1").switch("s1").link("n1", "s1")
    with pytest.raises(UsageError, match=r"There is no 's2' to link\.\nAllowed: n1, s1"):
        topology.link("n1", "s2")
    with pytest.raises(UsageError, match=r"n1 and n1 can't be linked\."):
        topology.link("n1", "n1")
    with pytest.raises(UsageError, match=r"s1 and n1 can't be linked again\."):
        topology.link("s1", "n1")
    assert len(topology.links) == 1


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        ({"dealy": "50ms"}, "A link has no 'dealy'"),
        ({"delay": "soon"}, "'soon' is not a time for a link"),
        ({"jitter": [1]}, "is not a time for a link"),
        ({"loss": "30%"}, "'30%' is not a share of frames"),
        ({"rate": "fast"}, "'fast' is not a rate for a link"),
        ({"vlan": 5000}, "5000 is no VLAN"),
        ({"vlan": "ten"}, "'ten' is no VLAN"),
        ({"trunk": 10}, "10 is no list of VLANs"),
        ({"trunk": [10, 0]}, "0 is no VLAN"),
    ],
)
def test_conditions_that_no_link_has_are_refused_before_anything_starts(
    conditions: dict[str, object], told: str
) -> None:
    topology = Topology().machine("n1").switch("s1")
    with pytest.raises(UsageError, match=told):
        topology.link("n1", "s1", **conditions)
    assert topology.links == []


@pytest.mark.parametrize("subnet", ["here", "10.0.0.1/16", "10.0.0.0/33", "fe80::/64", ""])
def test_a_subnet_is_a_network(subnet: str) -> None:
    with pytest.raises(UsageError, match=r"is no subnet(.|\n)*203\.0\.113\.0/24"):
        Topology().switch("s1", subnet=subnet)


def test_circles_of_switches_are_found_and_those_with_guests_are_none() -> None:
    assert star(4).loops == []
    assert tree(3, 2).loops == []
    assert Topology().loops == []
    assert len(leaf_spine(2, 2).loops) == 1
    two = ring(3, guests=0).switch("s4").link("s4", "s1").link("s4", "s2")
    assert sorted(two.loops) == [["s1", "s2", "s3"], ["s1", "s2", "s4"]]
    over_a_guest = Topology().switch("s1").switch("s2").machine("n1")
    assert over_a_guest.link("n1", "s1").link("n1", "s2").link("s1", "s2").loops == []


# --- YAML -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "topology", [by_hand(), star(3, memory="256M"), ring(4), tree(2, 3), leaf_spine(2, 2), Topology()]
)
def test_yaml_there_and_back_is_the_same(topology: Topology) -> None:
    again = Topology.from_yaml(topology.to_yaml())
    assert same(again, topology)
    assert again.to_yaml() == topology.to_yaml()


def test_yaml_as_a_person_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "拓扑.yaml"
    file.write_text(
        """
machines:
  n1: {memory: 512M}
  n2:
switches: [s1]
links:
  - [n1, s1]
  - {ends: [n2, s1], delay: 50ms, vlan: 10}
"""
    )
    by_call = Topology().machine("n1", memory="512M").machine("n2").switch("s1")
    assert same(Topology.from_yaml(file), by_call.link("n1", "s1").link("n2", "s1", delay="50ms", vlan=10))


def test_an_empty_text_is_an_empty_topology() -> None:
    assert same(Topology.from_yaml(""), Topology())


_BASE = "machines: [n1]\nswitches: [s1]\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("machines: [n1", "This is not YAML: (.|\n)*line 1"),
        ("a: b: c", "This is not YAML"),
        ("!!python/object:os.system {}", "This is not YAML"),
        ("just text", "A topology has no str"),
        ("[n1, n2]", "A topology has no list"),
        ("hosts: [n1]", "A topology has no 'hosts'"),
        ("machines: 5", "machines: 5 is not right"),
        ("machines: n1", "machines: 'n1' is not right"),
        ("machines: [1, 2]", r"machines: \[1, 2\] is not right"),
        ("machines: [{n1: {}}]", "machines: .* is not right"),
        ("machines: [[n1]]", "machines: .* is not right"),
        ("machines: {1: {}}", "machines: .* is not right"),
        ("machines: {n1: 5}", "machines: n1: 5 are no options"),
        ("machines: {n1: [memory]}", r"machines: n1: \['memory'\] are no options"),
        ("machines: {n1: {1: 2}}", "machines: n1: "),
        ("machines: [n1, n1]", "machines: n1: 'n1' is in the topology already"),
        ("machines: [n1]\nswitches: [n1]", "switches: n1: 'n1' is in the topology already"),
        ("switches: {s1: {spaning_tree: true}}", "switches: s1: .*spaning_tree"),
        ("switches: {s1: {subnet: here}}", "switches: s1: 'here' is no subnet"),
        ("switches: {s1: {subnet: 5}}", "switches: s1: "),
        ("uplinks: {u1: {speed: 5}}", "uplinks: u1: .*speed"),
        (_BASE + "links: 5", "links: 5 is not right"),
        (_BASE + "links: {n1: s1}", "links: .* is not right"),
        (_BASE + "links: [n1]", "links: 'n1' has not two ends"),
        (_BASE + "links: [[n1]]", r"links: \['n1'\] has not two ends"),
        (_BASE + "links: [[n1, s1, s1]]", "links: .* has not two ends"),
        (_BASE + "links: [{from: n1, to: s1}]", "links: .* has not two ends"),
        (_BASE + "links: [[n1, s2]]", "links: n1, s2: There is no 's2' to link"),
        (_BASE + "links: [[n1, n1]]", "links: n1, n1: n1 and n1 can't be linked"),
        (_BASE + "links: [[n1, s1], [s1, n1]]", "links: s1, n1: s1 and n1 can't be linked again"),
        (_BASE + "links: [{ends: [n1, s1], dealy: 1s}]", "links: n1, s1: A link has no 'dealy'"),
        (_BASE + "links: [{ends: [n1, s1], delay: soon}]", "links: n1, s1: 'soon' is not a time"),
        (_BASE + "links: [{ends: [n1, s1], loss: 30%}]", "links: n1, s1: '30%' is not a share"),
        (_BASE + "links: [{ends: [n1, s1], trunk: 10}]", "links: n1, s1: 10 is no list of VLANs"),
        (_BASE + "links: [{ends: [n1, s1], 5: 10}]", "links: n1, s1: "),
    ],
)  # fmt: skip
def test_wrong_yaml_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Topology.from_yaml(text)
