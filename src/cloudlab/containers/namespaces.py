"""Namespaces: what a process can see. Eight kinds of them, made, entered, listed and compared.

All that one does with them by hand is in this module's names; how it is done is in the modules that they come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloudlab.containers.calls import Call, Calls, Place, Room, Words
from cloudlab.containers.entering import Entered, create, creation, enter, entering
from cloudlab.containers.execution import ENVIRONMENT, PATH, add_execution
from cloudlab.containers.kinds import KINDS, Kind, Namespace, compare, flags_of, link_of, namespaces_of
from cloudlab.containers.namespace_errors import explain, make, no_process
from cloudlab.containers.processes import (
    Forest,
    IdMap,
    Matrix,
    ProcessInfo,
    Tree,
    matrix,
    matrix_of,
    parse_processes,
    processes,
    tree_of,
)
from cloudlab.containers.sharing import Shared, not_isolated, shared_of
from cloudlab.containers.syscalls import Open

__all__ = [
    "ENVIRONMENT",
    "KINDS",
    "PATH",
    "Entered",
    "Forest",
    "IdMap",
    "Kind",
    "Listed",
    "Matrix",
    "Namespace",
    "ProcessInfo",
    "Shared",
    "Tree",
    "add_execution",
    "all_namespaces",
    "compare",
    "create",
    "creation",
    "enter",
    "entering",
    "explain",
    "flags_of",
    "matrix",
    "matrix_of",
    "namespaces_of",
    "not_isolated",
    "parse_processes",
    "processes",
    "shared_of",
    "tree",
    "tree_of",
]
_NS_GET_USERNS, _NS_GET_PARENT = 0xB701, 0xB702  # ioctl_ns(2)


@dataclass(frozen=True)
class Listed:
    """A namespace with the processes in it; `owner` and `parent` are None where the kernel does not tell (the first ones)."""

    namespace: Namespace
    processes: tuple[ProcessInfo, ...]
    owner: Namespace | None
    parent: Namespace | None

    @property
    def first(self) -> ProcessInfo:
        """The process with the lowest number."""
        return self.processes[0]

    def __str__(self) -> str:
        return f"{self.namespace!s:18} {len(self.processes):4} processes, first {self.first.pid} {self.first.command}"


def all_namespaces(place: Place) -> list[Listed]:
    """Return all namespaces that a process is in, as lsns(8) lists them; two round trips, however many there are."""
    members: dict[Namespace, list[ProcessInfo]] = {}
    for process in processes(place):
        for namespace in process.namespaces.values():
            members.setdefault(namespace, []).append(process)
    related = _relatives(place, {namespace: inside[0].pid for namespace, inside in members.items()})
    return [
        Listed(each, tuple(members[each]), *related[each]) for each in sorted(members, key=lambda n: (n.inode, n.kind))
    ]


def _relatives(
    place: Place, seen_at: Mapping[Namespace, int]
) -> dict[Namespace, tuple[Namespace | None, Namespace | None]]:
    """Ask the kernel which user namespace owns each, and (those of kind pid and user) what each is nested in."""
    calls = Calls()
    asked = {}
    for namespace, pid in seen_at.items():
        file = calls.call("open", f"/proc/{pid}/ns/{namespace.kind}", Open.CLOEXEC, harmless=None)
        owner = _relative(calls, file, _NS_GET_USERNS)
        asked[namespace] = owner, _relative(calls, file, _NS_GET_PARENT) if namespace.kind in ("pid", "user") else None
        calls.call("close", file, harmless=None)
    outcomes = make(place, calls)
    return {
        namespace: (link_of(outcomes[owner.index].data), link_of(outcomes[parent.index].data) if parent else None)
        for namespace, (owner, parent) in asked.items()
    }


def _relative(calls: Calls, file: Call, request: int) -> Call:
    other = calls.call("ioctl", file, request, harmless=None)  # EPERM: there is one, out of our sight
    name = calls.call("readlink", Words("/proc/self/fd/%d", other), Room(64), 64, harmless=None)
    calls.call("close", other, harmless=None)
    return name


def tree(place: Place, pid: int | None = None) -> Forest:
    """Return the processes as seen from outside; with `pid`, as seen from inside the PID namespace of that process."""
    found = [process for process in processes(place) if not process.kernel]
    if pid is None:
        return tree_of(found, level=0)
    target = next((process for process in found if process.pid == pid and "pid" in process.namespaces), None)
    if target is None:
        raise no_process(place, pid)
    spaces = {p.namespaces["pid"]: p.pid for p in found if "pid" in p.namespaces}
    parents = {namespace: parent for namespace, (_, parent) in _relatives(place, spaces).items()}
    return tree_of(_seen_from(target.namespaces["pid"], found, parents), level=len(target.pids) - 1)


def _seen_from(
    inside: Namespace, found: Sequence[ProcessInfo], parents: Mapping[Namespace, Namespace | None]
) -> list[ProcessInfo]:
    def is_within(namespace: Namespace | None) -> bool:
        while namespace is not None and namespace != inside:
            namespace = parents.get(namespace)
        return namespace == inside

    return [process for process in found if is_within(process.namespaces.get("pid"))]
