"""Compile what of ours runs in the guest: each a static x86-64 program, by the C compiler here or by zig's."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cloudlab.errors import CloudlabError
from cloudlab.progress import say

_FLAGS = ["-static", "-Os", "-s", "-Wl,--build-id=none"]
_ZIG = "ziglang>=0.13,<0.18"
_TARGET = ["cc", "-target", "x86_64-linux-musl"]


def compile_static(source: Path, tools: Path) -> bytes:
    """Compile a C file to a static Linux program for x86-64; `tools` is where a fetched compiler is kept.

    Raises `CloudlabError`: what is wrong with the source, or the compilers that were tried and what each said.
    """
    said: list[str] = []
    for compiler in _compilers(tools, said):
        try:
            return _compile(compiler, source.read_text(), tools)
        except CloudlabError as error:
            if _can_compile(compiler, tools):
                raise CloudlabError(f"{source} does not compile: {error}") from error
            said.append(str(error))
    raise CloudlabError(
        f"no C compiler here makes {source.name} a static program.\n"
        + "\n".join(said)
        + f"\nWay out: pip install '{_ZIG}', or apt-get install gcc libc6-dev"
    )


def _compile(compiler: list[str], program: str, tools: Path) -> bytes:
    with tempfile.TemporaryDirectory(prefix=".compiling-", dir=tools) as folder:
        (Path(folder) / "program.c").write_text(program)  # a fixed name: no path of this computer gets into the program
        _run([*compiler, *_FLAGS, "-o", "program", "program.c"], Path(folder), tools)
        return (Path(folder) / "program").read_bytes()


def _can_compile(compiler: list[str], tools: Path) -> bool:
    """Tell a compiler that can't make static programs (no libc.a, say) from a source that is wrong."""
    try:
        return bool(_compile(compiler, '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n', tools))
    except CloudlabError:
        return False


def _compilers(tools: Path, said: list[str]) -> Iterator[list[str]]:
    """The system's own first, where it makes programs for x86-64 Linux; then zig's, fetched only when its turn comes."""
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        found = [path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))]
        yield from ([path] for path in {os.path.realpath(path): path for path in reversed(found)}.values())
    if importlib.util.find_spec("ziglang"):
        yield [sys.executable, "-m", "ziglang", *_TARGET]
        return
    try:
        yield [str(_fetched_zig(tools)), *_TARGET]
    except CloudlabError as error:
        said.append(str(error))


def _fetched_zig(tools: Path) -> Path:
    """Fetch zig with pip, once; a fetch that was broken off has no name and is not taken for a whole one."""
    place = tools / "ziglang"
    if not place.is_dir():
        say("no C compiler here makes static programs: pip fetches one (zig, 100 MB; 500 MB of disk)")
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=tools) as folder:
            _run([sys.executable, "-m", "pip", "install", "--quiet", "--target", "new", _ZIG], Path(folder), tools)
            (Path(folder) / "new").rename(place)
    return place / "ziglang" / "zig"


def _run(command: list[str], folder: Path, tools: Path) -> None:
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "TMPDIR": str(folder),
        "ZIG_GLOBAL_CACHE_DIR": str(tools / "ziglang-cache"),  # not in HOME, which may not be writable
        "ZIG_LOCAL_CACHE_DIR": str(folder / "zig-cache"),
    }
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CloudlabError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise CloudlabError(f"{' '.join(command[:4])}: exit status {done.returncode}: {done.stderr.strip()[-400:]}")
