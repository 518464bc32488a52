"""What is measured again and again: counters of machines, containers, groups; and what was used between two looks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeGuard, cast

from cloudlab.containers.cgroup_stats import CgroupStats
from cloudlab.errors import CloudlabError
from cloudlab.machines.stats import Stats
from cloudlab.units import format_size
from cloudlab.views.inside import full_name, place_of
from cloudlab.views.live import Source
from cloudlab.views.words import number

if TYPE_CHECKING:
    from cloudlab.containers.cgroups import Cgroup
    from cloudlab.containers.container import Container


class MeasuredMachine(Protocol):
    """A guest as a whole, a process of this computer: a `Machine`."""

    name: str

    @property
    def stats(self) -> Stats:
        """What it uses now; raises `MachineError` if it does not run."""
        ...


@dataclass(frozen=True)
class Gauge:
    """How one thing is measured: its name in the picture, how to read its counters, and the machine that it ends with."""

    name: str
    look: Callable[[], Stats | CgroupStats]
    home: object
    is_group: bool


@dataclass(frozen=True)
class Reading:
    """What the counters of one thing said at one time. `octets` passed its links, if someone counts them there."""

    machine: str
    at_s: float
    stats: Stats | CgroupStats
    octets: int | None = None


@dataclass(frozen=True)
class Sample:
    """What one thing, `machine`, used in the second before `time_s` (seconds since the meters began).

    Of a machine: `cpu`: percent of one CPU of this computer; `memory`: bytes of it, shared pages divided among those who share
    them (PSS). Of a container or a control group: percent of one CPU of its guest, bytes of its guest, and `processes`.
    `disk_read`, `disk_written`, `network`: bytes a second, `network` being None where no link counts them.
    """

    machine: str
    time_s: float
    cpu: float
    memory: int
    disk_read: float
    disk_written: float
    network: float | None = None
    processes: int | None = None

    @property
    def disk(self) -> float:
        """Bytes a second, read and written."""
        return self.disk_read + self.disk_written


def gauge_of(thing: MeasuredMachine | Container | Cgroup) -> Gauge:
    """Return how a thing is measured: a machine by its process, a container or a control group by its guest's counters."""
    if _is_machine(thing):
        machine = thing
        return Gauge(machine.name, lambda: machine.stats, machine, is_group=False)
    group = cast("Container | Cgroup", thing)
    return Gauge(full_name(group), group.stats, place_of(group), is_group=True)


def _is_machine(thing: object) -> TypeGuard[MeasuredMachine]:
    return isinstance(getattr(type(thing), "stats", None), property)


def read(gauge: Gauge, began_s: float, octets: int | None) -> Reading | None:
    """Read the counters of a thing; None if it does not run."""
    try:
        return Reading(gauge.name, time.monotonic() - began_s, gauge.look(), octets)
    except CloudlabError:
        return None  # it has ended, or was removed: the picture says so, and goes on when it is started again


def sample(before: Reading, after: Reading) -> Sample:
    """Return what was used between two readings. A counter that began anew (the machine was started again) counts as no use."""
    elapsed_s = max(_clock_s(after) - _clock_s(before), 1e-9)

    def rate(old: float, new: float) -> float:
        return max(new - old, 0) / elapsed_s

    counted = before.octets is not None and after.octets is not None
    read_before, written_before = transferred(before.stats)
    read_after, written_after = transferred(after.stats)
    return Sample(
        machine=after.machine,
        time_s=after.at_s,
        cpu=100 * rate(before.stats.cpu_s, after.stats.cpu_s),
        memory=after.stats.memory if isinstance(after.stats, CgroupStats) else after.stats.memory_pss,
        disk_read=rate(read_before, read_after),
        disk_written=rate(written_before, written_after),
        network=rate(before.octets or 0, after.octets or 0) if counted else None,
        processes=after.stats.pids if isinstance(after.stats, CgroupStats) else None,
    )


def _clock_s(reading: Reading) -> float:
    """A guest's counters go by the guest's clock, which stands still when the guest does."""
    return reading.stats.time_s if isinstance(reading.stats, CgroupStats) else reading.at_s


def transferred(stats: Stats | CgroupStats) -> tuple[int, int]:
    """Return the bytes read and written, of all disks."""
    if isinstance(stats, Stats):
        return stats.disk_read, stats.disk_written
    return sum(use.read_bytes for use in stats.io.values()), sum(use.written_bytes for use in stats.io.values())


def link_octets(source: Source) -> dict[str, int]:
    """Return the octets that have passed each node's links, where they are counted."""
    counted: dict[str, int] = {}
    for a, b, facts in source.topology.edges(data=True):
        for name in (a, b) if facts.get("octets") is not None else ():
            counted[name] = counted.get(name, 0) + facts["octets"]
    return counted


def words(newest: Sample) -> str:
    """Say a sample in words."""
    said = [f"CPU {newest.cpu:.0f} %", f"memory {format_size(newest.memory)}"]
    disk = "disk" if newest.processes is None else "I/O"
    said += [f"{disk} {format_size(newest.disk_read)}/s read, {format_size(newest.disk_written)}/s written"]
    if newest.processes is not None:
        said.append(number(newest.processes, "process", "processes"))
    if newest.network is not None:
        said.append(f"network {format_size(newest.network)}/s")
    return ", ".join(said)
