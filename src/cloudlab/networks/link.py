"""A link: a cable whose length, quality and speed can be changed while it is in use."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any, TypeGuard

from cloudlab.errors import UsageError
from cloudlab.networks.capture import Capture

_QUEUE_S = 0.2  # how long a frame may wait for its turn on a slow link: later ones are dropped (tail drop)
_TIME = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s)\s*")
_RATE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kMG]?)(?:bit(?:/s)?|bps)?\s*")
_FACTOR = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse_time(value: float | str) -> float:
    """Return seconds: 0.1, "100ms" or "2s"; raises `UsageError` for anything else."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    seconds = float(match[1]) * _FACTOR[match[2]] if match else value
    if not _is_number(seconds) or not 0 <= seconds <= 60:
        raise UsageError(f"{value!r} is not a time for a link.", allowed="0 to 60 s", example='link.set(delay="50ms")')
    return float(seconds)


def parse_rate(value: float | str | None) -> float | None:
    """Return bits per second: 2e6, "2M" or "2Mbit/s"; None is as fast as it goes. Raises `UsageError` for anything else."""
    if value is None:
        return None
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    rate = float(match[1]) * _FACTOR[match[2]] if match else value
    if not _is_number(rate) or not 1000 <= rate <= 1e12:
        raise UsageError(
            f"{value!r} is not a rate for a link.",
            allowed="1k and more, in bits per second; None",
            example='link.set(rate="10M")',
        )
    return float(rate)


def _check_loss(value: float) -> float:
    if not _is_number(value) or not 0 <= value <= 1:
        raise UsageError(f"{value!r} is not a share of frames.", allowed="0 to 1", example="link.set(loss=0.3)")
    return float(value)


class Link:
    """A cable between two ends. Both directions have the same conditions, which can be changed at any time:

    `delay` and `jitter` (seconds, or "50ms") each way; `loss` (0 to 1) of the frames; `rate` (bits per second, or "10M").
    `cut()` takes the cable out at both ends, `heal()` puts it back; `frames` and `octets` have passed, `lost` have not.
    """

    def __init__(self, a: str, b: str, changed: Callable[[Link], None] = lambda link: None) -> None:
        self.a, self.b, self.up = a, b, True
        self.delay_s, self.jitter_s, self.loss = 0.0, 0.0, 0.0
        self.rate: float | None = None
        self.frames, self.octets, self.lost = 0, 0, 0
        self.captures: tuple[Capture, ...] = ()
        self.plain = True  # nothing to decide: frames pass as they come
        self._changed, self._random = changed, random.Random()
        self._free_s, self._last_s = [0.0, 0.0], [0.0, 0.0]

    @property
    def name(self) -> str:
        """Its two ends, as in "n1-s1"."""
        return f"{self.a}-{self.b}"

    def set(
        self,
        *,
        delay: float | str | None = None,
        jitter: float | str | None = None,
        loss: float | None = None,
        rate: float | str | None = "as it is",
    ) -> Link:
        """Change what is given and leave the rest; `rate=None` takes the limit away. Returns the link."""
        new_delay = self.delay_s if delay is None else parse_time(delay)
        new_jitter = self.jitter_s if jitter is None else parse_time(jitter)
        new_loss = self.loss if loss is None else _check_loss(loss)
        new_rate = self.rate if rate == "as it is" else parse_rate(rate)
        self.delay_s, self.jitter_s, self.loss, self.rate = new_delay, new_jitter, new_loss, new_rate
        self.plain = not (new_delay or new_jitter or new_loss or new_rate)
        return self

    def cut(self) -> None:
        """Pull the cable out: frames on their way are lost, and both ends see that there is no carrier."""
        if self.up:
            self.up = False
            self._changed(self)

    def heal(self) -> None:
        """Put the cable back."""
        if not self.up:
            self.up = True
            self._changed(self)

    def capture(self) -> Capture:
        """Record all frames that pass from now on, both ways; see `Capture`."""
        capture = Capture(self.a, self.b, self._drop)
        self.captures = (*self.captures, capture)
        return capture

    def _drop(self, capture: Capture) -> None:
        self.captures = tuple(c for c in self.captures if c is not capture)

    def due(self, way: int, size: int, now: float) -> float | None:
        """Tell when a frame that enters now comes out at the other end; None: never. `way` is 0 from a to b, 1 back."""
        if not self.up or (self.loss and self._random.random() < self.loss):
            self.lost += 1
            return None
        out = now
        if self.rate:
            start = max(now, self._free_s[way])
            if start - now > _QUEUE_S:
                self.lost += 1
                return None
            out = self._free_s[way] = start + size * 8 / self.rate
        out += max(0.0, self.delay_s + (self._random.uniform(-self.jitter_s, self.jitter_s) if self.jitter_s else 0.0))
        if self.jitter_s:
            out = max(out, self._last_s[way])  # a cable never changes the order
        self._last_s[way] = out
        return out

    @property
    def facts(self) -> dict[str, Any]:
        """State and conditions, as the graph of the lab has them on its edges."""
        conditions = {"delay_s": self.delay_s, "jitter_s": self.jitter_s, "loss": self.loss, "rate": self.rate}
        return {
            "state": "up" if self.up else "down",
            **{key: value for key, value in conditions.items() if value},
            "frames": self.frames,
            "octets": self.octets,
        }

    def __repr__(self) -> str:
        told = [
            f"delay {self.delay_s * 1e3:g} ms" if self.delay_s else "",
            f"jitter {self.jitter_s * 1e3:g} ms" if self.jitter_s else "",
        ]
        told += [f"loss {self.loss:.0%}" if self.loss else "", f"rate {self.rate / 1e6:g} Mbit/s" if self.rate else ""]
        return f"<link {self.name}: {', '.join(['up' if self.up else 'cut', *filter(None, told)])}>"
