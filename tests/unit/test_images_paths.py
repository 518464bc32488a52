"""Where things are kept: a cache that is always to be found, a directory for sockets that is private."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloudlab import paths
from cloudlab.errors import UsageError
from cloudlab.paths import cache_directory, labs_directory


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLOUDLAB_CACHE", "CLOUDLAB_RUN", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_the_cache_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "cloudlab"
    assert cache_directory().is_dir()


def test_the_cache_is_where_the_user_says_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLOUDLAB_CACHE", "我的 缓存")
    assert cache_directory() == tmp_path / "我的 缓存"


@pytest.mark.parametrize("home", ["/dev/null", "/proc", ""])
def test_without_a_home_that_can_be_written_there_is_one_in_var_tmp(
    monkeypatch: pytest.MonkeyPatch, home: str, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(
        paths, "_writable", lambda place: str(place).startswith("/var/tmp/") or tmp_path in place.parents
    )
    monkeypatch.setattr(paths, "_is_mine", lambda _: True)
    assert cache_directory() == Path(f"/var/tmp/cloudlab-{os.getuid()}")


def test_a_user_without_a_home_gets_no_cache_in_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda _: Path("~/.cache/cloudlab"))
    monkeypatch.setattr(paths, "_writable", lambda _: True)
    monkeypatch.setattr(paths, "_is_mine", lambda _: True)
    assert cache_directory().is_absolute()
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDLAB_CACHE", "/proc/nowhere")
    with pytest.raises(UsageError, match="can't write to /proc/nowhere") as caught:
        cache_directory()
    assert "CLOUDLAB_CACHE" in caught.value.example


def test_in_a_public_place_a_directory_of_somebody_else_or_a_link_is_a_trap(tmp_path: Path) -> None:
    mine, link, open_to_all = tmp_path / "mine", tmp_path / "link", tmp_path / "open"
    mine.mkdir()
    link.symlink_to(mine)
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    assert [paths._is_mine(place) for place in (mine, link, open_to_all)] == [True, False, False]


def test_labs_have_a_short_and_private_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDLAB_RUN", str(tmp_path))
    if len(os.fsencode(tmp_path)) <= 47:
        assert labs_directory() == tmp_path
        assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_a_name_too_long_for_sockets_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDLAB_RUN", str(tmp_path / ("x" * 50)))
    with pytest.raises(UsageError, match="at most 47 bytes"):
        labs_directory()
