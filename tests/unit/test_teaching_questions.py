"""Questions files: what they may say, and how their answers are sealed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from cloudlab.errors import UsageError
from cloudlab.teaching.questions import Kind, load_questions
from cloudlab.teaching.seal import reveal, seal, seal_file, unseal

PLAIN = """\
# Questions of a lesson; this comment stays.

[[question]]
id = 1
kind = "number"
ask = { en = "How many?", zh = "多少？" }
answer = 42   # this comment tells the answer and goes
tolerance = 0.5
hint = { en = \"\"\"Not this:
answer = 7\"\"\", zh = "不是这个" }
explanation = { en = "Six times seven.", zh = "六乘七。" }

[[question]]
id = 2
kind = "set"
ask = { en = "Which?", zh = "哪些？" }
answer = [
  "cpu",
  "memory",
]
hint = { en = "Two.", zh = "两个。" }
explanation = { en = "Both.", zh = "都是。" }
"""

COMMON = """\
[[question]]
id = 1
ask = { en = "?", zh = "？" }
hint = { en = "h", zh = "提示" }
explanation = { en = "e", zh = "解释" }
"""


def questions(folder: Path, text: str) -> Path:
    path = folder / "01-name.questions.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_sealing_hides_answers_and_explanations_and_keeps_all_other_text(tmp_path: Path) -> None:
    path = questions(tmp_path, PLAIN)
    assert seal_file(path)
    text = path.read_text(encoding="utf-8")
    assert "42" not in text
    assert "Six times" not in text
    assert '"memory"' not in text
    kept = [
        line for line in PLAIN.splitlines() if line.startswith(("#", "id", "kind", "ask", "tol", "hint", "answer = 7"))
    ]
    assert [line for line in text.splitlines() if line in kept] == kept


def test_a_sealed_file_says_the_same_as_the_plain_one(tmp_path: Path) -> None:
    path = questions(tmp_path, PLAIN)
    before = tomllib.loads(PLAIN)["question"]
    seal_file(path)
    assert reveal(path) == before
    assert load_questions(path)[1].answer == 42


def test_sealing_again_changes_nothing(tmp_path: Path) -> None:
    path = questions(tmp_path, PLAIN)
    seal_file(path)
    once = path.read_bytes()
    assert not seal_file(path)
    assert path.read_bytes() == once


def test_sealing_is_deterministic_and_equal_answers_look_different() -> None:
    assert seal(True, "1.answer") == seal(True, "1.answer")
    assert seal(True, "1.answer") != seal(True, "2.answer")


@pytest.mark.parametrize("value", [True, 0, 0.25, "网络", ["a", 1], {"en": "e", "zh": "中"}])
def test_unsealing_gives_back_what_was_sealed(value: object) -> None:
    assert unseal(seal(value, "3.answer"), "3.answer") == value


@pytest.mark.parametrize(
    "text", ["sealed:AAAA", "sealed:", "sealed:é", seal(42, "1.answer")[:-3], seal(42, "2.answer")]
)
def test_a_damaged_or_borrowed_seal_is_refused_with_the_place_it_stands_in(text: str) -> None:
    with pytest.raises(UsageError, match=r"1\.answer"):
        unseal(text, "1.answer")


def test_an_answer_written_so_that_it_cannot_be_sealed_is_refused_and_left_alone(tmp_path: Path) -> None:
    text = COMMON.replace('explanation = { en = "e", zh = "解释" }', 'explanation.en = "e"\nexplanation.zh = "解释"')
    path = questions(tmp_path, text + 'kind = "bool"\nanswer = true\n')
    with pytest.raises(UsageError, match=r"1\.explanation"):
        seal_file(path)
    assert "answer = true" in path.read_text(encoding="utf-8")


def test_a_lesson_without_a_questions_file_has_no_questions(tmp_path: Path) -> None:
    assert load_questions(tmp_path / "none.questions.toml") == {}


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ('kind = "riddle"', "'riddle' is not a kind"),
        ('kind = "bool"', "doesn't fit a bool"),
        ('kind = "bool"\nanswer = 1', "doesn't fit a bool"),
        ('kind = "number"\nanswer = "42"', "doesn't fit a number"),
        ('kind = "number"\nanswer = 42\ntolerence = 1', "no key 'tolerence'"),
        ('kind = "choice"\nchoices = ["a", "b"]\nanswer = "c"', "doesn't fit a choice"),
        ('kind = "set"\nanswer = "cpu"', "doesn't fit a set"),
        ('kind = "measured"\nfactor = 1', "doesn't fit a measured"),
        ('kind = "measured"\nanswer = 1', "no key 'answer'"),
        ('kind = "bool"\nanswer = true\nhint2 = "only English"', "hint2 is not in both languages"),
        ("answer = true", "kind is missing"),
    ],
)
def test_a_mistake_in_a_questions_file_is_named(tmp_path: Path, rest: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        load_questions(questions(tmp_path, COMMON + rest))
    assert "01-name.questions.toml, question 1" in str(caught.value)


def test_an_id_stands_only_once(tmp_path: Path) -> None:
    one = COMMON + 'kind = "bool"\nanswer = true\n'
    with pytest.raises(UsageError, match="twice"):
        load_questions(questions(tmp_path, one + one))


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not TOML"):
        load_questions(questions(tmp_path, "[[question"))


def test_a_range_needs_no_answer(tmp_path: Path) -> None:
    question = load_questions(questions(tmp_path, COMMON + 'kind = "number"\nlow = 1\nhigh = 3'))[1]
    assert (question.kind, question.low, question.high) == (Kind.NUMBER, 1, 3)
