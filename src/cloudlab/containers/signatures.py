"""System calls as one writes them in Python: what their arguments become, what comes back, and which are refused."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, NamedTuple

from cloudlab.containers.calls import REPORT_FD, Argument, Outcome, Room
from cloudlab.errors import UsageError


class Names(NamedTuple):
    """What uname(2) says."""

    sysname: str
    nodename: str
    release: str
    version: str
    machine: str
    domainname: str


@dataclass(frozen=True)
class Signature:
    """How a call is written: its arguments as one gives them -> those of the kernel; its outcome -> what is returned."""

    spread: Callable[..., tuple[Any, ...]]
    meaning: Callable[[Outcome], Any]


def _data(outcome: Outcome) -> bytes:
    return outcome.data


def _two(outcome: Outcome) -> tuple[Any, ...]:
    return struct.unpack("<2i", outcome.data)


def _names(outcome: Outcome) -> Names:
    fields = (outcome.data[start : start + 65] for start in range(0, 6 * 65, 65))
    return Names(*(field.split(b"\0")[0].decode(errors="replace") for field in fields))


def _seconds(outcome: Outcome) -> float:
    seconds, nanoseconds = struct.unpack("<qq", outcome.data)
    return float(seconds + nanoseconds / 1e9)


# Calls whose natural result is data: one does not give them the room for it, nor its size again.
_ANSWERS = {
    "read": Signature(lambda fd, size: (fd, Room(size), size), _data),
    "pread64": Signature(lambda fd, size, offset: (fd, Room(size), size, offset), _data),
    "getrandom": Signature(lambda size, flags=0: (Room(size), size, flags), _data),
    "readlink": Signature(lambda path: (path, Room(4096), 4096), lambda outcome: os.fsdecode(outcome.data)),
    "getcwd": Signature(lambda: (Room(4096), 4096), lambda outcome: os.fsdecode(outcome.data.rstrip(b"\0"))),
    "uname": Signature(lambda: (Room(390, whole=True),), _names),
    "pipe": Signature(lambda: (Room(8, whole=True),), _two),
    "pipe2": Signature(lambda flags=0: (Room(8, whole=True), flags), _two),
    "clock_gettime": Signature(lambda clock: (clock, Room(16, whole=True)), _seconds),
}
_AS_IT_IS = Signature(lambda *arguments: arguments, lambda outcome: outcome.returned)
_WITH_ROOM = Signature(lambda *arguments: arguments, _data)
_WITH_LENGTH = {
    "write": 2,
    "sethostname": 1,
    "setdomainname": 1,
}  # after so many arguments comes the length of the last
_SPLITS = ("would make a second process that hears the same calls", 'p.run("echo $$")')
_ENDS = ("does not return", "p.exit(3)")
_REFUSED = dict.fromkeys(("fork", "vfork", "clone", "clone3"), _SPLITS) | dict.fromkeys(
    ("exit_group", "execveat"), _ENDS
)
_OWN = (0, REPORT_FD)  # descriptors by which a process hears calls and answers
_CHANGED = {"close": 0, "read": 0, "dup2": 1, "dup3": 1}  # calls that would take one away: the argument that says which


def spread(name: str, arguments: Sequence[object]) -> tuple[tuple[Any, ...], Callable[[Outcome], Any]]:
    """Return all arguments of a call that is written as in Python, and what makes its result of the outcome.

    Who gives a `Room` gives all arguments as the manual page has them. Raises `UsageError` if there are too few or too many.
    """
    explicit = any(isinstance(argument, Room) for argument in arguments)
    signature = _WITH_ROOM if explicit else _ANSWERS.get(name, _AS_IT_IS)
    try:
        return signature.spread(*arguments), signature.meaning
    except TypeError as error:
        needs = ", ".join(signature.spread.__code__.co_varnames) or "nothing"
        raise UsageError(f"p.{name}: not these arguments.", allowed=needs, example=f"p.{name}({needs})") from error


def arguments_of(name: str, values: Sequence[object]) -> list[Argument]:
    """Return a call's arguments as the kernel takes them; raises `UsageError` for one that it can't, and for a refused call."""
    arguments = [argument(name, value) for value in values]
    if _WITH_LENGTH.get(name) == len(arguments) and isinstance(arguments[-1], str | bytes):
        arguments.append(len(os.fsencode(arguments[-1])))
    check(name, arguments)
    return arguments


def argument(name: str, value: object) -> Argument:
    """Return one argument as the kernel takes it: None is a null pointer, a path is text."""
    match value:
        case None:
            return 0
        case PurePath():
            return str(value)
        case int() | str() | bytes() | Room():
            return value
        case bytearray() | memoryview():
            return bytes(value)
        case list() | tuple() if all(isinstance(word, str) for word in value):
            return tuple(value)
        case _:
            raise UsageError(
                f"{name} can't take {value!r}.",
                allowed="numbers, flags, texts, bytes, lists of texts, Room(size), None",
                example='p.mount("none", "/", None, Mount.REC | Mount.PRIVATE)',
            )


def check(name: str, arguments: Sequence[Argument]) -> None:
    """Refuse what would cut the wire to the process, or split it in two."""
    if name in _REFUSED:
        problem, example = _REFUSED[name]
        raise UsageError(f"{name} {problem}.", allowed="p.run, p.spawn, p.execve, p.exit", example=example)
    if _takes_away(name, arguments):
        raise UsageError(
            f"{name}{tuple(arguments)}: the process hears calls by descriptor {_OWN[0]}, and answers by {_OWN[1]}.",
            allowed="other descriptors",
            example='fd = p.open("/etc/hostname", 0); p.read(fd, 100)',
        )


def _takes_away(name: str, arguments: Sequence[Argument]) -> bool:
    match name, *arguments:
        case "close_range", int(first), int(last), *_:
            return any(first <= own <= last for own in _OWN)
        case _:
            at = _CHANGED.get(name)
            return at is not None and at < len(arguments) and arguments[at] in _OWN
