"""Programs of system calls, written here and made by a process in a guest (vm-images/node/process.c).

What a container is, is what is in such a program: print one, and it reads like the output of strace(1).
"""

from __future__ import annotations

import errno
import os
import secrets
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from itertools import count
from typing import Protocol, cast

from cloudlab.containers.syscalls import Clone, Open, Signal, number_of
from cloudlab.errors import MachineError, UsageError
from cloudlab.machines.result import Result

_WORDS_SHOWN, _TEXT_SHOWN = 5, 1000  # of an argument, when a call is printed
PROGRAM = "/usr/libexec/cloudlab-process"
REPORT_FD = 200  # where a process says what its calls returned; closed when it executes something
FAILED = 125  # its exit status when a call failed
_KEEP_LOG, _END_AS, _CHECK, _ANY, _END = 65535, 65534, 65533, 65535, 65535
_MARK, _LAST = 16, 65534
_HEAD = struct.Struct("<HqQI")  # of a piece of an answer: the call's index, returned, nanoseconds, bytes behind it


@dataclass(frozen=True)
class Room:
    """A buffer for an answer, of `size` bytes; `whole` or as much as the call returned (read(2) returns a length)."""

    size: int
    whole: bool = False


@dataclass(frozen=True)
class Answer:
    """What an earlier call wrote into its `Room`: the address of it, or the int at `offset`."""

    call: Call
    offset: int | None = None


@dataclass(frozen=True)
class Words:
    """A text with one %d in it, where the number goes that an earlier call returned: "/proc/%d/uid_map"."""

    text: str
    call: Call

    def __post_init__(self) -> None:
        plain = self.text.replace("%%", "")  # printf(3) reads it
        if plain.count("%") != 1 or "%d" not in plain:
            raise UsageError(
                f"Words({self.text!r}) needs a place for one number.",
                allowed="one %d; %% stands for a percent sign",
                example='Words("/proc/%d/uid_map", child)',
            )


@dataclass(frozen=True)
class Length:
    """The length of the text before it, which may have a number in it that is not known yet."""


@dataclass(frozen=True)
class Struct:
    """A structure of 64-bit fields, such as clone3(2) takes."""

    fields: tuple[Argument, ...]


@dataclass(frozen=True, eq=False)
class Call:
    """One system call: its name (or number), its arguments, and the errors that are no failure (None: any)."""

    index: int
    name: str
    number: int
    arguments: tuple[Argument, ...]
    harmless: tuple[int, ...] | None = ()
    child: Calls | None = None

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(_shown, self.arguments))})"


Argument = int | str | bytes | tuple[str, ...] | Room | Answer | Words | Length | Struct | Call


@dataclass(frozen=True)
class Outcome:
    """What a call came to: what it returned (or -errno), how long it took, and what it wrote into its `Room`."""

    call: Call
    returned: int
    took_s: float
    data: bytes = b""

    @property
    def error(self) -> str:
        """The error's name and meaning; empty if there was none."""
        if not -4096 < self.returned < 0:
            return ""
        return f"{errno.errorcode.get(-self.returned, -self.returned)} ({os.strerror(-self.returned)})"

    @property
    def whole(self) -> bool:
        """Has all come that the call wrote into its `Room`? (A long answer comes in pieces.)"""
        room = next((value for value in reversed(self.call.arguments) if isinstance(value, Room)), Room(0))
        expected = room.size if room.whole else min(self.returned, room.size)
        return self.returned < 0 or len(self.data) >= expected

    def __str__(self) -> str:
        return f"{self.call} = {f'-1 {self.error}' if self.error else self.returned}"


class CallError(MachineError):
    """A system call failed; `outcome` says which and how, `errno` is the error's number as in errno(3)."""

    def __init__(self, machine: str, outcome: Outcome, *, before: str = "", output: str = "") -> None:
        self.outcome, self.errno = outcome, -outcome.returned
        super().__init__(machine, f"{outcome.call} failed: {outcome.error}{before}", output=output)


class Place(Protocol):
    """Where programs can be made to run: a guest (`Machine`), or this computer (`Here`)."""

    @property
    def name(self) -> str:
        """What errors call it."""

    def run(self, command: Sequence[str], *, input: bytes = ..., timeout_s: float = ...) -> Result:
        """Run a command to its end."""


class Calls:
    """A list of system calls, to be made one after the other by one process; `child` begins the list of a child's."""

    def __init__(self, indices: Iterator[int] | None = None) -> None:
        self._indices = count() if indices is None else indices
        self._calls: list[Call] = []

    def call(self, name: str, *arguments: Argument | Sequence[str], harmless: Sequence[int] | None = ()) -> Call:
        """Add a call by its name in syscalls(2); it can be an argument of later ones: what it returned then stands there."""
        return self._add(name, number_of(name), arguments, harmless)

    def child(self, flags: int = 0, cgroup: Argument = 0, *, harmless: Sequence[int] | None = ()) -> tuple[Call, Calls]:
        """Add a clone3(2); returns it (for the parent it is the child's number) and the list of what the child does.

        `flags`: what the child gets of its own (`Clone`); `cgroup`: an open directory of the cgroup that it is born in.
        """
        child = Calls(self._indices)
        clone = Clone(flags) | (Clone.INTO_CGROUP if cgroup else 0)
        fields = Struct((clone, 0, 0, 0, Signal.CHLD, 0, 0, 0, 0, 0, cgroup))
        return self._add("clone3", number_of("clone3"), (fields, 8 * len(fields.fields)), harmless, child), child

    def write_file(self, path: str | Words, text: str | Words, *, flags: int = Open.WRONLY) -> Call:
        """Add what echo TEXT > PATH does: open(2), write(2), close(2)."""
        file = self.call("open", path, Open(flags) | Open.CLOEXEC, 0o644)
        self.call("write", file, text, Length())
        return self.call("close", file)

    def keep_log(self, pidfd: Call, out: Argument, err: Argument, path: str, limit: int) -> Call:
        """Add: pass on what a container prints to the file `path`, until it ends; at `limit` bytes begin a new one."""
        return self._add("keep_log", _KEEP_LOG, (pidfd, out, err, path, limit))

    def end_as(self, child: Call) -> Call:
        """Add: wait for a child, and end with its exit status."""
        return self._add("end_as", _END_AS, (child,))

    def must_be(self, value: Argument, wanted: int, what: str) -> Call:
        """Add: fail unless a value that is known by then is `wanted`; errors and listings call it `what`."""
        return self._add("must_be", _CHECK, (value, what, wanted))

    def _add(
        self,
        name: str,
        number: int,
        arguments: Sequence[Argument | Sequence[str]],
        harmless: Sequence[int] | None = (),
        child: Calls | None = None,
    ) -> Call:
        fixed = tuple(map(_fixed, arguments))
        call = Call(next(self._indices), name, number, fixed, None if harmless is None else tuple(harmless), child)
        if len(fixed) > 6 or len(call.harmless or ()) > 2 or call.index > _LAST:
            raise UsageError(f"{call}: too much.", allowed=f"six arguments, two harmless errors, {_LAST + 1} calls")
        self._calls.append(call)
        return call

    def __iter__(self) -> Iterator[Call]:
        """All calls, a child's behind the one that makes it."""
        for call in self._calls:
            yield call
            yield from call.child or ()

    def __str__(self) -> str:
        return "\n".join(self._lines(""))

    def _lines(self, indent: str) -> Iterator[str]:
        for call in self._calls:
            yield f"{indent}{call}"
            yield from call.child._lines(indent + "  | ") if call.child else ()

    def encoded(self) -> bytes:
        """Return the calls as process.c reads them."""
        return b"".join(map(_encoded, self._calls))


def make(place: Place, calls: Calls, *, purpose: str = "", timeout_s: float = 60.0) -> dict[int, Outcome]:
    """Have a process in `place` make the calls; returns their outcomes by `Call.index`. Raises `CallError` if one fails.

    `purpose` is what ps(1) shows behind the process's name, and who waits for it sees.
    """
    result = place.run([PROGRAM, *([purpose] if purpose else [])], input=program(calls, "a"), timeout_s=timeout_s)
    outcomes = outcomes_in(calls, result.stdout_bytes)
    for outcome in outcomes.values():
        if failed(outcome):
            raise CallError(place.name, outcome, output=result.stderr)
    if not result.ok:
        raise MachineError(place.name, "a process that makes system calls ended early", exit_status=result.exit_status)
    return outcomes


def program(calls: Calls, mode: str, mark: bytes = bytes(_MARK)) -> bytes:
    """Return what process.c reads: `mode` "a" answers each call, "f" only one that fails."""
    return opening(mode, mark) + block(calls)


def opening(mode: str, mark: bytes = bytes(_MARK)) -> bytes:
    """Return what process.c reads before the first block."""
    return mode.encode() + mark


def block(calls: Calls) -> bytes:
    """Return calls that are made together; process.c reads one block after the other."""
    encoded = calls.encoded()
    return struct.pack("<I", len(encoded)) + encoded


def new_mark() -> bytes:
    """Return bytes that nothing else prints."""
    return secrets.token_bytes(_MARK)


def failure_in(calls: Calls, mark: bytes, printed: bytes) -> Outcome | None:
    """Find in what was printed (mode "f") the call that failed."""
    at = printed.find(mark)
    found = outcomes_in(calls, printed[at + len(mark) :]) if at >= 0 else {}
    return next(iter(found.values()), None)


@dataclass(frozen=True)
class _Piece:
    """A piece of an answer, and where it stands: a call's answer is all its pieces."""

    index: int
    returned: int
    took_ns: int
    data: bytes
    begin: int
    end: int


def _pieces(answer: bytes) -> Iterator[_Piece]:
    """Cut what process.c answered, as far as it has come: the last piece may `end` where nothing is yet."""
    begin = 0
    while begin + _HEAD.size <= len(answer):
        index, returned, took_ns, length = _HEAD.unpack_from(answer, begin)
        data = begin + _HEAD.size
        yield _Piece(index, returned, took_ns, answer[data : data + length], begin, data + length)
        begin = data + length


def outcomes_in(calls: Calls, answer: bytes) -> dict[int, Outcome]:
    """Read what process.c answered to these calls; answers to others are passed over."""
    known = {call.index: call for call in calls}
    outcomes: dict[int, Outcome] = {}
    for piece in _pieces(answer):
        if call := known.get(piece.index):
            before = outcomes[call.index].data if call.index in outcomes else b""
            outcomes[call.index] = Outcome(call, piece.returned, piece.took_ns / 1e9, before + piece.data)
    return outcomes


def end_in(answer: bytes) -> int:
    """Read, without knowing the calls, what the one returned that failed and ended its process; 0 if none did."""
    return next((piece.returned for piece in _pieces(answer) if piece.index == _END), 0)


def whole_records(answer: bytes) -> dict[int, bytes]:
    """Cut an answer that still comes by the calls' indices, all pieces of one together; half a piece is left out."""
    records: dict[int, bytes] = {}
    for piece in _pieces(answer):
        if piece.end <= len(answer):
            records[piece.index] = records.get(piece.index, b"") + answer[piece.begin : piece.end]
    return records


def failed(outcome: Outcome) -> bool:
    """Did the call fail, in a way that was not said to be harmless?"""
    harmless = outcome.call.harmless
    return -4096 < outcome.returned < 0 and harmless is not None and -outcome.returned not in harmless


def _fixed(value: Argument | Sequence[str]) -> Argument:
    """A list of words becomes a tuple, which nobody changes later."""
    return tuple(value) if isinstance(value, list) else cast(Argument, value)


def _encoded(call: Call) -> bytes:
    child = call.child.encoded() if call.child else b""
    harmless = (_ANY, _ANY) if call.harmless is None else (*call.harmless, 0, 0)[:2]
    body = struct.pack("<HHHHBI", call.index, call.number, *harmless, len(call.arguments), len(child))
    body += b"".join(map(_argument, call.arguments)) + child
    return struct.pack("<I", len(body)) + body


def _argument(value: Argument) -> bytes:
    match value:
        case int():
            return b"i" + (int(value) & (1 << 64) - 1).to_bytes(8, "little")
        case str() | bytes():
            return b"s" + _sized(value)
        case tuple():
            return b"v" + struct.pack("<I", len(value)) + b"".join(map(_sized, value))
        case Room():
            return (b"o" if value.whole else b"r") + struct.pack("<I", value.size)
        case Answer(call, offset):
            if offset is None:
                return b"@" + struct.pack("<H", call.index)
            return b"#" + struct.pack("<HI", call.index, offset)
        case Words(text, call):
            return b"%" + struct.pack("<H", call.index) + _sized(text)
        case Length():
            return b"l"
        case Struct(fields):
            return b"*" + struct.pack("<I", len(fields)) + b"".join(map(_argument, fields))
        case Call():
            return b"=" + struct.pack("<H", value.index)


def _sized(text: str | bytes) -> bytes:
    data = os.fsencode(text) if isinstance(text, str) else text
    return struct.pack("<I", len(data)) + data


def _shown(value: Argument) -> str:
    match value:
        case IntFlag() | IntEnum() if value:
            return value.name or str(int(value))
        case str() | Words():
            text = value if isinstance(value, str) else value.text
            return '"' + text[:_TEXT_SHOWN].replace("\n", "\\n") + ('"...' if len(text) > _TEXT_SHOWN else '"')
        case bytes():
            return repr(value[:24])[1:] + ("..." if len(value) > 24 else "")
        case tuple():
            words = [f'"{word}"' for word in value[:_WORDS_SHOWN]]
            return "[" + ", ".join(words) + (f", ... {len(value)} words]" if len(value) > _WORDS_SHOWN else "]")
        case Room(size):
            return f"<{size} bytes>"
        case Answer(call, offset):
            return f"<{call.name}'s answer>" if offset is None else f"<{call.name}[{offset // 4}]>"
        case Length():
            return "<its length>"
        case Struct(fields):
            return "{" + ", ".join(_shown(field) for field in fields if field != 0) + "}"
        case Call():
            return f"<{value.name}>"
        case _:
            return str(value)
