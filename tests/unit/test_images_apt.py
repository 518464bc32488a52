"""How apt-get is asked, and what is made of its answers; a shell script stands in for it."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from cloudlab.errors import CloudlabError, UsageError
from cloudlab.images.apt import Apt, Package

# An archive in a directory: NAME_VERSION_amd64.deb; says what it was asked in asked.
FAKE = r"""#!/bin/sh
archive=@ARCHIVE@
echo "$*" >> "$archive/words"
for word; do case $word in -*) ;; *) printf '%s ' "$word";; esac; done >> "$archive/asked"; echo >> "$archive/asked"
for word; do case $word in -*) ;; *) command=$word; break;; esac; done
[ -f "$archive/fail-$command" ] && { cat "$archive/fail-$command" >&2; exit 100; }
case $command in
update) for o; do case $o in -oDir::State::lists=*) touch "${o#*=}/x_Packages";; esac; done; exit 0;;
esac
status=0
offer() { # package file
  size=$(stat -c %s "$1"); sha=$(sha256sum "$1" | cut -d' ' -f1)
  case $* in *--print-uris*) echo "'http://somewhere/$(basename "$1")' $(basename "$1") $size SHA256:$sha";; esac
}
for word; do case $word in
-*|install|download) ;;
*=*) file="$archive/$(echo "$word" | sed 's/=/_/; s/:/%3a/g')_amd64.deb"
   if [ ! -f "$file" ]; then echo "E: Version '${word#*=}' for '${word%%=*}' was not found" >&2; status=100
   else case "$*" in *--print-uris*) offer "$file" --print-uris;; *) cp "$file" .;; esac; fi;;
*) file=$(ls "$archive/${word}"_*.deb 2>/dev/null | tail -1)
   if [ -z "$file" ]; then echo "E: Unable to locate package $word" >&2; status=100
   else offer "$file" --print-uris; for lib in "$archive"/lib*.deb; do offer "$lib" --print-uris; done; fi;;
esac; done
exit $status
"""


class Archive:
    """What the stand-in offers, what it was asked, and how it fails."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def add(self, name: str, version: str, content: bytes = b"package") -> Package:
        (self.place / f"{name}_{version.replace(':', '%3a')}_amd64.deb").write_bytes(content)
        return Package(name, version, hashlib.sha256(content).hexdigest(), len(content))

    def drop(self, package: Package) -> None:
        next(self.place.glob(f"{package.name}_*")).unlink()

    def fail(self, command: str, text: str) -> None:
        (self.place / f"fail-{command}").write_text(text)

    @property
    def asked(self) -> list[str]:
        """The command of each call, with what it was about."""
        path = self.place / "asked"
        return [line.strip() for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    place = tmp_path / "archive"
    place.mkdir()
    program = tmp_path / "bin" / "apt-get"
    program.parent.mkdir()
    program.write_text(FAKE.replace("@ARCHIVE@", str(place)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return Archive(place)


@pytest.fixture
def apt(archive: Archive, tmp_path: Path) -> Apt:
    home = tmp_path / "我的 cache"
    home.mkdir()
    return Apt(home)


def test_what_is_asked_for_comes_with_the_libraries_it_depends_on(archive: Archive, apt: Apt) -> None:
    curl, library, _ = archive.add("curl", "7.88"), archive.add("libcurl4", "7.88"), archive.add("libllvm19", "19")
    assert apt.resolve(["curl"], ["lib*"], ["libllvm*"]) == ([curl, library], [])


def test_a_version_with_an_epoch_is_read_out_of_the_file_name(archive: Archive, apt: Apt) -> None:
    ethtool = archive.add("ethtool", "1:6.1-1")
    assert apt.resolve(["ethtool"], [], [])[0] == [ethtool]
    assert apt.obtain([ethtool])[ethtool].name == f"ethtool_1%3a6.1-1_{ethtool.sha256}.deb"


def test_packages_that_the_archive_does_not_have_are_told_and_the_others_come(archive: Archive, apt: Apt) -> None:
    curl = archive.add("curl", "7.88")
    assert apt.resolve(["curl", "crun", "brctl"], [], []) == ([curl], ["brctl", "crun"])


def test_what_is_here_is_not_asked_for_again(archive: Archive, apt: Apt) -> None:
    curl = archive.add("curl", "7.88")
    apt.obtain([curl])
    asked = archive.asked
    apt.obtain([curl])
    assert apt.refused([curl]) == []
    assert archive.asked == asked == ["download curl=7.88"]


def test_a_damaged_package_is_noticed_removed_and_fetched_again(archive: Archive, apt: Apt) -> None:
    curl = archive.add("curl", "7.88")
    file = apt.obtain([curl])[curl]
    file.write_bytes(b"damagex")
    assert apt.obtain([curl])[curl].read_bytes() == b"package"
    assert len(archive.asked) == 2


def test_a_version_that_is_gone_is_refused(archive: Archive, apt: Apt) -> None:
    bash, curl = archive.add("bash", "5.2"), Package("curl", "7.88", "c" * 64)
    assert apt.refused([bash, curl]) == ["curl 7.88 is no longer in the archive"]


def test_another_content_under_the_same_version_is_refused_with_its_hash(archive: Archive, apt: Apt) -> None:
    real = archive.add("curl", "7.88")
    tested = Package("curl", "7.88", "c" * 64)
    assert apt.refused([tested]) == [f"curl 7.88 has another SHA-256 ({real.sha256}) than the one tested"]
    with pytest.raises(CloudlabError, match="something else than was asked for: curl"):
        apt.obtain([tested])


def test_lists_of_yesterday_are_fetched_again_before_anything_is_called_gone(archive: Archive, apt: Apt) -> None:
    apt.update()
    apt.refused([Package("curl", "7.88", "c" * 64)])
    assert [line.split()[0] for line in archive.asked] == ["update", "download"]
    later = Apt(apt.packages.parent)
    later.refused([Package("curl", "7.88", "c" * 64)])
    assert [line.split()[0] for line in archive.asked][2:] == ["download", "update", "download"]


def test_lists_are_fetched_once_a_day(archive: Archive, apt: Apt) -> None:
    apt.update()
    apt.update()
    assert archive.asked == ["update"]
    yesterday = time.time() - 25 * 3600
    os.utime(apt.packages.parent / "apt" / "updated", (yesterday, yesterday))
    apt.update()
    assert archive.asked == ["update", "update"]


def test_where_no_lists_can_be_had_at_all_apts_own_words_say_why(archive: Archive, apt: Apt) -> None:
    archive.fail("update", "W: noise\nE: Failed to fetch: could not resolve host\n")
    with pytest.raises(CloudlabError, match=r"apt-get update failed.*\nE: Failed to fetch: could not resolve host"):
        apt.update()


def test_where_some_lists_fail_the_older_ones_serve_on_and_it_is_said(
    archive: Archive, apt: Apt, capsys: pytest.CaptureFixture[str]
) -> None:
    apt.update()
    archive.fail("update", "E: The repository of somebody else has no key\n")
    apt.update(force=True)
    assert "not all lists of packages are fresh" in capsys.readouterr().out


def test_a_download_that_fails_leaves_no_half_package(archive: Archive, apt: Apt) -> None:
    archive.fail("download", "E: Write error - write (28: No space left on device)\n")
    with pytest.raises(CloudlabError, match="No space left"):
        apt.obtain([Package("curl", "7.88", "c" * 64)])
    assert list(apt.packages.iterdir()) == []
    assert list((apt.packages.parent / "apt").glob("inbox-*")) == []


def test_the_systems_own_state_is_not_touched_and_its_hooks_are_not_run(archive: Archive, apt: Apt) -> None:
    apt.update()
    words = (archive.place / "words").read_text()
    state = apt.packages.parent / "apt"
    assert f"-oDir::State={state}" in words
    assert f"-oDir::Cache={state}/cache" in words
    assert "#clear APT::Update::Post-Invoke-Success;" in (state / "apt.conf").read_text()


def test_without_apt_get_the_way_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="Example: cloudlab images import"):
        Apt(tmp_path)
