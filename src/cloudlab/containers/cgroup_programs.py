"""What is done with a control group that is there, as programs of system calls that begin by looking whether it is.

`version` is 2 or 1; a `path` is a group's, "/web". Sources: cgroups(7), fifo(7), the kernel's cgroup-v2.rst and cgroup-v1/*.rst.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cloudlab.containers.calls import Call, Calls, Room
from cloudlab.containers.cgroup_calls import V1_CONTROLLERS, add_joining, add_read, directories
from cloudlab.containers.cgroup_stats import STAT_FILES
from cloudlab.containers.syscalls import Open

_CLOCK_BOOTTIME = 7
_S_IFIFO = 0o010000
_READS = 8  # of a page each: some 6000 processes
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "USER": "root"}
# v1 has no kill: nothing may fork while it is done, and a frozen process dies when it is thawed. Says whom it has found.
KILL_V1 = """
echo FROZEN > "$0/freezer.state"
pids=$(find "$@" -name cgroup.procs -exec cat {} + | sort -u)
for pid in $pids; do kill -9 "$pid"; done
echo THAWED > "$0/freezer.state"
echo $pids
"""
REMOVE = 'for group; do [ ! -d "$group" ] || find "$group" -depth -type d -delete || exit 1; done'


def directory_of(version: int, path: str, file: str) -> str:
    """Return where a file of the group is: in v1 that depends on its controller, the part of its name before the point."""
    controller = file.partition(".")[0]
    return directories(version, path, [controller if controller in V1_CONTROLLERS else "cpu"])[0]


def looking(version: int, path: str, controller: str = "cpu") -> Calls:
    """Return calls that look whether the group is there; others follow."""
    calls = Calls()
    directory = directory_of(version, path, f"{controller}.")
    calls.call("close", calls.call("open", directory, Open.RDONLY | Open.DIRECTORY | Open.CLOEXEC))
    return calls


def becoming(version: int, path: str, command: str | Sequence[str], fifo: str = "") -> Calls:
    """Return calls of a process that joins the group, tells that by opening a FIFO if one is given, and becomes a command."""
    calls = looking(version, path)
    add_joining(calls, version, path)
    if fifo:
        calls.call("close", calls.call("open", fifo, Open.WRONLY | Open.CLOEXEC))
    words = ["sh", "-c", command] if isinstance(command, str) else ["sh", "-c", 'exec "$@"', "sh", *command]
    calls.call("execve", "/bin/sh", words, [f"{name}={value}" for name, value in _ENVIRONMENT.items()])
    return calls


def trying(version: int, path: str, fifo: str) -> Calls:
    """Return calls of a process that joins the group to see if one can, makes a FIFO, and ends."""
    calls = looking(version, path)
    add_joining(calls, version, path)
    calls.call("mknod", fifo, _S_IFIFO | 0o600, 0)
    return calls


def awaiting(fifo: str) -> Calls:
    """Return calls that wait until a process opens a FIFO to write, and remove it: open(2) waits for that."""
    calls = Calls()
    calls.call("close", calls.call("open", fifo, Open.RDONLY | Open.CLOEXEC))
    calls.call("unlink", fifo)
    return calls


def listing(version: int, path: str, file: str) -> tuple[Calls, list[Call]]:
    """Return calls that read a list of processes or threads, whole, in each hierarchy; and the read(2)s that have the text."""
    calls, reads = looking(version, path), list[Call]()
    for directory in directories(version, path):
        opened = calls.call("open", f"{directory}/{file}", Open.RDONLY | Open.CLOEXEC)
        reads += [calls.call("read", opened, Room(4096), 4096) for _ in range(_READS)]
        calls.call("close", opened)
    return calls, reads


def reading(version: int, path: str, files: Iterable[str]) -> tuple[Calls, dict[str, Call]]:
    """Return calls that read files of the group; and for each the read(2) that has its text."""
    calls = looking(version, path)
    return calls, _read(calls, version, path, files)


def counting(version: int, path: str) -> tuple[Calls, Call, dict[str, Call]]:
    """Return calls that read the clock (since boot: struct timespec) and all counters of the group."""
    calls = looking(version, path)
    clock = calls.call("clock_gettime", _CLOCK_BOOTTIME, Room(16, whole=True))
    return calls, clock, _read(calls, version, path, STAT_FILES[version])


def _read(calls: Calls, version: int, path: str, files: Iterable[str]) -> dict[str, Call]:
    return {file: add_read(calls, f"{directory_of(version, path, file)}/{file}") for file in files}
