"""Seals: an answer written so that a glance at the questions file does not give it away.

A seal hides from the eye, not from a determined reader: the key is the question's place (`"2.answer"`), so
that equal answers look different, and a seal copied to another question is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import tomllib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloudlab.errors import UsageError

SECRETS = ("answer", "low", "high", "explanation")
_PREFIX = "sealed:"
_KEY = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=")


def seal(value: Any, place: str) -> str:
    """Seal a JSON-like value for a place such as `"2.answer"`; the same two always give the same text."""
    plain = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    # Not compressed: zlib's output differs between its builds, and the text is committed.
    checked = zlib.crc32(plain).to_bytes(4, "big") + plain
    return _PREFIX + base64.urlsafe_b64encode(_mask(checked, place)).decode()


def unseal(text: str, place: str) -> Any:
    """Open what `seal` closed; UsageError when the text is damaged or was sealed for another place."""
    try:
        checked = _mask(base64.b64decode(text.removeprefix(_PREFIX), altchars=b"-_", validate=True), place)
        if zlib.crc32(checked[4:]) != int.from_bytes(checked[:4], "big"):
            raise ValueError("the checksum differs")
        return json.loads(checked[4:])
    except (binascii.Error, ValueError) as error:
        raise UsageError(
            f"The seal of {place} can't be opened ({error}): damaged, or copied from another question.",
            allowed="the text as `seal` wrote it, or the plain value to be sealed again",
            example="python -m cloudlab.teaching seal lessons/0-ground/01-name.questions.toml",
        ) from error


def is_sealed(value: object) -> bool:
    """Whether a value of a questions file is a seal."""
    return isinstance(value, str) and value.startswith(_PREFIX)


def reveal(path: Path) -> list[dict[str, Any]]:
    """The questions of a file as plain tables, for teachers and for `load_questions`."""
    questions = read_questions(path)
    for question in questions:
        for key in SECRETS:
            if is_sealed(question.get(key)):
                question[key] = unseal(question[key], f"{question.get('id')}.{key}")
    return questions


def seal_file(path: Path) -> bool:
    """Seal what is plain in a questions file, in place; tell whether anything was.

    Everything else keeps its text, but for a comment on the line of a secret (it may tell the secret).
    """
    text = path.read_text(encoding="utf-8")
    before = reveal(path)
    sealed = "".join(_seal_statements(text, [question.get("id") for question in before]))
    left = [key for question in tomllib.loads(sealed).get("question", []) for key in unsealed(question)]
    if left:
        raise UsageError(
            f"{path}: {left[0]} can't be sealed as it is written.",
            allowed="one `key = value` directly under [[question]]",
            example='explanation = { en = "…", zh = "…" }',
        )
    if sealed != text:
        path.write_text(sealed, encoding="utf-8")
        if reveal(path) != before:
            path.write_text(text, encoding="utf-8")
            raise AssertionError(f"{path}: sealing would have changed the questions")
    return sealed != text


def unsealed(question: dict[str, Any]) -> list[str]:
    """The places of one question table that still stand in plain text."""
    return [f"{question.get('id')}.{key}" for key in SECRETS if key in question and not is_sealed(question[key])]


def read_questions(path: Path) -> list[dict[str, Any]]:
    """The `[[question]]` tables of a file as they stand, sealed or not."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("question", [])
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"{path} is not TOML: {error}",
            allowed="one [[question]] for each question",
            example='kind = "number"',
        ) from error
    return list(tables)


def _mask(data: bytes, place: str) -> bytes:
    """XOR with a stream made from the place; doing it twice gives the data back."""
    stream = hashlib.shake_256(place.encode()).digest(len(data))
    return bytes(left ^ right for left, right in zip(data, stream, strict=True))


def _seal_statements(text: str, ids: list[Any]) -> Iterator[str]:
    number = -1
    for statement in _statements(text):
        number += statement.startswith("[[question]]")
        key = _KEY.match(statement)
        if key and key[1] in SECRETS and number >= 0:
            value = tomllib.loads(statement)[key[1]]
            if not is_sealed(value):
                yield f'{key[1]} = "{seal(value, f"{ids[number]}.{key[1]}")}"\n'
                continue
        yield statement


def _statements(text: str) -> Iterator[str]:
    """Cut TOML text into lines, keeping a value that runs over several lines in one piece."""
    held = ""
    for line in text.splitlines(keepends=True):
        held += line
        try:
            tomllib.loads(held)
        except tomllib.TOMLDecodeError:
            continue
        yield held
        held = ""
    yield held
