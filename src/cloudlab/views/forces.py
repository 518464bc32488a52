"""Places for a graph of no particular shape: distances in the picture follow distances in the graph.

Pivot MDS (Brandes and Pich, *Eigensolver methods for progressive multidimensional scaling of large data*, 2006) finds
the rough shape in linear time; a few rounds of Fruchterman and Reingold's springs (1991) then pull crowds apart.
Everything starts from sorted names, and each round is rounded, so that every machine finds the same places.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence

Point = tuple[float, float]
Neighbours = Mapping[str, Sequence[str]]
PIVOTS = 12
WORK = 90_000  # about how many pairs of nodes all rounds together may look at: 0.1 s


def spread(neighbours: Neighbours) -> dict[str, Point]:
    """Place the nodes of a connected graph; about one unit lies between neighbours."""
    names = list(neighbours)
    ideal = math.sqrt(len(names))
    places = _sized(pivot_mds(neighbours), ideal)
    rounds = max(12, min(80, WORK // (12 * len(names))))
    for step in range(rounds):
        places = _round(places, neighbours, 0.5 * ideal**0.5 * (1 - step / rounds) ** 1.5 + 0.02)
    return places


def hops(neighbours: Neighbours, start: str) -> dict[str, int]:
    """Return how many links away each node is (breadth-first search)."""
    distance, queue = {start: 0}, deque([start])
    while queue:
        here = queue.popleft()
        for other in neighbours[here]:
            if other not in distance:
                distance[other] = distance[here] + 1
                queue.append(other)
    return distance


def pivot_mds(neighbours: Neighbours) -> dict[str, Point]:
    """Place nodes by their distances to a few pivots that lie far from each other."""
    names = list(neighbours)
    columns = _pivot_distances(neighbours, min(PIVOTS, len(names)))
    centred = _doubly_centred([[float(column[name] ** 2) for column in columns] for name in names])
    first = _main_axis(centred, ())
    second = _main_axis(centred, (first,))
    return {name: (_dot(row, first), _dot(row, second)) for name, row in zip(names, centred, strict=True)}


def _pivot_distances(neighbours: Neighbours, count: int) -> list[dict[str, int]]:
    """Choose pivots, each the farthest from those before, and return the distances from each."""
    pivot, columns = next(iter(neighbours)), list[dict[str, int]]()
    nearest = dict.fromkeys(neighbours, len(neighbours))
    for _ in range(count):
        columns.append(hops(neighbours, pivot))
        nearest = {name: min(far, columns[-1][name]) for name, far in nearest.items()}
        pivot = max(nearest, key=lambda name: nearest[name])
    return columns


def _doubly_centred(rows: list[list[float]]) -> list[list[float]]:
    across = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    overall = sum(across) / len(across)
    means = [sum(row) / len(row) for row in rows]
    return [
        [(down + mean - overall - cell) / 2 for cell, down in zip(row, across, strict=True)]
        for row, mean in zip(rows, means, strict=True)
    ]


def _main_axis(rows: list[list[float]], without: tuple[list[float], ...]) -> list[float]:
    """Return the direction in which the rows differ most (power iteration), at a right angle to those given."""
    size = len(rows[0])
    matrix = [[sum(row[i] * row[j] for row in rows) for j in range(size)] for i in range(size)]
    axis = [1.0 / (i + 1) ** (1 + len(without)) for i in range(size)]
    for _ in range(60):
        for other in without:
            overlap = _dot(axis, other)
            axis = [a - overlap * b for a, b in zip(axis, other, strict=True)]
        axis = [_dot(row, axis) for row in matrix]
        length = math.sqrt(_dot(axis, axis)) or 1.0
        axis = [round(a / length, 9) for a in axis]
    return axis


def _dot(a: Iterable[float], b: Iterable[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _sized(places: dict[str, Point], size: float) -> dict[str, Point]:
    """Scale to a square of this size, and move nodes that lie on each other a little apart, along a spiral."""
    scale = max((abs(value) for place in places.values() for value in place), default=0.0) or 1.0
    result = {}
    for number, (name, (x, y)) in enumerate(places.items()):
        angle = 2.399963 * number  # the golden angle: no two directions are alike
        away = 0.3 + 0.2 * (number % 5)
        result[name] = (x / scale * size / 2 + away * math.cos(angle), y / scale * size / 2 + away * math.sin(angle))
    return result


def _round(places: dict[str, Point], neighbours: Neighbours, limit: float) -> dict[str, Point]:
    """One round of springs: near nodes push each other away, links pull; no node moves farther than the limit."""
    push = _pushes(places)
    moved = {}
    for name, (x, y) in places.items():
        fx, fy = push[name]
        for other in neighbours[name]:
            dx, dy = places[other][0] - x, places[other][1] - y
            pull = math.hypot(dx, dy) * 0.5
            fx, fy = fx + dx * pull, fy + dy * pull
        length = math.hypot(fx, fy)
        step = min(limit, length) / length if length else 0.0
        moved[name] = (round(x + fx * step, 6), round(y + fy * step, 6))
    return moved


def _pushes(places: dict[str, Point], reach: float = 2.0) -> dict[str, Point]:
    """Return the push on each node from the nodes within reach, found by the cell of a grid that they're in."""
    cells = defaultdict(list)
    for name, (x, y) in places.items():
        cells[int(x // reach), int(y // reach)].append((name, x, y))
    pushes = {}
    for (column, row), members in cells.items():
        near = [node for c in (-1, 0, 1) for r in (-1, 0, 1) for node in cells.get((column + c, row + r), ())]
        for name, x, y in members:
            pushes[name] = _push(name, x, y, near)
    return pushes


def _push(name: str, x: float, y: float, near: list[tuple[str, float, float]]) -> Point:
    fx = fy = 0.0
    for other, ox, oy in near:
        if other != name:
            dx, dy = x - ox, y - oy
            square = dx * dx + dy * dy + 1e-4
            fx, fy = fx + dx / square, fy + dy / square
    return fx, fy
