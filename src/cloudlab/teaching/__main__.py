"""`python -m cloudlab.teaching`: build, check, seal and hand out lessons; also `cloudlab lessons`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cloudlab.errors import MachineError, UsageError
from cloudlab.teaching.builder import build, outdated
from cloudlab.teaching.coverage import check_coverage, write_coverage
from cloudlab.teaching.editions import EDITIONS, answers_table, export
from cloudlab.teaching.hygiene import WARNING, hygiene
from cloudlab.teaching.percent import stamp, translations
from cloudlab.teaching.places import LANGS, find_sources, lesson_id, lessons_dir, questions_path
from cloudlab.teaching.seal import seal_file


def main(argv: Sequence[str] | None = None, prog: str = "python -m cloudlab.teaching") -> int:
    """Run one command; 0 when all is well, 1 for findings or a failed cell, 2 for a wrong call."""
    arguments = _parser(prog).parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except UsageError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command
        return 2
    except MachineError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command
        return 1


def check(path: Path) -> list[str]:
    """All findings about one lesson: its translations, its hygiene, and whether it is built."""
    try:
        findings = [str(stale) for stale in translations(path)]
        if outdated(path):
            findings.append(f"{path.stem}.ipynb is not built from this source: run `python -m cloudlab.teaching build`")
    except UsageError:
        findings = []  # the source can't be read; hygiene says why
    return findings + hygiene(path)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(run=run)
        return added

    some = {
        "nargs": "*",
        "type": Path,
        "metavar": "PATH",
        "help": "a lesson's .py or a folder; default: all lessons",
    }
    built = command("build", _build, "run lessons and write their notebooks in both languages")
    built.add_argument("paths", **some)  # type: ignore[arg-type]
    built.add_argument("--no-execute", action="store_true", help="only the texts: keep the outputs of unchanged code")
    command("check", _check, "tell all that is wrong with lessons").add_argument("paths", **some)  # type: ignore[arg-type]
    for name, run, about in (
        ("stamp", _stamp, "mark the Chinese as checked against the present English"),
        ("seal", _seal, "seal the answers in a lesson's questions file"),
        ("reveal", _reveal, "print the sealed answers of a lesson as a table"),
    ):
        command(name, run, about).add_argument("path", type=Path, metavar="PATH", help="a lesson's .py")
    exported = command("export", _export, "write a student's or a teacher's edition")
    exported.add_argument("path", type=Path, metavar="PATH", help="a lesson's .py")
    exported.add_argument("--lang", choices=LANGS, default="en")
    exported.add_argument("--edition", choices=EDITIONS, default="student")
    exported.add_argument("--to", type=Path, required=True, metavar="DIR")
    command("coverage", _coverage, "write lessons/COVERAGE.md")
    return parser


def _build(arguments: argparse.Namespace) -> int:
    for path in _sources(arguments.paths):
        for notebook in build(path, execute=not arguments.no_execute):
            _say(f"wrote {notebook}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    sources = _sources(arguments.paths)
    findings = [(lesson_id(path), finding) for path in sources for finding in check(path)]
    roots = {path.resolve().parents[1] for path in sources} or {lessons_dir()}
    findings += [(root.name, finding) for root in sorted(roots) for finding in check_coverage(root)]
    for where, finding in findings:
        _say(f"{where}: {finding}")
    bad = [finding for _, finding in findings if not finding.startswith(WARNING)]
    _say(f"{len(sources)} lessons, {len(bad)} findings, {len(findings) - len(bad)} warnings")
    return 1 if bad else 0


def _stamp(arguments: argparse.Namespace) -> int:
    (path,) = find_sources([arguments.path])
    _say(f"{stamp(path)} translations stamped in {path}")
    return 0


def _seal(arguments: argparse.Namespace) -> int:
    path = _questions(arguments.path)
    _say(f"{path} sealed" if seal_file(path) else f"{path} was sealed already")
    return 0


def _reveal(arguments: argparse.Namespace) -> int:
    _say(answers_table(_questions(arguments.path)))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    (path,) = find_sources([arguments.path])
    _say(f"wrote {export(path, arguments.lang, arguments.edition, arguments.to)}")
    return 0


def _coverage(arguments: argparse.Namespace) -> int:
    _say(f"wrote {write_coverage(lessons_dir())}")
    return 0


def _sources(paths: list[Path]) -> list[Path]:
    return find_sources(paths or [lessons_dir()])


def _questions(path: Path) -> Path:
    found = path if path.name.endswith(".questions.toml") else questions_path(path)
    if found.is_file():
        return found
    raise UsageError(
        f"{found} is not there.",
        allowed="a lesson's .py that has questions, or the questions file itself",
        example="python -m cloudlab.teaching reveal lessons/0-ground/01-a-computer-inside-a-computer.py",
    )


def _say(text: str) -> None:
    print(text)  # noqa: T201 - a command


if __name__ == "__main__":
    sys.exit(main())
