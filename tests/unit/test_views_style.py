"""How things look: told apart by shape and sign as well as by colour, on light and dark pages."""

from __future__ import annotations

import re
from itertools import combinations

import pytest

from cloudlab.views import style

KINDS = ("machine", "switch", "router", "uplink", "container", "service", "pod", "instance", "volume", "host")
COLOURS = {name: kind.colour for name, kind in style.KINDS.items()} | {"alarm": style.ALARM, "line": style.LINE}


def light(colour: str) -> list[float]:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]


def contrast(a: str, b: str) -> float:
    """WCAG 2.2, "contrast ratio"."""
    dark, bright = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (light(a), light(b)))
    return (bright + 0.05) / (dark + 0.05)


def difference(a: str, b: str) -> float:
    return sum((x - y) ** 2 for x, y in zip(light(a), light(b), strict=True)) ** 0.5


def test_every_kind_has_its_own_shape_colour_and_word() -> None:
    assert tuple(style.KINDS) == KINDS
    for field in ("symbol", "path", "colour", "word", "plural"):
        looks = [getattr(kind, field) for kind in (*style.KINDS.values(), style.UNKNOWN_KIND)]
        assert len(set(looks)) == len(looks), field


@pytest.mark.parametrize("background", ["#FFFFFF", "#000000", "#111111"])
@pytest.mark.parametrize("name", COLOURS)
def test_colours_stand_out_from_light_and_dark_pages(name: str, background: str) -> None:
    assert contrast(COLOURS[name], background) >= 3


def test_text_reads_on_light_and_dark_pages() -> None:
    assert contrast(style.TEXT, "#FFFFFF") >= 4.5
    assert contrast(style.TEXT, "#111111") >= 4


def test_colours_are_not_almost_the_same() -> None:
    for a, b in combinations(COLOURS, 2):
        assert difference(COLOURS[a], COLOURS[b]) > 0.08, (a, b)


def test_shapes_lie_within_the_circle_that_is_meant_for_them() -> None:
    for kind in (*style.KINDS.values(), style.UNKNOWN_KIND):
        assert re.fullmatch(r"M[-\d.,LA e]+Z", kind.path), kind.word
        assert max(abs(float(number)) for number in re.findall(r"-?\d+\.?\d*", kind.path)) <= 1.3, kind.word


def test_states_differ_without_their_colour() -> None:
    looks = {(state.solid, state.sign) for state in style.STATES.values()}
    assert len(looks) == len(style.STATES) == 5
    assert len({(link.dash, link.dasharray, link.sign) for link in style.LINKS.values()}) == 2


def test_what_needs_a_look_has_the_colour_of_alarm() -> None:
    machine = style.kind("machine")
    assert style.state("crashed").colour(machine) == style.link("down").colour == style.ALARM
    assert style.state("off").colour(machine) == machine.colour


def test_plotly_draws_hollow_states_open() -> None:
    machine = style.kind("machine")
    assert (style.state("running").symbol(machine), style.state("off").symbol(machine)) == ("circle", "circle-open")


@pytest.mark.parametrize("name", ["toaster", "", None])
def test_an_unknown_kind_looks_neutral(name: str | None) -> None:
    assert style.kind(name).colour == style.UNKNOWN_KIND.colour
    assert style.kind(name).word == (name or "node")


def test_an_unknown_state_says_its_own_word_and_none_says_nothing() -> None:
    assert (style.state("thinking").word, style.state("thinking").sign) == ("thinking", "?")
    assert (style.state(None).word, style.state(None).solid) == ("", True)
    assert (style.link("flapping").word, style.link("flapping").dash) == ("flapping", "dot")
    assert (style.link(None).word, style.link(None).dash) == ("", "solid")


def test_plotly_knows_the_shapes() -> None:
    from plotly.graph_objects import Scatter

    for kind in style.KINDS.values():
        for state in style.STATES.values():
            Scatter(marker={"symbol": state.symbol(kind)})
