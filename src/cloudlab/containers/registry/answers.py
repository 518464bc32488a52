"""What endpoints of a registry are made of: what a request names, pages, uploads, and refusals (OCI distribution 1.1)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from cloudlab.containers.registry.blobs import BlobWriter
from cloudlab.containers.registry.names import DIGEST, REPOSITORY
from cloudlab.errors import UsageError

BODY_DEADLINE_S = 30.0  # for the next bytes of an upload
HEADERS = {"Docker-Distribution-Api-Version": "registry/2.0"}


class Refusal(Exception):  # noqa: N818 - an answer, not an error of ours
    """An answer that is no success: status, and the code that the specification has for it ("Error Codes")."""

    def __init__(self, status: HTTPStatus, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})

    def response(self) -> Response:
        """Return it as JSON."""
        body = {"errors": [{"code": self.code, "message": self.message, "detail": None}]}
        return JSONResponse(body, self.status, {**HEADERS, **self.headers})


def name_in(request: Request) -> str:
    """Return the repository that a request names."""
    name = str(request.path_params["name"])
    if not REPOSITORY.fullmatch(name):
        raise Refusal(HTTPStatus.BAD_REQUEST, "NAME_INVALID", f"{name!r} is no name of a repository")
    return name


def digest_in(text: str) -> str:
    """Return a digest if it is one."""
    if not DIGEST.fullmatch(text):
        raise Refusal(HTTPStatus.BAD_REQUEST, "DIGEST_INVALID", f"{text!r} is no SHA-256 digest")
    return text


def unknown_name(name: str) -> Refusal:
    """Return the refusal for a repository that is not here."""
    return Refusal(HTTPStatus.NOT_FOUND, "NAME_UNKNOWN", f"there is no repository {name}")


def unknown_upload() -> Refusal:
    """Return the refusal for an upload that is not under way."""
    return Refusal(HTTPStatus.NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "this upload was not begun, or has ended")


def page(request: Request, path: str, names: list[str], body: Callable[[list[str]], object]) -> Response:
    """Some of a sorted list: `n` of it behind `last`, with a link to the rest (RFC 5988)."""
    last, count = request.query_params.get("last", ""), request.query_params.get("n", "")
    if count and not (count.isascii() and count.isdigit()):
        raise Refusal(HTTPStatus.BAD_REQUEST, "PAGINATION_NUMBER_INVALID", f"n={count!r} is no number")
    behind = [name for name in names if name > last]
    shown = behind[: int(count)] if count else behind
    more = shown and len(shown) < len(behind)
    link = {"Link": f'<{path}?n={count}&last={shown[-1]}>; rel="next"'} if more else {}
    return JSONResponse(body(shown), headers={**HEADERS, **link})


def accepted(name: str, upload: str, writer: BlobWriter, status: HTTPStatus = HTTPStatus.ACCEPTED) -> Response:
    """Answer where an upload goes on, and how far it has come."""
    return Response(status_code=status, headers={**HEADERS, **progress(name, upload, writer)})


def progress(name: str, upload: str, writer: BlobWriter) -> dict[str, str]:
    """Return the headers that say so."""
    where = {"Location": f"/v2/{name}/blobs/uploads/{upload}", "Docker-Upload-UUID": upload}
    return {**where, "Range": f"0-{max(writer.size - 1, 0)}"}


def require_next(request: Request, name: str, upload: str, writer: BlobWriter) -> None:
    """Refuse bytes that are not the next ones of an upload."""
    start = request.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0]
    if start and start != str(writer.size):
        headers = progress(name, upload, writer)
        problem = f"the next byte is {writer.size}, not {start}"
        raise Refusal(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", problem, headers)


async def receive(request: Request, writer: BlobWriter) -> None:
    """Write a request's body, as it comes."""
    pieces = aiter(request.stream())
    try:
        while True:
            async with asyncio.timeout(BODY_DEADLINE_S):
                piece = await anext(pieces, None)
            if piece is None:
                return
            writer.write(piece)
    except TimeoutError as error:
        problem = f"nothing came for {BODY_DEADLINE_S:g} s"
        raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "BLOB_UPLOAD_INVALID", problem) from error
    except ClientDisconnect as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, "BLOB_UPLOAD_INVALID", "the client has gone") from error


def refuse(_: Request, error: Exception) -> Response:
    """Answer what an endpoint raised."""
    if isinstance(error, HTTPException):
        code = "UNSUPPORTED" if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED else "NAME_UNKNOWN"
        return Refusal(HTTPStatus(error.status_code), code, error.detail, error.headers).response()
    if isinstance(error, UsageError):
        return Refusal(HTTPStatus.BAD_REQUEST, "MANIFEST_INVALID", error.problem).response()
    assert isinstance(error, Refusal)
    return error.response()
