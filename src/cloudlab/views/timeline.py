"""`timeline`: a traced sequence as lanes of bars: who did what, when, and how long it took."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from cloudlab.units import format_duration
from cloudlab.views.drawing import WIDTH
from cloudlab.views.labels import shortened
from cloudlab.views.lanes import (
    AXIS,
    BAR,
    EVENT,
    FONT,
    RIGHT,
    ROW,
    Bar,
    Lanes,
    Span,
    counted,
    draw_lanes,
    facts,
    lasting,
)
from cloudlab.views.picture import Picture, hover, theme
from cloudlab.views.svg import nothing, page

Trace = dict[str, Any]
_GRID = "rgba(128,128,128,0.3)"


def timeline(trace: Iterable[Span], title: str = "") -> Timeline:
    """Draw what happened in which order: a lane for each `where`, in the order in which they first appear."""
    return Timeline(Lanes(tuple(trace), title))


class Timeline(Picture):
    """A picture of a traced sequence; made by `timeline`. Its time begins with the first span."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes, self.title, self._height = lanes, lanes.title, lanes.height
        self._text, self.alt, self.table = _text(lanes), _alt(lanes), _table(lanes)

    @property
    def trace(self) -> tuple[Span, ...]:
        """What is shown."""
        return self._lanes.trace

    def svg(self, dark: bool | None = None) -> str:
        """Return the static picture; `dark` says on which background it'll stand: unless given, it follows the page."""
        if not self.trace:
            return page(self.title, self.alt, 120, nothing(self._text, 120), dark)
        return page(self.title, self.alt, self._height, draw_lanes(self._lanes), dark)

    def _spec(self) -> dict[str, Any]:
        bars = self._lanes.bars
        spans, events = [bar for bar in bars if bar.span.duration_s], [bar for bar in bars if not bar.span.duration_s]
        traces = [_spans(self._lanes, spans), _events(self._lanes, events), _names(self._lanes, bars)]
        return {"data": [trace for trace in traces if trace["y"]], "layout": _layout(self._lanes, self._text, self.alt)}


def _text(lanes: Lanes) -> str:
    if not lanes.trace:
        return "nothing was traced"
    several = f" in {len(lanes.names)} lanes" if len(lanes.names) > 1 else ""
    return f"{counted(lanes.trace)}{several}, {lasting(lanes.total_s)}"


def _alt(lanes: Lanes) -> str:
    begin = f"{lanes.title}: " if lanes.title else ""
    if not lanes.trace:
        return f"{begin}Nothing was traced."
    longest = max(lanes.trace, key=lambda span: span.duration_s)
    most = f" The longest is {longest.name}, {format_duration(longest.duration_s)}." if longest.duration_s else ""
    named = [name for name in lanes.names if name]
    where = f" in {', '.join(named[:8])}" + (" and others" if len(named) > 8 else "") if named else ""
    return f"{begin}A timeline of {counted(lanes.trace)}{where}, {lasting(lanes.total_s)} from start to end.{most}"


def _table(lanes: Lanes) -> list[dict[str, str]]:
    return [
        {
            "where": span.where,
            "what": span.name,
            "start": lasting(span.start_s - lanes.zero_s),
            "duration": format_duration(span.duration_s) if span.duration_s else "event",
            "detail": span.detail,
        }
        for span in sorted(lanes.trace, key=lambda span: span.start_s)
    ]


def _layout(lanes: Lanes, text: str, alt: str) -> dict[str, Any]:
    many, unit = lanes.unit
    total, rows = lanes.total_s * many or 1.0, sum(lanes.rows.values())
    beyond = EVENT / (WIDTH - RIGHT - lanes.left) * total
    edges = [middle - count / 2 for middle, count in zip(lanes.middles(), lanes.rows.values(), strict=True)]
    nothing_here = {
        "text": text,
        "showarrow": False,
        "font": {"size": 15},
        "x": 0.5,
        "y": 0.5,
        "xref": "paper",
        "yref": "paper",
    }
    return {
        **theme(lanes.title, lanes.height, alt),
        "xaxis": {
            **_axis([-beyond, total + beyond], bool(lanes.trace)),
            "title": {"text": f"time, {unit}", "standoff": 4},
        },
        "yaxis": {
            **_axis([rows - 0.5, -0.5], bool(lanes.trace)),
            "tickvals": lanes.middles(),
            "ticktext": [escape(shortened(name), quote=False) for name in lanes.names],
            "showgrid": False,
        },
        "margin": {"l": lanes.left - EVENT, "r": RIGHT - EVENT, "t": lanes.top, "b": AXIS},
        "barmode": "overlay",
        "showlegend": False,
        "hovermode": "closest",
        "dragmode": False,
        "shapes": [_edge(edge) for edge in edges],
        **({} if lanes.trace else {"annotations": [nothing_here]}),
    }


def _axis(shown: list[float], visible: bool) -> dict[str, Any]:
    span = [_rounded(value) for value in shown]
    return {"visible": visible, "range": span, "fixedrange": True, "zeroline": False, "gridcolor": _GRID}


def _edge(row: float) -> dict[str, Any]:
    line = {"color": _GRID, "width": 1}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": row, "y1": row, "layer": "below", "line": line}


def _spans(lanes: Lanes, bars: list[Bar]) -> Trace:
    many, _ = lanes.unit
    return {
        "type": "bar",
        "orientation": "h",
        "base": [_rounded((bar.span.start_s - lanes.zero_s) * many) for bar in bars],
        "x": [_rounded(bar.span.duration_s * many) for bar in bars],
        "y": [bar.row for bar in bars],
        "width": round(BAR / ROW, 3),
        "marker": {"color": [bar.colour for bar in bars], "cornerradius": 3, "line": {"width": 0}},
        "text": [_escaped(bar) if bar.side == "inside" else "" for bar in bars],
        "textposition": "inside",
        "insidetextanchor": "middle",
        "textangle": 0,
        "constraintext": "none",
        "textfont": {"color": "#ffffff", "size": FONT},
        **_about(lanes, bars),
    }


def _events(lanes: Lanes, bars: list[Bar]) -> Trace:
    many, _ = lanes.unit
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [_rounded((bar.span.start_s - lanes.zero_s) * many) for bar in bars],
        "y": [bar.row for bar in bars],
        "marker": {"symbol": "diamond", "size": 2 * EVENT, "opacity": 1, "color": [bar.colour for bar in bars]},
        "cliponaxis": False,
        **_about(lanes, bars),
    }


def _names(lanes: Lanes, bars: list[Bar]) -> Trace:
    """Write the names that stand beside their bars; the invisible marker keeps them off events."""
    many, _ = lanes.unit
    beside = [bar for bar in bars if bar.side in ("left", "right")]
    ends = [bar.span.start_s if bar.side == "left" else bar.span.end_s for bar in beside]
    return {
        "type": "scatter",
        "mode": "markers+text",
        "x": [_rounded((end - lanes.zero_s) * many) for end in ends],
        "y": [bar.row for bar in beside],
        "text": [_escaped(bar) for bar in beside],
        "textposition": [f"middle {bar.side}" for bar in beside],
        "textfont": {"size": FONT},
        "marker": {"opacity": 0, "size": [1 if bar.span.duration_s else 2 * EVENT for bar in beside]},
        "hoverinfo": "skip",
        "cliponaxis": False,
    }


def _about(lanes: Lanes, bars: list[Bar]) -> Trace:
    return {
        "hovertext": [hover(bar.span.name, *facts(bar.span, lanes.zero_s)) for bar in bars],
        "hoverinfo": "text",
    }


def _escaped(bar: Bar) -> str:
    return escape(shortened(bar.span.name), quote=False)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
