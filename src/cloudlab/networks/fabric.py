"""The fabric: one thread that carries all frames of a lab between guests' network cards, links and switches.

QEMU offers each network card as a Unix socket (`-netdev stream`): a frame is its length in four bytes, then the frame.
"""

from __future__ import annotations

import contextlib
import heapq
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from pathlib import Path

from cloudlab.errors import CloudlabError
from cloudlab.networks.link import Link
from cloudlab.networks.spanning_tree import HELLO_S
from cloudlab.networks.switch import Output, Port, Switch

_LONGEST = 4096 + 65536  # QEMU's own limit of a frame (NET_BUFSIZE): more is no frame, and the line is out of step
_BACKLOG = 1 << 20  # bytes that wait for a guest that does not take them: a paused guest must not hold up others
_READ = 1 << 18
_HOPS = 256  # switches that a frame may pass: in a circle, one with a wrong entry in each table would never arrive
_BATCH = 1024  # frames between two looks at the sockets
_ON_THE_WAY = 20_000  # frames in a lab at one time; more are lost, or a long cable would fill the memory


class Plug:
    """The plug in a guest's network card: a socket to its QEMU. `dropped` counts frames that the guest did not take in time."""

    def __init__(self, name: str, line: socket.socket) -> None:
        self.name, self.line, self.dropped = name, line, 0
        self.rest = b""
        self.out: list[bytes] = []
        self.backlog = bytearray()


End = tuple[Switch, Port] | str  # a switch's port, or the name of a guest's network card
Work = tuple[Link, int, bytes, int]  # onto which link, which way, the frame, how many switches it has passed


class Fabric:
    """Switches, links and plugs of one lab, and the thread that moves frames between them; methods may be called at any time."""

    def __init__(self) -> None:
        self.switches: dict[str, Switch] = {}
        self.links: list[Link] = []
        self._ends: dict[Link, tuple[End, End]] = {}
        self._link_of_card: dict[str, tuple[Link, int]] = {}
        self._link_of_port: dict[Port, tuple[Link, int]] = {}
        self._plugs: dict[str, Plug] = {}
        self._by_fd: dict[int, Plug] = {}
        self._work: deque[Work] = deque()
        self._later: list[tuple[float, int, Work]] = []
        self._numbers, self._lock, self._closed = count(), threading.RLock(), False
        self._poll, (self._ear, self._bell) = select.poll(), socket.socketpair()
        self._bell.setblocking(False)
        self._poll.register(self._ear, select.POLLIN)
        self._thread: threading.Thread | None = None
        self._next_hello = 0.0
        self._storms: dict[Switch, int] = {}
        # called when a switch's `receive` has raised, and when a switch had to drop floods
        self.on_error: Callable[[Switch, Exception], None] = lambda switch, error: None
        self.on_storm: Callable[[Switch], None] = lambda switch: None

    # --- what there is ---

    def add_switch(self, switch: Switch) -> Switch:
        """Put a switch in."""
        with self._lock:
            self.switches[switch.name] = switch
            self._start()
        return switch

    def remove_switch(self, name: str) -> None:
        """Take a switch out, if it is there; its links go before."""
        with self._lock:
            self.switches.pop(name, None)

    def add_link(self, link: Link, ends: tuple[End, End]) -> None:
        """Put a cable in, between switches' ports and guests' network cards."""
        with self._lock:
            self.links.append(link)
            self._ends[link] = ends
            for way, end in enumerate(ends):
                if isinstance(end, str):
                    self._link_of_card[end] = (link, way)
                else:
                    self._link_of_port[end[1]] = (link, way)
            self._start()
        self.carrier_changed(link)

    def remove_link(self, link: Link) -> None:
        """Take a cable away."""
        with self._lock:
            link.up = False
            self.carrier_changed(link)  # from here on nothing arrives by it, even if it is healed
            self.links.remove(link)
            for end in self._ends.pop(link):
                if isinstance(end, str):
                    del self._link_of_card[end]
                else:
                    del self._link_of_port[end[1]]
                    end[0].remove_port(end[1].name)

    def carrier_changed(self, link: Link) -> None:
        """A cable went in or out: its switches learn of it at once."""
        with self._lock:
            ends = self._ends.get(link, ())  # a link that was taken away has none
            if not link.up:
                self._lose(link)
            up = link.up and all(isinstance(end, str) or end[0].on for end in ends)
            between_switches = not any(isinstance(end, str) for end in ends)
            for end in ends:
                if not isinstance(end, str) and (between_switches or not up):
                    self._send_all(end[0].port_changed(end[1], up=up))
            self._ring()

    def _lose(self, link: Link) -> None:
        """What is in a cable when it is pulled out does not arrive."""
        on_the_way = len(self._work) + len(self._later)
        self._work = deque(work for work in self._work if work[0] is not link)
        self._later = [entry for entry in self._later if entry[2][0] is not link]
        heapq.heapify(self._later)
        link.lost += on_the_way - len(self._work) - len(self._later)

    def has_carrier(self, card: str) -> bool:
        """Is a working cable in this network card, with something switched on at its other end?"""
        with self._lock:
            link, way = self._link_of_card.get(card, (None, 0))
            if link is None or not link.up:
                return False
            other = self._ends[link][1 - way]
            return other in self._plugs if isinstance(other, str) else other[0].on

    # --- guests come and go ---

    def plug(self, card: str, path: Path) -> None:
        """Connect to a guest's network card at its socket; raises `CloudlabError` if nobody listens there."""
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(str(path))
        except OSError as error:
            line.close()
            raise CloudlabError(f"{card}: its network card can't be reached at {path}: {error.strerror}") from error
        line.setblocking(False)
        plug = Plug(card, line)
        with self._lock:
            self.unplug(card)
            self._plugs[card] = self._by_fd[line.fileno()] = plug
            self._poll.register(line, select.POLLIN)
            self._start()
            self._ring()

    def unplug(self, card: str) -> None:
        """Let go of a guest's network card, if it is still there."""
        with self._lock:
            if card in self._plugs:
                self._hang_up(self._plugs[card])
                self._ring()  # a socket that is closed while the thread waits for it is not hung up before that ends

    def is_plugged(self, card: str) -> bool:
        """Is there a guest at the other end of this plug?"""
        return card in self._plugs

    def close(self) -> None:
        """End the thread and hang up everywhere."""
        with self._lock:
            self._closed = True
            for plug in list(self._plugs.values()):
                self._hang_up(plug)
            self._ring()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5)
        self._ear.close()
        self._bell.close()

    # --- the thread ---

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="fabric", daemon=True)
            self._thread.start()

    def _ring(self) -> None:
        with contextlib.suppress(OSError):  # it has rung already, or the fabric is closed
            self._bell.send(b".")

    def _run(self) -> None:
        patience_ms: float | None = 0.0
        while not self._closed:
            ready = self._poll.poll(patience_ms)
            with self._lock:
                for number, events in ready:
                    self._look_at(number, events)
                self._hello()
                self._take_due()
                self._carry()
                self._flush()
                patience_ms = self._patience_ms()

    def _patience_ms(self) -> float | None:
        if self._work:
            return 0
        now = time.monotonic()
        waits = [self._later[0][0] - now] if self._later else []
        if any(switch.tree or self._is_stormy(switch) for switch in self.switches.values()):
            waits.append(self._next_hello - now)
        return max(0.0, min(waits) * 1000) if waits else None

    def _look_at(self, number: int, events: int) -> None:
        if number == self._ear.fileno():
            self._ear.recv(4096)
            return
        plug = self._by_fd.get(number)
        if plug is not None and events & (select.POLLIN | select.POLLHUP | select.POLLERR):
            self._read(plug)
        if plug is not None and events & select.POLLOUT and plug.name in self._plugs:
            self._push(plug)

    def _read(self, plug: Plug) -> None:
        try:
            data = plug.line.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hang_up(plug)
            return
        link, way = self._link_of_card.get(plug.name, (None, 0))
        data, at = plug.rest + data, 0
        while len(data) - at >= 4:
            size = int.from_bytes(data[at : at + 4], "big")
            if size > _LONGEST:
                self._hang_up(plug)
                return
            if len(data) - at < 4 + size:
                break
            if link is not None:
                self._enter(link, way, data[at + 4 : at + 4 + size])
            at += 4 + size
        plug.rest = data[at:]

    def _enter(self, link: Link, way: int, frame: bytes) -> None:
        if len(self._work) + len(self._later) < _ON_THE_WAY:
            self._work.append((link, way, frame, 0))
        else:
            link.lost += 1

    def _hello(self) -> None:
        if time.monotonic() < self._next_hello:
            return
        self._next_hello = time.monotonic() + HELLO_S
        for switch in list(self.switches.values()):
            self._send_all(switch.tick())
            if self._is_stormy(switch):
                self._storms[switch] = switch.storms
                self.on_storm(switch)

    def _is_stormy(self, switch: Switch) -> bool:
        """Has it dropped floods that nobody was told of?"""
        return switch.storms > self._storms.get(switch, 0)

    def _take_due(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._arrive(*heapq.heappop(self._later)[2])

    def _carry(self) -> None:
        """Move frames one step at a time: onto a link, out of it, through a switch, onto the next."""
        now, work = time.monotonic(), self._work
        for _ in range(_BATCH):
            if not work:
                return
            link, way, frame, _ = item = work.popleft()
            if link.plain and link.up:
                self._arrive(*item)
            elif (due := link.due(way, len(frame), now)) is not None:
                if due <= now:
                    self._arrive(*item)
                else:
                    heapq.heappush(self._later, (due, next(self._numbers), item))

    def _arrive(self, link: Link, way: int, frame: bytes, hops: int) -> None:
        """A frame comes out of a link."""
        if not link.up:
            link.lost += 1
            return
        link.frames += 1
        link.octets += len(frame)
        for capture in link.captures:
            capture.add(way, frame)
        end = self._ends[link][1 - way]
        if isinstance(end, str):
            plug = self._plugs.get(end)
            if plug is not None:
                plug.out.append(frame)
            return
        if hops > _HOPS and not frame[0] & 1:  # floods have a meter; this one is known everywhere, and found nowhere
            end[0].storms += 1
            return
        for port, out in self._through(end[0], end[1], frame):
            self._out_of(port, out, hops + 1)

    def _through(self, switch: Switch, port: Port, frame: bytes) -> list[Output]:
        """A switch may be of a learner's own making: what goes wrong in it is told, and costs this frame only."""
        try:
            return [(to, bytes(out)) for to, out in switch.receive(port, frame)]
        except Exception as error:
            self.on_error(switch, error)
            return []

    def _send_all(self, outputs: list[Output]) -> None:
        for port, frame in outputs:
            self._out_of(port, frame)

    def _out_of(self, port: Port, frame: bytes, hops: int = 0) -> None:
        link, way = self._link_of_port.get(port, (None, 0))
        if link is not None:
            self._work.append((link, way, frame, hops))

    def _flush(self) -> None:
        for plug in list(self._plugs.values()):
            if plug.out:
                if len(plug.backlog) > _BACKLOG:
                    plug.dropped += len(plug.out)
                else:
                    plug.backlog += b"".join(
                        part for frame in plug.out for part in (len(frame).to_bytes(4, "big"), frame)
                    )
                plug.out.clear()
                self._push(plug)

    def _push(self, plug: Plug) -> None:
        try:
            while plug.backlog:
                sent = plug.line.send(plug.backlog)
                del plug.backlog[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._hang_up(plug)
            return
        self._poll.modify(plug.line, select.POLLIN | (select.POLLOUT if plug.backlog else 0))

    def _hang_up(self, plug: Plug) -> None:
        self._poll.unregister(plug.line)
        del self._by_fd[plug.line.fileno()]
        if self._plugs.get(plug.name) is plug:
            del self._plugs[plug.name]
        plug.line.close()
