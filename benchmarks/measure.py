"""Numbers: ours, and a peer's from the same run, taken in turn, because the computer is faster now and slower then."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

OURS, BY_HAND, SANDBOX = "cloudlab", "by hand", "quick-sandbox"

Sample = Callable[[], dict[str, float]]
Taken = dict[str, dict[str, list[float]]]  # of each side, by the name of the number: one value a run


@dataclass(frozen=True)
class Side:
    """One way to do a thing. `sample` does it once and returns what it took, by name; it is done `runs` times."""

    sample: Sample
    runs: int


def interleave(sides: Mapping[str, Side]) -> Taken:
    """Let all sides sample in turn; one with fewer runs sits rounds out, evenly."""
    taken: Taken = {name: {} for name in sides}
    rounds = max(side.runs for side in sides.values())
    for number in range(rounds):
        for name, side in sides.items():
            if number * side.runs // rounds < (number + 1) * side.runs // rounds:
                for what, value in side.sample().items():
                    taken[name].setdefault(what, []).append(value)
    return taken


def timed(action: Callable[[], object]) -> float:
    """Return how many seconds a call takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def in_a_row(times: int, action: Callable[[], object]) -> float:
    """Return the mean seconds of calls in a row, after one that does not count.

    For milliseconds: by turns with others, call by call, each would find the processor's caches full of the others' things.
    """
    action()
    return timed(lambda: [action() for _ in range(times)]) / times


@dataclass(frozen=True)
class Measure:
    """One line of the results: our values, those of peers by name, and the target that our median has to reach."""

    name: str
    unit: str
    ours: list[float]
    target: float | None = None
    peers: dict[str, list[float]] = field(default_factory=dict)
    more_is_better: bool = False

    @property
    def met(self) -> bool | None:
        """Is the target reached? None where there is none."""
        if self.target is None:
            return None
        median = statistics.median(self.ours)
        return median >= self.target if self.more_is_better else median <= self.target

    def ratio(self, peer: str) -> float:
        """Return how many times better our median is than the peer's."""
        ours, theirs = statistics.median(self.ours), statistics.median(self.peers[peer])
        return ours / theirs if self.more_is_better else theirs / ours

    def record(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        peers = {name: summary(values) | {"ratio": self.ratio(name)} for name, values in self.peers.items()}
        goal = {"target": self.target, "more_is_better": self.more_is_better, "met": self.met}
        return {"name": self.name, "unit": self.unit, **goal, OURS: summary(self.ours), "peers": peers}


def summary(values: list[float]) -> dict[str, Any]:
    """Return median, minimum, maximum and number of the values, and the values."""
    spread = {"median": statistics.median(values), "minimum": min(values), "maximum": max(values)}
    return {**spread, "runs": len(values), "values": values}


def compared(taken: Taken, what: str, name: str, unit: str, target: float | None, **options: Any) -> Measure:
    """Make a measure of one number that several sides have: ours, and everybody else's."""
    factor = 1e3 if unit == "ms" else 1
    values = {side: [factor * value for value in numbers[what]] for side, numbers in taken.items() if what in numbers}
    return Measure(name, unit, values.pop(OURS), target, values, **options)
