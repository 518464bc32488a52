"""A stack of layers as overlayfs joins them: for each path which layer answers, and why. Nothing here touches a file.

The rules are those of the kernel: Documentation/filesystems/overlayfs.rst, and ovl_lookup in fs/overlayfs/namei.c.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from cloudlab.errors import UsageError


class Kind(StrEnum):
    """What a layer has at a path."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    DEVICE = "device"
    PIPE = "pipe"
    SOCKET = "socket"
    WHITEOUT = "whiteout"
    OPAQUE = "opaque directory"

    @property
    def is_directory(self) -> bool:
        """Can it have entries?"""
        return self in (Kind.DIRECTORY, Kind.OPAQUE)


Listing = Mapping[str, Kind]  # one layer: absolute path -> what it has there; the root itself need not be in it


@dataclass(frozen=True)
class Resolved:
    """What becomes of one path.

    `kinds`: what each layer has there, the highest first (those that have nothing are left out); `answers`: the layers that
    are seen through the mount, one of them for a file, all that are merged for a directory, none where nothing is seen.
    """

    path: str
    kinds: Mapping[str, Kind]
    answers: tuple[str, ...]
    why: str

    @property
    def layer(self) -> str | None:
        """The layer that answers (for a merged directory: whose owner and mode are seen); None if the path is not there."""
        return self.answers[0] if self.answers else None

    @property
    def kind(self) -> Kind | None:
        """What is seen; None if nothing is."""
        return self.kinds[self.answers[0]] if self.answers else None

    def __str__(self) -> str:
        return f"{self.path}: {self.layer or 'nobody'} answers: {self.why}"


@dataclass(frozen=True)
class Change:
    """One difference that the highest layer makes, as `docker diff` says it: `how` is A (added), C (changed) or D (deleted)."""

    how: str
    path: str

    def __str__(self) -> str:
        return f"{self.how} {self.path}"


@dataclass(frozen=True)
class Stack:
    """All paths of a stack: `layers` by name, the highest first, and what becomes of each path. Printed, it is a table."""

    layers: tuple[str, ...]
    paths: Mapping[str, Resolved]

    def __getitem__(self, path: str) -> Resolved:
        return self.paths[absolute(path)]

    def below(self, directory: str) -> Stack:
        """Return the part that lies in a directory, with the directory itself."""
        top = absolute(directory)
        inside = top.rstrip("/") + "/"
        return Stack(
            self.layers, {path: each for path, each in self.paths.items() if path == top or path.startswith(inside)}
        )

    def __iter__(self) -> Iterator[Resolved]:
        return iter(self.paths.values())

    def __str__(self) -> str:
        rows = [("PATH", *self.layers, "ANSWERS")]
        rows += [
            (each.path, *(each.kinds.get(name, "") for name in self.layers), each.layer or "nobody") for each in self
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def absolute(path: str) -> str:
    """Return a path as listings have it: with a slash in front, none behind, and no . or .. in it."""
    return posixpath.normpath("/" + path.strip("/"))


def resolve(layers: Mapping[str, Listing]) -> dict[str, Resolved]:
    """Join listings of layers (by name, the highest first): every path that any of them has, and which layer answers.

    Raises `UsageError` for a listing that has a path and not the directory it lies in.
    """
    root = Resolved("/", dict.fromkeys(layers, Kind.DIRECTORY), tuple(layers), "roots are always merged")
    found = {"/": root}
    for path in sorted({path for listing in layers.values() for path in listing} - {"/"}):
        parent = posixpath.dirname(path)
        kinds = {name: listing[path] for name, listing in layers.items() if path in listing}
        if parent not in found or not all(found[parent].kinds.get(name, Kind.FILE).is_directory for name in kinds):
            raise UsageError(
                f"A layer has {path!r}, and no directory {parent!r}.",
                allowed="absolute paths, each with the directories above it",
                example='{"/etc": Kind.DIRECTORY, "/etc/hosts": Kind.FILE}',
            )
        found[path] = _resolved(path, kinds, found[parent])
    return found


def _resolved(path: str, kinds: Mapping[str, Kind], parent: Resolved) -> Resolved:
    """Ask the layers that are seen in the directory above, from the highest down, until one ends the search."""
    asked = [name for name in kinds if name in parent.answers]
    if not asked:
        why = f"in {parent.path} only {' and '.join(parent.answers)} can be seen" if parent.answers else parent.why
        return Resolved(path, kinds, (), why)
    answers: list[str] = []
    for name in asked:
        kind = kinds[name]
        if kind is Kind.WHITEOUT or (answers and not kind.is_directory):
            break  # deleted, or a file where a directory is seen: what lies still lower has nothing to do with it
        answers.append(name)
        if kind is not Kind.DIRECTORY:
            break  # a file is complete; so is an opaque directory
    return Resolved(path, kinds, tuple(answers), _why(asked[0], kinds[asked[0]], answers))


def _why(highest: str, kind: Kind, answers: list[str]) -> str:
    if kind is Kind.WHITEOUT:
        return f"{highest} has a whiteout: it was deleted there"
    if kind is Kind.OPAQUE:
        return f"{highest} has an opaque directory: nothing below it is seen"
    if len(answers) > 1:
        return f"a directory, merged from {', '.join(answers)}"
    return f"{highest} is the highest layer that has it"


def changes(layers: Mapping[str, Listing]) -> list[Change]:
    """Return what the highest layer changes; of a directory that is gone only the directory itself."""
    highest = next(iter(layers))
    before = resolve({name: listing for name, listing in layers.items() if name != highest})
    after = resolve(layers)
    found = []
    for path in sorted({*before, *after} - {"/"}):
        was, now = path in before and before[path].layer, path in after and after[path].layer
        above = after[posixpath.dirname(path)].kind
        if now and not was:
            found.append(Change("A", path))
        elif now == highest:
            found.append(Change("C", path))
        elif was and not now and above and above.is_directory:
            found.append(Change("D", path))
    return found
