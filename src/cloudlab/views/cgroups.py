"""`cgroup_tree`: the tree of control groups, what each uses and what it may use, followed while cells run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from cloudlab.containers.cgroups import Cgroup, Node
from cloudlab.errors import CloudlabError
from cloudlab.units import natural
from cloudlab.views import style
from cloudlab.views.groups import Group, Use, groups_of, tree_lines
from cloudlab.views.sheet import Cell, Row, html_table, sheet
from cloudlab.views.widget import Message, Watching, is_closed, static
from cloudlab.views.words import number

if TYPE_CHECKING:
    from cloudlab.machines import Machine

_WIDTH = 130  # of a bar, in pixels
_HIGH = 0.9
_FINE, _TIGHT = style.KINDS["machine"].colour, style.ALARM


def cgroup_tree(machine: Machine, path: str = "/") -> CgroupTree:
    """Show the control groups of a guest from `path` down, with bars of what they use of their limits; looks once a second.

    `print` writes the tree with its limits. Raises `MachineError` if there is no such group.
    Source: the kernel's Documentation/admin-guide/cgroup-v2.rst.
    """
    root = Cgroup(machine, path)
    return CgroupTree(machine, root, root.tree())


class CgroupTree(Watching):
    """The tree of control groups; made by `cgroup_tree`."""

    _esm, _css = static("parts.js"), static("parts.css")
    _period_s = 1.0
    _role = "group"

    def __init__(self, machine: Machine, root: Cgroup, seen: list[Node]) -> None:
        self._machine, self._root = machine, root
        self._before: dict[str, Node] = {}
        self._groups: list[Group] = []
        self._parts: dict[str, str] = {}
        self._shape: object = None
        self._take(seen)
        super().__init__()

    @property
    def groups(self) -> list[Group]:
        """The groups as they were seen last, each before those below it."""
        with self._turn:
            return list(self._groups)

    def _look(self) -> list[Node]:
        try:
            return self._root.tree()
        except CloudlabError:
            if is_closed(self._machine):
                return []
            raise

    def _take(self, seen: list[Node]) -> Message:
        if not seen:
            return {}
        spec = getattr(self._machine, "spec", None)
        ordered = sorted(seen, key=lambda node: [natural(part) for part in node.path.split("/")])
        self._groups = groups_of(ordered, self._before, getattr(spec, "cpus", None), getattr(spec, "memory", None))
        self._before = {node.path: node for node in seen}
        before, self._parts = self._parts, parts_of(self._groups)
        shape = [(group.node.limits, *map(_colour, group.uses.values())) for group in self._groups], list(self._parts)
        if shape != self._shape:
            self._shape = shape
            return {"html": self._still()}
        changed = {key: text for key, text in self._parts.items() if text != before.get(key)}
        return {"parts": changed} if changed else {}

    def _present(self) -> Message:
        return {"html": self._still(), "look": "cl-groups"}

    def _still(self) -> str:
        head = [
            Cell("group"),
            Cell("processes", hint="in it, not in those below"),
            *map(Cell, ("CPU", "memory", "tasks")),
        ]
        caption = f"Control groups of {self._machine.name}: use against limits"
        rows = [Row(_cells(group, self._parts)) for group in self._groups]
        key = "<p class='cl-faint'>In brackets: no limit of its own, but one above holds it too.</p>"
        return sheet(html_table(caption, head, rows), key)

    def _is_over(self) -> bool:
        return is_closed(self._machine)

    def __str__(self) -> str:
        return "\n".join([f"control groups of {self._machine.name}", *tree_lines(self._groups)])

    def __repr__(self) -> str:
        return f"<{number(len(self._groups), 'control group', 'control groups')} of {self._machine.name}>"


def parts_of(groups: Sequence[Group]) -> dict[str, str]:
    """Return what changes from one look to the next: words, lengths of bars, numbers of processes."""
    parts: dict[str, str] = {}
    for group in groups:
        path = group.node.path
        parts[f"processes {path}"] = str(len(group.node.processes))
        for key, use in group.uses.items():
            parts[f"{key} words {path}"] = use.words(path)
            if use.share is not None:
                parts[f"{key} bar {path}"] = f"{_WIDTH * use.share:.1f}"
    return parts


def _cells(group: Group, parts: Mapping[str, str]) -> list[Cell]:
    path = group.node.path
    name = f'<span style="padding-left:{1.3 * group.depth:g}em"><code>{escape(group.name)}</code></span>'
    counted = _part(f"processes {path}", parts)
    return [
        Cell(group.name, hint=path, inside=name),
        Cell("", inside=counted),
        *(Cell("", hint=_hint(use, path), inside=_bar(key, use, path, parts)) for key, use in group.uses.items()),
    ]


def _bar(key: str, use: Use, path: str, parts: Mapping[str, str]) -> str:
    """Draw what is used of the limit: solid if the limit is the group's own, pale if it is another's."""
    words = f"<div>{_part(f'{key} words {path}', parts)}</div>"
    if use.share is None:
        return words
    frame = f'<rect width="{_WIDTH}" height="9" rx="2" fill="{style.LINE}" fill-opacity="0.22"/>'
    solid = "1" if use.holder == path else "0.45"
    name = f"{key} bar {path}"
    bar = f'<rect data-part="{escape(name)}" width="{parts[name]}" height="9" rx="2" fill="{_colour(use)}" fill-opacity="{solid}"/>'
    size = f'width="{_WIDTH}" height="9" viewBox="0 0 {_WIDTH} 9" style="display:block;width:{_WIDTH}px;height:9px"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} aria-hidden="true">{frame}{bar}</svg>{words}'


def _part(key: str, parts: Mapping[str, str]) -> str:
    return f'<span data-part="{escape(key)}">{escape(parts[key])}</span>'


def _colour(use: Use) -> str:
    """Alarm is for who is near a limit, or was held by it; the words say it too."""
    return _TIGHT if use.event or ((use.share or 0) >= _HIGH and use.holder) else _FINE


def _hint(use: Use, path: str) -> str:
    if use.limit is None:
        return "no limit"
    return "its own limit" if use.holder == path else f"the limit of {use.holder or 'the machine'}"
