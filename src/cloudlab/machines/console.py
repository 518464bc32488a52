"""The console: the guest's serial line, as a person at its keyboard has it."""

from __future__ import annotations

import os
import re
import select
import socket
import sys
import termios
import threading
import tty
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
from pexpect.fdpexpect import fdspawn

from cloudlab.errors import MachineError, UsageError

_DEADLINE_S = 30.0
_PROMPT = r"[a-z]+@[a-z0-9-]+:[^\r\n]*[#$] "
_ECHO = 40  # characters of a line that a terminal of 80 columns echoes unbroken
_ESCAPE_KEY = b"\x1d"  # Ctrl-]
TAIL = 1 << 16  # bytes of what was printed last: many screens, and quickly sent
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Wire:
    """The serial line, shared: what the guest prints goes to everyone who listens, what anyone types goes to the guest.

    Somebody must always read, or the guest would wait for ever to print its next letter.
    `printed` is what it printed before there was this line.
    """

    def __init__(self, name: str, sock: socket.socket, printed: bytes = b"") -> None:
        self._socket = sock
        self._ears: list[socket.socket] = []
        self._tail, self._open = bytearray(printed[-TAIL:]), True
        self._lock = threading.Lock()
        threading.Thread(target=self._pass_on, name=f"console-{name}", daemon=True).start()

    def close(self) -> None:
        """Hang up."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # QEMU hung up first

    def attach(self) -> socket.socket:
        """Return a socket that carries the line: read what is printed, write what is typed."""
        return self.follow()[1]

    def follow(self) -> tuple[bytes, socket.socket]:
        """Return what was printed last, and a socket as `attach` does that goes on where that ends."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with self._lock:
            before = bytes(self._tail)
            if not self._open:
                ours.close()
                return before, theirs
            self._ears.append(ours)
        threading.Thread(target=self._type, args=(ours,), daemon=True).start()
        return before, theirs

    def _pass_on(self) -> None:
        try:
            while data := self._socket.recv(1 << 16):
                self._tell(data)
        except OSError:
            pass  # QEMU is gone: the line is dead
        self._socket.close()
        with self._lock:
            self._open = False
            for ear in self._ears:
                ear.shutdown(socket.SHUT_RDWR)  # close() alone is not heard while `_type` waits in select
                ear.close()
            self._ears.clear()

    def _tell(self, data: bytes) -> None:
        with self._lock:
            self._tail += data
            del self._tail[:-TAIL]
            for ear in list(self._ears):
                try:
                    ear.send(data)
                except BlockingIOError:
                    pass  # one who does not listen misses something; the log has it all
                except OSError:
                    self._ears.remove(ear)

    def _type(self, ear: socket.socket) -> None:
        try:
            while select.select([ear], [], [])[0] and (data := ear.recv(4096)):
                self._socket.sendall(data)
        except (OSError, ValueError):
            pass  # either end has hung up
        with self._lock:
            if ear in self._ears:
                self._ears.remove(ear)
            ear.close()


if TYPE_CHECKING:
    _Spawn = fdspawn[str]
else:
    _Spawn = fdspawn  # generic only in its type stubs


class Console(_Spawn):
    """A guest's console, driven by pexpect: `sendline`, `expect`, `before` as in its manual; `enter` does both.

    `text` is all that the guest has printed since it started.
    """

    def __init__(self, name: str, wire: Wire, log: Path) -> None:
        super().__init__(wire.attach().detach(), encoding="utf-8", codec_errors="replace", timeout=_DEADLINE_S)
        self.machine, self._wire, self._log_file = name, wire, log
        self.delaybeforesend = None

    @property
    def text(self) -> str:
        """All that has been printed on the serial line since the guest started, control sequences left out."""
        return _CONTROL.sub("", self._log_file.read_text(errors="replace")).replace("\r", "")

    def follow(self) -> tuple[bytes, socket.socket]:
        """Return the last 64 KB printed, and a socket that goes on there: read what is printed, write what is typed."""
        return self._wire.follow()

    def login(self, timeout_s: float = _DEADLINE_S) -> None:
        """Press Enter and wait for the shell's prompt."""
        self._knock(timeout_s)
        self._expect(f"{_PROMPT}$", timeout_s)

    def enter(self, line: str, timeout_s: float = _DEADLINE_S) -> str:
        """Type a line, wait for the next prompt, return what stood in between, as a person sees it."""
        self._knock(timeout_s)
        self.send(line + "\r")
        # Only the shell echoes behind a prompt. The terminal echoes as well what comes while the shell is busy.
        self._expect(_PROMPT + re.escape(line[:_ECHO]), timeout_s)
        self._expect(f"{_PROMPT}$", timeout_s)
        seen = _CONTROL.sub("", str(self.before)).replace("\r", "")
        return seen.split("\n", 1)[-1].rstrip("\n") if "\n" in seen else ""

    def drain(self) -> None:
        """Forget what has been printed and not been read."""
        try:
            while select.select([self.child_fd], [], [], 0)[0]:
                self.read_nonblocking(1 << 16, timeout=1)
        except (pexpect.TIMEOUT, pexpect.EOF):
            pass  # there is no more
        self.buffer = ""

    def _knock(self, timeout_s: float) -> None:
        """Press Enter, wait for a prompt, and leave it unread: it may be an earlier one, with another behind it."""
        self.drain()
        self.send("\r")
        self._expect(f"(?={_PROMPT}$)", timeout_s)

    def _expect(self, pattern: str, timeout_s: float) -> None:
        try:
            self.expect(pattern, timeout=timeout_s)
        except (pexpect.TIMEOUT, pexpect.EOF) as error:
            raise MachineError(
                self.machine,
                f"no prompt on the console within {timeout_s:.0f} s",
                output=self.text[-2000:],
                log=self._log_file,
            ) from error

    def interact(self) -> None:
        """Join this terminal to the console; Ctrl-] leaves. In a notebook, use `enter`."""
        if not sys.stdin.isatty():
            raise UsageError(
                "interact() needs a terminal, and a notebook cell is none.",
                allowed="console.enter(...) here, or `cloudlab boot` in a terminal",
                example='print(n1.console.enter("ls /"))',
            )
        line, keyboard = self._wire.attach(), sys.stdin.fileno()
        before = termios.tcgetattr(keyboard)
        try:
            tty.setraw(keyboard, termios.TCSANOW)  # what was typed already is not thrown away
            _join(line, keyboard)
        finally:
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
            line.close()


def _join(line: socket.socket, keyboard: int) -> None:
    """Carry keys and letters between a terminal and the line until Ctrl-] or the guest's end."""
    screen = sys.stdout.buffer
    while True:
        ready, _, _ = select.select([line.fileno(), keyboard], [], [])
        if line.fileno() in ready:
            data = line.recv(4096)
            if not data:
                return
            screen.write(data)
            screen.flush()
        if keyboard in ready:
            keys = os.read(keyboard, 4096) or _ESCAPE_KEY
            if _ESCAPE_KEY in keys:
                return
            line.sendall(keys)
