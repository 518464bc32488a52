"""QMP, QEMU's control protocol: a JSON object a line, commands one way, answers and events the other.

Source: QEMU, docs/interop/qmp-spec.rst.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from cloudlab.errors import MachineError

Event = dict[str, Any]
_DEADLINE_S = 20.0


class Qmp:
    """One control connection. Several threads may use it; `on_event` is called in the reading thread."""

    def __init__(self, name: str, sock: socket.socket, on_event: Callable[[Event], None] = lambda event: None) -> None:
        self.name, self._socket, self._on_event = name, sock, on_event
        self.events: list[Event] = []
        self._changed = threading.Condition()
        self._answers: dict[int, dict[str, Any]] = {}
        self._next, self._closed = 0, False
        threading.Thread(target=self._read, name=f"qmp-{name}", daemon=True).start()
        with contextlib.suppress(MachineError):  # one that has ended already says so at the next command
            self.send("qmp_capabilities")

    def send(self, command: str, *, arguments: dict[str, Any] | None = None, fds: Sequence[int] = ()) -> int:
        """Send a command without waiting; returns the number under which `answer` gives its result."""
        with self._changed:
            self._next += 1
            request = {"execute": command, **({"arguments": arguments} if arguments else {}), "id": self._next}
            # no spaces: QEMU before 8 reads a command byte by byte, each one a turn of its main loop
            line = json.dumps(request, separators=(",", ":")).encode() + b"\n"
            try:
                if fds:
                    socket.send_fds(self._socket, [line], list(fds))
                else:
                    self._socket.sendall(line)
            except OSError as error:
                raise MachineError(self.name, "QEMU has ended", command=command) from error
            return self._next

    def answer(self, number: int, timeout_s: float = _DEADLINE_S) -> Any:
        """Wait for one command's result; raises `MachineError` with QEMU's own words if it refused."""
        with self._changed:
            if not self._changed.wait_for(lambda: number in self._answers or self._closed, timeout_s):
                raise MachineError(self.name, f"QEMU did not answer a control command within {timeout_s:.0f} s")
            if number not in self._answers:
                raise MachineError(self.name, "QEMU ended before it answered a control command")
            answer = self._answers.pop(number)
        if "error" in answer:
            raise MachineError(self.name, f"QEMU refused: {answer['error']['desc']}")
        return answer["return"]

    def execute(self, command: str, *, timeout_s: float = _DEADLINE_S, **arguments: Any) -> Any:
        """Send a command and wait for its result; underscores in names of arguments stand for hyphens."""
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        try:
            return self.answer(self.send(command, arguments=named), timeout_s)
        except MachineError as error:
            raise MachineError(
                error.machine, error.problem, command=f"{command} {json.dumps(named)}" if named else command
            ) from error

    def wait_event(self, matches: Callable[[Event], bool], timeout_s: float, what: str) -> Event:
        """Wait for an event, one that has already come included; `what` says in the error what did not happen."""
        with self._changed:
            found: list[Event] = []

            def seen() -> bool:
                found[:] = [event for event in self.events if matches(event)]
                return bool(found) or self._closed

            if not self._changed.wait_for(seen, timeout_s):
                last = ", ".join(event["event"] for event in self.events[-5:]) or "none"
                raise MachineError(self.name, f"{what} did not happen within {timeout_s:.0f} s; events so far: {last}")
            if not found:
                raise MachineError(self.name, f"QEMU ended before this happened: {what}")
            return found[-1]

    def close(self) -> None:
        """Hang up."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # QEMU hung up first

    def _read(self) -> None:
        buffer = b""
        try:
            while data := self._socket.recv(1 << 16):
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    self._take(json.loads(line))
        except OSError:
            pass  # a connection that breaks has ended, like one that is closed
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._socket.close()

    def _take(self, message: dict[str, Any]) -> None:
        with self._changed:
            if "id" in message:
                self._answers[message["id"]] = message
            elif "event" in message:
                self.events.append(message)
            self._changed.notify_all()
        if "event" in message:
            self._on_event(message)
