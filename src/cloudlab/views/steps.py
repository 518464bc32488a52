"""`parts`: what making a container took, call by call, put together by what the calls are for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloudlab.containers.calls import Call, Outcome, Struct, Words
from cloudlab.containers.cgroup_calls import ROOT
from cloudlab.containers.setting import STATE_DIRECTORY
from cloudlab.containers.syscalls import Clone
from cloudlab.units import format_duration
from cloudlab.views.sheet import Cell, Row, Sheet, columns, html_table, sheet

if TYPE_CHECKING:
    from cloudlab.containers.container import Container

NAMESPACES, CGROUP, LAYERS, MOUNTS, DEVICES = "namespaces", "control group", "layers", "mounts", "devices"
ROOT_CHANGE, HIDING, PRIVILEGES, SECCOMP = "change of root", "what is hidden", "privileges", "seccomp"
NOTES, PROCESSES, WAITING = "notes of the runtime", "processes", "waiting for each other"
_ORDER = (
    NAMESPACES,
    CGROUP,
    LAYERS,
    ROOT_CHANGE,
    MOUNTS,
    DEVICES,
    HIDING,
    PRIVILEGES,
    SECCOMP,
    PROCESSES,
    NOTES,
    WAITING,
)
_BY_NAME = {
    **dict.fromkeys(("unshare", "setns", "sethostname", "setdomainname"), NAMESPACES),
    **dict.fromkeys(("pivot_root", "umount2", "fchdir", "chroot"), ROOT_CHANGE),
    **dict.fromkeys(("mknod", "symlink", "chmod"), DEVICES),
    **dict.fromkeys(("setresuid", "setresgid", "setgroups", "capset", "prctl", "prlimit64", "umask"), PRIVILEGES),
    "seccomp": SECCOMP,
    **dict.fromkeys(("setsid", "dup2", "dup3", "pipe2", "pidfd_open", "clone3"), PROCESSES),
    **dict.fromkeys(("flock", "must_be", "waitid"), WAITING),
}
_BY_PATH = (
    (STATE_DIRECTORY, NOTES),
    (ROOT, CGROUP),
    ("/proc/%d/uid_map", NAMESPACES),
    ("/proc/%d/gid_map", NAMESPACES),
    ("/run/cloudlab", NOTES),
    ("/var/lib/cloudlab", LAYERS),
    ("/dev", DEVICES),
)
_MOUNTING = ("mount", "mount_setattr", "open_tree", "move_mount")
_HIDDEN = ("/proc/", "/sys/firmware")


@dataclass(frozen=True)
class Part:
    """The calls that are for one thing: how many, how long all of them took, and the one that took longest."""

    purpose: str
    calls: int
    took_s: float
    longest: Outcome


def parts(container: Container) -> Parts:
    """Show what making a container took, by purpose: namespaces, control group, layers, mounts, …; from `container.steps`.

    Three processes make these calls, side by side now and then: their sum is not the time that passed, and waiting is not work.
    """
    return Parts(container.name, parts_of(container.steps))


def parts_of(outcomes: Iterable[Outcome]) -> list[Part]:
    """Put calls together by purpose, in the order in which a lesson explains them."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(purpose_of(outcome.call), []).append(outcome)
    return [
        Part(name, len(group), sum(one.took_s for one in group), max(group, key=lambda one: one.took_s))
        for name in _ORDER
        if (group := groups.get(name))
    ]


def purpose_of(call: Call) -> str:
    """Say what a system call of the runtime is for; a call on an open file is for what the file was opened for."""
    first = call.arguments[0] if call.arguments else ""
    if call.name == "clone3":
        return NAMESPACES if _makes_namespaces(call) else PROCESSES
    if call.name in _MOUNTING:
        return _purpose_of_mount(call)
    if call.name in ("read", "write") and not (isinstance(first, Call) and first.name == "open"):
        return WAITING  # at the ends of pipes
    if call.name in _BY_NAME:
        return _BY_NAME[call.name]
    if isinstance(first, Call):
        return purpose_of(first)
    path = first.text if isinstance(first, Words) else first if isinstance(first, str) else ""
    if call.name == "chdir":
        return ROOT_CHANGE
    by_path = next((purpose for start, purpose in _BY_PATH if path.startswith(start)), "")
    return by_path or (ROOT_CHANGE if path == "/" else MOUNTS if call.name in ("mkdir", "rmdir") else PROCESSES)


def _makes_namespaces(call: Call) -> bool:
    structure = call.arguments[0]
    flags = structure.fields[0] if isinstance(structure, Struct) else 0
    return isinstance(flags, int) and bool(
        flags
        & (Clone.NEWNS | Clone.NEWPID | Clone.NEWNET | Clone.NEWUTS | Clone.NEWIPC | Clone.NEWUSER | Clone.NEWCGROUP)
    )


def _purpose_of_mount(call: Call) -> str:
    texts = [argument for argument in call.arguments if isinstance(argument, str) and argument]
    if call.name == "mount" and "overlay" in texts:
        return LAYERS
    target = next((text for text in texts if text.startswith("/")), "")
    if call.name == "mount" and target == "/" and texts == ["/"]:
        return NAMESPACES  # what is mounted from now on is seen by nobody else
    if target.startswith("/dev/") and call.name != "mount":
        return DEVICES
    hidden = target.startswith(_HIDDEN) or texts[:1] == ["dev/null"]
    return (
        HIDING if hidden else ROOT_CHANGE if target in ("/", "") or target.startswith("/var/lib/cloudlab") else MOUNTS
    )


class Parts(Sheet):
    """Time by purpose; made by `parts`. Printed, it is a table."""

    def __init__(self, name: str, found: Sequence[Part]) -> None:
        self.parts = list(found)
        self.calls, self.took_s = (
            sum(part.calls for part in found),
            sum(part.took_s for part in found if part.purpose != WAITING),
        )
        self.title = f"what container {name} took"
        self.alt = f"{self.calls} system calls, {format_duration(self.took_s)} of work"

    def _rows(self) -> list[tuple[str, str, str, str]]:
        return [
            (part.purpose, str(part.calls), format_duration(part.took_s), _short(part.longest)) for part in self.parts
        ]

    @property
    def html(self) -> str:
        """The table, as a part of a page."""
        head = [Cell("for"), Cell("calls"), Cell("time"), Cell("the longest of them")]
        rows = [Row([Cell(cell) for cell in row]) for row in self._rows()]
        return sheet(html_table(f"{self.title}: {self.alt}", head, rows))

    def __str__(self) -> str:
        return f"{self.title}: {self.alt}\n" + columns(("FOR", "CALLS", "TIME", "THE LONGEST"), self._rows())


def _short(outcome: Outcome) -> str:
    text = str(outcome.call)
    return f"{text if len(text) <= 70 else text[:69] + '…'}: {format_duration(outcome.took_s)}"
