"""The layers of the design: a room imports only from rooms below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "cloudlab"

# From the ground up; rooms of one line are siblings and do not import each other.
LAYERS = [
    {"errors", "units", "paths", "progress"},
    {"owner"},
    {"images"},
    {"machines", "networks"},
    {"containers", "hypervisors"},
    {"openstack", "kubernetes"},
    {"delivery"},
    {"views"},
    {"teaching"},
    {"lab"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
FILES = sorted(path for path in SOURCE.rglob("*.py") if path.name != "__init__.py" or path.parent != SOURCE)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        yield from ((node.lineno, name.split(".")[1]) for name in names if name.startswith("cloudlab."))


@pytest.mark.parametrize("path", FILES, ids=[path.relative_to(SOURCE).as_posix() for path in FILES])
def test_a_room_imports_only_from_rooms_below(path: Path) -> None:
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    for line, other in imports(path):
        if other in LEVEL and other != room:
            allowed = LEVEL[other] < LEVEL[room] or LEVEL[room] == 0
            assert allowed, f"{path.name}:{line}: {room} may not import {other}"


def test_every_room_says_what_it_is_for() -> None:
    for room in (path for path in SOURCE.iterdir() if path.is_dir() and (path / "__init__.py").exists()):
        assert ast.get_docstring(ast.parse((room / "__init__.py").read_text())), room.name
        assert room.name in LEVEL, f"{room.name} has no place in the layers"
