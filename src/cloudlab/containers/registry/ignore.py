"""Which files of a build directory stay out of a build: .containerignore or .dockerignore, patterns as docker has them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FILES = (".containerignore", ".dockerignore")


@dataclass(frozen=True)
class Ignored:
    """Patterns in their order, the last that fits decides: `*` and `?` within a name, `**` over directories, `!` takes back."""

    patterns: tuple[tuple[bool, re.Pattern[str]], ...] = ()

    def __contains__(self, path: str) -> bool:
        """Tell if a path of the build directory, or a directory that it is in, is ignored."""
        parts = path.split("/")
        lead = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
        ignored = False
        for ignores, pattern in self.patterns:
            if ignores is not ignored and any(pattern.fullmatch(each) for each in lead):
                ignored = ignores
        return ignored

    @property
    def prunes(self) -> bool:
        """Tell if nothing in an ignored directory can be taken back."""
        return all(ignores for ignores, _ in self.patterns)


def parse_ignore(lines: Sequence[str]) -> Ignored:
    """Read the lines of an ignore file; those that begin with # are comments."""
    found = []
    for line in map(str.strip, lines):
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!").strip().strip("/").removeprefix("./")
            found.append((not line.startswith("!"), re.compile(_expression(pattern), re.DOTALL)))
    return Ignored(tuple(found))


def read_ignore(directory: Path) -> Ignored:
    """Read a build directory's ignore file, if it has one."""
    for name in FILES:
        if (directory / name).is_file():
            return parse_ignore((directory / name).read_text(errors="surrogateescape").splitlines())
    return Ignored()


def _expression(pattern: str) -> str:
    words = {"**/": "(?:.*/)?", "/**": "/.*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens = re.findall(r"\*\*/|/\*\*$|\*\*|\*|\?|\[[^]/]+\]|\\.|.", pattern, re.DOTALL)
    return "".join(words.get(token) or _single(token) for token in tokens)


def _single(token: str) -> str:
    if len(token) > 2 and token.startswith("["):
        return "[" + ("^" if token[1] in "^!" else "") + re.escape(token[1:-1].lstrip("^!")).replace(r"\-", "-") + "]"
    return re.escape(token[-1] if token.startswith("\\") else token)
