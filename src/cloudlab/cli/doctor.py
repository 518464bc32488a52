"""`cloudlab doctor`: look at all that cloudlab stands on; a verdict a line, and what to do about it.

Each check is a function from what was found to a `Verdict`; `_examinations` finds it. Nothing is started, unless `--boot`.
"""

from __future__ import annotations

import argparse
import enum
import importlib.util
import os
import platform
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloudlab.cli.table import Commands, command
from cloudlab.errors import CloudlabError, UsageError
from cloudlab.units import GIB, MIB, format_duration, format_size

if TYPE_CHECKING:
    from cloudlab.images import Image
    from cloudlab.machines.accelerator import Accelerator

_INSTALL = "sudo apt-get install --no-install-recommends"
_OLDEST_PYTHON = (3, 11)


class Level(enum.Enum):
    """How good it is. A warning costs comfort; with a problem, something will not work."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Verdict:
    """What a check came to, and the remedy where it is not well."""

    level: Level
    text: str
    remedy: str = ""


def add(commands: Commands) -> None:
    """Add the command `doctor`."""
    parser = command(commands, "doctor", run, "check all that cloudlab needs here, and say what helps")
    parser.add_argument("--boot", action="store_true", help="also start a guest (builds what is missing first)")


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each check; 1 if there is a problem."""
    worst = 0
    for subject, examine in _examinations(boot=arguments.boot):
        verdict = _judged(examine)
        print(f"{subject:16} {verdict.level.value:8} {verdict.text}", flush=True)
        if verdict.remedy:
            print(f"{'':25} -> {verdict.remedy}")
        worst |= verdict.level is Level.PROBLEM
    return int(worst)


def _judged(examine: Callable[[], Verdict]) -> Verdict:
    try:
        return examine()
    except UsageError as error:
        return problem(error.problem, error.example or error.allowed)
    except CloudlabError as error:
        return problem(str(error).replace("\n", "; "))


def _examinations(*, boot: bool) -> Iterator[tuple[str, Callable[[], Verdict]]]:
    yield "Python", lambda: python(sys.version_info[:3], sys.executable)
    yield "QEMU", _qemu
    yield "qemu-img", lambda: qemu_img(shutil.which("qemu-img"))
    yield "image", _image
    yield "accelerator", _accelerator
    yield "saved states", _saved_states
    yield "memory", _memory
    yield "disk", _disk
    yield "lab directory", _lab_directory
    yield "ports", lambda: ports(_bind_error())
    yield "browser", lambda: browser(_browsers(), _has_screen())
    yield "C compiler", lambda: compiler(_compilers(), zig=importlib.util.find_spec("ziglang") is not None)
    yield "JupyterLab", _jupyterlab
    yield "leftovers", _leftovers
    if boot:
        yield "a guest", _boot


def ok(text: str) -> Verdict:
    """All is well."""
    return Verdict(Level.OK, text)


def warning(text: str, remedy: str) -> Verdict:
    """It works, with less comfort."""
    return Verdict(Level.WARNING, text, remedy)


def problem(text: str, remedy: str = "") -> Verdict:
    """Something will not work."""
    return Verdict(Level.PROBLEM, text, remedy)


# --- the checks: from what was found to a verdict -----------------------------------------------------------------


def python(version: tuple[int, ...], path: str) -> Verdict:
    """Judge the Python that runs this."""
    found = f"{'.'.join(map(str, version))}, {path}"
    if version[:2] < _OLDEST_PYTHON:
        return problem(found, "Python 3.11 or newer: rm -r .venv && make lab PYTHON=python3.11")
    return ok(found)


def qemu(path: str, version: tuple[int, ...]) -> Verdict:
    """Judge a QEMU that `find_qemu` accepted."""
    return ok(f"{'.'.join(map(str, version))}, {path}")


def qemu_img(path: str | None) -> Verdict:
    """Judge the tool that makes disks."""
    return ok(path) if path else problem("there is no qemu-img in PATH", f"{_INSTALL} qemu-utils")


def image(found: Image | None, *, whole: bool) -> Verdict:
    """Judge the image that guests start from."""
    if found is None:
        return warning("not built yet; the first guest waits for it", "cloudlab images build node")
    if not whole:
        return problem(f"{found.directory} is damaged", "cloudlab images build --force node")
    verdict = f"node, Linux {found.kernel_release}, {format_size(found.size)}, whole"
    return ok(f"{verdict}; {len(found.untested)} remarks: cloudlab images show" if found.untested else verdict)


def accelerator(known: Accelerator | None) -> Verdict:
    """Judge what runs the guests' instructions; None: KVM is here, and no guest has been booted under it yet."""
    if known is None:
        return ok("KVM is here, and will be tried by booting a guest; if it fails, TCG does the work")
    return ok(str(known))


def saved_states(count: int, size: int) -> Verdict:
    """Judge the frozen guests that others are copied from."""
    if not count:
        return ok("none yet; the first guest makes one, in about 10 s")
    return ok(f"{count}, {format_size(size)}")


def memory(available: int) -> Verdict:
    """Judge the memory that can be used now without swapping."""
    text = f"{format_size(available)} available"
    if available < 400 * MIB:
        return problem(f"{text}, less than a guest and JupyterLab need (400 MiB)", "close other programs")
    if available < 1 * GIB:
        return warning(f"{text}, enough for a few guests", "close other programs before the lessons with many")
    return ok(text)


def disk(place: Path, free: int, *, built: bool) -> Verdict:
    """Judge the room in the cache, which holds packages, images and saved states."""
    text = f"{format_size(free)} free in {place}"
    needed = 512 * MIB if built else 1 * GIB
    if free < needed:
        return problem(
            f"{text}, and {format_size(needed)} are needed",
            "cloudlab clean --cache, or export CLOUDLAB_CACHE=/path/with/room",
        )
    if free < 3 * GIB:
        return warning(f"{text}, enough for one lesson at a time", "cloudlab clean --cache")
    return ok(text)


def lab_directory(place: Path, longest: int) -> Verdict:
    """Judge the directory of the labs' sockets; `longest`: bytes that its name may have."""
    return ok(f"{place}, {len(os.fsencode(place))} of at most {longest} bytes")


def ports(error: str) -> Verdict:
    """Judge whether a program can listen on this computer's own address."""
    return (
        problem(f"can't listen on localhost: {error}", "allow local connections")
        if error
        else ok("localhost can be listened on")
    )


def browser(names: list[str], screen: bool) -> Verdict:
    """Judge whether JupyterLab will find a browser to open."""
    if names and screen:
        return ok(", ".join(names))
    found = f"no screen here (found: {', '.join(names)})" if names else "none found"
    return warning(found, "make lab NO_BROWSER=1, and open the address it prints in a browser of yours")


def compiler(names: list[str], *, zig: bool) -> Verdict:
    """Judge what compiles the guests' agent, when an image is built."""
    if names:
        return ok(", ".join(names))
    return ok("ziglang, from pip" if zig else "none; ziglang will be fetched by pip when an image is built")


def jupyterlab(version: str) -> Verdict:
    """Judge the notebooks' program."""
    return ok(version) if version else problem("not installed in this Python", "make lab")


def leftovers(dead: list[str], orphans: list[int]) -> Verdict:
    """Judge what labs without an owner have left; `orphans`: processes of labs whose directory is gone."""
    if orphans:
        pids = " ".join(map(str, orphans))
        return problem(f"{len(orphans)} processes belong to labs that are gone", f"kill {pids}; and tell us, please")
    if dead:
        return warning(f"{len(dead)} labs whose owner is gone: {', '.join(dead[:6])}", "cloudlab clean")
    return ok("none")


# --- finding out --------------------------------------------------------------------------------------------------


def _qemu() -> Verdict:
    from cloudlab.machines.qemu import find_qemu, version_of

    path = find_qemu()
    return qemu(path, version_of(path))


def _found_image() -> Image | None:
    from cloudlab.images import ImageStore

    return ImageStore().find("node")


def _image() -> Verdict:
    found = _found_image()
    return image(found, whole=found is not None and found.is_whole())


def _accelerator() -> Verdict:
    from cloudlab.machines import accelerator as accelerators
    from cloudlab.machines.spec import Spec
    from cloudlab.paths import cache_directory

    found = _found_image()
    if found is None:
        nothing = Spec(Path("none"), Path("none"), "")  # a trial is remembered for an image; without one, none is
        return accelerator(accelerators.remembered(nothing, cache_directory()))
    spec = Spec(found.kernel, found.initrd, found.append)
    return accelerator(accelerators.remembered(spec, cache_directory()))


def _saved_states() -> Verdict:
    from cloudlab.cli.clean import disk_size
    from cloudlab.paths import cache_directory

    places = [record.parent for record in (cache_directory() / "states").glob("[!.]*/template.json")]
    return saved_states(len(places), sum(disk_size(place) for place in places))


def _memory() -> Verdict:
    from cloudlab.owner.budget import available_memory

    return memory(available_memory())


def _disk() -> Verdict:
    from cloudlab.paths import cache_directory

    place = cache_directory()
    return disk(place, shutil.disk_usage(place).free, built=_found_image() is not None)


def _lab_directory() -> Verdict:
    from cloudlab.paths import SOCKET_PATH_LIMIT, labs_directory

    return lab_directory(labs_directory(), SOCKET_PATH_LIMIT - 60)


def _bind_error() -> str:
    try:
        with socket.create_server(("localhost", 0)):
            return ""
    except OSError as error:
        return str(error)


def _browsers() -> list[str]:
    names = ("firefox", "chromium", "chromium-browser", "google-chrome", "microsoft-edge", "brave-browser", "epiphany")
    named = os.environ.get("BROWSER", "")
    return ([named] if named else []) + [name for name in names if shutil.which(name)]


def _has_screen() -> bool:
    return platform.system() != "Linux" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )


def _compilers() -> list[str]:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return []  # theirs make programs for another kind of computer than the guests are
    return [path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))][:1]


def _jupyterlab() -> Verdict:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return jupyterlab(version("jupyterlab"))
    except PackageNotFoundError:
        return jupyterlab("")


def _leftovers() -> Verdict:
    import psutil

    from cloudlab.owner import labs
    from cloudlab.paths import labs_directory

    dead = [record.directory.name for record in labs() if not record.alive]
    running = {process.pid: process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])}
    return leftovers(dead, [pid for pid, words in running.items() if is_orphan(words, labs_directory())])


def is_orphan(words: list[str], labs: Path) -> bool:
    """Is this the command line of a QEMU that works in a lab's directory which is gone?"""
    found = re.search(re.escape(f"{labs}/") + r"([0-9a-f]{6})/", " ".join(words)) if "-nodefaults" in words else None
    return found is not None and not (labs / found[1]).is_dir()


def _boot() -> Verdict:
    from cloudlab.lab import Lab

    began = time.monotonic()
    with Lab() as lab:
        said = lab.machine("n1", cold=True).succeed("uname -sr").strip()
        return ok(
            f"{said} said so {format_duration(time.monotonic() - began)} after it was asked; {lab['n1'].accelerator}"
        )
