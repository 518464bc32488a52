"""One program that the keeper runs for us."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

from cloudlab.errors import MachineError


class Child:
    """A running program: `pid`, `name`, `log` (what it prints), `exit_status` once it has ended (-N: by signal N)."""

    def __init__(
        self, name: str, pid: int, words: list[str], log: Path, send_signal: Callable[[int, int], None]
    ) -> None:
        self.name, self.pid, self.words, self.log = name, pid, words, log
        self.exit_status: int | None = None
        self._send_signal = send_signal
        self._ended = threading.Event()
        self._on_exit: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    @property
    def alive(self) -> bool:
        """Has it not ended yet?"""
        return self.exit_status is None

    def on_exit(self, call: Callable[[], None]) -> None:
        """Call `call` when the program ends (at once if it has)."""
        with self._lock:
            if self.alive:
                self._on_exit.append(call)
                return
        call()

    def ended(self, exit_status: int) -> None:
        """Take note that it has ended (the owner says so): first those who asked to be called, then those who wait."""
        with self._lock:
            self.exit_status = exit_status
        for call in self._on_exit:
            call()
        self._ended.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; False if it still runs after `timeout_s`."""
        return self._ended.wait(timeout_s)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, if it still runs."""
        if self.alive:
            self._send_signal(self.pid, number)

    def stop(self, timeout_s: float = 3.0) -> None:
        """Ask it to end (SIGTERM), and make it (SIGKILL) when it does not within `timeout_s`."""
        self.kill(signal.SIGTERM)
        if not self.wait(timeout_s):
            self.kill()
            if not self.wait(timeout_s):
                raise MachineError(self.name, f"process {self.pid} does not end, even killed", log=self.log)

    def how_it_ended(self) -> str:
        """Say how: "killed by SIGKILL", "exit status 1"."""
        if self.exit_status is None:
            return "still running"
        if self.exit_status < 0:
            return f"killed by {signal.Signals(-self.exit_status).name}"
        return f"exit status {self.exit_status}"

    def printed(self) -> str:
        """Return what it has printed on standard output and standard error."""
        try:
            return self.log.read_text(errors="replace")
        except OSError:
            return ""
