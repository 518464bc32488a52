"""Tables as pictures: cells with colours and bars in a page, plain columns for print, and always the words of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from cloudlab.views import style
from cloudlab.views.picture import written_page

# Notebooks have their own idea of tables (to the right, striped): what must hold against it says so. A ground that is
# half transparent, and letters in the page's own colour, read on white and on black.
CSS = """
.cl-sheet table { border-collapse: collapse; margin: 0 !important; font-size: 13px }
.cl-sheet caption { text-align: left; font-weight: 600; padding: 2px 0 6px; caption-side: top; color: inherit }
.cl-sheet :is(th, td) { text-align: left !important; padding: 2px 9px !important; font-weight: 400; vertical-align: middle;
  background: none; border: 0 !important; border-bottom: 1px solid #8a8a8a40 !important; white-space: nowrap !important }
.cl-sheet tbody tr { background: none !important }
.cl-sheet tbody tr:hover { background: #8a8a8a26 !important }
.cl-sheet thead th { position: sticky; top: 0; z-index: 1; font-weight: 600; background: var(--jp-layout-color0, Canvas);
  border-bottom: 1px solid #8a8a8a !important }
.cl-sheet tr.cl-marked > :first-child { box-shadow: inset 4px 0 #0072b2 }
.cl-sheet tr.cl-marked > * { font-weight: 700 }
.cl-sheet .cl-pane { max-height: 520px; overflow: auto; width: fit-content; max-width: 100% }
.cl-sheet code { background: none; color: inherit; font-size: 12px }
.cl-sheet p { margin: 4px 0; color: inherit }
.cl-sheet .cl-faint { color: #767676 }
"""
GROUND = "3d"  # of ff: the share of a colour in a cell's ground


@dataclass(frozen=True)
class Cell:
    """A cell: its text, a `colour` for its ground, a `hint` when the mouse is over it; `inside`: HTML in place of the text."""

    text: str
    colour: str = ""
    hint: str = ""
    faint: bool = False
    inside: str = ""

    def html(self, tag: str = "td", scope: str = "row") -> str:
        """Write it; a `th` names its row, or its column (`scope`)."""
        scoped = f' scope="{scope}"' if tag == "th" else ""
        looks = f' style="background:{self.colour}{GROUND};box-shadow:inset 3px 0 {self.colour}"' if self.colour else ""
        hint = f' title="{escape(self.hint)}"' if self.hint else ""
        faint = ' class="cl-faint"' if self.faint else ""
        return f"<{tag}{scoped}{looks}{hint}{faint}>{self.inside or escape(self.text)}</{tag}>"


@dataclass(frozen=True)
class Row:
    """A row; a `marked` one is the one that was asked for."""

    cells: Sequence[Cell]
    marked: bool = False


def html_table(caption: str, head: Sequence[Cell], rows: Sequence[Row], naming: int = 0) -> str:
    """Write a table that a screen reader can walk through; the cell number `naming` is the name of its row."""
    names = "".join(cell.html("th", scope="col") for cell in head)
    lines = "".join(
        ('<tr class="cl-marked" aria-current="true">' if row.marked else "<tr>")
        + "".join(cell.html("th" if number == naming else "td") for number, cell in enumerate(row.cells))
        + "</tr>"
        for row in rows
    )
    table = f"<table><caption>{escape(caption)}</caption><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<div class="cl-pane" tabindex="0" role="region" aria-label="{escape(caption)}">{table}</div>'


def sheet(*parts: str) -> str:
    """Put parts of HTML together as one picture, with its style."""
    font = f"font:13px/1.45 var(--jp-ui-font-family,{escape(style.FONT)})"
    return f'<div class="cl-sheet" style="{font}"><style>{CSS}</style>{"".join(parts)}</div>'


def columns(head: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "") -> str:
    """Write rows in columns that line up, under a head."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join((indent + "  ".join(map(str.ljust, line, widths))).rstrip() for line in lines)


class Sheet:
    """A table that a notebook shows, `print` writes in columns, and a page keeps: what there was at that moment.

    `alt` says in a sentence or two what is to be seen; `str()` is the same each time it is the same.
    """

    title: str
    alt: str

    @property
    def html(self) -> str:
        """The table, as a part of a page."""
        raise NotImplementedError

    def __str__(self) -> str:
        raise NotImplementedError

    def save_html(self, path: Path | str) -> Path:
        """Write a page with the table; it needs no kernel, no script and no network."""
        return written_page(path, self.title, self.html)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {"text/html": self.html, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"<{self.title}: {self.alt}>"
