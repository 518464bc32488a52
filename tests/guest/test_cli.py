"""The command line with real guests: what is listed, cleaned, booted and served."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import psutil
import pytest

from cloudlab import Lab

pytestmark = pytest.mark.guest

CLOUDLAB = [sys.executable, "-m", "cloudlab.cli"]
OWNER = 'from cloudlab import Lab; lab = Lab(); print(lab.machine("n1").running.child.pid, flush=True); input()'
PROMPT = r"root@n1:~# "
Eventually = Callable[[Callable[[], bool], float], None]


@pytest.fixture
def run_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for labs in which there are no others."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as place:
        monkeypatch.setenv("CLOUDLAB_RUN", place)
        yield Path(place)


@pytest.fixture
def terminal(run_directory: Path, lab: Lab) -> Iterator[pexpect.spawn]:
    """`cloudlab boot` in a terminal, at the guest's prompt. `lab` has built the image."""
    lab.machine("warm").close()
    spawned = pexpect.spawn(CLOUDLAB[0], [*CLOUDLAB[1:], "boot"], encoding="utf-8", timeout=60, dimensions=(33, 101))
    spawned.delaybeforesend = None  # somebody who types quickly
    spawned.expect(r"Ctrl-\] leaves")
    spawned.expect(PROMPT)
    yield spawned
    spawned.close(force=True)


def cloudlab(*words: str) -> str:
    done = subprocess.run([*CLOUDLAB, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ps() -> list[dict[str, Any]]:
    labs: list[dict[str, Any]] = json.loads(cloudlab("ps", "--json"))
    return labs


def test_ps_lists_a_living_lab_and_clean_takes_it_only_when_it_is_dead(
    run_directory: Path, eventually: Eventually
) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        qemu = int(owner.stdout.readline())
        (lab,) = ps()
        (machine,) = lab["machines"]
        assert (lab["alive"], lab["owner"], machine["name"], machine["pid"]) == (True, owner.pid, "n1", qemu)
        assert machine["memory_pss"] > 1 << 20
        assert machine["address"] == "10.0.0.1"
        assert re.search(rf"alive\s+{owner.pid}\s.*\sn1\s+{qemu}\s.* MiB\s+10\.0\.0\.1\n", cloudlab("ps"))
        assert cloudlab("clean") == "Nothing to clean.\n"

        keeper = json.loads((Path(lab["directory"]) / "lab.json").read_text())["keeper"]
        for pid in (keeper, owner.pid):
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(qemu), 2.0)
    assert [(lab["alive"], lab["machines"][0]["pid"]) for lab in ps()] == [(False, None)]
    assert cloudlab("clean") == f"removed lab {lab['id']} with n1\n"
    assert (ps(), list(run_directory.iterdir())) == ([], [])


def test_images_are_listed_and_shown(lab: Lab) -> None:
    lab.machine("warm").close()
    assert re.search(r"^node\s.*\scurrent\s.* MiB\s", cloudlab("images", "list"), re.MULTILINE)
    shown = cloudlab("images", "show", "node")
    assert re.search(r"^whole:\s+yes$", shown, re.MULTILINE)
    assert re.search(r"^busybox-static\s+\S+$", shown, re.MULTILINE)


def test_boot_is_a_shell_in_the_guest_until_it_is_left(terminal: pexpect.spawn, run_directory: Path) -> None:
    terminal.sendline("hostname; stty size")
    terminal.expect_exact("n1\r\n33 101\r\n")
    terminal.expect(PROMPT)
    terminal.sendline("sleep 1000")
    terminal.expect_exact("sleep 1000\r\n")
    terminal.sendintr()  # Ctrl-C belongs to the guest
    terminal.expect(PROMPT)
    terminal.send("\x1d")
    terminal.expect("n1 is gone")
    terminal.expect(pexpect.EOF)
    terminal.wait()
    assert (terminal.exitstatus, list(run_directory.iterdir())) == (0, [])


def test_boot_ends_when_the_guest_powers_off(terminal: pexpect.spawn, run_directory: Path) -> None:
    terminal.sendline("poweroff")
    terminal.expect("n1 is gone")
    terminal.expect(pexpect.EOF)
    terminal.wait()
    assert (terminal.exitstatus, list(run_directory.iterdir())) == (0, [])


def test_a_terminal_that_is_closed_leaves_nothing(
    terminal: pexpect.spawn, run_directory: Path, eventually: Eventually
) -> None:
    (lab,) = ps()
    qemu = lab["machines"][0]["pid"]
    terminal.close(force=True)
    eventually(lambda: not psutil.pid_exists(qemu) and not list(run_directory.iterdir()), 2.0)


def test_boot_says_what_is_wrong_with_its_options(run_directory: Path) -> None:
    output, status = pexpect.run(
        f"{' '.join(CLOUDLAB)} boot --memory 1M", encoding="utf-8", withexitstatus=True, timeout=60
    )
    assert status == 2
    assert "Allowed: 64M to 64G" in output
    assert "Traceback" not in output


def test_lab_serves_the_lessons_to_those_who_have_the_token(lab: Lab, run_directory: Path) -> None:
    lab.machine("warm").close()
    with subprocess.Popen(
        [*CLOUDLAB, "lab", "--no-browser"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout is not None
        url = next(found[0] for line in server.stdout if (found := re.search(r"http://localhost:\d+/\S+", line)))
        assert "token=" in url
        assert status_of(url) == 200
        assert status_of(url.replace("/lab", "/api/contents", 1).split("?")[0]) == 403
        server.send_signal(signal.SIGINT)
        server.stdout.read()
    assert list(run_directory.iterdir()) == []


def status_of(url: str) -> int:
    """The HTTP status of a page; JupyterLab prints its address a moment before it listens there."""
    for _ in range(100):
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError:
            os.sched_yield()
    raise AssertionError(f"nobody listens at {url}")


def test_the_examples_in_the_readme_work(run_directory: Path, tmp_path: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    examples = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    for example, printed in zip(examples, ("b'keep me' n2", "12 of 12 pings answered", "0 hello"), strict=True):
        words = [sys.executable, "-c", example]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert printed in done.stdout
        assert list(run_directory.iterdir()) == []
