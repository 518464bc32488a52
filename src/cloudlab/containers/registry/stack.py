"""Layers on top of each other, as paths only: what an overlay of them shows, and where a path leads in it."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping

from cloudlab.containers.registry.entries import Entry, Kind, Limits, Seen, of_oci
from cloudlab.containers.registry.store import Store
from cloudlab.containers.registry.unpacking import Reading
from cloudlab.errors import UsageError

_LINKS = 40  # followed in one path, then it is ELOOP: path_resolution(7)


def merge(lower: Mapping[str, Entry], layer: Iterable[Entry]) -> dict[str, Entry]:
    """Lay a layer on what is below it: its entries hide those of their name, whiteouts and opaque marks those they speak of."""
    entries = list(layer)
    gone = {entry.path for entry in entries if entry.kind not in (Kind.DIRECTORY, Kind.OPAQUE)}
    emptied = {entry.path for entry in entries if entry.kind is Kind.OPAQUE}
    kept = {
        path: entry
        for path, entry in lower.items()
        if not any(each in gone or (each in emptied and each != path) for each in (path, *_parents(path)))
    }
    return kept | {entry.path: entry for entry in entries if entry.kind not in (Kind.WHITEOUT, Kind.OPAQUE)}


def merged(store: Store, layers: Iterable[str]) -> dict[str, Entry]:
    """Return all that layers (digests, from the lowest) show together, by path."""
    shown: dict[str, Entry] = {}
    for digest in layers:
        with store.open_blob(digest) as file:
            shown = merge(shown, [entry for entry, _ in Reading(file, Limits(), of_oci, Seen(Limits()))])
    return shown


def resolve(shown: Mapping[str, Entry], path: str) -> str:
    """Return where a path leads when all symbolic links in it are followed; upwards it ends at the root."""
    waiting, at, links = path.split("/")[::-1], "", 0
    while waiting:
        part = waiting.pop()
        if part in ("", "."):
            continue
        if part == "..":
            at = posixpath.dirname(at)
            continue
        entry = shown.get(posixpath.join(at, part))
        if entry is None or entry.kind is not Kind.SYMLINK:
            at = posixpath.join(at, part)
            continue
        links += 1
        if links > _LINKS:
            raise UsageError(
                f"{path!r} leads through too many symbolic links in the image.", allowed=f"{_LINKS} of them"
            )
        waiting += entry.target.split("/")[::-1]
        at = "" if entry.target.startswith("/") else at
    return at


def parents(shown: Mapping[str, Entry], paths: Iterable[str]) -> Iterator[Entry]:
    """Yield the directories that paths are in as they are in the image below, or as mkdir would make them: a copy-up.

    A layer has to say what they are: in an overlay the topmost layer that has a directory decides its owner and mode.
    """
    for path in sorted({parent for each in paths for parent in _parents(each) if parent}):
        entry = shown.get(path)
        if entry is not None and entry.kind is not Kind.DIRECTORY:
            raise UsageError(f"/{path} is a {entry.kind} in the image, and can't be a directory too.")
        yield entry or Entry(path, Kind.DIRECTORY, 0o755)


def _parents(path: str) -> Iterator[str]:
    while path:
        path = posixpath.dirname(path)
        yield path
