"""Programs of calls by which a process has children, or becomes another: what `Process.run`, `spawn`, `execve` have made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudlab.containers.calls import REPORT_FD, Answer, Call, Calls, Room
from cloudlab.containers.execution import add_execution
from cloudlab.containers.syscalls import Open, Prctl, Signal

_P_PID, _WEXITED, _CLD_EXITED = 1, 4, 1  # waitid(2)
_SI_CODE, _SI_STATUS = 8, 24  # where siginfo_t says how a child ended: x86-64's layout
_F_DUPFD_CLOEXEC, _SEEK_SET, _SEEK_END = 1030, 0, 2
_MFD_CLOEXEC = 1


@dataclass(frozen=True)
class Run:
    """A child that is waited for: its standard input, output and error; how it ended; how much is in the latter two."""

    files: list[Call]
    ended: Call
    sizes: list[Call]


def add_run(calls: Calls, command: str | Sequence[str], given: bytes) -> Run:
    """Add: run a command to its end; `given` is its standard input, what it prints is kept in memory: memfd_create(2)."""
    files = [calls.call("memfd_create", name, _MFD_CLOEXEC) for name in ("in", "out", "err")]
    calls.call("write", files[0], given, len(given))
    calls.call("lseek", files[0], 0, _SEEK_SET)
    child, inside = calls.child()
    _begin(inside, files, command)
    ended = calls.call("waitid", _P_PID, child, Room(128, whole=True), _WEXITED, 0)
    return Run(files, ended, [calls.call("lseek", file, 0, _SEEK_END) for file in files[1:]])


def add_taking(calls: Calls, files: Sequence[int], sizes: Sequence[int]) -> list[Call]:
    """Add: read what is in the last two files of a `Run`, and close all; returns the two calls that read."""
    rooms = [max(0, size) for size in sizes]  # below 0: there is no such file
    read = [calls.call("pread64", file, Room(size), size, 0) for file, size in zip(files[1:], rooms, strict=True)]
    for file in files:
        calls.call("close", file)
    return read


def add_spawn(calls: Calls, command: str | Sequence[str]) -> Call:
    """Add: start a command with an empty standard input; returns the call that makes the child."""
    stdin = calls.call("memfd_create", "in", _MFD_CLOEXEC)
    ready = calls.call("pipe2", Room(8, whole=True), Open.CLOEXEC)
    child, inside = calls.child()
    _begin(inside, [stdin], command)
    calls.call("close", Answer(ready, 4))
    calls.call("read", Answer(ready, 0), Room(1), 1)  # the end of the file: it runs, or could not be started
    calls.call("close", Answer(ready, 0))
    calls.call("close", stdin)
    return child


def add_becoming(calls: Calls, path: str, words: Sequence[str], environment: Sequence[str]) -> Call:
    """Add: become another program, with an empty standard input; returns the execve(2). If it fails, calls are heard again."""
    heard = calls.call("fcntl", 0, _F_DUPFD_CLOEXEC, REPORT_FD + 1)
    empty = calls.call("memfd_create", "in", _MFD_CLOEXEC)
    calls.call("dup2", empty, 0)
    became = calls.call("execve", path, list(words), list(environment))
    calls.call("dup2", heard, 0)
    calls.call("close", heard)
    calls.call("close", empty)
    return became


def exit_status(siginfo: bytes) -> int:
    """Read how a child ended of what waitid(2) wrote; as the shell says it: 128 + N if signal N killed it."""
    code, status = (int.from_bytes(siginfo[at : at + 4], "little") for at in (_SI_CODE, _SI_STATUS))
    return status if code == _CLD_EXITED else 128 + status


def _begin(inside: Calls, files: Sequence[Call], command: str | Sequence[str]) -> None:
    """Add: the files become 0, 1, 2; end with the parent; become the command."""
    inside.call("prctl", Prctl.SET_PDEATHSIG, Signal.KILL)
    for number, file in enumerate(files):
        inside.call("dup2", file, number)
    add_execution(inside, command)
