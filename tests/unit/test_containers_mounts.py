"""Mount options: which are flags of mount(2), which change propagation, and which are the file system's own."""

from __future__ import annotations

import pytest

from cloudlab.containers.mounts import PROPAGATION, Options, parse_options
from cloudlab.containers.syscalls import Mount


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], Options()),
        (["defaults"], Options()),
        (["ro", "nosuid", "nodev", "noexec"], Options(Mount.RDONLY | Mount.NOSUID | Mount.NODEV | Mount.NOEXEC)),
        (["ro", "rw"], Options()),
        (["rw", "ro"], Options(Mount.RDONLY)),
        (["nosuid", "suid", "noexec", "exec", "nodev", "dev"], Options()),
        (["bind"], Options(Mount.BIND)),
        (["rbind", "ro"], Options(Mount.BIND | Mount.REC | Mount.RDONLY)),
        (["size=64k", "mode=755"], Options(data="size=64k,mode=755")),
        (["nosuid", "newinstance", "ptmxmode=0666"], Options(Mount.NOSUID, data="newinstance,ptmxmode=0666")),
        (["private"], Options(propagation=Mount.PRIVATE)),
        (["rslave"], Options(propagation=Mount.SLAVE | Mount.REC)),
        (["rbind", "rshared"], Options(Mount.BIND | Mount.REC, Mount.SHARED | Mount.REC)),
        (["noatime", "relatime"], Options(Mount.NOATIME | Mount.RELATIME)),
    ],
)
def test_options_are_sorted(words: list[str], expected: Options) -> None:
    assert parse_options(words) == expected


def test_an_option_that_nobody_knows_is_left_to_the_file_system_to_refuse() -> None:
    assert parse_options(["moon"]).data == "moon"


def test_a_roots_propagation_is_one_of_four() -> None:
    assert list(PROPAGATION) == ["private", "slave", "shared", "unbindable"]
