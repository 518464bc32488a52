"""Filters of system calls: a profile as OCI bundles have it, compiled to the small program that the kernel runs before each call.

What such a program can do: cloudlab.containers.bpf. What a profile says: cloudlab.containers.seccomp_rules. Source: seccomp(2).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from cloudlab.containers.bpf import (
    ACTIONS,
    AND,
    ANY_BIT,
    ARCH,
    ARGUMENTS,
    AT_LEAST,
    EQUAL,
    FORMAT,
    GREATER,
    HALF,
    JUMP,
    LOAD,
    NUMBER,
    RETURN,
    WHOLE,
    X32,
    X86_64,
    Action,
    Instruction,
    evaluate,
    explain,
    instructions,
)
from cloudlab.containers.calls import Calls, Struct
from cloudlab.containers.seccomp_default import DEFAULT_PROFILE
from cloudlab.containers.seccomp_rules import (
    EXAMPLE,
    TESTS,
    Comparison,
    Decision,
    Flag,
    Rule,
    beyond,
    decisions,
    default_of,
    denied,
    flags_of,
    unknown_names,
)
from cloudlab.containers.syscalls import NAMES, NUMBERS
from cloudlab.errors import UsageError

__all__ = [
    "ACTIONS",
    "AND",
    "ANY_BIT",
    "AT_LEAST",
    "DEFAULT_PROFILE",
    "EQUAL",
    "EXAMPLE",
    "GREATER",
    "JUMP",
    "LIMIT",
    "LOAD",
    "RETURN",
    "X86_64",
    "Action",
    "Comparison",
    "Decision",
    "Flag",
    "Instruction",
    "Operation",
    "Rule",
    "add",
    "compile",
    "decisions",
    "denied",
    "evaluate",
    "explain",
    "flags_of",
    "instructions",
    "unknown_names",
]
LIMIT = 4096  # instructions: BPF_MAXINSNS
_SKIPPED = 0xFFFFFFFF  # -1: a tracer has the call left out, as strace does to inject errors


class Operation(IntEnum):
    """What seccomp(2) is asked for."""

    SET_MODE_FILTER = 1


class _Step(NamedTuple):
    """An instruction whose jumps are not yet counted: to the next one, or to where the condition is known to hold or not."""

    code: int
    value: int
    yes: str = "next"
    no: str = "next"


def compile(profile: Mapping[str, Any]) -> bytes:  # noqa: A001 - what it does has this name
    """Turn an OCI linux.seccomp object into a program of `struct sock_filter`. Raises `UsageError` beyond 4096 instructions.

    Calls by another architecture's numbers end the process, whatever "architectures" says: this is x86-64 only.
    "unknownErrnoRet" (ours, passed over by others) is the error of calls that are newer than our list of them.
    """
    code = [
        Instruction(LOAD, 0, 0, ARCH),
        Instruction(EQUAL, 1, 0, X86_64),
        Instruction(RETURN, 0, 0, Action("KILL_PROCESS").value),
        Instruction(LOAD, 0, 0, NUMBER),
        *_search(_ranges(profile)),
    ]
    if len(code) > LIMIT:
        raise UsageError(
            f"This profile takes {len(code)} instructions.", allowed=f"{LIMIT}: fewer rules with conditions"
        )
    return b"".join(FORMAT.pack(*instruction) for instruction in code)


def _ranges(profile: Mapping[str, Any]) -> list[tuple[int, Decision]]:
    """Return where, along all numbers of calls, what is decided changes: (from this number on, this)."""
    default = (default_of(profile),)
    changes: dict[int, Decision] = {0: default, X32: (Rule(Action("KILL_PROCESS")),), _SKIPPED: default}
    changes[max(NAMES) + 1] = beyond(profile) or default
    for name, decision in decisions(profile).items():
        if name in NUMBERS:
            changes[NUMBERS[name]] = decision
            changes.setdefault(NUMBERS[name] + 1, default)
    ordered = sorted(changes.items())
    return [each for each, before in zip(ordered, [None, *ordered], strict=False) if not before or before[1] != each[1]]


def _search(ranges: list[tuple[int, Decision]]) -> list[Instruction]:
    """Halve the ranges until one is left. What is always allowed comes to no more: the kernel notes that, and skips the program."""
    if len(ranges) == 1:
        return [instruction for rule in ranges[0][1] for instruction in _rule(rule)]
    middle = len(ranges) // 2
    below, above = _search(ranges[:middle]), _search(ranges[middle:])
    return [*_jump_if_at_least(ranges[middle][0], len(below)), *below, *above]


def _jump_if_at_least(number: int, over: int) -> list[Instruction]:
    """A test jumps over 255 instructions at most; what is farther takes a jump of its own."""
    if over <= 255:
        return [Instruction(AT_LEAST, over, 0, number)]
    return [Instruction(AT_LEAST, 0, 1, number), Instruction(JUMP, 0, 0, over)]


def _rule(rule: Rule) -> list[Instruction]:
    code = [Instruction(RETURN, 0, 0, rule.action.value)]
    for condition in reversed(rule.conditions):
        code = [*_condition(condition, len(code)), *code]
    return code


def _condition(condition: Comparison, rest: int) -> list[Instruction]:
    """Test an argument; if the condition does not hold, jump over the `rest` of the rule."""
    test, negated = TESTS[condition.op]
    steps = _equality(condition) if test == EQUAL else _order(condition, test)
    holds, fails = (rest, 0) if negated else (0, rest)
    code = []
    for left, step in zip(range(len(steps) - 1, -1, -1), steps, strict=True):
        over = {"next": 0, "holds": left + holds, "fails": left + fails}
        code.append(Instruction(step.code, over[step.yes], over[step.no], step.value))
    return code


def _equality(condition: Comparison) -> list[_Step]:
    """Both halves must be equal, as far as the mask goes."""
    masked = condition.op == "SCMP_CMP_MASKED_EQ"
    mask, value = (condition.value, condition.value_two) if masked else (WHOLE, condition.value)
    steps: list[_Step] = []
    for shift, place in ((32, 4), (0, 0)):
        part = mask >> shift & HALF
        if part:
            steps.append(_Step(LOAD, ARGUMENTS + 8 * condition.index + place))
            steps += [_Step(AND, part)] if part != HALF else []
            steps.append(_Step(EQUAL, value >> shift & part, no="fails"))
    return [*steps[:-1], steps[-1]._replace(yes="holds")] if steps else []


def _order(condition: Comparison, test: int) -> list[_Step]:
    """The high halves decide; only if these are equal, the low ones."""
    low = ARGUMENTS + 8 * condition.index
    return [
        _Step(LOAD, low + 4),
        _Step(GREATER, condition.value >> 32, yes="holds"),
        _Step(EQUAL, condition.value >> 32, no="fails"),
        _Step(LOAD, low),
        _Step(test, condition.value & HALF, yes="holds", no="fails"),
    ]


def add(calls: Calls, profile: Mapping[str, Any]) -> None:
    """Add: from now on have each call filtered, by seccomp(2); needs no_new_privs or CAP_SYS_ADMIN, and can't be undone."""
    program = compile(profile)
    calls.call("seccomp", Operation.SET_MODE_FILTER, flags_of(profile), Struct((len(program) // FORMAT.size, program)))
