"""The spanning tree: switches agree, by telling their neighbours what they know, on links to leave out (IEEE 802.1D-1998, 8)."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from typing import NamedTuple

from cloudlab.networks.frames import STP_GROUP

HELLO_S = 0.5  # how often the root speaks; 802.1D says 2 s, and a class should not wait so long
_MAX_AGE_S = 2.0  # what was not heard again for so long is no longer true (802.1D: 20 s)
_OLDEST = 20  # nor is what was passed on so often
_COST = 19  # of a link of 100 Mbit/s (802.1D, table 8-5); all links here count the same
_FARTHEST = 1 << 24  # a cost that no way has: 20 links are allowed
_PRIORITY = 0x8000
_LLC = b"\x42\x42\x03"  # the spanning tree's address within the station (802.2)

Said = list[tuple[str, bytes]]


class Claim(NamedTuple):
    """What a switch says: who it thinks is the root, how far that is, who it is itself, from which port. Smaller is better."""

    root: bytes
    cost: int
    bridge: bytes
    port: int
    age: int = 0


class SpanningTree:
    """One switch's part in the spanning tree protocol.

    Each switch first claims to be the root. On hearing a better claim (a smaller bridge number, then a shorter way), it gives up
    and passes that on. In the end one is the root, each other one has one port towards it, and a port on which a neighbour offers a
    better way than this switch is closed. The root speaks again and again; what is not confirmed so is forgotten.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        digits = "".join(letter for letter in name if letter.isdigit())
        number = int(digits) if digits else 0x8000 + (zlib.crc32(name.encode()) & 0x7FFF)
        self.bridge = _PRIORITY.to_bytes(2, "big") + b"\x02\x00\x00\x00" + (number & 0xFFFF).to_bytes(2, "big")
        self._clock = clock
        self._numbers: dict[str, int] = {}
        self._heard: dict[str, Claim] = {}  # the better offers of neighbours
        self._heard_s: dict[str, float] = {}
        self._said: dict[str, Claim] = {}
        self._mine, self._closed, self.root_port = Claim(self.bridge, 0, self.bridge, 0), frozenset[str](), ""

    @property
    def root(self) -> bytes:
        """The bridge number of who is the root now."""
        return self._mine.root

    @property
    def shape(self) -> tuple[frozenset[str], str]:
        """Which ports are closed, and which leads to the root: when this changes, addresses may live elsewhere."""
        return self._closed, self.root_port

    def forwards(self, port: str) -> bool:
        """Is the port open? Ports without a neighbour that speaks always are."""
        return port not in self._closed

    def port_up(self, port: str) -> Said:
        """A cable to a neighbour came in; returns what to say, out of which ports."""
        self._numbers.setdefault(port, max(self._numbers.values(), default=0) + 1)
        return self._decide()

    def port_down(self, port: str) -> Said:
        """A cable went out: what was heard over it is no longer true."""
        self._numbers.pop(port, None)
        self._forget(port)
        return self._decide()

    def tick(self) -> Said:
        """Time has passed: forget what was not confirmed; the root speaks."""
        now = self._clock()
        for port in [p for p, at in self._heard_s.items() if now - at > _MAX_AGE_S]:
            self._forget(port)
        return self._decide(again=not self._heard)

    def hear(self, port: str, frame: bytes) -> Said:
        """Take a neighbour's claim; returns what to say now. A frame that is no claim changes nothing."""
        claim = decode(frame)
        if claim is None or port not in self._numbers or claim.cost > _FARTHEST:
            return []
        before = self._heard.get(port)
        same_speaker = before is not None and before[2:4] == claim[2:4]
        if claim.age >= _OLDEST or (same_speaker and claim[:4] > self._claim(port)[:4]):
            self._forget(port)
        elif same_speaker or claim[:4] < self._claim(port)[:4]:
            self._heard[port], self._heard_s[port] = claim, self._clock()
        said = self._decide(again=port == self.root_port)
        if port not in self._heard and port not in dict(said):
            said.append((port, encode(self._claim(port))))  # the neighbour is mistaken: tell it again
        return said

    def _forget(self, port: str) -> None:
        self._heard.pop(port, None)
        self._heard_s.pop(port, None)
        self._said.pop(port, None)

    def _decide(self, *, again: bool = False) -> Said:
        """Choose the root and the port towards it, close the ports where a neighbour's way is better; tell what is new."""
        self._mine, self.root_port = Claim(self.bridge, 0, self.bridge, 0), ""
        for port, heard in sorted(self._heard.items(), key=lambda item: (*item[1][:4], self._numbers[item[0]])):
            if (heard.root, heard.cost + _COST) < (self._mine.root, self._mine.cost) and heard.bridge != self.bridge:
                self._mine, self.root_port = Claim(heard.root, heard.cost + _COST, self.bridge, 0, heard.age + 1), port
        for port in [p for p, heard in self._heard.items() if self._claim(p)[:4] < heard[:4]]:
            self._forget(port)  # mine is the better offer now: the neighbour will take it, and say no more
        self._closed = frozenset(self._heard.keys() - {self.root_port})
        return [
            (port, self._speech(port))
            for port in self._numbers
            if port not in self._heard and (again or self._is_news(port))
        ]

    def _claim(self, port: str) -> Claim:
        return self._mine._replace(port=self._numbers[port])

    def _is_news(self, port: str) -> bool:
        return self._said.get(port) != self._claim(port)

    def _speech(self, port: str) -> bytes:
        self._said[port] = self._claim(port)
        return encode(self._said[port])


def encode(claim: Claim) -> bytes:
    """Write a configuration message (802.1D-1998, 9.3.1) as a frame; Wireshark reads it as STP."""
    # message age, max age, hello time, forward delay: in 1/256 s; a port here opens without delay
    times = b"".join(int(seconds * 256).to_bytes(2, "big") for seconds in (claim.age, _OLDEST, HELLO_S, 0))
    place = claim.bridge + (0x8000 + claim.port).to_bytes(2, "big")
    body = bytes(5) + claim.root + claim.cost.to_bytes(4, "big") + place + times
    return STP_GROUP + claim.bridge[2:] + (len(_LLC) + len(body)).to_bytes(2, "big") + _LLC + body


def decode(frame: bytes) -> Claim | None:
    """Read a configuration message; None if it is none."""
    if len(frame) < 52 or frame[14:17] != _LLC or frame[17:21] != bytes(4):
        return None
    body = frame[22:52]
    port = int.from_bytes(body[20:22], "big") - 0x8000
    return Claim(
        body[:8], int.from_bytes(body[8:12], "big"), body[12:20], port, int.from_bytes(body[22:24], "big") // 256
    )
