"""What images are called (registry:5000/team/web:1), and what their parts are called: by what they contain (sha256:…)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import BinaryIO, Protocol

from cloudlab.errors import UsageError

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
REPOSITORY = re.compile(
    r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
)  # OCI distribution 1.1
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"({_LABEL}(\.{_LABEL})*|\[[0-9a-fA-F:]+\])(:[0-9]{{1,5}})?")
_PIECE = 1 << 20


class Readable(Protocol):
    """What has contents to read."""

    def read(self, size: int = ..., /) -> bytes:
        """Return at most `size` bytes; none at the end."""


class Writable(Protocol):
    """What takes bytes."""

    def write(self, data: bytes, /) -> int:
        """Append all of them."""


@dataclass(frozen=True)
class Reference:
    """The name of an image: of the registry that has it (if any), of the repository in it, and a tag or a digest."""

    repository: str
    tag: str = ""
    digest: str = ""
    host: str = ""

    def __str__(self) -> str:
        place = f"{self.host}/" if self.host else ""
        return (
            place + self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")
        )

    @property
    def local(self) -> Reference:
        """The same without the registry's name."""
        return replace(self, host="")


def parse_reference(text: str) -> Reference:
    """Read "web", "web:1", "registry:5000/team/web@sha256:…"; without tag and digest it is the tag "latest".

    The first part is a host if there is a dot or a port in it, or if it is localhost, as docker has it.
    """
    rest, _, digest = text.partition("@")
    host, slash, path = rest.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, path = "", rest
    repository, _, tag = path.partition(":")
    right = REPOSITORY.fullmatch(repository) and (not tag or TAG.fullmatch(tag)) and (not host or _HOST.fullmatch(host))
    if not right or path.endswith(":") or ("@" in text and not DIGEST.fullmatch(digest)):
        raise UsageError(
            f"{text!r} is not the name of an image.",
            allowed="[HOST:PORT/]NAME[:TAG][@sha256:64 HEX DIGITS], NAME in small letters, digits, and . _ - / between them",
            example="web:1, localhost:5000/team/web:1",
        )
    return Reference(repository, tag or ("" if digest else "latest"), digest, host)


def digest_of(data: bytes | Readable | BinaryIO) -> str:
    """Return the digest of bytes, or of a file from where it stands: "sha256:" and 64 digits."""
    if isinstance(data, bytes):
        return f"sha256:{hashlib.sha256(data).hexdigest()}"
    found = hashlib.sha256()
    while piece := data.read(_PIECE):
        found.update(piece)
    return f"sha256:{found.hexdigest()}"


def require_digest(text: str) -> str:
    """Return the digest if it is one."""
    if not DIGEST.fullmatch(text):
        raise UsageError(f"{text!r} is not a digest.", allowed="sha256: and 64 digits 0-9a-f")
    return text
