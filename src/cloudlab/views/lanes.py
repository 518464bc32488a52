"""Lanes of bars: where each span of a trace stands in the picture, so that none hides another and each has its name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape

from cloudlab.errors import UsageError
from cloudlab.units import format_duration
from cloudlab.views import style
from cloudlab.views.drawing import WIDTH
from cloudlab.views.labels import shortened, text_width

# White letters on them have a contrast of 4.5:1. Which lane it is says its name, not its colour.
COLOURS = [style.KINDS[name].colour for name in ("machine", "service", "instance", "volume", "pod", "host")]
NAMED = 150  # a trace of more spans shows only the names that fit into their bars
ROW, BAR, FONT = 26, 18, 11
EVENT = 6.0  # half of an event's diamond
RIGHT, AXIS = 24, 44
_UNITS = ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (math.inf, 1.0, "s"))


@dataclass(frozen=True)
class Span:
    """Something that took from `start_s` to `end_s` (seconds on one clock), or an event, if both are the same.

    `where` names who did it (a service, a machine): each has a lane. `detail` is shown when the mouse is over it.
    """

    name: str
    start_s: float
    end_s: float
    where: str = ""
    detail: str = ""

    def __post_init__(self) -> None:
        if not self.end_s >= self.start_s:
            raise UsageError(
                f"{self.name!r} ends ({self.end_s} s) before it starts ({self.start_s} s).",
                allowed="an end that is not before the start",
                example='Span("boot", 0.0, 1.5, where="n1")',
            )

    @property
    def duration_s(self) -> float:
        """How long it took."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Bar:
    """A span in the picture: pixels from the left, the row (from the top), and the place of its name: "inside", "right",
    "left", or "" if there is no room.
    """

    span: Span
    start: float
    end: float
    row: int
    side: str
    colour: str


@dataclass(frozen=True)
class Lanes:
    """All bars of a trace, in lanes in the order in which they first appear."""

    trace: tuple[Span, ...]
    title: str

    @property
    def zero_s(self) -> float:
        """When the first span starts."""
        return min((span.start_s for span in self.trace), default=0.0)

    @property
    def total_s(self) -> float:
        """From the first start to the last end."""
        return max((span.end_s for span in self.trace), default=0.0) - self.zero_s

    @property
    def unit(self) -> tuple[float, str]:
        """How many of which unit make a second, for the axis."""
        return next((many, word) for limit, many, word in _UNITS if self.total_s < limit)

    @cached_property
    def names(self) -> list[str]:
        """The names of the lanes."""
        return list(dict.fromkeys(span.where for span in self.trace))

    @property
    def top(self) -> int:
        """Room for the title."""
        return 46 if self.title else 16

    @cached_property
    def left(self) -> int:
        """Room for the names of the lanes."""
        return round(24 + max((text_width(shortened(name), 12) for name in self.names), default=0))

    @cached_property
    def height(self) -> int:
        """Height of the picture."""
        return self.top + ROW * max(1, sum(self.rows.values())) + AXIS

    @cached_property
    def bars(self) -> list[Bar]:
        """The bars, lane by lane."""
        bars: list[Bar] = []
        for number, name in enumerate(self.names):
            first = 1 + max((bar.row for bar in bars), default=-1)
            spans = sorted((s for s in self.trace if s.where == name), key=lambda s: (s.start_s, -s.end_s))
            bars += self._packed(spans, first, COLOURS[number % len(COLOURS)])
        return bars

    @cached_property
    def rows(self) -> dict[str, int]:
        """How many rows each lane has: as many as spans of it overlap, with their names."""
        rows: dict[str, set[int]] = {}
        for bar in self.bars:
            rows.setdefault(bar.span.where, set()).add(bar.row)
        return {name: len(rows[name]) for name in self.names}

    def x(self, seconds: float) -> float:
        """Return where a time is, in pixels from the left."""
        share = (seconds - self.zero_s) / (self.total_s or 1.0)
        return round(self.left + share * (WIDTH - RIGHT - self.left), 1)

    def y(self, row: float) -> float:
        """Return the middle of a row, in pixels from the top."""
        return self.top + ROW * (row + 0.5)

    def middles(self) -> list[float]:
        """Return the middle of each lane, in rows."""
        middles, first = [], 0
        for count in self.rows.values():
            middles.append(first + (count - 1) / 2)
            first += count
        return middles

    def _packed(self, spans: Iterable[Span], first: int, colour: str) -> list[Bar]:
        """Put each span into the first row of the lane in which it has room."""
        free: list[float] = []
        bars = []
        for span in spans:
            start, end, side = self._extent(span)
            left, right = _with_name(span, start, end, side)
            row = next((row for row, until in enumerate(free) if until <= left), len(free))
            free[row : row + 1] = [right if side == "inside" else right + 4]
            bars.append(Bar(span, start, end, first + row, side, colour))
        return bars

    def _extent(self, span: Span) -> tuple[float, float, str]:
        """Return where a span begins and ends, in pixels, and where its name stands."""
        start, end = self.x(span.start_s), max(self.x(span.end_s), self.x(span.start_s) + 2)
        if not span.duration_s:
            start, end = start - EVENT, start + EVENT
        needed = _name_width(span)
        if span.duration_s and needed <= end - start:
            return start, end, "inside"
        if len(self.trace) > NAMED:
            return start, end, ""
        return start, end, "right" if end + needed < WIDTH else "left"


def _name_width(span: Span) -> float:
    return text_width(shortened(span.name), FONT) + 8


def _with_name(span: Span, start: float, end: float, side: str) -> tuple[float, float]:
    needed = _name_width(span)
    return start - (needed if side == "left" else 0), end + (needed if side == "right" else 0)


def ticks(total: float, most: int = 10) -> list[float]:
    """Return round numbers from 0 to the total, at most so many: steps of 1, 2 or 5 and its tenfolds."""
    if total <= 0:
        return [0.0]
    power = 10.0 ** math.floor(math.log10(total / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if total / (power * factor) < most)
    return [float(f"{step * number:.6g}") for number in range(int(total / step + 1e-9) + 1)]


def draw_lanes(lanes: Lanes) -> str:
    """Write the lanes as the inside of an SVG picture."""
    names = [_lane(lanes, *lane) for lane in zip(lanes.names, lanes.middles(), lanes.rows.values(), strict=True)]
    return "".join([_grid(lanes), *names, *(_bar(bar, lanes) for bar in lanes.bars)])


def _grid(lanes: Lanes) -> str:
    bottom, (many, unit) = lanes.height - AXIS, lanes.unit
    places = {tick: lanes.x(lanes.zero_s + tick / many) for tick in ticks(lanes.total_s * many)}
    lines = "".join(f"M{x:g},{lanes.top}V{bottom + 4}" for x in places.values())
    words = "".join(f'<text x="{x:g}" y="{bottom + 18}">{tick:g}</text>' for tick, x in places.items())
    middle = (lanes.left + WIDTH - RIGHT) / 2
    return (
        f'<path d="{lines}" stroke="{style.LINE}" stroke-width="0.5" opacity="0.6"/>{words}'
        f'<text x="{middle:g}" y="{bottom + 36}">time, {unit}</text>'
    )


def _lane(lanes: Lanes, name: str, middle: float, rows: int) -> str:
    top, y = lanes.y(middle - rows / 2), lanes.y(middle)
    return (
        f'<path d="M8,{top:g}H{WIDTH - 8}" stroke="{style.LINE}" stroke-width="0.5"/>'
        f'<text x="{lanes.left - 12}" y="{y:g}" dy=".35em" style="text-anchor:end">{escape(shortened(name))}</text>'
    )


def _bar(bar: Bar, lanes: Lanes) -> str:
    y, width, title = lanes.y(bar.row), bar.end - bar.start, _hint(bar.span, lanes)
    if bar.span.duration_s:
        place = f'x="{bar.start:g}" y="{y - BAR / 2:g}" width="{width - 1:g}" height="{BAR}" rx="3"'
        shape = f'<rect {place} fill="{bar.colour}">{title}</rect>'
    else:
        corners = f"l{EVENT:g},{EVENT:g}l{-EVENT:g},{EVENT:g}l{-EVENT:g},{-EVENT:g}Z"
        shape = f'<path d="M{bar.start + EVENT:g},{y - EVENT:g}{corners}" fill="{bar.colour}">{title}</path>'
    return shape + (_name(bar, y) if bar.side else "")


def _hint(span: Span, lanes: Lanes) -> str:
    return f"<title>{escape(span.name)}: {escape(', '.join(facts(span, lanes.zero_s)))}</title>"


def _name(bar: Bar, y: float) -> str:
    places = {
        "inside": ((bar.start + bar.end) / 2, "fill:#fff"),
        "right": (bar.end + 4, "text-anchor:start"),
        "left": (bar.start - 4, "text-anchor:end"),
    }
    x, look = places[bar.side]
    return f'<text x="{x:g}" y="{y:g}" dy=".35em" style="font-size:{FONT}px;{look}">{escape(shortened(bar.span.name))}</text>'


def lasting(seconds: float) -> str:
    """Write a duration for people, also that of an event."""
    return format_duration(seconds) if seconds else "0 s"


def facts(span: Span, zero_s: float) -> list[str]:
    """Say all about a span but its name."""
    took = f"took {format_duration(span.duration_s)}" if span.duration_s else "an event"
    return [fact for fact in (took, f"after {lasting(span.start_s - zero_s)}", span.where, span.detail) if fact]


def counted(trace: Sequence[Span]) -> str:
    """Count spans and events: "5 spans, 1 event"."""
    spans = sum(span.duration_s > 0 for span in trace)
    events = len(trace) - spans
    words = [(spans, "span"), (events, "event")]
    return ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in words if count)
