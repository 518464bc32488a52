"""Tables: plain text in columns."""

from __future__ import annotations

import argparse
import unicodedata
from collections.abc import Callable, Sequence
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write rows in columns that line up, under a header; None becomes "-"."""
    lines = [[str(cell) for cell in header]]
    lines += [["-" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(_pad, line, widths)).rstrip() for line in lines)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _width(text: str) -> int:
    """Columns on a screen: a Chinese character takes two (Unicode Standard Annex 11)."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], about: str
) -> argparse.ArgumentParser:
    """Add one command: its help, and the function that runs it."""
    parser = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
    parser.set_defaults(run=run)
    return parser
