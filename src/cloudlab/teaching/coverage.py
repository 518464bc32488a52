"""Coverage: which lesson makes which point of the lecture happen, as a table in `lessons/COVERAGE.md`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cloudlab.teaching.percent import LessonSource, read
from cloudlab.teaching.places import find_sources, lesson_id

TABLE = "COVERAGE.md"


@dataclass(frozen=True)
class Point:
    """One point of the lecture; `told` points need no experiment."""

    id: str
    en: str
    zh: str
    told: bool = False


@dataclass(frozen=True)
class Row:
    """One point and the sources of the lessons that run it, run a part of it, or tell it."""

    point: Point
    run: tuple[Path, ...] = ()
    partly: tuple[Path, ...] = ()
    told: tuple[Path, ...] = ()

    @property
    def covered(self) -> bool:
        """Whether a lesson runs the point, or tells it where telling is enough."""
        return bool(self.run or (self.told and self.point.told))


def lecture() -> tuple[Point, ...]:
    """The points of the lecture, in its order (`lecture.toml`)."""
    text = Path(__file__).with_name("lecture.toml").read_text(encoding="utf-8")
    return tuple(Point(**table) for table in tomllib.loads(text)["point"])


def coverage(lessons_dir: Path, points: Iterable[Point] | None = None) -> list[Row]:
    """For each point of the lecture (or of `points`), the lessons whose headers say that they cover it."""
    sources = [read(path) for path in find_sources([lessons_dir])]
    return [_row(point, sources) for point in (lecture() if points is None else points)]


def coverage_text(lessons_dir: Path) -> str:
    """The text of `COVERAGE.md` as it should be now."""
    rows = coverage(lessons_dir)
    done = sum(row.covered for row in rows)
    lines = [
        "# Coverage of the lecture",
        "",
        "Made by `python -m cloudlab.teaching coverage` from the lessons' headers; don't edit it by hand.",
        "A lesson covers a point when it runs it. *Told* points need no experiment.",
        "",
        f"{done} of {len(rows)} points are covered.",
        "",
        "| id | Point | 要点 | Lessons |",
        "|---|---|---|---|",
    ]
    lines += [_line(row, lessons_dir) for row in rows]
    return "\n".join(lines) + "\n"


def write_coverage(lessons_dir: Path) -> Path:
    """Write `COVERAGE.md` into the lessons folder."""
    target = lessons_dir / TABLE
    target.write_text(coverage_text(lessons_dir), encoding="utf-8")
    return target


def check_coverage(lessons_dir: Path) -> list[str]:
    """What is wrong with the committed table: nothing, or that it is not what the lessons say now."""
    table = lessons_dir / TABLE
    if table.is_file() and table.read_text(encoding="utf-8") == coverage_text(lessons_dir):
        return []
    return [f"{TABLE} is not up to date: run `python -m cloudlab.teaching coverage`"]


def check_ids(source: LessonSource) -> list[str]:
    """The points in a lesson's header that the lecture doesn't have, or that may not be only told."""
    points, header = {point.id: point for point in lecture()}, source.header
    unknown = [id_ for id_ in (*header.ids, *header.partly, *header.told) if id_ not in points]
    silent = [id_ for id_ in header.told if id_ in points and not points[id_].told]
    return [f"the lecture has no point {id_}" for id_ in unknown] + [
        f"point {id_} has to be run by a lesson, not only told" for id_ in silent
    ]


def _row(point: Point, sources: list[LessonSource]) -> Row:
    def having(field: str) -> tuple[Path, ...]:
        return tuple(source.path for source in sources if point.id in getattr(source.header, field))

    return Row(point, run=having("ids"), partly=having("partly"), told=having("told"))


def _line(row: Row, root: Path) -> str:
    cells = [_link(path, root) for path in row.run]
    cells += [_link(path, root) + " (in part)" for path in row.partly]
    cells += [_link(path, root) + " (told)" for path in row.told]
    told = " *(told)*" if row.point.told else ""
    return f"| {row.point.id} | {row.point.en}{told} | {row.point.zh} | {', '.join(cells) or 'not yet'} |"


def _link(path: Path, root: Path) -> str:
    return f"[{lesson_id(path)}]({path.relative_to(root).with_suffix('.ipynb').as_posix()})"
