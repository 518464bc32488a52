"""What a place must offer where commands go on running, be it a guest (`Machine`) or this computer (`Here`)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from cloudlab.containers.calls import Place
from cloudlab.machines.result import Result


class Running(Protocol):
    """A command that goes on: what `Machine.spawn` and `Here.spawn` return."""

    @property
    def stdout_bytes(self) -> bytes:
        """What it has printed so far."""

    @property
    def stderr(self) -> str:
        """The same of standard error, as text."""

    @property
    def running(self) -> bool:
        """Has it not ended yet?"""

    def write(self, data: bytes) -> None:
        """Write to its standard input."""

    def end_input(self) -> None:
        """Close its standard input."""

    def wait_until_printed(self, seen: Callable[[bytes], bool], timeout_s: float = ...) -> bool:
        """Wait for output; False if it has ended, or the time is up."""

    def wait(self, timeout_s: float = ...) -> Result:
        """Wait for its end."""

    def kill(self) -> None:
        """Kill it and its children."""


class Spawning(Place, Protocol):
    """A place where commands can go on running: a `Machine`, or `Here`."""

    def spawn(self, command: Sequence[str]) -> Running:
        """Start a command and go on."""


def kill_soon(spawned: Running) -> None:
    """Kill it from another thread: the garbage collector may have stopped this one anywhere, with any lock held."""
    threading.Thread(target=spawned.kill, daemon=True).start()
