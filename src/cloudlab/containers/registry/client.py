"""Push and pull: images between a store and a registry, over the OCI distribution API; what is there is not sent again."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin

import httpx

from cloudlab.containers.registry.blobs import BlobWriter
from cloudlab.containers.registry.image import (
    DOCUMENT_LIMIT,
    INDEXES,
    LAYERS,
    MANIFEST,
    MANIFESTS,
    Descriptor,
    Image,
    amd64_of,
    decoded,
    read_manifest,
    wrong,
)
from cloudlab.containers.registry.names import Reference, digest_of, parse_reference
from cloudlab.containers.registry.store import Store
from cloudlab.errors import MachineError, UsageError
from cloudlab.progress import progress as bar_of

_TRIES = 3  # of a blob whose connection breaks; each goes on where the one before ended
_PIECE = 1 << 20
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)


@dataclass
class Pushed:
    """What a push came to: the image's digest, and its blobs by what had to be done for them."""

    digest: str
    sent: list[Descriptor] = field(default_factory=list)
    mounted: list[Descriptor] = field(default_factory=list)  # the registry had them in another repository
    there: list[Descriptor] = field(default_factory=list)


def push(store: Store, reference: str, *, progress: bool = True) -> Pushed:
    """Send an image to the registry that its name begins with, as the store has it by that name, or without the registry's.

    Raises `UsageError` for an image that is not in the store, `MachineError` for a registry that fails.
    """
    target = _remote(reference)
    source = reference if store.find(reference) else str(target.local)
    image, manifest = store.image(source), store.manifest(source)
    blobs = list({each.digest: each for each in [*manifest.layers, manifest.config]}.values())
    pushed = Pushed(image.digest)
    with _Remote(target) as remote, _bar(blobs, f"push {reference}", progress) as bar:
        for blob in blobs:
            getattr(pushed, remote.send(store, blob)).append(blob)
            bar.update(blob.size)
        remote.put_manifest(store.read_document(image.digest), store.resolve(source), target.tag or image.digest)
    return pushed


def pull(store: Store, reference: str, *, progress: bool = True) -> Image:
    """Fetch an image from the registry that its name begins with, without the blobs that are here; returns it.

    Every digest is checked; the image has its name only when all of it is here, so a pull that is killed leaves the store sound.
    Raises `UsageError` for a name that the registry does not know, `MachineError` for a registry that fails or lies.
    """
    target = _remote(reference)
    with _Remote(target) as remote:
        found, data = remote.manifest(target.digest or target.tag)
        if found.media_type in INDEXES:
            found, data = remote.manifest(amd64_of(data, reference).digest)
        manifest = read_manifest(data, reference)
        for layer in manifest.layers:
            if layer.media_type not in LAYERS:
                raise wrong(reference, f"has a layer of the unknown type {layer.media_type!r}")
        blobs = list({each.digest: each for each in [manifest.config, *manifest.layers]}.values())
        with _bar(blobs, f"pull {reference}", progress) as bar:
            for blob in blobs:
                if not store.has(blob.digest):
                    remote.fetch(store, blob)
                bar.update(blob.size)
    store.add_blob(data, digest=found.digest)
    store.tag(found, reference)
    return store.image(reference)


def _remote(reference: str) -> Reference:
    found = parse_reference(reference)
    if not found.host:
        raise UsageError(
            f"{reference!r} names no registry.",
            allowed="HOST:PORT/NAME:TAG; a Registry has its own in .address",
            example='push(store, f"{registry.address}/web:1")',
        )
    return found


class _NoBar:
    """Where no progress is to be shown."""

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, count: int) -> None:
        """Show nothing."""


def _bar(blobs: list[Descriptor], what: str, shown: bool) -> Any:
    return bar_of(sum(blob.size for blob in blobs), what, unit="B", unit_scale=True) if shown else _NoBar()


def _scheme(host: str) -> str:
    """Without TLS only to this computer, and to the private network that guests are in."""
    name = host.rpartition(":")[0] or host
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return "http" if name == "localhost" else "https"
    return "http" if address.is_loopback or address in ipaddress.ip_network("10.0.0.0/8") else "https"


class _Remote:
    """A repository of a registry."""

    def __init__(self, target: Reference) -> None:
        self._target = target
        self._base = f"{_scheme(target.host)}://{target.host}/v2/{target.repository}/"
        self._client = httpx.Client(timeout=_TIMEOUT, follow_redirects=True, trust_env=False)

    def __enter__(self) -> _Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    # --- up ---

    def send(self, store: Store, blob: Descriptor) -> str:
        """Send a blob if the registry does not have it; returns what had to be done."""
        if self._ask("HEAD", f"blobs/{blob.digest}", HTTPStatus.OK, HTTPStatus.NOT_FOUND).is_success:
            return "there"
        other = self._other_repository(store, blob)
        query = {"mount": blob.digest, "from": other} if other else {}
        begun = self._ask("POST", "blobs/uploads/", HTTPStatus.ACCEPTED, HTTPStatus.CREATED, params=query)
        if begun.status_code == HTTPStatus.CREATED:
            return "mounted"
        where = httpx.URL(urljoin(str(begun.url), begun.headers["Location"])).copy_merge_params({"digest": blob.digest})
        headers = {"Content-Length": str(blob.size), "Content-Type": "application/octet-stream"}
        with store.open_blob(blob.digest) as file:
            pieces = iter(lambda: file.read(_PIECE), b"")
            self._ask("PUT", str(where), HTTPStatus.CREATED, content=pieces, headers=headers)
        return "sent"

    def _other_repository(self, store: Store, blob: Descriptor) -> str:
        """Find an image with that blob that came from, or went to, the same registry by another name."""
        for name in store.names():
            other = parse_reference(name) if name.startswith(self._target.host + "/") else self._target
            if other.repository != self._target.repository and blob in store.layers(name):
                return other.repository
        return ""

    def put_manifest(self, data: bytes, descriptor: Descriptor, reference: str) -> None:
        """Name the image, now that all its parts are there."""
        kind = descriptor.media_type if descriptor.media_type in MANIFESTS else MANIFEST
        kind = decoded(data, reference).get("mediaType", kind)
        self._ask("PUT", f"manifests/{reference}", HTTPStatus.CREATED, content=data, headers={"Content-Type": kind})

    # --- down ---

    def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        """Fetch a manifest by tag or digest, at most as large as one may be."""
        data = b""
        with self._stream(
            "GET", f"manifests/{reference}", headers={"Accept": ", ".join([*MANIFESTS, *INDEXES])}
        ) as response:
            self._require(response, HTTPStatus.OK)
            for piece in response.iter_bytes():
                data += piece
                if len(data) > DOCUMENT_LIMIT:
                    raise self._failure(f"manifest {reference} is larger than {DOCUMENT_LIMIT} bytes")
        digest, kind = digest_of(data), response.headers.get("Content-Type", "").partition(";")[0]
        if reference.startswith("sha256:") and reference != digest:
            raise self._failure(f"gave for {reference} a manifest whose digest is {digest}")
        return Descriptor(decoded(data, reference).get("mediaType") or kind or MANIFEST, digest, len(data)), data

    def fetch(self, store: Store, blob: Descriptor) -> None:
        """Fetch a blob; where the connection breaks, the next one goes on from there."""
        with store.writer() as writer:
            for left in reversed(range(_TRIES)):
                try:
                    self._receive(writer, blob)
                    break
                except httpx.HTTPError as error:
                    if not left:
                        raise self._failure(f"broke off {blob.digest} at byte {writer.size}, {_TRIES} times") from error
            try:
                writer.commit(blob.digest, blob.size)
            except UsageError as error:
                raise self._failure(f"gave something else than was asked for. {error.problem}") from error

    def _receive(self, writer: BlobWriter, blob: Descriptor) -> None:
        if writer.size >= blob.size > 0:
            return
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={writer.size}-"} if writer.size else {})
        with self._client.stream("GET", self._base + f"blobs/{blob.digest}", headers=headers) as response:
            self._require(response, HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT)
            skip = writer.size if response.status_code == HTTPStatus.OK else 0  # a registry that knows no ranges
            for piece in response.iter_raw():  # as it comes: pieces of a size would be lost with the connection
                writer.write(piece[skip:])
                skip = max(0, skip - len(piece))
                if writer.size > blob.size:
                    raise self._failure(f"gave more for {blob.digest} than its {blob.size} bytes")

    # --- both ---

    def _ask(self, method: str, path: str, *expected: HTTPStatus, **options: Any) -> httpx.Response:
        with self._told():
            response = self._client.request(method, urljoin(self._base, path), **options)
        self._require(response, *expected)
        return response

    @contextmanager
    def _stream(self, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
        with self._told(), self._client.stream(method, urljoin(self._base, path), **options) as response:
            yield response

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise self._failure(
                f"can't be reached ({error})", "is it running? Its .address goes before the name"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._failure(f"broke off: {type(error).__name__} {error}") from error

    def _require(self, response: httpx.Response, *expected: HTTPStatus) -> None:
        if response.status_code in expected:
            return
        said = "" if response.request.method == "HEAD" else response.read().decode(errors="replace")[:2000]
        if response.status_code == HTTPStatus.NOT_FOUND and "/manifests/" in response.request.url.path:
            raise UsageError(
                f"Registry {self._target.host} has no image {self._target.local}.",
                allowed="an image that was pushed there",
            )
        if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise UsageError(
                f"Registry {self._target.host} wants to know who asks.", allowed="registries without a login"
            )
        line = f"{response.request.method} {response.request.url.path}"
        raise MachineError(
            f"registry {self._target.host}", f"answered {response.status_code}", command=line, output=said
        )

    def _failure(self, problem: str, hint: str = "") -> MachineError:
        return MachineError(f"registry {self._target.host}", problem, hint=hint)
