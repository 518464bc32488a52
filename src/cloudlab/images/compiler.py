"""Compile the agent that runs in the guest: one static x86-64 program, by the C compiler that is here or by zig's."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cloudlab.errors import CloudlabError

_FLAGS = ["-static", "-Os", "-s", "-Wl,--build-id=none"]
_ZIG = "ziglang>=0.13,<0.18"


def compile_static(source: Path, tools: Path) -> bytes:
    """Compile a C file to a static Linux program for x86-64; `tools` is where a fetched compiler may be kept.

    Raises `CloudlabError` with the compilers that were tried and what each said.
    """
    said = []
    for compiler in _compilers(tools):
        with tempfile.TemporaryDirectory(prefix="cloudlab-cc-") as folder:
            shutil.copy(source, Path(folder) / "agent.c")  # a fixed name: no path of this computer gets into the program
            try:
                _run([*compiler, *_FLAGS, "-o", "program", "agent.c"], Path(folder))
                return (Path(folder) / "program").read_bytes()
            except CloudlabError as error:
                said.append(str(error))
    raise CloudlabError(
        f"no C compiler here makes {source.name} a static program.\n"
        + "\n".join(said)
        + f"\nWay out: pip install '{_ZIG}', or apt-get install gcc libc6-dev"
    )


def _compilers(tools: Path) -> Iterator[list[str]]:
    """The system's own first, where it makes programs for x86-64 Linux; then zig's, fetched only when its turn comes."""
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        yield from ([path] for name in ("cc", "gcc", "clang") if (path := shutil.which(name)))
    if importlib.util.find_spec("ziglang"):
        yield [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-musl"]
        return
    place = tools / "ziglang"
    if not (place / "ziglang").is_dir():
        _run([sys.executable, "-m", "pip", "install", "--quiet", "--target", str(place), _ZIG], tools)
    yield [str(place / "ziglang" / "zig"), "cc", "-target", "x86_64-linux-musl"]


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CloudlabError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise CloudlabError(f"{' '.join(command[:4])}: exit status {done.returncode}: {done.stderr.strip()[-400:]}")
