"""A capture: frames as they passed a link, for Wireshark and for a table in the notebook."""

from __future__ import annotations

import html
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from cloudlab.networks.decode import describe

_LIMIT = 200_000  # frames kept: the newest
_ROWS = 200  # of a table in a notebook
_MAGIC, _ETHERNET = 0xA1B23C4D, 1  # pcap with nanoseconds; link type Ethernet (pcap-savefile(5))


@dataclass(frozen=True)
class Captured:
    """One frame: when it passed (seconds since 1970), from which end of the link, its bytes."""

    at_s: float
    sender: str
    frame: bytes


@dataclass(frozen=True)
class Row:
    """One frame in words: seconds since the first, who, to whom, which protocol, what it says."""

    time_s: float
    source: str
    destination: str
    protocol: str
    info: str
    size: int


class Capture:
    """What passes a link, from `link.capture()` until `stop()`; `with link.capture() as c:` stops by itself.

    `table` has a row a frame; `save("file.pcap")` writes what Wireshark and tcpdump read. The newest 200,000 frames are kept.
    """

    def __init__(self, a: str, b: str, stopped: Callable[[Capture], None] = lambda capture: None) -> None:
        self.link, self._ends, self._stopped = f"{a}-{b}", (a, b), stopped
        self._frames: deque[tuple[float, int, bytes]] = deque(maxlen=_LIMIT)

    def add(self, way: int, frame: bytes) -> None:
        """Record a frame that passes now; `way` is 0 from the link's first end, 1 from its second."""
        self._frames.append((time.time(), way, frame))

    def stop(self) -> Capture:
        """End the recording; what was recorded stays."""
        self._stopped(self)
        return self

    def clear(self) -> None:
        """Forget what was recorded so far."""
        self._frames.clear()

    @property
    def frames(self) -> list[Captured]:
        """All recorded frames."""
        return [Captured(at, self._ends[way], frame) for at, way, frame in list(self._frames)]

    @property
    def table(self) -> list[Row]:
        """A row for each frame; addresses and protocols as dpkt decodes them."""
        frames = self.frames
        first = frames[0].at_s if frames else 0.0
        return [Row(round(f.at_s - first, 6), *describe(f.frame), len(f.frame)) for f in frames]

    def only(self, *protocols: str) -> Capture:
        """Return a capture of those frames alone that are of some protocols, as in `capture.only("ARP", "ICMP")`."""
        chosen = Capture(*self._ends)
        recorded = list(self._frames)
        chosen._frames.extend(one for one in recorded if describe(one[2])[2] in protocols)
        return chosen

    def save(self, path: str | Path) -> Path:
        """Write a pcap file; returns its path."""
        with Path(path).open("wb") as file:
            file.write(struct.pack("<IHHiIII", _MAGIC, 2, 4, 0, 0, 262144, _ETHERNET))
            for at, _, frame in list(self._frames):
                seconds = int(at)
                file.write(struct.pack("<IIII", seconds, int((at - seconds) * 1e9), len(frame), len(frame)) + frame)
        return Path(path)

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.table)

    def __enter__(self) -> Capture:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __str__(self) -> str:
        lines = [f"{r.source:>17} > {r.destination:17} {r.protocol:5} {r.info}" for r in self.table[:_ROWS]]
        return "\n".join([*lines, f"… and {len(self) - _ROWS} more"] if len(self) > _ROWS else lines)

    def _repr_html_(self) -> str:
        heads = "".join(
            f"<th scope='col'>{head}</th>" for head in ("time (s)", "from", "to", "protocol", "what", "bytes")
        )
        cells = [
            (f"{r.time_s:.6f}", r.source, r.destination, r.protocol, r.info, str(r.size)) for r in self.table[:_ROWS]
        ]
        rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in cells)
        more = f", the first {_ROWS} of them" if len(self) > _ROWS else ""
        return f"<table><caption>{len(self)} frames on {html.escape(self.link)}{more}</caption><tr>{heads}</tr>{rows}</table>"

    def __repr__(self) -> str:
        return f"<capture of {self.link}: {len(self)} frames>"
