"""What a guest costs here: CPU time and memory of its process, what it reads and writes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cloudlab.units import format_size


@dataclass(frozen=True)
class Stats:
    """`cpu_s`: CPU seconds used since its start; `memory_pss`: its fair share of memory in bytes (pages that N
    processes share count 1/N: proc_pid_smaps(5)); `memory_private`: pages that it alone holds; `memory_guest`: what the guest has;
    `disk_read`, `disk_written`: bytes that it has moved from and to its disks.
    """

    cpu_s: float
    memory_pss: int
    memory_private: int
    memory_guest: int
    disk_read: int = 0
    disk_written: int = 0

    def __str__(self) -> str:
        return (
            f"CPU {self.cpu_s:.2f} s, memory {format_size(self.memory_pss)} (share), {format_size(self.memory_private)} (alone), "
            f"of {format_size(self.memory_guest)} in the guest, "
            f"disks: {format_size(self.disk_read)} read, {format_size(self.disk_written)} written"
        )


def measure(process: psutil.Process, memory_guest: int, disks: Sequence[dict[str, Any]] = ()) -> Stats:
    """Measure one QEMU process now; `disks` is what it says of its own disks (QMP, query-blockstats)."""
    times = process.cpu_times()
    rollup = {
        line.split()[0].rstrip(":"): int(line.split()[1]) * 1024
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
    }
    private = rollup["Private_Clean"] + rollup["Private_Dirty"]
    read, written = (sum(disk["stats"][key] for disk in disks) for key in ("rd_bytes", "wr_bytes"))
    return Stats(times.user + times.system, rollup["Pss"], private, memory_guest, read, written)


@dataclass(frozen=True)
class Picture:
    """A PNG picture; a notebook shows it."""

    png: bytes

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels (PNG, 11.2.2 IHDR)."""
        return int.from_bytes(self.png[16:20], "big"), int.from_bytes(self.png[20:24], "big")

    def save(self, path: Path | str) -> None:
        """Write it to a file."""
        Path(path).write_bytes(self.png)

    def _repr_png_(self) -> str:
        return base64.b64encode(self.png).decode()

    def __repr__(self) -> str:
        return f"<picture, {self.size[0]} x {self.size[1]} pixels>"
