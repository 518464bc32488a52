"""Control groups: what a set of processes may use, and what it has used, in cgroup v2 and v1."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from errno import ENOENT
from functools import cached_property
from typing import Any

from cloudlab.containers import cgroup_calls
from cloudlab.containers import cgroup_programs as programs
from cloudlab.containers.calls import (
    PROGRAM,
    CallError,
    Calls,
    Outcome,
    Place,
    failure_in,
    make,
    new_mark,
    program,
)
from cloudlab.containers.cgroup_calls import (
    V1_CONTROLLERS,
    add_creation,
    add_joining,
    add_membership,
    add_memory_events,
    add_mounts,
    add_open,
    add_removal,
    directories,
)
from cloudlab.containers.cgroup_errors import explained
from cloudlab.containers.cgroup_stats import CgroupStats, stats_of
from cloudlab.containers.cgroup_tree import (
    Hierarchy,
    Node,
    grep,
    hierarchies,
    printed_files,
    tree_files,
    tree_of,
    version_of,
)
from cloudlab.containers.limits import Limits, Setting, parse_limits, settings
from cloudlab.containers.resources import limits_of
from cloudlab.errors import MachineError, UsageError
from cloudlab.machines import Machine, Result
from cloudlab.machines.spawned import Spawned

__all__ = [
    "Cgroup",
    "CgroupStats",
    "Hierarchy",
    "Limits",
    "Node",
    "add_creation",
    "add_joining",
    "add_membership",
    "add_memory_events",
    "add_mounts",
    "add_open",
    "add_removal",
    "hierarchies",
    "limits_of",
    "version_of",
]
_DEADLINE_S = 20.0
_PROCESSES, _THREADS = {2: "cgroup.procs", 1: "cgroup.procs"}, {2: "cgroup.threads", 1: "tasks"}
_FOR_STATISTICS = ("cpu", "cpuset", "io", "memory", "pids")


class Cgroup:
    """A control group: processes that share a limit on what they use.

    The groups of a computer are a tree of directories. A process is in one of them (in v1: in one of each hierarchy), and its
    children are born there. The files in the directory are the group's limits and counters: each verb here reads or writes some.
    """

    def __init__(self, place: Place, path: str = "/web", version: int | None = None) -> None:
        self.place, self.path = place, cgroup_calls.check_path(path) or "/"
        if version not in (None, 1, 2):
            raise UsageError(
                f"version={version!r} is not a version of control groups.", allowed="1, 2", example="version=2"
            )
        self._version = version

    @cached_property
    def version(self) -> int:
        """Which version of control groups this is: 2 or 1."""
        return self._version or version_of(self.place)

    @property
    def directories(self) -> list[str]:
        """Where the group is to be seen: one directory in v2, one for each controller in v1."""
        return directories(self.version, self.path)

    def child(self, name: str) -> Cgroup:
        """Return the group of this name below this one, made or not."""
        return Cgroup(self.place, f"{self.path}/{name}", self.version)

    # --- making and limiting ---

    def create(self, **limits: Any) -> Cgroup:
        """Make the group, and those above it, with limits as `limit` takes them; it may be there already."""
        calls = Calls()
        add_creation(calls, self.version, self.path, parse_limits(**limits), also=_FOR_STATISTICS)
        self._make(calls)
        return self

    def limit(self, **limits: Any) -> None:
        """Change limits, even while processes run: memory="32M", cpus=0.5, pids=20, cpuset="0"; "max" takes one away.

        See `Limits` for all of them. Raises `UsageError` for what no kernel takes, `MachineError` for what this one refuses.
        """
        wanted = settings(self.version, parse_limits(**limits))
        calls = programs.looking(self.version, self.path, wanted[0].controller if wanted else "cpu")
        if self.version == 2 and self.path != "/":
            cgroup_calls.add_enabling(calls, self.path, {setting.controller for setting in wanted})
        cgroup_calls.add_settings(calls, self.version, self.path, wanted)
        self._make(calls)

    def add(self, *pids: int) -> None:
        """Move processes into the group, with all their threads; what they used so far stays with the group they were in."""
        calls = programs.looking(self.version, self.path)
        for pid in pids:
            for directory in self.directories:
                calls.write_file(f"{directory}/cgroup.procs", str(pid))
        self._make(calls)

    def run(self, command: str | Sequence[str], *, input: bytes | str = b"", timeout_s: float = 60.0) -> Result:
        """Run a command to its end, in the group from its first instruction: the process joins, then becomes the command."""
        calls, mark = programs.becoming(self.version, self.path, command), new_mark()
        data = input.encode() if isinstance(input, str) else input
        result = self.place.run([PROGRAM], input=program(calls, "f", mark) + data, timeout_s=timeout_s)
        if failure := failure_in(calls, mark, result.stderr_bytes):
            raise explained(CallError(self.place.name, failure), self.path)
        return replace(result, command=command if isinstance(command, str) else " ".join(command))

    def spawn(self, command: str | Sequence[str]) -> Spawned:
        """Start a command in the group of a guest, and go on while it runs; returns when it is in the group."""
        if not isinstance(self.place, Machine):
            example = 'Cgroup(n1, "/web").spawn("sleep 60")'
            raise UsageError(f"{self.place.name} can't spawn.", allowed="a guest", example=example)
        fifo = f"/run/joined-{new_mark().hex()}"
        self._make(
            programs.trying(self.version, self.path, fifo)
        )  # by a process that ends: if one can't join, say so now
        spawned = self.place.spawn([PROGRAM])
        try:
            spawned.write(program(programs.becoming(self.version, self.path, command, fifo), "f"))
            spawned.end_input()
            make(self.place, programs.awaiting(fifo), timeout_s=_DEADLINE_S)  # it opens the FIFO when it has joined
        except MachineError:
            spawned.kill()
            raise
        return spawned

    # --- looking ---

    @property
    def processes(self) -> list[int]:
        """The processes in the group (not those in groups below it), by their numbers."""
        return self._members(_PROCESSES[self.version])

    @property
    def threads(self) -> list[int]:
        """The threads in the group: what v1 calls tasks."""
        return self._members(_THREADS[self.version])

    def _members(self, file: str) -> list[int]:
        calls, reads = programs.listing(self.version, self.path, file)
        outcomes = self._make(calls)
        return sorted(set(map(int, b"".join(outcomes[read.index].data for read in reads).split())))

    @property
    def children(self) -> list[Cgroup]:
        """The groups right below this one."""
        result = self.place.run(
            ["find", self.directories[0], "-mindepth", "1", "-maxdepth", "1", "-type", "d", "-printf", "%f\\n"]
        )
        if not result.ok:
            raise self._gone()
        return [self.child(name) for name in sorted(result.stdout.split())]

    @property
    def controllers(self) -> list[str]:
        """The controllers that count and limit the group."""
        if self.version == 2:
            return sorted(self._read("cgroup.controllers")["cgroup.controllers"].split())
        files = grep(self.place, [f"{directory}/notify_on_release" for directory in self.directories])
        if not files:
            raise self._gone()
        return [
            controller for controller in V1_CONTROLLERS if any(f"/{controller}{self.path}" in file for file in files)
        ]

    def stats(self) -> CgroupStats:
        """Return what the group, and those below it, have used until now."""
        calls, clock, reads = programs.counting(self.version, self.path)
        outcomes = self._make(calls)
        seconds, nanoseconds = struct.unpack("<qq", outcomes[clock.index].data)
        files = {file: outcomes[read.index].data.decode() for file, read in reads.items()}
        return stats_of(self.version, files, seconds + nanoseconds / 1e9)

    def tree(self) -> list[Node]:
        """Return the group and all below it, each with its limits, use and processes; a group comes before those below it."""
        names = [f"--include={name}" for name in tree_files(self.version)]
        printed = self.place.run(["grep", "-rsZ", "", "/proc/uptime", *self.directories, *names]).stdout_bytes
        nodes = tree_of(self.version, self.path, printed)
        if not nodes:
            raise self._gone()
        return nodes

    def files(self) -> dict[str, str]:
        """Return all that can be read of the group: file -> its text."""
        script = 'for group; do grep -sHZ -d skip "" "$group"/*; done'
        found = printed_files(self.place.run(["sh", "-c", script, "sh", *self.directories]).stdout_bytes)
        if not found:
            raise self._gone()
        return {name.rpartition("/")[2]: text for name, text in sorted(found.items())}

    def _read(self, *names: str) -> dict[str, str]:
        calls, reads = programs.reading(self.version, self.path, names)
        outcomes = self._make(calls)
        return {name: outcomes[read.index].data.decode() for name, read in reads.items()}

    # --- stopping, ending ---

    def freeze(self) -> None:
        """Stop all processes of the group and of those below it; returns when they stand."""
        self._switch({2: ("cgroup.freeze", "1"), 1: ("freezer.state", "FROZEN")})
        self._wait_for("stand still", {2: ("cgroup.events", "frozen 1"), 1: ("freezer.state", "FROZEN")})

    def thaw(self) -> None:
        """Let frozen processes go on."""
        self._switch({2: ("cgroup.freeze", "0"), 1: ("freezer.state", "THAWED")})
        self._wait_for("go on", {2: ("cgroup.events", "frozen 0"), 1: ("freezer.state", "THAWED")})

    def kill(self) -> None:
        """Kill all processes of the group and of those below it; returns when none is left."""
        self._not_the_root("killed")
        if self.version == 2:
            self._switch({2: ("cgroup.kill", "1")})
            self._wait_for("end", {2: ("cgroup.events", "populated 0")})
        else:
            self._make(programs.looking(self.version, self.path))
            self._until(self._killed_v1, "end")

    def remove(self) -> None:
        """Kill what is in the group and remove it, with those below it, the deepest first; no harm if it is gone already."""
        self._not_the_root("removed")
        try:
            self.kill()
        except MachineError as error:
            if not (isinstance(error.__cause__, CallError) and error.__cause__.errno == ENOENT):
                raise
        result = self.place.run(["sh", "-c", programs.REMOVE, "sh", *self.directories])
        if not result.ok:
            raise MachineError(self.place.name, f"could not remove the group {self.path}", output=result.stderr)

    def _killed_v1(self) -> bool:
        freezer = directories(1, self.path, ["freezer"])[0]
        return not self.place.run(["sh", "-c", programs.KILL_V1, freezer, *self.directories]).stdout.strip()

    def _switch(self, by_version: Mapping[int, tuple[str, str]]) -> None:
        file, value = by_version[self.version]
        self._not_the_root("stopped")
        calls = programs.looking(self.version, self.path, file.partition(".")[0])
        cgroup_calls.add_settings(calls, self.version, self.path, [Setting(file.partition(".")[0], file, value)])
        self._make(calls)

    def _wait_for(self, what: str, by_version: Mapping[int, tuple[str, str]]) -> None:
        file, sign = by_version[self.version]
        self._until(lambda: sign in self._read(file)[file].splitlines(), what)

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + _DEADLINE_S
        while not holds():
            if time.monotonic() > until:
                raise MachineError(
                    self.place.name, f"the processes of {self.path} did not {what} within {_DEADLINE_S:g} s"
                )

    # --- the round trip ---

    def _make(self, calls: Calls) -> dict[int, Outcome]:
        try:
            return make(self.place, calls)
        except CallError as error:
            raise explained(error, self.path) from error

    def _gone(self) -> MachineError:
        return MachineError(self.place.name, f"there is no control group {self.path}", hint="create() it")

    def _not_the_root(self, what: str) -> None:
        if self.path == "/":
            raise UsageError(
                f"The root group can't be {what}: the whole computer is in it.", allowed="a group below", example="/web"
            )

    def __repr__(self) -> str:
        return f"<cgroup {self.path} of {self.place.name}>"
