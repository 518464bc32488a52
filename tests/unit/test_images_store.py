"""The images on this computer: found, built once, checked, kept, exported, imported."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from cloudlab.cli import main
from cloudlab.errors import CloudlabError, UsageError
from cloudlab.images import Image, ImageStore, Recipe, builder, find_recipe, store
from cloudlab.images.apt import Package
from cloudlab.images.builder import Built
from cloudlab.images.packed import unpack
from cloudlab.images.tree import Tree

RECIPE = """
title = "small"
append = "quiet"
boot_modules = []
modules = []
[kernel]
debian = "linux-image-cloud-amd64"
[take]
"""
ROOT = """
title = "a root"
[take]
"""
CURL = Package("curl", "7.88", "c" * 64)


class Bench:
    """A store whose builder makes tiny images: `content` of the file system, `remarks` on the packages."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self.recipes = place, place / "recipes"
        self.store = ImageStore(place)
        self.content: dict[str, bytes] = {"etc/motd": b"hello"}
        self.remarks: list[str] = []
        self.absent: list[str] = []
        self.distribution = "debian-12"
        self.builds = 0
        monkeypatch.setenv("CLOUDLAB_RECIPES", str(self.recipes))
        monkeypatch.setattr(store, "Apt", lambda _: None)
        monkeypatch.setattr(store, "packages_for", lambda *_, **__: ({CURL: Path("curl.deb")}, list(self.remarks)))
        monkeypatch.setattr(store, "distribution", lambda: self.distribution)
        monkeypatch.setattr(builder, "build", self._build)
        self.write("small")

    def write(self, name: str, more: str = "") -> None:
        (self.recipes / name).mkdir(parents=True, exist_ok=True)
        (self.recipes / name / "recipe.toml").write_text(RECIPE + more)

    def write_root(self, name: str, more: str = "") -> None:
        self.write(name)
        (self.recipes / name / "recipe.toml").write_text(ROOT + more)

    def _build(self, recipe: Recipe, *_: object) -> Built:
        self.builds += 1
        root = Tree()
        for path, data in self.content.items():
            root.add_file(path, data)
        if not recipe.bootable:
            return Built(b"", root, "", [CURL], list(self.absent))
        return Built(b"\x7fELF kernel", root, "6.1.0-1-cloud-amd64", [CURL], list(self.absent))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def names(bench: Bench) -> list[str]:
    return sorted(path.name for path in bench.store.images.iterdir())


def test_an_image_is_built_once_and_found_from_then_on_without_a_word(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    built = bench.store.get("small")
    capsys.readouterr()
    assert bench.store.get("small") == bench.store.find("small") == built
    assert bench.builds == 1
    assert capsys.readouterr() == ("", "")


def test_the_record_says_what_the_image_is_and_what_it_was_made_of(bench: Bench) -> None:
    image = bench.store.get("small")
    assert (image.append, image.kernel_release, image.packages) == ("quiet", "6.1.0-1-cloud-amd64", {"curl": "7.88"})
    assert image.kernel.read_bytes() == b"\x7fELF kernel"
    assert image.initrd.read_bytes()[:6] == b"070701"
    assert image.size == image.kernel.stat().st_size + image.initrd.stat().st_size
    assert image.untested == []
    assert image.is_whole()
    assert abs(image.built_at - time.time()) < 60


def test_another_recipe_is_another_image(bench: Bench) -> None:
    first = bench.store.get("small")
    bench.write("small", 'bash = ["bash"]\n')
    assert bench.store.get("small").directory != first.directory
    bench.write("small")
    assert bench.store.get("small") == first
    assert bench.builds == 2


def test_another_distribution_is_another_image(bench: Bench) -> None:
    key = bench.store.key(find_recipe("small"))
    bench.distribution = "ubuntu-24.04"
    assert bench.store.key(find_recipe("small")) != key


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Image], Any]] = {
    "a cut file system": lambda image: os.truncate(image.initrd, 100),
    "a flipped bit in the kernel": lambda image: flip(image.kernel),
    "no kernel": lambda image: image.kernel.unlink(),
    "no record": lambda image: (image.directory / "image.json").unlink(),
    "a cut record": lambda image: os.truncate(image.directory / "image.json", 40),
    "a record of something else": lambda image: (image.directory / "image.json").write_text("[1]"),
    "a record without hashes": lambda image: strip(image, "sha256"),
    "a record without stamps": lambda image: strip(image, "stamps"),
}


def strip(image: Image, key: str) -> None:
    path = image.directory / "image.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: {}}))
    flip(image.kernel)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed_and_the_image_built_anew(
    bench: Bench, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image = bench.store.get("small")
    DAMAGES[damage](image)
    assert bench.store.find("small") is None
    again = bench.store.get("small")
    assert again.is_whole()
    assert again.sha256 == image.sha256
    assert "damaged, and is built anew" in capsys.readouterr().out


def test_a_cache_that_was_copied_is_checked_once_and_believed_from_then_on(bench: Bench) -> None:
    image = bench.store.get("small")
    for path in (image.kernel, image.initrd):
        os.utime(path, (1, 1))
    found = bench.store.find("small")
    assert found is not None
    assert found.stamps["vmlinux"][1] == 1_000_000_000
    assert json.loads((image.directory / "image.json").read_text())["stamps"] == found.stamps


def test_what_a_killed_builder_left_is_no_image_and_goes_with_the_next_build(bench: Bench) -> None:
    image = bench.store.get("small")
    half = bench.store.images / ".new-abc"
    shutil.copytree(image.directory, half)
    inbox = bench.place / "apt" / "inbox-1-2"
    inbox.mkdir(parents=True)
    assert bench.store.all() == [image]
    bench.store.build("small", force=True)
    assert not half.exists()
    assert not inbox.exists()


def test_a_build_that_fails_leaves_what_was_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    image = bench.store.get("small")

    def fail(*_: object) -> Built:
        raise CloudlabError("no compiler")

    monkeypatch.setattr(builder, "build", fail)
    with pytest.raises(CloudlabError, match="no compiler"):
        bench.store.build("small", force=True)
    assert names(bench) == [image.directory.name]
    assert bench.store.find("small") == image


def test_other_packages_than_those_tested_are_said_and_noted(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.remarks = ["curl 7.87 is no longer in the archive"]
    bench.absent = ["curl has no file 'x'"]
    assert bench.store.get("small").untested == [*bench.remarks, *bench.absent]
    assert "image small: curl 7.87 is no longer in the archive" in capsys.readouterr().out


def test_a_recipe_that_does_not_fit_the_packages_it_was_tested_with_is_a_mistake(bench: Bench) -> None:
    bench.absent = ["curl has no file 'x'"]
    with pytest.raises(CloudlabError, match="recipe 'small' does not fit its packages:\ncurl has no file 'x'"):
        bench.store.get("small")


def test_a_recipe_that_changes_while_it_is_built_gives_no_image(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    make = builder.build

    def build_and_edit(*arguments: Any) -> Built:
        bench.write("small", 'bash = ["bash"]\n')
        return make(*arguments)

    monkeypatch.setattr(builder, "build", build_and_edit)
    with pytest.raises(CloudlabError, match="was changed while it was built"):
        bench.store.get("small")
    assert bench.store.all() == []


def test_locking_writes_the_versions_used_and_the_image_of_that_lock(bench: Bench) -> None:
    image = bench.store.build("small", relock=True)
    assert f'"curl" = ["7.88", "{CURL.sha256}"]' in find_recipe("small").lock_file.read_text()
    assert bench.store.find("small") == image


def test_the_newest_three_of_a_name_are_kept(bench: Bench) -> None:
    bench.write("small-other")
    other = bench.store.get("small-other")
    made = []
    for number in range(5):
        bench.write("small", f'bash = ["{number}"]\n')
        made.append(bench.store.get("small"))
    assert {image.directory for image in bench.store.all()} == {
        other.directory,
        *(image.directory for image in made[2:]),
    }


def test_removing_an_image_spares_those_whose_name_begins_alike(bench: Bench) -> None:
    bench.write("small-other")
    image, other = bench.store.get("small"), bench.store.get("small-other")
    assert bench.store.remove("small") > image.size
    assert bench.store.all() == [other]
    with pytest.raises(UsageError, match="Allowed: small-other"):
        bench.store.remove("small")


def test_pruning_leaves_the_current_image_of_each_recipe(bench: Bench) -> None:
    old = bench.store.get("small")
    bench.write("small", 'bash = ["bash"]\n')
    new = bench.store.get("small")
    assert bench.store.prune() > old.size
    assert bench.store.all() == [new]


def test_an_exported_image_is_taken_in_on_a_computer_without_apt(bench: Bench, tmp_path: Path) -> None:
    image = bench.store.get("small")
    file = bench.store.export("small", tmp_path / "small.cloudlab-image")
    bench.distribution = ""
    there = ImageStore(tmp_path / "there")
    there.directory.mkdir()
    taken = there.import_(file)
    assert there.get("small") == there.find("small") == taken
    assert taken.sha256 == image.sha256
    assert (taken.kernel.read_bytes(), taken.initrd.read_bytes()) == (
        image.kernel.read_bytes(),
        image.initrd.read_bytes(),
    )
    assert there.all() == [taken]
    assert bench.builds == 1


def test_an_export_is_the_same_file_each_time_and_tells_nothing_of_this_computer(bench: Bench, tmp_path: Path) -> None:
    one = bench.store.export("small", tmp_path / "one").read_bytes()
    assert one == bench.store.export("small", tmp_path / "two").read_bytes()
    assert [path.name for path in tmp_path.glob(".*one*")] == []
    user = tarfile.TarInfo().uname  # what a header says that names nobody
    with tarfile.open(fileobj=io.BytesIO(unpack(one)), mode="r:") as archive:
        assert {(member.uname, member.uid, member.mtime) for member in archive} == {(user, 0, 0)}


def test_an_imported_image_of_another_recipe_serves_only_where_nothing_can_be_built(
    bench: Bench, tmp_path: Path
) -> None:
    bench.store.import_(bench.store.export("small", tmp_path / "file"))
    bench.write("small", 'bash = ["bash"]\n')
    assert bench.store.find("small") is None
    bench.distribution = ""
    assert bench.store.get("small").directory.name == "small-imported"


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda data: data[: len(data) // 2], "damaged"),
        (lambda data: b"nothing of the sort", "damaged or no image file"),
        (lambda data: b"", "damaged"),
    ],
)
def test_a_damaged_export_is_refused(
    bench: Bench, tmp_path: Path, damage: Callable[[bytes], bytes], complaint: str
) -> None:
    bench.content["big"] = os.urandom(300_000)
    file = bench.store.export("small", tmp_path / "file")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UsageError, match=complaint):
        bench.store.import_(file)
    assert not any("imported" in name or name.startswith(".") for name in names(bench))


def test_an_export_whose_content_does_not_fit_its_hashes_is_refused(bench: Bench, tmp_path: Path) -> None:
    image = bench.store.get("small")
    stat = image.kernel.stat()
    flip(image.kernel)
    os.utime(image.kernel, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # what no ordinary program does
    with pytest.raises(UsageError, match="does not fit its own hashes"):
        bench.store.import_(bench.store.export("small", tmp_path / "file"))


def test_what_is_no_file_is_refused(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no file"):
        bench.store.import_(tmp_path / "nothing")
    bench.store.get("small")
    with pytest.raises(UsageError, match="There is no directory"):
        bench.store.export("small", tmp_path / "nothing" / "file")


def test_too_little_room_is_said_before_anything_is_fetched(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(bench.place)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=30 << 20))
    with pytest.raises(UsageError, match=r"30 MiB are free, and an image needs 400 MiB") as caught:
        bench.store.get("small")
    assert str(bench.place) in caught.value.problem
    assert "CLOUDLAB_CACHE" in caught.value.example
    assert bench.builds == 0


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        CloudlabError("apt-get download failed:\nE: Write error - write (28: No space left on device)"),
        CloudlabError("E: You don't have enough free space in /x/cache/archives/."),
    ],
)
def test_a_disk_that_fills_up_meanwhile_is_said_whoever_noticed_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> Built:
        raise error

    monkeypatch.setattr(builder, "build", fail)
    with pytest.raises(UsageError, match="the disk is full"):
        bench.store.get("small")
    assert names(bench) == [] if bench.store.images.exists() else True


# --- roots for containers -------------------------------------------------------------------------------------------


def test_a_root_for_containers_is_one_tar_archive_built_once(bench: Bench) -> None:
    bench.write_root("box")
    path = bench.store.rootfs("box")
    assert bench.store.rootfs("box") == path
    assert bench.builds == 1
    with tarfile.open(path, "r:") as archive:
        assert archive.getnames() == ["etc", "etc/motd"]
    image = bench.store.find("box")
    assert image is not None
    assert (image.bootable, image.files, image.rootfs, image.size) == (
        False,
        ("rootfs.tar",),
        path,
        path.stat().st_size,
    )
    assert image.sha256 == {"rootfs.tar": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert image.packages == {"curl": "7.88"}


def test_no_guest_boots_a_root_for_containers_and_no_container_has_a_guests_image(bench: Bench) -> None:
    bench.write_root("box")
    assert bench.store.rootfs_names() == ["box"]
    with pytest.raises(UsageError, match="'box' has no kernel") as caught:
        bench.store.get("box")
    assert caught.value.allowed == "small"
    with pytest.raises(UsageError, match="'small' is what guests are started from") as caught:
        bench.store.rootfs("small")
    assert caught.value.allowed == "box"
    with pytest.raises(UsageError, match="There is no recipe 'nothing'"):
        bench.store.rootfs("nothing")


@pytest.mark.parametrize("damage", [flip, lambda path: os.truncate(path, 100), lambda path: path.unlink()])
def test_a_damaged_root_is_noticed_and_built_anew(bench: Bench, damage: Callable[[Path], Any]) -> None:
    bench.write_root("box")
    path = bench.store.rootfs("box")
    content = path.read_bytes()
    damage(path)
    assert bench.store.find("box") is None
    assert bench.store.rootfs("box").read_bytes() == content
    assert bench.builds == 2


def test_a_root_is_exported_and_imported(bench: Bench, tmp_path: Path) -> None:
    bench.write_root("box")
    file, content = bench.store.export("box", tmp_path / "box.cloudlab-image"), bench.store.rootfs("box").read_bytes()
    bench.distribution = ""
    there = ImageStore(tmp_path / "there")
    there.directory.mkdir()
    there.import_(file)
    assert there.rootfs("box").read_bytes() == content
    assert there.rootfs("box").parent.name == "box-imported"
    assert bench.builds == 1


def test_a_root_is_locked_removed_and_pruned_as_images_are(bench: Bench) -> None:
    bench.write_root("box")
    old = bench.store.build("box", relock=True)
    assert "curl" in find_recipe("box").lock_file.read_text()
    bench.write_root("box", 'bash = ["bash"]\n')
    new = bench.store.rootfs("box")
    assert bench.store.prune() > old.size
    assert [image.rootfs for image in bench.store.all()] == [new]
    assert bench.store.remove("box") > 0
    assert bench.store.all() == []


def test_an_import_that_mixes_both_kinds_is_refused(bench: Bench, tmp_path: Path) -> None:
    """A record without a kernel's release speaks of a root, whatever files lie beside it."""
    image = bench.store.get("small")
    record = image.directory / "image.json"
    file = bench.store.export("small", tmp_path / "file")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"kernel_release": ""}))
    assert bench.store.find("small") is None
    with tarfile.open(tmp_path / "mixed.tar", "w") as archive:
        archive.add(image.kernel, "vmlinux")
        archive.add(image.initrd, "initrd.cpio")
        archive.add(record, "image.json")
    file.write_bytes(zstandard.compress((tmp_path / "mixed.tar").read_bytes()))
    with pytest.raises(UsageError, match="does not fit its own hashes"):
        bench.store.import_(file)


def test_the_command_line_lists_and_shows_a_root(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cloudlab.cli.images._store", lambda: bench.store)
    bench.write_root("box")
    assert main(["images", "build", "box"]) == 0
    capsys.readouterr()
    assert main(["images", "list"]) == 0
    assert re.search(r"^box +[0-9a-f]{16} +current +[\d.]+ KiB +- +\d{4}-", capsys.readouterr().out, re.MULTILINE)
    assert main(["images", "show", "box"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^kernel: +none: it is a root for containers$", shown, re.MULTILINE)
    assert str(bench.store.rootfs("box")) in shown
    assert "kernel parameters" not in shown
