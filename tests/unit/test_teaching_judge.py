"""The judge decides whether an answer is right, and which answers it can't read."""

from __future__ import annotations

from typing import Any

import pytest

from cloudlab.errors import UsageError
from cloudlab.teaching.judge import Verdict, example, judge
from cloudlab.teaching.questions import Bilingual, Kind, Question

RIGHT, WRONG, UNREADABLE, UNANSWERED = Verdict.RIGHT, Verdict.WRONG, Verdict.UNREADABLE, Verdict.UNANSWERED


def question(kind: Kind, **rest: Any) -> Question:
    text = Bilingual("text", "文本")
    return Question(1, kind, ask=text, hint=text, explanation=text, **rest)


NUMBER = question(Kind.NUMBER, answer=42)
ABSOLUTE = question(Kind.NUMBER, answer=42, tolerance=0.5)
RELATIVE = question(Kind.NUMBER, answer=200, relative=0.1)
RANGE = question(Kind.NUMBER, low=1, high=3)
AT_LEAST = question(Kind.NUMBER, low=1)
TEXT = question(Kind.TEXT, answer=["Trap and emulate", "陷入并模拟"])
CHOICE = question(Kind.CHOICE, answer="b", choices=("a", "b", "c"))
BOOL = question(Kind.BOOL, answer=True)
SET = question(Kind.SET, answer=["cpu", "memory"])
LIST = question(Kind.LIST, answer=["trap", "emulate", 3])


@pytest.mark.parametrize(
    ("asked", "given", "verdict"),
    [
        (NUMBER, 42, RIGHT),
        (NUMBER, 42.0, RIGHT),
        (NUMBER, 42.1, WRONG),
        (NUMBER, "42", UNREADABLE),
        (NUMBER, True, UNREADABLE),
        (NUMBER, float("nan"), UNREADABLE),
        (NUMBER, None, UNREADABLE),
        (NUMBER, float("inf"), WRONG),
        (NUMBER, ..., UNANSWERED),
        (ABSOLUTE, 42.5, RIGHT),
        (ABSOLUTE, 42.6, WRONG),
        (RELATIVE, 181, RIGHT),
        (RELATIVE, 179, WRONG),
        (RANGE, 1, RIGHT),
        (RANGE, 3, RIGHT),
        (RANGE, 3.01, WRONG),
        (AT_LEAST, 1e9, RIGHT),
        (AT_LEAST, 0, WRONG),
        (TEXT, "  trap  AND emulate", RIGHT),
        (TEXT, "陷入 并模拟", RIGHT),
        (TEXT, "ｔｒａｐ and emulate", RIGHT),
        (TEXT, "binary translation", WRONG),
        (TEXT, 3, UNREADABLE),
        (CHOICE, "B", RIGHT),
        (CHOICE, "a", WRONG),
        (CHOICE, "d", UNREADABLE),
        (BOOL, True, RIGHT),
        (BOOL, False, WRONG),
        (BOOL, 1, UNREADABLE),
        (BOOL, "True", UNREADABLE),
        (SET, {"memory", "CPU"}, RIGHT),
        (SET, ["memory", "cpu", "cpu"], RIGHT),
        (SET, ["memory"], WRONG),
        (SET, ["memory", {"cpu": 1}], WRONG),
        (SET, "cpu", UNREADABLE),
        (SET, ["cpu", ...], UNANSWERED),
        (LIST, ("trap", "emulate", 3.0), RIGHT),
        (LIST, ["emulate", "trap", 3], WRONG),
        (LIST, {"trap", "emulate", 3}, UNREADABLE),
    ],
)
def test_verdict(asked: Question, given: object, verdict: Verdict) -> None:
    assert judge(asked, given) is verdict


@pytest.mark.parametrize(
    ("given", "measured", "verdict"),
    [
        (30, 20, RIGHT),
        (10, 20, RIGHT),
        (41, 20, WRONG),
        (9.9, 20, WRONG),
        (..., 20, UNANSWERED),
        (5, ..., UNANSWERED),
    ],
)
def test_an_estimate_is_right_within_a_factor_of_what_was_measured(
    given: object, measured: object, verdict: Verdict
) -> None:
    assert judge(question(Kind.MEASURED, factor=2), given, measured) is verdict


@pytest.mark.parametrize(
    ("given", "measured", "verdict"),
    [
        ("linux", "Linux", RIGHT),
        (3, "Linux", UNREADABLE),
        (True, True, RIGHT),
        (["b", "a"], {"a", "b"}, RIGHT),
        (["b", "a"], ["a", "b"], WRONG),
        (0.3, 0.1 + 0.2, RIGHT),
        (4, 5, WRONG),
    ],
)
def test_a_measured_truth_of_another_kind_is_compared_by_that_kind(
    given: object, measured: object, verdict: Verdict
) -> None:
    assert judge(question(Kind.MEASURED), given, measured) is verdict


def test_a_measured_question_needs_the_measured_value() -> None:
    with pytest.raises(UsageError, match="measured=ratio"):
        judge(question(Kind.MEASURED), 3)


def test_another_question_takes_no_measured_value() -> None:
    with pytest.raises(UsageError, match="takes no measured"):
        judge(NUMBER, 42, measured=42)


def test_a_factor_of_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="over 0"):
        judge(question(Kind.MEASURED, factor=2), 3, measured=0)


@pytest.mark.parametrize("asked", [NUMBER, TEXT, BOOL, SET, LIST, CHOICE])
def test_the_example_in_a_message_can_be_read(asked: Question) -> None:
    given = eval(example(asked).removeprefix("lesson.check(1, ").removesuffix(")"))
    assert judge(asked, given) in (RIGHT, WRONG)
