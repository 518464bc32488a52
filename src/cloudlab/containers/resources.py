"""`linux.resources` of an OCI bundle as `Limits` (OCI runtime specification 1.1, config-linux.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from cloudlab.containers.limits import PERIOD_US, UNLIMITED, DeviceRule, IoLimit, Limits
from cloudlab.errors import UsageError

_KNOWN = {
    "": ("memory", "cpu", "pids", "blockIO", "unified", "devices"),
    "memory": ("limit", "reservation", "swap", "swappiness", "disableOOMKiller", "useHierarchy", "checkBeforeUpdate"),
    "cpu": ("shares", "quota", "period", "burst", "cpus", "mems", "idle"),
    "pids": ("limit",),
    "blockIO": (
        "weight",
        "throttleReadBpsDevice",
        "throttleWriteBpsDevice",
        "throttleReadIOPSDevice",
        "throttleWriteIOPSDevice",
    ),
}
_THROTTLES = {
    "throttleReadBpsDevice": "read",
    "throttleWriteBpsDevice": "write",
    "throttleReadIOPSDevice": "read_operations",
    "throttleWriteIOPSDevice": "write_operations",
}
_EXAMPLE = (
    '"resources": {"memory": {"limit": 33554432}, "cpu": {"quota": 50000, "period": 100000}, "pids": {"limit": 64}}'
)


def limits_of(resources: Mapping[str, Any]) -> Limits:
    """Return what a bundle's `linux.resources` allows. A 0 says nothing, -1 that there is no limit, as for crun and runc.

    Raises `UsageError` for what is unknown or not of the right kind, with its place.
    """
    _part({"": resources}, "")
    memory, cpu, pids, block = (_part(resources, name) for name in ("memory", "cpu", "pids", "blockIO"))
    return Limits(
        cpus=_cpus(cpu),
        period_us=_number(cpu, "cpu", "period"),
        burst_us=_number(cpu, "cpu", "burst"),
        cpu_shares=_within(_number(cpu, "cpu", "shares"), 2, 262_144),
        cpu_idle=True if _number(cpu, "cpu", "idle") else None,
        cpuset=_text(cpu, "cpu", "cpus"),
        cpuset_mems=_text(cpu, "cpu", "mems"),
        memory=_number(memory, "memory", "limit"),
        memory_low=_number(memory, "memory", "reservation"),
        swap=_swap(memory),
        swappiness=_kind(memory, "memory", "swappiness", int, "a number"),
        oom_killer=False if _kind(memory, "memory", "disableOOMKiller", bool, "true or false") else None,
        pids=_pids(pids),
        io=_io(block),
        io_weight=_io_weight(block),
        devices=tuple(_devices(resources.get("devices") or ())),
        unified=_unified(resources.get("unified") or {}),
    )


def _cpus(cpu: Mapping[str, Any]) -> float | None:
    quota, period = _number(cpu, "cpu", "quota"), _number(cpu, "cpu", "period") or PERIOD_US
    return quota if quota in (None, UNLIMITED) else quota / period


def _swap(memory: Mapping[str, Any]) -> int | None:
    """Return swap alone: a bundle says memory and swap together."""
    both, limit = _number(memory, "memory", "swap"), _number(memory, "memory", "limit")
    if both in (None, UNLIMITED):
        return both
    if limit is None or limit > both:
        raise _wrong("memory.swap", both, "memory and swap together: at least memory.limit, which must be there")
    return 0 if limit == UNLIMITED else both - limit


def _pids(pids: Mapping[str, Any]) -> int | None:
    if "limit" not in pids:
        return None
    return _number(pids, "pids", "limit") or UNLIMITED


def _io(block: Mapping[str, Any]) -> dict[str, IoLimit]:
    found: dict[str, IoLimit] = {}
    for key, name in _THROTTLES.items():
        for each in block.get(key) or ():
            numbers = [_kind(each, f"blockIO.{key}", part, int, "a number") for part in ("major", "minor", "rate")]
            if None in numbers:
                raise _wrong(f"blockIO.{key}", each, "major, minor and rate")
            device, rate = f"{numbers[0]}:{numbers[1]}", numbers[2] or UNLIMITED
            found[device] = replace(found.get(device, IoLimit()), **{name: rate})
    return found


def _io_weight(block: Mapping[str, Any]) -> int | None:
    """Convert 10 to 1000 to 1 to 10000, as crun and runc do."""
    weight = _within(_number(block, "blockIO", "weight"), 10, 1000)
    return None if weight is None else 1 + (weight - 10) * 9999 // 990


def _devices(rules: Any) -> Iterator[DeviceRule]:
    if not isinstance(rules, list | tuple):
        raise _wrong("devices", rules, "a list")
    for rule in rules:
        kind, access = _text(rule, "devices", "type") or "a", _text(rule, "devices", "access") or "rwm"
        allow = _kind(rule, "devices", "allow", bool, "true or false")
        if allow is None or kind not in ("a", "b", "c") or set(access) - set("rwm"):
            raise _wrong("devices", dict(rule), 'allow, type "a", "b" or "c", and access out of "rwm"')
        parts = (_kind(rule, "devices", part, int, "a number") for part in ("major", "minor"))
        numbers = ":".join("*" if part is None or part < 0 else str(part) for part in parts)
        yield DeviceRule(allow, kind, numbers, access)


def _unified(files: Any) -> dict[str, str]:
    if not isinstance(files, Mapping) or not all(isinstance(each, str) for each in files.values()):
        raise _wrong("unified", files, 'texts by file, {"memory.high": "16777216"}')
    return dict(files)


def _part(resources: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = resources.get(name)
    if part is None:
        return {}
    if not isinstance(part, Mapping):
        raise _wrong(name, part, "an object")
    for key in part:
        if key not in _KNOWN[name]:
            raise _wrong(f"{name}.{key}".strip("."), part[key], f"here {', '.join(_KNOWN[name])}")
    return part


def _number(part: Mapping[str, Any], name: str, key: str) -> int | None:
    number: int | None = _kind(part, name, key, int, "a number")
    if number == 0:
        return None
    return number if number is None or number > 0 else UNLIMITED


def _text(part: Mapping[str, Any], name: str, key: str) -> str | None:
    return _kind(part, name, key, str, "a text") or None


def _kind(part: Any, name: str, key: str, kind: type, allowed: str) -> Any:
    if not isinstance(part, Mapping):
        raise _wrong(name, part, "an object")
    value = part.get(key)
    if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise _wrong(f"{name}.{key}", value, allowed)
    return value


def _within(number: int | None, least: int, most: int) -> int | None:
    """Do as the kernel does with a number out of bounds."""
    return None if number is None else min(max(number, least), most)


def _wrong(place: str, value: object, allowed: str) -> UsageError:
    place = f"linux.resources.{place}"
    return UsageError(f"{place} of the bundle's config.json is {value!r}.", allowed=allowed, example=_EXAMPLE)
