"""The way of a packet from a container, foretold from what a guest's programs print: routes, bridges and nftables' rules.

The order of the stations is that of netfilter's packet flow; of nft(8) -j only what our own rules use is understood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1}  # their numbers: nft writes a map's keys with them

# --- what the rules do with a packet ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection, as the rules see it; `translated`: a rule has changed where it goes."""

    source: IPv4Address
    target: IPv4Address
    protocol: str = "icmp"
    port: int = 0
    came_in: str = ""
    translated: bool = False


@dataclass(frozen=True)
class Step:
    """A rule that did something: what it is for, its verdict, and the packet behind it."""

    chain: str
    comment: str
    verdict: str
    packet: Packet


class Rules:
    """The table as nft(8) -j lists it. `walk` follows a packet through chains; only what our own rules use is understood."""

    def __init__(self, listing: Mapping[str, Any], is_local: Callable[[IPv4Address], bool]) -> None:
        objects = listing.get("nftables", [])
        self._rules = [each["rule"] for each in objects if "rule" in each]
        sets = [each.get("set") or each.get("map") for each in objects if "set" in each or "map" in each]
        self._sets: dict[str, list[Any]] = {each["name"]: each.get("elem", []) for each in sets}
        self._is_local = is_local

    def walk(self, packet: Packet, chains: Sequence[str], leaves_as: IPv4Address | None = None) -> Iterator[Step]:
        """Yield the rules that act on a packet; `leaves_as` is the address that masquerading gives it."""
        for chain in chains:
            for rule in (each for each in self._rules if each["chain"] == chain):
                found = self._applied(rule["expr"], packet, leaves_as)
                if found is None:
                    continue
                verdict, packet = found
                yield Step(chain, rule.get("comment", ""), verdict, packet)
                if verdict == "drop":
                    return
                break

    def _applied(
        self, statements: Sequence[Any], packet: Packet, leaves_as: IPv4Address | None
    ) -> tuple[str, Packet] | None:
        """Return a rule's verdict and the packet as it leaves it, or nothing if the rule is not about it."""
        for statement in statements:
            if "match" in statement and not self._matches(statement["match"], packet):
                return None
            if "dnat" in statement:
                return self._redirected(statement["dnat"]["addr"]["map"], packet)
            if "masquerade" in statement:
                return "masquerade", replace(packet, source=leaves_as or packet.source)
            if "accept" in statement or "drop" in statement:
                return next(iter(statement)), packet
        return None

    def _redirected(self, mapping: Mapping[str, Any], packet: Packet) -> tuple[str, Packet] | None:
        key = self._value(mapping["key"], packet)
        for pattern, value in self._sets[mapping["data"].removeprefix("@")]:
            if _fits(key, pattern):
                address, port = value["concat"]
                return "dnat", replace(packet, target=IPv4Address(address), port=port, translated=True)
        return None

    def _matches(self, match: Mapping[str, Any], packet: Packet) -> bool:
        value, right = self._value(match["left"], packet), match["right"]
        named = isinstance(right, str) and right.startswith("@")
        patterns = self._sets[right[1:]] if named else right if isinstance(right, list) else [right]
        found = any(_fits(value, pattern) for pattern in patterns)
        return bool(found != (match["op"] == "!="))

    def _value(self, left: Mapping[str, Any], packet: Packet) -> Any:
        if "concat" in left:
            return [self._value(part, packet) for part in left["concat"]]
        if "fib" in left:
            return "local" if self._is_local(packet.target) else "unicast"
        kind, rest = next(iter(left.items()))
        return {
            "saddr": packet.source,
            "daddr": packet.target,
            "protocol": PROTOCOLS[packet.protocol],
            "dport": packet.port,
            "iifname": packet.came_in,
            "state": "new",
            "status": "dnat" if packet.translated else "",
        }.get(rest.get("field") or rest.get("key"), kind)


def _fits(value: Any, pattern: Any) -> bool:
    """Is a value what a pattern of nft's JSON says: a prefix, a range of parts, or the very same?"""
    if isinstance(pattern, dict):
        if "elem" in pattern:
            return _fits(value, pattern["elem"]["val"])
        if "concat" in pattern:
            return len(value) == len(pattern["concat"]) and all(map(_fits, value, pattern["concat"]))
        prefix = pattern["prefix"]
        return bool(value in IPv4Network((prefix["addr"], prefix["len"])))
    return str(value) == str(pattern)


# --- the way of a packet ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hop:
    """A station of a packet: what `kind` it is ("interface", "bridge", "rule", "route", "end"), `where` (a container or
    the guest), and the packet's addresses when it leaves it: translation shows between one hop and the next.
    """

    kind: str
    name: str
    where: str
    source: IPv4Address
    target: IPv4Address
    note: str = ""


FACTS = """\
nsenter --net=/proc/{pid}/ns/net ip -j route show table all
ip -j route show table all
ip -j address
bridge -j fdb
nft -j list table ip {table}
"""


class Way:
    """The configuration that `FACTS` prints (five lines of JSON), and the way that a packet takes through it.

    `ends` says for each container's address its name and its veth in the guest.
    """

    def __init__(self, facts: Sequence[Any], ends: Mapping[IPv4Address, tuple[str, str, str]], guest: str) -> None:
        self._inside, self._routes, interfaces, self._learned, listing = facts
        self._masters = {each["ifname"]: each.get("master", "") for each in interfaces}
        self._addresses = {
            each["ifname"]: [IPv4Address(one["local"]) for one in each["addr_info"] if one["family"] == "inet"]
            for each in interfaces
        }
        self._ends, self._guest = ends, guest
        self._rules = Rules(listing, lambda address: route_of(self._routes, address).get("type") == "local")

    def of(self, packet: Packet) -> Iterator[Hop]:
        """Yield the hops of a container's packet, the first of a connection."""
        name, veth, _ = self._ends[packet.source]
        way = route_of(self._inside, packet.target)
        if way.get("type") == "local" or not way:
            yield _hop("end", "lo" if way else "no route", name, packet)
            return
        yield _hop("interface", "eth0", name, packet, f"via {way['gateway']}" if "gateway" in way else "on link")
        yield _hop("interface", veth, self._guest, packet)
        bridge = self._masters.get(veth, "")
        if bridge:
            yield _hop("bridge", bridge, self._guest, packet)
        if bridge and "gateway" not in way:
            yield from self._delivered(packet)
        else:
            yield from self._routed(replace(packet, came_in=bridge or veth))

    def _routed(self, packet: Packet) -> Iterator[Hop]:
        """The guest is the router: rules before, the route, rules for what is passed on, rules behind."""
        for step in self._rules.walk(packet, ["guard", "prerouting"]):
            packet = step.packet
            yield self._ruled(step)
            if step.verdict == "drop":
                return
        way = route_of(self._routes, packet.target)
        if way.get("type") == "local":
            yield _hop("end", "local", self._guest, packet, "the guest itself")
            return
        if not way or way.get("type", "unicast") != "unicast":
            yield _hop("end", "no route", self._guest, packet)
            return
        device = way["dev"]
        yield _hop("route", way["dst"], self._guest, packet, " ".join([f"dev {device}", *_via(way)]))
        own = next(iter(self._addresses.get(device, [])), None)
        for step in self._rules.walk(packet, ["forward", "postrouting"], own):
            packet = step.packet
            yield self._ruled(step)
            if step.verdict == "drop":
                return
        kind = "bridge" if device in self._masters.values() else "interface"
        yield _hop(kind, device, self._guest, packet)
        if packet.target in self._ends:
            yield from self._delivered(packet, device)
        else:
            yield _hop("end", str(packet.target), "outside", packet)

    def _delivered(self, packet: Packet, left_by: str = "") -> Iterator[Hop]:
        """From the bridge, or the route, to a container: by the port that the bridge has learned, or by all of them."""
        if packet.target not in self._ends:
            yield _hop("end", "nobody", self._guest, packet, "no container has this address")
            return
        name, veth, mac = self._ends[packet.target]
        ports = [each["ifname"] for each in self._learned if each["mac"] == mac and each.get("state") != "permanent"]
        if left_by != veth:
            note = "learned" if ports else "not learned yet: flooded"
            yield _hop("interface", ports[0] if ports else veth, self._guest, packet, note)
        yield _hop("interface", "eth0", name, packet)

    def _ruled(self, step: Step) -> Hop:
        return _hop("rule", step.chain, self._guest, step.packet, f"{step.verdict}: {step.comment}")


def route_of(routes: Sequence[Mapping[str, Any]], target: IPv4Address) -> Mapping[str, Any]:
    """Return the route that the kernel takes: from table local first, then the one with the longest prefix; {} if none."""
    fitting = [(_network_of(each), each) for each in routes if ":" not in each["dst"]]
    fitting = [(network, each) for network, each in fitting if target in network]
    return max(fitting, key=lambda one: (one[1].get("table") == "local", one[0].prefixlen), default=(None, {}))[1]


def _network_of(route: Mapping[str, Any]) -> IPv4Network:
    return IPv4Network("0.0.0.0/0" if route["dst"] == "default" else route["dst"])


def _via(way: Mapping[str, Any]) -> list[str]:
    return [f"via {way['gateway']}"] if "gateway" in way else []


def _hop(kind: str, name: str, where: str, packet: Packet, note: str = "") -> Hop:
    return Hop(kind, name, where, packet.source, packet.target, note)
