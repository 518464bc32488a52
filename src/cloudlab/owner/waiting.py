"""Waits that say what they wait for: nothing for two seconds, then a bar that counts to the deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

from cloudlab.progress import progress

_QUIET_S, _SLICE_S = 2.0, 0.25


def wait_showing(what: str, wait: Callable[[float], bool], timeout_s: float) -> bool:
    """Call `wait(seconds)` until it returns True or `timeout_s` have passed; returns what it returned last.

    `wait` blocks for at most the seconds it is given, as `threading.Event.wait` does.
    """
    began = time.monotonic()
    if wait(min(_QUIET_S, timeout_s)):
        return True
    if timeout_s <= _QUIET_S:
        return False
    with progress(round(timeout_s), what, bar_format="{desc}: {n:.0f} of at most {total_fmt} s") as bar:
        while (passed := time.monotonic() - began) < timeout_s:
            bar.n = passed
            bar.refresh()
            if wait(min(_SLICE_S, timeout_s - passed)):
                bar.total = bar.n  # a bar that is full goes; one that is not stays, in red
                return True
    return wait(0)
