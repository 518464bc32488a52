"""A file tree in memory, and the archives of it: cpio, which the kernel unpacks as its first root, and tar, a layer."""

from __future__ import annotations

import io
import posixpath
import re
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_MERGED = re.compile(r"^(bin|sbin|lib|lib32|lib64|libx32)(/|$)")


@dataclass(frozen=True)
class Entry:
    """One file, directory (`data` empty) or symbolic link (`data` is the target), with its `st_mode`."""

    mode: int
    data: bytes = b""

    @property
    def is_link(self) -> bool:
        """Is it a symbolic link?"""
        return stat.S_ISLNK(self.mode)

    @property
    def is_file(self) -> bool:
        """Is it a regular file?"""
        return stat.S_ISREG(self.mode)


def normal(path: str) -> str:
    """Name a file as the guest does: no leading slash, /bin and /sbin and /lib merged into /usr (usrmerge)."""
    path = posixpath.normpath("/" + path.lstrip("/").removeprefix("./")).strip("/")
    if _MERGED.match(path):
        path = "usr/" + path
    if path == "usr/sbin" or path.startswith("usr/sbin/"):
        path = "usr/bin" + path[len("usr/sbin") :]
    return path


class Tree(dict[str, Entry]):
    """Paths (without leading slash) to entries."""

    def add_file(self, path: str, data: bytes | str, mode: int = 0o644) -> None:
        """Put a regular file at `path`."""
        self[path] = Entry(stat.S_IFREG | mode, data.encode() if isinstance(data, str) else data)

    def add_link(self, path: str, target: str) -> None:
        """Put a symbolic link to `target` at `path`."""
        self[path] = Entry(stat.S_IFLNK | 0o777, target.encode())

    def add_directory(self, path: str, mode: int = 0o755) -> None:
        """Put a directory at `path`."""
        self[path] = Entry(stat.S_IFDIR | mode)

    def target(self, path: str) -> str:
        """Return where the symbolic link at `path` points, as a path of this tree."""
        text = self[path].data.decode()
        return normal(text if text.startswith("/") else posixpath.join(posixpath.dirname(path), text))

    def with_parents(self) -> Tree:
        """Return a copy in which every parent directory stands too."""
        full = Tree(self)
        for path in self:
            parent = posixpath.dirname(path)
            while parent and parent not in full:
                full.add_directory(parent)
                parent = posixpath.dirname(parent)
        return full

    def write_cpio(self, out: BinaryIO) -> None:
        """Write the tree as a "newc" archive: sorted, owner root, time 0, so that equal trees are equal bytes.

        Format: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
        """
        full = self.with_parents()
        size = 0
        for number, path in enumerate(sorted(full), start=1):
            for block in _record(path, full[path], number):
                out.write(block)
                size += len(block)
        for block in _record("TRAILER!!!", Entry(0), 0):
            out.write(block)
            size += len(block)
        out.write(b"\0" * (-size % 512))

    def write_tar(self, out: BinaryIO) -> None:
        """Write the tree as a tar archive (pax): sorted, owner root, time 0, so that equal trees are equal bytes.

        Format: POSIX.1-2017, pax; as a layer of an image: OCI image specification, layer.md.
        """
        full = self.with_parents()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path in sorted(full):
                archive.addfile(*_member(path, full[path]))


def _member(path: str, entry: Entry) -> tuple[tarfile.TarInfo, BinaryIO | None]:
    member = tarfile.TarInfo(path)
    member.mode = stat.S_IMODE(entry.mode)
    if entry.is_link:
        member.type, member.linkname = tarfile.SYMTYPE, entry.data.decode()
    elif entry.is_file:
        member.size = len(entry.data)
        return member, io.BytesIO(entry.data)
    else:
        member.type = tarfile.DIRTYPE
    return member, None


def _record(name: str, entry: Entry, inode: int) -> Iterator[bytes]:
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, 0, 0, len(encoded), 0)
    yield b"070701" + b"".join(b"%08X" % field for field in fields)
    yield encoded + b"\0" * (-(110 + len(encoded)) % 4)
    yield entry.data + b"\0" * (-len(entry.data) % 4)
