"""The agent is compiled by the C compiler that is here, or by zig's, which pip fetches; shell scripts stand in for both."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cloudlab.errors import CloudlabError
from cloudlab.images.compiler import compile_static

# A compiler that puts its own name before the source, and refuses a source that says so.
WORKS = """#!/bin/sh
grep -q mistake program.c && { echo "agent.c:1: error: mistake" >&2; exit 1; }
{ echo "$(basename "$0") $*"; cat program.c; } > program
"""
BROKEN = "#!/bin/sh\necho 'cannot find -lc' >&2; exit 1\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "agent source.c"
    path.write_text("int main;")
    return path


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only programs there are, besides those the stand-ins use themselves."""
    place = tmp_path / "bin"
    place.mkdir()
    for name in ("sh", "cat", "grep", "basename", "mkdir"):
        (place / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(place))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    return place


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    place = tmp_path / "工具 tools"
    place.mkdir()
    return place


def add(place: Path, name: str, script: str) -> None:
    (place / name).write_text(script)
    (place / name).chmod(0o755)


def add_pip(programs: Path, monkeypatch: pytest.MonkeyPatch, zig: str = WORKS) -> None:
    """Let a stand-in for Python have a pip that brings a stand-in for zig."""
    (programs / "zig-of-pip").write_text(zig)
    pip = f"""#!/bin/sh
echo "$*" >> {programs}/pip-asked
for word; do case $word in new) mkdir -p "$word/ziglang"; place=$word;; esac; done
cat {programs}/zig-of-pip > "$place/ziglang/zig"
/bin/chmod 755 "$place/ziglang/zig"
"""
    add(programs, "python", pip)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))


def test_the_compiler_that_is_here_is_asked_for_a_static_program(source: Path, programs: Path, tools: Path) -> None:
    add(programs, "gcc", WORKS)
    command, program = compile_static(source, tools).decode().splitlines()
    assert command == "gcc -static -Os -s -Wl,--build-id=none -o program program.c"
    assert program == "int main;"
    assert list(tools.iterdir()) == []


def test_a_compiler_that_makes_no_static_programs_is_passed_over(source: Path, programs: Path, tools: Path) -> None:
    add(programs, "cc", BROKEN)
    add(programs, "clang", WORKS)
    assert compile_static(source, tools).startswith(b"clang ")


def test_a_mistake_in_the_source_is_told_and_no_other_compiler_fetched_for_it(
    source: Path, programs: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(programs, "cc", WORKS)
    add_pip(programs, monkeypatch)
    source.write_text("int mistake")
    with pytest.raises(CloudlabError, match=r"does not compile:.*error: mistake"):
        compile_static(source, tools)
    assert not (programs / "pip-asked").exists()


def test_where_none_is_zig_is_fetched_once_and_kept(
    source: Path, programs: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_pip(programs, monkeypatch)
    for _ in range(2):
        assert compile_static(source, tools).startswith(b"zig cc -target x86_64-linux-musl -static")
    assert (programs / "pip-asked").read_text().splitlines() == [
        "-m pip install --quiet --target new ziglang>=0.13,<0.18"
    ]
    assert [path.name for path in tools.iterdir()] == ["ziglang"]


def test_on_a_computer_of_another_kind_its_own_compiler_is_not_asked(
    source: Path, programs: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(programs, "cc", WORKS)
    add_pip(programs, monkeypatch)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert compile_static(source, tools).startswith(b"zig cc")


def test_a_zig_that_is_installed_is_used(
    source: Path, programs: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    add(programs, "python", WORKS)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    assert compile_static(source, tools).startswith(b"python -m ziglang cc -target x86_64-linux-musl")


def test_a_fetch_that_was_broken_off_is_not_taken_for_a_compiler(
    source: Path, programs: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tools / ".fetching-x" / "new" / "ziglang").mkdir(parents=True)
    add_pip(programs, monkeypatch)
    assert compile_static(source, tools).startswith(b"zig cc")


def test_where_nothing_works_each_ones_words_and_the_way_out_are_said(
    source: Path, programs: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(programs, "cc", BROKEN)
    add(programs, "python", "#!/bin/sh\necho 'No module named pip' >&2; exit 1\n")
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    with pytest.raises(CloudlabError) as caught:
        compile_static(source, tools)
    for words in ("cannot find -lc", "No module named pip", "apt-get install gcc libc6-dev"):
        assert words in str(caught.value)


@pytest.mark.skipif(not os.access("/usr/bin/cc", os.X_OK), reason="there is no C compiler here")
def test_the_same_source_is_the_same_program_wherever_it_lies(tmp_path: Path) -> None:
    programs = set()
    for name in ("one", "another one"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.c").write_text("#include <stdio.h>\nint main(void) { return puts(__FILE__) < 0; }\n")
        programs.add(compile_static(tmp_path / name / "x.c", tmp_path / name))
    assert len(programs) == 1
