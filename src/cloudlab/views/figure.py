"""`figure`: a topology as a picture that explains itself when the mouse is over something."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from cloudlab.views import style
from cloudlab.views.drawing import ABOVE, BELOW, CROWD, Drawing, Link, Node, drawing, graph_of
from cloudlab.views.picture import Picture, hover, theme
from cloudlab.views.svg import draw

if TYPE_CHECKING:
    import networkx as nx

_TEXT_SIDES = {"below": "bottom center", "above": "top center", "right": "middle right", "left": "middle left"}
_COUNTERS = ("frames", "octets", "learned")
Trace = dict[str, Any]


def figure(topology: object, title: str = "") -> Figure:
    """Draw a topology: a lab, a network, or a networkx graph whose nodes have `kind` and `state`, and links `state`."""
    return Figure(drawing(_at_rest(topology), title))


def _at_rest(topology: object) -> nx.Graph[Any]:
    """A lab's or a network's graph without what counts on by itself: the picture of the same network is the same picture."""
    graph = graph_of(topology)
    if graph is topology:
        return graph
    still = graph.copy()
    for facts in (*still.nodes.values(), *still.edges.values()):
        for counter in _COUNTERS:
            facts.pop(counter, None)
    return still


class Figure(Picture):
    """A picture of a topology; made by `figure`. What is shown is what was at that moment: `live` follows changes."""

    def __init__(self, drawn: Drawing) -> None:
        self.title, self.alt, self.table = drawn.title, drawn.alt, drawn.table
        self._text, self._height, self._drawn = drawn.text, drawn.height, drawn

    def svg(self, dark: bool | None = None) -> str:
        """Return the static picture; `dark` says on which background it'll stand: unless given, it follows the page."""
        return draw(self._drawn, dark)

    @property
    def _config(self) -> dict[str, Any]:
        return {**super()._config, **({} if len(self._drawn.nodes) > CROWD else {"displayModeBar": False})}

    def _spec(self) -> dict[str, Any]:
        drawn = self._drawn
        traces = [*_link_traces(drawn), *_node_traces(drawn), *_sign_traces(drawn), _label_trace(drawn)]
        return {"data": traces if drawn.nodes else [], "layout": _layout(drawn)}


def _layout(drawn: Drawing) -> dict[str, Any]:
    across, down = drawn.width - 2 * drawn.left, drawn.height - drawn.top - drawn.bottom
    beside, fixed = drawn.left / across, len(drawn.nodes) <= CROWD
    hidden = {"visible": False, "fixedrange": fixed}
    nothing = {"text": drawn.text, "showarrow": False, "font": {"size": 15}, "x": 0.5, "y": 0.5}
    return {
        **theme(drawn.title, drawn.height, drawn.alt),
        "xaxis": {**hidden, "range": _rounded(-beside, 1 + beside)},
        "yaxis": {**hidden, "range": _rounded(-BELOW / down, 1 + ABOVE / down)},
        "margin": {"l": 0, "r": 0, "t": drawn.top - ABOVE, "b": drawn.bottom - BELOW},
        "legend": {"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom", **_STILL},
        "hovermode": "closest",
        "dragmode": False if fixed else "zoom",
        **({} if drawn.nodes else {"annotations": [nothing]}),
    }


_STILL = {"itemclick": False, "itemdoubleclick": False}


def _rounded(*values: float) -> list[float]:
    return [round(value, 4) for value in values]


def _trace(mode: str, xs: list[Any], ys: list[Any], **more: Any) -> Trace:
    return {"type": "scatter", "mode": mode, "x": xs, "y": ys, "cliponaxis": False, **more}


def _link_traces(drawn: Drawing) -> list[Trace]:
    """Return two traces for each state of a link: its lines, and in their middles what there is to know."""
    groups: dict[style.LinkState, list[Link]] = {}
    for link in drawn.links:
        groups.setdefault(link.state, []).append(link)
    lines = [_lines(drawn, links) for links in groups.values()]
    return lines + [_middles(drawn, links) for links in groups.values()]


def _lines(drawn: Drawing, links: list[Link]) -> Trace:
    ends = [(*drawn.ends(link), (None, None)) for link in links]
    points = [point for pair in ends for point in pair]
    state = links[0].state
    line = {"color": state.colour, "width": drawn.line, "dash": state.dash}
    name = {"name": _entry(links[0]), "legendrank": 2000, "opacity": drawn.opacity(state)}
    return _trace("lines", [x for x, _ in points], [y for _, y in points], line=line, hoverinfo="skip", **name)


def _middles(drawn: Drawing, links: list[Link]) -> Trace:
    state = links[0].state
    font = {"size": round(1.2 * drawn.cut), "color": state.colour, "weight": 700}
    return _trace(
        "markers+text" if state.sign else "markers",
        [round((link.a.x + link.b.x) / 2, 4) for link in links],
        [round((link.a.y + link.b.y) / 2, 4) for link in links],
        marker={"size": 12, "opacity": 0, "color": state.colour},
        hovertext=[
            hover(link.name, link.legend, *(f"{key}: {value}" for key, value in link.details)) for link in links
        ],
        hoverinfo="text",
        showlegend=False,
        **({"text": state.sign, "textfont": font} if state.sign else {}),
    )


def _node_traces(drawn: Drawing) -> list[Trace]:
    """Return a trace for each look of a node."""
    groups: dict[tuple[style.Kind, style.State], list[Node]] = {}
    for node in drawn.nodes:
        groups.setdefault((node.kind, node.state), []).append(node)
    return [_markers(drawn, nodes) for nodes in groups.values()]


def _markers(drawn: Drawing, nodes: list[Node]) -> Trace:
    look = nodes[0]
    outline = {"width": 2, "color": look.colour}
    return _trace(
        "markers",
        [node.x for node in nodes],
        [node.y for node in nodes],
        marker={
            "symbol": look.state.symbol(look.kind),
            "size": drawn.marker,
            "color": look.colour,
            "line": outline,
            "opacity": 1,
        },
        name=_entry(look),
        showlegend=True,
        hovertext=[
            hover(node.name, node.legend, *(f"{key}: {value}" for key, value in node.details)) for node in nodes
        ],
        hoverinfo="text",
    )


def _entry(thing: Node | Link) -> str:
    """Return the words in the legend, with the sign: plotly's legend shows only the shape."""
    return f"{thing.legend} ({thing.state.sign})" if thing.state.sign else thing.legend


def _sign_traces(drawn: Drawing) -> list[Trace]:
    nodes = [node for node in drawn.nodes if node.state.sign and drawn.sign]
    if not nodes:
        return []
    colours = ["#ffffff" if node.state.solid else node.colour for node in nodes]
    font = {"size": drawn.sign, "color": colours, "weight": 700}
    return [_words([(node, node.state.sign) for node in nodes], "middle center", font)]


def _label_trace(drawn: Drawing) -> Trace:
    labels, size = drawn.labels
    nodes = {node.name: node for node in drawn.nodes}
    sides = [_TEXT_SIDES[label.side] for label in labels]
    return _words([(nodes[label.name], label.text) for label in labels], sides, {"size": size}, drawn.marker)


def _words(words: list[tuple[Node, str]], sides: str | list[str], font: dict[str, Any], marker: float = 0) -> Trace:
    """Write words beside nodes; the invisible marker keeps them off it."""
    return _trace(
        "markers+text" if marker else "text",
        [node.x for node, _ in words],
        [node.y for node, _ in words],
        text=[escape(text, quote=False) for _, text in words],
        textposition=sides,
        textfont=font,
        hoverinfo="skip",
        showlegend=False,
        **({"marker": {"size": marker, "opacity": 0}} if marker else {}),
    )
