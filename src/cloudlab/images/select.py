"""Take only the wanted programs out of many packages, and the closure of the libraries they need."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterable
from fnmatch import fnmatch

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

from cloudlab.errors import CloudlabError
from cloudlab.images.tree import Tree, normal

_LOADED_BY_NAME = "usr/lib/x86_64-linux-gnu/libgcc_s.so.1"  # glibc opens it when a thread is cancelled


def match(files: Tree, patterns: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the paths of `files` that fit `patterns`, and the patterns that nothing fits.

    A bare name is a program in /usr/bin; a pattern with a slash is a path, and a directory takes all in it;
    * ? [ ] as in fnmatch(3); a leading ? lets it be absent.
    """
    found, absent = list[str](), list[str]()
    for word in patterns:
        pattern = word.removeprefix("?")
        path = normal(pattern) if "/" in pattern else f"usr/bin/{pattern}"
        hits = sorted(name for name in files if fnmatch(name, path) or name.startswith(path + "/"))
        if not hits and pattern == word:
            absent.append(pattern)
        found += hits
    return found, absent


def closure(files: Tree, wanted: Iterable[str]) -> tuple[Tree, list[str]]:
    """Return `wanted` with the targets of its links and all libraries and loaders it names (elf(5)).

    Second, a line for each library that is needed and not in `files`.
    """
    library = _libraries(files)
    taken, absent, todo = Tree(), list[str](), list(wanted)
    while todo:
        path = todo.pop()
        if path in taken or path not in files:
            continue
        entry = taken[path] = files[path]
        if entry.is_link:
            todo.append(files.target(path))
        elif entry.is_file and entry.data[:4] == b"\x7fELF":
            names = _needed_by(path, entry.data)
            absent += [f"{path} needs {name}" for name in names if posixpath.basename(name) not in library]
            todo += [library[base] for name in names if (base := posixpath.basename(name)) in library]
            todo.append(_LOADED_BY_NAME)
    return taken, sorted(absent)


def _libraries(files: Tree) -> dict[str, str]:
    """Names to paths; of several libraries of one name the one that lies nearest to /usr/lib is the public one."""
    candidates = [path for path in files if path.startswith("usr/lib") and ".so" in posixpath.basename(path)]
    nearest_last = sorted(candidates, key=lambda path: (-path.count("/"), path))
    return {posixpath.basename(path): path for path in nearest_last}


def _needed_by(path: str, program: bytes) -> list[str]:
    try:
        return needed(program)
    except (ELFError, ValueError, KeyError) as error:
        raise CloudlabError(f"{path} is not a whole ELF file: {error}") from error


def needed(program: bytes) -> list[str]:
    """Return the libraries (DT_NEEDED) and the loader (PT_INTERP) that an ELF file names."""
    names: list[str] = []
    for segment in ELFFile(io.BytesIO(program)).iter_segments():
        if isinstance(segment, InterpSegment):
            names.append(segment.get_interp_name())
        elif isinstance(segment, DynamicSegment):
            names += [getattr(tag, "needed") for tag in segment.iter_tags("DT_NEEDED")]  # noqa: B009
    return names
