"""Editions: a built lesson as a teacher hands it out (`student`) and as they keep it (`teacher`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cloudlab.errors import UsageError
from cloudlab.teaching.builder import outdated
from cloudlab.teaching.percent import library
from cloudlab.teaching.places import notebook_path, questions_path
from cloudlab.teaching.questions import Kind, Question, load_questions

EDITIONS = ("student", "teacher")


def export(path: Path, lang: str, edition: str, to: Path) -> Path:
    """Write one edition of a lesson in one language into the folder `to`, as `NN-name.zh.student.ipynb`.

    The student's has no solutions and no outputs; the teacher's has both, and a table of the answers.
    It is made from the committed notebook: UsageError when that is not up to date.
    """
    if edition not in EDITIONS:
        raise UsageError(f"{edition!r} is not an edition.", allowed=" or ".join(EDITIONS), example='"student"')
    committed = notebook_path(path, lang)
    if outdated(path):
        raise UsageError(
            f"{committed.name} was not built from the present source.",
            allowed="a lesson that is built",
            example=f"python -m cloudlab.teaching build {path}",
        )
    nbformat = library("nbformat")
    notebook = nbformat.read(committed, as_version=4)
    if edition == "student":
        _for_student(notebook)
    else:
        _for_teacher(notebook, answers_table(questions_path(path), lang))
    notebook.metadata["cloudlab"]["edition"] = edition
    to.mkdir(parents=True, exist_ok=True)
    target = to / f"{committed.stem}.{edition}.ipynb"
    target.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    return target


def answers_table(path: Path, lang: str = "en") -> str:
    """The questions of a file with their answers and explanations, as a Markdown table for teachers."""
    head = "| # | Question | Answer | Explanation |" if lang == "en" else "| # | 问题 | 答案 | 解释 |"
    rows = [
        f"| {number} | {_text(getattr(question.ask, lang))} | {_text(answer_text(question))} "
        f"| {_text(getattr(question.explanation, lang))} |"
        for number, question in sorted(load_questions(path).items())
    ]
    return "\n".join([head, "|---|---|---|---|", *rows])


def answer_text(question: Question) -> str:
    """What counts as right, in one line: `0.25 ± 0.01`, `3 … 5`, `within a factor of 2 of …`."""
    truth = "what is measured" if question.kind is Kind.MEASURED else str(question.answer)
    if question.low is not None or question.high is not None:
        low, high = ("" if bound is None else f"{bound:g}" for bound in (question.low, question.high))
        return f"{low} … {high}".strip()
    if question.factor is not None:
        return f"within a factor of {question.factor:g} of {truth}"
    if question.relative:
        return f"{truth} ± {question.relative:.3g} of it"
    return f"{truth} ± {question.tolerance:g}" if question.tolerance else truth


def _for_student(notebook: Any) -> None:
    notebook.cells = [cell for cell in notebook.cells if "solution" not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def _for_teacher(notebook: Any, table: str) -> None:
    for cell in notebook.cells:
        cell.metadata.pop("jupyter", None)
    heading = "## Answers" if notebook.metadata["cloudlab"]["lang"] == "en" else "## 答案"
    answers = library("nbformat").v4.new_markdown_cell(f"{heading}\n\n{table}")
    answers.id = f"{len(notebook.cells):02d}-answers"
    notebook.cells.append(answers)


def _text(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
