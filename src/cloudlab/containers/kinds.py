"""The eight kinds of namespaces, which of them a process is in, and which two processes share.

A namespace has no name: it is known by its kind and by the inode that /proc/PID/ns shows (namespaces(7), proc(5)).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from errno import ENOENT

from cloudlab.containers.calls import Calls, Place, Room
from cloudlab.containers.namespace_errors import make, no_process
from cloudlab.containers.syscalls import Clone
from cloudlab.errors import UsageError

_LINK = re.compile(r"(\w+):\[(\d+)]")


@dataclass(frozen=True)
class Kind:
    """A kind of namespace: its flag for clone(2), unshare(2) and setns(2), what it isolates, since which Linux."""

    name: str
    flag: Clone
    isolates: str
    since: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind("mnt", Clone.NEWNS, "Each has its own table of mounts: its own tree of files.", "2.4.19"),
        Kind("uts", Clone.NEWUTS, "Each has its own host name and domain name.", "2.6.19"),
        Kind("ipc", Clone.NEWIPC, "Each has its own message queues, semaphores and shared memory.", "2.6.19"),
        Kind("pid", Clone.NEWPID, "Each counts its processes from 1, and sees no others.", "2.6.24"),
        Kind("net", Clone.NEWNET, "Each has its own cards, addresses, routes, firewall and ports.", "2.6.24"),
        Kind("user", Clone.NEWUSER, "Each has its own user and group numbers, and its own root.", "3.8"),
        Kind("cgroup", Clone.NEWCGROUP, "Each sees the tree of control groups from its own root.", "4.6"),
        Kind("time", Clone.NEWTIME, "Each has its own time since boot; the time of day is shared.", "5.6"),
    )
}


@dataclass(frozen=True)
class Namespace:
    """One namespace: what /proc/PID/ns/KIND is a link to."""

    kind: str
    inode: int

    def __str__(self) -> str:
        return f"{self.kind}:[{self.inode}]"


def link_of(text: bytes | str) -> Namespace | None:
    """Read what a file in /proc/PID/ns links to: "uts:[4026531838]"; None if it is no namespace."""
    match = _LINK.fullmatch(text if isinstance(text, str) else text.decode())
    return Namespace(match[1], int(match[2])) if match else None


def namespaces_of(place: Place, pid: int | str = "self") -> dict[str, Namespace]:
    """Return the namespaces of a process by kind; "self": those that commands in `place` begin with."""
    return namespaces_of_each(place, [pid])[0]


def namespaces_of_each(place: Place, pids: Sequence[int | str]) -> list[dict[str, Namespace]]:
    """Return the same of several processes, in one round trip."""
    calls = Calls()
    asked = [
        [calls.call("readlink", f"/proc/{pid}/ns/{kind}", Room(64), 64, harmless=[ENOENT]) for kind in KINDS]
        for pid in pids
    ]
    outcomes = make(place, calls)
    found = [
        {link.kind: link for link in (link_of(outcomes[call.index].data) for call in each) if link} for each in asked
    ]
    for pid, namespaces in zip(pids, found, strict=True):
        if not namespaces:
            raise no_process(place, pid)
    return found


def compare(a: Mapping[str, Namespace], b: Mapping[str, Namespace]) -> dict[str, bool]:
    """Say of each kind whether two processes are in the same namespace."""
    return {kind: a[kind] == b[kind] for kind in KINDS if kind in a and kind in b}


def flags_of(kinds: Iterable[str] | str) -> Clone:
    """Return the flags of kinds: "uts net", or ["uts", "net"]."""
    flags = Clone(0)
    for kind in checked(kinds):
        flags |= KINDS[kind].flag
    return flags


def checked(kinds: Iterable[str] | str) -> list[str]:
    """Return the kinds one by one; raises `UsageError` for one that is none."""
    names = re.split(r"[ ,]+", kinds) if isinstance(kinds, str) else list(kinds)
    for name in names:
        if name not in KINDS:
            raise UsageError(
                f"There is no kind of namespace {name!r}.", allowed=", ".join(KINDS), example='"uts net pid mnt"'
            )
    return names
