"""The entries of a layer, read one by one from a tar file that nobody vouches for: each is judged before it is handed on.

Formats: tar(5), pax(1); OCI image specification 1.1, layer.md (whiteouts); Linux, Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import math
import posixpath
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from cloudlab.errors import UsageError
from cloudlab.units import GIB

IDS = 65536  # users and groups of one user namespace, as it is commonly mapped: subuid(5)
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
XATTR = "SCHILY.xattr."
_TIMES = 8**11 - 1  # what a tar header has room for: the year 2242


@dataclass(frozen=True)
class Limits:
    """How much a layer may be: bytes when unpacked, entries, bytes of one path (PATH_MAX less its NUL)."""

    size: int = 4 * GIB
    entries: int = 500_000
    path: int = 4095


class Kind(StrEnum):
    """What an entry makes; a whiteout hides a path of the layers below, an opaque mark all that they have in a directory."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARD_LINK = "hard link"
    FIFO = "fifo"
    WHITEOUT = "whiteout"
    OPAQUE = "opaque mark"


@dataclass(frozen=True)
class Entry:
    """One entry: its path from the root ("" is the root itself), what it is, whose, and since when (seconds, whole).

    `target` is where a symbolic link points, or the first name of the file that a hard link names; `at`: where in the
    unpacked tar its contents begin.
    """

    path: str
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    target: str = ""
    xattrs: Mapping[str, str] = field(default_factory=dict)
    at: int = 0


def refused(name: str, why: str, allowed: str = "") -> UsageError:
    """Return the error that names an entry and what is wrong with it."""
    return UsageError(f"layer refused: entry {name!r} {why}.", allowed=allowed)


# --- what a header means ----------------------------------------------------------------------------------------


def of_oci(info: tarfile.TarInfo) -> Entry:
    """Return what a header of an OCI layer means: a file .wh.NAME hides NAME, .wh..wh..opq all there is in its directory."""
    if any(name.removeprefix(XATTR).startswith(("trusted.overlay.", "user.overlay.")) for name in info.pax_headers):
        raise refused(info.name, "has an attribute by which overlayfs would be led astray")
    if info.isdev() and not info.isfifo():
        raise refused(info.name, "is a device", "files, directories, links, fifos")
    entry = _plain(info)
    directory, name = posixpath.split(entry.path)
    if any(part.startswith(WHITEOUT) for part in directory.split("/")):
        raise refused(info.name, "is below a whiteout")
    if not name.startswith(WHITEOUT):
        return entry
    if entry.kind is not Kind.FILE or entry.size:
        raise refused(info.name, "is named like a whiteout", "an empty file")
    if name == OPAQUE:
        return replace(entry, path=directory, kind=Kind.OPAQUE)
    hidden = name.removeprefix(WHITEOUT)
    if hidden in ("", ".", "..") or hidden.startswith(WHITEOUT):
        raise refused(info.name, "is a whiteout of nothing", ".wh.NAME")
    return replace(entry, path=posixpath.join(directory, hidden), kind=Kind.WHITEOUT)


def of_overlay(info: tarfile.TarInfo) -> Entry:
    """Return what a header of an overlay's upper directory means: a character device 0/0 is a whiteout."""
    if info.ischr() and (info.devmajor, info.devminor) == (0, 0):
        return Entry(_path(info.name), Kind.WHITEOUT)
    if info.isdev() and not info.isfifo():
        raise refused(info.name, "is a device", "files, directories, links, fifos")
    for name in info.pax_headers:
        if name.endswith((".overlay.redirect", ".overlay.metacopy", ".overlay.whiteout", ".overlay.whiteouts")):
            raise refused(
                info.name, "is only a reference to another layer", "overlays with redirect_dir=off,metacopy=off"
            )
    if any(part.startswith(WHITEOUT) for part in _path(info.name).split("/")):
        raise refused(info.name, "is named as only whiteouts are in a layer")
    return _plain(info)


def _plain(info: tarfile.TarInfo) -> Entry:
    path, kind = _path(info.name), _kind(info)
    if not path and kind is not Kind.DIRECTORY:
        raise refused(info.name, "has no name")
    if not (0 <= info.uid < 2**32 - 1 and 0 <= info.gid < 2**32 - 1):
        raise refused(info.name, f"belongs to nobody: {info.uid}:{info.gid}")
    if not math.isfinite(info.mtime):
        raise refused(info.name, "has a time that is none")
    if "\0" in info.linkname or (kind is Kind.SYMLINK and not 0 < len(_encoded(info.linkname)) <= 4095):
        raise refused(info.name, "is a link to a path that can't be")
    return Entry(
        path,
        kind,
        info.mode & 0o7777,
        info.uid,
        info.gid,
        mtime=min(max(int(info.mtime), 0), _TIMES),
        size=info.size if kind is Kind.FILE else 0,
        target=_path(info.linkname) if kind is Kind.HARD_LINK else info.linkname if kind is Kind.SYMLINK else "",
        xattrs={name.removeprefix(XATTR): value for name, value in info.pax_headers.items() if name.startswith(XATTR)},
        at=info.offset_data,
    )


def _kind(info: tarfile.TarInfo) -> Kind:
    if info.issparse():
        raise refused(info.name, "is a sparse file", "files written out in full")
    types = {tarfile.DIRTYPE: Kind.DIRECTORY, tarfile.SYMTYPE: Kind.SYMLINK, tarfile.LNKTYPE: Kind.HARD_LINK}
    types |= {
        tarfile.FIFOTYPE: Kind.FIFO,
        tarfile.REGTYPE: Kind.FILE,
        tarfile.AREGTYPE: Kind.FILE,
        tarfile.CONTTYPE: Kind.FILE,
    }
    if info.type not in types:
        raise refused(info.name, f"is of the unknown type {info.type!r}")
    return types[info.type]


def _path(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/"):
        raise refused(name, "has an absolute path", "paths from the layer's root: etc/hosts")
    if ".." in parts:
        raise refused(name, "leads upwards by '..'", "paths from the layer's root: etc/hosts")
    if "\0" in name or any(len(_encoded(part)) > 255 for part in parts):
        raise refused(
            name[:80], "has a name that no file can have", "at most 255 bytes between slashes, none of them zero"
        )
    return "/".join(parts)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# --- what entries are together ----------------------------------------------------------------------------------


class Seen:
    """What a layer has had so far; `admit` refuses what doesn't fit to that, and so could lead a later entry astray."""

    def __init__(self, limits: Limits, *, overlay: bool = False) -> None:
        self._limits, self._overlay = limits, overlay
        self.kinds: dict[str, Kind] = {}  # directories that have no entry, and are only in paths, too
        self.directories: set[str] = set()
        self.whiteouts: set[str] = set()
        self.opaque: set[str] = set()
        self._first_names: dict[str, str] = {}  # of each file, by all its names
        self.count = 0

    def admit(self, entry: Entry) -> Entry:
        """Return the entry, its hard link resolved to the file's first name; raises `UsageError` if it has no place here."""
        self.count += 1
        if self.count > self._limits.entries:
            raise refused(entry.path, "is one too many", f"{self._limits.entries} entries")
        if len(_encoded(entry.path)) > self._limits.path:
            raise refused(entry.path[:80] + "…", "has too long a path", f"{self._limits.path} bytes")
        self._enter_parents(entry)
        if entry.kind is Kind.HARD_LINK:
            entry = self._resolve(entry)
        match entry.kind:
            case Kind.WHITEOUT:
                self.whiteouts.add(entry.path)
            case Kind.OPAQUE:
                self._enter(entry.path, Kind.DIRECTORY)
                self.opaque.add(entry.path)
            case Kind.DIRECTORY:
                self._enter(entry.path, Kind.DIRECTORY)
                self.directories.add(entry.path)
            case _:
                is_link = entry.kind is Kind.HARD_LINK
                self._enter(entry.path, self.kinds[entry.target] if is_link else entry.kind)
                self._first_names[entry.path] = entry.target if is_link else entry.path
        return entry

    def _enter_parents(self, entry: Entry) -> None:
        parent = entry.path
        while parent:
            parent = posixpath.dirname(parent)
            if self.kinds.setdefault(parent, Kind.DIRECTORY) is not Kind.DIRECTORY:
                raise refused(entry.path, f"is below {parent!r}, which is a {self.kinds[parent]}")

    def _enter(self, path: str, kind: Kind) -> None:
        before = self.kinds.setdefault(path, kind)
        if path in self._first_names or before is not kind:
            raise refused(path, f"is there twice: as a {before} and as a {kind}")

    def _resolve(self, entry: Entry) -> Entry:
        if self._overlay and entry.target in self.whiteouts:  # overlayfs makes all whiteouts links to one
            return replace(entry, kind=Kind.WHITEOUT)
        first = self._first_names.get(entry.target)
        if first is None:
            raise refused(
                entry.path, f"is a hard link to {entry.target!r}, which no earlier entry is", "files of the same layer"
            )
        return replace(entry, target=first)
