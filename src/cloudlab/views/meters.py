"""`meters`: what guests use of this computer, over the last seconds."""

from __future__ import annotations

import html
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from cloudlab.errors import MachineError, UsageError
from cloudlab.machines.stats import Stats
from cloudlab.units import format_size
from cloudlab.views import chart
from cloudlab.views.live import Source
from cloudlab.views.widget import Message, Watching, is_closed, static


class Measured(Protocol):
    """What can be measured: a `Machine`."""

    name: str

    @property
    def stats(self) -> Stats:
        """What it uses now; raises `MachineError` if it does not run."""
        ...


@dataclass(frozen=True)
class Reading:
    """What the counters of one machine said at one time. `octets` passed its links, if someone counts them there."""

    machine: str
    at_s: float
    stats: Stats
    octets: int | None = None


@dataclass(frozen=True)
class Sample:
    """What one machine used in the second before `time_s` (seconds since the meters began).

    `cpu`: percent of one CPU of this computer; `memory`: bytes of it, shared pages divided among those who share them
    (PSS); `disk_read`, `disk_written`, `network`: bytes a second, `network` being None where no link counts them.
    """

    machine: str
    time_s: float
    cpu: float
    memory: int
    disk_read: float
    disk_written: float
    network: float | None = None

    @property
    def disk(self) -> float:
        """Bytes a second, read and written."""
        return self.disk_read + self.disk_written


CHARTS = (
    chart.Chart("cpu", "CPU, % of one CPU of this computer", chart.PERCENT),
    chart.Chart("memory", "Memory of this computer, bytes", chart.SIZE),
    chart.Chart("disk", "Disk, bytes a second", chart.SPEED),
    chart.Chart("network", "Network, bytes a second", chart.SPEED),
)


def meters(machines: Measured | Iterable[Measured], source: Source | None = None, seconds: float = 60) -> Meters:
    """Show what one or several machines use: CPU, memory, disk, and network if `source` (a lab, a network) counts it.

    Measures once a second until it is stopped; `Meters.samples` has the numbers of the last `seconds`.
    """
    several = list(machines) if isinstance(machines, Iterable) else [machines]
    if not several or not all(hasattr(type(machine), "stats") for machine in several):
        raise UsageError(
            f"{machines!r} can't be measured.",
            allowed="a machine, or a list of machines",
            example="meters([n1, n2])",
        )
    if seconds < 2:
        raise UsageError(f"{seconds!r} seconds are too few.", allowed="2 or more", example="meters(n1, seconds=60)")
    return Meters(several, source, seconds)


class Meters(Watching):
    """Line charts of what machines use; made by `meters`."""

    _esm, _css = static("meters.js"), static("meters.css")
    _period_s = 1.0

    def __init__(self, machines: list[Measured], source: Source | None, seconds: float) -> None:
        self._machines, self._source, self._seconds = machines, source, seconds
        self._names = [machine.name for machine in machines]
        self._charts = CHARTS if source is not None else CHARTS[:-1]
        self._samples: list[Sample] = []
        self._began_s = time.monotonic()
        self._now_s = 0.0
        self._last = {reading.machine: reading for reading in self._look()}
        self._shown = self._parts()
        super().__init__()

    @property
    def samples(self) -> list[Sample]:
        """The numbers of the last `seconds`, the oldest first."""
        with self._turn:
            return list(self._samples)

    def _look(self) -> list[Reading]:
        counted = link_octets(self._source) if self._source is not None else {}
        readings = [read(machine, self._began_s, counted.get(machine.name)) for machine in self._machines]
        return [reading for reading in readings if reading is not None]

    def _take(self, seen: list[Reading]) -> Message:
        self._now_s = time.monotonic() - self._began_s
        for reading in seen:
            if before := self._last.get(reading.machine):
                self._samples.append(sample(before, reading))
        self._last = {reading.machine: reading for reading in seen}
        self._samples = [old for old in self._samples if self._now_s - old.time_s <= self._seconds]
        shown, before_shown = self._parts(), self._shown
        self._shown = shown
        changed = {key: text for key, text in shown.items() if text != before_shown.get(key)}
        return {"parts": changed} if changed else {}

    def _parts(self) -> dict[str, str]:
        """Return all that may change in the picture: axes, lines, and the words for the newest values."""
        shown: dict[str, str] = {}
        for one in self._charts:
            lines = {name: self._line(name, one.key) for name in self._names}
            shown |= chart.parts(one, lines, self._seconds)
        return shown | {f"words {name}": self._words(name) for name in self._names}

    def _line(self, name: str, key: str) -> list[tuple[float, float]]:
        mine = [one for one in self._samples if one.machine == name and getattr(one, key) is not None]
        return [(self._now_s - one.time_s, getattr(one, key)) for one in mine]

    def _words(self, name: str) -> str:
        if name not in self._last:
            return "does not run"
        mine = [one for one in self._samples if one.machine == name]
        return words(mine[-1]) if mine else "measuring …"

    def _present(self) -> Message:
        return {"html": self._still()}

    def _still(self) -> str:
        panels = "".join(
            f'<figure style="margin:0"><figcaption>{html.escape(one.title)}</figcaption>'
            f"{chart.draw(one, self._shown, self._names, self._seconds)}</figure>"
            for one in self._charts
        )
        legend = "".join(
            f"<li>{chart.swatch(number)} <b>{html.escape(name)}</b>:"
            f' <span data-part="words {html.escape(name)}">{html.escape(self._shown[f"words {name}"])}</span></li>'
            for number, name in enumerate(self._names)
        )
        grid = "display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:10px 18px"
        return (
            f'<div class="cl-panels" style="{grid}">{panels}</div><ul style="list-style:none;padding:0">{legend}</ul>'
        )

    def _is_over(self) -> bool:
        return is_closed(self._source) or all(is_closed(machine) for machine in self._machines)

    def __repr__(self) -> str:
        return f"<meters of {', '.join(self._names)}: {', '.join(one.key for one in self._charts)}>"


def read(machine: Measured, began_s: float, octets: int | None) -> Reading | None:
    """Read the counters of a machine; None if it does not run."""
    try:
        return Reading(machine.name, time.monotonic() - began_s, machine.stats, octets)
    except MachineError:
        return None  # it has ended: the picture says so, and goes on when it is started again


def sample(before: Reading, after: Reading) -> Sample:
    """Return what was used between two readings. A counter that began anew (the machine was started again) counts as no use."""
    elapsed_s = max(after.at_s - before.at_s, 1e-9)

    def rate(old: float, new: float) -> float:
        return max(new - old, 0) / elapsed_s

    counted = before.octets is not None and after.octets is not None
    return Sample(
        machine=after.machine,
        time_s=after.at_s,
        cpu=100 * rate(before.stats.cpu_s, after.stats.cpu_s),
        memory=after.stats.memory_pss,
        disk_read=rate(before.stats.disk_read, after.stats.disk_read),
        disk_written=rate(before.stats.disk_written, after.stats.disk_written),
        network=rate(before.octets or 0, after.octets or 0) if counted else None,
    )


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
    said += [f"disk {format_size(newest.disk_read)}/s read, {format_size(newest.disk_written)}/s written"]
    if newest.network is not None:
        said.append(f"network {format_size(newest.network)}/s")
    return ", ".join(said)
