"""A command that runs in a guest while its caller goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from cloudlab.errors import MachineError
from cloudlab.machines.agent import OUT, Agent, Job
from cloudlab.machines.result import Result

if TYPE_CHECKING:
    from cloudlab.machines.commands import Commands


class Spawned:
    """A running command, made by `Machine.spawn`: `write` to it, look at its `stdout`, `wait` for it or `kill` it."""

    def __init__(
        self,
        machine: Commands,
        command: str,
        start: Callable[[Callable[[int, bytes], None]], tuple[Agent, Job]],
        on_output: Callable[[bytes], None] | None = None,
    ) -> None:
        self._machine, self.command, self._on_output = machine, command, on_output
        self._printed = threading.Condition()
        self._began = time.monotonic()
        self._agent, self._job = start(self._heard)

    def _heard(self, kind: int, data: bytes) -> None:
        with self._printed:
            self._printed.notify_all()
        if self._on_output and kind == OUT:
            self._on_output(data)

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stdout_bytes(self) -> bytes:
        """The same, exactly."""
        return bytes(self._job.out)

    @property
    def stderr(self) -> str:
        """What it has printed so far on standard error."""
        return bytes(self._job.err).decode(errors="replace")

    @property
    def running(self) -> bool:
        """Has it not ended yet?"""
        return not self._job.ended

    def write(self, data: bytes | str, timeout_s: float = 60.0) -> None:
        """Write to its standard input."""
        self._agent.feed(self._job, data.encode() if isinstance(data, str) else data, timeout_s, end=False)

    def end_input(self) -> None:
        """Close its standard input: it reads the end of the file."""
        self._agent.feed(self._job, b"", 0)

    def wait_until_printed(self, seen: Callable[[bytes], bool], timeout_s: float = 60.0) -> bool:
        """Wait until `seen(stdout_bytes)`; False if it has ended before, or the time is up."""
        until = time.monotonic() + timeout_s
        with self._printed:
            while not seen(self.stdout_bytes):
                if self._job.ended or time.monotonic() > until:
                    return seen(self.stdout_bytes)
                self._printed.wait(min(0.1, timeout_s))  # its end makes no sound here
            return True

    def signal(self, number: int) -> None:
        """Send a signal to it and the processes of its group: `signal.SIGTERM`, or a number of signal(7)."""
        self._agent.signal(self._job, number)

    def wait(self, timeout_s: float = 60.0) -> Result:
        """Wait for its end. Raises `MachineError` at the deadline (it is killed then), or if the guest ends."""
        return self._machine._ended(self._agent, self._job, self.command, timeout_s, self._began)

    def kill(self) -> None:
        """Kill it, if it still runs."""
        if self.running:
            try:
                self._agent.finish(self._job, 0)
            except MachineError:
                pass  # the guest has ended, and it with it

    def __repr__(self) -> str:
        return f"<command {self.command!r} on {self._machine.name}: {'running' if self.running else 'ended'}>"
