"""What a registry answers: the OCI distribution specification 1.1 over a store, an endpoint a function."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from cloudlab.containers.registry.answers import (
    HEADERS,
    Refusal,
    accepted,
    digest_in,
    name_in,
    page,
    receive,
    refuse,
    require_next,
    unknown_name,
    unknown_upload,
)
from cloudlab.containers.registry.blobs import BlobWriter
from cloudlab.containers.registry.image import (
    DOCUMENT_LIMIT,
    INDEX,
    INDEXES,
    MANIFEST,
    MANIFESTS,
    Descriptor,
    decoded,
    encoded,
    parts_of,
)
from cloudlab.containers.registry.names import TAG, digest_of
from cloudlab.containers.registry.repositories import Repositories
from cloudlab.containers.registry.store import Store
from cloudlab.errors import UsageError

_UPLOADS = 1000  # begun and not ended


class Api:
    """The endpoints, with the uploads that were begun and not ended."""

    def __init__(self, store: Store) -> None:
        self._store, self._repositories = store, Repositories(store)
        self._uploads: dict[str, tuple[str, BlobWriter]] = {}

    def app(self) -> Starlette:
        """Return the application."""
        name, upload = "/v2/{name:path}", "/v2/{name:path}/blobs/uploads/{upload}"
        routes = [
            Route("/v2/", self.version),
            Route("/v2/_catalog", self.catalog),
            Route(f"{name}/tags/list", self.tags),
            Route(f"{name}/referrers/{{digest}}", self.referrers),
            Route(f"{name}/blobs/uploads/", self.begin_upload, methods=["POST"]),
            Route(upload, self.upload_status, methods=["GET"]),
            Route(upload, self.continue_upload, methods=["PATCH"]),
            Route(upload, self.end_upload, methods=["PUT"]),
            Route(upload, self.cancel_upload, methods=["DELETE"]),
            Route(f"{name}/blobs/{{digest}}", self.blob),
            Route(f"{name}/manifests/{{reference}}", self.manifest, methods=["GET"]),
            Route(f"{name}/manifests/{{reference}}", self.put_manifest, methods=["PUT"]),
            Route(f"{name}/manifests/{{reference}}", self.delete_manifest, methods=["DELETE"]),
        ]
        return Starlette(routes=routes, exception_handlers={Refusal: refuse, UsageError: refuse, HTTPException: refuse})

    def close(self) -> None:
        """Discard uploads that were not ended."""
        for _, writer in self._uploads.values():
            writer.discard()

    # --- what there is ---

    def version(self, _: Request) -> Response:
        """GET /v2/: this is a registry."""
        return JSONResponse({}, headers=HEADERS)

    def catalog(self, request: Request) -> Response:
        """GET /v2/_catalog: the repositories (docker's; the OCI specification has none)."""
        names = sorted({reference.repository for reference, _ in self._repositories.references()})
        return page(request, "/v2/_catalog", names, lambda shown: {"repositories": shown})

    def tags(self, request: Request) -> Response:
        """GET /v2/NAME/tags/list: the tags, sorted, `n` of them behind `last`."""
        name = name_in(request)
        references = [reference for reference, _ in self._repositories.references(name)]
        if not references:
            raise unknown_name(name)
        tags = sorted(reference.tag for reference in references if reference.tag)
        return page(request, f"/v2/{name}/tags/list", tags, lambda shown: {"name": name, "tags": shown})

    def referrers(self, request: Request) -> Response:
        """GET /v2/NAME/referrers/DIGEST: an index of the manifests whose subject it is."""
        digest, wanted, found = digest_in(request.path_params["digest"]), request.query_params.get("artifactType"), []
        for each in {each.digest: each for _, each in self._repositories.references(name_in(request))}.values():
            document = decoded(self._store.read_document(each.digest), each.digest)
            kind = document.get("artifactType") or (document.get("config") or {}).get("mediaType")
            if (document.get("subject") or {}).get("digest") == digest and wanted in (None, kind):
                annotations = document.get("annotations") or {}
                entry = Descriptor(each.media_type, each.digest, each.size, annotations)
                found.append({**entry.to_json(), "artifactType": kind})
        headers = {"OCI-Filters-Applied": "artifactType"} if wanted else {}
        body = encoded({"schemaVersion": 2, "mediaType": INDEX, "manifests": found})
        return Response(body, headers={**HEADERS, **headers}, media_type=INDEX)

    # --- blobs ---

    def blob(self, request: Request) -> Response:
        """GET, HEAD /v2/NAME/blobs/DIGEST; of a part, with the header Range."""
        digest = digest_in(request.path_params["digest"])
        if not self._repositories.holds(name_in(request), digest):
            raise Refusal(HTTPStatus.NOT_FOUND, "BLOB_UNKNOWN", f"there is no blob {digest} in this repository")
        headers = {**HEADERS, "Docker-Content-Digest": digest, "ETag": f'"{digest}"'}
        return FileResponse(self._store.blob_path(digest), headers=headers, media_type="application/octet-stream")

    async def begin_upload(self, request: Request) -> Response:
        """POST /v2/NAME/blobs/uploads/: begin; with `digest` all at once; with `mount` and `from`, nothing has to be sent."""
        name, query = name_in(request), request.query_params
        mount, other = query.get("mount"), query.get("from")
        if mount and other and self._repositories.holds(other, digest_in(mount)):
            return self._created(name, mount)
        if len(self._uploads) >= _UPLOADS:
            raise Refusal(
                HTTPStatus.TOO_MANY_REQUESTS, "TOOMANYREQUESTS", f"{_UPLOADS} uploads were begun and not ended"
            )
        upload, writer = secrets.token_hex(16), self._store.writer()
        if "digest" not in query:
            self._uploads[upload] = name, writer
            return accepted(name, upload, writer)
        with writer:
            await receive(request, writer)
            return await self._commit(name, writer, query["digest"])

    def upload_status(self, request: Request) -> Response:
        """GET: how far an upload has come."""
        upload = request.path_params["upload"]
        if upload not in self._uploads:
            raise unknown_upload()
        name, writer = self._uploads[upload]
        return accepted(name, upload, writer, HTTPStatus.NO_CONTENT)

    async def continue_upload(self, request: Request) -> Response:
        """PATCH: the next bytes; with the header Content-Range they have to be the next ones."""
        upload, name, writer = self._take(request)
        try:
            require_next(request, name, upload, writer)
            await receive(request, writer)
        finally:
            self._uploads[upload] = name, writer  # also for a client that was cut off: it may ask how far it came
        return accepted(name, upload, writer)

    async def end_upload(self, request: Request) -> Response:
        """PUT with `digest`: the last bytes, if any; the blob is there if they are what was announced."""
        digest = digest_in(request.query_params.get("digest", ""))
        upload, name, writer = self._take(request)
        try:
            require_next(request, name, upload, writer)
            await receive(request, writer)
        except BaseException:
            self._uploads[upload] = name, writer
            raise
        with writer:
            return await self._commit(name, writer, digest)

    async def cancel_upload(self, request: Request) -> Response:
        """DELETE: forget it."""
        _, _, writer = self._take(request)
        writer.discard()
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=HEADERS)

    def _take(self, request: Request) -> tuple[str, str, BlobWriter]:
        """Take an upload out while a request is at it: there is no second one for it at the same time."""
        upload = request.path_params["upload"]
        if upload not in self._uploads:
            raise unknown_upload()
        return upload, *self._uploads.pop(upload)

    async def _commit(self, name: str, writer: BlobWriter, digest: str) -> Response:
        try:
            await run_in_threadpool(writer.commit, digest_in(digest))
        except UsageError as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, "DIGEST_INVALID", error.problem) from error
        return self._created(name, digest)

    def _created(self, name: str, digest: str) -> Response:
        self._repositories.add(name, digest)
        headers = {**HEADERS, "Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest}
        return Response(status_code=HTTPStatus.CREATED, headers=headers)

    # --- manifests ---

    def manifest(self, request: Request) -> Response:
        """GET, HEAD /v2/NAME/manifests/TAG or DIGEST."""
        found = self._manifest(name_in(request), request.path_params["reference"])
        headers = {**HEADERS, "Docker-Content-Digest": found.digest}
        return Response(self._store.read_document(found.digest), headers=headers, media_type=found.media_type)

    def _manifest(self, name: str, reference: str) -> Descriptor:
        references = self._repositories.references(name)
        if not references:
            raise unknown_name(name)
        for each, descriptor in references:
            if reference in (each.tag, descriptor.digest):
                return descriptor
        raise Refusal(HTTPStatus.NOT_FOUND, "MANIFEST_UNKNOWN", f"there is no manifest {reference} in {name}")

    async def put_manifest(self, request: Request) -> Response:
        """PUT /v2/NAME/manifests/TAG or DIGEST, after all the parts that it names."""
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > DOCUMENT_LIMIT:
                raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "SIZE_INVALID", f"more than {DOCUMENT_LIMIT} bytes")
        return await run_in_threadpool(self._put_manifest, request, body)

    def _put_manifest(self, request: Request, body: bytes) -> Response:
        name, reference, digest = name_in(request), request.path_params["reference"], digest_of(body)
        by_digest = ":" in reference
        if by_digest and digest_in(reference) != digest:
            raise Refusal(HTTPStatus.BAD_REQUEST, "DIGEST_INVALID", f"the manifest's digest is {digest}")
        if not by_digest and not TAG.fullmatch(reference):
            raise Refusal(HTTPStatus.BAD_REQUEST, "MANIFEST_INVALID", f"{reference!r} is no tag")
        document, kind = self._judged(name, request, body)
        descriptor = Descriptor(kind, self._store.add_blob(body), len(body))
        self._repositories.keep_by_digest(name, reference, digest)
        self._store.tag(descriptor, f"{name}@{digest}" if by_digest else f"{name}:{reference}")
        subject = (document.get("subject") or {}).get("digest")
        headers = {"Location": f"/v2/{name}/manifests/{reference}", "Docker-Content-Digest": digest}
        return Response(
            status_code=HTTPStatus.CREATED,
            headers={**HEADERS, **headers, **({"OCI-Subject": subject} if subject else {})},
        )

    def _judged(self, name: str, request: Request, body: bytes) -> tuple[dict[str, Any], str]:
        try:
            document, (blobs, manifests) = decoded(body, "the manifest"), parts_of(body, "the manifest")
        except UsageError as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, "MANIFEST_INVALID", error.problem) from error
        sent = request.headers.get("content-type", "").partition(";")[0].strip()
        kind = document.get("mediaType") or sent or MANIFEST
        if kind not in (*MANIFESTS, *INDEXES) or (sent in (*MANIFESTS, *INDEXES) and sent != kind):
            raise Refusal(
                HTTPStatus.BAD_REQUEST, "MANIFEST_INVALID", f"a manifest that calls itself {kind}, sent as {sent}"
            )
        known = {each.digest for _, each in self._repositories.references(name)}
        missing = [each.digest for each in blobs if not self._repositories.holds(name, each.digest)]
        if missing := missing + [each.digest for each in manifests if each.digest not in known]:
            raise Refusal(HTTPStatus.BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN", f"push first: {', '.join(missing)}")
        return document, kind

    def delete_manifest(self, request: Request) -> Response:
        """DELETE by tag: the tag goes; by digest: the manifest and all its tags go."""
        name, reference = name_in(request), request.path_params["reference"]
        found = self._manifest(name, reference)
        if ":" in reference:
            self._store.untag(
                *(str(each) for each, its in self._repositories.references(name) if its.digest == found.digest)
            )
        else:
            self._repositories.keep_by_digest(name, reference)
            self._store.untag(f"{name}:{reference}")
        return Response(status_code=HTTPStatus.ACCEPTED, headers=HEADERS)
