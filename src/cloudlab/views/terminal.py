"""A real terminal in a notebook: xterm.js joined to a guest's serial line."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from cloudlab.errors import MachineError, UsageError
from cloudlab.machines import Machine, State
from cloudlab.views.screen import Message, Screen, picture, plain

if TYPE_CHECKING:
    from cloudlab.machines.console import Console

BUNDLE = Path(__file__).with_name("static")  # made by scripts/setup from js/
_TTY = "/dev/ttyS0"
_STTY_DEADLINE_S = 2.0
_NEW_TTY = b"Please press Enter to activate this console"  # init opens the line anew, and its size is forgotten
_ROWS, _COLUMNS = range(2, 201), range(20, 501)

_terminals: dict[Machine, Terminal] = {}
_lock = threading.Lock()


def terminal(machine: Machine, rows: int = 24, columns: int = 80) -> Terminal:
    """Show a guest's console in the notebook: type into it as at its keyboard, also while a cell is running.

    One guest has one terminal, however many cells show it, as it has one serial line: all see the same. It is as wide as
    the cell (`columns` until it is shown), and the guest is told its size, so that `vi` fills it. Ctrl-V pastes, Ctrl-C copies
    what is selected. Without a kernel, the output is a picture of the text.
    """
    if not isinstance(machine, Machine):
        raise UsageError(
            f"terminal() shows a machine, and was given {machine!r}.",
            allowed="a machine of a lab",
            example='terminal(lab.machine("n1"))',
        )
    _check_size(rows, columns)
    _check_bundle()
    with _lock:
        known = _terminals.get(machine)
        if known is None:
            known = _terminals[machine] = Terminal(machine, rows, columns)
            return known
    known.rows = rows
    return known


def _check_size(rows: int, columns: int) -> None:
    for what, given, allowed in (("rows", rows, _ROWS), ("columns", columns, _COLUMNS)):
        if given not in allowed:
            raise UsageError(
                f"A terminal can't have {given!r} {what}.",
                allowed=f"{allowed[0]} to {allowed[-1]} {what}",
                example="terminal(n1, rows=24, columns=80)",
            )


def _check_bundle() -> None:
    if not (BUNDLE / "terminal.js").is_file():
        raise UsageError(
            f"The terminal's program for the browser has not been built: {BUNDLE}/terminal.js is not there.",
            allowed="`make lab`, which builds it",
            example="make lab",
        )


class Terminal(anywidget.AnyWidget):
    """A guest's serial line in a notebook, made by `terminal(machine)`; `close()` takes it away.

    A thread carries what is printed while somebody looks; keys come by the kernel's subshells (Jupyter Enhancement
    Proposal 91), which a running cell does not hold up.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    _css = traitlets.Unicode().tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)
    rows = traitlets.Int(24).tag(sync=True)
    columns = traitlets.Int(80).tag(sync=True)
    state = traitlets.Unicode().tag(sync=True)
    status = traitlets.Unicode().tag(sync=True)

    def __init__(self, machine: Machine, rows: int = 24, columns: int = 80) -> None:
        self._machine, self._screen, self._guard = machine, Screen(), threading.RLock()
        self._line: socket.socket | None = None
        self._reader: threading.Thread | None = None
        self._teller: threading.Thread | None = None
        self._last: Console | None = None
        self._dead: Console | None = None
        self._told: tuple[int, int] | None = None
        self._early = b""
        super().__init__(
            _esm=(BUNDLE / "terminal.js").read_text(),
            _css=(BUNDLE / "terminal.css").read_text(),
            name=machine.name,
            rows=rows,
            columns=columns,
            state=machine.state.value,
            status=status(machine),
        )
        _answer_where_asked(self.comm)
        self.on_msg(self._on_message)
        self.observe(self._tell_size, ["rows", "columns"])
        self._unwatch = machine.on_change(self._on_change)

    def close(self) -> None:
        """Take the terminal away, wherever it is shown; the guest goes on."""
        with _lock:
            if _terminals.get(self._machine) is self:
                del _terminals[self._machine]
        self._unwatch()
        self._unwatch = lambda: None
        with self._guard:
            self._screen.views.clear()
            self._let_go()
        super().close()

    # --- the machine ------------------------------------------------------------------------------------------

    def _on_change(self) -> None:
        """Called by whatever thread changes the machine's state."""
        self.state, self.status = self._machine.state.value, status(self._machine)
        self._follow()
        self._tell_size()

    def _follow(self) -> None:
        """See that somebody reads the line, if somebody looks."""
        with self._guard:
            live = self._machine.state not in (State.OFF, State.CRASHED)
            if live and self._reader is None and self._screen.views:
                self._reader = threading.Thread(target=self._read, name=f"terminal-{self.name}", daemon=True)
                self._reader.start()

    def _read(self) -> None:
        while (console := self._next_console()) is not None:
            self._carry(console)

    def _next_console(self) -> Console | None:
        """Return the console to read; if there is none, the reader has ended when the next change of state asks for it."""
        with self._guard:
            console = self._console() if self._screen.views else None
            if console is None or console is self._dead:
                self._reader = None
                return None
            return console

    def _console(self) -> Console | None:
        try:
            return self._machine.console
        except (MachineError, OSError):
            return None  # it does not run, or ends at this moment: its state says so

    def _carry(self, console: Console) -> None:
        """Pass on what the guest prints until it ends, or nobody looks any more."""
        before, line = console.follow()
        with self._guard:
            self._line = line
            anew = console is not self._last
            if anew and self._last is not None:
                self._told = None  # another process, another tty
            self._last = console
            early, self._early = self._early, b""
            self._type(early)
            self._post(self._screen.started(before, anew=anew))
            if not self._screen.views:
                self._let_go()
        self._tell_size()
        for data in _received(line):
            self._take(data)
        line.close()
        with self._guard:
            if self._line is line:  # nobody has let it go: the guest has
                self._line, self._dead = None, console

    def _take(self, data: bytes) -> None:
        with self._guard:
            self._post(self._screen.printed(data))
            if _NEW_TTY in self._screen.tail[-len(data) - len(_NEW_TTY) :]:
                self._told = None
        self._tell_size()

    def _let_go(self) -> None:
        with self._guard:
            if self._line is not None:
                self._line.shutdown(socket.SHUT_RDWR)  # its reader closes it
            self._line = None

    def _tell_size(self, _change: object = None) -> None:
        """A serial line carries no size: tell the guest's kernel, which tells the program (SIGWINCH, see tty_ioctl(4))."""
        with self._guard:
            if self._teller is None and self._size_is_news():
                self._teller = threading.Thread(target=self._stty, name=f"terminal-size-{self.name}", daemon=True)
                self._teller.start()

    def _size_is_news(self) -> bool:
        looked_at, running = bool(self._screen.views), self._machine.state is State.RUNNING
        return looked_at and running and self._told != (self.rows, self.columns)

    def _stty(self) -> None:
        while True:
            size = (self.rows, self.columns)
            words = ["stty", "-F", _TTY, "rows", str(size[0]), "cols", str(size[1]), "iutf8"]
            try:
                self._machine.run(words, timeout_s=_STTY_DEADLINE_S)
                told = size
            except MachineError:
                told = None  # it ends, or is too busy: it is told when it next prints something
            with self._guard:
                self._told = told
                if told is None or not self._size_is_news():
                    self._teller = None
                    return

    # --- the views --------------------------------------------------------------------------------------------

    def _on_message(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        """Called in the thread of one of the kernel's subshells."""
        kind, view = content["kind"], content["view"]
        if "columns" in content:
            self.columns = max(_COLUMNS[0], min(int(content["columns"]), _COLUMNS[-1]))
        with self._guard:
            if kind == "close":
                self._post(self._screen.closed(view))
            elif view not in self._screen.views:
                self._post(self._screen.opened(view))  # "open" may be late: the first message can wait for a cell
            if kind == "shown":
                self._post(self._screen.shown(view, content["number"]))
            elif kind in ("keys", "bytes"):
                self._type(content["text"].encode("utf-8" if kind == "keys" else "latin-1", "replace"))
            if not self._screen.views:
                self._let_go()
        self._follow()
        self._tell_size()

    def _type(self, keys: bytes) -> None:
        if self._line is None:
            self._early += keys if self._reader else b""  # without a guest they are lost, and the terminal says so
            return
        try:
            self._line.send(keys, socket.MSG_DONTWAIT)
        except OSError:
            pass  # as at a real keyboard: a guest that reads nothing for 200 KB misses the rest, and so does one that ends

    def _post(self, messages: list[Message]) -> None:
        for message in messages:
            to = {"kind": "output"} if message.view is None else {"kind": "screen", "view": message.view}
            self.send({**to, "number": message.number, "replay": message.replay}, [message.data])

    def __repr__(self) -> str:
        return f"<terminal of {self._machine.name}>"

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        shown = super()._repr_mimebundle_(**options)
        assert shown is not None  # it is for a widget without a view
        data, metadata = shown
        still = picture(self._machine.name, plain(self._printed(), self.rows))
        return {**data, "text/plain": repr(self), "text/html": still}, metadata

    def _printed(self) -> bytes:
        with self._guard:
            console = self._console()
            if self._line is not None or console is None:
                return bytes(self._screen.tail)
            before, line = console.follow()
            line.close()
            return before


def _received(line: socket.socket) -> Iterator[bytes]:
    try:
        while data := line.recv(1 << 16):
            yield data
    except ConnectionResetError:
        pass  # the guest ended while there were keys on their way to it


def _answer_where_asked(comm: Any) -> None:
    """Have a view's message handled in the subshell to which the page sent it.

    Since 7.4 ipykernel handles it where this comm has last *sent* something. That is the cell that shows the terminal: while
    another cell runs, keys would wait for it. (Older versions do not look at this attribute.)
    """
    comm._reply_subshell_for = lambda _data, asked: asked


def status(machine: Machine) -> str:
    """Say in words what a machine does, and what to do."""
    name, why = machine.name, f": {machine.ending}" if machine.ending else ""
    return {
        State.STARTING: f"{name} is starting.",
        State.RUNNING: f"{name} is running. Click into the terminal and type; Enter brings a prompt.",
        State.PAUSED: f"{name} is paused, and keys wait: {name}.resume() lets it go on.",
        State.OFF: f"{name} is powered off{why}. {name}.start() starts it again.",
        State.CRASHED: f"{name} has crashed{why}. {name}.start() starts it again.",
    }[machine.state]
