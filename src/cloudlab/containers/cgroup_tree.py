"""The tree of control groups: which hierarchies a computer has, and the groups in them with limits and use.

Sources: cgroups(7), proc(5), the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/cgroups.rst.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from cloudlab.containers.calls import Place
from cloudlab.containers.cgroup_calls import ROOT
from cloudlab.containers.cgroup_stats import LIMIT_FILES, STAT_FILES, CgroupStats, limits_in, stats_of
from cloudlab.containers.limits import Limits
from cloudlab.errors import MachineError

_ANYWHERE = {2: "cgroup.stat", 1: "notify_on_release"}  # each group has it, and something is in it


@dataclass(frozen=True)
class Node:
    """One group of a tree: its limits (None: none), its use, and the processes in it (not those in groups below)."""

    path: str
    limits: Limits
    stats: CgroupStats
    processes: tuple[int, ...]


@dataclass(frozen=True)
class Hierarchy:
    """One tree of groups: which controllers belong to it, where it is mounted, and how many groups it has."""

    version: int
    controllers: tuple[str, ...]
    mount_point: str
    groups: int


def hierarchies(place: Place) -> list[Hierarchy]:
    """Return the trees of groups that a computer has: in v2 one for all controllers, in v1 one for each."""
    names = ["/proc/cgroups", "/proc/self/mountinfo", f"{ROOT}/cgroup.controllers"]
    files = grep(place, names)
    return hierarchies_in(*(files.get(name, "") for name in names))


def version_of(place: Place) -> int:
    """Return 2 or 1: which version of control groups a computer uses. Raises `MachineError` if it has none mounted."""
    found = hierarchies(place)
    if any(each.version == 2 and each.mount_point == ROOT for each in found):
        return 2
    if any(each.version == 1 and each.controllers for each in found):
        return 1
    raise MachineError(
        place.name, f"no control groups: nothing is mounted at {ROOT}", hint=f"mount -t cgroup2 cgroup2 {ROOT}"
    )


def tree_of(version: int, path: str, printed: bytes) -> list[Node]:
    """Return the groups from `path` on, each before those below it, out of what `grep -rZ ''` printed of their files."""
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    processes: dict[str, set[int]] = defaultdict(set)
    files = printed_files(printed)
    uptime = files.pop("/proc/uptime", "0 0")
    for name, text in files.items():
        file, group = PurePosixPath(name), _group(version, name)
        groups[group][file.name] = text
        if file.name == "cgroup.procs":
            processes[group] |= set(map(int, text.split()))
    return [
        Node(
            group, limits_in(version, found), stats_of(version, found, _first(uptime)), tuple(sorted(processes[group]))
        )
        for group, found in sorted(groups.items(), key=lambda item: item[0].split("/"))
        if _ANYWHERE[version] in found and (group + "/").startswith(path.rstrip("/") + "/")
    ]


def tree_files(version: int) -> list[str]:
    """Return the names of the files that `tree_of` reads."""
    return [*STAT_FILES[version], *LIMIT_FILES[version], "cgroup.procs", _ANYWHERE[version], "uptime"]


def _group(version: int, file: str) -> str:
    parts = file.removeprefix(ROOT + "/").split("/")[:-1]
    return "/" + "/".join(parts if version == 2 else parts[1:])


def printed_files(printed: bytes) -> dict[str, str]:
    """Sort what `grep -Z ''` printed (name, NUL, line) by file."""
    files: dict[str, list[str]] = defaultdict(list)
    for line in printed.decode(errors="replace").splitlines():
        name, nul, text = line.partition("\0")
        if nul:
            files[name].append(text)
    return {name: "\n".join(lines) for name, lines in files.items()}


def hierarchies_in(controllers: str, mounts: str, unified: str) -> list[Hierarchy]:
    """Return the hierarchies that /proc/cgroups and /proc/self/mountinfo describe, and v2's cgroup.controllers: cgroups(7)."""
    lines = [line.split() for line in controllers.splitlines() if line and not line.startswith("#")]
    groups = {name: int(count) for name, _, count, enabled in lines if enabled == "1"}
    groups_v2 = max((int(count) for _, number, count, _ in lines if number == "0"), default=0)
    found = []
    for line in mounts.splitlines():
        place, _, system = line.partition(" - ")
        kind, _, options = system.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            version = 2 if kind == "cgroup2" else 1
            here = unified.split() if version == 2 else [name for name in options.split(",") if name in groups]
            count = groups_v2 if version == 2 else max((groups[name] for name in here), default=0)
            found.append(Hierarchy(version, tuple(here), place.split(" ")[4], count))
    return found


def _first(text: str) -> float:
    return float(text.split(maxsplit=1)[0])


def grep(place: Place, paths: Sequence[str]) -> dict[str, str]:
    """Read files, those that there are: file -> text."""
    return printed_files(place.run(["grep", "-sHZ", "-d", "skip", "", *paths]).stdout_bytes)
