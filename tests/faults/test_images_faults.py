"""Images under attack: killed builders, two at once, damaged caches, full disks, homes that can't be written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudlab.images import Image, ImageStore

_BUILD = "from cloudlab.images import ImageStore; print(ImageStore().get('node').directory)"


@pytest.fixture(scope="module")
def packages() -> Path:
    """Downloaded packages, so that each test builds in seconds."""
    store = ImageStore()
    if not any((store.directory / "packages").glob("linux-image-*.deb")):
        store.build("node", force=True)
    return store.directory / "packages"


@pytest.fixture
def cache(tmp_path: Path, packages: Path) -> Iterator[Path]:
    """A cache with packages and nothing else; 200 MB with an image, so it goes at once."""
    place = tmp_path / "cache"
    shutil.copytree(packages, place / "packages")
    yield place
    shutil.rmtree(place)


def start_building(cache: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _BUILD],
        env={**os.environ, "CLOUDLAB_CACHE": str(cache), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def images_in(cache: Path) -> list[Image]:
    return ImageStore(cache).all()


def rests_in(cache: Path) -> list[str]:
    patterns = ("images/.*", "apt/inbox-*", ".compiling-*", ".fetching-*")
    return [path.name for pattern in patterns for path in cache.glob(pattern)]


Eventually = Callable[[Callable[[], bool], float], None]


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(lambda cache: (cache / ".images.lock").exists(), id="while it unpacks packages"),
        pytest.param(lambda cache: any(cache.glob(".compiling-*")), id="while it compiles"),
        pytest.param(lambda cache: any(cache.glob("images/.new-*/initrd.cpio")), id="while it writes"),
    ],
)
def test_a_builder_that_is_killed_leaves_no_image_no_lock_and_its_rests_go_with_the_next_build(
    cache: Path, moment: Callable[[Path], bool], eventually: Eventually
) -> None:
    builder = start_building(cache)
    eventually(lambda: moment(cache), 60)
    os.killpg(builder.pid, signal.SIGKILL)
    builder.communicate()
    assert images_in(cache) == []
    image = ImageStore(cache).get("node")
    assert image.is_whole()
    assert rests_in(cache) == []


def test_of_two_builders_one_builds_and_the_other_waits_and_says_so(cache: Path, eventually: Eventually) -> None:
    first = start_building(cache)
    eventually((cache / ".images.lock").exists, 60)
    second = start_building(cache)
    said = [builder.communicate(timeout=120) for builder in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], said
    assert said[0][0].splitlines()[-1] == said[1][0].splitlines()[-1]
    waited = ["waiting" in out for out, _ in said]
    assert sorted(waited) == [False, True]
    assert len(images_in(cache)) == 1
    assert images_in(cache)[0].is_whole()


def test_a_damaged_package_in_the_cache_is_fetched_again(cache: Path) -> None:
    package = next((cache / "packages").glob("sed_*.deb"))
    whole = package.read_bytes()
    package.write_bytes(whole[:1000] + b"damage" + whole[1006:])
    assert ImageStore(cache).get("node").untested == []
    assert package.read_bytes() == whole


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 100 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100M", "tmpfs", str(place)]).returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("checked_before", [True, False], ids=["seen before", "met while writing"])
def test_a_full_disk_is_said_with_the_way_out_and_leaves_nothing_that_counts_as_an_image(
    small_disk: Path, packages: Path, checked_before: bool
) -> None:
    (small_disk / "packages").symlink_to(packages)
    room = "" if checked_before else "from cloudlab.images import store; store._ROOM = 0; "
    command = [sys.executable, "-c", room + _BUILD]
    environment = {**os.environ, "CLOUDLAB_CACHE": str(small_disk)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    for words in (f"UsageError: There is no room in {small_disk}", "needs 400 MiB", "Example: export CLOUDLAB_CACHE="):
        assert words.replace("400 MiB", "400 MiB" if checked_before else "0 B") in done.stderr
    assert images_in(small_disk) == []
    assert rests_in(small_disk) == []


def test_without_a_home_that_can_be_written_images_are_built_in_var_tmp(packages: Path, tmp_path: Path) -> None:
    """As another user where that can be: root can write everywhere."""
    user = 65534 if os.getuid() == 0 else os.getuid()
    fallback = Path(f"/var/tmp/cloudlab-{user}")
    if fallback.exists():
        pytest.skip(f"{fallback} is in use")
    readable = subprocess.run(
        ["setpriv", "--reuid", str(user), "--clear-groups", sys.executable, "-c", "import cloudlab"]
    )
    if user != os.getuid() and readable.returncode:
        pytest.skip("another user can't read this checkout")
    become = ["setpriv", "--reuid", str(user), "--clear-groups"] if user != os.getuid() else []
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CLOUDLAB_", "XDG_"))}
    environment["HOME"] = "/dev/null"
    try:
        fallback.mkdir(mode=0o700)
        shutil.copytree(packages, fallback / "packages")
        if become:
            for path in [fallback, *fallback.rglob("*")]:
                os.chown(path, user, -1)
        done = subprocess.run([*become, sys.executable, "-c", _BUILD], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].startswith(f"{fallback}/images/node-")
        assert images_in(fallback)[0].is_whole()
    finally:
        shutil.rmtree(fallback, ignore_errors=True)
