"""`layer_stack`: the layers of a container's root, and for each path which of them answers."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from cloudlab.containers.layerstore import listings
from cloudlab.containers.stack import Kind, Listing, Resolved, Stack, absolute, changes, resolve
from cloudlab.errors import UsageError
from cloudlab.views.chart import look
from cloudlab.views.inside import place_of
from cloudlab.views.sheet import GROUND, Cell, Row, Sheet, columns, html_table, sheet
from cloudlab.views.words import number

if TYPE_CHECKING:
    from cloudlab.containers.container import Container
    from cloudlab.containers.rootfs import Rootfs

_DIGEST = re.compile(r"^([0-9a-f]{12})[0-9a-f]{52}(-\d+)?$")
_SIGNS = {"A": "added", "C": "changed", "D": "deleted"}
_HIDING = (Kind.WHITEOUT, Kind.OPAQUE)


def layer_stack(root: Container | Rootfs, directory: str = "/", path: str | None = None) -> LayerStack:
    """Show the layers of a root, the highest first, and which of them answers for what is in `directory`.

    Below the directory's own entries, those paths are shown where layers differ: what one covers, changes, deletes. `path`: one
    more, which is marked, and explained. Raises `UsageError` if no layer has the directory. Source: overlayfs.rst of the kernel.
    """
    return LayerStack(root.name, _layers_of(root), directory, path)


def _layers_of(root: Container | Rootfs) -> dict[str, Listing]:
    """Return the listings of all layers by name, the highest first."""
    if hasattr(root, "stack"):
        stack = root.stack()
        return {
            name: {path: each.kinds[name] for path, each in stack.paths.items() if name in each.kinds}
            for name in stack.layers
        }
    overlay = root.overlay
    images = [_DIGEST.sub(r"\1", posixpath.basename(lower)) for lower in overlay.lowers[1:]]
    names = ["upper", "init", *(images if len({*images}) == len(images) else overlay.lowers[1:])]
    paths = (overlay.upper, *overlay.lowers)
    return listings(place_of(root), dict(zip(names, paths, strict=True)), user=overlay.user)


class LayerStack(Sheet):
    """A stack of layers and who answers; made by `layer_stack`."""

    def __init__(self, name: str, layers: Mapping[str, Listing], directory: str = "/", path: str | None = None) -> None:
        self.stack = Stack(tuple(layers), resolve(layers))
        self.directory, self.path = absolute(directory), None if path is None else absolute(path)
        if self.directory not in self.stack.paths:
            raise UsageError(
                f"No layer has {self.directory}.",
                allowed="a directory of any layer",
                example='layer_stack(web, "/etc")',
            )
        self.changes = {change.path: change.how for change in changes(layers)}
        self.rows = shown(self.stack, self.directory, {*self.changes}, self.path)
        inside = self.stack.below(self.directory).paths
        self.hidden = len(inside.keys() - {"/", *(each.path for each in self.rows)})
        self.title, self.alt = f"layers of {name}", self._summary()

    @property
    def answer(self) -> Resolved | None:
        """What becomes of the `path` that was asked for; None if none was."""
        if self.path is None:
            return None
        return self.stack.paths.get(self.path) or Resolved(self.path, {}, (), _why_not(self.stack, self.path))

    @property
    def html(self) -> str:
        """The stack and the table, as a part of a page."""
        head = [Cell("change"), Cell("path"), *map(Cell, self.stack.layers), Cell("who answers")]
        rows = [Row(self._cells(each), marked=each.path == self.path) for each in self.rows]
        caption = f"What is in {self.directory}, and which layer answers"
        about = [f"<p><b>{escape(str(self.answer))}</b></p>"] if self.answer else []
        more = [f"<p class='cl-faint'>{escape(self._more)}</p>"] if self._more else []
        return sheet(self._drawn_stack(), html_table(caption, head, rows, naming=1), *more, *about)

    def _drawn_stack(self) -> str:
        boxes = "".join(self._box(name, height) for height, name in enumerate(self.stack.layers))
        title = f"<figcaption><b>{escape(self.title)}</b>, seen from above: {escape(self.alt)}</figcaption>"
        return f'<figure style="margin:0 0 10px">{title}<ol style="list-style:none;margin:4px 0;padding:0">{boxes}</ol></figure>'

    def _box(self, name: str, height: int) -> str:
        colour, _ = look(height)
        looks = (
            f"background:{colour}{GROUND};border-left:5px solid {colour};padding:3px 10px;margin:2px 0;max-width:520px"
        )
        return f'<li style="{looks}"><b>{escape(name)}</b> {escape(self._about(name, height))}</li>'

    def _about(self, name: str, height: int) -> str:
        """Say what a layer is for, and how much of it is seen."""
        mine = [each for each in self.stack if name in each.kinds and each.path != "/"]
        seen = sum(name in each.answers for each in mine)
        deleting = sum(each.kinds[name] in _HIDING for each in mine)
        hides = f", {number(deleting, 'of them hides', 'of them hide')} what is below" if deleting else ""
        return (
            f"{'read-write' if height == 0 else 'read-only'}: {number(len(mine), 'path', 'paths')}, {seen} seen{hides}"
        )

    def _cells(self, each: Resolved) -> list[Cell]:
        how = self.changes.get(each.path, "")
        cells = [Cell(f"{how} {_SIGNS[how]}" if how else ""), Cell(each.path)]
        return [
            *cells,
            *(self._cell(each, name, height) for height, name in enumerate(self.stack.layers)),
            Cell(each.layer or "nobody", hint=each.why),
        ]

    def _cell(self, each: Resolved, name: str, height: int) -> Cell:
        kind = each.kinds.get(name)
        if kind is None:
            return Cell("")
        seen = name in each.answers or kind in _HIDING
        inside = "" if seen else f"<s>{escape(kind)}</s>"
        return Cell(_said(each, name), look(height)[0] if seen else "", each.why, faint=not seen, inside=inside)

    def __str__(self) -> str:
        head = ("", "PATH", *self.stack.layers, "ANSWERS")
        rows = [
            (
                self.changes.get(each.path, ""),
                each.path,
                *(_said(each, name) for name in self.stack.layers),
                each.layer or "nobody",
            )
            for each in self.rows
        ]
        layers = [f"  {name:14} {self._about(name, height)}" for height, name in enumerate(self.stack.layers)]
        more = [self._more] if self._more else []
        answer = [str(self.answer)] if self.answer else []
        return "\n".join([f"{self.title}: {self.alt}", *layers, columns(head, rows), *more, *answer])

    @property
    def _more(self) -> str:
        paths = number(self.hidden, "more path", "more paths")
        return f"... and {paths} further down, of one layer or merged" if self.hidden else ""

    def _summary(self) -> str:
        counted = {how: sum(each == how for each in self.changes.values()) for how in _SIGNS}
        said = ", ".join(f"{count} {_SIGNS[how]}" for how, count in counted.items() if count)
        layers = number(len(self.stack.layers), "layer", "layers")
        return f"{layers}, {len(self.stack.paths)} paths; {f'in {self.stack.layers[0]} {said}' if said else 'nothing changed'}"


def _said(each: Resolved, name: str) -> str:
    """Say what a layer has at a path; in brackets what is covered."""
    kind = each.kinds.get(name)
    if kind is None:
        return ""
    return str(kind) if name in each.answers or kind in _HIDING else f"({kind})"


def _why_not(stack: Stack, path: str) -> str:
    """Say why no layer has a path."""
    above = posixpath.dirname(path)
    while above not in stack.paths:
        above = posixpath.dirname(above)
    if stack[above].kind is Kind.LINK:
        return f"{above} is a symbolic link, which is followed before layers are asked"
    return "no layer has it"


def shown(stack: Stack, directory: str, changed: set[str], path: str | None = None) -> Sequence[Resolved]:
    """Choose what to show: the entries of a directory, what was changed or covered anywhere below it, and `path`."""
    inside = stack.below(directory).paths

    def is_shown(each: Resolved) -> bool:
        is_entry = posixpath.dirname(each.path) == directory or each.path in {directory, *changed}
        return each.path == path or (each.path in inside and each.path != "/" and (is_entry or _differs(each)))

    return [each for each in stack if is_shown(each)]


def _differs(each: Resolved) -> bool:
    """Is something covered or deleted here? A directory that is merged is usual."""
    return any(kind in _HIDING for kind in each.kinds.values()) or set(each.kinds) != set(each.answers)
