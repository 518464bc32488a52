"""Computers as they are: no QEMU, a KVM that crashes, a full disk, no home, odd names. Each works, or says what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudlab import Lab, MachineError, UsageError
from cloudlab.images import ImageStore
from cloudlab.machines import accelerator, qemu
from cloudlab.owner import Owner

pytestmark = pytest.mark.guest
ROOT = Path(__file__).parents[2]
NOBODY = 65534
HELLO = "from cloudlab import Lab\nwith Lab() as lab: print(lab.machine('n1').succeed('echo hello from $(hostname)'))"

as_root = pytest.mark.skipif(os.getuid() != 0, reason="mounting and changing users need root")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory with a name short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="cl-", dir="/tmp") as place:
        yield Path(place)


@pytest.fixture
def small_disk(short_path: Path) -> Iterator[Path]:
    """A disk of 64 MiB."""
    place = short_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64M", "small", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own that has the image already."""
    ImageStore().get("node")
    cache = tmp_path / "cache"
    shutil.copytree(ImageStore().images, cache / "images", copy_function=_link)
    monkeypatch.setenv("CLOUDLAB_CACHE", str(cache))
    return cache


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)  # another file system


def test_without_qemu_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"QEMU is not installed(.|\n)*apt-get install .*qemu-system-x86"):
        Lab()


def test_a_qemu_that_is_too_old_is_named_with_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / qemu.PROGRAM
    program.write_text("#!/bin/sh\necho QEMU emulator version 6.2.0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UsageError, match=r"is QEMU 6\.2\.0(.|\n)*7\.2 or newer"):
        Lab()


def test_a_qemu_that_dies_at_once_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_cache: Path) -> None:
    program = tmp_path / qemu.PROGRAM
    program.write_text(
        '#!/bin/sh\ntest "$1" = --version && exec echo QEMU emulator version 9.9.9\necho "no such machine" >&2; exit 3\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with Lab() as lab, pytest.raises(MachineError, match=r"exit status 3(.|\n)*no such machine"):
        lab.machine("n1", accelerator="tcg")


def test_kvm_is_believed_only_after_a_guest_has_booted(own_cache: Path, own_lab: Lab) -> None:
    """Whatever this computer's /dev/kvm is worth: the verdict is remembered, and a guest runs."""
    machine = own_lab.machine("n1")
    assert machine.succeed("echo it runs") == "it runs\n"
    device = accelerator.kvm_device()
    if device.exists() and os.access(device, os.R_OK | os.W_OK):
        verdicts = json.loads((own_cache / "accelerators.json").read_text())
        assert (machine.accelerator.name == "kvm") == (list(verdicts.values()) == [""])
    else:
        assert machine.accelerator.name == "tcg"


def test_a_kvm_that_opens_but_is_none_ends_in_tcg_with_the_reason(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "kvm"
    fake.touch()
    monkeypatch.setenv("CLOUDLAB_KVM", str(fake))
    monkeypatch.setattr(accelerator, "_try_kvm", lambda owner, spec: "emulation failure")
    with Lab() as lab:
        machine = lab.machine("n1")
        assert machine.accelerator.name == "tcg"
        assert "KVM was tried and failed (emulation failure)" in str(machine.accelerator)
        assert "slower" in str(machine.accelerator)
    monkeypatch.setattr(accelerator, "_try_kvm", lambda owner, spec: pytest.fail("tried a second time"))
    with Lab() as lab:
        assert lab.machine("n1").accelerator.name == "tcg"


def test_an_unknown_accelerator_is_explained(lab: Lab) -> None:
    with pytest.raises(UsageError, match=r"'hax' is no accelerator(.|\n)*kvm or tcg"):
        lab.machine("acc", accelerator="hax")


@as_root
def test_no_room_for_a_saved_state_is_told_before_anything_is_written(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    with Lab() as lab:
        lab._templates.directory = small_disk
        with pytest.raises(UsageError, match=r"A saved state needs 448 MiB in .*small(.|\n)*CLOUDLAB_CACHE"):
            lab.machine("n1")
        assert list(small_disk.glob("*/ram")) == []


@as_root
def test_no_room_for_save_is_told_and_the_machine_goes_on(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDLAB_RUN", str(small_disk / "run"))
    with Lab() as lab:
        machine = lab.machine("n1")
        with pytest.raises(UsageError, match="A saved state needs"):
            machine.save("clean")
        assert machine.succeed("echo goes on") == "goes on\n"


def test_a_damaged_saved_state_is_built_anew(own_cache: Path) -> None:
    with Lab() as lab:
        lab.machine("n1")
    (ram,) = (own_cache / "states").glob("*/ram")
    with ram.open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"damage")
    (devices,) = (own_cache / "states").glob("*/devices")
    devices.write_bytes(devices.read_bytes()[:1000])
    with Lab() as lab:
        assert lab.machine("n1").succeed("echo whole") == "whole\n"


def test_odd_names_of_directories_simply_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    odd = own_cache.rename(tmp_path / "我的 缓存, 一个")
    monkeypatch.setenv("CLOUDLAB_CACHE", str(odd))
    monkeypatch.setenv("CLOUDLAB_RUN", "/tmp/云 实验,1")
    with Lab() as lab:
        machine = lab.machine("n1")
        machine.save("clean")
        machine.restore("clean")
        assert machine.succeed("echo fine") == "fine\n"
        assert machine.plug(disk="8M").guest_name == "/dev/vda"
    os.rmdir("/tmp/云 实验,1")


def test_a_place_for_sockets_that_is_too_long_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDLAB_RUN", str(tmp_path / ("x" * 90)))
    with pytest.raises(UsageError, match=r"no place for the lab's sockets(.|\n)*CLOUDLAB_RUN=/tmp/me"):
        Owner()


@as_root
def test_an_unprivileged_user_without_a_home_simply_works(short_path: Path) -> None:
    short_path.chmod(0o755)
    cache, run = short_path / "cache", short_path / "run"
    shutil.copytree(ImageStore().get("node").directory.parent, cache / "images")
    run.mkdir()
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", cache, run], check=True)
    packages = [str(ROOT / "src"), *(path for path in sys.path if "site-packages" in path)]
    done = subprocess.run(
        [*_python_for_anyone(), "-c", HELLO],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        env={
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "CLOUDLAB_CACHE": str(cache),
            "CLOUDLAB_RUN": str(run),
            "PYTHONPATH": os.pathsep.join(packages),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.stdout.splitlines()[-2:] == ["hello from n1", ""], done.stdout + done.stderr[-3000:]


def _python_for_anyone() -> list[str]:
    """Return a Python of our version that another user may run too (ours may lie in root's home)."""
    ours = os.path.realpath(sys.executable)
    for program in (ours, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"):
        if os.path.exists(program) and all(parent.stat().st_mode & 0o001 for parent in Path(program).parents):
            return [program]
    pytest.skip("there is no Python of our version here that another user may run")
