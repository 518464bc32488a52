"""The small program that the kernel runs before each call of a process, written down, read, run and said in words.

It is classic BPF, made for filtering packets; here the packet is `struct seccomp_data`: the call's number, the architecture
whose numbers these are, and six arguments. It can load 32 bits of that, compare them, jump forward, and return an action. It
can't follow a pointer: a path that is an argument stays unknown to it.
Sources: seccomp(2), the kernel's include/uapi/linux/{seccomp,filter,bpf_common}.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from errno import errorcode
from typing import NamedTuple

from cloudlab.containers.syscalls import NAMES, NUMBERS
from cloudlab.errors import UsageError

X86_64 = 0xC000003E  # AUDIT_ARCH_X86_64 of linux/audit.h
X32 = 0x40000000  # set in the numbers of a second ABI of the same architecture, by which a list of numbers could be evaded
HALF, WHOLE = 2**32 - 1, 2**64 - 1
LOAD, AND, JUMP, RETURN = 0x20, 0x54, 0x05, 0x06
EQUAL, GREATER, AT_LEAST, ANY_BIT = 0x15, 0x25, 0x35, 0x45
ARCH, NUMBER, ARGUMENTS = 4, 0, 16  # where they stand in struct seccomp_data
FORMAT = struct.Struct("<HBBI")
ACTIONS = {
    "KILL_PROCESS": 0x80000000,
    "KILL_THREAD": 0,
    "TRAP": 0x00030000,
    "ERRNO": 0x00050000,
    "TRACE": 0x7FF00000,
    "LOG": 0x7FFC0000,
    "ALLOW": 0x7FFF0000,
}


@dataclass(frozen=True)
class Action:
    """What becomes of a call; `data` is the errno of ERRNO, or what a tracer is told."""

    kind: str
    data: int = 0

    @property
    def value(self) -> int:
        """The 32 bits that a filter returns: SECCOMP_RET_* and the data."""
        return ACTIONS[self.kind] | self.data

    def __str__(self) -> str:
        name = errorcode.get(self.data, self.data) if self.kind == "ERRNO" else self.data
        return f"{self.kind} {name}" if self.data or self.kind == "ERRNO" else self.kind


class Instruction(NamedTuple):
    """A struct sock_filter: what to do, how many instructions to jump over if the test holds and if not, and a number."""

    code: int
    yes: int
    no: int
    value: int


def instructions(program: bytes) -> list[Instruction]:
    """Read a program of `struct sock_filter`."""
    if not program or len(program) % FORMAT.size:
        raise UsageError(
            f"{len(program)} bytes are no program of BPF.",
            allowed="8 bytes an instruction",
            example="compile(DEFAULT_PROFILE)",
        )
    return [Instruction(*fields) for fields in FORMAT.iter_unpack(program)]


def evaluate(program: bytes, number: int | str, args: Iterable[int] = (), arch: int = X86_64) -> Action:
    """Run a program as the kernel does before a call, and return what becomes of it. A `number` may be a call's name."""
    known = NUMBERS[number] if isinstance(number, str) else number
    given = [*args, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<IIQ6Q", known & HALF, arch, 0, *(value & WHOLE for value in given))
    code, at, accumulator = instructions(program), 0, 0
    while at < len(code):
        step, at = code[at], at + 1
        if step.code == RETURN:
            return _returned(step.value)
        if step.code == LOAD:
            accumulator = int.from_bytes(data[step.value : step.value + 4], "little")
        elif step.code == AND:
            accumulator &= step.value
        elif step.code == JUMP:
            at += step.value
        else:
            at += step.yes if _holds(step, accumulator) else step.no
    raise UsageError("This program has no end.", allowed="programs whose every path returns an action")


def _holds(step: Instruction, accumulator: int) -> bool:
    tests = {
        EQUAL: accumulator == step.value,
        GREATER: accumulator > step.value,
        AT_LEAST: accumulator >= step.value,
        ANY_BIT: bool(accumulator & step.value),
    }
    if step.code not in tests:
        raise UsageError(f"Instruction {step.code:#x} is not one that filters use.", allowed="load, and, jumps, return")
    return tests[step.code]


def _returned(value: int) -> Action:
    kinds = {number: kind for kind, number in ACTIONS.items()}
    return Action(kinds.get(value & 0xFFFF0000, "KILL_PROCESS"), value & 0xFFFF)


def explain(program: bytes) -> str:
    """Say what a program does, an instruction a line: "condition ? line if it holds : line if not"."""
    held, lines = {0: ""}, []  # held: what the accumulator has at a line, as the jumps there tell
    for at, step in enumerate(instructions(program)):
        text, now = _line(at, step, held.get(at, ""))
        lines.append(f"{at:4}  {text}")
        for over in () if step.code == RETURN else {step.value} if step.code == JUMP else {step.yes, step.no}:
            held[at + 1 + over] = now
    return "\n".join(lines)


def _line(at: int, step: Instruction, held: str) -> tuple[str, str]:
    """Return an instruction in words, and what the accumulator has after it."""
    signs = {EQUAL: "==", GREATER: ">", AT_LEAST: ">=", ANY_BIT: "&"}
    if step.code == LOAD:
        return f"load {_place(step.value)}", _place(step.value)
    if step.code == AND:
        return f"{held} & {step.value:#x}", f"({held} & {step.value:#x})"
    if step.code == JUMP:
        return f"go to {at + 1 + step.value}", held
    if step.code == RETURN:
        return f"return {_returned(step.value)}", held
    sign = signs.get(step.code, f"instruction {step.code:#x}")
    return f"{held} {sign} {_number(held, step.value)} ? {at + 1 + step.yes} : {at + 1 + step.no}", held


def _place(offset: int) -> str:
    if offset < ARGUMENTS:
        return {NUMBER: "number", ARCH: "architecture"}.get(offset, "instruction pointer")
    return f"argument {(offset - ARGUMENTS) // 8} {'high' if offset % 8 else 'low'}"


def _number(held: str, value: int) -> str:
    if held == "architecture" and value == X86_64:
        return "x86-64"
    if held == "number" and value < X32:
        return f"{value} ({NAMES[value]})" if value in NAMES else str(value)
    return f"{value:#x}"
