"""A topology: which machines, switches and links there shall be. Pure data; `lab.start(topology)` makes it real."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import networkx as nx
import yaml

from cloudlab.errors import UsageError
from cloudlab.networks.link import Link
from cloudlab.networks.switch import check_vlans

KINDS = ("machine", "switch", "router", "uplink")
_SECTIONS = {"machines": "machine", "switches": "switch", "routers": "router", "uplinks": "uplink"}
_CONDITIONS = ("delay", "jitter", "loss", "rate", "vlan", "trunk")


class Topology:
    """A network to be built. Each call adds something and returns the topology, so that calls can be chained:

    `Topology().machine("n1").machine("n2").switch("s1").link("n1", "s1").link("n2", "s1", delay="50ms")`.
    """

    def __init__(self) -> None:
        self.graph: nx.Graph[str] = nx.Graph()

    def machine(self, name: str, **options: Any) -> Topology:
        """Add a guest; `options` are those of `lab.machine`."""
        return self._add(name, "machine", options)

    def switch(self, name: str, *, spanning_tree: bool = False, subnet: str = "10.0.0.0/16") -> Topology:
        """Add a switch. Guests on it have addresses in `subnet`, with the number of their name."""
        return self._add(name, "switch", {"spanning_tree": spanning_tree, "subnet": str(parse_subnet(subnet))})

    def router(self, name: str, **options: Any) -> Topology:
        """Add a guest that forwards packets and hides its first network behind its second one's address (NAT).

        Its first link is the inside, the second the outside.
        """
        return self._add(name, "router", options)

    def uplink(self, name: str) -> Topology:
        """Add a way out to the network of this computer (see `Uplink`); it has one link, to a switch."""
        return self._add(name, "uplink", {})

    def _add(self, name: str, kind: str, options: dict[str, Any]) -> Topology:
        if name in self.graph:
            raise UsageError(
                f"{name!r} is in the topology already.", allowed="a name that is free", example=f'.{kind}("{name}b")'
            )
        self.graph.add_node(name, kind=kind, options=options)
        return self

    def link(self, a: str, b: str, **conditions: Any) -> Topology:
        """Add a link between two nodes: `delay`, `jitter`, `loss`, `rate` as in `Link.set`; at a switch, `vlan=10` for an access
        port, `trunk=[10, 20]` for tagged frames."""
        for name in (a, b):
            if name not in self.graph:
                raise UsageError(
                    f"There is no {name!r} to link.",
                    allowed=", ".join(self.graph) or "add nodes first",
                    example=f'.machine("{name}")',
                )
        if a == b or b in self.graph.adj[a]:
            raise UsageError(
                f"{a} and {b} can't be linked{' again' if a != b else ''}.", allowed="one link between two nodes"
            )
        unknown = [key for key in conditions if key not in _CONDITIONS]
        if unknown:
            raise UsageError(
                f"A link has no {unknown[0]!r}.",
                allowed=", ".join(_CONDITIONS),
                example=f'.link("{a}", "{b}", delay="50ms")',
            )
        _check_conditions(**conditions)
        self.graph.add_edge(a, b, number=self.graph.number_of_edges(), ends=(a, b), conditions=conditions)
        return self

    @property
    def links(self) -> list[tuple[str, str, dict[str, Any]]]:
        """All links in the order in which they were added: the two ends, and the conditions."""
        edges = sorted((edge for _, _, edge in self.graph.edges(data=True)), key=lambda edge: edge["number"])
        return [(*edge["ends"], edge["conditions"]) for edge in edges]

    def named(self, *kinds: str) -> list[str]:
        """Return the names of all nodes of some kinds, in the order in which they were added."""
        return [name for name, facts in self.graph.nodes(data=True) if facts["kind"] in kinds]

    @property
    def loops(self) -> list[list[str]]:
        """Circles of switches in which frames would go round for ever: each as the switches on it."""
        switches = self.graph.subgraph(self.named("switch"))
        return [sorted(circle) for circle in nx.minimum_cycle_basis(switches)] if switches.number_of_edges() else []

    @classmethod
    def from_yaml(cls, text: str | Path) -> Topology:
        """Read a topology from YAML text or a file.

        Sections `machines`, `switches`, `routers`, `uplinks` (a list of names, or names with options) and `links`
        (`[n1, s1]`, or `{ends: [n1, s1], delay: 50ms}`). Raises `UsageError` with the place of what is wrong.
        """
        source = text.read_text() if isinstance(text, Path) else text
        try:
            data = yaml.safe_load(source) or {}
        except yaml.YAMLError as error:
            raise UsageError(
                f"This is not YAML: {error}", allowed="sections machines, switches, links", example=_EXAMPLE
            ) from error
        if not isinstance(data, dict) or not set(data) <= {*_SECTIONS, "links"}:
            raise UsageError(
                f"A topology has no {_strange(data)}.", allowed=", ".join([*_SECTIONS, "links"]), example=_EXAMPLE
            )
        topology = cls()
        for section, kind in _SECTIONS.items():
            for name, options in _named(data.get(section) or {}, section):
                _call(getattr(topology, kind), section, [name], options)
        for ends, conditions in _links(data.get("links") or []):
            _call(topology.link, "links", ends, conditions)
        return topology

    def to_yaml(self) -> str:
        """Write it as YAML; `from_yaml` reads it back."""
        nodes = {
            section: {name: self.graph.nodes[name]["options"] for name in self.named(kind)}
            for section, kind in _SECTIONS.items()
        }
        links = [{"ends": [a, b], **conditions} if conditions else [a, b] for a, b, conditions in self.links]
        return yaml.safe_dump(
            {**{key: value for key, value in nodes.items() if value}, "links": links}, sort_keys=False
        )

    def __repr__(self) -> str:
        counts = [
            f"{len(self.named(kind))} {kind}{'' if len(self.named(kind)) == 1 else 'es' if kind == 'switch' else 's'}"
            for kind in KINDS
            if self.named(kind)
        ]
        return f"<topology: {', '.join([*counts, f'{self.graph.number_of_edges()} links'])}>"


_EXAMPLE = "machines: [n1, n2]\nswitches: [s1]\nlinks: [[n1, s1], [n2, s1]]"


def _strange(data: Any) -> str:
    return (
        repr(next(key for key in data if key not in {*_SECTIONS, "links"}))
        if isinstance(data, dict)
        else type(data).__name__
    )


def _named(entries: Any, section: str) -> Iterable[tuple[str, dict[str, Any]]]:
    pairs = [(name, {}) for name in entries] if isinstance(entries, list) else entries
    pairs = [(name, options or {}) for name, options in pairs.items()] if isinstance(pairs, dict) else pairs
    if not isinstance(pairs, list) or not all(isinstance(name, str) for name, _ in pairs):
        raise UsageError(
            f"{section}: {entries!r} is not right.", allowed="a list of names, or names with options", example=_EXAMPLE
        )
    return pairs


def _links(entries: Any) -> list[tuple[list[str], dict[str, Any]]]:
    if not isinstance(entries, list):
        raise UsageError(f"links: {entries!r} is not right.", allowed="a list of links", example=_EXAMPLE)
    return [_link(entry) for entry in entries]


def _link(entry: Any) -> tuple[list[str], dict[str, Any]]:
    conditions = dict(entry) if isinstance(entry, dict) else {}
    ends = conditions.pop("ends", None) if isinstance(entry, dict) else entry
    if not isinstance(ends, list) or len(ends) != 2:
        raise UsageError(
            f"links: {entry!r} has not two ends.", allowed="[n1, s1] or {ends: [n1, s1], delay: 50ms}", example=_EXAMPLE
        )
    return [str(end) for end in ends], conditions


def _call(add: Any, section: str, names: list[str], options: Any) -> None:
    """Add a node or a link; an error says where it is in the file."""
    place = f"{section}: {', '.join(names)}"
    if not isinstance(options, dict):
        raise UsageError(f"{place}: {options!r} are no options.", allowed="options with values", example="memory: 512M")
    try:
        add(*names, **options)
    except TypeError as error:
        raise UsageError(f"{place}: {error}", example=_EXAMPLE) from error
    except UsageError as error:
        raise UsageError(f"{place}: {error.problem}", allowed=error.allowed, example=error.example) from error


def parse_subnet(text: str) -> ipaddress.IPv4Network:
    """Return a network: "203.0.113.0/24"; raises `UsageError` if it is none."""
    try:
        return ipaddress.IPv4Network(str(text))  # a bare number would be an address
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no subnet: {error}.", allowed="an IPv4 network", example='subnet="203.0.113.0/24"'
        ) from error


def _check_conditions(vlan: int = 1, trunk: Iterable[int] | None = None, **conditions: Any) -> None:
    """Wrong values are told here, not when the network starts."""
    check_vlans(vlan, trunk)
    Link("a", "b").set(**conditions)


# --- shapes ---


def _check_count(value: int, what: str, least: int = 1, most: int = 1000) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UsageError(f"{value!r} is no number of {what}.", allowed=f"{least} to {most}", example="star(4)")


def star(n: int, **options: Any) -> Topology:
    """n guests (n1 …) on one switch, s1; `options` are those of `lab.machine`."""
    _check_count(n, "guests")
    topology = Topology().switch("s1")
    for number in range(1, n + 1):
        topology.machine(f"n{number}", **options).link(f"n{number}", "s1")
    return topology


def tree(depth: int, fanout: int, **options: Any) -> Topology:
    """A tree of switches, `depth` levels of them, `fanout` children each; below the last level are guests."""
    _check_count(depth, "levels", most=8)
    _check_count(fanout, "children")
    topology, level, switches = Topology().switch("s1"), ["s1"], 1
    for _ in range(depth - 1):
        below = []
        for parent in level:
            for _ in range(fanout):
                switches += 1
                topology.switch(f"s{switches}").link(parent, f"s{switches}")
                below.append(f"s{switches}")
        level = below
    return _with_guests(topology, level, fanout, options)


def ring(n: int, guests: int = 1, *, spanning_tree: bool = True, **options: Any) -> Topology:
    """n switches in a circle, each with some guests; without `spanning_tree` the first broadcast goes round for ever."""
    _check_count(n, "switches", least=3)
    topology = Topology()
    for number in range(1, n + 1):
        topology.switch(f"s{number}", spanning_tree=spanning_tree)
    for number in range(1, n + 1):
        topology.link(f"s{number}", f"s{number % n + 1}")
    return _with_guests(topology, topology.named("switch"), guests, options)


def leaf_spine(leaves: int, spines: int, guests: int = 2, *, spanning_tree: bool = True, **options: Any) -> Topology:
    """Each leaf switch is linked to each spine switch, and has some guests: the shape of a data centre's network.

    The spines are s1 to s`spines`, the leaves follow. All but one way between two leaves is left out by the spanning tree.
    """
    _check_count(leaves, "leaves")
    _check_count(spines, "spines")
    topology = Topology()
    for number in range(1, spines + leaves + 1):
        topology.switch(f"s{number}", spanning_tree=spanning_tree)
    below = [f"s{number}" for number in range(spines + 1, spines + leaves + 1)]
    for leaf in below:
        for spine in range(1, spines + 1):
            topology.link(leaf, f"s{spine}")
    return _with_guests(topology, below, guests, options)


def _with_guests(topology: Topology, switches: list[str], each: int, options: dict[str, Any]) -> Topology:
    number = 0
    for switch in switches:
        for _ in range(each):
            number += 1
            topology.machine(f"n{number}", **options).link(f"n{number}", switch)
    return topology
