"""Layers in their two forms: as OCI has them (whiteouts are files named .wh.NAME), and as overlayfs wants them in a directory.

Sources: OCI image specification 1.1, layer.md; Linux, Documentation/filesystems/overlayfs.rst ("whiteouts and opaque directories").
"""

from __future__ import annotations

import posixpath
import struct
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from cloudlab.containers.registry.entries import (
    IDS,
    OPAQUE,
    WHITEOUT,
    XATTR,
    Entry,
    Kind,
    Limits,
    Seen,
    of_oci,
    of_overlay,
    refused,
)
from cloudlab.containers.registry.names import Readable, Writable, digest_of
from cloudlab.containers.registry.unpacking import Reading, damaged, drain, forget_members

LIMITS = Limits()
NOBODY = 65534  # whom a process sees as the owner, where its user namespace has no number for the real one: user_namespaces(7)
_CAPABILITY = "security.capability"
_VFS_CAP_REVISION_2, _VFS_CAP_REVISION_3, _REVISION = 0x02000000, 0x03000000, 0xFF000000
_TYPES = {
    Kind.FILE: tarfile.REGTYPE,
    Kind.DIRECTORY: tarfile.DIRTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
    Kind.HARD_LINK: tarfile.LNKTYPE,
    Kind.FIFO: tarfile.FIFOTYPE,
}


@dataclass(frozen=True)
class Contents:
    """What is in a layer: the digest and the bytes of its tar unpacked, how many entries, what it hides of the layers below."""

    diff_id: str
    size: int
    entries: int
    directories: frozenset[str]  # that have an entry
    parents: frozenset[str]  # that are only in the paths of others
    whiteouts: frozenset[str]
    opaque: frozenset[str]


def check(layer: BinaryIO, limits: Limits = LIMITS, *, digest: str = "", size: int | None = None) -> Contents:
    """Read an OCI layer (plain, gzip or zstd; seekable) to its end; returns what is in it, raises `UsageError` if it is hostile.

    `digest` and `size`, of the file as it is, are compared if they are given.
    """
    _check_file(layer, digest, size)
    reading = Reading(layer, limits, of_oci, Seen(limits))
    for _, contents in reading:
        drain(contents)
    seen = reading.seen
    directories = frozenset(path for path, kind in seen.kinds.items() if kind is Kind.DIRECTORY)
    return Contents(
        reading.digest,
        reading.size,
        seen.count,
        frozenset(seen.directories),
        directories - seen.directories - {""},
        frozenset(seen.whiteouts - seen.kinds.keys()),
        # a directory that is hidden and made anew by the same layer hides what was in the one below.
        frozenset(seen.opaque | (seen.whiteouts & directories)),
    )


def _check_file(layer: BinaryIO, digest: str, size: int | None) -> None:
    layer.seek(0)
    if digest and (found := digest_of(layer)) != digest:
        raise damaged(f"its digest is {found}, not {digest}")
    if size is not None and (length := layer.seek(0, 2)) != size:
        raise damaged(f"it has {length} bytes, not {size}")
    layer.seek(0)


def overlay_form(
    layer: BinaryIO, out: Writable, limits: Limits = LIMITS, *, offset: int = 0, user_xattr: bool = False
) -> Contents:
    """Write an OCI layer as the tar that GNU tar --xattrs unpacks to an overlay's lower directory; returns what is in it.

    All of the layer is checked before the first byte is written. `offset` is added to users and groups (0 to 65535), as docker's
    userns-remap does; `user_xattr`: for overlays mounted in a user namespace, with the option userxattr.
    """
    contents = check(layer, limits)
    layer.seek(0)
    opaque = f"{'user' if user_xattr else 'trusted'}.overlay.opaque"
    with _archive(out) as archive:
        for path in sorted(contents.parents | ({""} - contents.directories)):
            _add(archive, _marked(Entry(path, Kind.DIRECTORY, 0o755), contents, opaque), offset)
        for path in sorted(contents.whiteouts):
            archive.addfile(_whiteout_device(path, offset))
        for entry, data in Reading(layer, limits, of_oci, Seen(limits)):
            if entry.kind not in (Kind.WHITEOUT, Kind.OPAQUE):
                _add(archive, _marked(entry, contents, opaque), offset, data)
    return contents


def _marked(entry: Entry, contents: Contents, opaque: str) -> Entry:
    if entry.kind is not Kind.DIRECTORY or entry.path not in contents.opaque:
        return entry
    return replace(entry, xattrs={**entry.xattrs, opaque: "y"})


def _whiteout_device(path: str, offset: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(path)
    header.type, header.mode, header.uid, header.gid = tarfile.CHRTYPE, 0, offset, offset
    return header


def oci_form(
    upper: BinaryIO, out: Writable, limits: Limits = LIMITS, *, offset: int = 0, clamp_s: int | None = None
) -> None:
    """Write the tar of an overlay's upper directory (plain; GNU tar --xattrs -C upper -c .) as an OCI layer, not packed.

    Equal directories give equal bytes: sorted, no names of users, whole seconds, none later than `clamp_s` if it is given.
    `offset` is taken from users and groups; whoever is outside is nobody, as in the container. Raises `UsageError` as `check` does.
    """
    upper.seek(0)
    entries = [entry for entry, _ in Reading(upper, limits, of_overlay, Seen(limits, overlay=True))]

    @contextmanager
    def contents(entry: Entry) -> Iterator[Readable]:
        upper.seek(entry.at)
        yield upper

    write_layer(out, _as_marks(entries, offset), contents, offset=offset, clamp_s=clamp_s)


def _as_marks(entries: Iterable[Entry], root: int) -> Iterable[Entry]:
    for entry in entries:
        if any(entry.xattrs.get(f"{kind}.overlay.opaque") == "y" for kind in ("trusted", "user")):
            yield Entry(posixpath.join(entry.path, OPAQUE), Kind.FILE, uid=root, gid=root)
        if entry.kind is Kind.WHITEOUT:
            directory, name = posixpath.split(entry.path)
            yield Entry(posixpath.join(directory, WHITEOUT + name), Kind.FILE, uid=root, gid=root)
        elif entry.path:
            yield replace(
                entry, xattrs={name: value for name, value in entry.xattrs.items() if ".overlay." not in name}
            )


def write_layer(
    out: Writable,
    entries: Iterable[Entry],
    contents: Callable[[Entry], AbstractContextManager[Readable]],
    *,
    offset: int = 0,
    clamp_s: int | None = None,
) -> None:
    """Write entries as a layer, sorted; `contents` opens what is in a file."""
    found = sorted(entries, key=_order)
    by_path = {entry.path: entry for entry in found}
    carriers: dict[str, str] = {}  # of a file with many names: by that which it had first, that which is first here
    with _archive(out) as archive:
        for entry in found:
            file = by_path[entry.target] if entry.kind is Kind.HARD_LINK else entry
            carrier = carriers.setdefault(file.path, entry.path)
            mtime = file.mtime if clamp_s is None else min(file.mtime, clamp_s)
            if carrier != entry.path:
                link = replace(file, path=entry.path, kind=Kind.HARD_LINK, target=carrier, size=0, mtime=mtime)
                _add(archive, link, -offset)
                continue
            with contents(file) as data:
                _add(archive, replace(file, path=entry.path, mtime=mtime), -offset, data)


def _order(entry: Entry) -> list[tuple[bool, bytes]]:
    """Directories before what is in them, whiteouts before their siblings (layer.md: they SHOULD be)."""
    parts = entry.path.split("/")
    return [(not part.startswith(WHITEOUT), part.encode("utf-8", "surrogateescape")) for part in parts]


# --- headers ----------------------------------------------------------------------------------------------------


def _archive(out: Writable) -> tarfile.TarFile:
    return tarfile.open(
        fileobj=cast(BinaryIO, out), mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    )


def _add(archive: tarfile.TarFile, entry: Entry, offset: int, data: Readable | None = None) -> None:
    header = tarfile.TarInfo(entry.path or ".")
    header.type, header.mode, header.mtime, header.size = _TYPES[entry.kind], entry.mode, entry.mtime, entry.size
    header.uid, header.gid = _shifted(entry, entry.uid, offset), _shifted(entry, entry.gid, offset)
    header.linkname = entry.target
    header.pax_headers = {XATTR + name: value for name, value in _kept(entry.xattrs, offset).items()}
    archive.addfile(header, data if entry.size else None)
    forget_members(archive)


def _shifted(entry: Entry, number: int, offset: int) -> int:
    if offset > 0 and number >= IDS:
        raise refused(entry.path, f"belongs to number {number}", f"users and groups from 0 to {IDS - 1}")
    if offset < 0 and not 0 <= number + offset < IDS:
        return NOBODY
    return number + offset


def _kept(xattrs: Mapping[str, str], offset: int) -> dict[str, str]:
    """Users' attributes, capabilities and the mark of an opaque directory; others belong to one kernel (security.selinux)."""
    kept = {
        name: value for name, value in xattrs.items() if name.startswith("user.") or name == "trusted.overlay.opaque"
    }
    if _CAPABILITY in xattrs:
        kept[_CAPABILITY] = _capabilities_of(xattrs[_CAPABILITY], offset)
    return dict(sorted(kept.items()))


def _capabilities_of(value: str, offset: int) -> str:
    """Return a file's capabilities for the user namespace whose root is `offset`: capabilities(7), "File capability versioning"."""
    data = value.encode("utf-8", "surrogateescape")
    magic = struct.unpack_from("<I", data)[0] if len(data) in (20, 24) else 0
    if offset > 0 and magic & _REVISION == _VFS_CAP_REVISION_2:
        data = struct.pack("<I", magic & ~_REVISION | _VFS_CAP_REVISION_3) + data[4:20] + struct.pack("<I", offset)
    elif offset < 0 and magic & _REVISION == _VFS_CAP_REVISION_3 and data[20:] == struct.pack("<I", -offset):
        data = struct.pack("<I", magic & ~_REVISION | _VFS_CAP_REVISION_2) + data[4:20]
    return data.decode("utf-8", "surrogateescape")
