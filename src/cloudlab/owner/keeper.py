"""The keeper: a small process that starts a lab's programs and outlives the notebook just long enough to end them.

Why a process of its own? A notebook's kernel can be killed at any moment, and then nobody is left there to clean up.
The keeper notices (its socket ends, and the owner's pidfd becomes readable), kills what it started and removes the
lab's directory. If the keeper itself is killed, the kernel kills its children: PR_SET_PDEATHSIG (prctl(2)), which follows
the *thread* that started them, and the keeper has only one.

It runs alone (`python -I -S keeper.py SOCKET LOCK DIRECTORY OWNER_PID`) and imports only what starts quickly.
Messages are JSON lines.
In:  {"id", "spawn": [words], "log", "fds": count} with file descriptors attached,
     {"id", "signal": number, "pid"}, {"id", "remove": path}.
Out: {"id", "pid"} or {"id", "error"} for each, and {"exited": pid, "status": number} at a child's end.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import socket
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_THP_DISABLE = 41
_MAX_FDS = 64
FIRST_FD = 100  # a program finds the descriptors that it was given at 100, 101, …
_HANDLED = (signal.SIGCHLD, signal.SIGTERM)
_IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)


class Keeper:
    """Children, and the socket to their owner."""

    def __init__(self, owner: socket.socket, directory: str, owner_pid: int) -> None:
        self.owner = owner
        self.children: set[int] = set()
        self.paths = {directory}
        self.pid = os.getpid()
        self._buffer, self._fds = b"", list[int]()
        self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else _pipe()
        signal.set_wakeup_fd(wake)
        self._watched = [owner.fileno(), self._wake]
        if hasattr(os, "pidfd_open"):
            self._watched.append(os.pidfd_open(owner_pid))  # a forked copy of the owner may hold the socket open

    def serve(self) -> None:
        """Answer the owner until it is gone; then leave nothing behind."""
        try:
            while self._step():
                pass
        finally:
            self._end_all()

    def _step(self) -> bool:
        ready, _, _ = select.select(self._watched, [], [])
        if self._wake in ready:
            if signal.SIGTERM in os.read(self._wake, 4096):
                return False
            self._reap()
        if self.owner.fileno() in ready and not self._receive():
            return False
        return not any(fd in ready for fd in self._watched[2:])

    def _receive(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self.owner, 1 << 20, _MAX_FDS)
        for fd in fds:
            os.set_inheritable(fd, False)  # recv_fds does not; a child gets its own copies
        self._fds += fds
        if not data:
            return False
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._answer(json.loads(line))
        return True

    def _answer(self, request: dict[str, object]) -> None:
        reply: dict[str, object] = {"id": request["id"]}
        try:
            if "spawn" in request:
                reply["pid"] = self._spawn(request)
            elif "remove" in request:
                self.paths.add(str(request["remove"]))
            elif request["pid"] in self.children:
                os.kill(int(str(request["pid"])), int(str(request["signal"])))
        except OSError as error:
            reply["error"] = str(error)
        self._tell(reply)

    def _spawn(self, request: dict[str, object]) -> int:
        count = int(str(request["fds"]))
        fds, self._fds = self._fds[:count], self._fds[count:]
        words = [str(word) for word in request["spawn"]]  # type: ignore[attr-defined]
        log = os.open(str(request["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)  # a signal to a child that is not yet one would be lost
        try:
            pid = os.fork()
            if pid == 0:
                self._become(words, fds, log)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        self.children.add(pid)
        for fd in [*fds, log]:
            os.close(fd)
        return pid

    def _become(self, words: list[str], fds: list[int], log: int) -> None:
        """In the child: turn into the program, or say in its log why not."""
        try:
            if self._libc:
                self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                self._libc.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)  # 2 MB for one byte: 40 guests would feel it
            if os.getppid() != self.pid:
                os._exit(126)  # the keeper died before the line above
            os.setpgid(0, 0)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            for number, fd in enumerate(fds):
                os.dup2(fd, FIRST_FD + number)
            for number in (*_HANDLED, *_IGNORED):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
            os.execvp(words[0], words)
        except OSError as error:
            os.write(2, f"{words[0]}: {error}\n".encode())
        os._exit(127)

    def _reap(self) -> None:
        while self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self.children.discard(pid)
            self._tell({"exited": pid, "status": os.waitstatus_to_exitcode(status)})

    def _tell(self, message: dict[str, object]) -> None:
        try:
            self.owner.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass  # the owner is gone: the next step notices

    def _end_all(self) -> None:
        for pid in self.children:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for pid in self.children:
            os.waitpid(pid, 0)
        for path in self.paths:
            shutil.rmtree(path, ignore_errors=True)


def _pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    return reading, writing


def main() -> None:
    """Run the keeper on the socket, directory and owner that the command line names."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)  # Ctrl-C in the notebook is not meant for the guests
    for number in _HANDLED:
        signal.signal(number, lambda *_: None)
    line, lock, directory, owner_pid = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    # The lock, taken by the owner and open here as long as we live, shows that the lab is alive
    for end in (line, lock):
        os.set_inheritable(end, False)
    Keeper(socket.socket(fileno=line), directory, owner_pid).serve()


if __name__ == "__main__":
    main()
