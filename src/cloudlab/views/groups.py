"""Rows of a tree of control groups: what each uses, and whose limit holds it. Nothing here acts, and nothing is drawn."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloudlab.containers.cgroup_tree import Node
from cloudlab.units import format_size
from cloudlab.views.words import number


@dataclass(frozen=True)
class Use:
    """What a group uses of one resource: `value` (None: not counted there), of at most `limit`, which `holder` has set.

    A group without a limit of its own is held by the next one above that has one; "" is the machine itself: it has no more.
    `event` says what happened because of a limit. `unit` is "CPUs", "bytes" or "processes".
    """

    unit: str
    value: float | None
    limit: float | None = None
    holder: str | None = None
    event: str = ""

    @property
    def share(self) -> float | None:
        """What is used of the limit, 0 to 1; None if there is none."""
        return min(max(self.value / self.limit, 0), 1) if self.limit and self.value is not None else None

    def words(self, group: str) -> str:
        """Say it: "12 MiB of 32 MiB"; a limit that is another's in brackets, with whose it is."""
        if self.value is None:
            return "–"
        of = self._of(group)
        return f"{self.written(self.value)}{of}" + (f", {self.event}" if self.event else "")

    def _of(self, group: str) -> str:
        if self.limit is None or self.holder == "":
            return ""
        limit = self.written(self.limit)
        return f" of {limit}" if self.holder == group else f" ({self.holder}: {limit})"

    def written(self, value: float) -> str:
        """Write a value in its unit."""
        if self.unit == "bytes":
            return format_size(value)
        return f"{value:.2f}".rstrip("0").rstrip(".") if self.unit == "CPUs" else f"{value:.0f}"


@dataclass(frozen=True)
class Group:
    """A row of the tree: a group, how deep it lies, and what it uses of each resource."""

    node: Node
    depth: int
    uses: Mapping[str, Use]

    @property
    def name(self) -> str:
        """Its name without those above it."""
        return posixpath.basename(self.node.path) or "/"


def groups_of(nodes: Sequence[Node], before: Mapping[str, Node], cpus: float | None, memory: int | None) -> list[Group]:
    """Return the rows of a tree: what `nodes` use, of which limits, since the nodes of `before` (by path) were read.

    `cpus`, `memory`: what the machine has. Of a group's own limit and those above it, the smallest is what holds.
    """
    whole: dict[str, tuple[float | None, str]] = {"cpu": (cpus, ""), "memory": (memory, ""), "pids": (None, "")}
    held: dict[str, dict[str, tuple[float | None, str]]] = {}
    top = nodes[0].path if nodes else "/"
    groups = []
    for node in nodes:
        above = held.get(posixpath.dirname(node.path), whole)
        held[node.path] = {key: _tighter(limit, node.path, above[key]) for key, limit in _limits(node).items()}
        depth = 0 if node.path == top else node.path.removeprefix(top.rstrip("/")).count("/")
        groups.append(Group(node, depth, _uses(node, before.get(node.path), held[node.path])))
    return groups


def _limits(node: Node) -> dict[str, float | None]:
    return {"cpu": node.limits.cpus, "memory": node.limits.memory, "pids": node.limits.pids}


def _tighter(own: float | None, path: str, above: tuple[float | None, str]) -> tuple[float | None, str]:
    return above if own is None or (above[0] is not None and above[0] < own) else (own, path)


def _uses(node: Node, before: Node | None, held: Mapping[str, tuple[float | None, str]]) -> dict[str, Use]:
    now, was = node.stats, before.stats if before else None
    throttled = was is not None and now.throttled > was.throttled
    killed = f"{number(now.oom_kills, 'process', 'processes')} killed" if now.oom_kills else ""
    refused = f"{number(now.pids_refused, 'fork', 'forks')} refused" if now.pids_refused else ""
    root = node.path == "/"  # v2 counts no memory and no processes there
    return {
        "cpu": Use("CPUs", now.cpus_since(was) if was else None, *held["cpu"], "throttled" if throttled else ""),
        "memory": Use("bytes", now.memory if now.memory or not root else None, *held["memory"], killed),
        "pids": Use("processes", now.pids if now.pids or not root else None, *held["pids"], refused),
    }


def tree_lines(groups: Sequence[Group]) -> list[str]:
    """Write the tree with its limits, and without what changes by itself."""
    lines = []
    for place, group in enumerate(groups):
        limits = ", ".join(
            f"{key} {use.written(use.limit)}"
            for key, use in group.uses.items()
            if use.limit is not None and use.holder == group.node.path
        )
        lines.append(f"{_branches(groups, place)}{group.name}{f'  ({limits})' if limits else ''}")
    return lines


def _branches(groups: Sequence[Group], place: int) -> str:
    """Draw the lines of a tree in front of a name."""
    drawn = ""
    for level in range(1, groups[place].depth + 1):
        following = next((other.depth for other in groups[place + 1 :] if other.depth <= level), 0)
        goes_on = following == level
        if level == groups[place].depth:
            drawn += "├─ " if goes_on else "└─ "
        else:
            drawn += "│  " if goes_on else "   "
    return drawn
