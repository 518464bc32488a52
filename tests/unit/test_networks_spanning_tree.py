"""The spanning tree: switches of random networks talk, by hand-carried frames and a clock of ours, until they agree."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import networkx as nx
import pytest

from cloudlab.networks import Switch
from cloudlab.networks.frames import BROADCAST, STP_GROUP
from cloudlab.networks.spanning_tree import HELLO_S, Claim, SpanningTree, decode, encode
from cloudlab.networks.switch import Output

_MOST = 100_000  # frames until a network must have come to rest
_SETTLE = 12  # hellos: three times as long as what is no longer true is believed


class Wires:
    """Switches joined as a graph says; each port is called after the neighbour at its other end."""

    def __init__(self, graph: nx.Graph[str]) -> None:
        self.graph, self.now = graph, 0.0
        self.switches = {name: Switch(name, spanning_tree=True, clock=lambda: self.now) for name in graph}
        self._queue: deque[tuple[str, str, bytes]] = deque()
        for a, b in graph.edges:
            self.switches[a].add_port(b)
            self.switches[b].add_port(a)
        for a, b in graph.edges:
            self._change(a, b, up=True)

    def cut(self, a: str, b: str) -> None:
        self.graph.remove_edge(a, b)
        self._change(a, b, up=False)

    def heal(self, a: str, b: str) -> None:
        self.graph.add_edge(a, b)
        self._change(a, b, up=True)

    def _change(self, a: str, b: str, *, up: bool) -> None:
        for here, there in ((a, b), (b, a)):
            switch = self.switches[here]
            self.send(here, switch.port_changed(switch.ports[there], up=up))

    def send(self, sender: str, outputs: list[Output]) -> None:
        self._queue.extend((port.name, sender, frame) for port, frame in outputs)

    def carry(self) -> int:
        """Carry frames until none is on its way; returns how many there were."""
        count = 0
        while self._queue:
            count += 1
            assert count < _MOST, "frames go in circles"
            to, sender, frame = self._queue.popleft()
            if self.graph.has_edge(to, sender):
                self.send(to, self.switches[to].receive(self.switches[to].ports[sender], frame))
        return count

    def settle(self) -> None:
        self.carry()
        for _ in range(_SETTLE):
            self.now += HELLO_S
            for name, switch in self.switches.items():
                self.send(name, switch.tick())
            self.carry()

    @property
    def open(self) -> nx.Graph[str]:
        """The links that are open at both ends."""
        tree: nx.Graph[str] = nx.Graph()
        tree.add_nodes_from(self.graph)
        blocked = {name: switch.blocked for name, switch in self.switches.items()}
        tree.add_edges_from((a, b) for a, b in self.graph.edges if b not in blocked[a] and a not in blocked[b])
        return tree


def number(name: str) -> int:
    return int(name[1:])


def check_spanning_tree(wires: Wires) -> None:
    """Open links make no circle, and join all that is joined; one root in each part: the lowest number."""
    tree = wires.open
    assert nx.is_forest(tree), tree.edges
    assert set(map(frozenset, nx.connected_components(tree))) == set(
        map(frozenset, nx.connected_components(wires.graph))
    ), (tree.edges, wires.graph.edges)
    for part in nx.connected_components(wires.graph):
        lowest = wires.switches[min(part, key=number)]
        roots = {wires.switches[name].tree.root for name in part}  # type: ignore[union-attr]
        assert roots == {lowest.tree.bridge}  # type: ignore[union-attr]


def random_graph(seed: int) -> nx.Graph[str]:
    chance = random.Random(seed)
    nodes = chance.randint(2, 9)
    graph = nx.gnm_random_graph(nodes, chance.randint(nodes - 1, 2 * nodes), seed=seed)
    names = {node: f"s{place}" for node, place in zip(graph, chance.sample(range(1, 100), nodes), strict=True)}
    return nx.relabel_nodes(graph, names)


def ring(n: int) -> Wires:
    return Wires(nx.relabel_nodes(nx.cycle_graph(n), {i: f"s{i + 1}" for i in range(n)}))


# --- what comes of it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tens", range(10))
def test_open_ports_of_random_networks_are_a_spanning_tree_through_cuts_and_heals(tens: int) -> None:
    for seed in range(10 * tens, 10 * tens + 10):
        chance, wires = random.Random(seed), Wires(random_graph(seed))
        wires.settle()
        check_spanning_tree(wires)
        for _ in range(2):
            links = sorted(wires.graph.edges)
            if not links:
                break
            a, b = chance.choice(links)
            wires.cut(a, b)
            wires.settle()
            check_spanning_tree(wires)
            if chance.random() < 0.5:
                wires.heal(a, b)
                wires.settle()
                check_spanning_tree(wires)


def test_the_root_lost_is_replaced_by_the_next_lowest_number() -> None:
    wires = ring(5)
    wires.settle()
    wires.cut("s1", "s2")
    wires.cut("s1", "s5")
    wires.settle()
    check_spanning_tree(wires)
    wires.heal("s1", "s2")
    wires.settle()
    check_spanning_tree(wires)


def test_a_ring_leaves_out_the_link_farthest_from_the_root() -> None:
    wires = ring(5)
    wires.settle()
    assert {frozenset(edge) for edge in wires.graph.edges} - {frozenset(edge) for edge in wires.open.edges} == {
        frozenset({"s3", "s4"})
    }


def test_each_switch_takes_the_shortest_way_to_the_root() -> None:
    for seed in range(30):
        graph = random_graph(seed)
        wires = Wires(graph)
        wires.settle()
        for part in nx.connected_components(graph):
            root = min(part, key=number)
            steps = nx.single_source_shortest_path_length
            assert steps(wires.open, root) == steps(graph, root)


def test_a_broadcast_in_a_settled_ring_reaches_each_guest_once() -> None:
    wires = ring(6)
    wires.settle()
    guests = {name: switch.add_port("guest") for name, switch in wires.switches.items()}
    wires.send("s1", wires.switches["s1"].receive(guests["s1"], BROADCAST + bytes(60)))
    wires.carry()
    assert [guests[name].frames_out for name in sorted(guests)] == [0, 1, 1, 1, 1, 1]


def test_a_settled_network_says_little() -> None:
    wires = ring(6)
    wires.settle()
    wires.now += HELLO_S
    for name, switch in wires.switches.items():
        wires.send(name, switch.tick())
    assert wires.carry() <= 2 * wires.graph.number_of_edges()


def test_addresses_are_forgotten_when_the_tree_changes_its_shape() -> None:
    wires = ring(3)
    wires.settle()
    switch = wires.switches["s2"]
    guest = switch.add_port("guest")
    switch.receive(guest, BROADCAST + bytes(5) + b"\x02" + bytes(50))
    assert len(switch.mac_table) == 1
    wires.cut("s1", "s2")
    wires.settle()
    assert switch.mac_table == []


def test_a_switch_that_falls_silent_is_forgotten_without_a_carrier_lost() -> None:
    """The cable is in, and nothing comes: after the maximum age the claim counts no more."""
    wires = ring(3)
    wires.settle()
    dumb = wires.switches.pop("s1")
    wires.graph.remove_node("s1")
    assert dumb.tree is not None
    wires.settle()
    tree = wires.switches["s3"].tree
    assert tree is not None
    assert tree.root == wires.switches["s2"].tree.bridge  # type: ignore[union-attr]
    assert wires.switches["s3"].blocked == []


def test_a_switch_switched_off_and_on_joins_again() -> None:
    wires = ring(4)
    wires.settle()
    root = wires.switches["s1"]
    root.power_off()
    for other in ("s2", "s4"):
        wires.cut("s1", other)
    wires.settle()
    root.power_on()
    for other in ("s2", "s4"):
        wires.heal("s1", other)
    wires.settle()
    check_spanning_tree(wires)


# --- one switch's part ------------------------------------------------------------------------------------------


@pytest.fixture
def tree() -> SpanningTree:
    """Switch s5, with cables in two ports."""
    made = SpanningTree("s5", lambda: 0.0)
    made.port_up("a")
    made.port_up("b")
    return made


def bridge(n: int) -> bytes:
    return SpanningTree(f"s{n}").bridge


def test_a_name_predicts_the_bridge_number() -> None:
    assert bridge(7).hex() == "8000020000000007"
    assert bridge(2) < bridge(10)
    assert SpanningTree("core").bridge > bridge(999)
    assert SpanningTree("core").bridge != SpanningTree("edge").bridge


def test_alone_it_is_the_root_and_all_ports_are_open(tree: SpanningTree) -> None:
    assert tree.root == tree.bridge
    assert [port for port, _ in tree.tick()] == ["a", "b"]
    assert tree.forwards("a")
    assert tree.forwards("a guest's port")


def test_a_lower_number_is_the_root_and_is_passed_on(tree: SpanningTree) -> None:
    said = dict(tree.hear("a", encode(Claim(bridge(1), 0, bridge(1), 1))))
    assert tree.root == bridge(1)
    assert tree.root_port == "a"
    assert decode(said["b"]) == Claim(bridge(1), 19, tree.bridge, 2, 1)
    assert "a" not in said


def test_a_worse_claim_is_answered_with_the_better_one(tree: SpanningTree) -> None:
    said = dict(tree.hear("a", encode(Claim(bridge(9), 0, bridge(9), 1))))
    assert decode(said["a"]) == Claim(tree.bridge, 0, tree.bridge, 1)


def test_a_claim_passed_on_too_often_is_not_believed(tree: SpanningTree) -> None:
    tree.hear("a", encode(Claim(bridge(1), 0, bridge(1), 1, age=20)))
    assert tree.root == tree.bridge


def test_a_port_without_a_neighbour_hears_nothing(tree: SpanningTree) -> None:
    """A guest that claims to be the root is not believed: its port has no switch at the other end."""
    assert tree.hear("guest", encode(Claim(bridge(1), 0, bridge(1), 1))) == []
    assert tree.root == tree.bridge


def test_a_switch_without_spanning_tree_is_deaf_to_it() -> None:
    switch = Switch("s5")
    port = switch.add_port("a")
    switch.add_port("b")
    assert switch.port_changed(port, up=True) == []
    assert switch.receive(port, encode(Claim(bridge(1), 0, bridge(1), 1))) == []
    assert switch.blocked == []


# --- on the wire ------------------------------------------------------------------------------------------------


def test_what_was_encoded_is_decoded_again() -> None:
    chance = random.Random(3)
    for _ in range(1000):
        claim = Claim(
            chance.randbytes(8),
            chance.getrandbits(32),
            chance.randbytes(8),
            chance.randrange(0x8000),
            chance.randrange(21),
        )
        frame = encode(claim)
        assert decode(frame) == claim
        assert frame[:6] == STP_GROUP
        assert decode(frame + bytes(8)) == claim, "a card pads short frames"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda frame: frame[:51],
        lambda frame: frame[:14],
        lambda frame: frame[:14] + b"\xaa\xaa\x03" + frame[17:],
        lambda frame: frame[:17] + b"\x00\x01" + frame[19:],
        lambda frame: frame[:20] + b"\x80" + frame[21:],
        lambda frame: STP_GROUP + bytes(60),
    ],
    ids=["cut short", "header alone", "not STP", "another protocol", "topology change", "zeros"],
)
def test_what_is_no_claim_is_ignored(tree: SpanningTree, spoil: Callable[[bytes], bytes]) -> None:
    frame = spoil(encode(Claim(bridge(1), 0, bridge(1), 1)))
    assert decode(frame) is None
    assert tree.hear("a", frame) == []
    assert tree.root == tree.bridge


def test_ten_thousand_random_claims_do_not_break_it(tree: SpanningTree) -> None:
    chance = random.Random(5)
    for _ in range(10_000):
        frame = bytearray(encode(Claim(bridge(chance.randrange(9)), 0, bridge(chance.randrange(9)), 1)))
        for _ in range(chance.randrange(6)):
            frame[chance.randrange(22, 52)] = chance.randrange(256)
        for port, said in tree.hear(chance.choice("ab"), bytes(frame)):
            assert port in "ab"
            assert decode(said) is not None
        if chance.random() < 0.01:
            tree.port_down("a")
            tree.port_up("a")


def test_a_cost_that_no_way_can_have_is_ignored(tree: SpanningTree) -> None:
    assert tree.hear("a", encode(Claim(bridge(1), 0xFFFFFFFF, bridge(1), 1))) == []
    assert tree.root == tree.bridge


def test_its_own_claim_coming_back_does_not_make_it_its_own_neighbour(tree: SpanningTree) -> None:
    for port, frame in tree.tick():
        tree.hear("b" if port == "a" else "a", frame)
    assert tree.root == tree.bridge
    assert tree.root_port == ""
