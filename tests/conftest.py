"""What all tests share: one lab for those that only need guests, a lab of their own for those that break it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import psutil
import pytest

from cloudlab import Lab, Machine

_numbers = count(1)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with Lab() as shared:
        yield shared


@pytest.fixture(scope="module")
def n1(lab: Lab) -> Iterator[Machine]:
    """A warm machine for tests that leave it as they found it."""
    machine = lab.machine(f"n{next(_numbers)}")
    yield machine
    machine.close()


@pytest.fixture
def fresh(lab: Lab) -> Iterator[Machine]:
    """A machine for one test, which may break it."""
    machine = lab.machine(f"f{next(_numbers)}")
    yield machine
    machine.close()


@pytest.fixture
def own_lab() -> Iterator[Lab]:
    """A lab for one test, which may break it."""
    with Lab() as lab:
        yield lab


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool], float], None]:
    """Wait for something that no event announces: another process's end, a file's removal."""

    def wait(holds: Callable[[], bool], within_s: float) -> None:
        until = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < until, f"did not come true within {within_s} s"
            os.sched_yield()

    return wait


def qemus_of(directory: Path) -> list[psutil.Process]:
    """Return the QEMU processes that work in a lab's directory."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        if "qemu" in (process.info["name"] or "") and str(directory) in " ".join(process.info["cmdline"] or []):
            found.append(process)
    return found
