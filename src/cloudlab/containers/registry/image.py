"""Descriptors, manifests and configurations of images, as JSON has them (OCI image specification 1.1, docker schema 2)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloudlab.containers.registry.names import DIGEST
from cloudlab.errors import UsageError

_OCI, _DOCKER = "application/vnd.oci.image.", "application/vnd.docker."
MANIFEST, INDEX = f"{_OCI}manifest.v1+json", f"{_OCI}index.v1+json"
CONFIG, LAYER = f"{_OCI}config.v1+json", f"{_OCI}layer.v1.tar+gzip"
MANIFESTS = (MANIFEST, f"{_DOCKER}distribution.manifest.v2+json")
INDEXES = (INDEX, f"{_DOCKER}distribution.manifest.list.v2+json")
LAYERS = (LAYER, f"{_OCI}layer.v1.tar", f"{_OCI}layer.v1.tar+zstd", f"{_DOCKER}image.rootfs.diff.tar.gzip")
DOCUMENT_LIMIT = 4 << 20  # what the distribution specification lets registries refuse
EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class Descriptor:
    """What a part is, its name by content, and its bytes."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        found: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        found |= {"platform": dict(self.platform)} if self.platform else {}
        return found | ({"annotations": dict(self.annotations)} if self.annotations else {})


@dataclass(frozen=True)
class Manifest:
    """What an image is made of: its configuration, and its layers from the lowest to the highest."""

    config: Descriptor
    layers: tuple[Descriptor, ...]

    def to_bytes(self) -> bytes:
        """Return it as OCI has it; equal manifests are equal bytes."""
        parts = {"config": self.config.to_json(), "layers": [layer.to_json() for layer in self.layers]}
        return encoded({"schemaVersion": 2, "mediaType": MANIFEST, **parts})


@dataclass(frozen=True)
class Config:
    """How an image wants to be run, and what its layers are unpacked (`diff_ids`): OCI image specification, config.md."""

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    exposed_ports: tuple[str, ...] = ()
    diff_ids: tuple[str, ...] = ()
    history: tuple[Mapping[str, Any], ...] = ()
    architecture: str = "amd64"
    os: str = "linux"
    created: str = EPOCH

    @property
    def environment(self) -> dict[str, str]:
        """The variables by name."""
        return {name: value for name, _, value in (each.partition("=") for each in self.env)}

    def to_bytes(self) -> bytes:
        """Return it as OCI has it; equal configurations are equal bytes."""
        run = {
            "Env": list(self.env),
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.cmd),
            "WorkingDir": self.working_dir,
            "User": self.user,
            "Labels": dict(self.labels),
            "ExposedPorts": {port: {} for port in self.exposed_ports},
        }
        return encoded(
            {
                "architecture": self.architecture,
                "os": self.os,
                "created": self.created,
                "config": {name: value for name, value in run.items() if value},
                "rootfs": {"type": "layers", "diff_ids": list(self.diff_ids)},
                "history": [dict(each) for each in self.history],
            }
        )


@dataclass(frozen=True)
class Image:
    """An image in a store: what it is called, its manifest's digest, its configuration and its layers from the lowest up."""

    name: str
    digest: str
    config: Config
    layers: tuple[Descriptor, ...]

    @property
    def size(self) -> int:
        """Bytes of its layers, packed."""
        return sum(layer.size for layer in self.layers)


def encoded(document: Mapping[str, Any]) -> bytes:
    """Write JSON the same way each time."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def wrong(what: str, why: str) -> UsageError:
    """Return the error for a document that is not what it should be."""
    return UsageError(
        f"{what} {why}.", allowed="OCI image specification 1.0, or docker's image manifest version 2, schema 2"
    )


def decoded(data: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise wrong(what, f"is no JSON ({error})") from error
    if not isinstance(document, dict):
        raise wrong(what, "is no JSON object")
    return document


def read_descriptor(document: object, what: str) -> Descriptor:
    """Read a descriptor, which may come from anywhere."""
    if not isinstance(document, dict):
        raise wrong(what, "has something else where a descriptor should be")
    digest, size = document.get("digest"), document.get("size")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise wrong(what, f"names a part {str(digest)[:80]!r}, which is no SHA-256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise wrong(what, f"gives {digest} the size {str(size)[:80]!r}")
    annotations = {str(key): str(value) for key, value in _object(document, "annotations", what).items()}
    return Descriptor(
        str(document.get("mediaType", "")), digest, size, annotations, _object(document, "platform", what)
    )


def read_manifest(data: bytes, what: str) -> Manifest:
    """Read the manifest of an image for one platform."""
    document = decoded(data, what)
    if (kind := document.get("mediaType", MANIFEST)) not in MANIFESTS or "config" not in document:
        raise wrong(what, f"is no manifest of an image, but {str(kind)[:80]!r}")
    layers = tuple(read_descriptor(each, what) for each in _list(document, "layers", what))
    return Manifest(read_descriptor(document["config"], what), layers)


def amd64_of(data: bytes, what: str) -> Descriptor:
    """Return, of an index (an image for many platforms), the one for amd64 and Linux."""
    found = [read_descriptor(each, what) for each in _list(decoded(data, what), "manifests", what)]
    for each in found:
        if (each.platform.get("architecture"), each.platform.get("os")) == ("amd64", "linux"):
            return each
    raise wrong(what, f"has no image for linux/amd64 among its {len(found)}")


def parts_of(data: bytes, what: str) -> tuple[list[Descriptor], list[Descriptor]]:
    """Return what a manifest or an index needs beside it: blobs, and other manifests."""
    document = decoded(data, what)
    blobs = [*([document["config"]] if "config" in document else []), *_list(document, "layers", what)]
    manifests = _list(document, "manifests", what)
    return [read_descriptor(each, what) for each in blobs], [read_descriptor(each, what) for each in manifests]


def read_config(data: bytes, what: str) -> Config:
    """Read the configuration of an image."""
    document = decoded(data, what)
    run, rootfs = _object(document, "config", what), _object(document, "rootfs", what)
    return Config(
        env=_words(run, "Env", what),
        entrypoint=_words(run, "Entrypoint", what),
        cmd=_words(run, "Cmd", what),
        working_dir=str(run.get("WorkingDir") or ""),
        user=str(run.get("User") or ""),
        labels={str(key): str(value) for key, value in _object(run, "Labels", what).items()},
        exposed_ports=tuple(sorted(_object(run, "ExposedPorts", what))),
        diff_ids=_words(rootfs, "diff_ids", what),
        history=tuple(each for each in _list(document, "history", what) if isinstance(each, dict)),
        architecture=str(document.get("architecture", "")),
        os=str(document.get("os", "")),
        created=str(document.get("created") or EPOCH),
    )


def _object(document: Mapping[str, Any], key: str, what: str) -> dict[str, Any]:
    value = document.get(key) or {}
    if not isinstance(value, dict):
        raise wrong(what, f"has in {key!r} no object")
    return value


def _list(document: Mapping[str, Any], key: str, what: str) -> Sequence[Any]:
    value = document.get(key) or []
    if not isinstance(value, list):
        raise wrong(what, f"has in {key!r} no list")
    return value


def _words(document: Mapping[str, Any], key: str, what: str) -> tuple[str, ...]:
    return tuple(map(str, _list(document, key, what)))
