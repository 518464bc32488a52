"""What can be a network of containers: names, subnets and ports that the guest has room for, or a `UsageError`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network

from cloudlab.containers.netfilter import ANY_ADDRESS, Port, check_port
from cloudlab.containers.network_plan import Attachment, Plan
from cloudlab.errors import UsageError

_NETWORK = re.compile(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?")
_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def choose_subnet(guest: int, used: Sequence[IPv4Network]) -> IPv4Network:
    """Return 172.20.GUEST.0/24, or the first of 172.21.GUEST.0/24 … 172.31.GUEST.0/24 that nothing uses."""
    for second in range(20, 32):
        subnet = IPv4Network((f"172.{second}.{guest & 255}.0", 24))
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise UsageError(
        "All subnets that networks get by themselves are in use.",
        allowed="one of your own",
        example='subnet="10.9.0.0/24"',
    )


def check_subnet(given: str | IPv4Network, used: Mapping[IPv4Network, str]) -> IPv4Network:
    """Return a subnet with room for containers that overlaps no other; raises `UsageError` for anything else."""
    try:
        subnet = IPv4Network(given)
    except ValueError as error:
        raise _wrong_subnet(f"{given!r} is no IPv4 network: {error}.") from error
    if not 8 <= subnet.prefixlen <= 29 or not subnet.is_private or subnet.is_loopback or subnet.is_link_local:
        raise _wrong_subnet(f"{given} can't be a network of containers.")
    for other, whose in used.items():
        if subnet.overlaps(other):
            raise _wrong_subnet(f"{given} overlaps {other}, which is in use by {whose}.")
    return subnet


def _wrong_subnet(problem: str) -> UsageError:
    return UsageError(
        problem, allowed="a private subnet from /8 to /29 that nothing else uses", example='subnet="172.30.0.0/24"'
    )


def check_network(name: str) -> str:
    """Return a network's name if a bridge can be called br-NAME; raises `UsageError` if not."""
    if not isinstance(name, str) or not _NETWORK.fullmatch(name):
        allowed = "small letters, digits and hyphens, beginning with a letter, at most 12: a bridge's name has 15"
        raise UsageError(f"{name!r} is not a name for a network.", allowed=allowed, example='Network(n1, "front")')
    return name


def check_container(name: str) -> str:
    """Return a container's name or alias if it can stand in a hosts file; raises `UsageError` if not."""
    if not isinstance(name, str) or not _CONTAINER.fullmatch(name) or name == "localhost":
        allowed = "letters, digits, '.', '_' and '-', beginning with a letter or digit, at most 63"
        raise UsageError(
            f"{name!r} is not a name for a container.", allowed=allowed, example='network.attach("web", pid)'
        )
    return name


def check_same(plan: Plan, subnet: str | None, mode: str | None, isolated: bool | None) -> Plan:
    """Return a plan if it is what is asked for (None: anything); raises `UsageError` if not."""
    wanted = {"subnet": subnet, "mode": mode, "isolated": isolated}
    for key, value in ((key, value) for key, value in wanted.items() if value is not None):
        if str(value) != str(found := getattr(plan, key)):
            problem = f"Network {plan.name} is there already, with {key}={found}, not {value}."
            raise UsageError(problem, allowed="as it is, or another name", example=f'Network(n1, "{plan.name}")')
    return plan


def port_of(host_port: int, container_port: int, protocol: str, host_address: str) -> Port:
    """Return a port to publish, out of its parts; raises `UsageError` if there can't be such a one."""
    try:
        return check_port(Port(host_port, container_port, protocol, IPv4Address(host_address)))
    except ValueError as error:
        raise UsageError(
            f"{host_address!r} is no IPv4 address.", allowed="one of the guest's", example='"127.0.0.1"'
        ) from error


def check_free(wanted: Attachment, others: Sequence[Attachment], listening: str = "") -> None:
    """Raise `UsageError` if one of its ports is published already, or a program in the guest listens on it (ss(8)'s lines)."""
    taken = [(port, f"container {each.name} on {each.plan.name}") for each in others for port in each.ports]
    taken += _listeners(listening)
    for number, port in enumerate(wanted.ports):
        owners = [who for other, who in taken if port.overlaps(other)]
        owners += [wanted.name for other in wanted.ports[:number] if port.overlaps(other)]
        if owners:
            raise UsageError(
                f"Port {port.host_port}/{port.protocol} is taken by {owners[0]}.",
                allowed="a port that nothing has",
                example=f'network.publish({port.host_port % 65535 + 1}, "{wanted.name}", {port.container_port})',
            )


def _listeners(lines: str) -> Iterator[tuple[Port, str]]:
    for fields in (line.split() for line in lines.splitlines()):
        if len(fields) >= 6 and fields[0] in ("tcp", "udp"):
            address, _, port = fields[4].rpartition(":")
            digits = address.split("%")[0]
            host = IPv4Address(digits) if re.fullmatch(r"[\d.]+", digits) else ANY_ADDRESS  # * and [::] mean any
            who = re.search(r'"(.+?)",pid=(\d+)', fields[-1])
            yield (
                Port(int(port), 0, fields[0], host),
                f"{who[1]} (process {who[2]})" if who else "a program in the guest",
            )
