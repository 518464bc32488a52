"""What a profile of seccomp says, in the form of OCI bundles: for each system call, which action, if its arguments are which.

Sources: OCI config-linux.md, "Seccomp"; what that leaves open is as libseccomp and crun have it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from errno import EPERM
from itertools import product
from typing import Any

from cloudlab.containers.bpf import ACTIONS, AT_LEAST, EQUAL, GREATER, WHOLE, Action
from cloudlab.containers.syscalls import NUMBERS
from cloudlab.errors import UsageError

EXAMPLE = (
    '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}'
)
TESTS = {
    "SCMP_CMP_EQ": (EQUAL, False),
    "SCMP_CMP_NE": (EQUAL, True),
    "SCMP_CMP_GT": (GREATER, False),
    "SCMP_CMP_LE": (GREATER, True),
    "SCMP_CMP_GE": (AT_LEAST, False),
    "SCMP_CMP_LT": (AT_LEAST, True),
    "SCMP_CMP_MASKED_EQ": (EQUAL, False),
}  # a test, and whether it is its failing that counts


class Flag(IntFlag):
    """How a filter is put on: all threads at once, denials logged, no guard against speculation (it costs time)."""

    TSYNC = 1
    LOG = 2
    SPEC_ALLOW = 4


@dataclass(frozen=True)
class Comparison:
    """A condition on one argument, of 64 bits; `value` is the mask if `op` is MASKED_EQ."""

    index: int
    op: str
    value: int
    value_two: int = 0


@dataclass(frozen=True)
class Rule:
    """An action, for calls whose arguments meet all conditions."""

    action: Action
    conditions: tuple[Comparison, ...] = ()
    comment: str = field(default="", compare=False)


Decision = tuple[Rule, ...]  # of one call: the first rule that fits acts; the last has no conditions


def decisions(profile: Mapping[str, Any]) -> dict[str, Decision]:
    """Return by name what is decided for each call that a profile names. Raises `UsageError` for what is no profile.

    As libseccomp has it: a rule without conditions goes before those with some, the first of several counts, and a rule
    with the default action says nothing. Where conditions with different actions overlap, the first in the profile counts.
    """
    default = default_of(profile)
    rules: dict[str, list[Rule]] = {}
    for name, rule in _rules(profile):
        if rule.action != default.action:
            rules.setdefault(name, []).append(rule)
    return {name: _decision(listed, default) for name, listed in rules.items()}


def _decision(rules: Sequence[Rule], default: Rule) -> Decision:
    unconditional = next((rule for rule in rules if not rule.conditions), None)
    return (unconditional,) if unconditional else (*rules, default)


def unknown_names(profile: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names in a profile that are no calls of x86-64; they are passed over, since profiles serve many kernels."""
    return tuple(sorted({name for name, _ in _rules(profile)} - NUMBERS.keys()))


def denied(profile: Mapping[str, Any]) -> dict[str, str]:
    """Return the calls that a profile does not simply allow, with the reason (the rule's "comment") for each."""
    decided, default = decisions(profile), (default_of(profile),)
    reasons = {name: _reason(decided.get(name, default)) for name in NUMBERS}
    return {name: reason for name, reason in reasons.items() if reason}


def _reason(decision: Decision) -> str:
    refusing = [rule for rule in decision if rule.action.kind not in ("ALLOW", "LOG")]
    if not refusing:
        return ""
    reason = refusing[0].comment or f"{refusing[0].action} in this profile"
    return reason if len(decision) == 1 else f"{reason} (only with certain arguments)"


def flags_of(profile: Mapping[str, Any]) -> Flag:
    """Return the flags for seccomp(2); without any in the profile SPEC_ALLOW, as crun and runc have it."""
    names = profile.get("flags")
    if names is None:
        return Flag.SPEC_ALLOW
    known = {f"SECCOMP_FILTER_FLAG_{flag.name}": flag for flag in Flag}
    for name in _list("flags", names):
        if str(name) not in known:
            raise _wrong("flags", name, ", ".join(known))
    return Flag(sum({known[name] for name in names}))


def beyond(profile: Mapping[str, Any]) -> Decision:
    """Return what is decided for calls that are newer than our list of them ("unknownErrnoRet"); empty if nothing is."""
    number = profile.get("unknownErrnoRet")
    if number is not None and not _is_number(number, 4095):
        raise _wrong("unknownErrnoRet", number, "0 to 4095")
    return () if number is None else (Rule(Action("ERRNO", number)),)


def default_of(profile: Mapping[str, Any]) -> Rule:
    """Return what becomes of calls that a profile does not name."""
    if not isinstance(profile, Mapping):
        raise _wrong("The whole", profile, "an object")
    return Rule(_action("default", profile, "defaultAction", "defaultErrnoRet"))


def _rules(profile: Mapping[str, Any]) -> Iterator[tuple[str, Rule]]:
    for number, entry in enumerate(_list("syscalls", profile.get("syscalls"))):
        place = f"syscalls[{number}]"
        if not isinstance(entry, Mapping):
            raise _wrong(place, entry, "an object")
        action = _action(place, entry, "action", "errnoRet")
        conditions = [_comparison(f"{place}.args", each) for each in _list(f"{place}.args", entry.get("args"))]
        names = _list(f"{place}.names", entry.get("names"))
        if not names or not all(isinstance(name, str) for name in names):
            raise _wrong(f"{place}.names", entry.get("names"), "names of system calls, at least one")
        for name, together in product(names, _alternatives(conditions)):
            yield name, Rule(action, together, str(entry.get("comment") or ""))


def _alternatives(conditions: list[Comparison]) -> list[tuple[Comparison, ...]]:
    """Conditions are and-ed; but if an argument has two, each is a rule of its own: so crun and runc read old profiles."""
    counted = Counter(condition.index for condition in conditions)
    return [(each,) for each in conditions] if max(counted.values(), default=0) > 1 else [tuple(conditions)]


def _action(place: str, entry: Mapping[str, Any], key: str, data_key: str) -> Action:
    name, data = str(entry.get(key)), entry.get(data_key)
    kind = {"SCMP_ACT_KILL": "KILL_THREAD"}.get(name, name.removeprefix("SCMP_ACT_"))
    if kind not in ACTIONS or not name.startswith("SCMP_ACT_"):
        raise _wrong(f"{place}: {key}", entry.get(key), ", ".join(f"SCMP_ACT_{each}" for each in ("KILL", *ACTIONS)))
    limit = {"ERRNO": 4095, "TRACE": 65535}.get(kind)
    if data is None:
        return Action(kind, EPERM if limit else 0)
    if not limit or not _is_number(data, limit):
        raise _wrong(f"{place}: {data_key}", data, f"0 to {limit}" if limit else f"none with {name}")
    return Action(kind, data)


def _comparison(place: str, entry: Any) -> Comparison:
    if not isinstance(entry, Mapping):
        raise _wrong(place, entry, "objects")
    index, value, value_two = (0 if entry.get(key) is None else entry[key] for key in ("index", "value", "valueTwo"))
    for key, given, limit in (("index", index, 5), ("value", value, WHOLE), ("valueTwo", value_two, WHOLE)):
        if not _is_number(given, limit):
            raise _wrong(f"{place}: {key}", given, f"0 to {limit}")
    found = Comparison(index, str(entry.get("op")), value, value_two)
    if found.op not in TESTS:
        raise _wrong(f"{place}: op", entry.get("op"), ", ".join(TESTS))
    return found


def _is_number(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit


def _list(place: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple | None):
        raise _wrong(place, value, "a list")
    return value or ()


def _wrong(place: str, value: object, allowed: str) -> UsageError:
    return UsageError(f"{place} of a seccomp profile is {value!r}.", allowed=allowed, example=EXAMPLE)
