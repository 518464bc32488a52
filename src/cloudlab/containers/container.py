"""A container: the parts put together, with the verbs that a user of docker knows."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from errno import EAGAIN
from typing import TYPE_CHECKING, Any

from cloudlab.containers import bundle
from cloudlab.containers.calls import CallError, Outcome
from cloudlab.containers.cgroups import CgroupStats
from cloudlab.containers.logs import Line, parse, printed
from cloudlab.containers.namespaces import Namespace, namespaces_of
from cloudlab.containers.network import Attachment
from cloudlab.containers.registry.image import Image
from cloudlab.containers.rootfs import Change, Overlay
from cloudlab.containers.runtime import State, Status
from cloudlab.containers.specification import Wishes, process_of
from cloudlab.containers.syscalls import Signal
from cloudlab.errors import MachineError, UsageError
from cloudlab.machines.result import Result

if TYPE_CHECKING:
    from cloudlab.containers.engine import Engine
    from cloudlab.containers.supervisor import Event
    from cloudlab.machines import Machine


class Container:
    """A process of a guest that has its own view of it (namespaces), its own share (a control group) and its own files (a root).

    Made by `n1.container(...)`. Nothing of it is a thing of its own to the kernel: take the three away, and a process is left.
    """

    def __init__(self, engine: Engine, name: str, image: str, wishes: Wishes) -> None:
        self.name, self.image, self.wishes = name, image, wishes
        self._engine, self._runtime = engine, engine.runtime
        self.steps: list[Outcome] = []
        self._born = datetime.now(UTC)  # there may have been another of that name
        self._first = 0  # the number of its first process
        self.lock = (
            threading.RLock()
        )  # held while it is started, stopped or removed: the supervisor may be about to do so too
        self.attachment: Attachment | None = None

    @property
    def machine(self) -> Machine:
        """The guest that it is in."""
        return self._engine.place

    @property
    def overlay(self) -> Overlay:
        """The layers of its root: its image's, its init layer, and what it writes."""
        return self._engine.overlay(self)

    @property
    def state(self) -> State:
        """All that is known of it."""
        return self._runtime.state(self.name)

    @property
    def status(self) -> str:
        """created, running, paused, stopped or lost."""
        return self.state.status.value

    @property
    def pid(self) -> int:
        """The number of its first process, as the guest sees it; inside it is 1."""
        return self.state.pid

    @property
    def exit_status(self) -> int | None:
        """Its exit status; None while it runs. 137 is 128 + 9: killed."""
        return self.state.exit_status

    @property
    def health(self) -> str:
        """What its health check says: starting, healthy, unhealthy, or that there is none."""
        return self._engine.supervisor.of(self.name).condition.value

    @property
    def restarts(self) -> int:
        """How often it was started again after it had ended."""
        return self._engine.supervisor.of(self.name).restarts

    @property
    def events(self) -> list[Event]:
        """What has happened to it, the oldest first: create, start, die, restart, …"""
        return [event for event in self._engine.events if event.container == self.name and event.time >= self._born]

    @property
    def facts(self) -> dict[str, str]:
        """What is known of it without asking the guest: for pictures that are drawn many times a second."""
        status = self._engine.supervisor.of(self.name).status
        return {"status": status.value, "image": self.image, "address": self.address}

    @property
    def address(self) -> str:
        """Its IPv4 address on the containers' network; empty if it is on none."""
        return str(self.attachment.address) if self.attachment else ""

    def made(self, pid: int, steps: Sequence[Outcome]) -> None:
        """Note that it has been made: its first process, and the system calls that it took."""
        self._first, self.steps = pid, list(steps)

    def start(self) -> None:
        """Start it (again)."""
        self._engine.start(self)

    def stop(self, timeout_s: float = 10.0) -> int | None:
        """Ask it to end (SIGTERM), and kill it if it does not within `timeout_s`; returns its exit status."""
        with self.lock:
            self._engine.expect_end(self)
            state = self.state
            if state.status is Status.PAUSED:
                self.resume()
            if state.status in (Status.STOPPED, Status.LOST):
                return state.exit_status
            self._runtime.kill(self.name, Signal.TERM)
            try:
                return self._runtime.wait(self.name, timeout_s)
            except MachineError:
                self._runtime.kill(self.name, Signal.KILL)
                return self._runtime.wait(self.name)

    def kill(self, signal: int | str = "KILL") -> None:
        """Send a signal to its first process."""
        self._engine.expect_end(self)
        self._engine.supervisor.tell(self.name, "kill", str(signal))
        self._runtime.kill(self.name, signal)

    def pause(self) -> None:
        """Freeze it: its processes get no more time, and do not notice."""
        self._runtime.pause(self.name)
        self._engine.supervisor.note(self, Status.PAUSED)

    def resume(self) -> None:
        """Let it go on."""
        self._runtime.resume(self.name)
        self._engine.supervisor.note(self, Status.RUNNING)

    def wait(self, timeout_s: float = 60.0) -> int:
        """Wait for its end; returns its exit status."""
        return self._runtime.wait(self.name, timeout_s)

    def remove(self, *, force: bool = True) -> None:
        """Remove it with all that it wrote; `force` also if it runs."""
        self._engine.remove(self, force=force)

    def run(
        self,
        command: str | Sequence[str],
        *,
        input: bytes | str = b"",
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        directory: str | None = None,
        timeout_s: float = 60.0,
    ) -> Result:
        """Run another process in it, and wait for its end; text goes to the container's own sh."""
        own = self.wishes
        wishes = replace(
            own, user=user or own.user, env={**own.env, **(env or {})}, directory=directory or own.directory
        )
        words = ["sh", "-c", command] if isinstance(command, str) else list(command)
        made = bundle.read({**self._engine.config(self), "process": process_of(wishes, words)})
        data = input.encode() if isinstance(input, str) else input
        try:
            return self._runtime.exec_in(self.name, made, self._first, made.process, input=data, timeout_s=timeout_s)
        except CallError as error:
            raise explained(error, words[0], self.image) from error

    def exec(self, command: str | Sequence[str], **options: Any) -> str:
        """Run another process in it that must succeed; returns its standard output. Raises `MachineError` if it fails."""
        result = self.run(command, **options)
        if not result.ok:
            raise MachineError(
                f"{self._engine.place.name}/{self.name}",
                "the command failed",
                command=result.command,
                exit_status=result.exit_status,
                output=result.stderr + result.stdout,
            )
        return result.stdout

    def logs(self, *, stream: str = "", last: int | None = None) -> str:
        """Return what it has printed: both streams, or "stdout" or "stderr"; all, or the `last` lines."""
        text = printed(iter(self.log), stream)
        return text if last is None else "".join(text.splitlines(keepends=True)[-last:])

    @property
    def log(self) -> list[Line]:
        """The same, each line with its time and stream."""
        return list(parse(self._runtime.log(self.name)))

    def stats(self) -> CgroupStats:
        """What it uses now: CPU, memory, processes, I/O; from its control group. Raises `UsageError` if it has ended."""
        try:
            return self._runtime.cgroup(self.name).stats()
        except MachineError:
            state = self.state
            if state.status is not Status.STOPPED:
                raise
            raise UsageError(
                f"Container {self.name} has ended, and its control group with it.",
                allowed="a container that runs; of one that has ended, state.exit_status and state.out_of_memory are known",
                example=f"{self.name}.start()",
            ) from None

    def limit(self, **limits: float | int | str) -> None:
        """Change its limits while it runs: `limit(memory="64M", cpus=0.25)`."""
        self._runtime.cgroup(self.name).limit(**limits)

    @property
    def namespaces(self) -> dict[str, Namespace]:
        """The namespaces of its first process."""
        return namespaces_of(self._engine.place, self.pid)

    def processes(self) -> str:
        """Return what ps(1) shows of it from outside: the guest's own numbers."""
        pids = ",".join(map(str, self._runtime.cgroup(self.name).processes))
        return self._engine.place.run(["ps", "-o", "pid,user,pcpu,rss,args", "-p", pids or "0"]).stdout

    def changes(self) -> list[Change]:
        """What it has written, changed (C), added (A) or deleted (D) against its image."""
        return self._engine.changes(self)

    def commit(self, tag: str) -> Image:
        """Make an image of it: its image's layers, and what it has written as one more."""
        return self._engine.commit(self, tag)

    def __repr__(self) -> str:
        state = self.state
        ended = f", exit status {state.exit_status}" if state.exit_status is not None else ""
        return (
            f"<container {self.name} of {self.image}: {state.status.value}{ended}, {shlex.join(self.wishes.command)}>"
        )


def explained(error: CallError, program: str, image: str) -> MachineError | UsageError:
    """Say in a user's words what a failed execve(2) means."""
    if error.outcome.call.name == "clone3" and error.errno == EAGAIN:
        return UsageError(
            f"There is no room for another process in a container of {image}.",
            allowed="as many as its limit says (pids=…), and its guest's kernel (kernel.threads-max)",
            example="limit(pids=100)",
        )
    if error.outcome.call.name != "execve":
        return error
    return UsageError(
        f"{program!r} can't be run in a container of {image}: {error.outcome.error}.",
        allowed="a program that is in the image, executable, with its libraries",
        example='command=["/bin/busybox", "ls", "-l", "/bin"] shows what there is',
    )
