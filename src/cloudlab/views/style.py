"""How each kind of thing and each state looks: shape and colour for the kind, fill and sign for the state.

No meaning is told by colour alone (WCAG 2.2, 1.4.1). The colours start from Okabe and Ito's palette for the
colour-blind, darkened or lightened until each has a contrast of 3:1 against white and against black (WCAG 2.2, 1.4.11).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

TEXT = "#767676"
"""Text that reads on white (4.5:1) and on JupyterLab's dark background (4.1:1)."""
LINE = "#8A8A8A"
ALARM = "#D55E00"
"""What needs a look: a cut link, a crashed machine."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"


@dataclass(frozen=True)
class Kind:
    """How a kind of node looks. `symbol` is plotly's name of the shape, `path` the same shape as SVG path data within
    a circle of radius 1 around 0,0; `plural` is the word for many.
    """

    word: str
    plural: str
    symbol: str
    path: str
    colour: str


@dataclass(frozen=True)
class State:
    """How a state of a node looks: `solid` or hollow, with a `sign` inside. `well` is False when someone should look."""

    word: str
    solid: bool = True
    sign: str = ""
    well: bool = True

    def colour(self, kind: Kind) -> str:
        """Return the colour of a node's outline, and of its inside when it's solid."""
        return kind.colour if self.well else ALARM

    def symbol(self, kind: Kind) -> str:
        """Return plotly's name of the marker."""
        return kind.symbol if self.solid else f"{kind.symbol}-open"


@dataclass(frozen=True)
class LinkState:
    """How a state of a link looks. `dash` is plotly's word, `dasharray` SVG's; `sign` stands in the middle."""

    word: str
    dash: str = "solid"
    dasharray: str = "none"
    sign: str = ""
    colour: str = LINE
    well: bool = True


def _polygon(*points: tuple[float, float]) -> str:
    return "M" + "L".join(f"{round(x, 3) + 0:g},{round(y, 3) + 0:g}" for x, y in points) + "Z"


def _regular(corners: int, turn: float = -90, radii: tuple[float, ...] = (1.0,)) -> str:
    """Return a polygon whose corners are at equal angles; radii are taken in turn, so that two of them make a star."""
    angles = [math.radians(turn + 360 * corner / corners) for corner in range(corners)]
    lengths = [radii[corner % len(radii)] for corner in range(corners)]
    return _polygon(*((r * math.cos(a), r * math.sin(a)) for a, r in zip(angles, lengths, strict=True)))


_CIRCLE = "M1,0A1,1 0 1,1 -1,0A1,1 0 1,1 1,0Z"
_PLUS = [(0.35, -1), (0.35, -0.35), (1, -0.35), (1, 0.35), (0.35, 0.35), (0.35, 1)]

KINDS = {
    "machine": Kind("machine", "machines", "circle", _CIRCLE, "#0072B2"),
    "switch": Kind("switch", "switches", "square", _regular(4, 45, (1.2,)), "#B38300"),
    "router": Kind("router", "routers", "diamond", _regular(4, radii=(1.25,)), "#009E73"),
    "uplink": Kind("uplink", "uplinks", "triangle-up", _regular(3, radii=(1.25,)), "#C566AC"),
    "container": Kind("container", "containers", "hexagon", _regular(6, radii=(1.1,)), "#3996D6"),
    "service": Kind("service", "services", "star", _regular(10, radii=(1.3, 0.6)), "#C2445F"),
    "pod": Kind("pod", "pods", "pentagon", _regular(5, radii=(1.1,)), "#7D5BD6"),
    "instance": Kind("instance", "instances", "triangle-right", _regular(3, 0, (1.25,)), "#0B7C8A"),
    "volume": Kind("volume", "volumes", "cross", _polygon(*_PLUS, *((-x, -y) for x, y in _PLUS)), "#94603F"),
    "host": Kind("host", "hosts", "hexagram", _regular(12, radii=(1.25, 0.72)), "#5C6B7F"),
}
UNKNOWN_KIND = Kind("node", "nodes", "octagon", _regular(8, 22.5), "#808080")

STATES = {
    "running": State("running"),
    "paused": State("paused", sign="II"),
    "starting": State("starting", solid=False, sign="…"),
    "off": State("off", solid=False),
    "crashed": State("crashed", solid=False, sign="×", well=False),
}
LINKS = {
    "up": LinkState("up"),
    "down": LinkState("down", "dash", "6 5", "×", ALARM, well=False),
}
INSIDE = LinkState("inside", "dot", "2 3")
"""No link at all: a container and the machine that it is in."""


def kind(name: object) -> Kind:
    """Return the look of a kind; one that we don't know is a grey octagon under its own word."""
    if name in KINDS:
        return KINDS[str(name)]
    word = str(name or UNKNOWN_KIND.word)
    return Kind(word, f"{word}s", UNKNOWN_KIND.symbol, UNKNOWN_KIND.path, UNKNOWN_KIND.colour)


def state(name: object) -> State:
    """Return the look of a node's state: solid when none is given, hollow with a question mark when we don't know it."""
    if not name:
        return State("")
    return STATES.get(str(name)) or State(str(name), solid=False, sign="?")


def link(name: object) -> LinkState:
    """Return the look of a link's state: a plain line when none is given, dotted when we don't know it."""
    if not name:
        return LinkState("")
    return LINKS.get(str(name)) or LinkState(str(name), "dot", "1 4", "?")
