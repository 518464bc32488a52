"""One lab's owner: its directory, its keeper and everything that the keeper runs."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from cloudlab.errors import CloudlabError, MachineError
from cloudlab.owner import keeper
from cloudlab.owner.child import Child
from cloudlab.paths import labs_directory

_ANSWER_DEADLINE_S = 10.0


class Owner:
    """Holds one lab's directory and processes; `close()` ends them, and so does the end of this Python process."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(3)
        self.directory = labs_directory() / self.id
        self.directory.mkdir(mode=0o700)
        self._ids, self._lock, self._closed = count(1), threading.Lock(), False
        self._answers: dict[int, dict[str, Any]] = {}
        self._answered = threading.Condition()
        self._children: dict[int, Child] = {}
        self._early_exits: dict[int, int] = {}
        self._socket, theirs = socket.socketpair()
        self._keeper = self._start_keeper(theirs)
        self.note("lab", {"pid": os.getpid(), "keeper": self._keeper.pid, "started": time.time()})
        threading.Thread(target=self._listen, name=f"owner-{self.id}", daemon=True).start()
        atexit.register(self.close)

    def _start_keeper(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        lock = os.open(self.path("lock"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)  # before the keeper starts: this lab is never seen as dead
        ends = [theirs.fileno(), lock]
        words = [sys.executable, "-I", "-S", keeper.__file__, *map(str, ends), str(self.directory), str(os.getpid())]
        environment = {"LC_ALL": "C.UTF-8", "PATH": os.environ.get("PATH", os.defpath)}
        environment["G_SLICE"] = "always-malloc"  # GLib's own allocator would cost each QEMU 1 MB more
        try:
            return subprocess.Popen(
                words, pass_fds=ends, start_new_session=True, stdin=subprocess.DEVNULL, cwd="/", env=environment
            )
        finally:
            theirs.close()
            os.close(lock)

    def path(self, name: str) -> Path:
        """Return the path of a file of this lab."""
        return self.directory / name

    def note(self, name: str, facts: dict[str, Any]) -> None:
        """Write facts for `cloudlab ps` to read, as name.json."""
        temporary = self.path(f".{name}.tmp")
        temporary.write_text(json.dumps(facts))
        temporary.replace(self.path(f"{name}.json"))

    def spawn(self, name: str, words: Sequence[str], *, log: Path, fds: Sequence[int] = ()) -> Child:
        """Start a program; it finds `fds` under the numbers FIRST_FD, FIRST_FD + 1, …

        Raises `MachineError` if the program can't be started.
        """
        answer = self._ask({"spawn": list(words), "log": str(log), "fds": len(fds)}, fds)
        if "error" in answer:
            raise MachineError(name, f"can't start {words[0]}: {answer['error']}", command=" ".join(words))
        child = Child(name, answer["pid"], list(words), log, self._signal)
        with self._lock:
            self._children[child.pid] = child
            early = self._early_exits.pop(child.pid, None)
        if early is not None:
            child.ended(early)
        return child

    def remove_at_end(self, path: Path) -> None:
        """Have a file or directory outside the lab's own removed when the lab ends, however that happens."""
        self._ask({"remove": str(path)})

    def _signal(self, pid: int, number: int) -> None:
        if not self._closed:
            self._ask({"signal": number, "pid": pid})

    def _ask(self, request: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        number = next(self._ids)
        line = json.dumps({"id": number, **request}).encode() + b"\n"
        try:
            with self._lock:
                sent = socket.send_fds(self._socket, [line], list(fds)) if fds else 0
                self._socket.sendall(line[sent:])
        except OSError as error:
            raise self._keeper_gone() from error
        with self._answered:
            if not self._answered.wait_for(lambda: number in self._answers or self._closed, _ANSWER_DEADLINE_S):
                raise CloudlabError(
                    f"the lab's keeper (process {self._keeper.pid}) did not answer within {_ANSWER_DEADLINE_S:.0f} s"
                )
            if number not in self._answers:
                raise self._keeper_gone()
            return self._answers.pop(number)

    def _keeper_gone(self) -> CloudlabError:
        return CloudlabError(
            f"this lab ({self.id}) has ended: its keeper (process {self._keeper.pid}) is gone. Way out: lab = Lab()"
        )

    def _listen(self) -> None:
        buffer = b""
        with contextlib.suppress(OSError):
            while data := self._socket.recv(1 << 16):
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    self._take(json.loads(line))
        self._lost()

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            with self._answered:
                self._answers[message["id"]] = message
                self._answered.notify_all()
            return
        with self._lock:
            child = self._children.pop(message["exited"], None)
            if child is None:
                self._early_exits[message["exited"]] = message["status"]
        if child is not None:
            child.ended(message["status"])

    def _lost(self) -> None:
        """The keeper is gone, and with it every child."""
        with self._answered:
            self._closed = True
            self._answered.notify_all()
        with self._lock:
            children = list(self._children.values())
            self._children.clear()
        for child in children:
            child.ended(-9)

    def close(self) -> None:
        """End every process of this lab and remove its directory."""
        atexit.unregister(self.close)
        if self._keeper.poll() is None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            try:
                self._keeper.wait(10)
            except subprocess.TimeoutExpired:
                self._keeper.kill()
                self._keeper.wait(10)
        self._closed = True
        self._socket.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def alive(self) -> bool:
        """Can this lab still run anything?"""
        return not self._closed and self._keeper.poll() is None


@dataclass(frozen=True)
class LabRecord:
    """What is known of one lab on this computer, from its directory."""

    directory: Path
    alive: bool
    facts: dict[str, Any]
    machines: list[dict[str, Any]]


def labs() -> list[LabRecord]:
    """Return every lab of this user, alive or dead. Alive means: its keeper holds the lock (flock(2))."""
    return [
        _read_record(path)
        for path in sorted(labs_directory().iterdir())
        if (path / "lock").exists() or (path / "lab.json").exists()
    ]


def remove_dead() -> list[LabRecord]:
    """Remove the directories of labs whose keeper is gone; returns them. Living labs and other files stay."""
    dead = [record for record in labs() if not record.alive]
    for record in dead:
        shutil.rmtree(record.directory, ignore_errors=True)
    return dead


def _read_record(directory: Path) -> LabRecord:
    notes = {path.stem: _read_json(path) for path in sorted(directory.glob("*.json"))}
    facts = notes.pop("lab", {})
    return LabRecord(directory, _is_locked(directory / "lock"), facts, list(notes.values()))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def _is_locked(path: Path) -> bool:
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
