"""How long a newcomer waits: for the image, for the page that `make lab` serves, for a lesson from end to end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from benchmarks.bench import Bench
from benchmarks.measure import OURS, Measure, Side, compared, interleave, timed
from cloudlab.images import ImageStore
from cloudlab.paths import cache_directory

_ROOT = Path(__file__).parents[1]
_LESSONS = _ROOT / "lessons"
_LESSON = "0-ground/01-a-computer-inside-a-computer"
_DEADLINE_S, _TOKEN = 120.0, "benchmark"


def image(bench: Bench) -> list[Measure]:
    """The image from packages that are here, in a cache of its own; a first build fetches those that are not."""
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=cache_directory()) as place:
        for part in ("apt", "packages"):
            if (cache_directory() / part).is_dir():
                shutil.copytree(cache_directory() / part, Path(place, part))
        store = ImageStore(Path(place))
        store.build("node")
        side = Side(lambda: {"built": timed(lambda: store.build("node", force=True))}, bench.few)
        return [compared(interleave({OURS: side}), "built", "image: built from downloaded packages", "s", 20)]


def page(bench: Bench) -> list[Measure]:
    """`make lab`, not the first time, to its page of contents; and the same page from JupyterLab alone."""
    subprocess.run(["scripts/setup", "lab"], cwd=_ROOT, check=True)

    def ours() -> dict[str, float]:
        return {"page": _served(["make", "lab", "NO_BROWSER=1", "PORT=%d"])}

    def jupyterlab() -> dict[str, float]:
        words = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.port=%d"]
        return {"page": _served([*words, f"--ServerApp.root_dir={_LESSONS}"])}

    taken = interleave({"jupyter lab": Side(jupyterlab, bench.few), OURS: Side(ours, bench.few)})
    return [compared(taken, "page", "make lab, again: the page is served", "s", 5)]


def _served(command: list[str]) -> float:
    """Start a JupyterLab, and return the seconds to its page of contents; it is ended then, with all it started."""
    port = _free_port()
    words, environment = [word.replace("%d", str(port)) for word in command], {**os.environ, "JUPYTER_TOKEN": _TOKEN}
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        server = subprocess.Popen(
            words, cwd=_ROOT, env=environment, stdout=log, stderr=log, start_new_session=True, stdin=subprocess.DEVNULL
        )
        try:
            while not _answers(f"http://localhost:{port}/lab/tree/README.md?token={_TOKEN}"):
                if server.poll() is not None or time.perf_counter() - began > _DEADLINE_S:
                    log.seek(0)
                    raise RuntimeError(f"{' '.join(words)} served no page; it said:\n{log.read().decode()}")
            return time.perf_counter() - began
        finally:
            _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    """End it and what it started: they are a process group of their own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(10)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass  # all have ended; or it takes its time, and is killed


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_DEADLINE_S) as answer:
            return bool(answer.status == 200 and "/lab/tree/" in answer.url)  # and not the page that asks for a token
    except urllib.error.URLError:
        threading.Event().wait(0.02)  # nobody listens yet
        return False


def _free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return int(server.getsockname()[1])


def lesson(bench: Bench) -> list[Measure]:
    """The first lesson, run as its notebook stands, from the start of the first cell to the end of the last."""
    taken = interleave({OURS: Side(_run_lesson, bench.few)})
    return [compared(taken, "cells", f"lesson {_LESSON.partition('-a-')[0]}: from first to last cell", "s", 60)]


def _run_lesson() -> dict[str, float]:
    file, moments = _LESSONS / f"{_LESSON}.ipynb", []

    def note(**_: Any) -> None:
        moments.append(time.perf_counter())

    client = NotebookClient(
        nbformat.read(file, as_version=4),
        timeout=_DEADLINE_S,
        resources={"metadata": {"path": str(file.parent)}},
        on_cell_start=note,
        on_cell_executed=note,
    )
    client.execute(env={**os.environ, "CLOUDLAB_LESSONS": str(_LESSONS), "CLOUDLAB_STUDENT": ""})
    return {"cells": moments[-1] - moments[0]}
