"""How fast a guest starts, and what it costs when it does nothing."""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import psutil

from benchmarks.bench import Bench
from benchmarks.measure import BY_HAND, OURS, SANDBOX, Measure, Side, compared, interleave, timed
from cloudlab import Lab
from cloudlab.machines import stats
from cloudlab.paths import cache_directory

_MB = 1e6


def start(bench: Bench) -> list[Measure]:
    """A restored guest and a booted one, to their first answer and to a command's output; peers boot."""
    bench.lab.machine("n1").close()  # the saved state is there
    sides = {
        BY_HAND: Side(lambda: _first_words(bench.by_hand()), bench.few),
        SANDBOX: Side(lambda: _first_words(bench.sandbox()), bench.few),
        "booted": Side(lambda: _ours(bench, cold=True), bench.runs),
        OURS: Side(lambda: _ours(bench, cold=False), bench.runs),
    }
    taken = interleave(sides)
    booted = {OURS if side == "booted" else side: numbers for side, numbers in taken.items() if side != OURS}
    del taken["booted"]
    return [
        compared(taken, "answer", "restored guest: lab.machine(name) returns", "s", 0.06),
        compared(taken, "output", "restored guest: output of the first command", "s", 0.15),
        compared(booted, "answer", "booted guest: lab.machine(name, cold=True) returns", "s", 2.2),
        compared(booted, "output", "booted guest: output of the first command", "s", None),
        compared(booted, "prompt", "booted guest: a shell's prompt on its console", "s", 2.2),
    ]


def _ours(bench: Bench, *, cold: bool) -> dict[str, float]:
    began = time.perf_counter()
    machine = bench.lab.machine("n1", cold=cold)
    try:
        answer = time.perf_counter() - began
        machine.succeed("echo up")
        output = time.perf_counter() - began
        machine.console.login()
        return {"answer": answer, "output": output, "prompt": time.perf_counter() - began}
    finally:
        machine.close()


def _first_words(guest: AbstractContextManager[Any]) -> dict[str, float]:
    """Their first answer is the prompt, or what their start() waits for."""
    began = time.perf_counter()
    with guest as peer:
        if peer is None:
            return {}
        answer = time.perf_counter() - began
        peer.run("echo up")
        return {"answer": answer, "prompt": answer, "output": time.perf_counter() - began}


def state(bench: Bench) -> list[Measure]:
    """The first guest of all: its saved state is built, in a cache that has the image and nothing else."""

    def build() -> dict[str, float]:
        cache = cache_directory()
        with TemporaryDirectory(prefix="benchmark-", dir=cache) as place:
            Path(place, "images").symlink_to(cache / "images")
            with patch.dict(os.environ, CLOUDLAB_CACHE=place), Lab() as lab:
                return {"built": timed(lambda: lab.machine("n1", accelerator=bench.accelerator))}

    return [compared(interleave({OURS: Side(build, bench.few)}), "built", "saved state: built, once", "s", 10)]


def idle(bench: Bench) -> list[Measure]:
    """One guest that has run a command and does nothing now; no other is there meanwhile, to share its pages."""

    def ours() -> dict[str, float]:
        machine = bench.lab.machine("n1")
        try:
            machine.succeed("true")
            return _cost(machine.pid, bench)
        finally:
            machine.close()

    def theirs(guest: AbstractContextManager[Any]) -> dict[str, float]:
        with guest as peer:
            if peer is None:
                return {}
            peer.run("true")
            return _cost(peer.pid, bench)

    sides = {
        BY_HAND: Side(lambda: theirs(bench.by_hand()), bench.few),
        SANDBOX: Side(lambda: theirs(bench.sandbox()), bench.few),
        OURS: Side(ours, bench.few),
    }
    taken = interleave(sides)
    return [
        compared(taken, "memory", "idle guest: memory (PSS)", "MB", 75),
        compared(taken, "cpu", "idle guest: CPU", "%", 0.5),
    ]


def _cost(pid: int, bench: Bench) -> dict[str, float]:
    time.sleep(bench.idle_s)  # what its start has left to do
    before, began = _cpu_s(pid), time.perf_counter()
    time.sleep(bench.idle_s)
    busy = (_cpu_s(pid) - before) / (time.perf_counter() - began)
    return {"memory": stats.measure(psutil.Process(pid), 0).memory_pss / _MB, "cpu": 100 * busy}


def _cpu_s(pid: int) -> float:
    """CPU seconds of all threads, to the nanosecond: proc/PID/stat counts in hundredths of a second."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
