"""The directory of a build: what COPY may take from it, and a hash of that."""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from typing import BinaryIO

from cloudlab.containers.registry.entries import Entry, Kind
from cloudlab.containers.registry.ignore import read_ignore
from cloudlab.containers.registry.names import Readable, digest_of
from cloudlab.errors import UsageError

_PIECE = 1 << 20


@dataclass(frozen=True)
class Found:
    """A file, directory or link of the build directory: `inner` is its path in the source that COPY names ("" is that itself)."""

    inner: str
    file: Path
    kind: Kind
    mode: int
    target: str = ""  # of a symbolic link
    sha256: str = ""  # of a file
    size: int = 0

    def entry(self, path: str, mtime: int) -> Entry:
        """Return it as an entry of a layer; all belongs to root."""
        return Entry(path, self.kind, self.mode, mtime=mtime, target=self.target, size=self.size)


@dataclass(frozen=True)
class Source:
    """What one source of COPY came to: its own name, and all in it if it is a directory."""

    name: str
    found: tuple[Found, ...]

    @property
    def is_directory(self) -> bool:
        """Tell if it is one: then what is in it is copied, not the directory."""
        return self.found[0].kind is Kind.DIRECTORY


class Context:
    """A build directory without what its ignore file names; nothing outside can be reached, not by `..` and not by links."""

    def __init__(self, directory: Path | str) -> None:
        self.root = Path(directory).resolve()
        if not self.root.is_dir():
            raise UsageError(f"{directory} is no directory.", allowed="the directory that has the Containerfile")
        self.ignored = read_ignore(self.root)

    def sources(self, pattern: str) -> list[Source]:
        """Return what a source of COPY stands for, sorted; raises `UsageError` if it is nothing, or leads outside."""
        path = posixpath.normpath(pattern.lstrip("/") or ".")
        if path == ".." or path.startswith("../"):
            raise self._outside(pattern)
        matches = sorted(self.root.glob(path)) if has_magic(path) else [self.root / path]
        found = [self._source(match, pattern) for match in matches if not self._hidden(match)]
        if not found:
            hint = " It is in the ignore file." if any(map(os.path.lexists, matches)) else ""
            raise UsageError(
                f"COPY: there is no {pattern!r} in {self.root}.{hint}", allowed="paths in the build directory"
            )
        return found

    def _hidden(self, path: Path) -> bool:
        if path == self.root:
            return False
        return not os.path.lexists(path) or path.relative_to(self.root).as_posix() in self.ignored

    def _source(self, path: Path, pattern: str) -> Source:
        real = path.resolve()
        if not real.is_relative_to(self.root) or self._hidden(real):
            raise self._outside(pattern)
        return Source(path.name if path != self.root else "", tuple(self._walk(real, "")))

    def _outside(self, pattern: str) -> UsageError:
        return UsageError(
            f"COPY: {pattern!r} leads out of {self.root}, or to what its ignore file hides.",
            allowed="paths in the build directory",
            example="COPY app.py /srv/",
        )

    def _walk(self, path: Path, inner: str) -> Iterator[Found]:
        found = path.lstat()
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISLNK(found.st_mode):
            yield Found(inner, path, Kind.SYMLINK, 0o777, target=os.readlink(path))
        elif stat.S_ISREG(found.st_mode):
            yield Found(inner, path, Kind.FILE, mode, sha256=_sha256(path), size=found.st_size)
        elif stat.S_ISDIR(found.st_mode):
            yield Found(inner, path, Kind.DIRECTORY, mode)
            for child in sorted(path.iterdir()):
                hidden = self._hidden(child)
                if not (hidden and (self.ignored.prunes or not child.is_dir() or child.is_symlink())):
                    yield from self._unhidden(child, posixpath.join(inner, child.name), hidden)
        else:
            raise UsageError(
                f"COPY: {path} is a device, a socket or a fifo.", allowed="files, directories, symbolic links"
            )

    def _unhidden(self, path: Path, inner: str, hidden: bool) -> Iterator[Found]:
        """Walk on; of an ignored directory only that is there of which the ignore file takes something back."""
        inside = self._walk(path, inner)
        if not hidden:
            yield from inside
        elif len(found := list(inside)) > 1:
            yield from found


def _sha256(path: Path) -> str:
    with _open(path) as file:
        return digest_of(file)


def _open(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")


class _Checked:
    """A file that must be read as it was when it was hashed."""

    def __init__(self, file: Readable) -> None:
        self._file, self.hash = file, hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        """Read as a file does."""
        data = self._file.read(size)
        self.hash.update(data)
        return data


@contextmanager
def opened(found: Found) -> Iterator[Readable]:
    """Open a file for a layer; raises `UsageError` if it has changed since it was hashed."""
    with _open(found.file) as file:
        checked = _Checked(file)
        try:
            yield checked
            grown = file.read(1)
        except OSError as error:  # tarfile's word for a file that has become shorter
            raise _changed(found) from error
        if grown or f"sha256:{checked.hash.hexdigest()}" != found.sha256:
            raise _changed(found)


def _changed(found: Found) -> UsageError:
    return UsageError(
        f"COPY: {found.file} was changed while it was copied.", allowed="a directory at rest: build again"
    )
