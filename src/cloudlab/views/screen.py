"""What a terminal's views are sent, and when: the part of a terminal that needs no guest."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field

TAIL = 1 << 16  # bytes: many screens, and quickly sent
_LOST = 8  # messages that a view has not shown: it is gone with its page
_RESET = b"\x1bc"  # RIS, reset to initial state (ECMA-48, 8.3.105)
_CALM = b"\x1b[?1049l\x1b[!p\x1b[0m\r\n"  # out of what a program had set that is no more; what it wrote stays (xterm, ctlseqs)
_ALL_CLEAR = re.compile(r"\x1b\[2J|\x1b\[H\x1b\[J|\x1bc")
_CONTROL = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[()][0-9A-Za-z]|[ -/]*[0-~])")


@dataclass(frozen=True)
class Message:
    """Bytes for all views, or for one: its whole screen. `replay`: they are old, and questions in them are answered."""

    number: int
    data: bytes
    view: str | None = None
    replay: bool = False


@dataclass
class Screen:
    """The last that a guest has printed, and who has seen how much of it.

    New output is sent when a view has shown what was sent before: what a flooding guest prints in the meantime is
    gathered, and cut to the last 64 KB, so that neither the kernel nor the page drowns in it.
    """

    tail: bytearray = field(default_factory=bytearray)
    views: dict[str, int] = field(default_factory=dict)
    _waiting: bytearray = field(default_factory=bytearray)
    _sent: int = 0
    _shown: int = 0
    _old: bool = False

    def started(self, before: bytes, *, anew: bool) -> list[Message]:
        """A line to the guest is there, and what it printed `before`; has it been started `anew`, that follows the rest."""
        if anew and self.tail:
            return self.printed(_CALM + before)
        self.tail = cut(bytearray(before))
        self._waiting, self._old = bytearray(_RESET + self.tail), True
        return self._next()

    def printed(self, data: bytes) -> list[Message]:
        """Take what the guest has printed; returns what is to be sent now."""
        self.tail = cut(self.tail + data)
        self._waiting += data
        if len(self._waiting) > 2 * TAIL:
            self._waiting, self._old = bytearray(_RESET + self.tail), True
        return self._next() if self._shown == self._sent else []

    def opened(self, view: str) -> list[Message]:
        """A view has come: the others get what waits for them, and it gets the screen as it is."""
        due = self._next()
        self.views[view] = self._sent = self._sent + 1
        return [*due, Message(self._sent, _RESET + self.tail, view, replay=True)]

    def shown(self, view: str, number: int) -> list[Message]:
        """A view has shown a message; the first to do so asks for the next."""
        self.views[view] = max(number, self.views[view])
        self._shown = max(number, self._shown)
        self.views = {name: last for name, last in self.views.items() if last > self._shown - _LOST}
        return self._next() if self._shown == self._sent else []

    def closed(self, view: str) -> list[Message]:
        """A view has gone; if the others waited for it, they wait no longer."""
        self.views.pop(view, None)
        return self._next()

    def _next(self) -> list[Message]:
        data, replay = bytes(self._waiting), self._old
        self._waiting, self._old = bytearray(), False
        if not data or not self.views:
            return []  # a view that comes later gets the tail
        self._sent += 1
        return [Message(self._sent, data, replay=replay)]


def cut(data: bytearray, limit: int = TAIL) -> bytearray:
    """Return the last bytes, from the beginning of a line on: not from within a letter or a control sequence."""
    if len(data) <= limit:
        return data
    tail = data[-limit:]
    return tail[tail.find(b"\n") + 1 :]


def plain(data: bytes, rows: int) -> str:
    """Return the last lines as text: what is left of them without colours and movements of the cursor."""
    text = _ALL_CLEAR.split(data.decode(errors="replace"))[-1]
    lines = [_typed(line) for line in _CONTROL.sub("", text).replace("\r\n", "\n").split("\n")]
    return "\n".join(lines[-rows:]).strip("\n")


def _typed(line: str) -> str:
    """A line after its carriage returns and backspaces."""
    letters: list[str] = []
    at = 0
    for letter in line:
        if letter in "\r\b":
            at = 0 if letter == "\r" else max(0, at - 1)
        elif letter == "\t" or letter.isprintable():
            letters[at : at + 1] = [letter]
            at += 1
    return "".join(letters).rstrip()


def picture(name: str, text: str) -> str:
    """Return a terminal's text as HTML, for pages without a kernel: nbconvert, GitHub, a notebook that has not run yet."""
    what = html.escape(text) or "(nothing has been printed yet)"
    return f'<pre role="img" aria-label="terminal of {html.escape(name)}">{what}</pre>'
