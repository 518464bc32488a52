"""The budget: how much memory and how many guests a lab may use, refused before the computer begins to swap."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import psutil

from cloudlab.errors import UsageError
from cloudlab.units import MIB, format_size, parse_size

DEFAULT_GUESTS = 128
_KEEP_FREE = 0.15  # of the memory that is there now: for the notebook, the browser, the system
_TYPICAL_GUEST = 96 * MIB  # what an idle restored guest comes to own, and some room


class Budget:
    """Memory in bytes and guests; what is `used` is measured, not added up from what guests were promised.

    Guests restored from one saved state share most of their memory, so their sizes say little about their cost.
    """

    def __init__(self, memory: int | str | None = None, guests: int = DEFAULT_GUESTS) -> None:
        if guests < 1:
            raise UsageError(f"guests={guests!r} leaves no room for any.", allowed="1 or more", example="Lab(guests=8)")
        self.memory = parse_size(memory) if memory is not None else int(available_memory() * (1 - _KEEP_FREE))
        self.guests = guests
        self._lock = threading.Lock()
        self._pids: dict[str, int] = {}

    def admit(self, name: str, memory: int) -> None:
        """Reserve room for a guest of `memory` bytes; raises `UsageError` with what is used and what helps."""
        with self._lock:
            if len(self._pids) >= self.guests:
                raise UsageError(
                    f"{name} would be guest number {len(self._pids) + 1}; the lab's budget is {self.guests}.",
                    allowed=f"stop one first ({', '.join(sorted(self._pids)[:8])}), or a larger budget",
                    example=f"Lab(guests={self.guests * 2})",
                )
            used, cost = self._used(), min(memory, _TYPICAL_GUEST)
            room = min(self.memory - used, int(available_memory() * 0.95))
            if cost > room:
                raise UsageError(
                    f"{name} needs about {format_size(cost)}; the lab uses {format_size(used)} of its {format_size(self.memory)}, "
                    f"and {format_size(max(room, 0))} are left.",
                    allowed=f"stop a guest first ({', '.join(sorted(self._pids)[:8]) or 'none runs'}), or a larger budget",
                    example=f'Lab(memory="{(self.memory + 2 * cost) // MIB}M")',
                )
            self._pids[name] = 0

    def started(self, name: str, pid: int) -> None:
        """Note the process of an admitted guest, so that its memory can be measured."""
        with self._lock:
            self._pids[name] = pid

    def release(self, name: str) -> None:
        """Give back what a guest held."""
        with self._lock:
            self._pids.pop(name, None)

    @property
    def used(self) -> int:
        """Bytes that the lab's guests hold alone (not shared), measured now."""
        with self._lock:
            return self._used()

    @property
    def per_guest(self) -> int:
        """Bytes that a guest costs now, on the average: its fair share (PSS; a page that N guests share counts 1/N for each)."""
        with self._lock:
            pids = [pid for pid in self._pids.values() if pid]
        return sum(map(proportional_memory, pids)) // max(1, len(pids))

    def _used(self) -> int:
        return sum(private_memory(pid) if pid else _TYPICAL_GUEST for pid in self._pids.values())

    def __repr__(self) -> str:
        each = f", {format_size(self.per_guest)} each" if self._pids else ""
        return f"Budget({format_size(self.used)} of {format_size(self.memory)}, {len(self._pids)} of {self.guests} guests{each})"


def private_memory(pid: int) -> int:
    """Return the anonymous memory of a process in bytes, 0 if it has ended (RssAnon, proc_pid_status(5))."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        return int(psutil.Process(pid).memory_info().rss)
    except (OSError, psutil.Error):
        return 0


def proportional_memory(pid: int) -> int:
    """Return a process's share of memory in bytes, 0 if it has ended (Pss, proc_pid_smaps(5))."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))


def available_memory() -> int:
    """Return the bytes that can be used without swapping: the computer's, or less if this container has a limit."""
    available = int(psutil.virtual_memory().available)
    for limit_file, used_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        if os.path.exists(limit_file) and (text := Path(limit_file).read_text().strip()) != "max":
            available = min(available, max(0, int(text) - int(Path(used_file).read_text())))
    return available
