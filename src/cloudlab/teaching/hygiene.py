"""Hygiene: what every lesson keeps to, so that it stays readable, testable and usable without the network.

A rule is a generator of findings; `hygiene` runs them all. One that begins with "warning: " fails nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from cloudlab.errors import UsageError
from cloudlab.teaching.builder import load_json
from cloudlab.teaching.coverage import check_ids
from cloudlab.teaching.percent import Cell, LessonSource, read
from cloudlab.teaching.places import LANGS, notebook_path, questions_path
from cloudlab.teaching.questions import load_questions
from cloudlab.teaching.seal import read_questions, unsealed

WARNING = "warning: "
CODE_LINES, CODE_WIDTH, WORDS, CODE_CELLS = 12, 100, 120, range(25, 46)

_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^(#{1,6})\s", re.MULTILINE)
_ASKED = re.compile(r"\.(?:check|predict)\(\s*(\d+)\s*,")
_CHECKED = re.compile(r"\.check\(\s*(\d+)\s*,")
_SLEEP = re.compile(r"\btime\.sleep\b|\bfrom time import\b.*\bsleep\b")
_REMOTE = re.compile(
    r"!\[[^\]]*\]\(\s*<?https?:|<(?:img|script|iframe|link)\b[^>]*(?:src|href)\s*=\s*[\"']?https?:",
    re.IGNORECASE,
)
_IMAGE = re.compile(r"!\[([^\]]*)\]\(|(<img\b[^>]*>)", re.IGNORECASE)
_ALT = re.compile(r"\balt\s*=\s*([\"'])\s*\S.*?\1", re.IGNORECASE)
_OWN_PATH = re.compile(r"(?:/(?:home|Users)/[^/\s\"'\\]+/|/root/|/tmp/|/var/folders/)[^\s\"'\\]*")


def hygiene(path: Path) -> list[str]:
    """What a lesson breaks of the rules, each finding with the file, the line or cell, and the rule."""
    try:
        source = read(path)
        return [finding for rule in RULES for finding in rule(source)]
    except UsageError as error:  # a file that can't be read at all is a finding like any other
        return [str(error)]


def _cells_are_small(source: LessonSource) -> Iterator[str]:
    for cell in _code(source):
        lines = cell.text.splitlines()
        if len(lines) > CODE_LINES:
            yield _at(source, cell, f"{len(lines)} lines of code, allowed are {CODE_LINES}")
        for line in lines:
            if len(line) > CODE_WIDTH:
                yield _at(source, cell, f"a line of {len(line)} characters, allowed are {CODE_WIDTH}: {line[:40]}…")


def _texts_are_short(source: LessonSource) -> Iterator[str]:
    for slot in source.slots:
        words = len(re.findall(r"\S*\w\S*", _FENCE.sub("", slot.en.text))) if slot.en else 0
        if slot.en and words > WORDS:
            yield _at(source, slot.en, f"{words} words, allowed are {WORDS}")


def _headings_are_ordered(source: LessonSource) -> Iterator[str]:
    for lang in LANGS:
        cells = [slot.cell(lang) for slot in source.slots]
        levels = [(cell, len(mark)) for cell in cells if cell.lang for mark in _HEADING.findall(_prose(cell))]
        tops = [cell for cell, level in levels if level == 1]
        if not cells or [cell.line for cell in tops] != [cells[0].line]:
            yield f"{source.path.name}: {len(tops)} headings # in {lang}; one is allowed, in the first cell"
        for (_, before), (cell, level) in pairwise(levels):
            if level > before + 1:
                yield _at(source, cell, f"a heading of level {level} after one of level {before} skips a level")


def _nothing_is_loaded_from_the_network(source: LessonSource) -> Iterator[str]:
    for cell in source.cells:
        if _REMOTE.search(cell.text):
            yield _at(source, cell, "an image or script from the network; put it beside the lesson")


def _images_have_alternative_text(source: LessonSource) -> Iterator[str]:
    for cell in source.cells:
        for alt, tag in _IMAGE.findall(_prose(cell)) if cell.type == "markdown" else []:
            if not (alt.strip() or _ALT.search(tag)):
                yield _at(source, cell, "an image without alternative text")


def _waits_are_for_events(source: LessonSource) -> Iterator[str]:
    for cell in _code(source):
        if _SLEEP.search(cell.text) and "sleep-ok" not in cell.tags:
            yield _at(source, cell, "time.sleep: wait for the event, or give the cell the tag sleep-ok")


def _checks_have_questions(source: LessonSource) -> Iterator[str]:
    path = questions_path(source.path)
    questions = load_questions(path)
    asked = {int(number) for cell in _code(source) for number in _ASKED.findall(cell.text)}
    checked = {int(number) for cell in _code(source) for number in _CHECKED.findall(cell.text)}
    for number in sorted(asked - questions.keys()):
        yield f"{path.name}: question {number} is asked in the lesson and is not here"
    for number in sorted(questions.keys() - checked):
        yield f"{path.name}: question {number} is never checked in the lesson"
    for table in read_questions(path) if path.is_file() else []:
        for place in unsealed(table):
            yield f"{path.name}: {place} is in plain text: run `python -m cloudlab.teaching seal`"


def _a_folded_solution_shows_no_answer(source: LessonSource) -> Iterator[str]:
    for cell in _code(source):
        if "solution" in cell.tags and not cell.text.startswith("#"):
            yield f"{source.path.name}:{cell.line}: a folded cell shows its first line: begin the solution with a comment"


def _a_lesson_has_its_length(source: LessonSource) -> Iterator[str]:
    count = sum("solution" not in cell.tags for cell in _code(source))  # as a student sees it
    if source.header.kind == "lesson" and count not in CODE_CELLS:
        yield f"{WARNING}{source.path.name}: {count} code cells, not {CODE_CELLS[0]} to {CODE_CELLS[-1]}"


def _the_header_names_points_of_the_lecture(source: LessonSource) -> Iterator[str]:
    yield from (f"{source.path.name}: {finding}" for finding in check_ids(source))


def _the_notebook_was_run(source: LessonSource) -> Iterator[str]:
    """A cell without an execution count is never compared by nbval: green, and nothing tested."""
    for name, notebook in _notebooks(source):
        for number, cell in enumerate(notebook["cells"], 1):
            if cell["cell_type"] == "code" and cell.get("execution_count") is None:
                yield f"{name}: cell {number} was never run, so nothing in it is tested"
        if "widgets" in notebook["metadata"]:
            yield f"{name}: the metadata hold the state of widgets"


def _outputs_name_no_path_of_the_builder(source: LessonSource) -> Iterator[str]:
    for name, notebook in _notebooks(source):
        for number, cell in enumerate(notebook["cells"], 1):
            if "paths-ok" in cell["metadata"].get("tags", ()):
                continue  # such as a path inside a guest
            found = _OWN_PATH.search(_readable(cell.get("outputs", [])))
            if found:
                yield f"{name}: cell {number} prints {found[0]}; if it is a guest's, tag the cell paths-ok"


Rule = Callable[[LessonSource], Iterator[str]]
RULES: tuple[Rule, ...] = (
    _cells_are_small,
    _texts_are_short,
    _headings_are_ordered,
    _nothing_is_loaded_from_the_network,
    _images_have_alternative_text,
    _waits_are_for_events,
    _checks_have_questions,
    _a_folded_solution_shows_no_answer,
    _a_lesson_has_its_length,
    _the_header_names_points_of_the_lecture,
    _the_notebook_was_run,
    _outputs_name_no_path_of_the_builder,
)


def _code(source: LessonSource) -> list[Cell]:
    return [cell for cell in source.cells if cell.type == "code"]


def _prose(cell: Cell) -> str:
    return _FENCE.sub("", cell.text)


def _at(source: LessonSource, cell: Cell, finding: str) -> str:
    return f"{source.path.name}:{cell.line}: {finding}"


def _notebooks(source: LessonSource) -> list[tuple[str, Any]]:
    paths = [notebook_path(source.path, lang) for lang in LANGS]
    return [(path.name, load_json(path)) for path in paths if path.is_file()]


def _readable(outputs: list[dict[str, Any]]) -> str:
    """All text of a cell's outputs; pictures are left out, being base64 in which any letters may meet."""
    kept = [
        {
            **output,
            "data": {kind: data for kind, data in output.get("data", {}).items() if not kind.startswith("image/")},
        }
        for output in outputs
    ]
    return json.dumps(kept, ensure_ascii=False)
