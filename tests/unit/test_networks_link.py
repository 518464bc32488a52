"""A link: when does a frame that enters now come out? Time is what the test says it is."""

from __future__ import annotations

import math
import random

import pytest

from cloudlab import UsageError
from cloudlab.networks import Link
from cloudlab.networks.link import parse_rate, parse_time


def link(**conditions: object) -> Link:
    made = Link("n1", "s1").set(**conditions)  # type: ignore[arg-type]
    made._random = random.Random(7)
    return made


# --- words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(0, 0.0), (0.1, 0.1), (60, 60.0), ("100ms", 0.1), ("2s", 2.0), ("250us", 0.00025), (" 1.5 ms ", 0.0015)],
)
def test_times(given: float | str, seconds: float) -> None:
    assert parse_time(given) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "given", [-1, 61, "61s", "soon", "100", "-5ms", "", True, None, [1], math.nan, math.inf, b"1ms"]
)
def test_what_is_no_time_says_what_is_one(given: object) -> None:
    with pytest.raises(
        UsageError, match=r'is not a time for a link\.\nAllowed: 0 to 60 s\nExample: link\.set\(delay="50ms"\)'
    ):
        parse_time(given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        (1000, 1e3),
        (2e6, 2e6),
        ("2M", 2e6),
        ("2Mbit", 2e6),
        ("2 Mbit/s", 2e6),
        ("64kbps", 64e3),
        ("1.5G", 1.5e9),
        (None, None),
    ],
)
def test_rates(given: float | str | None, rate: float | None) -> None:
    assert parse_rate(given) == rate


@pytest.mark.parametrize("given", [0, -1, 999, "1", "fast", "10MB/s", "10m", True, [1], math.nan, math.inf, "as it is"])
def test_what_is_no_rate_says_what_is_one(given: object) -> None:
    with pytest.raises(UsageError, match=r'is not a rate for a link\.\nAllowed: 1k and more(.|\n)*rate="10M"'):
        parse_rate(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [-0.1, 1.1, 30, "30%", "0.3", True, math.nan])
def test_a_loss_is_a_share(given: object) -> None:
    with pytest.raises(UsageError, match=r"is not a share of frames\.\nAllowed: 0 to 1"):
        link(loss=given)


def test_set_changes_what_is_given_and_leaves_the_rest() -> None:
    made = link(delay="50ms", rate="10M").set(loss=0.5)
    assert (made.delay_s, made.jitter_s, made.loss, made.rate) == (0.05, 0.0, 0.5, 10e6)
    assert made.set(rate=None).rate is None
    assert made.delay_s == 0.05


def test_a_wrong_value_changes_nothing() -> None:
    made = link(delay="50ms")
    with pytest.raises(UsageError):
        made.set(delay="1s", loss=2)
    assert (made.delay_s, made.loss) == (0.05, 0.0)


def test_a_link_tells_what_it_is() -> None:
    assert repr(link()) == "<link n1-s1: up>"
    told = link(delay="50ms", jitter=0.001, loss=0.3, rate="10M")
    assert repr(told) == "<link n1-s1: up, delay 50 ms, jitter 1 ms, loss 30%, rate 10 Mbit/s>"
    told.cut()
    assert repr(told).startswith("<link n1-s1: cut, ")
    assert told.facts == {
        "state": "down", "delay_s": 0.05, "jitter_s": 0.001, "loss": 0.3, "rate": 10e6, "frames": 0, "octets": 0
    }  # fmt: skip


# --- when a frame comes out -------------------------------------------------------------------------------------


def test_a_plain_link_takes_no_time() -> None:
    made = link()
    assert made.plain
    assert made.due(0, 1500, 5.0) == 5.0


@pytest.mark.parametrize("condition", [{"delay": 0.1}, {"jitter": 0.1}, {"loss": 0.1}, {"rate": 1e6}])
def test_any_condition_makes_it_less_than_plain(condition: dict[str, float]) -> None:
    made = link(**condition)
    assert not made.plain
    assert made.set(**{key: None if key == "rate" else 0 for key in condition}).plain  # type: ignore[arg-type]


def test_delay_is_added_each_way() -> None:
    made = link(delay="100ms")
    assert made.due(0, 1500, 5.0) == pytest.approx(5.1)
    assert made.due(1, 60, 5.0) == pytest.approx(5.1)


def test_jitter_spreads_the_delay_and_keeps_the_order() -> None:
    made = link(delay="100ms", jitter="50ms")
    sent = [number * 0.001 for number in range(1000)]
    due = [made.due(0, 100, now) for now in sent]
    assert all(out is not None for out in due)
    assert due == sorted(due)  # type: ignore[type-var]
    waits = [out - now for now, out in zip(sent, due, strict=True)]  # type: ignore[operator]
    assert min(waits) >= 0.05
    assert max(waits) <= 0.15 + 1e-9
    assert max(waits) - min(waits) > 0.02


def test_jitter_alone_spreads_around_the_delay() -> None:
    made = link(delay="100ms", jitter="50ms")
    waits = [made.due(0, 100, now) - now for now in range(1000)]  # type: ignore[operator]
    assert sum(waits) / len(waits) == pytest.approx(0.1, abs=0.005)
    assert min(waits) < 0.06
    assert max(waits) > 0.14


def test_jitter_larger_than_the_delay_does_not_go_back_in_time() -> None:
    made = link(delay=0.01, jitter=0.05)
    assert all(made.due(0, 100, float(now)) >= now for now in range(100))  # type: ignore[operator]


def test_loss_takes_the_share_that_was_asked_for() -> None:
    """5,000 frames at 30 %: the standard deviation is 32.4 frames; four of them are allowed."""
    made = link(loss=0.3)
    lost = sum(made.due(0, 100, 0.0) is None for _ in range(5000))
    assert abs(lost - 1500) < 4 * math.sqrt(5000 * 0.3 * 0.7)
    assert made.lost == lost


def test_loss_of_one_loses_all_and_of_zero_none() -> None:
    everything, nothing = link(loss=1), link(loss=0)
    assert all(everything.due(0, 100, 0.0) is None for _ in range(1000))
    assert all(nothing.due(0, 100, 0.0) is not None for _ in range(1000))


def test_a_rate_spaces_frames_by_their_length() -> None:
    made = link(rate="1M")
    assert [made.due(0, 1250, 0.0) for _ in range(4)] == pytest.approx([0.01, 0.02, 0.03, 0.04])
    assert made.due(0, 125, 0.0) == pytest.approx(0.041)


def test_an_idle_link_does_not_save_up_for_later() -> None:
    made = link(rate="1M")
    made.due(0, 1250, 0.0)
    assert [made.due(0, 1250, 10.0) for _ in range(2)] == pytest.approx([10.01, 10.02])


def test_what_would_wait_too_long_for_its_turn_is_dropped() -> None:
    made = link(rate="1M")
    due = [made.due(0, 1250, 0.0) for _ in range(100)]
    kept = [out for out in due if out is not None]
    assert len(kept) == pytest.approx(21, abs=1), "0.2 s of 0.01 s each wait, and one is on its way"
    assert made.lost == 100 - len(kept)
    assert due[len(kept) :] == [None] * (100 - len(kept)), "the tail is dropped"
    assert made.due(0, 1250, 0.1) is not None, "there is room again"


def test_rate_and_delay_add_up() -> None:
    assert link(rate="1M", delay="100ms").due(0, 1250, 0.0) == pytest.approx(0.11)


def test_the_two_directions_do_not_wait_for_each_other() -> None:
    made = link(rate="1M")
    for _ in range(10):
        made.due(0, 1250, 0.0)
    assert made.due(1, 1250, 0.0) == pytest.approx(0.01)


# --- cut and healed ---------------------------------------------------------------------------------------------


def test_nothing_passes_a_cut_link() -> None:
    made = link(delay="1ms")
    made.cut()
    assert made.due(0, 100, 0.0) is None
    assert made.lost == 1
    made.heal()
    assert made.due(0, 100, 0.0) == pytest.approx(0.001)


def test_a_change_is_told_once() -> None:
    told: list[bool] = []
    made = Link("a", "b", lambda changed: told.append(changed.up))
    for change in (made.cut, made.cut, made.heal, made.heal):
        change()
    assert told == [False, True]


def test_captures_end_one_by_one() -> None:
    made = link()
    first, second = made.capture(), made.capture()
    with second:
        first.stop()
        assert made.captures == (second,)
    assert made.captures == ()
