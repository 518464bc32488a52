"""What is known of a network of containers: its plan, who is on it, and what names and numbers follow from that; no guest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from cloudlab.containers import netfilter
from cloudlab.containers.netfilter import Port, parse_port

INTERFACE_NAME = 15  # characters in a name of an interface: IFNAMSIZ is 16, with the NUL


@dataclass(frozen=True)
class Plan:
    """A network: "bridge" is a switch and hides its containers behind NAT, "routed" a route to each, and no NAT."""

    name: str
    subnet: IPv4Network
    mode: str = "bridge"
    isolated: bool = False

    @property
    def bridge(self) -> str:
        """The bridge's name; empty if the network is routed."""
        if self.mode == "routed":
            return ""
        return "cloudlab0" if self.name == "bridge" else f"br-{self.name}"

    @property
    def gateway(self) -> IPv4Address:
        """The guest's own address in the network: the first one."""
        return self.subnet[1]

    def membership(self, verb: str) -> str:
        """Return the commands of nft(8) that "add" it to the rules, or "delete" it."""
        hidden = self.mode == "bridge" or self.isolated
        return netfilter.membership(verb, self.subnet, hidden=hidden, isolated=self.isolated)

    def __str__(self) -> str:
        return f"network {self.name} {self.subnet} {self.mode} {'isolated' if self.isolated else 'open'}"


@dataclass(frozen=True)
class Attachment:
    """A container on a network: its `eth0` has `address` and `mac`; `host_interface` is the veth's other end."""

    name: str
    pid: int
    number: int
    plan: Plan
    ports: tuple[Port, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def address(self) -> IPv4Address:
        """The address that its number in the network gives it."""
        return self.plan.subnet[self.number]

    @property
    def mac(self) -> str:
        """02:42 and the address, as docker has it."""
        return mac_of(self.address)

    @property
    def gateway(self) -> IPv4Address:
        """Where its default route leads."""
        return self.plan.gateway

    @property
    def host_interface(self) -> str:
        """The end of the veth pair that stays in the guest."""
        return host_interface(self.name)

    @property
    def published(self) -> str:
        """The commands of nft(8) that publish its ports."""
        return "".join(netfilter.publication(port, self.name, self.address) for port in self.ports)

    @property
    def withdrawn(self) -> str:
        """The commands of nft(8) that take its ports back."""
        return "".join(netfilter.withdrawal(port, self.name, self.address) for port in self.ports)

    def __str__(self) -> str:
        ports, aliases = ",".join(map(str, self.ports)) or "-", ",".join(self.aliases) or "-"
        return f"container {self.plan.name} {self.name} {self.number} {self.pid} {aliases} {ports}"


@dataclass(frozen=True)
class Seen:
    """What a look into the guest has found: networks, containers, and the `text` of it, to see whether it has changed."""

    plans: dict[str, Plan]
    attachments: list[Attachment]
    text: str

    def at(self, network: str) -> list[Attachment]:
        """Containers on one network, by address."""
        return sorted((each for each in self.attachments if each.plan.name == network), key=lambda each: each.number)


def read(text: str) -> Seen:
    """Read what is in the guest's files."""
    lines = [line for line in text.splitlines() if line.startswith(("network ", "container "))]
    plans, attachments = {}, []
    for _, name, subnet, mode, way in (line.split() for line in lines if line.startswith("network ")):
        plans[name] = Plan(name, IPv4Network(subnet), mode, way == "isolated")
    for _, network, name, number, pid, aliases, ports in (
        line.split() for line in lines if line.startswith("container ")
    ):
        published = tuple(map(parse_port, _listed(ports)))
        attachments.append(Attachment(name, int(pid), int(number), plans[network], published, tuple(_listed(aliases))))
    return Seen(plans, attachments, "\n".join(lines))


def _listed(words: str) -> list[str]:
    return [] if words == "-" else words.split(",")


def replaced_in(claimed: str, seen: Seen) -> Attachment | None:
    """Find in what `claim` printed the container that had the name before, and has ended."""
    plans = "\n".join(map(str, seen.plans.values()))
    lines = [line.removeprefix("was ") for line in claimed.splitlines() if line.startswith("was ")]
    return read(f"{plans}\n{lines[0]}").attachments[0] if lines else None


def routes_in(printed: str) -> dict[IPv4Network, str]:
    """Read what ip(8) -j route prints: who uses which subnet."""
    lines = [line for line in printed.splitlines() if line.startswith("[")]
    routes = json.loads(lines[0]) if lines else []
    return {IPv4Network(each["dst"]): f"{each.get('dev', 'a route')}" for each in routes if each["dst"] != "default"}


def names_of(attachments: Sequence[Attachment]) -> dict[str, IPv4Address]:
    """Return the names and aliases of containers, and whose address each is; who came first keeps a name."""
    return {name: each.address for each in reversed(attachments) for name in (*each.aliases, each.name)}


def mac_of(address: IPv4Address) -> str:
    """Return the hardware address that belongs to an address: 172.20.1.2 -> 02:42:ac:14:01:02."""
    return ":".join(["02:42", *(f"{byte:02x}" for byte in address.packed)])


def host_interface(container: str) -> str:
    """Return the name of a container's veth in the guest: veth-NAME if that fits, else v and the start of its SHA-256."""
    name = f"veth-{container}"
    return name if len(name) <= INTERFACE_NAME else f"v{hashlib.sha256(container.encode()).hexdigest()[:8]}"
