"""The firewall of containers' networks: one nftables table a guest, which `nft list ruleset` prints with its reasons.

A network is an element of sets, a published port an element of a map: the rules themselves never change.
Sources: nft(8); the hooks and their priorities: netfilter's packet flow, nft(8) "STANDARD PRIORITY NAMES".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from cloudlab.containers.packet_way import FACTS, PROTOCOLS, Hop, Packet, Rules, Step, Way, route_of
from cloudlab.errors import UsageError

__all__ = [
    "ANY_ADDRESS",
    "FACTS",
    "PROTOCOLS",
    "TABLE",
    "Hop",
    "Packet",
    "Port",
    "Rules",
    "Step",
    "Way",
    "check_port",
    "membership",
    "parse_port",
    "publication",
    "route_of",
    "ruleset",
    "withdrawal",
]

TABLE = "cloudlab"
ANY_ADDRESS = IPv4Address("0.0.0.0")
_PORT = re.compile(r"(?:(?P<address>[\d.]+):)?(?P<host>\d+):(?P<container>\d+)(?:/(?P<protocol>\w+))?")
_RULES = """\
table ip cloudlab {
  comment "networks of containers"
  set networks { type ipv4_addr; flags interval; comment "all of them"; }
  set hidden { type ipv4_addr; flags interval; comment "not seen from outside: they go out under this guest's address"; }
  set isolated { type ipv4_addr; flags interval; comment "no way out"; }
  set same_network { type ipv4_addr . ipv4_addr; flags interval; comment "from and to the same network"; }
  map published {
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; flags interval; counter
    comment "address of this guest, protocol (6 tcp, 17 udp), port : container, port"
  }
  chain guard {
    type filter hook prerouting priority raw; policy accept;
    iifname != "lo" ip daddr 127.0.0.0/8 counter drop comment "127.0.0.1 is for this guest alone"
  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local dnat to ip daddr . ip protocol . th dport map @published comment "published ports, from elsewhere"
  }
  chain output {
    type nat hook output priority -100; policy accept;
    fib daddr type local dnat to ip daddr . ip protocol . th dport map @published comment "published ports, from this guest"
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    ct state established,related counter accept comment "answers"
    ip saddr . ip daddr @same_network counter accept comment "inside one network"
    ip saddr @isolated counter drop comment "an isolated network has no way out"
    ct status dnat counter accept comment "to a published port"
    ip saddr @networks ip daddr @networks counter drop comment "networks do not reach one another"
    ip daddr @hidden counter drop comment "from outside only to published ports"
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 127.0.0.0/8 ip daddr @networks counter masquerade comment "this guest to a published port of its own"
    ct status dnat ip saddr . ip daddr @same_network counter masquerade comment "hairpin: by a published port back inside"
    ip saddr @hidden ip daddr != @networks counter masquerade comment "out, under this guest's address"
  }
}
"""


@dataclass(frozen=True)
class Port:
    """A published port: `host_address`:`host_port` of the guest leads to `container_port` of a container."""

    host_port: int
    container_port: int
    protocol: str = "tcp"
    host_address: IPv4Address = ANY_ADDRESS

    def __str__(self) -> str:
        return f"{self.host_address}:{self.host_port}:{self.container_port}/{self.protocol}"

    def overlaps(self, other: Port) -> bool:
        """Would both be asked for the same connections?"""
        same = (self.protocol, self.host_port) == (other.protocol, other.host_port)
        return same and (
            ANY_ADDRESS in (self.host_address, other.host_address) or self.host_address == other.host_address
        )


def parse_port(text: str | Port) -> Port:
    """Read a port as docker(1) has it: "8080:80", "5353:53/udp", "127.0.0.1:8080:80". Raises `UsageError` for anything else."""
    if isinstance(text, Port):
        return check_port(text)
    match = _PORT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise _wrong_port(text)
    try:
        address = IPv4Address(match["address"] or "0.0.0.0")
    except ValueError as error:
        raise _wrong_port(text) from error
    return check_port(Port(int(match["host"]), int(match["container"]), match["protocol"] or "tcp", address))


def check_port(port: Port) -> Port:
    """Return a port if there can be such a one; raises `UsageError` if not."""
    numbers = (port.host_port, port.container_port)
    if not all(type(number) is int and 1 <= number <= 65535 for number in numbers) or port.protocol not in (
        "tcp",
        "udp",
    ):
        raise _wrong_port(port)
    return port


def _wrong_port(given: object) -> UsageError:
    return UsageError(
        f"{str(given)!r} is not a port to publish.",
        allowed="[ADDRESS:]PORT:CONTAINER_PORT[/tcp or /udp], ports from 1 to 65535",
        example='"8080:80", "127.0.0.1:5353:53/udp"',
    )


def ruleset() -> str:
    """Return the whole table, with no network in it, for nft(8) -f: it takes the place of one that was there."""
    return f"table ip {TABLE}\ndelete table ip {TABLE}\n{_RULES}"


def membership(verb: str, subnet: IPv4Network, *, hidden: bool, isolated: bool) -> str:
    """Return the commands that "add" a network to the sets, or "delete" it from them, whether it is in them or not."""
    sets = {"networks": f"{subnet}", "same_network": f"{subnet} . {subnet}"}
    sets |= {"hidden": f"{subnet}"} if hidden else {}
    sets |= {"isolated": f"{subnet}"} if isolated else {}
    verbs = ["add"] if verb == "add" else ["add", "delete"]  # deleting what is not there would be an error
    return "".join(f"{each} element ip {TABLE} {name} {{ {one} }}\n" for name, one in sets.items() for each in verbs)


def publication(port: Port, container: str, address: IPv4Address, verb: str = "create") -> str:
    """Return the command that publishes a port; nft(8) fails if it is published already."""
    leads_to = f'comment "{container}" : {address} . {port.container_port}'
    return f"{verb} element ip {TABLE} published {{ {_key(port)} {leads_to} }}\n"


def withdrawal(port: Port, container: str, address: IPv4Address) -> str:
    """Return the commands that take a published port back, whether it is published or not."""
    add = publication(port, container, address, "add")
    return add + f"delete element ip {TABLE} published {{ {_key(port)} }}\n"


def _key(port: Port) -> str:
    address = "0.0.0.0/0" if port.host_address == ANY_ADDRESS else str(port.host_address)
    return f"{address} . {port.protocol} . {port.host_port}"
