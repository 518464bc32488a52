"""The image as it really is: the same bytes each time, from whatever packages there are, and a guest that boots from it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudlab import Lab, Machine
from cloudlab.images import Image, ImageStore, find_recipe
from cloudlab.images.recipe import recipe_directory

pytestmark = pytest.mark.guest

_BUILD = """
import os, random
os.umask({umask})
from cloudlab.images import ImageStore, builder
unpack = builder.build
def shuffled(recipe, packages, tools):
    order = random.Random({umask}).sample(sorted(packages), len(packages))
    return unpack(recipe, {{package: packages[package] for package in order}}, tools)
builder.build = shuffled
print(ImageStore().build("node").directory)
"""


@pytest.fixture(scope="module")
def cache_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Make new caches that need not download anything; 200 MB each with an image, so they go at the end."""
    home, here = tmp_path_factory.mktemp("images"), ImageStore()
    if not any((here.directory / "packages").glob("linux-image-*.deb")):
        here.build("node", force=True)

    def make(name: str) -> Path:
        shutil.copytree(here.directory / "packages", home / name / "packages")
        return home / name

    yield make
    shutil.rmtree(home)


def build_in(cache: Path, umask: int, *become: str, **environment: str) -> Image:
    script = _BUILD.format(umask=umask)
    done = subprocess.run(
        [*become, sys.executable, "-c", script],
        env={**os.environ, "CLOUDLAB_CACHE": str(cache), **environment},
        cwd=cache,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return ImageStore(cache).all()[0]


@pytest.fixture(scope="module")
def chinese(cache_in: Callable[[str], Path]) -> Path:
    return cache_in("我的 缓存")


@pytest.fixture(scope="module")
def built(chinese: Path) -> Image:
    return build_in(chinese, 0o022)


def test_the_whole_image_is_the_same_byte_for_byte_wherever_and_by_whomever_it_is_built(
    built: Image, cache_in: Callable[[str], Path]
) -> None:
    """Another directory, umask, language, time zone, order of packages and, where that can be, user."""
    cache, become = cache_in("b"), list[str]()
    if os.getuid() == 0:
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        if not subprocess.run([*user, sys.executable, "-c", "import cloudlab"], capture_output=True).returncode:
            become = user
            for path in [cache, *cache.rglob("*")]:
                os.chown(path, 65534, 65534)
            for path in cache.parents[2], cache.parents[1], cache.parent:
                path.chmod(path.stat().st_mode | 0o011)
    again = build_in(cache, 0o077, *become, LC_ALL="C", TZ="Asia/Shanghai", HOME="/dev/null")
    assert again.sha256 == built.sha256
    assert again.initrd.read_bytes() == built.initrd.read_bytes()
    assert again.kernel.read_bytes() == built.kernel.read_bytes()


def test_the_locked_packages_are_tested_ones(built: Image) -> None:
    assert built.untested == []
    assert f"linux-image-{built.kernel_release}" in built.packages


def test_a_guest_boots_from_a_cache_with_spaces_and_chinese_in_its_name(
    built: Image, chinese: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDLAB_CACHE", str(chinese))
    with Lab() as lab:
        for cold in (True, False):
            machine = lab.machine("n1", accelerator="tcg", cold=cold)
            assert machine.succeed("uname -r").strip() == built.kernel_release
            machine.power_off()
        assert lab.images.find("node") == built


def test_a_version_that_never_existed_is_replaced_by_the_current_set_and_it_is_said(
    tmp_path: Path, cache_in: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Needs the network: the archive is asked."""
    shutil.copytree(recipe_directory() / "node", tmp_path / "recipes" / "node")
    monkeypatch.setenv("CLOUDLAB_RECIPES", str(tmp_path / "recipes"))
    lock = find_recipe("node").lock_file
    lines = lock.read_text().splitlines(keepends=True)
    lock.write_text(
        "".join('"sed" = ["0.0-never", "' + "0" * 64 + '"]\n' if "sed" in line[:5] else line for line in lines)
    )
    image = ImageStore(cache_in("with another lock")).get("node")
    assert image.is_whole()
    assert image.untested[0] == "sed 0.0-never is no longer in the archive"
    assert image.packages["sed"] != "0.0-never"
    assert "sed 0.0-never is no longer in the archive" in capsys.readouterr().out
    assert json.loads((image.directory / "image.json").read_text())["untested"] == image.untested


@pytest.fixture(scope="module")
def guest(lab: Lab) -> Iterator[Machine]:
    machine = lab.machine("images1")
    yield machine
    machine.close()


def test_every_module_in_the_image_can_be_loaded(guest: Machine) -> None:
    script = """for file in $(cut -d: -f1 /lib/modules/$(uname -r)/modules.dep); do
      name=$(basename $file .ko); modprobe $name 2>&1 || echo "not loaded: $name"; done"""
    assert guest.succeed(script).strip() == ""


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("nft add table ip t && nft add chain ip t c '{ type nat hook postrouting priority 100; }'", "nft_chain_nat"),
        ("nft add rule ip t c masquerade", "nft_masq"),
        ("iptables -t nat -A POSTROUTING -j MASQUERADE", "xt_MASQUERADE"),
        ("tc qdisc add dev lo root netem delay 1ms && tc qdisc del dev lo root", "sch_netem"),
        ("ip link add v0 type veth peer name v1", "veth"),
        ("ip link add b0 type bridge", "bridge"),
        ("ip link add x0 type vxlan id 7 dstport 4789 dev lo", "vxlan"),
        ("mkdir -p /run/o/l /run/o/u /run/o/w /run/o/m && cd /run/o && "
         "mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m && umount m", "overlay"),
    ],
)  # fmt: skip
def test_modules_come_by_themselves_when_something_asks_for_them(fresh: Machine, command: str, module: str) -> None:
    if module == "nft_masq":
        fresh.succeed("nft add table ip t && nft add chain ip t c '{ type nat hook postrouting priority 100; }'")
    fresh.succeed(command)
    assert fresh.succeed(
        f"lsmod | grep -c '^{module} ' || grep -c /{module}.ko /lib/modules/$(uname -r)/modules.builtin"
    )


def test_no_program_in_the_image_lacks_a_library(guest: Machine) -> None:
    script = """for file in /usr/bin/*; do [ -L $file ] && continue
      [ "$(head -c 4 $file | tail -c 3)" = ELF ] || continue
      LD_TRACE_LOADED_OBJECTS=1 /lib64/ld-linux-x86-64.so.2 $file 2>/dev/null | grep "not found" && echo $file
    done; true"""
    assert guest.run(script).stdout.strip() == ""


@pytest.mark.soak
def test_without_a_c_compiler_for_guests_pip_brings_one_and_its_agent_answers(
    cache_in: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Needs the network (about 100 MB) and 500 MB of disk."""
    cache = cache_in("without a compiler")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("platform.machine", lambda: "aarch64")
        ImageStore(cache).get("node")
    monkeypatch.setenv("CLOUDLAB_CACHE", str(cache))
    with Lab() as lab:
        assert lab.machine("n1", accelerator="tcg").succeed("echo $((6 * 7))") == "42\n"
