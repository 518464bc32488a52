"""JupyterLab as `make lab` serves it, and Debian's Chromium to use it with."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ARTEFACTS = ROOT / "test-artifacts"
SERVE_DEADLINE_S = 120


@pytest.fixture(scope="session")
def browser_type_launch_args() -> dict[str, Any]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")  # else Playwright's own, which setup installs
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    quiet += ["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]
    return {"executable_path": chromium, "args": quiet} if chromium else {"args": quiet}


@pytest.fixture(scope="session")
def browser_context_args() -> dict[str, Any]:
    return {"viewport": {"width": 1280, "height": 1000}}


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """Where screenshots are kept to be looked at."""
    ARTEFACTS.mkdir(exist_ok=True)
    return ARTEFACTS


@pytest.fixture(scope="session")
def lessons_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lessons, in a place where saving a notebook changes nothing of ours."""
    copy = tmp_path_factory.mktemp("browser") / "lessons"
    shutil.copytree(ROOT / "lessons", copy, ignore=shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__"))
    return copy


class Served:
    """A running JupyterLab: its address with the token, and its process."""

    def __init__(self, url: str, process: subprocess.Popen[str]) -> None:
        self.url, self.process = url, process

    def page(self, path: str) -> str:
        """Return the address of a page, as in "lab/tree/README.md", with nothing open but that."""
        base, _, token = self.url.partition("/lab")
        return f"{base}/{path}?reset&{token.partition('?')[2]}"


@pytest.fixture(scope="session")
def jupyter(lessons_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("home")
    private = {f"JUPYTER_{kind}_DIR": str(home / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    private |= {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "cloudlab.cli", "lab", "--no-browser", "--port", str(_free_port())],
        env={**os.environ, **private, "CLOUDLAB_LESSONS": str(lessons_copy)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield Served(_address(process), process)
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    assert process.stdout is not None
    process.stdout.close()


def _free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return int(server.getsockname()[1])


def _address(process: subprocess.Popen[str]) -> str:
    """Read the server's words until it names its address."""
    watchdog = threading.Timer(SERVE_DEADLINE_S, process.kill)
    watchdog.start()
    said = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if match := re.search(r"http://(?:localhost|127\.0\.0\.1):\d+/lab\S*token=\w+", line):
            watchdog.cancel()
            threading.Thread(target=lambda: [None for _ in process.stdout or []], daemon=True).start()
            return match[0]
    watchdog.cancel()
    raise AssertionError("JupyterLab did not come up; it said:\n" + "".join(said[-30:]))
