"""Where names stand beside their nodes: readable, inside the picture, none on top of another.

The greedy form of point-feature label placement (Christensen, Marks and Shieber, *An empirical study of algorithms for
point-feature label placement*, 1995): each name takes the best of four places that is still free.
"""

from __future__ import annotations

import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cloudlab.views.forces import Point

Box = tuple[float, float, float, float]
LONGEST = 20
MOST = 400  # nobody reads more names in one picture; see _wanted
_CELL = 40.0
_SIDES = {"below": (0, 1), "above": (0, -1), "right": (1, 0), "left": (-1, 0)}


@dataclass(frozen=True)
class Label:
    """A name that is shown: on which side of its node, and the box that it fills: left, top, right, bottom in pixels."""

    name: str
    text: str
    side: str
    box: Box


def text_width(text: str, font: float) -> float:
    """Estimate how wide a text is, in pixels: about 0.58 of the size for each letter, the whole size for Chinese ones."""
    return sum(1.0 if unicodedata.east_asian_width(letter) in "WF" else 0.58 for letter in text) * font


def shortened(name: str, longest: int = LONGEST) -> str:
    """Return a name, without its end if it's very long."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def place_labels(
    places: Mapping[str, Point], around: Mapping[str, list[Point]], marker: float, font: int, picture: Point
) -> tuple[list[Label], int]:
    """Return the labels and the size of their letters: the largest at which all names have room, else those that have.

    `places` are pixels, `around` the places of each node's neighbours: a name keeps out of the way of its links.
    """
    for size in sorted({font, min(font, 10), min(font, 8)}, reverse=True):
        labels = list(_greedy(places, around, marker, size, picture))
        if len(labels) == len(places):
            return labels, size
    return labels, size


def _greedy(
    places: Mapping[str, Point], around: Mapping[str, list[Point]], marker: float, font: int, picture: Point
) -> Iterator[Label]:
    """Give the names of the nodes with most links their places first."""
    taken = _Taken()
    for x, y in places.values():
        taken.add((x - marker / 2, y - marker / 2, x + marker / 2, y + marker / 2))
    for name in _wanted(around):
        text = shortened(name)
        width, height = text_width(text, font), 1.2 * font
        for side in _sides(places[name], around[name]):
            box = _box(places[name], side, marker, width, height)
            if taken.is_free(box) and box[0] >= 0 and box[1] >= 0 and box[2] <= picture[0] and box[3] <= picture[1]:
                taken.add(box)
                yield Label(name, text, side, box)
                break


def _wanted(around: Mapping[str, list[Point]]) -> list[str]:
    """Return the names to show, the most important first: in a crowd only those of the nodes that hold it together."""
    order = sorted(around, key=lambda name: -len(around[name]))
    if len(order) <= MOST:
        return order
    hubs = [name for name in order if len(around[name]) > 2]
    return hubs if len(hubs) <= MOST // 3 else []


def _sides(place: Point, others: Iterable[Point]) -> list[str]:
    """Return the four sides of a node, those that its links cross least first."""
    crossed = dict.fromkeys(_SIDES, 0.0)
    for x, y in others:
        dx, dy = x - place[0], y - place[1]
        length = math.hypot(dx, dy) or 1.0
        for side, (sx, sy) in _SIDES.items():
            along = max(0.0, (dx * sx + dy * sy) / length)
            crossed[side] += round(along ** (6 if sy else 16), 3)
    return sorted(_SIDES, key=crossed.__getitem__)


def _box(place: Point, side: str, marker: float, width: float, height: float) -> Box:
    sx, sy = _SIDES[side]
    away = marker * 0.62 + 2
    x, y = place[0] + sx * (away + width / 2), place[1] + sy * (away + height / 2)
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


class _Taken:
    """Boxes that are taken, found by the cells of a grid that they touch."""

    def __init__(self) -> None:
        self._cells: defaultdict[tuple[int, int], list[Box]] = defaultdict(list)

    def add(self, box: Box) -> None:
        for cell in self._touched(box):
            self._cells[cell].append(box)

    def is_free(self, box: Box) -> bool:
        return not any(
            box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
            for cell in self._touched(box)
            for other in self._cells.get(cell, ())
        )

    @staticmethod
    def _touched(box: Box) -> list[tuple[int, int]]:
        left, top, right, bottom = (int(side // _CELL) for side in box)
        return [(column, row) for column in range(left, right + 1) for row in range(top, bottom + 1)]
