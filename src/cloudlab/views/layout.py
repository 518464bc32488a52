"""Where to draw each node: the same places on every machine, whatever the order in which things were added."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cloudlab.units import natural
from cloudlab.views.forces import Neighbours, Point, hops
from cloudlab.views.shapes import TURN, Places, place

if TYPE_CHECKING:
    import networkx as nx


def positions(graph: nx.Graph[Any]) -> Places:
    """Return the place of each node: x and y from 0 to 1, with 0,0 at the lower left."""
    names = sorted((str(name) for name in graph), key=natural)
    neighbours = _neighbours(graph, names)
    kinds = {str(name): str(kind) for name, kind in graph.nodes(data="kind")}
    parts = sorted(_components(names, neighbours), key=lambda part: -len(part))
    return _side_by_side([place({name: neighbours[name] for name in part}, kinds) for part in parts])


def stable(old: Mapping[str, Point], graph: nx.Graph[Any]) -> Places:
    """Return places for a graph that has changed: what was there keeps its place, what is new comes beside its neighbours."""
    kept = {name: old[name] for name in map(str, graph) if name in old}
    if not kept:
        return positions(graph)
    if len(kept) == len(graph):
        return {name: kept[name] for name in map(str, graph)}
    fresh = positions(graph)
    gap = 0.6 / math.sqrt(len(fresh) + 3)
    for name in sorted(fresh.keys() - kept.keys(), key=natural):
        beside = [kept[other] for other in sorted(map(str, graph[name]), key=natural) if other in kept]
        kept[name] = _free_place(fresh[name], beside, list(kept.values()), gap)
    return {name: kept[name] for name in fresh}


def _neighbours(graph: nx.Graph[Any], names: list[str]) -> Neighbours:
    rank = {name: number for number, name in enumerate(names)}
    linked: dict[str, set[str]] = {name: set() for name in names}
    for a, b in graph.edges():
        if a != b:
            linked[str(a)].add(str(b))
            linked[str(b)].add(str(a))
    return {name: sorted(linked[name], key=rank.__getitem__) for name in names}


def _components(names: list[str], neighbours: Neighbours) -> Iterable[list[str]]:
    seen: set[str] = set()
    for name in names:
        if name not in seen:
            reached = hops(neighbours, name)
            seen |= reached.keys()
            yield [other for other in names if other in reached]


# --- parts side by side, and places for newcomers ---------------------------------------------------------------------
def _side_by_side(parts: list[Places]) -> Places:
    """Scale each part to its share of the picture: large ones beside each other, then rows of small ones below."""
    if not parts:
        return {}
    small = [part for part in parts if len(part) < 3] if len(parts) > 2 else []
    large = [part for part in parts if len(part) >= 3 or not small]
    rows = _shelves(small, max(1, math.ceil(math.sqrt(3 * len(small)))))
    if large:
        rows = [*_shelves(large, max(1, math.ceil(math.sqrt(2 * len(large)) - 0.5))), *rows]
    weights = [max(_weight(part) for part in row) for row in rows]
    result: Places = {}
    top = 1.0
    for row, weight in zip(rows, weights, strict=True):
        height = weight / sum(weights)
        result |= _shelf(row, top - height, height, len(rows) > 1)
        top -= height
    return result


def _shelves(parts: list[Places], count: int) -> list[list[Places]]:
    return [parts[start : start + count] for start in range(0, len(parts), count)]


def _weight(part: Places) -> float:
    return math.sqrt(len(part)) + 0.3


def _shelf(row: list[Places], bottom: float, height: float, several: bool) -> Places:
    result: Places = {}
    left, total = 0.0, sum(map(_weight, row))
    for part in row:
        width = _weight(part) / total
        margin_x, margin_y = 0.1 * width if len(row) > 1 else 0, 0.16 * height if several else 0
        result |= _fitted(part, left + margin_x, bottom + margin_y, width - 2 * margin_x, height - 2 * margin_y)
        left += width
    return result


def _fitted(part: Places, left: float, bottom: float, width: float, height: float) -> Places:
    """Stretch a part over a rectangle; what has no width or height goes to the middle."""
    across, up = _scale([x for x, _ in part.values()]), _scale([y for _, y in part.values()])
    return {
        name: (round(left + width * across(x), 4), round(bottom + height * up(y), 4)) for name, (x, y) in part.items()
    }


def _scale(values: list[float]) -> Callable[[float], float]:
    """Map values from their own range to 0..1."""
    low, span = min(values), max(values) - min(values)
    return lambda value: (value - low) / span if span > 1e-6 else 0.5


def _free_place(wished: Point, beside: list[Point], taken: list[Point], gap: float) -> Point:
    """Return the first place that keeps the gap to all taken ones, near the neighbours; else the least crowded one."""
    centre = (sum(x for x, _ in beside) / len(beside), sum(y for _, y in beside) / len(beside)) if beside else wished
    rings = [
        (centre[0] + gap * ring * math.cos(TURN * turn / 16), centre[1] + gap * ring * math.sin(TURN * turn / 16))
        for ring in (1.5, 2, 2.5, 3, 4, 5)
        for turn in range(16)
    ]
    inside = [(round(x, 4), round(y, 4)) for x, y in rings if 0 <= x <= 1 and 0 <= y <= 1]
    best, most = wished, -1.0
    for spot in [wished, *inside]:
        room = min(math.dist(spot, other) for other in taken)
        if room >= gap:
            return spot
        if room > most:
            best, most = spot, room
    return best
