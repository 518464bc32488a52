"""`meters`: what guests use of this computer, or containers and control groups of their guest, over the last seconds."""

from __future__ import annotations

import html
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cloudlab.errors import UsageError
from cloudlab.views import chart
from cloudlab.views.live import Source
from cloudlab.views.readings import Gauge, MeasuredMachine, Reading, Sample, gauge_of, link_octets, read, sample, words
from cloudlab.views.widget import Message, Watching, is_closed, static

if TYPE_CHECKING:
    from cloudlab.containers.cgroups import Cgroup
    from cloudlab.containers.container import Container

CHARTS = (
    chart.Chart("cpu", "CPU, % of one CPU of this computer", chart.PERCENT),
    chart.Chart("memory", "Memory of this computer, bytes", chart.SIZE),
    chart.Chart("disk", "Disk, bytes a second", chart.SPEED),
    chart.Chart("network", "Network, bytes a second", chart.SPEED),
)
GROUP_CHARTS = (
    chart.Chart("cpu", "CPU, % of one CPU of the guest", chart.PERCENT),
    chart.Chart("memory", "Memory of the guest, bytes", chart.SIZE),
    chart.Chart("disk", "I/O, bytes a second", chart.SPEED),
    chart.Chart("processes", "Processes and threads", chart.COUNT),
)


def meters(
    measured: MeasuredMachine | Container | Cgroup | Iterable[MeasuredMachine | Container | Cgroup],
    source: Source | None = None,
    seconds: float = 60,
) -> Meters:
    """Show what machines use of this computer: CPU, memory, disk, and network if `source` (a lab, a network) counts it.

    Or what containers (or control groups) use of their guest: CPU, memory, I/O, processes.
    Measures once a second until it is stopped; `Meters.samples` has the numbers of the last `seconds`.
    """
    several = list(measured) if isinstance(measured, Iterable) else [measured]
    if not several or not all(hasattr(type(one), "stats") for one in several):
        raise UsageError(
            f"{measured!r} can't be measured.",
            allowed="a machine, a container, a control group, or a list of machines, or of containers and groups",
            example="meters([n1, n2])",
        )
    gauges = [gauge_of(one) for one in several]
    if len({gauge.is_group for gauge in gauges}) > 1:
        raise UsageError(
            "Machines and containers have no chart in common: these use their guest, those use this computer.",
            allowed="machines, or containers and control groups",
            example="meters(n1); meters(web)",
        )
    if source is not None and gauges[0].is_group:
        raise UsageError(
            "Links count what machines send, not what containers do.",
            allowed="machines",
            example="meters(n1, source=lab)",
        )
    if seconds < 2:
        raise UsageError(f"{seconds!r} seconds are too few.", allowed="2 or more", example="meters(n1, seconds=60)")
    return Meters(gauges, source, seconds)


class Meters(Watching):
    """Line charts of what machines, containers or control groups use; made by `meters`."""

    _esm, _css = static("parts.js"), static("parts.css")
    _period_s = 1.0

    def __init__(self, gauges: list[Gauge], source: Source | None, seconds: float) -> None:
        self._gauges, self._source, self._seconds = gauges, source, seconds
        self._names = [gauge.name for gauge in gauges]
        of_machines = CHARTS if source is not None else CHARTS[:-1]
        self._charts = GROUP_CHARTS if gauges[0].is_group else of_machines
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
        readings = [read(gauge, self._began_s, counted.get(gauge.name)) for gauge in self._gauges]
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
        return {"html": self._still(), "look": "cl-meters"}

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
        return is_closed(self._source) or all(is_closed(gauge.home) for gauge in self._gauges)

    def __repr__(self) -> str:
        return f"<meters of {', '.join(self._names)}: {', '.join(one.key for one in self._charts)}>"
