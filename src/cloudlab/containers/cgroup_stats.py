"""What the kernel says of control groups, read: their use and their limits. Nothing here acts.

Sources: the kernel's Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/{memory,cpuacct,blkio-controller}.rst, accounting/psi.rst.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cloudlab.containers.limits import IoLimit, Limits

STAT_FILES = {
    2: (
        "cpu.stat", "memory.current", "memory.peak", "memory.swap.current", "memory.stat", "memory.events", "pids.current",
        "pids.events", "io.stat", "cpu.pressure", "memory.pressure", "io.pressure",
    ),
    1: (
        "cpuacct.usage", "cpuacct.usage_user", "cpuacct.usage_sys", "cpu.stat", "memory.usage_in_bytes",
        "memory.max_usage_in_bytes", "memory.memsw.usage_in_bytes", "memory.stat", "memory.oom_control", "memory.failcnt",
        "pids.current", "pids.events", "blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive",
    ),
}  # fmt: skip
LIMIT_FILES = {
    2: (
        "cpu.max", "cpu.weight", "cpuset.cpus", "memory.max", "memory.high", "memory.low", "memory.swap.max", "pids.max",
        "io.max", "io.weight",
    ),
    1: (
        "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares", "cpuset.cpus", "memory.limit_in_bytes",
        "memory.soft_limit_in_bytes", "memory.memsw.limit_in_bytes", "pids.max", "blkio.throttle.read_bps_device",
        "blkio.throttle.write_bps_device", "blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device",
    ),
}  # fmt: skip
_NO_LIMIT = 1 << 62  # v1 says "no limit" by the largest number of pages
_THROTTLE = "blkio.throttle."


@dataclass(frozen=True)
class IoUse:
    """What has passed between a group and one device."""

    read_bytes: int = 0
    written_bytes: int = 0
    reads: int = 0
    writes: int = 0


@dataclass(frozen=True)
class CgroupStats:
    """What a group and those below it have used, up to `time_s` (seconds since the computer started, its own clock).

    CPU in seconds: `cpu_s` is what the scheduler counted, `user_s` and `system_s` its parts; `throttled` periods in which the
    quota was used up, for `throttled_s` in all. Memory in bytes: `anonymous` what programs allocated, `file` the page cache.
    `memory_events` as the kernel names them: oom, oom_kill, high, max (v1: oom_kill, and max for failcnt).
    `pids_refused`: forks that failed. `pressure`: percent of the last 10 s in which some process waited, by resource (v2).
    """

    time_s: float
    cpu_s: float = 0.0
    user_s: float = 0.0
    system_s: float = 0.0
    periods: int = 0
    throttled: int = 0
    throttled_s: float = 0.0
    memory: int = 0
    memory_peak: int = 0
    swap: int = 0
    anonymous: int = 0
    file: int = 0
    memory_events: Mapping[str, int] = field(default_factory=dict)
    pids: int = 0
    pids_refused: int = 0
    io: Mapping[str, IoUse] = field(default_factory=dict)
    pressure: Mapping[str, float] = field(default_factory=dict)

    @property
    def oom_kills(self) -> int:
        """How many processes the kernel killed because the group had no memory left."""
        return self.memory_events.get("oom_kill", 0)

    def cpus_since(self, before: CgroupStats) -> float:
        """Return how many CPUs it used on average since an earlier reading: 0.5 is half of one."""
        elapsed = self.time_s - before.time_s
        return (self.cpu_s - before.cpu_s) / elapsed if elapsed > 0 else 0.0


def stats_of(version: int, files: Mapping[str, str], time_s: float) -> CgroupStats:
    """Return what the files of one group (name -> text) say; what is missing counts as 0: not each group has each controller."""
    return (_stats_v2 if version == 2 else _stats_v1)(defaultdict(str, files), time_s)


def _stats_v2(files: Mapping[str, str], time_s: float) -> CgroupStats:
    cpu, memory = _pairs(files["cpu.stat"]), _pairs(files["memory.stat"])
    current = _number(files["memory.current"])
    return CgroupStats(
        time_s,
        cpu_s=cpu["usage_usec"] / 1e6,
        user_s=cpu["user_usec"] / 1e6,
        system_s=cpu["system_usec"] / 1e6,
        periods=cpu["nr_periods"],
        throttled=cpu["nr_throttled"],
        throttled_s=cpu["throttled_usec"] / 1e6,
        memory=current,
        memory_peak=_number(files["memory.peak"]) or current,
        swap=_number(files["memory.swap.current"]),
        anonymous=memory["anon"],
        file=memory["file"],
        memory_events=dict(_pairs(files["memory.events"])),
        pids=_number(files["pids.current"]),
        pids_refused=_pairs(files["pids.events"])["max"],
        io={device: _io_v2(words) for device, words in _by_device(files["io.stat"])},
        pressure={
            name: _pressure(files[f"{name}.pressure"]) for name in ("cpu", "memory", "io") if files[f"{name}.pressure"]
        },
    )


def _stats_v1(files: Mapping[str, str], time_s: float) -> CgroupStats:
    cpu, memory = _pairs(files["cpu.stat"]), _pairs(files["memory.stat"])
    events = {"oom_kill": _pairs(files["memory.oom_control"])["oom_kill"], "max": _number(files["memory.failcnt"])}
    current = _number(files["memory.usage_in_bytes"])
    return CgroupStats(
        time_s,
        cpu_s=_number(files["cpuacct.usage"]) / 1e9,
        user_s=_number(files["cpuacct.usage_user"]) / 1e9,
        system_s=_number(files["cpuacct.usage_sys"]) / 1e9,
        periods=cpu["nr_periods"],
        throttled=cpu["nr_throttled"],
        throttled_s=cpu["throttled_time"] / 1e9,
        memory=current,
        memory_peak=_number(files["memory.max_usage_in_bytes"]),
        swap=max(0, _number(files["memory.memsw.usage_in_bytes"]) - current),
        anonymous=memory["total_rss"],
        file=memory["total_cache"],
        memory_events=events,
        pids=_number(files["pids.current"]),
        pids_refused=_pairs(files["pids.events"])["max"],
        io=_io_v1(files),
    )


def limits_in(version: int, files: Mapping[str, str]) -> Limits:
    """Return the limits that the files of one group (name -> text) say; None where there is none."""
    return (_limits_v2 if version == 2 else _limits_v1)(defaultdict(str, files))


def _limits_v2(files: Mapping[str, str]) -> Limits:
    quota, _, period = files["cpu.max"].partition(" ")
    io = {}
    for device, words in _by_device(files["io.max"]):
        io[device] = IoLimit(*(_limit(words.get(key, "")) for key in ("rbps", "wbps", "riops", "wiops")))
    return Limits(
        cpus=int(quota) / int(period) if quota.isdigit() else None,
        period_us=int(period) if quota.isdigit() else None,
        cpu_weight=_limit(files["cpu.weight"]),
        cpuset=files["cpuset.cpus"].strip() or None,
        memory=_limit(files["memory.max"]),
        memory_high=_limit(files["memory.high"]),
        memory_low=_limit(files["memory.low"]),
        swap=_limit(files["memory.swap.max"], zero=True),
        pids=_limit(files["pids.max"]),
        io=io,
        io_weight=_limit(files["io.weight"].removeprefix("default ").partition("\n")[0]),
    )


def _limits_v1(files: Mapping[str, str]) -> Limits:
    quota, period = _limit(files["cpu.cfs_quota_us"]), _limit(files["cpu.cfs_period_us"])
    memory, both = _limit(files["memory.limit_in_bytes"]), _limit(files["memory.memsw.limit_in_bytes"])
    io: dict[str, dict[str, int]] = defaultdict(dict)
    for name in ("read_bps", "write_bps", "read_iops", "write_iops"):
        for line in files[f"{_THROTTLE}{name}_device"].splitlines():
            device, rate = line.split()
            io[device][name.replace("_bps", "").replace("iops", "operations")] = int(rate)
    return Limits(
        cpus=quota / period if quota and period else None,
        period_us=period if quota else None,
        cpu_shares=_limit(files["cpu.shares"]),
        cpuset=files["cpuset.cpus"].strip() or None,
        memory=memory,
        memory_low=_limit(files["memory.soft_limit_in_bytes"]),
        swap=both - memory if both and memory else None,
        pids=_limit(files["pids.max"]),
        io={device: IoLimit(**rates) for device, rates in io.items()},
    )


def _pairs(text: str) -> defaultdict[str, int]:
    words = (line.split() for line in text.splitlines())
    return defaultdict(
        int, {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].lstrip("-").isdigit()}
    )


def _by_device(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    for line in text.splitlines():
        device, *words = line.split()
        if words:
            yield device, dict(word.split("=", 1) for word in words if "=" in word)


def _io_v2(words: Mapping[str, str]) -> IoUse:
    return IoUse(*(int(words.get(key, 0)) for key in ("rbytes", "wbytes", "rios", "wios")))


def _io_v1(files: Mapping[str, str]) -> dict[str, IoUse]:
    counted: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for file in ("io_service_bytes", "io_serviced"):
        for words in map(str.split, files[f"{_THROTTLE}{file}_recursive"].splitlines()):
            if len(words) == 3:
                counted[words[0]][file + words[1]] = int(words[2])
    names = ("io_service_bytesRead", "io_service_bytesWrite", "io_servicedRead", "io_servicedWrite")
    return {device: IoUse(*(values[name] for name in names)) for device, values in counted.items()}


def _pressure(text: str) -> float:
    return float(text.partition("avg10=")[2].partition(" ")[0] or 0)


def _number(text: str) -> int:
    return int(text) if text.strip().isdigit() else 0


def _limit(text: str, *, zero: bool = False) -> int | None:
    number = int(text) if text.strip().isdigit() else None
    return number if number is not None and (number or zero) and number < _NO_LIMIT else None
