"""Which packages an image is made of: the tested ones where they can be had, else the current ones, and it is said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cloudlab.errors import UsageError
from cloudlab.images import Recipe, packages
from cloudlab.images.apt import Apt, Package
from cloudlab.images.packages import kernel_package, packages_for, read_lock, write_lock

BASH, CURL, LIBC = (
    Package("bash", "5.2", "b" * 64),
    Package("curl", "7.88", "c" * 64),
    Package("libc6", "2.36", "d" * 64),
)
KERNEL = Package("linux-image-cloud-amd64", "6.1", "e" * 64)
NEW_CURL = Package("curl", "8.14", "f" * 64)


class FakeApt(Apt):
    """An archive: what it has now, and what it no longer gives."""

    def __init__(self, current: Sequence[Package], refused: Sequence[str] = (), unknown: Sequence[str] = ()) -> None:
        self.current, self.lines, self.unknown = list(current), list(refused), list(unknown)
        self.asked: list[str] = []

    def refused(self, packages: Iterable[Package]) -> list[str]:
        return self.lines

    def resolve(
        self, names: Iterable[str], accept: Sequence[str], skip: Sequence[str]
    ) -> tuple[list[Package], list[str]]:
        self.asked = list(names)
        return self.current, self.unknown

    def obtain(self, packages: Iterable[Package]) -> dict[Package, Path]:
        return {package: Path(package.name) for package in packages}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(packages, "distribution", lambda: "debian-12")
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "debian", "VERSION_ID": "12"})
    write_lock(tmp_path / "recipe.lock", "debian-12", [BASH, CURL, LIBC, KERNEL])
    take = {"bash": ("bash",), "curl": ("curl",)}
    kernel = {"debian": "linux-image-cloud-amd64", "ubuntu": "linux-image-virtual"}
    return Recipe("small", "", tmp_path, kernel, (), (), take)


def test_a_lock_is_read_as_it_was_written_one_table_a_distribution(tmp_path: Path) -> None:
    lock = tmp_path / "recipe.lock"
    write_lock(lock, "ubuntu-24.04", [NEW_CURL])
    write_lock(lock, "debian-12", [CURL, BASH])
    assert read_lock(lock, "debian-12") == [BASH, CURL]
    assert read_lock(lock, "ubuntu-24.04") == [NEW_CURL]
    assert read_lock(lock, "debian-13") == read_lock(tmp_path / "none", "debian-12") == []


def test_a_lock_has_the_same_bytes_in_whatever_order_it_was_written(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for path, order in ((one, [BASH, CURL]), (other, [CURL, BASH])):
        write_lock(path, "debian-12", order)
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("text", ["[debian-12", '[debian-12]\ncurl = ["7.88"]', 'debian-12 = "x"'])
def test_a_lock_that_is_damaged_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.lock").write_text(text)
    with pytest.raises(UsageError, match=r"recipe\.lock is not a lock file"):
        read_lock(tmp_path / "recipe.lock", "debian-12")


def test_the_locked_versions_are_taken_where_the_archive_has_them(recipe: Recipe) -> None:
    files, remarks = packages_for(recipe, FakeApt([NEW_CURL]))
    assert sorted(files) == [BASH, CURL, LIBC, KERNEL]
    assert remarks == []


def test_where_one_is_gone_the_whole_current_set_is_taken_and_it_is_said(recipe: Recipe) -> None:
    apt = FakeApt([BASH, NEW_CURL, LIBC, KERNEL], refused=["curl 7.88 is no longer in the archive"])
    files, remarks = packages_for(recipe, apt)
    assert sorted(files) == [BASH, NEW_CURL, LIBC, KERNEL]
    assert remarks == ["curl 7.88 is no longer in the archive", "curl 8.14 in place of 7.88"]


def test_another_content_under_a_locked_version_is_never_taken_silently(recipe: Recipe) -> None:
    other = Package("curl", "7.88", "9" * 64)
    line = f"curl 7.88 has another SHA-256 ({'9' * 64}) than the one tested"
    files, remarks = packages_for(recipe, FakeApt([BASH, other, LIBC, KERNEL], refused=[line]))
    assert other in files
    assert remarks == [line]


def test_a_distribution_that_was_not_tested_is_said(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "distribution", lambda: "ubuntu-24.04")
    apt = FakeApt([NEW_CURL], unknown=["bash"])
    _, remarks = packages_for(recipe, apt)
    assert apt.asked == ["linux-image-virtual", "bash", "curl"]
    assert remarks == ["the recipe was not tested with packages of ubuntu-24.04", "ubuntu-24.04 has no package 'bash'"]


def test_a_lock_that_does_not_know_all_of_the_recipe_is_not_followed(recipe: Recipe) -> None:
    write_lock(recipe.lock_file, "debian-12", [BASH, LIBC, KERNEL])
    files, remarks = packages_for(recipe, FakeApt([BASH, NEW_CURL, LIBC, KERNEL]))
    assert NEW_CURL in files
    assert remarks == ["recipe.lock does not know package 'curl'"]


def test_relocking_takes_the_current_set_without_a_remark(recipe: Recipe) -> None:
    files, remarks = packages_for(recipe, FakeApt([NEW_CURL]), use_lock=False)
    assert (list(files), remarks) == ([NEW_CURL], [])


@pytest.mark.parametrize(
    ("distro", "like", "package"),
    [
        ("debian-12", "", "linux-image-cloud-amd64"),
        ("ubuntu-24.04", "debian", "linux-image-virtual"),
        ("linuxmint-22", "ubuntu debian", "linux-image-virtual"),
        ("kali-2025.1", "debian", "linux-image-cloud-amd64"),
    ],
)
def test_the_kernel_is_the_distributions_or_of_one_it_is_like(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, distro: str, like: str, package: str
) -> None:
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID_LIKE": like})
    assert kernel_package(recipe, distro) == package


def test_a_recipe_without_a_kernel_asks_for_none(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "distribution", lambda: "fedora-40")
    apt = FakeApt([NEW_CURL])
    packages_for(replace(recipe, kernel={}), apt)
    assert apt.asked == ["bash", "curl"]


def test_a_distribution_without_a_kernel_is_an_error(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.freedesktop_os_release", dict)
    with pytest.raises(UsageError, match="names no kernel for fedora-40"):
        kernel_package(recipe, "fedora-40")
