"""A lesson's questions as a learner meets them: predictions, checks, hints, explanations, variants."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cloudlab.errors import UsageError
from cloudlab.teaching import Lesson
from cloudlab.teaching.seal import seal_file

QUESTIONS = """\
[[question]]
id = 1
kind = "number"
ask = { en = "How many system calls?", zh = "多少次系统调用？" }
answer = 42
hint = { en = "Count the traps.", zh = "数一数陷入次数。" }
hint2 = { en = "Six times seven.", zh = "六乘七。" }
explanation = { en = "Each one traps.", zh = "每次都陷入。" }

[[question]]
id = 2
kind = "measured"
factor = 2
ask = { en = "How much slower?", zh = "慢多少倍？" }
hint = { en = "More than you think.", zh = "比你想的多。" }
explanation = { en = "Emulation costs.", zh = "模拟有代价。" }
"""


@pytest.fixture
def lesson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lesson:
    part = tmp_path / "0-ground"
    part.mkdir()
    (part / "01-a-computer.questions.toml").write_text(QUESTIONS, encoding="utf-8")
    seal_file(part / "01-a-computer.questions.toml")
    monkeypatch.setenv("CLOUDLAB_LESSONS", str(tmp_path))
    monkeypatch.delenv("CLOUDLAB_STUDENT", raising=False)
    return Lesson("0-ground/01-a-computer")


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_a_right_answer_is_explained_in_both_languages(lesson: Lesson, capsys: pytest.CaptureFixture[str]) -> None:
    lesson.check(1, 42)
    assert said(capsys) == ["✓ Question 1: right. Each one traps.", "✓ 第 1 题：正确。每次都陷入。"]
    assert lesson.results == {1: True}


def test_a_wrong_answer_gets_a_hint_then_a_further_one_and_never_the_explanation(
    lesson: Lesson, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        lesson.check(1, 41)
    assert said(capsys) == [
        "✗ Question 1: not yet. Hint: Count the traps.",
        "✗ 第 1 题：还不对。提示：数一数陷入次数。",
        *["✗ Question 1: not yet. Hint: Six times seven.", "✗ 第 1 题：还不对。提示：六乘七。"] * 2,
    ]
    assert lesson.results == {1: False}


def test_the_hint_is_repeated_where_there_is_no_further_one(lesson: Lesson, capsys: pytest.CaptureFixture[str]) -> None:
    lesson.check(2, 1, measured=20)
    first = said(capsys)
    lesson.check(2, 1, measured=20)
    assert said(capsys) == first


def test_an_estimate_is_compared_with_what_was_measured(lesson: Lesson, capsys: pytest.CaptureFixture[str]) -> None:
    lesson.check(2, 15, measured=20.123)
    out = said(capsys)
    assert out[0] == "✓ Question 2: right. Emulation costs."
    assert "20.1" not in "".join(out), "a measured value differs from run to run and may not be printed"


def test_three_dots_are_an_open_question_and_no_attempt(lesson: Lesson, capsys: pytest.CaptureFixture[str]) -> None:
    lesson.check(1, ...)
    out = said(capsys)
    assert out[0] == (
        "… Question 1 is open: How many system calls? "
        "Write your answer in place of the three dots ..., as in lesson.check(1, 12.5)"
    )
    assert out[1].startswith("… 第 1 题待答：多少次系统调用？")
    assert lesson.results == {}


def test_an_answer_of_the_wrong_type_says_what_was_given_what_is_allowed_and_an_example(
    lesson: Lesson, capsys: pytest.CaptureFixture[str]
) -> None:
    lesson.check(1, "42")
    lesson.check(1, object())
    out = said(capsys)
    assert out[0] == "✗ Question 1: you gave '42' (str). Allowed: a number. Example: lesson.check(1, 12.5)"
    assert out[1] == "✗ 第 1 题：你给出的是 '42' (str)。允许：一个数。例如：lesson.check(1, 12.5)"
    assert out[2].startswith("✗ Question 1: you gave <object>. ")
    assert lesson.results == {}


def test_a_prediction_is_one_line_a_language_and_does_not_tell_the_answer(
    lesson: Lesson, capsys: pytest.CaptureFixture[str]
) -> None:
    lesson.predict(1, 100)
    assert said(capsys) == [
        "… Prediction 1 noted: 100. Run on and see.",
        "… 第 1 题的预测已记下：100。接着运行，看看结果。",
    ]
    assert lesson.results == {}


def test_a_prediction_not_made_is_asked_for_kindly(lesson: Lesson, capsys: pytest.CaptureFixture[str]) -> None:
    lesson.predict(1, ...)
    out = said(capsys)
    assert out[0].startswith("… Prediction 1 is open: How many system calls? Write a guess")
    assert len(out) == 2


def test_a_later_right_answer_recalls_the_prediction_that_was_different(
    lesson: Lesson, capsys: pytest.CaptureFixture[str]
) -> None:
    lesson.predict(1, 100)
    lesson.check(1, 42)
    assert said(capsys)[2:] == [
        "✓ Question 1: right. You predicted 100. Each one traps.",
        "✓ 第 1 题：正确。你的预测是 100。每次都陷入。",
    ]


def test_a_prediction_that_came_true_is_not_repeated(lesson: Lesson, capsys: pytest.CaptureFixture[str]) -> None:
    lesson.predict(1, 42)
    lesson.check(1, 42)
    assert "predicted" not in said(capsys)[2]


def test_sets_are_shown_in_the_same_order_in_every_run(lesson: Lesson, capsys: pytest.CaptureFixture[str]) -> None:
    lesson.predict(1, {"pid", "mnt", "net"})
    assert "{'mnt', 'net', 'pid'}" in said(capsys)[0]


def test_progress_counts_what_is_right_and_names_what_is_left(
    lesson: Lesson, capsys: pytest.CaptureFixture[str]
) -> None:
    lesson.progress()
    lesson.check(1, 42)
    lesson.check(2, 20, measured=20)
    capsys.readouterr()
    lesson.progress()
    assert said(capsys) == ["✓ 2 of 2 right.", "✓ 共 2 题，答对 2 题。"]


def test_progress_names_what_is_left(lesson: Lesson, capsys: pytest.CaptureFixture[str]) -> None:
    lesson.progress()
    assert said(capsys) == ["… 0 of 2 right; still open: 1, 2.", "… 共 2 题，答对 0 题；待完成：1, 2。"]


def test_an_unknown_question_lists_the_known_ones(lesson: Lesson) -> None:
    with pytest.raises(UsageError, match=r"no question 7\.\nAllowed: 1, 2"):
        lesson.check(7, 1)
    with pytest.raises(UsageError, match="no question 7"):
        lesson.predict(7, 1)


def test_an_unknown_lesson_lists_the_known_ones(lesson: Lesson) -> None:
    with pytest.raises(
        UsageError, match=r'Allowed: 0-ground/01-a-computer\nExample: Lesson\("0-ground/01-a-computer"\)'
    ):
        Lesson("0-ground/99-none")


def test_a_lessons_folder_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDLAB_LESSONS", "/nowhere")
    with pytest.raises(UsageError, match="CLOUDLAB_LESSONS=/nowhere"):
        Lesson("0-ground/01-a-computer")


def test_variants_are_the_same_in_every_run_and_differ_between_students(
    lesson: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = lesson.variant().random()
    assert lesson.variant().random() == nobody
    monkeypatch.setenv("CLOUDLAB_STUDENT", "ada")
    assert lesson.variant().random() != nobody
    assert lesson.variant("").random() == nobody, "a teacher can ask for another student's numbers"


def test_a_pick_is_a_students_own_and_independent_of_other_picks(lesson: Lesson) -> None:
    numbers = range(1000)
    assert lesson.pick("memory", numbers) == lesson.pick("memory", numbers)
    assert lesson.pick("memory", numbers) != lesson.pick("disk", numbers)
    with pytest.raises(UsageError, match="nothing to choose"):
        lesson.pick("memory", [])


def test_the_numbers_of_a_variant_never_change(lesson: Lesson) -> None:
    assert lesson.variant("ada").randrange(10**6) == 630968


def test_importing_the_room_needs_nothing_that_only_writers_have() -> None:
    code = "import sys, cloudlab.teaching; print({'jupytext', 'nbclient', 'nbformat'} & sys.modules.keys())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
