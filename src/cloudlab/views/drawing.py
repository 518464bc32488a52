"""A topology as a drawing: what is to be seen, where, how large, and how to say it in words.

`svg` and `figure` only put this on paper, so that the static picture and the interactive one tell the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from cloudlab.errors import UsageError
from cloudlab.units import natural
from cloudlab.views import layout, style
from cloudlab.views.labels import Label, place_labels, shortened, text_width
from cloudlab.views.words import Details, as_text, joined, link_details, names_of, node_details, number, word

if TYPE_CHECKING:
    import networkx as nx

    from cloudlab.views.forces import Point

WIDTH = 760
LEGEND_ROW = 22
ABOVE, BELOW = 34, 42  # room for labels
CROWD = 60
_WELL = {"running", "up"}
_QUIET = {"", *_WELL, style.INSIDE.word}  # no trouble


@dataclass(frozen=True)
class Node:
    """A node to draw; `x` and `y` from 0 to 1."""

    name: str
    kind: style.Kind
    state: style.State
    details: Details
    x: float
    y: float

    @property
    def word(self) -> str:
        """What it is."""
        return self.kind.word

    @property
    def colour(self) -> str:
        """The colour of its outline and its inside."""
        return self.state.colour(self.kind)

    @property
    def legend(self) -> str:
        """Its entry in the legend."""
        return joined((self.word, self.state.word))


@dataclass(frozen=True)
class Link:
    """A link to draw, between the places of its ends."""

    a: Node
    b: Node
    state: style.LinkState
    details: Details

    @property
    def is_link(self) -> bool:
        """Is it a link of a network, and not the line from a container to its machine?"""
        return self.state is not style.INSIDE

    @property
    def word(self) -> str:
        """What it is."""
        return "link" if self.is_link else ""

    @property
    def name(self) -> str:
        """Both ends, the one that comes first in the alphabet of names first: n2-s1."""
        return f"{self.a.name}-{self.b.name}"

    @property
    def legend(self) -> str:
        """Its entry in the legend."""
        return joined((self.word, self.state.word))


@dataclass(frozen=True)
class Drawing:
    """Nodes and links with their places, and the sizes that let them be told apart: lengths in pixels of a picture of
    `width` by `height`, of which `left`, `right`, `top` and `bottom` stay free for labels, title and legend.
    """

    title: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]

    width = WIDTH

    @cached_property
    def height(self) -> int:
        """Height of the picture: more nodes, more room."""
        flat = len({node.y for node in self.nodes}) < 2
        return self.top + self.bottom + (60 if flat else round(min(560, 120 + 40 * math.sqrt(len(self.nodes)))))

    @property
    def top(self) -> int:
        """Room for the title and for labels above nodes."""
        return ABOVE + (30 if self.title else 0)

    @property
    def bottom(self) -> int:
        """Room for labels below nodes and for the legend."""
        return BELOW + LEGEND_ROW * (1 + max((row for _, row in self.legend.values()), default=0))

    @cached_property
    def left(self) -> float:
        """Room beside the outermost nodes for half of the longest label."""
        longest = max((text_width(shortened(node.name), self.largest_font) for node in self.nodes), default=0)
        return math.ceil(max(28, longest / 2 + 8))

    @property
    def largest_font(self) -> int:
        """The size of letters if there is room enough."""
        return next((size for most, size in ((16, 13), (60, 12), (150, 10)) if len(self.nodes) <= most), 9)

    @cached_property
    def marker(self) -> float:
        """Diameter of a node: about half of the distance to the next one."""
        return round(max(4.0, min(24.0, 0.5 * _typical_gap([self.pixel(node) for node in self.nodes]))), 1)

    @property
    def line(self) -> float:
        """Width of a link."""
        return round(max(0.8, self.marker / 12), 1)

    @property
    def sign(self) -> float:
        """Size of the signs inside nodes; 0 where they would be too small to be told apart."""
        return round(0.62 * self.marker, 1) if self.marker >= 9 else 0.0

    @property
    def cut(self) -> float:
        """Size of the sign on a cut link."""
        return round(max(9.0, min(18.0, 1.1 * self.marker)), 1)

    def opacity(self, state: style.LinkState) -> float:
        """In a crowd, links stand back behind nodes and names, unless someone should look at them."""
        return 0.6 if state.well and len(self.nodes) > CROWD else 1.0

    @cached_property
    def labels(self) -> tuple[list[Label], int]:
        """Where each name stands, and the size of its letters; a name for which there is no room is left out."""
        around: dict[str, list[Point]] = {node.name: [] for node in self.nodes}
        for link in self.links:
            around[link.a.name].append(self.pixel(link.b))
            around[link.b.name].append(self.pixel(link.a))
        places = {node.name: self.pixel(node) for node in self.nodes}
        picture = (float(self.width), float(self.height - self.bottom + BELOW))
        return place_labels(places, around, self.marker, self.largest_font, picture)

    @cached_property
    def legend(self) -> dict[str, tuple[int, int]]:
        """Return each entry of the legend with its place: pixels from the left, and row."""
        return legend_places([*(node.legend for node in self.nodes), *(link.legend for link in self.links)])

    @property
    def things(self) -> list[Node | Link]:
        """All nodes, then all links."""
        return [*self.nodes, *self.links]

    def pixel(self, node: Node) -> Point:
        """Return where a node is in the picture, in pixels from the upper left corner."""
        return self.on_paper((node.x, node.y))

    def on_paper(self, place: Point) -> Point:
        """Return where a place (from 0 to 1) is in the picture, in pixels from the upper left corner."""
        across, down = self.width - 2 * self.left, self.height - self.top - self.bottom
        return round(self.left + place[0] * across, 1), round(self.top + (1 - place[1]) * down, 1)

    def ends(self, link: Link) -> tuple[Point, Point]:
        """Return from where to where a link is drawn, from 0 to 1; it ends at the outline of a hollow node."""
        (ax, ay), (bx, by) = self.pixel(link.a), self.pixel(link.b)
        share = 0.55 * self.marker / (math.hypot(bx - ax, by - ay) or 1.0)
        start = 0.0 if link.a.state.solid else share
        end = 1.0 if link.b.state.solid else 1 - share
        return _between(link, min(start, 0.5)), _between(link, max(end, 0.5))

    @property
    def counted(self) -> str:
        """What there is: "4 machines, 1 switch, 4 links"."""
        kinds = Counter(node.kind for node in self.nodes)
        words = [number(count, kind.word, kind.plural) for kind, count in kinds.items()]
        links = sum(link.is_link for link in self.links)
        return ", ".join([*words, *([number(links, "link", "links")] if links else [])])

    @property
    def troubles(self) -> list[str]:
        """What is not as it should be, and what is not running: ["n2 is crashed", "n2-s1 is down"]."""
        groups: dict[str, list[str]] = {}
        for thing in self.things:
            if thing.state.word not in _QUIET:
                groups.setdefault(thing.state.word, []).append(thing.name)
        return [f"{names_of(names)} {'is' if len(names) == 1 else 'are'} {word}" for word, names in groups.items()]

    @property
    def text(self) -> str:
        """The whole picture in one short line."""
        return "; ".join([self.counted, *self.troubles]) if self.nodes else "nothing is running"

    @property
    def alt(self) -> str:
        """The picture in a sentence or two, for whoever doesn't see it."""
        begin = f"{self.title}: " if self.title else ""
        if not self.nodes:
            return f"{begin}Nothing is running."
        states = {thing.state.word for thing in self.things}
        well = ["Everything is running."] if states & _WELL and states <= _QUIET else []
        return " ".join([f"{begin}A network of {self.counted}.", *(f"{trouble}." for trouble in self.troubles), *well])

    @property
    def table(self) -> list[dict[str, str]]:
        """What there is to see, one row for each node and link."""
        return [
            {
                "name": thing.name,
                "kind": thing.word or thing.state.word,
                "state": thing.state.word if thing.word else "",
                "details": as_text(thing.details),
            }
            for thing in self.things
        ]


def drawing(topology: object, title: str = "", positions: Mapping[str, Point] | None = None) -> Drawing:
    """Prepare a topology to be drawn; places are found unless they're given."""
    graph = graph_of(topology)
    places = layout.positions(graph) if positions is None else layout.stable(positions, graph)
    names = sorted(map(str, graph), key=natural)
    facts = {str(name): facts for name, facts in graph.nodes.items()}
    nodes = {name: _node(name, facts[name], places[name]) for name in names}
    rank = {name: number for number, name in enumerate(names)}
    links = []
    for one, other, about in graph.edges(data=True):
        a, b = sorted((str(one), str(other)), key=rank.__getitem__)
        links.append(_link(nodes[a], nodes[b], about))
    links.sort(key=lambda link: (rank[link.a.name], rank[link.b.name]))
    return Drawing(title, tuple(nodes.values()), tuple(links))


def graph_of(topology: Any) -> nx.Graph[Any]:
    """Return the graph of a topology, of a lab or of a network."""
    import networkx as nx

    for candidate in (topology, getattr(topology, "topology", None), getattr(topology, "graph", None)):
        if isinstance(candidate, nx.Graph):
            return nx.Graph(candidate) if candidate.is_directed() or candidate.is_multigraph() else candidate
        inner = getattr(candidate, "graph", None)
        if isinstance(inner, nx.Graph):
            return graph_of(inner)
    raise UsageError(
        f"{topology!r} is not a topology.",
        allowed="a networkx graph, or what has one: a lab, a network, a topology",
        example="figure(lab)",
    )


def legend_places(entries: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Lay out the entries of a legend from left to right; in columns, if they need more than one row."""
    widths = {entry: round(text_width(entry, 12)) + 40 for entry in dict.fromkeys(entries)}
    if sum(widths.values()) <= WIDTH - 40:
        return {entry: (x, 0) for entry, x in zip(widths, accumulate([0, *widths.values()]), strict=False)}
    widest = max(widths.values())
    columns = max(1, (WIDTH - 40) // widest)
    return {entry: (number % columns * widest, number // columns) for number, entry in enumerate(widths)}


def _node(name: str, facts: Mapping[str, Any], place: Point) -> Node:
    x, y = (round(float(value), 4) for value in place)
    return Node(
        name, style.kind(word(facts.get("kind"))), style.state(word(facts.get("state"))), node_details(facts), x, y
    )


def _link(a: Node, b: Node, facts: Mapping[str, Any]) -> Link:
    state = style.INSIDE if facts.get("kind") == style.INSIDE.word else style.link(word(facts.get("state")))
    return Link(a, b, state, link_details(facts))


def _between(link: Link, share: float) -> Point:
    a, b = link.a, link.b
    return round(a.x + share * (b.x - a.x), 4), round(a.y + share * (b.y - a.y), 4)


def _typical_gap(points: list[Point]) -> float:
    """Return the distance that all but the most crowded tenth of the nodes keep from their neighbours in a sweep."""
    if len(points) < 2:
        return math.inf
    gaps = [math.inf] * len(points)
    for turned in (False, True):
        order = sorted(range(len(points)), key=lambda i: points[i][::-1] if turned else points[i])
        for step in (1, 2, 3):
            for i, j in zip(order, order[step:], strict=False):
                gap = math.dist(points[i], points[j])
                gaps[i], gaps[j] = min(gaps[i], gap), min(gaps[j], gap)
    return sorted(gaps)[len(gaps) // 10]
