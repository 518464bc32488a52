"""Small line charts: numbers over the last seconds, as SVG. What changes from one look to the next is data (`parts`)."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloudlab.units import format_size
from cloudlab.views import style

WIDTH, HEIGHT = 360, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 12, 12, 32
_INNER_WIDTH, _INNER_HEIGHT = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
_TICKS = {"bottom": 0.0, "middle": 0.5, "top": 1.0}
_COLOURS = [kind.colour for kind in style.KINDS.values()]
_DASHES = ["none", "7 4", "2 3", "10 3 2 3", "14 4", "4 2", "1 5"]  # 7 with 10 colours: 70 guests all look different

Points = Sequence[tuple[float, float]]
"""Pairs of (seconds ago, value)."""


@dataclass(frozen=True)
class Unit:
    """How a quantity is written: percents, bytes, bytes a second, things; `least` is the smallest top of its axis."""

    suffix: str
    least: float
    is_size: bool = True

    def write(self, value: float) -> str:
        """Write a value for people."""
        return f"{format_size(value)}{self.suffix}" if self.is_size else f"{value:.0f}{self.suffix}"

    def top(self, highest: float) -> float:
        """Return a round number at or above the highest value: 1, 1.2, 1.5, 2, 3, …; for sizes 1, 1.5, 2, 3, 4, 6, 8, …"""
        highest = max(highest, self.least)
        base = 2.0 if self.is_size else 10.0
        power = base ** math.floor(math.log(highest, base) + 1e-9)
        steps = (1, 1.5, 2) if self.is_size else (1, 1.2, 1.5, 2, 3, 4, 5, 6, 8, 10)
        return next(step * power for step in steps if step * power >= highest * (1 - 1e-9))


PERCENT = Unit(" %", 100, is_size=False)
SIZE = Unit("", 1 << 20)
SPEED = Unit("/s", 1 << 10)
COUNT = Unit("", 10, is_size=False)


@dataclass(frozen=True)
class Chart:
    """One quantity of several guests, with the axis `title` (its unit in it)."""

    key: str
    title: str
    unit: Unit


def look(number: int) -> tuple[str, str]:
    """Return colour and dash of the line number 0, 1, 2, …"""
    return _COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)]


def parts(chart: Chart, lines: Mapping[str, Points], seconds: float) -> dict[str, str]:
    """Return what changes in a chart from one look to the next: the labels of its axis and the points of its lines."""
    top = chart.unit.top(max((value for points in lines.values() for _, value in points), default=0))
    labels = {f"{chart.key} {place}": chart.unit.write(top * share) for place, share in _TICKS.items()}
    return labels | {f"{chart.key} line {name}": _path(points, seconds, top) for name, points in lines.items()}


def _path(points: Points, seconds: float, top: float) -> str:
    return " ".join(
        f"{_LEFT + _INNER_WIDTH * (1 - min(ago / seconds, 1)):.1f},{_TOP + _INNER_HEIGHT * (1 - value / top):.1f}"
        for ago, value in points
    )


def draw(chart: Chart, current: Mapping[str, str], names: Sequence[str], seconds: float) -> str:
    """Draw a chart; `current` is what `parts` gave, and each part is found in the SVG by its `data-part`."""
    grid = "".join(_tick(chart, place, share, current) for place, share in _TICKS.items())
    lines = "".join(_line(f"{chart.key} line {name}", number, current) for number, name in enumerate(names))
    base = HEIGHT - _BOTTOM + 16
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img"'
        f' aria-label="{html.escape(chart.title)}, over the last {seconds:.0f} seconds"'
        f' font-family="{html.escape(style.FONT)}" font-size="11" fill="{style.TEXT}">'
        f"{grid}{lines}"
        f'<text x="{_LEFT}" y="{base}">{seconds:.0f} s ago</text>'
        f'<text x="{WIDTH - _RIGHT}" y="{base}" text-anchor="end">now</text></svg>'
    )


def _tick(chart: Chart, place: str, share: float, current: Mapping[str, str]) -> str:
    y, key = _TOP + _INNER_HEIGHT * (1 - share), f"{chart.key} {place}"
    opacity = 0.9 if share == 0 else 0.35
    return (
        f'<path d="M{_LEFT},{y:g}H{WIDTH - _RIGHT}" stroke="{style.LINE}" stroke-opacity="{opacity}"/>'
        f'<text x="{_LEFT - 6}" y="{y + 4:g}" text-anchor="end" data-part="{key}">{html.escape(current[key])}</text>'
    )


def _line(key: str, number: int, current: Mapping[str, str]) -> str:
    colour, dash = look(number)
    return (
        f'<polyline data-part="{html.escape(key)}" points="{current[key]}" fill="none" stroke="{colour}"'
        f' stroke-width="2" stroke-dasharray="{dash}" stroke-linejoin="round"/>'
    )


def swatch(number: int) -> str:
    """Draw a bit of line number 0, 1, 2, … for a legend."""
    colour, dash = look(number)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 34 10" width="34" height="10" aria-hidden="true">'
        f'<path d="M1,5H33" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash}"/></svg>'
    )
