"""Progress bars: one place that makes them, so that one switch turns them off."""

from __future__ import annotations

import os
from typing import Any

from tqdm.auto import tqdm


def progress(total: float, what: str, **options: Any) -> Any:
    """Return a bar (tqdm's) that goes when it is done; TQDM_DISABLE=1 turns all of them off, in notebooks too.

    A bar in a notebook is an output, and one that comes only when a machine is slow: tests compare outputs.
    """
    off = os.environ.get("TQDM_DISABLE", "") not in ("", "0")
    return tqdm(total=total, desc=what, leave=False, disable=off, **options)


def say(line: str) -> None:
    """Print a line without disturbing a bar."""
    tqdm.write(line)
