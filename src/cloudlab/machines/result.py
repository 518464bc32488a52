"""What a command in a guest came to."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Result:
    """A finished command.

    `exit_status` follows the shell (0 to 255, 128 + N if signal N ended it); `stdout_bytes` and `stderr_bytes` are exact,
    `stdout` and `stderr` the same as text (UTF-8, what is no text replaced); `duration_s` is measured from here.
    """

    command: str
    exit_status: int
    stdout_bytes: bytes = field(repr=False)
    stderr_bytes: bytes = field(repr=False)
    duration_s: float = field(default=0.0, compare=False)

    @property
    def stdout(self) -> str:
        """Standard output as text."""
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """Standard error as text."""
        return self.stderr_bytes.decode(errors="replace")

    @property
    def signal(self) -> signal.Signals | None:
        """The signal that ended the command, if one did and it says so (exit status 129 to 192)."""
        number = self.exit_status - 128
        return signal.Signals(number) if number in signal.valid_signals() else None

    @property
    def ok(self) -> bool:
        """Was the exit status 0?"""
        return self.exit_status == 0
