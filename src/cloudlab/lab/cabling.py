"""Cabling: which network card of which machine is linked to what; keeps guests' carriers, addresses and names in step."""

from __future__ import annotations

import contextlib
import ipaddress
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx

from cloudlab.errors import MachineError, UsageError
from cloudlab.machines import Machine, State
from cloudlab.networks import Fabric, Link, Port, Switch, Uplink
from cloudlab.networks.switch import FLOODS_A_SECOND, check_vlans
from cloudlab.networks.topology import parse_subnet
from cloudlab.owner import Owner
from cloudlab.progress import say

HOME_SUBNET = "10.0.0.0/16"  # where a name predicts the address: n2 is 10.0.0.2
_LIVING = (State.RUNNING, State.PAUSED)


@dataclass(frozen=True)
class Card:
    """A network card of a machine: eth0, eth1, …"""

    machine: str
    number: int

    def __str__(self) -> str:
        return f"{self.machine}.eth{self.number}" if self.number else self.machine


End = Card | tuple[Switch, Port]


def _as_fabric_knows(end: End) -> str | tuple[Switch, Port]:
    return str(end) if isinstance(end, Card) else end


@dataclass
class Cable:
    """A link, and what is at its ends: a card of a machine, or a port of a switch."""

    link: Link
    ends: tuple[End, End]

    def cards(self) -> list[Card]:
        """The network cards at its ends."""
        return [end for end in self.ends if isinstance(end, Card)]

    def beyond(self, card: Card) -> End:
        """What is at the other end."""
        return self.ends[1] if self.ends[0] == card else self.ends[0]


class Cabling:
    """The cables of a lab. `machines` are those that it has; `place` gives the path of a file of the lab."""

    def __init__(self, machines: Mapping[str, Machine], place: Callable[[str], Path]) -> None:
        self.fabric = Fabric()
        self.cables: list[Cable] = []
        self.routers: dict[str, tuple[Card, Card]] = {}  # name -> inside, outside
        self.uplinks: dict[str, Uplink] = {}
        self._machines, self._place = machines, place
        self._subnets: dict[str, ipaddress.IPv4Network] = {}
        self._unset: set[str] = set()  # machines that have not been told their addresses since they started
        self._lock = threading.RLock()
        self.notices: list[str] = []
        self.fabric.on_storm, self.fabric.on_error = self._storm, self._error

    # --- switches and links ---

    def add_switch(
        self, name: str, *, spanning_tree: bool = False, subnet: str = HOME_SUBNET, switch_class: type[Switch] = Switch
    ) -> Switch:
        """Add a switch; guests on it have addresses in `subnet`."""
        network = parse_subnet(subnet)
        with self._lock:
            switch = switch_class(name, spanning_tree=spanning_tree)
            switch.changed = lambda: self._switch_changed(switch)
            self._subnets[name] = network
            return self.fabric.add_switch(switch)

    def add_link(self, a: str, b: str, *, vlan: int = 1, trunk: Iterable[int] | None = None, **conditions: Any) -> Link:
        """Link two things; each machine uses its next network card."""
        link, tagged = Link(a, b, self._link_changed).set(**conditions), check_vlans(vlan, trunk)
        with self._lock:
            if a == b or self.find(a, b) is not None:
                raise UsageError(
                    f"{a} and {b} can't be linked{' again' if a != b else ''}.",
                    allowed="one link between two things",
                    example=f'net.link("{a}", "{b}").cut()',
                )
            one, other = self._end(a, b, vlan, tagged), self._end(b, a, vlan, tagged)
            cable = Cable(link, (one, other))
            self.cables.append(cable)
            self.fabric.add_link(link, (_as_fabric_knows(one), _as_fabric_knows(other)))
        for card in cable.cards():
            self._unset.add(card.machine)
            self.follow(card.machine)
        return link

    def _end(self, name: str, other: str, vlan: int, trunk: frozenset[int] | None) -> End:
        switch = self.fabric.switches.get(name)
        if switch is not None:
            return switch, switch.add_port(other, vlan=vlan, trunk=trunk)
        return Card(name, sum(card.machine == name for cable in self.cables for card in cable.cards()))

    def add_uplink(self, name: str, switch: str, owner: Owner, qemu: str) -> Uplink:
        """Start an uplink on a switch; guests on it learn the way."""
        uplink = self.uplinks[name] = Uplink(owner, qemu, name, self._subnets[switch])
        self.fabric.plug(name, uplink.socket)
        self.add_link(name, switch)
        for machine in list(self._machines):
            self._unset.add(machine)
            self.follow(machine)
        return uplink

    def find(self, a: str, b: str) -> Link | None:
        """Return the link between two things, if there is one."""
        return next((c.link for c in self.cables if {c.link.a, c.link.b} == {a, b}), None)

    def remove(self, names: Iterable[str]) -> None:
        """Take out all cables of some machines and switches, and the switches."""
        gone = set(names)
        with self._lock:
            for cable in [c for c in self.cables if {c.link.a, c.link.b} & gone]:
                self.fabric.remove_link(cable.link)
                self.cables.remove(cable)
                self._carry(cable)
            for name in gone:
                self.fabric.remove_switch(name)
                self.routers.pop(name, None)
                if name in self.uplinks:
                    self.fabric.unplug(name)
                    self.uplinks.pop(name).close()

    # --- guests come and go, cables are cut ---

    def follow(self, name: str) -> None:
        """A machine has changed: plug in its cables when it has started, and tell it its addresses."""
        machine = self._machines.get(name)
        mine = [cable for cable in self.cables if any(card.machine == name for card in cable.cards())]
        if machine is None or not mine:
            return
        if machine.state is State.STARTING:
            self._unset.add(name)
        elif machine.state in _LIVING:
            self._join(machine, mine)
        else:
            self._leave(name, mine)

    def _join(self, machine: Machine, cables: list[Cable]) -> None:
        for cable in cables:
            for card in (c for c in cable.cards() if c.machine == machine.name and not self.fabric.is_plugged(str(c))):
                while card.number > sum(device.kind == "nic" for device in machine.devices.values()):
                    machine.plug(nic=True)
                self.fabric.plug(str(card), self._place(f"{card.machine}.net{card.number}"))
                self._carry(cable)
        if machine.name in self._unset and machine.state is State.RUNNING:
            self._unset.discard(machine.name)
            script = self._settings(machine)
            if script:
                machine.succeed(script)

    def _leave(self, name: str, cables: list[Cable]) -> None:
        for cable in cables:
            for card in (card for card in cable.cards() if card.machine == name):
                self.fabric.unplug(str(card))
            self._carry(cable)

    def _carry(self, cable: Cable) -> None:
        """Tell the guests at a cable's ends whether there is a carrier."""
        for card in cable.cards():
            machine = self._machines.get(card.machine)
            if machine is not None and machine.state in _LIVING and self.fabric.is_plugged(str(card)):
                with contextlib.suppress(MachineError):  # it has ended in this very moment: its state will say so
                    machine.set_carrier(card.number, up=self.fabric.has_carrier(str(card)))

    def _link_changed(self, link: Link) -> None:
        cable = next((cable for cable in self.cables if cable.link is link), None)
        if cable is not None:  # else it was taken out with what it was linked to
            self.fabric.carrier_changed(link)
            self._carry(cable)

    def _switch_changed(self, switch: Switch) -> None:
        for cable in self.cables:
            if switch.name in (cable.link.a, cable.link.b):
                self.fabric.carrier_changed(cable.link)
                self._carry(cable)

    def _storm(self, switch: Switch) -> None:
        """Say once of each circle of links that frames go round in it."""
        between = [(c.link.a, c.link.b) for c in self.cables if c.link.up and not c.cards()]
        graph: nx.Graph[str] = nx.Graph(between)
        circle = next((found for found in nx.cycle_basis(graph) if switch.name in found), None)
        if circle is None:
            notice = (
                f"storm: {switch.name} passes on {FLOODS_A_SECOND} frames for everybody a second and drops the rest."
            )
        else:
            ring = " > ".join([*circle, circle[0]])
            notice = f"storm: frames go in circles: {ring}. Cut a link, or use spanning_tree=True."
        self._tell(notice)

    def _error(self, switch: Switch, error: Exception) -> None:
        self._tell(
            f"{switch.name}: {type(switch).__name__}.receive raised {type(error).__name__}: {error}; the frame is lost."
        )

    def _tell(self, notice: str) -> None:
        if notice not in self.notices:
            self.notices.append(notice)
            say(notice)

    # --- addresses ---

    def address(self, card: Card) -> ipaddress.IPv4Interface:
        """Return a card's address: the machine's number in the subnet of the switch it is linked to (else 10.K.0.0/16)."""
        far = next((cable.beyond(card) for cable in self.cables if card in cable.cards()), None)
        network = (
            self._subnets[far[0].name] if isinstance(far, tuple) else ipaddress.IPv4Network(f"10.{card.number}.0.0/16")
        )
        number = self._machines[card.machine].identity.number
        return ipaddress.IPv4Interface(
            f"{network.network_address + number % network.num_addresses}/{network.prefixlen}"
        )

    def _cards(self, name: str) -> list[Card]:
        return [card for cable in self.cables for card in cable.cards() if card.machine == name]

    def _settings(self, machine: Machine) -> str:
        """The commands that give a guest its addresses and routes, where its name alone does not."""
        lines, known = list[str](), set[ipaddress.IPv4Interface]()  # two cards in one subnet: the first has the address
        for card in self._cards(machine.name):
            address, device = self.address(card), f"eth{card.number}"
            if card.number or str(address.network) != HOME_SUBNET:
                lines += [f"ip address flush dev {device}", f"ip link set {device} up"]
                lines += [f"ip address add {address} dev {device}"] if address not in known else []
            known.add(address)
        if machine.name in self.routers:
            outside = f"eth{self.routers[machine.name][1].number}"
            lines += ["sysctl -qw net.ipv4.ip_forward=1", f"nft -f - <<'END'\n{_NAT.format(outside=outside)}\nEND"]
        gateway = self._gateway(machine.name)
        if gateway is not None:
            lines += [f"ip route replace default via {gateway}"]
            lines += [f"echo nameserver {uplink.dns} >/etc/resolv.conf" for uplink in list(self.uplinks.values())[:1]]
        return "\n".join(lines)

    def _switches_of(self, card_of: str) -> set[str]:
        """The switches that something is linked to."""
        far = (cable.beyond(card) for cable in self.cables for card in cable.cards() if card.machine == card_of)
        return {end[0].name for end in far if isinstance(end, tuple)}

    def _gateway(self, name: str) -> ipaddress.IPv4Address | None:
        """The way out for a guest: an uplink on one of its switches, else the router whose inside is there."""
        near = self._switches_of(name)
        for uplink in self.uplinks.values():
            if self._switches_of(uplink.name) & near:
                return uplink.gateway
        for router, (inside, _) in self.routers.items():
            home = next((cable.beyond(inside) for cable in self.cables if inside in cable.cards()), None)
            if router != name and isinstance(home, tuple) and home[0].name in near:
                return self.address(inside).ip
        return None

    def close(self) -> None:
        """End the fabric."""
        self.fabric.close()


# What leaves through the outside gets the router's own address, and answers find their way back (nft(8), NAT statements).
_NAT = """table ip nat {{
  chain postrouting {{ type nat hook postrouting priority srcnat; oifname "{outside}" masquerade; }}
}}"""
