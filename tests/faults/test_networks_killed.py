"""A network goes with its owner, and goes on without any of its guests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cloudlab import Lab
from cloudlab.machines import State
from cloudlab.networks import star

pytestmark = pytest.mark.guest
Eventually = Callable[[Callable[[], bool], float], None]

SIXTEEN = """
from cloudlab import Lab
from cloudlab.networks import star
lab = Lab()
print(lab._owner.directory, flush=True)
net = lab.start(star(16))
print(len(net.machines), flush=True)
net["n1"].run("ping -f n16", timeout_s=100)
"""


def processes_in(directory: Path) -> list[int]:
    """All processes that name the lab's directory: its guests and its keeper."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(directory) in " ".join(process.info["cmdline"] or [])
    ]


def test_sixteen_guests_in_a_star_go_with_the_python_that_is_killed(eventually: Eventually) -> None:
    process = subprocess.Popen([sys.executable, "-c", SIXTEEN], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    directory = Path(process.stdout.readline().strip())
    assert process.stdout.readline() == "16\n"
    assert len(processes_in(directory)) >= 17
    assert len(list(directory.glob("n*.net0"))) == 16
    process.kill()
    process.wait(10)
    process.stdout.close()
    eventually(lambda: not processes_in(directory), 2)
    eventually(lambda: not directory.exists(), 2)


def test_a_guests_qemu_killed_leaves_the_others_talking(own_lab: Lab, eventually: Eventually) -> None:
    net = own_lab.start(star(3))
    os.kill(net["n3"].pid, signal.SIGKILL)
    eventually(lambda: net["n3"].state is State.CRASHED, 10)
    assert net.ping_all(timeout_s=20)
    net["n3"].start()
    assert net.ping_all(timeout_s=20)


def test_both_ends_of_a_direct_link_killed_at_once_harm_nobody(own_lab: Lab, eventually: Eventually) -> None:
    """Each end's death is told to the other end, which is not there any more."""
    for name in ("n1", "n2", "n3"):
        own_lab.machine(name)
    for a, b in (("n1", "n2"), ("n2", "n3"), ("n3", "n1")):
        own_lab.link(a, b)
    for name in ("n1", "n2"):
        os.kill(own_lab[name].pid, signal.SIGKILL)
    eventually(lambda: [own_lab[name].state for name in ("n1", "n2")] == [State.CRASHED] * 2, 10)
    assert own_lab["n3"].succeed("echo alive") == "alive\n"
    own_lab["n1"].start()
    own_lab["n1"].wait_until_succeeds("ping -n -c 1 -W 1 -I eth1 10.1.0.3", 30)


def test_a_lab_with_a_network_leaves_no_open_file_and_no_thread() -> None:
    def once() -> None:
        with Lab() as lab:
            assert lab.start(star(2)).ping_all(timeout_s=20)

    once()
    process = psutil.Process()
    before = process.num_fds(), process.num_threads()
    for _ in range(2):
        once()
    assert process.num_fds() <= before[0] + 1
    assert process.num_threads() <= before[1] + 1
