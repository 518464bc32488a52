"""What is known of nodes and links, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cloudlab.units import format_duration, format_size

Details = tuple[tuple[str, str], ...]
NAMED = 3  # so many names are said before "and 4 more"
_ADDRESSES = ("address", "mac")


def node_details(facts: Mapping[str, Any]) -> Details:
    """Return what is known of a node besides its kind and state, addresses first."""
    others = _plain(facts, without=("kind", "state"))
    keys = [*(key for key in _ADDRESSES if key in others), *(key for key in others if key not in _ADDRESSES)]
    return tuple((key, _value(others[key])) for key in keys)


def link_details(facts: Mapping[str, Any]) -> Details:
    """Return what a link does to what passes, and how much has passed; what is 0 is not worth a word."""
    others = _plain(facts, without=("kind", "state", "number"))
    keys = [*_FORMATS, *(key for key in others if key not in _FORMATS)]
    return tuple((_NAMES.get(key, key), _written(key, others[key])) for key in keys if others.get(key))


def _plain(facts: Mapping[str, Any], without: tuple[str, ...]) -> dict[str, Any]:
    """Return the facts that one word can tell; what a topology keeps in a dictionary (options, conditions) comes with them."""
    plain: dict[str, Any] = {}
    for key, fact in facts.items():
        if isinstance(fact, Mapping):
            plain |= _plain(fact, without)
        elif str(key) not in without and fact not in (None, "") and not isinstance(fact, list | tuple | set):
            plain[str(key)] = fact
    return plain


def as_text(details: Details) -> str:
    """Write details in one line: "address 10.0.0.2, delay 5 ms"."""
    return ", ".join(f"{key} {value}" for key, value in details)


def format_rate(bits_s: float) -> str:
    """Write a rate for people: 10000000 -> "10 Mbit/s" (powers of 1000, as network people count)."""
    for unit in ("bit/s", "kbit/s", "Mbit/s"):
        if abs(bits_s) < 1000:
            return f"{bits_s:.4g} {unit}"
        bits_s /= 1000
    return f"{bits_s:.4g} Gbit/s"


_NAMES = {"delay_s": "delay", "jitter_s": "jitter"}
_FORMATS = {
    "delay_s": format_duration,
    "jitter_s": format_duration,
    "loss": lambda share: f"{100 * share:.3g} %",
    "rate": format_rate,
    "frames": lambda count: f"{count:,}",
    "octets": format_size,
}


def _written(key: str, value: Any) -> str:
    """Write a number in its unit; text, as in delay="5ms", already has one."""
    return _FORMATS[key](value) if key in _FORMATS and isinstance(value, int | float) else _value(value)


def _value(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(word(value))


def word(value: object) -> object:
    """Return the value of an enumeration's member, and anything else as it is."""
    return getattr(value, "value", value)


def joined(words: Iterable[str]) -> str:
    """Join the words that are not empty with commas."""
    return ", ".join(word for word in words if word)


def number(count: int, one: str, many: str) -> str:
    """Count: "1 switch", "2 switches"."""
    return f"{count} {one if count == 1 else many}"


def names_of(names: list[str]) -> str:
    """List names, but not all of very many."""
    if len(names) > NAMED + 1:
        return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
