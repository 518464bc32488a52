"""What a control group may use, and the files of cgroup v2 and v1 that say it to the kernel.

Sources: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/*.rst, scheduler/sched-bwc.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from errno import EINVAL, ENOENT
from typing import Any

from cloudlab.errors import UsageError
from cloudlab.units import parse_size

UNLIMITED = -1
PERIOD_US = 100_000  # the kernel's own period for CPU quotas
DEFAULT_WEIGHT, DEFAULT_SHARES = 100, 1024  # the same weight in v2 and v1: kernel/sched/core.c, cpu_weight_write_u64
_MIN_QUOTA_US = 1000  # kernel/sched/core.c, min_cfs_quota_period
_LIST = re.compile(r"^\d+(-\d+)?(,\d+(-\d+)?)*$")
_DEVICE = re.compile(r"^\d+:\d+$")


@dataclass(frozen=True)
class IoLimit:
    """What may pass between a group and one device in a second: bytes and operations. None: as it is; `UNLIMITED`: any."""

    read: int | None = None
    write: int | None = None
    read_operations: int | None = None
    write_operations: int | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            _check(
                value is None or value == UNLIMITED or value > 0,
                f"io: {each.name}",
                value,
                "bytes or operations per second, at least 1, or UNLIMITED",
                'io={"254:0": {"write": "1M"}}',
            )


@dataclass(frozen=True)
class DeviceRule:
    """Which device files may be used, in v1: `kind` is a, b or c; `numbers` "major:minor" with * for any; `access` of rwm."""

    allow: bool
    kind: str = "a"
    numbers: str = "*:*"
    access: str = "rwm"


@dataclass(frozen=True)
class Limits:
    """What a group may use; None leaves it as it is, `UNLIMITED` takes a limit away.

    `cpus`: CPU seconds per second, in periods of `period_us`; `cpu_weight` 1 to 10000 (100 is usual), `cpu_shares` the same
    on v1's scale 2 to 262144 (1024 is usual): the share among neighbours that all want the CPU; `cpuset`, `cpuset_mems`:
    which CPUs and memory nodes, "0-2,4". Bytes: `memory` (above it, something is killed), `memory_high` (above it, slowed),
    `memory_low` (below it, spared), `swap` (besides memory). `pids`: processes and threads; `io` by device "major:minor";
    `io_weight` 1 to 10000. `unified`: files of v2 as they are. `swappiness`, `oom_killer`, `devices`: v1 only.
    """

    cpus: float | None = None
    period_us: int | None = None
    burst_us: int | None = None
    cpu_weight: int | None = None
    cpu_shares: int | None = None
    cpu_idle: bool | None = None
    cpuset: str | None = None
    cpuset_mems: str | None = None
    memory: int | None = None
    memory_high: int | None = None
    memory_low: int | None = None
    swap: int | None = None
    swappiness: int | None = None
    oom_killer: bool | None = None
    pids: int | None = None
    io: Mapping[str, IoLimit] = field(default_factory=dict)
    io_weight: int | None = None
    devices: tuple[DeviceRule, ...] = ()
    unified: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_cpu()
        for name, least in (("memory", 1), ("memory_high", 1), ("memory_low", 0), ("swap", 0), ("pids", 1)):
            value = getattr(self, name)
            allowed = f"a whole number of at least {least}, or UNLIMITED"
            _check(value is None or value == UNLIMITED or value >= least, name, value, allowed, f"{name}=64")
        self._range("io_weight", 1, 10_000)
        self._range("swappiness", 0, 100)
        for device in self.io:
            _check(
                _DEVICE.match(device), "io", device, "numbers of a device, major:minor, as lsblk shows them", '"254:0"'
            )
        for file in self.unified:
            good = re.match(r"^[a-z0-9_]+\.[a-zA-Z0-9_.]+$", file)
            _check(good, "unified", file, "names of files of cgroup v2", '{"memory.high": "16777216"}')

    def _check_cpu(self) -> None:
        period = self.period_us or PERIOD_US
        self._range("period_us", 1000, 1_000_000)
        least = _MIN_QUOTA_US / period
        good = self.cpus is None or self.cpus == UNLIMITED or self.cpus >= least * 0.999
        _check(good, "cpus", self.cpus, f"CPUs, {least:g} or more, or UNLIMITED", "cpus=0.5")
        self._range("cpu_weight", 1, 10_000)
        self._range("cpu_shares", 2, 262_144)
        for name in ("cpuset", "cpuset_mems"):
            value = getattr(self, name)
            _check(value is None or _LIST.match(value), name, value, "numbers and ranges of them", f'{name}="0-2,4"')

    def _range(self, name: str, least: int, most: int) -> None:
        value = getattr(self, name)
        _check(value is None or least <= value <= most, name, value, f"{least} to {most}", f"{name}={max(least, 100)}")


@dataclass(frozen=True)
class Setting:
    """One file of one controller and what is written into it; `harmless`: errors that do not matter."""

    controller: str
    file: str
    value: str
    harmless: tuple[int, ...] = ()


def parse_limits(**given: Any) -> Limits:
    """Return `Limits` from what people write: memory="32M", cpus=0.5, pids="max", io={"254:0": {"write": "1M"}}."""
    known = {each.name for each in fields(Limits)}
    for name in given:
        _check(name in known, "a limit", name, ", ".join(sorted(known)), 'memory="32M", cpus=0.5, pids=20')
    values = {name: _parsed(name, value) for name, value in given.items() if value is not None}
    return Limits(**values)


def _parsed(name: str, value: Any) -> Any:
    if name == "io":
        return {device: _parsed_io(limit) for device, limit in dict(value).items()}
    if value == "max":
        return UNLIMITED
    if name in ("memory", "memory_high", "memory_low", "swap") and isinstance(value, str):
        return 0 if value == "0" else parse_size(value)
    if name.startswith("cpuset"):
        return str(value)
    if name in ("cpu_idle", "oom_killer"):
        _check(isinstance(value, bool), name, value, "True or False", f"{name}=True")
    elif name not in ("unified", "devices"):
        good = isinstance(value, (int, float) if name == "cpus" else int) and not isinstance(value, bool)
        _check(good, name, value, 'a number, or "max"', "cpus=0.5, pids=20")
    return value


def _parsed_io(limit: IoLimit | Mapping[str, Any]) -> IoLimit:
    if isinstance(limit, IoLimit):
        return limit
    known = [each.name for each in fields(IoLimit)]
    for name in limit:
        _check(name in known, "io", name, ", ".join(known), 'io={"254:0": {"write": "1M"}}')
    return IoLimit(**{name: UNLIMITED if value == "max" else parse_size(value) for name, value in limit.items()})


def settings(version: int, limits: Limits) -> list[Setting]:
    """Return what is to be written where, in an order that the kernel takes. Raises `UsageError` for what a version has not."""
    for name in ("memory_high", "unified") if version == 1 else ("swappiness", "oom_killer"):
        if getattr(limits, name) not in (None, {}):
            example = f'lab.machine("other", cgroups="v{3 - version}")'
            raise UsageError(f"cgroup v{version} has no {name}.", allowed="limits of both versions", example=example)
    return list(_v1(limits) if version == 1 else _v2(limits))


def weight_of_shares(shares: int) -> int:
    """Convert v1's scale to v2's as crun and runc do: 2 to 262144 becomes 1 to 10000, in a straight line (OCI config-linux.md)."""
    return 1 + (shares - 2) * 9999 // 262_142


def shares_of_weight(weight: int) -> int:
    """Convert v2's scale to v1's as the kernel does: 100 has the effect of 1024 shares."""
    return max(2, weight * DEFAULT_SHARES // DEFAULT_WEIGHT)


def _v2(limits: Limits) -> Iterator[Setting]:
    for file, text in (("cpuset.cpus", limits.cpuset), ("cpuset.mems", limits.cpuset_mems)):
        if text is not None:
            yield Setting("cpuset", file, text)
    if limits.cpus is not None or limits.period_us is not None:
        quota = "max" if limits.cpus in (None, UNLIMITED) else _quota(limits)
        yield Setting("cpu", "cpu.max", f"{quota} {limits.period_us or PERIOD_US}")
    weight = weight_of_shares(limits.cpu_shares) if limits.cpu_shares is not None else limits.cpu_weight
    idle = None if limits.cpu_idle is None else int(limits.cpu_idle)
    yield from _numbers("cpu", {"cpu.max.burst": limits.burst_us, "cpu.idle": idle, "cpu.weight": weight})
    memory = {"max": limits.memory, "high": limits.memory_high, "low": limits.memory_low, "swap.max": limits.swap}
    yield from _numbers("memory", {f"memory.{name}": value for name, value in memory.items()})
    yield from _numbers("pids", {"pids.max": limits.pids})
    for device, limit in limits.io.items():
        rates = zip(("rbps", "wbps", "riops", "wiops"), _rates(limit), strict=True)
        words = " ".join(f"{key}={_or_max(rate)}" for key, rate in rates if rate is not None)
        if words:
            yield Setting("io", "io.max", f"{device} {words}")
    if limits.io_weight is not None:  # BFQ, where the kernel has it, counts on a scale of its own
        yield Setting("io", "io.bfq.weight", str(_bfq_weight(limits.io_weight)), (ENOENT,))
        yield Setting("io", "io.weight", str(limits.io_weight))
    for file, text in limits.unified.items():
        yield Setting(file.partition(".")[0], file, text)


def _v1(limits: Limits) -> Iterator[Setting]:
    for file, text in (("cpuset.cpus", limits.cpuset), ("cpuset.mems", limits.cpuset_mems)):
        if text is not None:
            yield Setting("cpuset", file, text)
    shares = shares_of_weight(limits.cpu_weight) if limits.cpu_weight is not None else None
    quota = limits.cpus if limits.cpus in (None, UNLIMITED) else _quota(limits)
    period = limits.period_us or (PERIOD_US if limits.cpus is not None else None)
    idle = None if limits.cpu_idle is None else int(limits.cpu_idle)
    numbers = {"cfs_period_us": period, "cfs_quota_us": quota, "cfs_burst_us": limits.burst_us, "idle": idle}
    numbers["shares"] = shares if limits.cpu_shares is None else limits.cpu_shares
    yield from (Setting("cpu", f"cpu.{file}", f"{value:.0f}") for file, value in numbers.items() if value is not None)
    yield from _memory_v1(limits)
    yield from _numbers("pids", {"pids.max": limits.pids})
    names = ("read_bps_device", "write_bps_device", "read_iops_device", "write_iops_device")
    for device, limit in limits.io.items():
        for name, rate in zip(names, _rates(limit), strict=True):
            if rate is not None:
                yield Setting("blkio", f"blkio.throttle.{name}", f"{device} {max(rate, 0)}")  # 0 takes it away
    if limits.io_weight is not None:
        yield Setting("blkio", "blkio.bfq.weight", str(_bfq_weight(limits.io_weight)))
    yield from _devices_v1(limits)


def _memory_v1(limits: Limits) -> Iterator[Setting]:
    if limits.memory is not None and limits.swap is not None:
        # never may memory exceed memory and swap together, whichever is changed first: so the first of three may fail
        both = UNLIMITED if UNLIMITED in (limits.memory, limits.swap) else limits.memory + limits.swap
        yield Setting("memory", "memory.limit_in_bytes", str(limits.memory), (EINVAL,))
        yield Setting("memory", "memory.memsw.limit_in_bytes", str(both))
    elif limits.swap is not None:
        message = "its limit for memory too: v1 limits memory and swap together"
        _check(False, "swap on cgroup v1 without memory", limits.swap, message, 'memory="32M", swap="32M"')
    values = {
        "limit_in_bytes": limits.memory,
        "soft_limit_in_bytes": limits.memory_low,
        "swappiness": limits.swappiness,
    }
    yield from (Setting("memory", f"memory.{file}", str(value)) for file, value in values.items() if value is not None)
    if limits.oom_killer is not None:
        yield Setting("memory", "memory.oom_control", str(int(not limits.oom_killer)))


def _devices_v1(limits: Limits) -> Iterator[Setting]:
    """Give the rules, and behind them, as crun does, what each container may use: null, zero, full, random, urandom, tty, pts."""
    numbers = ("1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:1", "5:2", "136:*")
    usual = [DeviceRule(True, kind, access="m") for kind in "cb"] + [DeviceRule(True, "c", each) for each in numbers]
    for rule in (*limits.devices, *usual) if limits.devices else ():
        file = "devices.allow" if rule.allow else "devices.deny"
        yield Setting("devices", file, f"{rule.kind} {rule.numbers} {rule.access}")


def _quota(limits: Limits) -> int:
    return round((limits.cpus or 0) * (limits.period_us or PERIOD_US))


def _rates(limit: IoLimit) -> tuple[int | None, ...]:
    return limit.read, limit.write, limit.read_operations, limit.write_operations


def _numbers(controller: str, values: Mapping[str, int | None]) -> Iterator[Setting]:
    return (Setting(controller, file, _or_max(value)) for file, value in values.items() if value is not None)


def _or_max(value: int) -> str:
    return "max" if value == UNLIMITED else str(value)


def _bfq_weight(weight: int) -> int:
    """Convert 1 to 10000 to BFQ's 1 to 1000: the way back from what crun makes of a bundle's 10 to 1000."""
    return 10 + (weight - 1) * 990 // 9999


def _check(good: object, name: str, value: object, allowed: str, example: str) -> None:
    if not good:
        raise UsageError(f"{name} can't be {value!r}.", allowed=allowed, example=example)
