"""A store of images on disk: an OCI image layout, in which every part has its SHA-256 as its name and is there once.

OCI image specification 1.1, image-layout.md. What is written gets its name only when it is whole and its digest is right:
a writer that is killed leaves nothing but a nameless file in tmp/.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from cloudlab.containers.registry.blobs import BlobWriter, Layer, LayerWriter
from cloudlab.containers.registry.image import (
    CONFIG,
    DOCUMENT_LIMIT,
    INDEX,
    INDEXES,
    MANIFEST,
    Config,
    Descriptor,
    Image,
    Manifest,
    amd64_of,
    decoded,
    encoded,
    parts_of,
    read_config,
    read_descriptor,
    read_manifest,
    wrong,
)
from cloudlab.containers.registry.names import Readable, parse_reference, require_digest
from cloudlab.errors import MachineError, UsageError

NAME = "org.opencontainers.image.ref.name"
SPARED_S = 3600.0  # what garbage_collect leaves alone: parts of an image that somebody is just about to name
_LOCK_DEADLINE_S = 60.0
_PIECE = 1 << 20


class Store:
    """The images in `directory`, which is made if it is not there; any number of processes may use it at a time."""

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        for folder in ("blobs/sha256", "tmp", "cache"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
        self._layout, self._index = self.directory / "oci-layout", self.directory / "index.json"
        if not (self._layout.exists() and self._index.exists()):
            with self._sole_writer():
                if not self._layout.exists():
                    self._replace(self._layout, encoded({"imageLayoutVersion": "1.0.0"}))
                if not self._index.exists():
                    self._write_index([])

    # --- blobs ---

    def blob_path(self, digest: str) -> Path:
        """Return where a blob is, or would be."""
        return self.directory / "blobs" / "sha256" / require_digest(digest).removeprefix("sha256:")

    def has(self, digest: str) -> bool:
        """Tell if a blob is here; if so, `garbage_collect` spares it for a while, as git does with objects asked for."""
        try:
            os.utime(self.blob_path(digest))
        except FileNotFoundError:
            return False
        except PermissionError:  # of somebody else: to read, not to keep
            return self.blob_path(digest).exists()
        return True

    def writer(self) -> BlobWriter:
        """Return a writer for a blob that comes in pieces."""
        return BlobWriter(self.directory / "tmp", self.directory / "blobs" / "sha256")

    def add_blob(self, source: bytes | Readable, *, digest: str = "", size: int | None = None) -> str:
        """Add a blob, and return its digest; raises `UsageError` if it is not the `digest` and `size` that were announced."""
        with self.writer() as blob:
            if isinstance(source, bytes):
                blob.write(source)
            else:
                while piece := source.read(_PIECE):
                    blob.write(piece)
            return blob.commit(digest, size)

    @contextmanager
    def layer_writer(self) -> Iterator[LayerWriter]:
        """Give a writer for a layer's tar; what is not committed goes."""
        with self.writer() as blob:
            yield LayerWriter(blob)

    def open_blob(self, digest: str) -> BinaryIO:
        """Open a blob; raises `UsageError` if it is not here."""
        try:
            return self.blob_path(digest).open("rb")
        except FileNotFoundError as error:
            raise UsageError(
                f"There is no blob {digest} in {self.directory}.", allowed="a digest of a part that is here"
            ) from error

    def read_document(self, digest: str) -> bytes:
        """Read a manifest or a configuration, whole."""
        with self.open_blob(digest) as file:
            data = file.read(DOCUMENT_LIMIT + 1)
        if len(data) > DOCUMENT_LIMIT:
            raise wrong(digest, "is too large for a document")
        return data

    # --- names ---

    def descriptors(self) -> list[Descriptor]:
        """Return what index.json lists; those that have a name have it in an annotation."""
        document = decoded(self._index.read_bytes(), str(self._index))
        found = document.get("manifests") or []
        return [read_descriptor(each, str(self._index)) for each in found] if isinstance(found, list) else []

    def names(self) -> dict[str, Descriptor]:
        """Return all names, and what each stands for."""
        return {name: each for each in self.descriptors() if (name := each.annotations.get(NAME))}

    def find(self, reference: str) -> Descriptor | None:
        """Return what a name stands for: as it is written in index.json, or in full ("web" is web:latest), or by digest."""
        names = self.names()
        if reference in names:
            return names[reference]
        parsed = parse_reference(reference)
        if found := names.get(str(parsed)):
            return found
        return next((each for each in self.descriptors() if parsed.digest and each.digest == parsed.digest), None)

    def resolve(self, reference: str) -> Descriptor:
        """Return what a name stands for; raises `UsageError` that lists the names that are here."""
        if found := self.find(reference):
            return found
        known = ", ".join(sorted(self.names())) or "none yet: build or pull one"
        raise UsageError(f"There is no image {reference!r} in {self.directory}.", allowed=known)

    def tag(self, source: str | Descriptor, reference: str) -> None:
        """Let `reference` stand for an image (given by a name, or what `resolve` returned), whatever it stood for before."""
        name = str(parse_reference(reference))
        target = self.resolve(source) if isinstance(source, str) else source
        if not self.has(target.digest):
            raise UsageError(f"There is no manifest {target.digest} in {self.directory}, and so no {name!r}.")
        named = replace(target, annotations={**target.annotations, NAME: name})
        with self._sole_writer():
            self._write_index([each for each in self.descriptors() if each.annotations.get(NAME) != name] + [named])

    def untag(self, *references: str) -> None:
        """Take names away; what no name leads to goes when garbage is collected."""
        with self._sole_writer():
            gone = [self._own_name(reference) for reference in references if self.resolve(reference)]
            self._write_index([each for each in self.descriptors() if each.annotations.get(NAME) not in gone])

    def _own_name(self, reference: str) -> str:
        return reference if reference in self.names() else str(parse_reference(reference))

    # --- images ---

    def add_image(self, config: Config, layers: tuple[Descriptor, ...], reference: str) -> Image:
        """Write configuration and manifest of an image whose layers are here, and name it."""
        data = config.to_bytes()
        manifest = Manifest(Descriptor(CONFIG, self.add_blob(data), len(data)), layers).to_bytes()
        self.tag(Descriptor(MANIFEST, self.add_blob(manifest), len(manifest)), reference)
        return self.image(reference)

    def manifest(self, reference: str) -> Manifest:
        """Return an image's manifest; of an image for many platforms, that for amd64."""
        return self._manifest(reference)[1]

    def config(self, reference: str) -> Config:
        """Return an image's configuration."""
        config = self.manifest(reference).config.digest
        return read_config(self.read_document(config), config)

    def layers(self, reference: str) -> tuple[Descriptor, ...]:
        """Return an image's layers, from the lowest to the highest."""
        return self.manifest(reference).layers

    def image(self, reference: str) -> Image:
        """Return an image; raises `UsageError` if it is not here."""
        digest, manifest = self._manifest(reference)
        config = read_config(self.read_document(manifest.config.digest), manifest.config.digest)
        return Image(self._own_name(reference), digest, config, manifest.layers)

    def images(self) -> list[Image]:
        """Return all images that have names, sorted by them."""
        return [self.image(name) for name in sorted(self.names())]

    def _manifest(self, reference: str) -> tuple[str, Manifest]:
        found = self.resolve(reference)
        if found.media_type in INDEXES:
            found = amd64_of(self.read_document(found.digest), found.digest)
        return found.digest, read_manifest(self.read_document(found.digest), found.digest)

    # --- what builds were made of ---

    def remember(self, key: str, layer: Layer) -> None:
        """Note the layer that a step of a build came to; `key` is a hash of all that went into it."""
        self._replace(self.directory / "cache" / key, encoded({"diff_id": layer.diff_id, **layer.descriptor.to_json()}))

    def recall(self, key: str) -> Layer | None:
        """Return the layer that a step came to before, if it is still here."""
        try:
            data = (self.directory / "cache" / key).read_bytes()
        except FileNotFoundError:
            return None
        layer = Layer(read_descriptor(decoded(data, key), key), str(decoded(data, key)["diff_id"]))
        return layer if self.has(layer.descriptor.digest) else None

    # --- garbage ---

    def garbage_collect(self, *, spare_s: float = SPARED_S) -> int:
        """Remove what no name leads to, but nothing used in the last `spare_s` seconds; returns the bytes that are free again."""
        until, freed = time.time() - spare_s, 0
        with self._sole_writer():
            live = self._live()
            for path in [*(self.directory / "blobs" / "sha256").iterdir(), *(self.directory / "tmp").iterdir()]:
                with contextlib.suppress(FileNotFoundError):  # another process has finished or discarded it
                    found = path.stat()
                    if path.name not in live and found.st_mtime <= until:
                        path.unlink()
                        freed += found.st_size
            self._forget()
        return freed

    def _forget(self) -> None:
        for path in (self.directory / "cache").iterdir():
            digest = read_descriptor(decoded(path.read_bytes(), path.name), path.name).digest
            if not self.blob_path(digest).exists():
                path.unlink(missing_ok=True)

    def _live(self) -> set[str]:
        live: set[str] = set()
        waiting = [each.digest for each in self.descriptors()]
        while waiting:
            digest = waiting.pop()
            if digest in live:
                continue
            live.add(digest)
            if self.blob_path(digest).exists():
                parts, manifests = parts_of(self.read_document(digest), digest)
                live.update(part.digest for part in parts)
                waiting += [manifest.digest for manifest in manifests]
        return {digest.removeprefix("sha256:") for digest in live}

    def size(self) -> int:
        """Return the bytes of all blobs: parts that images share count once."""
        return sum(path.stat().st_size for path in (self.directory / "blobs" / "sha256").iterdir())

    # --- index.json ---

    @contextmanager
    def _sole_writer(self) -> Iterator[None]:
        try:
            with FileLock(self.directory / "lock", timeout=_LOCK_DEADLINE_S):
                yield
        except Timeout as error:
            raise MachineError(
                f"store {self.directory}", f"another process has held its lock for {_LOCK_DEADLINE_S:g} s"
            ) from error

    def _write_index(self, descriptors: list[Descriptor]) -> None:
        manifests = [each.to_json() for each in descriptors]
        self._replace(self._index, encoded({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}))

    def _replace(self, path: Path, data: bytes) -> None:
        """Readers find the old file or the new one, never half of it: rename(2) replaces at once."""
        handle, temporary = tempfile.mkstemp(dir=self.directory / "tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
