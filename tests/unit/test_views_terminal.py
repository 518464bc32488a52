"""A terminal without guest and browser: what is sent to whom, and when; what is said; how the bundle is built."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudlab.errors import MachineError, UsageError
from cloudlab.machines import State
from cloudlab.machines.console import TAIL as WIRE_TAIL
from cloudlab.machines.console import Wire
from cloudlab.views.screen import TAIL, Screen, cut, picture, plain
from cloudlab.views.terminal import BUNDLE, Terminal, status, terminal

ROOT = Path(__file__).parents[2]
RESET = b"\x1bc"


# --- what is sent, and when -------------------------------------------------------------------------------------


def test_nobody_looks_and_nothing_is_sent() -> None:
    assert Screen().printed(b"hello") == []


def test_a_view_that_comes_gets_what_was_printed_before() -> None:
    screen = Screen()
    screen.printed(b"hello")
    (message,) = screen.opened("a")
    assert (message.view, message.data, message.replay) == ("a", RESET + b"hello", True)


def test_output_waits_until_what_was_sent_is_shown() -> None:
    screen = Screen()
    screen.opened("a")
    assert screen.printed(b"one") == []
    (message,) = screen.shown("a", 1)
    assert (message.view, message.data, message.replay) == (None, b"one", False)
    assert screen.printed(b"two") == []
    assert screen.printed(b"three") == []
    assert [m.data for m in screen.shown("a", message.number)] == [b"twothree"]


def test_the_first_view_that_has_shown_a_message_asks_for_the_next() -> None:
    screen = Screen()
    screen.opened("gone with its page")
    screen.opened("b")
    screen.printed(b"one")
    assert [m.data for m in screen.shown("b", 2)] == [b"one"]


def test_a_view_that_comes_gets_nothing_twice() -> None:
    screen = Screen()
    screen.opened("a")
    screen.printed(b"one")
    rest, whole = screen.opened("b")
    assert (rest.view, rest.data) == (None, b"one")
    assert (whole.view, whole.data) == ("b", RESET + b"one")


def test_a_view_that_goes_holds_nobody_up() -> None:
    screen = Screen()
    screen.opened("a")
    screen.opened("b")
    screen.printed(b"one")
    assert [m.data for m in screen.closed("b")] == [b"one"]
    assert screen.closed("a") == []
    assert screen.views == {}


def test_a_view_that_shows_nothing_for_long_is_given_up() -> None:
    screen = Screen()
    screen.opened("gone with its page")
    screen.opened("b")
    screen.shown("b", 2)
    for _ in range(10):
        (message,) = screen.printed(b"x")
        screen.shown("b", message.number)
    assert list(screen.views) == ["b"]


def test_a_flood_is_cut_to_its_end() -> None:
    screen = Screen()
    screen.opened("a")
    for number in range(100_000):
        screen.printed(b"%d\r\n" % number)
    (message,) = screen.shown("a", 1)
    assert message.data.endswith(b"99999\r\n")
    assert len(message.data) <= 2 * TAIL
    assert message.data.startswith(RESET)


def test_a_cut_is_made_at_a_line() -> None:
    text = "虚拟机\r\n".encode() * 10_000
    assert cut(bytearray(text)).decode().startswith("虚拟机\r\n")
    assert len(cut(bytearray(text))) <= TAIL
    assert cut(bytearray(b"short")) == b"short"


def test_a_guest_that_is_started_again_goes_on_below_what_was() -> None:
    screen = Screen()
    screen.started(b"first\r\n", anew=True)
    screen.started(b"second\r\n", anew=True)
    assert plain(bytes(screen.tail), 24) == "first\n\nsecond"
    screen.started(b"second\r\nthird\r\n", anew=False)  # the same guest, read again: the line has it all
    assert plain(bytes(screen.tail), 24) == "second\nthird"


# --- the picture ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "text"),
    [
        (b"", ""),
        (b"\x1b[1;32mgreen\x1b[0m\r\n", "green"),
        (b"12%\r100%\r\n", "100%"),
        (b"lx\b \bs\r\n", "ls"),
        (b"old\x1b[H\x1b[Jnew", "new"),
        (b"\x1b]0;title\x07\x1b(Btext", "text"),
        ("虚拟机".encode()[:-1], "虚拟�"),
        (b"1\r\n2\r\n3\r\n4", "3\n4"),
    ],
)
def test_the_picture_has_the_text_of_the_last_rows(printed: bytes, text: str) -> None:
    assert plain(printed, 2) == text


def test_the_picture_is_safe_html_with_a_name() -> None:
    html = picture("n1", "echo '<script>'")
    assert "<script>" not in html
    assert 'aria-label="terminal of n1"' in html


# --- the terminal -----------------------------------------------------------------------------------------------


class Guest:
    """What a terminal needs of a machine."""

    name = "n1"

    def __init__(self) -> None:
        self.state, self.ending, self.watchers = State.RUNNING, "", list[Callable[[], None]]()
        self.ran: list[list[str]] = []
        self.starts()

    def starts(self) -> None:
        self.line, qemu = socket.socketpair()
        self.line.settimeout(5)
        self.wire = Wire("n1", qemu)
        self.changes(State.RUNNING)

    def ends(self) -> None:
        self.line.close()
        self.ending = "the plug was pulled"
        self.changes(State.CRASHED)

    def changes(self, state: State) -> None:
        self.state = state
        for call in self.watchers:
            call()

    @property
    def console(self) -> Wire:
        if self.state is State.CRASHED:
            raise MachineError("n1", "is crashed")
        return self.wire

    def on_change(self, call: Callable[[], None]) -> Callable[[], None]:
        self.watchers.append(call)
        return lambda: self.watchers.remove(call)

    def run(self, words: list[str], timeout_s: float) -> None:
        self.ran.append(words)


class Page:
    """A browser with one view of a terminal: it shows at once what it gets."""

    def __init__(self, shown: Terminal) -> None:
        self.terminal, self.seen, self.news = shown, b"", threading.Condition()
        shown.send = self.get

    def get(self, content: dict[str, Any], buffers: list[bytes]) -> None:
        with self.news:
            self.seen += buffers[0]
            self.news.notify_all()
        self.says("shown", number=content["number"])

    def says(self, kind: str, **more: object) -> None:
        self.terminal._on_message(None, {"kind": kind, "view": "a", **more}, [])

    def sees(self, text: bytes) -> None:
        with self.news:
            assert self.news.wait_for(lambda: text in self.seen, 5), self.seen


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "terminal.js").write_text("export default {}")
    (tmp_path / "terminal.css").write_text("")
    monkeypatch.setitem(terminal.__globals__, "BUNDLE", tmp_path)


@pytest.fixture
def guest() -> Iterator[Guest]:
    guest = Guest()
    yield guest
    guest.line.close()
    guest.wire.close()


def threads(kind: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"{kind}-n1" and thread.is_alive()]


@pytest.mark.usefixtures("bundle")
def test_keys_go_to_the_guest_and_letters_come_back(guest: Guest) -> None:
    page = Page(Terminal(guest))  # type: ignore[arg-type]
    page.says("open", columns=100)
    page.says("keys", text="虚\r")
    assert guest.line.recv(4, socket.MSG_WAITALL) == "虚\r".encode()
    for byte in "拟机".encode():
        guest.line.sendall(bytes([byte]))
    page.sees("拟机".encode())
    page.terminal.close()


@pytest.mark.usefixtures("bundle")
def test_the_guest_is_told_the_size_once(guest: Guest) -> None:
    page = Page(Terminal(guest))  # type: ignore[arg-type]
    for columns in (100, 100, 3000):
        page.says("size", columns=columns)
        for teller in threads("terminal-size"):
            teller.join(5)
    assert [words[3:7] for words in guest.ran] == [["rows", "24", "cols", str(columns)] for columns in (100, 500)]
    page.terminal.close()


@pytest.mark.usefixtures("bundle")
def test_no_thread_reads_when_nobody_looks(guest: Guest) -> None:
    for reader in threads("terminal"):  # an earlier test's, on its way out
        reader.join(5)
    page = Page(Terminal(guest))  # type: ignore[arg-type]
    assert threads("terminal") == []
    for end in (lambda: page.says("close"), page.terminal.close):
        page.says("open", columns=80)
        (reader,) = threads("terminal")
        end()
        reader.join(5)
        assert not reader.is_alive()
    assert guest.watchers == []


@pytest.mark.usefixtures("bundle")
def test_an_end_is_said_and_a_new_start_is_followed(guest: Guest) -> None:
    page = Page(Terminal(guest))  # type: ignore[arg-type]
    page.says("open", columns=80)
    guest.line.sendall(b"first")
    page.sees(b"first")
    guest.ends()
    assert page.terminal.status == "n1 has crashed: the plug was pulled. n1.start() starts it again."
    for reader in threads("terminal"):
        reader.join(5)
    page.says("keys", text="lost")
    guest.starts()
    guest.line.sendall(b"second")
    page.sees(b"second")
    page.says("keys", text="kept")
    assert guest.line.recv(4, socket.MSG_WAITALL) == b"kept"
    page.terminal.close()


@pytest.mark.usefixtures("bundle")
def test_the_output_has_a_picture_for_pages_without_a_kernel(guest: Guest) -> None:
    guest.line.sendall(b"root@n1:~# ")
    before = b""
    while not before:
        before, line = guest.wire.follow()
        line.close()
    shown = Terminal(guest)  # type: ignore[arg-type]
    data, _ = shown._repr_mimebundle_()
    assert data["text/plain"] == "<terminal of n1>"
    assert "root@n1:~#" in data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in data
    assert threads("terminal") == []
    shown.close()


@pytest.mark.parametrize("state", State)
def test_each_state_is_said_in_words(guest: Guest, state: State) -> None:
    guest.state = state
    assert status(guest).startswith("n1 ")  # type: ignore[arg-type]


def test_what_is_no_machine_is_refused() -> None:
    with pytest.raises(UsageError, match=r"was given 'n1'(.|\n)*terminal\(lab.machine"):
        terminal("n1")  # type: ignore[arg-type]


def test_a_missing_bundle_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(terminal.__globals__, "BUNDLE", tmp_path)
    with pytest.raises(UsageError, match="make lab"):
        terminal.__globals__["_check_bundle"]()


@pytest.mark.parametrize(("rows", "columns"), [(1, 80), (24, 10_000), ("24", 80)])
def test_a_size_that_can_not_be_is_refused(rows: int, columns: int) -> None:
    with pytest.raises(UsageError, match="can't have"):
        terminal.__globals__["_check_size"](rows, columns)


# --- the line ---------------------------------------------------------------------------------------------------


def test_who_follows_a_line_gets_what_was_printed_before_and_misses_nothing() -> None:
    ours, theirs = socket.socketpair()
    wire = Wire("n1", theirs, b"x" * WIRE_TAIL + b"old ")
    before, line = wire.follow()
    assert (len(before), before[-4:]) == (WIRE_TAIL, b"old ")
    ours.sendall(b"new")
    assert line.recv(3, socket.MSG_WAITALL) == b"new"
    later, second = wire.follow()
    assert later.endswith(b"old new")
    ours.close()
    assert (line.recv(1), second.recv(1)) == (b"", b"")
    _, third = wire.follow()
    assert third.recv(1) == b""  # a dead line does not keep anybody waiting
    for end in (line, second, third):
        end.close()


# --- how it is built --------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with only what the build of the bundle needs; npm writes down how it was called."""
    place = tmp_path / "a 课程 checkout"
    shutil.copytree(ROOT / "src/cloudlab/views/js", place / "src/cloudlab/views/js")
    (tmp_path / "bin").mkdir()
    for name in ("npm", "node"):
        fake(tmp_path / "bin" / name, "exit 0")
    fake(tmp_path / "bin" / "npm", 'echo "$*" >>"$LOG"; [ "$1" != run ] || { mkdir static; >static/terminal.js; }')
    script = (ROOT / "scripts" / "setup").read_text()
    parts = [script[script.index("say()") : script.index("\n# --- Python")], script[script.index("views=") :]]
    steps = parts[0] + parts[1][: parts[1].index("# --- the system's programs")]
    (place / "build").write_text(f"set -eu\nwhat=lab\n{steps}\nbundle_is_ready || build_bundle\n")
    return place


def fake(path: Path, does: str) -> None:
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)


def build(checkout: Path, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
    (checkout / "log").write_text("")
    environment = {"PATH": f"{checkout.parent / 'bin'}:{path}", "LOG": str(checkout / "log")}
    return subprocess.run(
        ["/bin/sh", "build"], cwd=checkout, env=environment, capture_output=True, text=True, timeout=30
    )


def test_the_bundle_is_built_once_and_again_when_its_sources_change(checkout: Path) -> None:
    assert build(checkout).stdout == "setup: building the terminal for the browser\n"
    assert (checkout / "src/cloudlab/views/static/terminal.js").exists()
    done = build(checkout)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with (checkout / "src/cloudlab/views/js/terminal.js").open("a") as source:
        source.write("// changed\n")
    assert "building" in build(checkout).stdout


def test_packages_are_those_of_the_lock_and_run_nothing_when_installed(checkout: Path) -> None:
    build(checkout)
    assert (checkout / "log").read_text().splitlines()[0] == "ci --loglevel=error --ignore-scripts --no-audit --no-fund"


def test_a_failed_build_shows_what_npm_said_and_is_tried_again(checkout: Path) -> None:
    fake(checkout.parent / "bin" / "npm", "echo no such host; exit 1")
    for _ in range(2):
        done = build(checkout)
        assert done.returncode == 1
        assert "no such host" in done.stderr
        assert "Then: make lab" in done.stderr


def test_an_old_node_is_replaced_by_one_from_the_python_packages(checkout: Path) -> None:
    fake(checkout.parent / "bin" / "node", "exit 1")
    (checkout / ".venv/bin").mkdir(parents=True)
    fake(checkout / ".venv/bin/python", 'echo "$*" >>"$LOG"; exit "${NO_NETWORK:-0}"')
    done = build(checkout)
    assert (done.returncode, done.stdout.splitlines()[0][:30]) == (0, "setup: installing Node.js into")
    assert "-m pip install" in (checkout / "log").read_text()
    shutil.rmtree(checkout / "src/cloudlab/views/static")
    fake(checkout / ".venv/bin/python", "exit 1")
    done = build(checkout)
    assert done.returncode == 1
    assert "apt-get install nodejs npm" in done.stderr


def test_the_lock_names_no_place_to_fetch_from() -> None:
    lock = (ROOT / "src/cloudlab/views/js/package-lock.json").read_text()
    assert "resolved" not in lock
    assert "://" not in lock


@pytest.mark.skipif(not (BUNDLE / "terminal.js").exists(), reason="`make lab` or `make test` builds it")
def test_the_bundle_asks_for_nothing_elsewhere() -> None:
    assert not [
        word for word in ("import(", "fetch(", "@import", "url(http") if word in (BUNDLE / "terminal.js").read_text()
    ]
