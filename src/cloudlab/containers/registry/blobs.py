"""Blobs on their way into a store: nameless until they are whole, and named by what they are."""

from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from cloudlab.containers.registry.image import LAYER, Descriptor
from cloudlab.errors import UsageError


@dataclass(frozen=True)
class Layer:
    """A layer in the store: the blob, packed, and the digest of its tar unpacked."""

    descriptor: Descriptor
    diff_id: str


class BlobWriter:
    """A blob on its way into the store: `write` it, then `commit`; in a with statement, what is not committed goes."""

    def __init__(self, temporary: Path, blobs: Path) -> None:
        self._blobs, self._hash, self.size = blobs, hashlib.sha256(), 0
        handle, path = tempfile.mkstemp(dir=temporary)
        self._file, self._path = os.fdopen(handle, "wb"), Path(path)

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Append."""
        self._hash.update(data)
        self._file.write(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: who writes through this waits for `commit`."""

    @property
    def digest(self) -> str:
        """Of what was written so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def commit(self, digest: str = "", size: int | None = None) -> str:
        """Give the blob its name, and return it; raises `UsageError` if it is not what was announced."""
        self._file.close()
        if (digest and digest != self.digest) or (size is not None and size != self.size):
            self.discard()
            announced = " ".join([digest, f"of {size} bytes" if size is not None else ""]).strip()
            raise UsageError(
                f"A blob was announced as {announced}, and came as {self.digest} of {self.size} bytes.",
                allowed="the very bytes that the digest names: fetch it again",
            )
        self._path.chmod(0o644)
        self._path.replace(self._blobs / self._hash.hexdigest())
        return self.digest

    def discard(self) -> None:
        """Leave nothing."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


class LayerWriter:
    """A tar on its way into the store as a layer: packed by gzip, the same bytes for the same tar."""

    def __init__(self, blob: BlobWriter) -> None:
        self._blob, self._hash = blob, hashlib.sha256()
        self._gzip = gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=blob, mtime=0)

    def write(self, data: bytes, /) -> int:
        """Append."""
        self._hash.update(data)
        return self._gzip.write(data)

    def commit(self) -> Layer:
        """Give the layer its name."""
        self._gzip.close()
        digest = self._blob.commit()
        return Layer(Descriptor(LAYER, digest, self._blob.size), f"sha256:{self._hash.hexdigest()}")
