"""Timelines: lanes in the order of first appearance, no bar on another, all told in words too."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cloudlab.errors import UsageError
from cloudlab.views.drawing import WIDTH
from cloudlab.views.lanes import Lanes, Span, ticks
from cloudlab.views.picture import PLOTLY
from cloudlab.views.timeline import Timeline, timeline

TRACE = [
    Span("POST /servers", 10.0, 10.182, "client"),
    Span("authenticate", 10.004, 10.021, "keystone", "token valid 1 h"),
    Span("create", 10.024, 10.06, "nova-api"),
    Span("accepted", 10.06, 10.06, "nova-api", "202"),
    Span("poll", 10.175, 10.182, "client"),
]


@pytest.fixture
def shown() -> Timeline:
    return timeline(TRACE, "A request")


def test_a_timeline_in_words(shown: Timeline) -> None:
    assert repr(shown) == "timeline: 4 spans, 1 event in 3 lanes, 182 ms"
    assert shown.alt == (
        "A request: A timeline of 4 spans, 1 event in client, keystone, nova-api, 182 ms from start to end. "
        "The longest is POST /servers, 182 ms."
    )


def test_the_table_is_in_the_order_of_time_and_begins_at_zero(shown: Timeline) -> None:
    assert [row["what"] for row in shown.table] == ["POST /servers", "authenticate", "create", "accepted", "poll"]
    assert shown.table[1] == {
        "where": "keystone",
        "what": "authenticate",
        "start": "4 ms",
        "duration": "17 ms",
        "detail": "token valid 1 h",
    }
    assert (shown.table[0]["start"], shown.table[3]["duration"]) == ("0 s", "event")


def test_lanes_are_in_the_order_of_first_appearance() -> None:
    assert Lanes(tuple(TRACE), "").names == ["client", "keystone", "nova-api"]


def test_no_bar_or_name_is_on_another() -> None:
    crowded = [Span(f"step {n}", n / 10, n / 10 + 0.35, f"lane {n % 3}") for n in range(60)]
    for a, b in combinations(Lanes(tuple(crowded), "").bars, 2):
        if a.row == b.row:
            assert a.span.where == b.span.where
            assert a.end <= b.start or b.end <= a.start


def test_steps_that_follow_each_other_share_a_row() -> None:
    steps = [Span("first", 0, 1), Span("second", 1, 2), Span("third", 2, 3)]
    assert [bar.row for bar in Lanes(tuple(steps), "").bars] == [0, 0, 0]


def test_bars_stay_inside_the_picture(shown: Timeline) -> None:
    lanes = Lanes(tuple(TRACE), "")
    assert all(lanes.left - 6 <= bar.start < bar.end <= WIDTH for bar in lanes.bars)
    assert max(lanes.y(bar.row) for bar in lanes.bars) < lanes.height


def test_a_name_that_does_not_fit_stands_beside_its_bar() -> None:
    sides = {bar.span.name: bar.side for bar in Lanes(tuple(TRACE), "").bars}
    assert sides["POST /servers"] == "inside"
    assert sides["accepted"] == "right"
    assert sides["poll"] == "left"


@pytest.mark.parametrize(("total", "unit"), [(5e-5, "µs"), (0.182, "ms"), (12.0, "s"), (0.0, "µs")])
def test_the_unit_of_the_axis_fits(total: float, unit: str) -> None:
    assert Lanes((Span("a", 3, 3 + total),), "").unit[1] == unit


@pytest.mark.parametrize("total", [0.3, 1, 7, 99, 182, 1000, 12345])
def test_ticks_are_few_and_round(total: float) -> None:
    found = ticks(total)
    assert 3 <= len(found) <= 10
    assert found[0] == 0
    assert found[-1] <= total
    assert f"{found[1]:e}"[0] in "125"


def test_the_interactive_picture_has_bars_events_and_details(shown: Timeline) -> None:
    bundle = shown._repr_mimebundle_()[PLOTLY]
    bars, events = bundle["data"][:2]
    assert (bars["type"], bars["base"], bars["x"]) == ("bar", [0, 175, 4, 24], [182, 7, 17, 36])
    assert (events["marker"]["symbol"], events["x"]) == ("diamond", [60])
    assert "<b>authenticate</b><br>took 17 ms<br>after 4 ms<br>keystone<br>token valid 1 h" in bars["hovertext"]
    assert list(bundle["layout"]["yaxis"]["ticktext"]) == ["client", "keystone", "nova-api"]
    assert bundle["layout"]["xaxis"]["title"]["text"] == "time, ms"


def test_the_static_picture_is_well_formed_and_says_what_it_shows(shown: Timeline) -> None:
    root = ElementTree.fromstring(shown.svg())
    text = " ".join(root.itertext())
    assert root.get("role") == "img"
    assert all(span.name in text for span in TRACE)
    assert shown.alt in text
    assert "authenticate: took 17 ms, after 4 ms, keystone, token valid 1 h" in text


def test_names_are_not_markup() -> None:
    bundle = timeline([Span("<b>x", 0, 1, "<i>", "<u>")], "<s>")._repr_mimebundle_()
    bundle[PLOTLY]["layout"].pop("meta")  # plain text, which is never drawn
    everything = json.dumps(bundle[PLOTLY]) + bundle["text/html"]
    assert not [tag for tag in ("<b>x", "<i>", "<u>", "<s>") if tag in everything]
    assert "&lt;b&gt;x" in everything


def test_an_empty_trace_says_so() -> None:
    empty = timeline([])
    assert repr(empty) == "timeline: nothing was traced"
    assert "nothing was traced" in empty.svg()
    assert empty._repr_mimebundle_()[PLOTLY]["data"] in ([], ())


def test_one_event_alone_can_be_drawn() -> None:
    assert repr(timeline([Span("boom", 5, 5)])) == "timeline: 1 event, 0 s"
    ElementTree.fromstring(timeline([Span("boom", 5, 5)]).svg())


def test_a_span_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(UsageError, match="ends"):
        Span("x", 2, 1)
    with pytest.raises(UsageError, match="ends"):
        Span("x", float("nan"), 1)


def test_each_run_gives_the_same_bytes_and_a_thousand_spans_are_drawn(shown: Timeline, tmp_path: Path) -> None:
    assert json.dumps(shown._repr_mimebundle_()) == json.dumps(timeline(TRACE, "A request")._repr_mimebundle_())
    many = timeline([Span(f"step {n}", n / 7, n / 7 + 1, f"lane {n % 9}") for n in range(1000)])
    assert many.save_svg(tmp_path / "many.svg").stat().st_size > 10_000
