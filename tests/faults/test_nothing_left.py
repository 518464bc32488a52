"""Nothing stays behind: the owner is killed at any moment, and every process, socket and directory goes with it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cloudlab import CloudlabError, Lab
from cloudlab.owner import Owner, labs, remove_dead

pytestmark = pytest.mark.guest
Eventually = Callable[[Callable[[], bool], float], None]

# A learner's afternoon, over and over: start, restore, clone and stop.
WORK = """
import sys
from cloudlab import Lab
lab = Lab()
print(lab._owner.directory, flush=True)
while True:
    n1 = lab.machine("n1")
    print("started", flush=True)
    n1.save("s")
    n1.restore("s")
    twin = n1.clone("twin")
    twin.crash()
    lab.machine("cold", cold=True)
    n1.power_off()
    lab["cold"].crash()
"""


def processes_in(directory: Path) -> list[int]:
    """Return all processes that name the lab's directory: its guests and its keeper."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if str(directory) in " ".join(process.info["cmdline"] or []):
            found.append(process.pid)
    return found


def begin(work: str = WORK) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", work], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def kill_after(process: subprocess.Popen[str], seconds: float) -> None:
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    timer.join()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def assert_gone(directory: Path, eventually: Eventually) -> None:
    eventually(lambda: not processes_in(directory), 2)
    eventually(lambda: not directory.exists(), 2)


def kill_at_random_moments(moments: int, eventually: Eventually) -> None:
    chance = random.Random(int(os.environ.get("CLOUDLAB_SEED", time.time_ns())))
    for _ in range(moments):
        process, directory = begin()
        kill_after(process, chance.uniform(0, 6))
        assert_gone(directory, eventually)
    with Lab() as lab:
        assert lab.machine("n1").succeed("echo all works again") == "all works again\n"


def test_the_owner_killed_at_four_random_moments_leaves_nothing(lab: Lab, eventually: Eventually) -> None:
    lab.machine("warm").close()  # the saved state is there: what is killed is start, restore, clone and stop
    kill_at_random_moments(4, eventually)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_owner_killed_at_twenty_random_moments_leaves_nothing(lab: Lab, eventually: Eventually) -> None:
    lab.machine("warm").close()
    kill_at_random_moments(20, eventually)


def test_a_saved_state_that_is_being_built_goes_with_its_owner(
    tmp_path: Path, lab: Lab, eventually: Eventually
) -> None:
    states = lab.images.directory / "states"
    work = """
from cloudlab import Lab
lab = Lab()
print(lab._owner.directory, flush=True)
lab.machine("odd", memory="391M")
"""
    process, directory = begin(work)
    eventually(lambda: bool(list(states.glob(".building-*"))), 30)
    kill_after(process, 1.0)
    assert_gone(directory, eventually)
    eventually(lambda: not list(states.glob(".building-*")), 2)


def test_the_keeper_killed_takes_the_guests_with_it(own_lab: Lab, eventually: Eventually) -> None:
    own_lab.machine("n1")
    directory = own_lab._owner.directory
    own_lab._owner._keeper.kill()
    eventually(lambda: not processes_in(directory), 2)
    with pytest.raises(CloudlabError):
        own_lab.machine("n1").run("true")
    own_lab.close()
    assert not directory.exists()


def test_ctrl_c_does_not_reach_the_guests() -> None:
    work = """
import os, signal
from cloudlab import Lab
lab = Lab()
print(lab._owner.directory, flush=True)
n1 = lab.machine("n1")
try:
    os.killpg(os.getpgrp(), signal.SIGINT)
    n1.run("sleep 30")
except KeyboardInterrupt:
    print(n1.succeed("echo still here"), end="", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", work], capture_output=True, text=True, timeout=120, start_new_session=True
    )
    assert done.stdout.splitlines()[-1] == "still here", done.stderr


def test_a_fork_of_the_owner_does_not_keep_the_guests_alive(eventually: Eventually) -> None:
    work = """
import os, time
from cloudlab import Lab
lab = Lab()
print(lab._owner.directory, flush=True)
lab.machine("n1")
fork = os.fork()
if fork == 0:
    time.sleep(60)
    os._exit(0)
print(fork, flush=True)
os.kill(os.getpid(), 9)
"""
    process, directory = begin(work)
    assert process.stdout is not None
    fork = int(process.stdout.readline())
    assert process.wait(60) == -signal.SIGKILL
    assert psutil.pid_exists(fork)
    assert_gone(directory, eventually)
    os.kill(fork, signal.SIGKILL)
    process.stdout.close()


def start_and_crash(lab: Lab, times: int) -> None:
    for number in range(times):
        machine = lab.machine(f"s{number % 9}")
        assert machine.succeed("hostname").strip() == machine.name
        machine.crash()


def test_every_start_succeeds(lab: Lab) -> None:
    start_and_crash(lab, 30)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_every_one_of_five_hundred_starts_succeeds(lab: Lab) -> None:
    start_and_crash(lab, 500)


def test_threads_may_start_guests_and_end_before_them(own_lab: Lab) -> None:
    thread = threading.Thread(target=lambda: own_lab.machine("n1"))
    thread.start()
    thread.join()
    assert own_lab["n1"].succeed("echo alive") == "alive\n"


def test_close_leaves_nothing_and_can_be_called_twice(eventually: Eventually) -> None:
    lab = Lab()
    lab.machine("n1")
    directory = lab._owner.directory
    assert lab.close() == ["n1"]
    assert not directory.exists()
    assert processes_in(directory) == []
    assert lab.close() == []


def test_clean_removes_dead_labs_and_nothing_else(own_lab: Lab) -> None:
    dead = own_lab._owner.directory.parent / "dead01"
    dead.mkdir()
    (dead / "lab.json").write_text('{"pid": 1}')
    bystander = own_lab._owner.directory.parent / "not-a-lab"
    bystander.mkdir()
    alive = {record.directory: record.alive for record in labs()}
    assert alive[own_lab._owner.directory]
    assert not alive[dead]
    assert [record.directory for record in remove_dead()] == [dead]
    assert not dead.exists()
    assert bystander.exists()
    bystander.rmdir()
    own_lab.machine("n1").succeed("true")


def test_no_thread_and_no_open_file_is_left_by_a_closed_lab() -> None:
    def once() -> None:
        with Lab() as lab:
            machine = lab.machine("n1")
            machine.console.login()
            machine.succeed("true")

    once()
    process = psutil.Process()
    before = process.num_fds()
    for _ in range(3):
        once()
    assert process.num_fds() <= before + 1
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("agent-n1", "qmp-n1", "console-n1"))], names


def test_an_owner_without_guests_starts_and_ends_quickly() -> None:
    owner = Owner()
    owner.close()
    assert not owner.directory.exists()
