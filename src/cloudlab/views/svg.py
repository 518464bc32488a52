"""The static picture: SVG as text, for pages without a kernel or JavaScript, for print, for the hard disk.

It takes the text colour of the page around it, so that it reads on light and dark ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from cloudlab.views import style
from cloudlab.views.drawing import BELOW, LEGEND_ROW, WIDTH, Drawing, Link, Node, drawing
from cloudlab.views.words import as_text, joined

if TYPE_CHECKING:
    import networkx as nx

    from cloudlab.views.forces import Point

_INK = {None: "var(--jp-content-font-color1,inherit)", False: "#1f2328", True: "#e6e6e6"}
_PAPER = {None: "var(--jp-layout-color0,Canvas)", False: "#ffffff", True: "#111111"}


def svg(
    graph: nx.Graph[Any], title: str = "", positions: Mapping[str, Point] | None = None, dark: bool | None = None
) -> str:
    """Draw a topology as SVG; `dark` says on which background it'll stand: unless given, it follows the page."""
    return draw(drawing(graph, title, positions), dark)


def draw(picture: Drawing, dark: bool | None = None) -> str:
    """Write a drawing as SVG."""
    if not picture.nodes:
        return page(picture.title, picture.alt, 120, nothing(picture.text, 120), dark)
    body = [_links(picture), _cuts(picture), _nodes(picture), _labels(picture), _legend(picture)]
    return page(picture.title, picture.alt, picture.height, "".join(body), dark)


def page(title: str, alt: str, height: float, body: str, dark: bool | None) -> str:
    """Wrap a picture: the size, the words for who doesn't see it, the colours of light and dark pages."""
    name = f"cloudlab-{zlib.crc32((title + alt + body).encode()):08x}"
    heading = f'<text class="t" x="{WIDTH / 2:g}" y="24">{escape(title)}</text>' if title else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="cloudlab-svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" '
        f'height="{height:g}" role="img" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{escape(title or "figure")}</title><desc id="{name}-desc">{escape(alt)}</desc>'
        f"<style>{_css(dark)}</style>{heading}{body}</svg>"
    )


def nothing(text: str, height: float) -> str:
    """Say in the middle of an empty picture that there's nothing to see."""
    return f'<text class="n" x="{WIDTH / 2:g}" y="{height / 2 + 10:g}">{escape(text)}</text>'


def _css(dark: bool | None) -> str:
    ink, paper = _INK[dark], _PAPER[dark]
    alone = "svg.cloudlab-svg:root{color-scheme:light dark;color:CanvasText}"  # when it is a file, not a part of a page
    own = alone if dark is None else f"svg.cloudlab-svg{{background:{paper}}}"
    return (
        f"svg.cloudlab-svg{{color:{ink};max-width:100%;height:auto;font:12px {style.FONT}}}"
        ".cloudlab-svg text{fill:currentColor;text-anchor:middle}"
        ".cloudlab-svg .t{font-size:16px;font-weight:600}.cloudlab-svg .n{font-size:15px;opacity:.75}"
        f".cloudlab-svg .l text{{stroke:{paper};stroke-width:3px;stroke-linejoin:round;paint-order:stroke}}"
        f".cloudlab-svg .k>text{{text-anchor:start}}{own}"
    )


def _links(picture: Drawing) -> str:
    """Draw all links of one state as one path, so that a picture of 1,000 nodes stays small."""
    groups: dict[style.LinkState, list[str]] = {}
    for link in picture.links:
        (ax, ay), (bx, by) = map(picture.on_paper, picture.ends(link))
        groups.setdefault(link.state, []).append(f"M{ax:g},{ay:g}L{bx:g},{by:g}")
    return "".join(
        f'<g opacity="{picture.opacity(state):g}">{_line("".join(lines), state, picture.line)}</g>'
        for state, lines in groups.items()
    )


def _line(path: str, state: style.LinkState, width: float) -> str:
    dash = "" if state.dasharray == "none" else f' stroke-dasharray="{state.dasharray}"'
    return f'<path d="{path}" fill="none" stroke="{state.colour}" stroke-width="{width:g}"{dash}/>'


def _cuts(picture: Drawing) -> str:
    """Draw the sign of a cut link in its middle."""
    signs = [_cut(picture, link) for link in picture.links if link.state.sign]
    return f'<g class="l" font-size="{picture.cut:g}" font-weight="700">{"".join(signs)}</g>' if signs else ""


def _cut(picture: Drawing, link: Link) -> str:
    (ax, ay), (bx, by) = picture.pixel(link.a), picture.pixel(link.b)
    return _text((ax + bx) / 2, (ay + by) / 2, link.state.sign, link.state.colour, f"{link.name}: {link.state.word}")


def _text(x: float, y: float, text: str, colour: str, hint: str = "") -> str:
    title = f"<title>{escape(hint)}</title>" if hint else ""
    return f'<text x="{x:g}" y="{y:g}" dy=".35em" style="fill:{colour}">{escape(text)}{title}</text>'


def _nodes(picture: Drawing) -> str:
    """Draw the nodes, those that look the same together."""
    groups: dict[tuple[style.Kind, style.State], list[Node]] = {}
    for node in picture.nodes:
        groups.setdefault((node.kind, node.state), []).append(node)
    return "".join(_group(picture, nodes) for nodes in groups.values())


def _group(picture: Drawing, nodes: list[Node]) -> str:
    shapes = "".join(_shape(node, picture.pixel(node), picture.marker / 2) for node in nodes)
    signs = "".join(_sign(node, picture.pixel(node)) for node in nodes if node.state.sign and picture.sign)
    signs = f'<g font-size="{picture.sign:g}" font-weight="700">{signs}</g>' if signs else ""
    return f'<g fill="{_inside(nodes[0])}" stroke="{nodes[0].colour}" stroke-width="2">{shapes}</g>{signs}'


def _inside(node: Node) -> str:
    return node.colour if node.state.solid else "none"


def _shape(node: Node, place: Point, radius: float) -> str:
    hint = escape(f"{node.name}: {joined((node.legend, as_text(node.details)))}")
    return (
        f'<path transform="translate({place[0]:g},{place[1]:g}) scale({radius:g})" d="{node.kind.path}" '
        f'vector-effect="non-scaling-stroke"><title>{hint}</title></path>'
    )


def _sign(node: Node, place: Point) -> str:
    return _text(*place, node.state.sign, "#fff" if node.state.solid else node.colour)


def _labels(picture: Drawing) -> str:
    labels, size = picture.labels
    texts = "".join(
        f'<text x="{(label.box[0] + label.box[2]) / 2:.1f}" y="{label.box[3] - 0.3 * size:.1f}">{escape(label.text)}</text>'
        for label in labels
    )
    return f'<g class="l" font-size="{size}">{texts}</g>'


def _legend(picture: Drawing) -> str:
    """Draw one example of each look that occurs, with its words."""
    things: dict[str, Node | Link] = {thing.legend: thing for thing in reversed(picture.things)}
    top = picture.height - picture.bottom + BELOW + LEGEND_ROW / 2
    entries = [
        _entry(things[words], words, 28 + x, top + LEGEND_ROW * row) for words, (x, row) in picture.legend.items()
    ]
    return f'<g class="k">{"".join(entries)}</g>'


def _entry(thing: Node | Link, words: str, x: float, y: float) -> str:
    if isinstance(thing, Link):
        example = _line(f"M{x - 10:g},{y:g}h22", thing.state, 2)
        sign = f"<g>{_text(x + 1, y, thing.state.sign, thing.state.colour)}</g>" if thing.state.sign else ""
    else:
        shape = _shape(thing, (x, y), 7).partition("<title>")[0] + "</path>"
        example = f'<g fill="{_inside(thing)}" stroke="{thing.colour}" stroke-width="2">{shape}</g>'
        sign = _legend_sign(thing, x, y) if thing.state.sign else ""
    return f'{example}{sign}<text x="{x + 16:g}" y="{y:g}" dy=".35em">{escape(words)}</text>'


def _legend_sign(node: Node, x: float, y: float) -> str:
    text = _text(x, y, node.state.sign, "#fff" if node.state.solid else node.colour)
    return f'<g font-size="9" font-weight="700">{text}</g>'
