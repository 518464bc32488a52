"""The judge: is an answer right? Pure, so that a lesson's questions can be tested without a notebook."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping
from enum import Enum
from numbers import Real
from typing import Any

from cloudlab.errors import UsageError
from cloudlab.teaching.questions import Bilingual, Kind, Question


class Verdict(Enum):
    """What the judge found; `UNREADABLE` is an answer of the wrong type, which is no attempt."""

    RIGHT = "right"
    WRONG = "wrong"
    UNREADABLE = "unreadable"
    UNANSWERED = "unanswered"


def judge(question: Question, given: object, measured: object = None) -> Verdict:
    """Compare an answer with a question's; `measured` is the truth of a `measured` question.

    UsageError when a measured question comes without `measured`, or another one with it.
    """
    if (question.kind is Kind.MEASURED) != (measured is not None):
        raise _about_measured(question)
    if _open(given) or _open(measured):
        return Verdict.UNANSWERED
    if not _readable(question, given, measured):
        return Verdict.UNREADABLE
    return Verdict.RIGHT if _right(question, given, measured) else Verdict.WRONG


def _open(value: object) -> bool:
    """Whether the learner has left a `...` to be filled in."""
    return value is ... or (isinstance(value, list | tuple) and any(item is ... for item in value))


def kind_of(question: Question, measured: object) -> Kind:
    """The kind to judge by: a measured question takes the kind of its truth."""
    if question.kind is not Kind.MEASURED:
        return question.kind
    if isinstance(measured, bool):
        return Kind.BOOL
    if isinstance(measured, str):
        return Kind.TEXT
    if isinstance(measured, set | frozenset):
        return Kind.SET
    return Kind.LIST if isinstance(measured, list | tuple) else Kind.NUMBER


def _readable(question: Question, given: object, measured: object) -> bool:
    match kind_of(question, measured):
        case Kind.NUMBER:
            return isinstance(given, Real) and not isinstance(given, bool) and not math.isnan(given)
        case Kind.TEXT:
            return isinstance(given, str)
        case Kind.CHOICE:
            return isinstance(given, str) and fold(given) in map(fold, question.choices)
        case Kind.BOOL:
            return isinstance(given, bool)
        case Kind.LIST:
            return _is_many(given) and not isinstance(given, set | frozenset)
        case _:
            return _is_many(given)


def _is_many(given: object) -> bool:
    return isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping)


def _right(question: Question, given: Any, measured: Any) -> bool:
    truth = question.answer if measured is None else measured
    match kind_of(question, measured):
        case Kind.NUMBER:
            return _number_right(question, float(given), truth)
        case Kind.TEXT | Kind.CHOICE:
            return fold(given) in map(fold, [truth] if isinstance(truth, str) else truth)
        case Kind.BOOL:
            return bool(given == truth)
        case Kind.SET:
            return {fold(item) for item in given} == {fold(item) for item in truth}
        case _:
            return [fold(item) for item in given] == [fold(item) for item in truth]


def _number_right(question: Question, given: float, truth: Any) -> bool:
    if question.low is not None or question.high is not None:
        return (question.low is None or question.low <= given) and (question.high is None or given <= question.high)
    if question.factor is not None:
        if not truth > 0:
            raise UsageError(
                f"Question {question.id} compares by a factor, and measured={truth!r} has none.",
                allowed="a measured value over 0",
                example=f"lesson.check({question.id}, 3, measured=2.7)",
            )
        return bool(truth / question.factor <= given <= truth * question.factor)
    # 0.1 + 0.2 is right where 0.3 is asked, even with no tolerance given.
    return math.isclose(given, truth, rel_tol=max(question.relative, 1e-9), abs_tol=max(question.tolerance, 1e-12))


def fold(item: object) -> object:
    """An answer as it is compared: text without case, spaces and full-width forms, a number as a number."""
    if isinstance(item, str):
        return "".join(unicodedata.normalize("NFKC", item).casefold().split())
    if isinstance(item, bool):
        return ("bool", item)  # else True == 1 would make a list of numbers right
    if isinstance(item, Real):
        return float(f"{float(item):.9g}")  # else 0.1 + 0.2 would not be 0.3
    return tuple(map(fold, item)) if isinstance(item, list | tuple) else repr(item)


def allowed(question: Question, measured: object = None) -> Bilingual:
    """What a question takes as an answer, in words."""
    choices = ", ".join(f'"{choice}"' for choice in question.choices)
    return {
        Kind.NUMBER: Bilingual("a number", "一个数"),
        Kind.TEXT: Bilingual("a text in quotation marks", "带引号的文本"),
        Kind.CHOICE: Bilingual(f"one of {choices}", f"以下之一：{choices}"),
        Kind.BOOL: Bilingual("True or False", "True 或 False"),
        Kind.SET: Bilingual("a set or list, in any order", "集合或列表，顺序不限"),
        Kind.LIST: Bilingual("a list, in order", "有序的列表"),
    }[kind_of(question, measured)]


def example(question: Question, measured: object = None) -> str:
    """A call of `lesson.check` that can be read, and says nothing about the answer."""
    value = {
        Kind.NUMBER: "12.5",
        Kind.TEXT: '"your words"',
        Kind.CHOICE: f'"{question.choices[0]}"' if question.choices else "",
        Kind.BOOL: "True",
        Kind.SET: '{"one", "two"}',
        Kind.LIST: '["first", "second"]',
    }[kind_of(question, measured)]
    extra = ", measured=…" if question.kind is Kind.MEASURED else ""
    return f"lesson.check({question.id}, {value}{extra})"


def _about_measured(question: Question) -> UsageError:
    if question.kind is Kind.MEASURED:
        return UsageError(
            f"Question {question.id} compares with something measured, and nothing was given.",
            allowed="the measured value by keyword",
            example=f"lesson.check({question.id}, 3, measured=ratio)",
        )
    return UsageError(
        f"Question {question.id} is a {question.kind} question and takes no measured=.",
        allowed="the answer alone",
        example=example(question),
    )
