"""A lesson's source: jupytext percent, each English cell followed by its Chinese one, code once.

The Chinese marker carries `of="…"`, a hash of the English text; when that text changes, the other is stale.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudlab.errors import UsageError
from cloudlab.teaching.places import require_lang

_MARKER = re.compile(r"# ?%%(\s|$)")
_OF = re.compile(r'\s+of="[^"]*"')
_EXAMPLE = 'title: {en: "A computer", zh: "一台计算机"}'


@dataclass(frozen=True)
class Header:
    """What a lesson says of itself; ids are points of the lecture, as text ("2.10" is not 2.1)."""

    title: dict[str, str]
    minutes: int
    ids: tuple[str, ...] = ()
    partly: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    kind: str = "lesson"


@dataclass(frozen=True)
class Cell:
    """One cell of the source; `lang` is "" for code."""

    line: int
    type: str
    text: str
    lang: str = ""
    of: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Slot:
    """One place in the notebook: code, or a text in its two languages."""

    code: Cell | None = None
    en: Cell | None = None
    zh: Cell | None = None

    def cell(self, lang: str) -> Cell:
        """The cell that stands here in one language's notebook; the other's where it is missing."""
        require_lang(lang)
        cell = self.code or ((self.zh or self.en) if lang == "zh" else (self.en or self.zh))
        assert cell, "a slot holds at least one cell"
        return cell


@dataclass(frozen=True)
class LessonSource:
    """A lesson as it is written."""

    path: Path
    header: Header
    cells: tuple[Cell, ...]

    @property
    def slots(self) -> list[Slot]:
        """The cells as the notebook has them, each Chinese text beside the English one before it."""
        slots: list[Slot] = []
        for cell in self.cells:
            before = slots[-1] if slots else Slot()
            if cell.type == "code":
                slots.append(Slot(code=cell))
            elif cell.lang != "zh":
                slots.append(Slot(en=cell))
            elif before.en and not before.zh:
                slots[-1] = Slot(en=before.en, zh=cell)
            else:
                slots.append(Slot(zh=cell))
        return slots


@dataclass(frozen=True)
class Stale:
    """A translation that is `missing`, `orphaned` (no English before it), `stale` or `unmarked` (no lang)."""

    path: Path
    line: int
    problem: str
    words: str
    expected: str

    def __str__(self) -> str:
        way_out = {
            "missing": f'write the Chinese: # %% [markdown] lang="zh" of="{self.expected}"',
            "stale": f'check the Chinese, then stamp it: of="{self.expected}"',
            "orphaned": 'a lang="zh" cell follows its English cell at once',
            "unmarked": 'a markdown cell says lang="en" or lang="zh"',
        }[self.problem]
        return f"{self.path.name}:{self.line}: {self.problem} translation of “{self.words}…”: {way_out}"


def read(path: Path) -> LessonSource:
    """Read a lesson's source; UsageError when the header is not as it should be."""
    text = path.read_text(encoding="utf-8")
    notebook = library("jupytext").reads(text, fmt="py:percent")
    lines = _marker_lines(text)
    if len(lines) != len(notebook.cells):
        raise UsageError(
            f"{path}: {len(notebook.cells)} cells, and {len(lines)} markers.",
            allowed="a header under `jupyter:`, and then only cells that begin with # %%",
            example='# %% [markdown] lang="en"',
        )
    cells = tuple(_cell(line + 1, cell) for line, cell in zip(lines, notebook.cells, strict=True))
    return LessonSource(path, _header(path, notebook.metadata.get("cloudlab")), cells)


def english_hash(text: str) -> str:
    """What `of=` holds: the first 8 hex digits of the SHA-256 of the English text, white space aside."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:8]


def translations(path: Path) -> list[Stale]:
    """The translations of a lesson that are missing, orphaned, stale or unmarked."""
    return list(_stale(read(path)))


def stamp(path: Path) -> int:
    """Write the English's present hash into every `of=`, after the Chinese was checked; how many changed."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    changed = 0
    for slot in read(path).slots:
        if slot.en and slot.zh and slot.zh.of != english_hash(slot.en.text):
            old = _OF.sub("", lines[slot.zh.line - 1].rstrip("\n"))
            lines[slot.zh.line - 1] = f'{old} of="{english_hash(slot.en.text)}"\n'
            changed += 1
    if changed:
        path.write_text("".join(lines), encoding="utf-8")
    return changed


def library(name: str) -> Any:
    """Import what only the writers of lessons need; learners don't have it installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"Writing lessons needs {name}, which is not installed.",
            allowed="cloudlab with its build extra",
            example="pip install 'cloudlab[build]'",
        ) from error


def _stale(source: LessonSource) -> Iterator[Stale]:
    for slot in source.slots:
        cell = slot.en or slot.zh
        if not cell:
            continue
        expected = english_hash(slot.en.text) if slot.en else ""
        problem = _problem(slot, expected)
        if problem:
            at = slot.zh if problem == "stale" and slot.zh else cell
            yield Stale(source.path, at.line, problem, " ".join(cell.text.split())[:40], expected)


def _problem(slot: Slot, expected: str) -> str:
    if slot.en and slot.en.lang != "en":
        return "unmarked"
    if not slot.en:
        return "orphaned"
    if not slot.zh:
        return "missing"
    return "stale" if slot.zh.of != expected else ""


def _marker_lines(text: str) -> list[int]:
    return [number for number, line in enumerate(text.splitlines()) if _MARKER.match(line)]


def _cell(line: int, cell: Any) -> Cell:
    meta = cell.metadata
    tags = tuple(map(str, meta.get("tags", ())))
    return Cell(line, cell.cell_type, cell.source, str(meta.get("lang", "")), str(meta.get("of", "")), tags)


def _header(path: Path, table: Any) -> Header:
    if not isinstance(table, dict):
        raise UsageError(
            f"{path}: the header has no `cloudlab:` under `jupyter:`.",
            allowed="title, minutes, ids, …",
            example=_EXAMPLE,
        )
    unknown = sorted(table.keys() - Header.__annotations__.keys())
    if unknown:
        raise UsageError(
            f"{path}: the header has an unknown key {unknown[0]!r}.",
            allowed=", ".join(Header.__annotations__),
        )
    title, minutes = table.get("title"), table.get("minutes")
    if not isinstance(title, dict) or title.keys() != {"en", "zh"}:
        raise UsageError(f"{path}: the title is not in both languages.", allowed="en and zh", example=_EXAMPLE)
    if not isinstance(minutes, int):
        raise UsageError(f"{path}: minutes is {minutes!r}.", allowed="a whole number", example="minutes: 30")
    lists = {key: _texts(path, key, table.get(key, [])) for key in ("ids", "partly", "told", "needs")}
    return Header(dict(title), minutes, kind=str(table.get("kind", "lesson")), **lists)


def _texts(path: Path, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UsageError(
            f"{path}: {key} is {value!r}.",
            allowed="a list of quoted texts (2.10 unquoted is 2.1)",
            example='ids: ["2.10"]',
        )
    return tuple(value)
