"""Take only the wanted programs out of many packages, and the closure of the libraries they need."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterable
from fnmatch import fnmatch

from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

from cloudlab.errors import CloudlabError
from cloudlab.images.tree import Tree, normal

_LOADED_BY_NAME = ("usr/lib/x86_64-linux-gnu/libgcc_s.so.1",)  # glibc opens it when a thread is cancelled


def match(files: Tree, patterns: Iterable[str]) -> list[str]:
    """Return the paths of `files` that fit `patterns`; a bare name is a program in /usr/bin, a leading ? lets it be absent."""
    found, absent = list[str](), list[str]()
    for word in patterns:
        pattern = word.lstrip("?")
        path = normal(pattern) if "/" in pattern else f"usr/bin/{pattern}"
        hits = sorted(name for name in files if fnmatch(name, path) or name.startswith(path.rstrip("/") + "/"))
        if not hits and pattern == word:
            absent.append(repr(pattern))
        found += hits
    if absent:
        raise CloudlabError(f"no file fits {', '.join(absent)}")
    return found


def closure(files: Tree, wanted: Iterable[str]) -> Tree:
    """Return `wanted` with the targets of their links and all libraries and loaders they name (elf(5))."""
    library = {posixpath.basename(path): path for path in sorted(files) if ".so" in path and "usr/lib" in path}
    taken, todo = Tree(), list(wanted)
    while todo:
        path = todo.pop()
        if path in taken or path not in files:
            continue
        entry = taken[path] = files[path]
        if entry.is_link:
            todo.append(files.target(path))
        elif entry.is_file and entry.data[:4] == b"\x7fELF":
            for name in needed(entry.data):
                todo.append(normal(name) if name.startswith("/") else library.get(name, ""))
            todo += _LOADED_BY_NAME
    return taken


def needed(program: bytes) -> list[str]:
    """Return the libraries (DT_NEEDED) and the loader (PT_INTERP) that an ELF file names."""
    names: list[str] = []
    for segment in ELFFile(io.BytesIO(program)).iter_segments():
        if isinstance(segment, InterpSegment):
            names.append(segment.get_interp_name())
        elif isinstance(segment, DynamicSegment):
            names += [tag.needed for tag in segment.iter_tags("DT_NEEDED")]
    return names
