"""A frame in words: who, to whom, which protocol, what it says. dpkt takes it apart."""

from __future__ import annotations

import socket
import struct
from typing import Any

import dpkt

from cloudlab.networks.frames import STP_GROUP, mac_text
from cloudlab.networks.spanning_tree import decode as decode_claim

Words = tuple[str, str, str, str]
_ICMP = {0: "echo reply", 3: "unreachable", 5: "redirect", 8: "echo request", 11: "time exceeded"}
_FLAGS = (
    (dpkt.tcp.TH_SYN, "SYN"),
    (dpkt.tcp.TH_FIN, "FIN"),
    (dpkt.tcp.TH_RST, "RST"),
    (dpkt.tcp.TH_PUSH, "PSH"),
    (dpkt.tcp.TH_ACK, "ACK"),
)


def describe(frame: bytes) -> Words:
    """Return source, destination, protocol and what the frame says; a frame that can't be read is told as such."""
    try:
        return _describe(frame)
    except (dpkt.Error, ValueError, LookupError, AttributeError, OSError, struct.error, RecursionError):
        return mac_text(frame[6:12]), mac_text(frame[:6]), "?", f"{len(frame)} bytes that make no sense"


def _describe(frame: bytes) -> Words:
    ethernet = dpkt.ethernet.Ethernet(frame)
    source, destination = mac_text(ethernet.src), mac_text(ethernet.dst)
    vlan = f"VLAN {ethernet.vlan_tags[0].id}: " if getattr(ethernet, "vlan_tags", None) else ""
    inside = ethernet.data
    if frame[:6] == STP_GROUP and (claim := decode_claim(frame)) is not None:
        says = f"root {claim.root.hex()}, cost {claim.cost}, from {claim.bridge.hex()} port {claim.port}"
        return source, destination, "STP", says
    if isinstance(inside, dpkt.arp.ARP):
        return source, destination, "ARP", vlan + _arp(inside)
    if isinstance(inside, dpkt.ip.IP):
        protocol, info = _ip(inside)
        return socket.inet_ntoa(inside.src), socket.inet_ntoa(inside.dst), protocol, vlan + info
    if isinstance(inside, dpkt.ip6.IP6):
        sender, receiver = (socket.inet_ntop(socket.AF_INET6, address) for address in (inside.src, inside.dst))
        return sender, receiver, "IPv6", vlan + type(inside.data).__name__
    return source, destination, f"0x{ethernet.type:04x}", vlan + f"{len(frame)} bytes"


def _arp(arp: Any) -> str:
    asked, asker = socket.inet_ntoa(arp.tpa), socket.inet_ntoa(arp.spa)
    if arp.op == dpkt.arp.ARP_OP_REQUEST:
        return f"who has {asked}? tell {asker}"
    return f"{asker} is at {mac_text(arp.sha)}"


def _ip(packet: Any) -> tuple[str, str]:
    inside = packet.data
    if packet.offset:
        return "IP", f"fragment at byte {packet.offset * 8}"
    if isinstance(inside, dpkt.icmp.ICMP):
        echo = f" {inside.data.seq}" if isinstance(inside.data, dpkt.icmp.ICMP.Echo) else ""
        return "ICMP", _ICMP.get(inside.type, f"type {inside.type}") + echo
    if isinstance(inside, dpkt.tcp.TCP):
        flags = ", ".join(name for bit, name in _FLAGS if inside.flags & bit)
        return "TCP", f"{inside.sport} > {inside.dport} [{flags}] {len(inside.data)} bytes"
    if isinstance(inside, dpkt.udp.UDP):
        protocol = "DNS" if 53 in (inside.sport, inside.dport) else "UDP"
        return protocol, f"{inside.sport} > {inside.dport} {len(inside.data)} bytes"
    return f"IP {packet.p}", f"{packet.len} bytes"
