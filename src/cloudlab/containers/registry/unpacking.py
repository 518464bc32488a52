"""A layer's tar file, unpacked and read entry by entry, in one pass, with limits: nothing in it is believed."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import zstandard

from cloudlab.containers.registry.entries import Entry, Limits, Seen, refused
from cloudlab.containers.registry.names import Readable
from cloudlab.errors import UsageError
from cloudlab.units import MIB, format_size

_HEADERS = 4 * MIB  # between the contents of two files: long names and attributes, no more
# tarfile's errors that the type stubs do not know: where a header should be is a block of zeros, or nothing at all
_ZEROS: type[tarfile.HeaderError] = vars(tarfile)["EOFHeaderError"]
_NOTHING: type[tarfile.HeaderError] = vars(tarfile)["EmptyHeaderError"]
_DAMAGED = (
    tarfile.TarError,
    zlib.error,
    gzip.BadGzipFile,
    EOFError,
    zstandard.ZstdError,
    ValueError,
    OverflowError,
    RecursionError,
)


def damaged(why: str) -> UsageError:
    """Return the error for what is no whole layer."""
    return UsageError(f"layer refused: {why}.", allowed="a whole tar file: plain, or packed by gzip or zstd")


def unpacked(blob: BinaryIO) -> Readable:
    """Return the tar in a seekable file, whatever packs it: told by its first bytes (RFC 1952, RFC 8878)."""
    start = blob.read(4)
    blob.seek(-len(start), 1)
    if start[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=blob)
    if start == b"\x28\xb5\x2f\xfd":
        return zstandard.ZstdDecompressor(max_window_size=128 * MIB).stream_reader(blob, read_across_frames=True)
    return blob


class Meter:
    """Counts and hashes what is unpacked, and stops at `limit`: a bomb of a layer goes off no further than that."""

    def __init__(self, source: Readable) -> None:
        self._source, self._hash = source, hashlib.sha256()
        self.count, self.limit = 0, 0

    def read(self, size: int = -1, /) -> bytes:
        """Read as a file does."""
        data = self._source.read(size)
        self._hash.update(data)
        self.count += len(data)
        if self.count > self.limit:
            raise damaged(f"it goes on beyond the limit, at {format_size(self.count)} unpacked")
        return data

    @property
    def digest(self) -> str:
        """The digest of all that was read: at the end, the layer's diff_id."""
        return f"sha256:{self._hash.hexdigest()}"


class _Strict(tarfile.TarInfo):
    """A header; tarfile takes a damaged one in the middle for the end of the file, here only blocks of zeros are."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Strict:
        try:
            return super().fromtarfile(tarfile_)
        except _ZEROS:
            raise
        except tarfile.HeaderError as error:
            if tarfile_.offset and isinstance(error, _NOTHING):
                raise _ZEROS from error  # umoci leaves those blocks out
            raise damaged(f"it is damaged or cut short at byte {tarfile_.offset} unpacked ({error})") from error


class _Contents:
    """The contents of one file of the archive."""

    def __init__(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        self._file = archive.extractfile(info) if info.isreg() else None
        self._left, self._name = info.size if info.isreg() else 0, info.name

    def read(self, size: int = -1, /) -> bytes:
        """Read as a file does, but never less than asked for."""
        size = self._left if size < 0 else min(size, self._left)
        if not size or self._file is None:
            return b""
        with told_as_damaged():
            data = self._file.read(size)
        if len(data) != size:
            raise refused(self._name, "is cut short")
        self._left -= size
        return data


class Reading:
    """One pass over a layer: yields each entry, judged, with its contents, to be read before the next one.

    At the end `digest` and `size` are those of the tar unpacked, and `seen` knows all paths.
    """

    def __init__(
        self, layer: BinaryIO, limits: Limits, meaning: Callable[[tarfile.TarInfo], Entry], seen: Seen
    ) -> None:
        self._limits, self._meaning, self.seen = limits, meaning, seen
        self._end = 1  # of the last contents; there must be a header at least
        with told_as_damaged():
            self._meter = Meter(unpacked(layer))
            self._meter.limit = min(_HEADERS, limits.size)
            self._archive = tarfile.open(  # noqa: SIM115 - it has nothing to close
                fileobj=cast(BinaryIO, self._meter), mode="r|", tarinfo=_Strict, encoding="utf-8"
            )

    def __iter__(self) -> Iterator[tuple[Entry, Readable]]:
        while info := self._next():
            if info.size > self._limits.size - self._meter.count + tarfile.RECORDSIZE:
                raise refused(
                    info.name, "is too large", f"{format_size(self._limits.size)} for all of the layer, unpacked"
                )
            self._meter.limit = self._limits.size
            self._end = info.offset_data + (info.size if info.isreg() else 0)
            contents = _Contents(self._archive, info)
            yield self.seen.admit(self._meaning(info)), contents
            drain(contents)  # what nobody wanted
            forget_members(self._archive)
        self._meter.limit = self._limits.size
        with told_as_damaged():
            drain(self._meter)

    def _next(self) -> tarfile.TarInfo | None:
        self._meter.limit = min(self._meter.count + _HEADERS, self._limits.size)
        with told_as_damaged():
            try:
                return self._archive.next()
            except tarfile.ReadError:
                if self._meter.count < self._end:
                    raise
                return None  # what fills up the last block was left out, as umoci does

    @property
    def digest(self) -> str:
        """The layer's diff_id."""
        return self._meter.digest

    @property
    def size(self) -> int:
        """Bytes unpacked."""
        return self._meter.count


def forget_members(archive: tarfile.TarFile) -> None:
    """Have tarfile not keep every header that it has seen; what its documentation says of large archives."""
    vars(archive)["members"].clear()


def drain(source: Readable) -> None:
    """Read to the end."""
    while source.read(MIB):
        pass


@contextmanager
def told_as_damaged() -> Iterator[None]:
    """What the libraries say of a damaged file, in words of ours."""
    try:
        yield
    except _DAMAGED as error:
        raise damaged(f"it is damaged or cut short ({error})") from error
