"""`live`: the topology as it is now, followed while it changes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Protocol

import networkx as nx

from cloudlab.errors import UsageError
from cloudlab.units import format_size
from cloudlab.views.drawing import Drawing, Link, Node, drawing
from cloudlab.views.layout import positions, stable
from cloudlab.views.shapes import Places
from cloudlab.views.svg import svg
from cloudlab.views.widget import Message, Watching, is_closed, static

_GROWN = 1 / 3  # a picture that has grown by more gets another shape


class Source(Protocol):
    """What can be followed: a `Lab`, a network, anything with a graph of what exists now."""

    @property
    def topology(self) -> nx.Graph[str]:
        """Nodes with kind, state, address; links with state and counters of frames and octets."""
        ...


def live(source: Source, title: str = "") -> Live:
    """Show a lab or a network as it is now, and as it becomes: crashes, cut links, traffic. Goes on while cells run."""
    if not isinstance(getattr(source, "topology", None), nx.Graph):
        raise UsageError(
            f"There is nothing to follow in {source!r}.",
            allowed="a lab or a network (a graph of it shows one moment only)",
            example="live(lab)",
        )
    return Live(source, title)


class Scene(Drawing):
    """A drawing without title and legend: in a notebook they stand beside it."""

    @property
    def bottom(self) -> int:
        """Room for labels below nodes, and for the word of a state."""
        return 50


class Live(Watching):
    """A picture of a topology that follows it; made by `live`."""

    _esm, _css = static("live.js"), static("live.css")
    _period_s = 0.25

    def __init__(self, source: Source, title: str = "") -> None:
        self._source, self._title = source, title
        self._places: Places = {}
        self._names: set[str] = set()
        self._laid_out: set[str] = set()
        self._graph: nx.Graph[str] = nx.Graph()
        self._scene = Scene("", (), ())
        self._octets: dict[str, int] = {}
        self._looked_s = 0.0
        self._shown: Message = {"size": {}, "nodes": {}, "links": {}, "text": ""}
        self._take(self._look())
        super().__init__()

    @property
    def text(self) -> str:
        """What the picture shows, in one line of words."""
        return str(self._shown["text"])

    def _look(self) -> tuple[nx.Graph[str], float]:
        return nx.Graph(self._source.topology), time.monotonic()

    def _take(self, seen: tuple[nx.Graph[str], float]) -> Message:
        graph, now_s = seen
        if self._still_as_it_was(graph):
            self._looked_s = now_s
            return {}
        self._graph = graph
        self._lay_out(graph)
        self._drawing = drawing(graph, "", self._places)
        counted = octets(self._drawing, graph)
        traffic = per_second(self._octets, counted, now_s - self._looked_s)
        shown = describe(self._drawing, self._scene, traffic)
        change = difference(self._shown, shown)
        self._octets, self._looked_s, self._shown = counted, now_s, shown
        return change

    def _still_as_it_was(self, graph: nx.Graph[str]) -> bool:
        """Most looks find nothing new, and should cost next to nothing. Traffic that has just ended is new."""
        flowing = any(link["flow"] for link in self._shown["links"].values())
        return self._shown["text"] != "" and not flowing and nx.utils.graphs_equal(graph, self._graph)

    def _lay_out(self, graph: nx.Graph[str]) -> None:
        """What is there keeps its place, until so much has been added that the picture needs another shape."""
        names = {*graph.nodes, *("-".join(sorted(ends)) for ends in graph.edges)}
        if names == self._names:
            return
        if len(names - self._laid_out) > _GROWN * len(names):
            self._places, self._laid_out = positions(graph), names
        else:
            self._places = stable(self._places, graph)
        seen = drawing(graph, "", self._places)
        self._names, self._scene = names, Scene("", seen.nodes, seen.links)

    def _present(self) -> Message:
        return {**self._shown, "title": self._title}

    def _still(self) -> str:
        return svg(self._graph, self._title, self._places)

    def _is_over(self) -> bool:
        return is_closed(self._source)

    def __repr__(self) -> str:
        return f"<live view of {self._drawing.counted or 'nothing yet'}>"


def describe(seen: Drawing, scene: Drawing, traffic: Mapping[str, float]) -> Message:
    """Return all that the browser needs to draw, as JSON: how things are in `seen`, at the places of `scene`."""
    labels, font = scene.labels
    sides = {label.name: label.side for label in labels}
    places = {node.name: scene.pixel(node) for node in scene.nodes}
    size = {"width": scene.width, "height": scene.height, "marker": scene.marker, "font": font}
    return {
        "size": size,
        "nodes": {node.name: _node(node, places[node.name], sides.get(node.name, "")) for node in seen.nodes},
        "links": {link.name: _link(link, traffic.get(link.name, 0.0), scene.line) for link in seen.links},
        "text": words(seen),
    }


def words(seen: Drawing) -> str:
    """Say in one line how things are: "3 machines running; n2 is crashed"."""
    counted = Drawing("", tuple(node for node in seen.nodes if node.state.word == "running"), ()).counted
    return "; ".join([f"{counted} running" if counted else seen.text, *(seen.troubles if counted else [])])


def _node(node: Node, place: tuple[float, float], side: str) -> Message:
    look = {"path": node.kind.path, "colour": node.colour, "hue": node.kind.colour}
    state = {"state": node.state.word, "solid": node.state.solid, "sign": node.state.sign, "well": node.state.well}
    return {
        **look,
        **state,
        "kind": node.kind.word,
        "details": node.details,
        "x": place[0],
        "y": place[1],
        "side": side,
    }


def _link(link: Link, octets_s: float, line: float) -> Message:
    look = {"colour": link.state.colour, "dash": link.state.dasharray, "sign": link.state.sign, "well": link.state.well}
    flow = {"flow": f"{format_size(octets_s)}/s" if octets_s else "", "width": width(octets_s, line)}
    ends = {"ends": [link.a.name, link.b.name], "kind": link.word, "state": link.state.word, "details": link.details}
    return {**look, **flow, **ends}


def difference(old: Message, new: Message) -> Message:
    """Return what to tell one who knows `old`, so that they know `new`: changed fields of nodes and links, names of those
    that are gone, size and line of words if they changed; empty if all is the same. What is new comes with all its fields.
    """
    change: Message = {}
    for part in ("nodes", "links"):
        before, after = old[part], new[part]
        changed = {name: _changed(before.get(name, {}), fields) for name, fields in after.items()}
        if changed := {name: fields for name, fields in changed.items() if fields}:
            change[part] = changed
        if gone := [name for name in before if name not in after]:
            change.setdefault("gone", {})[part] = gone
    return change | {part: new[part] for part in ("size", "text") if old[part] != new[part]}


def _changed(before: Message, after: Message) -> Message:
    return {key: value for key, value in after.items() if key not in before or before[key] != value}


def octets(seen: Drawing, graph: nx.Graph[str]) -> dict[str, int]:
    """Return the octets that have passed each link that counts them."""
    facts = {link.name: graph.edges[link.a.name, link.b.name] for link in seen.links}
    return {name: found["octets"] for name, found in facts.items() if found.get("octets") is not None}


def per_second(before: Mapping[str, int], after: Mapping[str, int], elapsed_s: float) -> dict[str, float]:
    """Return octets a second of each link, to two digits; a counter that began anew counts from zero."""
    rates = {}
    for name, count in after.items():
        passed = max(count - before.get(name, count), 0)
        rates[name] = float(f"{passed / elapsed_s:.2g}") if elapsed_s > 0 else 0.0
    return rates


def width(octets_s: float, line: float) -> float:
    """Return how wide to draw a link that is `line` wide at rest: each tenfold of traffic adds the same."""
    return round(line * (1 + 0.8 * math.log10(1 + octets_s / 50)), 1)
