"""`cloudlab lab`: the image, the saved state, then JupyterLab on the contents page of the lessons."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import NoReturn

from cloudlab.cli.table import Commands, command
from cloudlab.errors import CloudlabError, UsageError

_COPY = "cloudlab-lessons"
_NOT_FOR_LEARNERS = {".ipynb_checkpoints", "__pycache__", "conftest.py"}
_SETTINGS = Path(__file__).with_name("jupyter")  # labconfig/ in it: the defaults that our JupyterLab starts with


def add(commands: Commands) -> None:
    """Add the command `lab`."""
    parser = command(commands, "lab", run, "open the lessons in JupyterLab")
    parser.add_argument("--no-browser", action="store_true", help="only serve; print the address")
    parser.add_argument(
        "--port", type=int, metavar="N", help="this port and no other; default: a free one from 8888 on"
    )
    parser.add_argument("--lang", choices=("en", "zh"), default="en", help="language of the contents page")


def run(arguments: argparse.Namespace) -> int:
    """Make ready what the first cell needs, then become JupyterLab; returns only if something is missing."""
    if arguments.port is not None:
        _require_free(arguments.port)
    try:
        folder = lessons_folder(Path.cwd())
        _make_ready()
    except CloudlabError as error:
        print(f"cloudlab: {error}", file=sys.stderr)
        return 1
    return _become_jupyterlab(folder, arguments)


def _become_jupyterlab(folder: Path, arguments: argparse.Namespace) -> NoReturn:
    page = contents_page(folder, arguments.lang)
    words = jupyter_words(folder, page, browser=not arguments.no_browser, port=arguments.port, root=os.geteuid() == 0)
    print(f"JupyterLab serves {folder}. Ctrl-C here ends it, and every guest with it.", flush=True)
    os.execve(sys.executable, [sys.executable, *words], jupyter_environment(dict(os.environ)))


def _make_ready() -> None:
    """Build what is not here yet, so that the first cell of a lesson need not wait for it."""
    from cloudlab.images import ImageStore
    from cloudlab.lab import Lab

    if ImageStore().find("node") is None:
        print("The guests' image is built, once: about a minute, most of it downloads.", flush=True)
        ImageStore().build("node")
    with Lab() as lab:
        machine = lab.machine("n1")
        print(f"Guests are ready. {machine.accelerator}.", flush=True)


def _require_free(port: int) -> None:
    try:
        with socket.create_server(("localhost", port)):
            pass
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"Port {port} can't be used: {error}.",
            allowed="a free port from 1024 to 65535, or none: JupyterLab takes a free one",
            example="cloudlab lab",
        ) from error


def lessons_folder(here: Path) -> Path:
    """Return the folder to serve: the lessons where they are, or a copy in `here` if that is no place to write."""
    from cloudlab.teaching.places import lessons_dir

    source = lessons_dir()
    installed = source.parent.name == "_data"  # part of the package: another version would replace it
    if not installed and os.access(source, os.W_OK | os.X_OK):
        return source
    copy = here / _COPY
    try:
        added = copy_new(source, copy)
    except OSError as error:
        raise UsageError(
            f"The lessons can't be copied to {copy}: {error}.",
            allowed="start it in a directory of yours",
            example="cd ~ && cloudlab lab",
        ) from error
    print(f"Your lessons are in {copy} ({added} files copied; what you changed stays).")
    return copy


def copy_new(source: Path, target: Path) -> int:
    """Copy every file that `target` does not have yet; returns how many."""
    added = 0
    for file in sorted(source.rglob("*")):
        there = target / file.relative_to(source)
        if file.is_file() and not there.exists() and _NOT_FOR_LEARNERS.isdisjoint(file.parts):
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, there)
            added += 1
    return added


def contents_page(folder: Path, lang: str) -> str | None:
    """Return the name of the contents page, in that language if there is one; None if there is none at all."""
    names = [f"README.{lang}.md", "README.md"] if lang != "en" else ["README.md"]
    return next((name for name in names if (folder / name).is_file()), None)


def jupyter_words(folder: Path, page: str | None, *, browser: bool, port: int | None, root: bool) -> list[str]:
    """Return JupyterLab's command line: on this computer only, with a token, on the contents page."""
    words = ["-m", "jupyterlab", f"--ServerApp.root_dir={folder}", "--ServerApp.ip=localhost"]
    words += [f"--LabApp.default_url=/lab{f'/tree/{page}' if page else ''}"]
    words += ["--ServerApp.answer_yes=True", "--Application.log_level=WARN", "--LanguageServerManager.autodetect=False"]
    if port is not None:
        words += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    if not browser:
        words.append("--no-browser")
    return [*words, "--allow-root"] if root else words


def jupyter_environment(environment: dict[str, str]) -> dict[str, str]:
    """Add our defaults to JupyterLab's settings (the user's own still win), and `cloudlab` to PATH for its terminals."""
    settings = [str(_SETTINGS), environment.get("JUPYTER_CONFIG_PATH", "")]
    programs = [str(Path(sys.executable).parent), environment.get("PATH", os.defpath)]
    return environment | {
        "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, settings)),
        "PATH": os.pathsep.join(programs),
    }
