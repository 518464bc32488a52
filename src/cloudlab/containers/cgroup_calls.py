"""Control groups in programs of system calls: making one, being born in it, leaving nothing of it.

`version` is 2 (one hierarchy) or 1 (one for each controller); a `path` is a group's, "/web"; with "" nothing is done.
Sources: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/cgroups.rst; cgroups(7), clone(2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from errno import EBADF, EBUSY, EEXIST, EINVAL, ENOENT

from cloudlab.containers.calls import Argument, Call, Calls, Room, Struct, Words
from cloudlab.containers.limits import Limits, Setting, settings
from cloudlab.containers.syscalls import Mount, Open
from cloudlab.errors import UsageError

ROOT = "/sys/fs/cgroup"
V1_CONTROLLERS = ("cpuset", "cpu", "cpuacct", "memory", "pids", "blkio", "freezer", "devices")
ALWAYS = ("cpu", "memory", "pids")  # enabled for each group, so that there are statistics
_ROUNDS, _ROUND_S = 3, 2  # how often, and how many seconds each, removal waits for the last process's end


def check_path(path: str) -> str:
    """Return a group's path as it stands in a hierarchy: "/web", or "" for none. Raises `UsageError` if it leads elsewhere."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in path or "\n" in path:
        raise UsageError(
            f"{path!r} is not the path of a control group.", allowed="names with / between", example="/web/php"
        )
    return "".join(f"/{part}" for part in parts)


def directories(version: int, path: str, controllers: Iterable[str] = V1_CONTROLLERS) -> list[str]:
    """Return the directories that are the group: one in v2, one for each controller in v1."""
    path = check_path(path)
    return [f"{ROOT}{path}"] if version == 2 else [f"{ROOT}/{controller}{path}" for controller in controllers]


def add_creation(calls: Calls, version: int, path: str, limits: Limits, *, also: Sequence[str] = ()) -> None:
    """Add what makes a group, with those above it, and its limits; `also`: more controllers of v2 to enable for it."""
    path, wanted = check_path(path), settings(version, limits)
    if not path:
        return
    if version == 2:
        add_enabling(calls, path, [*also, *(setting.controller for setting in wanted)], create=True)
    else:
        for controller in V1_CONTROLLERS:
            _add_directories(calls, controller, path)
    add_settings(calls, version, path, wanted)


def add_settings(calls: Calls, version: int, path: str, wanted: Iterable[Setting]) -> None:
    """Add the writing of settings into a group's files."""
    for setting in wanted:
        file = f"{directories(version, path, [setting.controller])[0]}/{setting.file}"
        if ENOENT in setting.harmless:
            _add_write(calls, file, setting.value, ENOENT)
        else:
            opened = calls.call("open", file, Open.WRONLY | Open.CLOEXEC)
            calls.call("write", opened, setting.value, len(setting.value), harmless=setting.harmless)
            calls.call("close", opened)


def add_enabling(calls: Calls, path: str, controllers: Iterable[str], *, create: bool = False) -> None:
    """Add, for v2: each group above may hand controllers down to those below it; `create` makes the groups on the way."""
    names = sorted({*ALWAYS, *controllers} - {"cgroup"})
    above = ROOT
    for part in check_path(path).split("/")[1:]:
        calls.write_file(f"{above}/cgroup.subtree_control", " ".join(f"+{name}" for name in names))
        above += f"/{part}"
        if create:
            calls.call("mkdir", above, 0o755, harmless=[EEXIST])


def _add_directories(calls: Calls, controller: str, path: str) -> None:
    above = f"{ROOT}/{controller}"
    for part in path.split("/")[1:]:
        if (
            controller == "cpuset"
        ):  # a new group has no CPUs, and takes no process, unless it gets those of the one above
            calls.write_file(f"{above}/cgroup.clone_children", "1")
        above += f"/{part}"
        calls.call("mkdir", above, 0o755, harmless=[EEXIST])


def add_open(calls: Calls, version: int, path: str) -> Argument:
    """Add what a child needs to be born in the group (v2: its directory, for clone3(2)'s CLONE_INTO_CGROUP); 0 if nothing."""
    if version == 1 or not check_path(path):
        return 0
    return calls.call("open", f"{ROOT}{check_path(path)}", Open.RDONLY | Open.DIRECTORY | Open.CLOEXEC)


def add_membership(calls: Calls, version: int, path: str, pid: Call) -> None:
    """Add a child to the group's hierarchies in v1; in v2 it was born there."""
    if version == 1 and check_path(path):
        _add_joining(calls, version, path, Words("%d", pid))


def add_joining(calls: Calls, version: int, path: str) -> None:
    """Add: the process that makes the calls joins the group. What it starts afterwards is in it, too."""
    if check_path(path):
        _add_joining(calls, version, path, "0")


def _add_joining(calls: Calls, version: int, path: str, pid: str | Words) -> None:
    for directory in directories(version, path):
        calls.write_file(f"{directory}/cgroup.procs", pid)


def add_memory_events(calls: Calls, version: int, path: str) -> Call:
    """Add the reading of memory.events (v1: memory.oom_control), which counts OOM kills; returns the read(2) that has the text."""
    directory = directories(version, path, ["memory"])[0]
    file = (
        f"{directory}/{'memory.events' if version == 2 else 'memory.oom_control'}" if check_path(path) else "/dev/null"
    )
    return add_read(calls, file)


def add_read(calls: Calls, file: str, size: int = 4096) -> Call:
    """Add what cat(1) does, for a file that may not be there."""
    opened = calls.call("open", file, Open.RDONLY | Open.CLOEXEC, harmless=[ENOENT])
    read = calls.call("read", opened, Room(size), size, harmless=None)
    calls.call("close", opened, harmless=[EBADF])
    return read


def add_removal(calls: Calls, version: int, path: str) -> None:
    """Add what ends a group: all in it is killed (v2), then it goes. No harm if it is not there, or has groups below.

    A group with processes can't be removed, and a killed one needs time to end: cgroup.events changes then, and wakes poll(2).
    """
    if not check_path(path):
        return
    if version == 1:
        _add_removal_v1(calls, path)
        return
    directory = f"{ROOT}{check_path(path)}"
    _add_write(calls, f"{directory}/cgroup.kill", "1", ENOENT)
    events = calls.call("open", f"{directory}/cgroup.events", Open.RDONLY | Open.CLOEXEC, harmless=[ENOENT])
    for _ in range(_ROUNDS):
        add_wait(calls, events, directory)
    calls.call("close", events, harmless=[EBADF])
    calls.call("rmdir", directory, harmless=[ENOENT, EBUSY])


def add_wait(calls: Calls, events: Call, directory: str) -> None:
    """Add: remove the group, or wait until its events change.

    The file is read before the attempt: a change after it is not missed. If the group is gone already, so is its file: then
    `events` is no file but a negative number, and such a time is refused at once (EINVAL). A removed file wakes at once, too.
    """
    calls.call("pread64", events, Room(64), 64, 0, harmless=None)
    calls.call("rmdir", directory, harmless=[EBUSY, ENOENT])
    calls.call("ppoll", Struct((events,)), 1, Struct((_ROUND_S, events)), 0, 0, harmless=[EINVAL])


def _add_removal_v1(calls: Calls, path: str) -> None:
    """Add the removal from each hierarchy; v1 has neither kill nor an event to wait for: who has just ended gets the CPU first."""
    for _ in range(_ROUNDS):
        for directory in directories(1, path):
            calls.call("rmdir", directory, harmless=[EBUSY, ENOENT])
        calls.call("sched_yield")


def _add_write(calls: Calls, file: str, text: str, *harmless: int) -> None:
    """Add the writing of a file that may not be there."""
    opened = calls.call("open", file, Open.WRONLY | Open.CLOEXEC, harmless=harmless)
    calls.call("write", opened, text, len(text), harmless=[EBADF])
    calls.call("close", opened, harmless=[EBADF])


def add_mounts(calls: Calls, version: int, target: str, flags: int) -> None:
    """Add the group's file system in a container: cgroup2, or tmpfs with a mount for each controller of v1."""
    if version == 2:
        calls.call("mount", "cgroup2", target, "cgroup2", flags, 0)
        return
    calls.call("mount", "tmpfs", target, "tmpfs", Mount(flags) & ~Mount.RDONLY, "mode=755")
    for controller in V1_CONTROLLERS:
        calls.call("mkdir", f"{target}/{controller}", 0o755)
        calls.call("mount", "cgroup", f"{target}/{controller}", "cgroup", flags, controller)
    if Mount(flags) & Mount.RDONLY:
        calls.call("mount", "", target, "", Mount.REMOUNT | Mount.BIND | Mount(flags), 0)
