"""A learning switch: decides where each frame goes. No sockets here; the fabric carries the frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cloudlab.errors import UsageError
from cloudlab.networks.frames import SHORTEST, STP_GROUP, TAG, TAGGED, mac_text, tagged, untagged, vlan_of
from cloudlab.networks.spanning_tree import SpanningTree

Output = tuple["Port", bytes]
_HIGHEST_VLAN = 4094
_AGEING_S = 300.0  # 802.1D, table 7-5
_ADDRESSES = 8192  # that a switch can remember, as a small one does; the one not heard for longest makes room
FLOODS_A_SECOND = 2000


def check_vlans(vlan: int, trunk: Iterable[int] | None) -> frozenset[int] | None:
    """Return the VLANs of a trunk as a set; raises `UsageError` if one of the numbers is none of a VLAN."""
    if trunk is not None and (isinstance(trunk, str) or not isinstance(trunk, Iterable)):
        raise UsageError(f"{trunk!r} is no list of VLANs.", allowed="numbers of VLANs", example="trunk=[10, 20]")
    numbers = None if trunk is None else tuple(trunk)
    for number in (vlan, *(numbers or ())):
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= _HIGHEST_VLAN:
            raise UsageError(f"{number!r} is no VLAN.", allowed=f"1 to {_HIGHEST_VLAN} (802.1Q)", example="vlan=10")
    return None if numbers is None else frozenset(numbers)


@dataclass(eq=False)
class Port:
    """One socket of a switch. `vlan`: what untagged frames belong to; `trunk`: VLANs that pass tagged (None: an access port)."""

    name: str
    vlan: int = 1
    trunk: frozenset[int] | None = None
    frames_in: int = 0
    frames_out: int = 0
    octets_in: int = 0
    octets_out: int = 0
    dropped: int = 0

    def carries(self, vlan: int) -> bool:
        """Does a VLAN's traffic leave through this port?"""
        return vlan == self.vlan or (self.trunk is not None and vlan in self.trunk)


@dataclass(frozen=True)
class Learned:
    """A line of the MAC table: behind which port an address was last seen, and when."""

    port: Port
    at_s: float


@dataclass
class Meter:
    """A token bucket: so many things a second, and no more (RFC 2697 in its simplest form)."""

    rate: float
    clock: Callable[[], float]
    tokens: float = field(init=False)
    filled_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.tokens, self.filled_s = self.rate, self.clock()

    def take(self) -> bool:
        """Take a token if one is left."""
        now = self.clock()
        self.tokens = min(self.rate, self.tokens + (now - self.filled_s) * self.rate)
        self.filled_s = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Switch:
    """An Ethernet switch (IEEE 802.1D bridge): it learns from each frame's source behind which port that address lives,
    sends a frame out of the one port where its destination was learned, and out of all others when it does not know.

    `on` is its power switch; a VLAN's frames never leave through a port of another VLAN (802.1Q); `mirror` copies what passes
    one port to another; `spanning_tree` lets switches agree on which links to leave out, so that no frame goes in circles.
    """

    def __init__(
        self,
        name: str,
        *,
        spanning_tree: bool = False,
        clock: Callable[[], float] = time.monotonic,
        ageing_s: float = _AGEING_S,
    ) -> None:
        self.name, self.ports, self.on = name, dict[str, Port](), True
        self.ageing_s, self._clock = ageing_s, clock
        self.tree = SpanningTree(name, clock) if spanning_tree else None
        self._shape = self.tree.shape if self.tree is not None else None
        self.changed: Callable[[], None] = lambda: None  # called when it was switched on or off
        self.storms = 0
        self._table: dict[tuple[int, bytes], Learned] = {}
        self._mirrors: dict[Port, Port] = {}
        self._floods = Meter(FLOODS_A_SECOND, clock)

    def add_port(self, name: str, *, vlan: int = 1, trunk: Iterable[int] | None = None) -> Port:
        """Add a port, called after what is plugged into it. `trunk=[10, 20]` passes these VLANs with their tags."""
        port = Port(name, vlan, check_vlans(vlan, trunk))
        self.ports = {**self.ports, name: port}  # a new one: the fabric's thread may be going through the old
        return port

    def remove_port(self, name: str) -> None:
        """Take a port out, and forget who was behind it."""
        port = self.port(name)
        self.ports = {other: p for other, p in self.ports.items() if p is not port}
        self.forget(port)
        self._mirrors = {of: to for of, to in self._mirrors.items() if port not in (of, to)}

    def forget(self, port: Port | None = None) -> None:
        """Forget what was learned behind a port, or all."""
        entries = list(self._table.items())
        self._table = {key: entry for key, entry in entries if port is not None and entry.port is not port}

    def mirror(self, of: str, to: str | None) -> None:
        """Copy all that passes port `of` to port `to` as well, where an analyser listens; None ends it."""
        if to is None:
            self._mirrors.pop(self.port(of), None)
        else:
            self._mirrors[self.port(of)] = self.port(to)

    def port(self, name: str) -> Port:
        """Return the port called `name`; raises `UsageError` with the names there are."""
        if name not in self.ports:
            raise UsageError(
                f"{self.name} has no port {name!r}.",
                allowed=", ".join(self.ports) or "none yet: link something to it",
                example=f'net["{self.name}"].mac_table',
            )
        return self.ports[name]

    @property
    def mac_table(self) -> list[tuple[int, str, str]]:
        """What it has learned: VLAN, address, port; the oldest first. Entries age out after 300 s."""
        alive = self._clock() - self.ageing_s
        return [(vlan, mac_text(mac), e.port.name) for (vlan, mac), e in list(self._table.items()) if e.at_s >= alive]

    def power_off(self) -> None:
        """Switch it off: no link of it has a carrier, and what it had learned is gone."""
        self._power(on=False)

    def power_on(self) -> None:
        """Switch it on again; it learns anew."""
        self._power(on=True)

    def _power(self, *, on: bool) -> None:
        if on != self.on:
            self.on = on
            self.forget()
            if self.tree is not None:
                self.tree = SpanningTree(self.name, self._clock)
            self.changed()

    def receive(self, port: Port, frame: bytes) -> list[Output]:
        """Decide what to do with a frame that came in: the ports that it leaves through, and as what."""
        if not self.on or len(frame) < SHORTEST:
            port.dropped += 1
            return []
        port.frames_in += 1
        port.octets_in += len(frame)
        if frame[:6] == STP_GROUP:
            return self._from_bridge(port, frame)
        vlan = self._vlan(port, frame)
        if vlan is None or (self.tree is not None and not self.tree.forwards(port.name)):
            port.dropped += 1
            return []
        inner = untagged(frame) if frame[12:14] == TAGGED else frame
        self._learn(vlan, frame[6:12], port)
        outputs = [self._leave(to, vlan, inner) for to in self._destinations(port, vlan, frame[:6])]
        return self._with_mirrors(port, inner, outputs) if self._mirrors else outputs

    def _vlan(self, port: Port, frame: bytes) -> int | None:
        """The VLAN a frame belongs to, None if it may not enter here (802.1Q, 8.6.1 and 8.6.2)."""
        if frame[12:14] != TAGGED:
            return port.vlan
        vlan = vlan_of(frame) or port.vlan
        return vlan if port.carries(vlan) and len(frame) >= SHORTEST + TAG else None

    def _learn(self, vlan: int, source: bytes, port: Port) -> None:
        if source[0] & 1:
            return  # a group is nobody's source
        table = self._table
        table.pop((vlan, source), None)  # to the end: the oldest are first
        table[vlan, source] = Learned(port, self._clock())
        if len(table) > _ADDRESSES:
            del table[next(iter(table))]

    def _destinations(self, port: Port, vlan: int, destination: bytes) -> list[Port]:
        known = None if destination[0] & 1 else self._table.get((vlan, destination))
        if known is not None and self._clock() - known.at_s <= self.ageing_s:
            return [known.port] if known.port is not port else []
        if not self._floods.take():
            self.storms += 1
            port.dropped += 1
            return []
        tree = self.tree
        return [
            p
            for p in self.ports.values()
            if p is not port and p.carries(vlan) and (tree is None or tree.forwards(p.name))
        ]

    def _leave(self, port: Port, vlan: int, frame: bytes) -> Output:
        port.frames_out += 1
        port.octets_out += len(frame)
        return port, (tagged(frame, vlan) if port.trunk is not None and vlan != port.vlan else frame)

    def _with_mirrors(self, port: Port, frame: bytes, outputs: list[Output]) -> list[Output]:
        passed = [port, *(to for to, _ in outputs)]
        watchers = {self._mirrors[p] for p in passed if p in self._mirrors}
        seen = {to for to, _ in outputs}
        return outputs + [self._leave(to, to.vlan, frame) for to in watchers if to not in seen and to is not port]

    # --- the spanning tree ---

    def _from_bridge(self, port: Port, frame: bytes) -> list[Output]:
        if self.tree is None:
            return []  # a switch without it neither understands these frames nor passes them on
        return self._said(self.tree.hear(port.name, frame))

    def port_changed(self, port: Port, *, up: bool) -> list[Output]:
        """A cable of this port went in or out; returns what this switch has to say to others about it."""
        if not up:
            self.forget(port)
        if self.tree is None:
            return []
        return self._said(self.tree.port_up(port.name) if up else self.tree.port_down(port.name))

    def tick(self) -> list[Output]:
        """The spanning tree's clock: call it every `spanning_tree.HELLO_S`; returns what this switch has to say."""
        return self._said(self.tree.tick()) if self.tree is not None and self.on else []

    def _said(self, said: list[tuple[str, bytes]]) -> list[Output]:
        if self.tree is not None and self.tree.shape != self._shape:
            self._shape = self.tree.shape
            self.forget()  # addresses may live elsewhere now (802.1D, 8.3.5)
        return [(self.ports[name], frame) for name, frame in said if name in self.ports]

    @property
    def blocked(self) -> list[str]:
        """Ports that the spanning tree keeps closed."""
        return [name for name in self.ports if self.tree is not None and not self.tree.forwards(name)]

    def __repr__(self) -> str:
        return f"<switch {self.name}: {len(self.ports)} ports, {len(self._table)} addresses learned{'' if self.on else ', off'}>"
