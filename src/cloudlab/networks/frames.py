"""Ethernet frames: addresses, VLAN tags (IEEE 802.3, 802.1Q)."""

from __future__ import annotations

BROADCAST = b"\xff" * 6
SHORTEST = 14  # two addresses and a type: less is no frame
TAGGED = b"\x81\x00"
TAG = 4  # bytes of a VLAN tag
STP_GROUP = b"\x01\x80\xc2\x00\x00\x00"  # the bridges' own group address: never forwarded (802.1D, 7.12.6)


def mac_text(address: bytes) -> str:
    """Write six bytes as people do: 52:54:00:00:00:02."""
    return address.hex(":")


def mac_bytes(text: str) -> bytes:
    """Read 52:54:00:00:00:02; raises `ValueError` for anything else."""
    address = bytes.fromhex(text.replace(":", " "))
    if len(address) != 6:
        raise ValueError(f"{text!r} is not six bytes")
    return address


def vlan_of(frame: bytes) -> int | None:
    """Return the VLAN that a frame's tag names, or None if it has no tag (or the tag only gives a priority)."""
    if frame[12:14] != TAGGED or len(frame) < 18:
        return None
    return int.from_bytes(frame[14:16], "big") & 0xFFF or None


def tagged(frame: bytes, vlan: int) -> bytes:
    """Put a VLAN tag into a frame that has none."""
    return frame[:12] + TAGGED + vlan.to_bytes(2, "big") + frame[12:]


def untagged(frame: bytes) -> bytes:
    """Take the VLAN tag out of a frame, if it has one."""
    return frame[:12] + frame[16:] if frame[12:14] == TAGGED else frame
