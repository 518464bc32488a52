"""The same runtime on this computer, where its kernel and our rights allow it: no guest, the same programs of system calls."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudlab import MachineError
from cloudlab.containers.bundle import Process
from cloudlab.containers.calls import Calls, make
from cloudlab.containers.here import Here, here
from cloudlab.containers.runtime import Runtime, Status
from cloudlab.containers.specification import Wishes, configuration
from cloudlab.containers.syscalls import Clone
from cloudlab.images import ImageStore


@pytest.fixture(scope="module")
def place() -> Here:
    place = here()
    trial, flags = Calls(), Clone.NEWNS | Clone.NEWPID | Clone.NEWUTS | Clone.NEWNET | Clone.NEWIPC
    trial.child(flags)[1].call("mount", "", "/", "", 1 << 18 | 16384, 0)
    try:
        make(place, trial)
    except MachineError as error:
        pytest.skip(f"no containers here: {error.problem}")
    if not os.access("/run", os.W_OK) or shutil.disk_usage("/run").free < 1 << 20:
        pytest.skip("no containers here: /run is not ours to write")
    return place


@pytest.fixture
def runtime(place: Here) -> Iterator[Runtime]:
    runtime = Runtime(place)
    yield runtime
    for name in runtime.names():
        runtime.delete(name, force=True)
    shutil.rmtree("/run/cloudlab", ignore_errors=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rootfs")
    with tarfile.open(ImageStore().rootfs("busybox")) as tar:
        tar.extractall(folder, filter="fully_trusted")
    return folder


def config(root: Path, *command: str) -> dict[str, object]:
    wishes = Wishes(list(command), hostname="box", userns=False, network="none", pids=None)
    made = configuration(wishes, str(root))
    made["mounts"] = [
        mount for mount in made["mounts"] if mount["type"] != "cgroup"
    ]  # this computer's may be of any kind
    return made


def test_a_container_runs_on_this_computer(runtime: Runtime, root: Path) -> None:
    runtime.create("box", config(root, "sh", "-c", "hostname; ps -o pid,comm; ls /sys/class/net; exit 3"), start=True)
    assert runtime.wait("box") == 3
    printed = [line.split(" ", 3)[3] for line in runtime.log("box").decode().splitlines()]
    assert printed[:3] == ["box", "PID   COMMAND", "    1 sh"]
    assert printed[-1] == "lo"


def test_it_is_waited_for_looked_into_killed_and_gone(runtime: Runtime, root: Path) -> None:
    before = subprocess.run(["findmnt", "-rn"], capture_output=True, check=False).stdout
    runtime.create("box", config(root, "sleep", "1000"))
    assert runtime.state("box").status is Status.CREATED
    runtime.start("box")
    seen = runtime.exec("box", Process(("sh", "-c", "cat; hostname"), env=("PATH=/usr/bin:/bin",)), input=b"through\n")
    assert seen.stdout == "through\nbox\n"
    runtime.kill("box", "KILL")
    assert runtime.wait("box") == 137
    runtime.delete("box")
    assert runtime.names() == []
    assert subprocess.run(["findmnt", "-rn"], capture_output=True, check=False).stdout == before
