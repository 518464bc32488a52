"""The questions of a lesson: what `NN-name.questions.toml` may say, and the `Question` made of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from cloudlab.errors import UsageError
from cloudlab.teaching.seal import reveal


class Kind(StrEnum):
    """What sort of answer a question takes."""

    NUMBER = "number"
    TEXT = "text"
    CHOICE = "choice"
    BOOL = "bool"
    SET = "set"
    LIST = "list"
    MEASURED = "measured"


_COMMON = {"id", "kind", "ask", "hint", "hint2", "explanation"}
_MUST = {"id", "kind", "ask", "hint", "explanation"}
_OWN = {
    Kind.NUMBER: {"answer", "tolerance", "relative", "low", "high"},
    Kind.TEXT: {"answer"},
    Kind.CHOICE: {"answer", "choices"},
    Kind.BOOL: {"answer"},
    Kind.SET: {"answer"},
    Kind.LIST: {"answer"},
    Kind.MEASURED: {"tolerance", "relative", "factor"},
}


@dataclass(frozen=True)
class Bilingual:
    """One text in the two languages of the course."""

    en: str
    zh: str


@dataclass(frozen=True)
class Question:
    """One question; `tolerance` is absolute, `relative` a share of the answer, `factor` a ratio to it."""

    id: int
    kind: Kind
    ask: Bilingual
    hint: Bilingual
    explanation: Bilingual
    hint2: Bilingual | None = None
    answer: Any = None
    tolerance: float = 0.0
    relative: float = 0.0
    low: float | None = None
    high: float | None = None
    factor: float | None = None
    choices: tuple[str, ...] = ()


def load_questions(path: Path) -> dict[int, Question]:
    """The questions of a file by number, seals opened; none when the lesson has no file.

    UsageError names the file, the question and the key that is wrong.
    """
    questions: dict[int, Question] = {}
    for table in reveal(path) if path.is_file() else []:
        where = f"{path.name}, question {table.get('id', '?')}"
        question = _question(table, where)
        if question.id in questions:
            raise UsageError(
                f"{where}: this id stands twice.", allowed="one [[question]] for each id", example="id = 7"
            )
        questions[question.id] = question
    return questions


def _question(table: dict[str, Any], where: str) -> Question:
    _check_keys(table, where)
    _check_answer(table, where)
    texts: dict[str, Any] = {
        key: _bilingual(table[key], f"{where}: {key}")
        for key in ("ask", "hint", "hint2", "explanation")
        if key in table
    }
    rest = {key: value for key, value in table.items() if key not in texts}
    rest |= {"kind": Kind(table["kind"]), "choices": tuple(table.get("choices", ()))}
    return Question(**(rest | texts))


def _check_keys(table: dict[str, Any], where: str) -> None:
    missing = sorted(_MUST - table.keys())
    if missing:
        raise UsageError(f"{where}: {missing[0]} is missing.", allowed="the keys " + ", ".join(sorted(_MUST)))
    if table["kind"] not in list(Kind):
        raise UsageError(
            f"{where}: {table['kind']!r} is not a kind.",
            allowed=", ".join(Kind),
            example=f'kind = "{Kind.NUMBER}"',
        )
    allowed = _COMMON | _OWN[Kind(table["kind"])]
    unknown = sorted(table.keys() - allowed)
    if unknown:
        raise UsageError(
            f"{where}: a {table['kind']} question has no key {unknown[0]!r}.",
            allowed=", ".join(sorted(allowed)),
        )
    if not isinstance(table["id"], int) or isinstance(table["id"], bool):
        raise UsageError(f"{where}: the id is not a whole number.", allowed="1, 2, 3, …", example="id = 1")


def _check_answer(table: dict[str, Any], where: str) -> None:
    """Refuse an answer that no learner could ever match."""
    kind, answer, choices = Kind(table["kind"]), table.get("answer"), table.get("choices", [])
    good = {
        Kind.NUMBER: _is_number(answer) or (answer is None and bool({"low", "high"} & table.keys())),
        Kind.TEXT: isinstance(answer, str) or (isinstance(answer, list) and all(isinstance(a, str) for a in answer)),
        Kind.CHOICE: answer in choices and all(isinstance(c, str) for c in choices),
        Kind.BOOL: isinstance(answer, bool),
        Kind.SET: isinstance(answer, list),
        Kind.LIST: isinstance(answer, list),
        Kind.MEASURED: table.get("factor", 2) > 1,
    }
    if not good[kind]:
        allowed = {
            Kind.NUMBER: "answer = a number, or low and/or high",
            Kind.TEXT: "answer = a text, or a list of accepted spellings",
            Kind.CHOICE: "choices = a list of texts, and answer = one of them",
            Kind.BOOL: "answer = true or false",
            Kind.MEASURED: "factor = a number over 1 (the truth comes as measured=)",
        }.get(kind, "answer = a list")
        raise UsageError(f"{where}: the answer doesn't fit a {kind} question.", allowed=allowed)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bilingual(value: Any, where: str) -> Bilingual:
    if not (
        isinstance(value, dict) and value.keys() == {"en", "zh"} and all(isinstance(v, str) for v in value.values())
    ):
        raise UsageError(
            f"{where} is not in both languages.",
            allowed="a table of en and zh",
            example='{ en = "yes", zh = "是" }',
        )
    return Bilingual(**value)
