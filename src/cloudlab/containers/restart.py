"""Restart policies: whether a container that has ended is started again, and when."""

from __future__ import annotations

from dataclasses import dataclass

from cloudlab.errors import UsageError

_DOUBLINGS = 10  # more make no longer wait, only a number too large for a float
_FIRST_S, _LAST_S, _GOOD_S = (
    0.1,
    60.0,
    10.0,
)  # docker's: 100 ms, doubled up to a minute; ten seconds of life make it good again
POLICIES = ("no", "always", "on-failure", "unless-stopped")


@dataclass(frozen=True)
class Policy:
    """When to start again: "no", "always", "unless-stopped", or "on-failure", that at most `most` times (0: no limit)."""

    name: str = "no"
    most: int = 0

    def delay_s(self, exit_status: int, restarts: int, lived_s: float) -> float | None:
        """Return the seconds to wait before the next start; None if there is to be none. `restarts`: in a row, without success."""
        if self.name == "no" or (self.name == "on-failure" and exit_status == 0):
            return None
        if self.name == "on-failure" and self.most and restarts >= self.most:
            return None
        return _FIRST_S if lived_s >= _GOOD_S else min(_LAST_S, _FIRST_S * 2.0 ** min(restarts, _DOUBLINGS))

    def __str__(self) -> str:
        return f"{self.name}:{self.most}" if self.most else self.name


def parse_policy(text: str) -> Policy:
    """Read a policy as docker writes it: "on-failure:3". Raises `UsageError` for another."""
    name, colon, most = text.partition(":")
    if name not in POLICIES or (colon and not (name == "on-failure" and most.isdigit())):
        raise UsageError(
            f"{text!r} is not a restart policy.",
            allowed=", ".join([*POLICIES, "on-failure:N"]),
            example='restart="on-failure:3"',
        )
    return Policy(name, int(most or 0))
