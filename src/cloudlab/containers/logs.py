"""A container's log: what it printed, line by line, as Kubernetes' container runtimes write it (CRI, kubelet's logs.go)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

_STAMP = 26  # characters of a time stamp that datetime reads: microseconds


@dataclass(frozen=True)
class Line:
    """A line, or a part of one (`whole` is false: the rest follows, or it ended without a newline)."""

    time: datetime
    stream: str
    text: str
    whole: bool = True


def parse(log: bytes) -> Iterator[Line]:
    """Read a log: TIME STREAM F|P TEXT."""
    for line in log.split(b"\n")[:-1]:  # not splitlines: what is printed may have \r in it
        stamp, stream, kind, text = line.split(b" ", 3)
        yield Line(
            datetime.fromisoformat(stamp[:_STAMP].decode() + "+00:00"),
            stream.decode(),
            text.decode(errors="replace"),
            kind == b"F",
        )


def printed(lines: Iterator[Line], stream: str = "") -> str:
    """Return the text as it was printed, of one stream or of both."""
    return "".join(line.text + ("\n" if line.whole else "") for line in lines if not stream or line.stream == stream)
