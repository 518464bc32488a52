"""Networks of containers in one guest: a veth pair each, a bridge between them, NAT at the edge.

What is known of a network lies in the guest, in files that cat(1) shows, so all who ask see the same:
/run/cloudlab/networks/NAME/  network: its plan    containers/WHO: one line each    addresses/2: who has the second address
                              hosts, resolv.conf: what containers have in /etc
Each change is one shell script: made under a lock (flock(1)), or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from cloudlab.containers import netfilter
from cloudlab.containers.calls import Place
from cloudlab.containers.netfilter import (
    ANY_ADDRESS,
    FACTS,
    PROTOCOLS,
    Hop,
    Packet,
    Port,
    Way,
    check_port,
    parse_port,
)
from cloudlab.containers.network_checks import (
    check_container,
    check_free,
    check_network,
    check_same,
    check_subnet,
    choose_subnet,
    port_of,
)
from cloudlab.containers.network_plan import (
    INTERFACE_NAME,
    Attachment,
    Plan,
    Seen,
    host_interface,
    mac_of,
    names_of,
    read,
    replaced_in,
    routes_in,
)
from cloudlab.containers.network_records import Records
from cloudlab.containers.network_scripts import (
    DIRECTORY,
    attaching,
    batch_for,
    batch_for_network,
    changing,
    claim,
    clearing,
    creation,
    detaching,
    listening,
    removal,
)
from cloudlab.errors import MachineError, UsageError

__all__ = [
    "ANY_ADDRESS",
    "DIRECTORY",
    "FACTS",
    "INTERFACE_NAME",
    "PROTOCOLS",
    "Attachment",
    "Hop",
    "Network",
    "Packet",
    "Plan",
    "Port",
    "Seen",
    "Way",
    "attaching",
    "batch_for",
    "batch_for_network",
    "changing",
    "check_container",
    "check_free",
    "check_network",
    "check_port",
    "check_subnet",
    "choose_subnet",
    "claim",
    "creation",
    "detaching",
    "host_interface",
    "mac_of",
    "parse_port",
    "read",
    "removal",
]


class Network:
    """A network in a guest: containers on it reach each other by address and by name, and the world by the guest's address.

    `mode="routed"` has no bridge and no NAT: who has a route through the guest sees containers' own addresses.
    An `isolated` network has no way out. A network that exists is found by its name. Raises `UsageError` for what can't be.
    """

    def __init__(
        self,
        place: Place,
        name: str = "bridge",
        subnet: str | None = None,
        mode: str | None = None,
        isolated: bool | None = None,
    ) -> None:
        self._place, self.name = place, check_network(name)
        self._records = Records(place, name)
        if mode not in (None, "bridge", "routed"):
            example = 'Network(n1, "net", mode="routed")'
            raise UsageError(f"{mode!r} is not a mode.", allowed='"bridge" or "routed"', example=example)
        self.plan = self._found_or_made(subnet, mode, isolated)

    def __repr__(self) -> str:
        return f"<{self.plan} on {self._place.name}>"

    @property
    def subnet(self) -> IPv4Network:
        """All its addresses."""
        return self.plan.subnet

    @property
    def gateway(self) -> IPv4Address:
        """The guest's own address in it."""
        return self.plan.gateway

    @property
    def hosts(self) -> str:
        """Path in the guest of the file that containers have as /etc/hosts: it is changed in place, never replaced."""
        return f"{DIRECTORY}/{self.name}/hosts"

    @property
    def resolv_conf(self) -> str:
        """Path in the guest of the file that containers have as /etc/resolv.conf."""
        return f"{DIRECTORY}/{self.name}/resolv.conf"

    def containers(self) -> list[Attachment]:
        """Return who is on it, by address."""
        return self._records.look()[0].at(self.name)

    def names(self) -> dict[str, IPv4Address]:
        """Return the names and aliases that containers find each other by."""
        return names_of(self.containers())

    def attach(self, name: str, pid: int, ports: Sequence[str | Port] = (), aliases: Sequence[str] = ()) -> Attachment:
        """Put the network namespace of process `pid` on the network, as its eth0; two round trips.

        A container that has ended is replaced, and the new one has its address. Raises `UsageError` if that can't be.
        """
        checked = self._publishable(ports)
        if type(pid) is not int or pid < 1:
            raise UsageError(
                f"{pid!r} is not a process.", allowed="a number from 1", example='network.attach("web", 312)'
            )
        wanted = Attachment(check_container(name), pid, 0, self.plan, checked, tuple(map(check_container, aliases)))
        claimed = self._records.run(claim(wanted) + listening(checked), wanted)
        seen = read(claimed)
        one, before = self._one(seen, name), replaced_in(claimed, seen)
        try:
            check_free(one, [each for each in seen.attachments if each.name != name], claimed)
        except UsageError:
            self._records.run((clearing(before) if before else "") + detaching(one, published=False), one)
            raise
        self._make(one, before, [each for each in seen.attachments if each.pid == pid and each.name != name])
        return one

    def _make(self, one: Attachment, before: Attachment | None, twins: Sequence[Attachment]) -> None:
        try:
            self._records.run((clearing(before) if before else "") + attaching(one), one)
        except MachineError as error:
            if not twins:
                raise
            problem = f"Process {one.pid} is on network {twins[0].plan.name} already, as {twins[0].name}."
            raise UsageError(
                problem, allowed="one network a process", example=f'network.detach("{twins[0].name}")'
            ) from error

    def detach(self, name: str) -> None:
        """Take a container off the network, with its ports and its name."""
        self._records.change(lambda seen, _: detaching(self._one(seen, name)))

    def publish(
        self, host_port: int, container: str, container_port: int, protocol: str = "tcp", host_address: str = "0.0.0.0"
    ) -> Port:
        """Let connections to a port of the guest go to a container's. Raises `UsageError` if something has that port."""
        (port,) = self._publishable([port_of(host_port, container_port, protocol, host_address)])

        def decide(seen: Seen, printed: str) -> str:
            one = self._one(seen, container)
            check_free(replace(one, ports=(port,)), seen.attachments, printed)
            more = replace(one, ports=(*one.ports, port))
            return changing(more, seen, netfilter.publication(port, one.name, one.address))

        self._records.change(decide, listening([port]))
        return port

    def unpublish(self, host_port: int, protocol: str = "tcp", host_address: str = "0.0.0.0") -> None:
        """Take a published port back. What is connected through it stays connected."""
        wanted = port_of(host_port, 1, protocol, host_address)

        def decide(seen: Seen, _: str) -> str:
            for one, port in ((each, port) for each in seen.at(self.name) for port in each.ports):
                if replace(port, container_port=1) == wanted:
                    fewer = replace(one, ports=tuple(each for each in one.ports if each != port))
                    return changing(fewer, seen, netfilter.withdrawal(port, one.name, one.address))
            published = ", ".join(str(port) for one in seen.at(self.name) for port in one.ports)
            problem = f"{host_address}:{host_port}/{protocol} is not published on network {self.name}."
            raise UsageError(problem, allowed=published or "none is", example="network.unpublish(8080)")

        self._records.change(decide)

    def remove(self) -> None:
        """Leave nothing of it: no bridge, veth, rule or file. A network that is not there is removed already."""

        def decide(seen: Seen, _: str) -> str:
            here = [each for each in seen.attachments if each.plan.name == self.name]
            return removal(seen.plans[self.name], here) if self.name in seen.plans else ""

        self._records.change(decide)

    def trace(self, container: str, target: str, port: int = 0, protocol: str = "icmp") -> list[Hop]:
        """Return the way of a first packet from a container to an address (or a container's name), as all is set up now."""
        seen, _ = self._records.look()
        one, named = self._one(seen, container), names_of(seen.at(self.name))
        if protocol not in PROTOCOLS:
            raise UsageError(f"{protocol!r} can't be traced.", allowed=", ".join(PROTOCOLS), example='protocol="tcp"')
        try:
            address = named.get(target) or IPv4Address(target)
        except ValueError as error:
            problem = f"{target!r} is no address, and no container on network {self.name}."
            raise UsageError(problem, allowed=", ".join(named), example='network.trace("web", "10.0.0.2")') from error
        printed = self._records.run(FACTS.format(pid=one.pid, table=netfilter.TABLE), one)
        facts = [json.loads(line) for line in printed.splitlines() if line.strip()]
        ends = {each.address: (each.name, each.host_interface, each.mac) for each in seen.attachments}
        return list(Way(facts, ends, self._place.name).of(Packet(one.address, address, protocol, port)))

    # --- how it is done ---

    def _found_or_made(self, subnet: str | None, mode: str | None, isolated: bool | None) -> Plan:
        plans: list[Plan] = []

        def decide(seen: Seen, printed: str) -> str:
            if self.name in seen.plans:
                plans.append(check_same(seen.plans[self.name], subnet, mode, isolated))
                return ""
            used = {plan.subnet: f"network {plan.name}" for plan in seen.plans.values()} | routes_in(printed)
            chosen = check_subnet(subnet, used) if subnet else choose_subnet(_number_of(self._place), list(used))
            plans.append(Plan(self.name, chosen, mode or "bridge", bool(isolated)))
            return creation(plans[-1], seen)

        self._records.change(decide, "ip -j route\n")
        return plans[-1]

    def _one(self, seen: Seen, name: str) -> Attachment:
        here = {each.name: each for each in seen.at(self.name)}
        if name not in here:
            problem = f"{name!r} is not on network {self.name}."
            raise UsageError(
                problem, allowed=", ".join(here) or "no container is", example='network.attach("web", pid)'
            )
        return here[name]

    def _publishable(self, ports: Sequence[str | Port]) -> tuple[Port, ...]:
        if ports and self.plan.isolated:
            allowed, example = "a network that is not isolated", 'Network(n1, "front")'
            raise UsageError(
                f"Network {self.name} is isolated: no port can be published.", allowed=allowed, example=example
            )
        return tuple(map(parse_port, ports))


def _number_of(place: Place) -> int:
    """The guest's number, as in its name; 0 for a place without."""
    return int(getattr(getattr(place, "identity", None), "number", 0))
