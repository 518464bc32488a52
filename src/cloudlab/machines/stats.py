"""What a guest costs here: CPU time and memory of its process."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import psutil

from cloudlab.units import format_size


@dataclass(frozen=True)
class Stats:
    """`cpu_s`: CPU seconds used since its start; `memory_pss`: its fair share of memory in bytes (pages that N
    processes share count 1/N: proc_pid_smaps(5)); `memory_private`: pages that it alone holds; `memory_guest`: what the guest has.
    """

    cpu_s: float
    memory_pss: int
    memory_private: int
    memory_guest: int

    def __str__(self) -> str:
        return (
            f"CPU {self.cpu_s:.2f} s, memory {format_size(self.memory_pss)} (share), {format_size(self.memory_private)} (alone), "
            f"of {format_size(self.memory_guest)} in the guest"
        )


def measure(process: psutil.Process, memory_guest: int) -> Stats:
    """Measure one QEMU process now."""
    times = process.cpu_times()
    rollup = {
        line.split()[0].rstrip(":"): int(line.split()[1]) * 1024
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
    }
    private = rollup["Private_Clean"] + rollup["Private_Dirty"]
    return Stats(times.user + times.system, rollup["Pss"], private, memory_guest)


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
