"""The builder: from one source, run once, to notebooks in two languages and two editions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cloudlab.errors import MachineError, UsageError
from cloudlab.teaching import builder
from cloudlab.teaching.__main__ import main
from cloudlab.teaching.builder import build, outdated
from cloudlab.teaching.editions import answer_text, export
from cloudlab.teaching.percent import stamp
from cloudlab.teaching.questions import Bilingual, Kind, Question

LESSON = """\
# ---
# jupyter:
#   cloudlab:
#     title: {en: "A computer", zh: "一台计算机"}
#     minutes: 30
#     ids: ["2.01"]
#     partly: ["2.02"]
#     kind: example
# ---

# %% [markdown] lang="en"
# # A computer
#
# It adds.

# %% [markdown] lang="zh"
# # 一台计算机
#
# 它会做加法。

# %%
from cloudlab.teaching import Lesson
lesson = Lesson("0-ground/01-a-computer")
total = ...
lesson.check(1, total)

# %% tags=["solution"]
# A solution
total = 1 + 1
lesson.check(1, total)

# %% tags=["raises-exception"]
lesson.pick("memory", [])
"""
QUESTIONS = """\
[[question]]
id = 1
kind = "number"
ask = { en = "What is 1 + 1?", zh = "1 + 1 等于几？" }
answer = 2
hint = { en = "Count.", zh = "数一数。" }
explanation = { en = "One | one more.", zh = "再加一。" }
"""


def write(folder: Path, text: str = LESSON) -> Path:
    part = folder / "0-ground"
    part.mkdir(parents=True, exist_ok=True)
    (part / "01-a-computer.questions.toml").write_text(QUESTIONS, encoding="utf-8")
    path = part / "01-a-computer.py"
    path.write_text(text, encoding="utf-8")
    stamp(path)
    return path


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one lesson that is really run."""
    path = write(tmp_path_factory.mktemp("executed"))
    build(path)
    return path


@pytest.fixture
def built(executed: Path, tmp_path: Path) -> Path:
    """A copy of the lesson that was run, to be changed."""
    shutil.copytree(executed.parents[1], tmp_path / "lessons")
    return tmp_path / "lessons" / "0-ground" / "01-a-computer.py"


def notebook(path: Path, suffix: str = ".ipynb") -> Any:
    return json.loads(path.with_suffix(suffix).read_text(encoding="utf-8"))


def printed(cell: Any) -> str:
    return "".join("".join(output.get("text", "")) for output in cell["outputs"])


def test_both_languages_come_from_the_same_run(executed: Path) -> None:
    en, zh = notebook(executed), notebook(executed, ".zh.ipynb")
    assert "".join(en["cells"][0]["source"]) == "# A computer\n\nIt adds."
    assert "".join(zh["cells"][0]["source"]) == "# 一台计算机\n\n它会做加法。"
    assert en["cells"][1:] == zh["cells"][1:]
    assert [cell["id"] for cell in en["cells"]] == [cell["id"] for cell in zh["cells"]]
    assert printed(en["cells"][2]).startswith("✓ Question 1: right. One | one more.\n✓ 第 1 题")


def test_an_exercise_left_open_and_an_error_that_is_meant_are_part_of_the_notebook(executed: Path) -> None:
    cells = notebook(executed)["cells"]
    assert printed(cells[1]).startswith("… Question 1 is open")
    (error,) = cells[3]["outputs"]
    assert error["ename"] == "UsageError"
    traceback = "\n".join(error["traceback"])
    assert "cloudlab/teaching/lesson.py" in traceback
    assert str(Path(builder.__file__).parents[2]) not in traceback


def test_solutions_are_folded_away(executed: Path) -> None:
    hidden = [cell["metadata"].get("jupyter") for cell in notebook(executed)["cells"]]
    assert hidden == [None, None, {"source_hidden": True, "outputs_hidden": True}, None]


def test_nothing_that_varies_is_kept(executed: Path) -> None:
    metadata = notebook(executed)["metadata"]
    assert sorted(metadata) == ["cloudlab", "kernelspec", "language_info"]
    assert "version" not in metadata["language_info"]
    assert metadata["kernelspec"] == {
        "name": "python3",
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
    }
    assert all("execution" not in cell["metadata"] for cell in notebook(executed)["cells"])


def test_building_seals_the_questions(executed: Path) -> None:
    text = executed.with_suffix(".questions.toml").read_text(encoding="utf-8")
    assert 'answer = "sealed:' in text
    assert 'explanation = "sealed:' in text


def test_a_notebook_is_outdated_when_its_source_changes_and_not_by_its_outputs(built: Path) -> None:
    assert not outdated(built)
    built.with_suffix(".ipynb").write_text(
        built.with_suffix(".ipynb").read_text(encoding="utf-8").replace("is open", "is closed"),
        encoding="utf-8",
    )
    assert not outdated(built)
    built.write_text(built.read_text(encoding="utf-8").replace("加法", "减法"), encoding="utf-8")
    assert outdated(built)


def test_a_lesson_without_notebooks_is_outdated(tmp_path: Path) -> None:
    assert outdated(write(tmp_path))


def test_texts_can_be_built_again_without_running_the_code(built: Path) -> None:
    before = notebook(built)["cells"][1:]
    built.write_text(built.read_text(encoding="utf-8").replace("It adds.", "It subtracts."), encoding="utf-8")
    build(built, execute=False)
    after = notebook(built)["cells"]
    assert "".join(after[0]["source"]).endswith("It subtracts.")
    assert after[1:] == before


def test_outputs_of_changed_code_are_dropped_when_it_is_not_run(built: Path) -> None:
    built.write_text(built.read_text(encoding="utf-8").replace("1 + 1", "1 + 2"), encoding="utf-8")
    build(built, execute=False)
    assert [cell.get("outputs") for cell in notebook(built)["cells"]] == [None, [], [], []]


def test_building_again_writes_the_same_bytes(built: Path) -> None:
    before = built.with_suffix(".zh.ipynb").read_bytes()
    build(built, execute=False)
    assert built.with_suffix(".zh.ipynb").read_bytes() == before


def test_a_missing_translation_shows_the_english(tmp_path: Path) -> None:
    path = write(tmp_path, LESSON.replace('# %% [markdown] lang="zh"\n# # 一台计算机\n#\n# 它会做加法。\n\n', ""))
    build(path, execute=False)
    assert "".join(notebook(path, ".zh.ipynb")["cells"][0]["source"]).endswith("It adds.")


def test_a_cell_that_fails_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    path = write(tmp_path, LESSON.replace("total = 1 + 1", "total = 1 / 0"))
    with pytest.raises(MachineError) as caught:
        build(path)
    said = str(caught.value)
    assert "lesson 0-ground/01-a-computer: cell 3 failed with ZeroDivisionError: division by zero" in said
    assert "total = 1 / 0" in said
    assert "  | ZeroDivisionError: division by zero" in said
    assert "\x1b" not in said
    assert f"repair 01-a-computer.py:{LESSON[: LESSON.index('# %% tags')].count(chr(10)) + 1}" in said
    assert not path.with_suffix(".ipynb").exists()
    assert "answer = 2" in path.with_suffix(".questions.toml").read_text(encoding="utf-8")


def test_random_ids_of_widgets_are_dropped() -> None:
    import nbformat

    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "IntSlider(value=3)"}
    output = nbformat.v4.new_output("display_data", data=view)
    assert builder._clean(output).data == {"text/plain": "IntSlider(value=3)"}


def test_a_students_edition_has_neither_solutions_nor_outputs(built: Path, tmp_path: Path) -> None:
    target = export(built, "zh", "student", tmp_path / "out")
    assert target == tmp_path / "out" / "01-a-computer.zh.student.ipynb"
    cells = json.loads(target.read_text(encoding="utf-8"))["cells"]
    assert len(cells) == 3
    assert "".join(cells[0]["source"]).startswith("# 一台计算机")
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells[1:])
    assert "1 + 1" not in target.read_text(encoding="utf-8")


def test_a_teachers_edition_has_both_and_the_answers(built: Path, tmp_path: Path) -> None:
    cells = json.loads(export(built, "en", "teacher", tmp_path).read_text(encoding="utf-8"))["cells"]
    assert "source_hidden" not in json.dumps(cells)
    assert printed(cells[2]).startswith("✓")
    assert "".join(cells[-1]["source"]).endswith("| 1 | What is 1 + 1? | 2 | One \\| one more. |")


def test_an_edition_is_made_only_from_a_lesson_that_is_built(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not built from the present source"):
        export(write(tmp_path), "en", "student", tmp_path)
    with pytest.raises(UsageError, match="Allowed: student or teacher"):
        export(write(tmp_path), "en", "parent", tmp_path)
    with pytest.raises(UsageError, match="Allowed: en or zh"):
        export(write(tmp_path), "fr", "student", tmp_path)


@pytest.mark.parametrize(
    ("rest", "text"),
    [
        ({"answer": 2}, "2"),
        ({"answer": 2, "tolerance": 0.5}, "2 ± 0.5"),
        ({"answer": 2, "relative": 0.1}, "2 ± 0.1 of it"),
        ({"low": 1, "high": 3}, "1 … 3"),
        ({"low": 1}, "1 …"),
        ({"kind": Kind.MEASURED, "factor": 2}, "within a factor of 2 of what is measured"),
        ({"kind": Kind.SET, "answer": ["a", "b"]}, "['a', 'b']"),
    ],
)
def test_an_answer_in_one_line(rest: dict[str, Any], text: str) -> None:
    both = Bilingual("text", "文本")
    fields: dict[str, Any] = {"id": 1, "kind": Kind.NUMBER, "ask": both, "hint": both, "explanation": both}
    assert answer_text(Question(**(fields | rest))) == text


def test_the_commands_from_seal_to_export(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLOUDLAB_LESSONS", str(built.parents[1]))
    assert main(["coverage"]) == 0
    assert main(["check"]) == 0
    assert capsys.readouterr().out.endswith("1 lessons, 0 findings, 0 warnings\n")
    assert main(["seal", str(built)]) == 0
    assert main(["reveal", str(built)]) == 0
    assert "| 1 | What is 1 + 1? | 2 |" in capsys.readouterr().out
    assert main(["export", str(built), "--lang", "zh", "--edition", "teacher", "--to", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "01-a-computer.zh.teacher.ipynb").is_file()
    assert main(["build", "--no-execute", str(built)]) == 0


def test_check_ends_with_1_and_tells_all_it_found(
    built: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLOUDLAB_LESSONS", str(built.parents[1]))
    built.write_text(built.read_text(encoding="utf-8").replace("It adds.", "It subtracts."), encoding="utf-8")
    assert main(["check", str(built)]) == 1
    out = capsys.readouterr().out
    assert "0-ground/01-a-computer: 01-a-computer.py:16: stale translation" in out
    assert "01-a-computer.ipynb is not built from this source" in out
    assert "COVERAGE.md is not up to date" in out
    assert main(["stamp", str(built)]) == 0
    assert "1 translations stamped" in capsys.readouterr().out


def test_a_wrong_call_ends_with_2_and_says_what_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(tmp_path / "none.py")]) == 2
    assert "is not a lesson" in capsys.readouterr().err
    assert main(["reveal", str(tmp_path / "none.py")]) == 2
