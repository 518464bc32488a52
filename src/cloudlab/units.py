"""Sizes and times: text at the edge, bytes and seconds (`float`) inside; names in the order in which people count."""

from __future__ import annotations

import re

from cloudlab.errors import UsageError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_UNITS = {"": 1, "B": 1, "K": KIB, "M": MIB, "G": GIB, "T": 1 << 40}
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*$", re.IGNORECASE)


def parse_size(size: int | str) -> int:
    """Turn "256M", "1.5 GiB" or a number of bytes into bytes; K, M, G and T are powers of 1024, as in QEMU's -m."""
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    match = _SIZE.match(size) if isinstance(size, str) else None
    number = float(match[1]) * _UNITS[match[2].upper()] if match else 0
    if number < 1:
        raise UsageError(
            f"{size!r} is not a size.",
            allowed="a positive number of bytes, or text with K, M, G or T",
            example='memory="256M"',
        )
    return int(number)


def format_size(number: float) -> str:
    """Write bytes for people: 268435456 -> "256 MiB", with at most one decimal."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(number) < 1024 or unit == "TiB":
            return f"{number:.1f}".removesuffix(".0") + f" {unit}"
        number /= 1024
    raise AssertionError("unreachable")


def format_duration(seconds: float) -> str:
    """Write seconds for people: 0.0021 -> "2.1 ms", 75 -> "1 min 15 s"."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms".replace(".0 ms", " ms")
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s"


def natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts n2 before n10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
