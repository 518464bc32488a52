"""Read Debian packages (deb(5)): an `ar` archive that holds a `tar` archive of the files."""

from __future__ import annotations

import io
import posixpath
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from cloudlab.errors import CloudlabError
from cloudlab.images.packed import unpack
from cloudlab.images.tree import Entry, Tree, normal


def read_package(path: Path) -> Tree:
    """Unpack one .deb into a `Tree`; raises `CloudlabError` if it is damaged or no package."""
    try:
        for name, data in _ar_members(path.read_bytes()):
            if name.startswith("data.tar"):
                return _read_tar(data if name == "data.tar" else unpack(data))
    except (tarfile.TarError, EOFError, ValueError, LookupError) as error:
        raise CloudlabError(f"{path.name} is damaged: {error}. Remove it and build again: rm '{path}'") from error
    raise CloudlabError(f"{path.name} holds no files (no data.tar): it is not a Debian package")


def _ar_members(archive: bytes) -> Iterator[tuple[str, bytes]]:
    if archive[:8] != b"!<arch>\n":
        raise ValueError("no ar archive")
    at = 8
    while at + 60 <= len(archive):
        name, size = archive[at : at + 16].decode().strip().rstrip("/"), int(archive[at + 48 : at + 58])
        if at + 60 + size > len(archive):
            raise EOFError("it ends too early")
        yield name, archive[at + 60 : at + 60 + size]
        at += 60 + size + size % 2  # members start at even offsets


def _read_tar(data: bytes) -> Tree:
    tree = Tree()
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for member in archive:
            path = normal(member.name)
            if not path:
                continue
            mode = member.mode & 0o7777
            if member.isdir():
                tree.add_directory(path, mode)
            elif member.issym() and not _points_to_itself(path, member.linkname):
                tree.add_link(path, member.linkname)
            elif member.islnk():
                tree[path] = tree[normal(member.linkname)]
            elif member.isfile():
                file = archive.extractfile(member)
                assert file is not None  # a regular file always has content
                tree[path] = Entry(stat.S_IFREG | mode, file.read())
    return tree


def _points_to_itself(path: str, target: str) -> bool:
    """/usr/sbin/x -> /usr/bin/x is a link to itself once both directories are one."""
    absolute = target if target.startswith("/") else posixpath.join(posixpath.dirname(path), target)
    return normal(absolute) == path
