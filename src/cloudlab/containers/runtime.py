"""The runtime: containers of one guest, made from bundles, by the verbs of the OCI runtime specification and a few more.

All that is known of a container stands in the guest, in /run/cloudlab/containers/NAME: config.json, pid, started, log, exit,
and `lock`, held by its monitor as long as it lives. So a saved and restored guest has its containers still.
"""

from __future__ import annotations

import enum
import json
import re
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from errno import EAGAIN, EEXIST, ENOENT, ENXIO, ESRCH
from typing import Any

from cloudlab.containers import bundle as oci
from cloudlab.containers import plan
from cloudlab.containers.bundle import Bundle, Process
from cloudlab.containers.calls import (
    FAILED,
    PROGRAM,
    Call,
    CallError,
    Calls,
    Outcome,
    Place,
    Room,
    end_in,
    failure_in,
    make,
    new_mark,
    program,
)
from cloudlab.containers.cgroups import Cgroup, version_of
from cloudlab.containers.rootfs import InitLayer, Overlay
from cloudlab.containers.setting import SI_STATUS, SIGINFO, STATE_DIRECTORY, Setting
from cloudlab.containers.syscalls import Open, Signal
from cloudlab.errors import MachineError, UsageError
from cloudlab.machines.result import Result

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_LOCK_SH, _LOCK_NB = 1, 4
_CLD_EXITED = 1
_LAST_SIGNAL = 64
_CONFIG_LIMIT = 1 << 18


class Status(enum.Enum):
    """Where a container is in its life: the OCI runtime specification's words, and two more."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    LOST = "lost"  # its monitor was killed: nobody saw it end


@dataclass(frozen=True)
class State:
    """What is known of a container. `exit_status` follows the shell: 128 + N if signal N ended it."""

    name: str
    status: Status
    pid: int = 0
    exit_status: int | None = None
    out_of_memory: bool = False
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Made:
    """A container that has just been made: the number of its first process, and the system calls that it took, in order."""

    pid: int
    outcomes: Sequence[Outcome] = field(repr=False)


class Runtime:
    """The containers of one guest (or of this computer)."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._version: int | None = None

    @property
    def cgroup_version(self) -> int:
        """The version of control groups there: 1 or 2."""
        if self._version is None:
            self._version = version_of(self.place)
        return self._version

    def create(
        self,
        name: str,
        config: Mapping[str, Any],
        *,
        directory: str = "/",
        overlay: Overlay | None = None,
        init_layer: InitLayer | None = None,
        start: bool = False,
        again: bool = False,
        timeout_s: float = 60.0,
    ) -> Made:
        """Make a container from what a config.json says; it waits for `start`, unless it is to `start` at once.

        `directory` is where the bundle lies, `overlay` the layers of its root, the first of them `init_layer`.
        `again`: it is one that has ended, of the same name, and keeps its log.
        Returns the number of its first process, and what each system call came to.
        Raises `UsageError` for a wrong config or a name that is taken, `CallError` for the system call that failed.
        """
        bundle = self._with_cgroup(check_name(name), oci.read(config))
        setting = Setting(name, directory, self.cgroup_version, overlay, init_layer, not start, again)
        calls, init = plan.creation(bundle, setting, json.dumps(config))
        try:
            outcomes = make(self.place, calls, purpose=f"container {name}", timeout_s=timeout_s)
            return Made(outcomes[init.index].returned, list(outcomes.values()))
        except CallError as error:
            if error.errno == EEXIST and error.outcome.call.arguments[0] == setting.state:
                raise _taken(name) from error
            self.delete(name, force=True)
            raise

    def start(self, name: str) -> None:
        """Start a container that was created.

        Raises `UsageError` if it does not wait for that, `CallError` if its program can't be executed.
        """
        calls, read = plan.starting(self._setting(check_name(name)))
        try:
            told = make(self.place, calls)[read.index].data
        except CallError as error:
            if error.errno not in (ENXIO, ENOENT, EEXIST):
                raise
            raise self._not(name, "waiting to be started") from error
        if returned := end_in(told):
            program_ = self.state(name).config["process"]["args"][0]
            raise CallError(self.place.name, Outcome(Call(0, "execve", 0, (program_,)), returned, 0.0))

    def state(self, name: str) -> State:
        """Return what is known of a container. Raises `UsageError` if there is none of that name."""
        setting = self._setting(check_name(name))
        calls = Calls()
        lock = calls.call("open", f"{setting.state}/lock", Open.RDONLY | Open.CLOEXEC, harmless=[ENOENT])
        locked = calls.call("flock", lock, _LOCK_SH | _LOCK_NB, harmless=None)
        reads = _reads(calls, setting)  # afterwards: a monitor that lets go has written everything
        outcomes = make(self.place, calls)
        files = {key: outcomes[call.index].data for key, call in reads.items() if outcomes[call.index].returned >= 0}
        if "config.json" not in files:
            raise UsageError(
                f"There is no container {name!r} on {self.place.name}.",
                allowed=", ".join(self.names()) or "none is there yet",
                example='n1.container(image="busybox", command=["sleep", "60"])',
            )
        return _state(name, files, alive=outcomes[locked.index].returned == -EAGAIN)

    def names(self) -> list[str]:
        """Names of all containers there, running or not."""
        return sorted(self.place.run(["ls", STATE_DIRECTORY]).stdout.split())

    def list(self) -> list[State]:
        """The state of all containers."""
        return [self.state(name) for name in self.names()]

    def kill(self, name: str, signal: int | str = Signal.TERM) -> None:
        """Send a signal to a container's first process, by number or name ("TERM")."""
        self._send(self._living(name).pid, _signal_number(signal))

    def _send(self, pid: int, signal: int) -> None:
        calls = Calls()
        calls.call("kill", pid, signal, harmless=[ESRCH])  # it ended in this very moment
        make(self.place, calls)

    def wait(self, name: str, timeout_s: float = 60.0) -> int:
        """Wait until a container has ended; returns its exit status. Raises `MachineError` at the deadline."""
        setting, until = self._setting(check_name(name)), time.monotonic() + timeout_s
        calls = Calls()
        lock = calls.call("open", f"{setting.state}/lock", Open.RDONLY | Open.CLOEXEC, harmless=[ENOENT])
        calls.call("flock", lock, _LOCK_SH, harmless=None)
        while True:
            make(self.place, calls, purpose=f"end of container {name}", timeout_s=max(0.0, until - time.monotonic()))
            state = self.state(name)
            if state.exit_status is not None:
                return state.exit_status
            if state.status is Status.LOST:
                raise MachineError(self.place.name, f"nobody saw how container {name} ended: its monitor was killed")
            # It ended, and has been started again before we looked.

    def exec(self, name: str, process: Process, *, input: bytes = b"", timeout_s: float = 60.0) -> Result:
        """Run another process in a running container: its namespaces, its control group, its limits."""
        state = self._living(name, Status.RUNNING)
        return self.exec_in(name, oci.read(state.config), state.pid, process, input=input, timeout_s=timeout_s)

    def exec_in(
        self,
        name: str,
        bundle: Bundle,
        pid: int,
        process: Process,
        *,
        input: bytes = b"",
        timeout_s: float = 60.0,
    ) -> Result:
        """The same for who knows its config and its first process: one round trip."""
        setting = self._setting(name)
        calls, mark = plan.execution(self._with_cgroup(name, bundle), setting, pid, process), new_mark()
        words = [PROGRAM, f"in container {name}: {' '.join(process.args)}"]
        result = self.place.run(words, input=program(calls, "f", mark) + input, timeout_s=timeout_s)
        failure = failure_in(calls, mark, result.stderr_bytes) if result.exit_status == FAILED else None
        if failure is not None:
            if failure.call.name in ("open", "must_be", "pidfd_open"):
                self._living(name, Status.RUNNING)  # says what it is instead
            raise CallError(self.place.name, failure)
        return replace(result, command=" ".join(process.args))

    def cgroup(self, name: str) -> Cgroup:
        """The control group of a container."""
        return Cgroup(self.place, self._cgroup_path(name), self.cgroup_version)

    def log(self, name: str) -> bytes:
        """What a container has printed, as its monitor wrote it down (see `logs`)."""
        state = f"{STATE_DIRECTORY}/{check_name(name)}"
        return self.place.run(["sh", "-c", f"cat {state}/log.1 {state}/log 2>/dev/null"]).stdout_bytes

    def pause(self, name: str) -> None:
        """Freeze all processes of a container."""
        self._living(name, Status.RUNNING)
        self.cgroup(name).freeze()
        self.place.run(["touch", f"{STATE_DIRECTORY}/{name}/paused"])

    def resume(self, name: str) -> None:
        """Let a paused container go on."""
        self._living(name, Status.PAUSED)
        self.cgroup(name).thaw()
        self.place.run(["rm", "-f", f"{STATE_DIRECTORY}/{name}/paused"])

    def delete(self, name: str, *, force: bool = False) -> None:
        """Forget a container that has ended, with what it wrote; `force` kills it first."""
        state = self._living_or_not(name)
        if state is not None and state.status not in (Status.STOPPED, Status.LOST):
            if not force:
                raise self._not(name, "stopped")
            self._end(name, state)
        if state is not None and state.status is Status.LOST:
            self.cgroup(name).remove()  # with the processes that nobody watched any more
        self.place.run(["rm", "-rf", f"{STATE_DIRECTORY}/{check_name(name)}"])

    def _end(self, name: str, state: State) -> None:
        if state.status is Status.PAUSED:
            self.resume(name)
        if state.pid:
            self._send(state.pid, Signal.KILL)
        self.wait(name)

    def _living_or_not(self, name: str) -> State | None:
        try:
            return self.state(name)
        except UsageError:
            return None

    def _living(self, name: str, *statuses: Status) -> State:
        state = self.state(name)
        if state.status not in (statuses or (Status.CREATED, Status.RUNNING, Status.PAUSED)):
            raise self._not(name, " or ".join(each.value for each in statuses) or "alive")
        return state

    def _not(self, name: str, wanted: str) -> UsageError:
        state = self.state(name)
        return UsageError(
            f"Container {name} is {state.status.value}, not {wanted}.",
            allowed={"stopped": "stop it first, or force=True"}.get(wanted, f"a container that is {wanted}"),
            example=f'runtime.state("{name}")',
        )

    def _setting(self, name: str) -> Setting:
        return Setting(name, "/", self.cgroup_version)

    def _cgroup_path(self, name: str) -> str:
        config = self.state(name).config
        return self._with_cgroup(name, oci.read(config)).cgroups_path

    def _with_cgroup(self, name: str, bundle: Bundle) -> Bundle:
        return bundle if bundle.cgroups_path else replace(bundle, cgroups_path=f"/cloudlab/{name}")


def check_name(name: str) -> str:
    """Return `name` if a container can have it; raises `UsageError` if not."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a name for a container.",
            allowed="small letters, digits, hyphens, dots and underscores, beginning with a letter or digit, at most 63",
            example='n1.container("web", image="busybox")',
        )
    return name


def _signal_number(signal: int | str) -> int:
    if isinstance(signal, int) and 1 <= signal <= _LAST_SIGNAL:
        return signal
    name = str(signal).upper().removeprefix("SIG")
    if name not in Signal.__members__:
        raise UsageError(
            f"There is no signal {signal!r}.",
            allowed=f"1 to {_LAST_SIGNAL}, or {', '.join(Signal.__members__)}",
            example='runtime.kill("web", "TERM")',
        )
    return Signal[name]


def _taken(name: str) -> UsageError:
    return UsageError(
        f"There is a container {name!r} already.",
        allowed="another name, or remove it first",
        example=f'runtime.delete("{name}", force=True)',
    )


def _reads(calls: Calls, setting: Setting) -> dict[str, Call]:
    reads = {}
    for name, size in (("config.json", _CONFIG_LIMIT), ("pid", 32), ("started", 1), ("paused", 1), ("exit", 4096)):
        file = calls.call("open", f"{setting.state}/{name}", Open.RDONLY | Open.CLOEXEC, harmless=[ENOENT])
        reads[name] = calls.call("read", file, Room(size), size, harmless=None)
        calls.call("close", file, harmless=None)
    return reads


def _state(name: str, files: Mapping[str, bytes], *, alive: bool) -> State:
    config, pid = json.loads(files["config.json"]), int(files.get("pid", b"0") or b"0")
    if "exit" in files:
        exit_status, out_of_memory = ending(files["exit"])
        return State(name, Status.STOPPED, 0, exit_status, out_of_memory, config)
    if not alive:
        return State(name, Status.LOST, pid, config=config)
    status = Status.PAUSED if "paused" in files else Status.RUNNING if "started" in files else Status.CREATED
    return State(name, status, pid, config=config)


def ending(data: bytes) -> tuple[int, bool]:
    """Read a file `exit`: siginfo_t, then the cgroup's memory events. Returns the exit status, and whether memory ran out."""
    code, status = (
        struct.unpack_from("<i", data, 8)[0],
        struct.unpack_from("<i", data, SI_STATUS)[0],
    )  # see sigaction(2)
    events: Sequence[str] = data[SIGINFO:].decode(errors="replace").split()
    kills = int(events[events.index("oom_kill") + 1]) if "oom_kill" in events else 0
    return (status if code == _CLD_EXITED else 128 + status), kills > 0
