"""scripts/setup, among programs that only pretend: what it installs, when, by whose rights, and what it says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "setup"
REAL = ("cat", "cksum", "cp", "dirname", "env", "grep", "mkdir", "mktemp", "rm", "sh", "timeout", "touch", "true")
PYTHON = """
case "$*" in
*sys.version_info*11*) exit $OLD_PYTHON ;;
*ensurepip*) exit $NO_VENV ;;
*libatomic*) exit $NO_LIBATOMIC ;;
*python%d.%d-venv*) echo python3.11-venv ;;
-V) echo Python 3.11.2 ;;
"-m venv --clear .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
"-m pip install"*) exit $NO_NETWORK ;;
esac
"""
APT_GET = """
case "$*" in
*update*) : >"$BIN/updated" ;;
*install*)
  [ -e "$BIN/broken" ] && echo "E: the disk is full" && exit 100
  for package in "$@"; do case $package in
    qemu-system-x86) cp "$BIN/sh" "$BIN/qemu-system-x86_64" ;;
    qemu-utils) cp "$BIN/sh" "$BIN/qemu-img" ;;
    chromium) cp "$BIN/sh" "$BIN/chromium" ;;
    fonts-noto-cjk) printf '#!/bin/sh\\necho Noto\\n' >"$BIN/fc-list" && /bin/chmod +x "$BIN/fc-list" ;;
    python3.11-venv) exit 0 ;;
  esac; done ;;
esac
"""


class Computer:
    """A checkout and a PATH of its own, in which every program that matters writes down how it was called."""

    def __init__(self, place: Path) -> None:
        self.bin, self.checkout, self.log = place / "bin", place / "a 课程 checkout", place / "log"
        self.bin.mkdir()
        (self.checkout / "scripts").mkdir(parents=True)
        shutil.copy(SCRIPT, self.checkout / "scripts" / "setup")
        (self.checkout / "pyproject.toml").write_text("[project]\n")
        for name in REAL:
            (self.bin / name).symlink_to(str(shutil.which(name)))
        self.answers = {"OLD_PYTHON": "0", "NO_VENV": "0", "NO_LIBATOMIC": "0", "NO_NETWORK": "0"}
        self.program("python3", PYTHON)
        self.program("id", "echo 0")
        self.program("apt-get", APT_GET)
        self.program("apt-cache", '[ -e "$BIN/updated" ]')
        for name in ("qemu-system-x86_64", "qemu-img", "chromium", "skopeo", "umoci"):
            self.program(name)
        self.program("fc-list", "echo Noto")

    def program(self, name: str, does: str = "") -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)  # it may be a link to the real one
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"$LOG"\n{does}\n')
        path.chmod(0o755)

    def without(self, *names: str) -> Computer:
        for name in names:
            (self.bin / name).unlink()
        return self

    def setup(self, what: str = "lab", **answers: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        environment = {
            "PATH": str(self.bin),
            "LOG": str(self.log),
            "BIN": str(self.bin),
            "TMPDIR": str(self.bin.parent),
        }
        return subprocess.run(
            [self.checkout / "scripts" / "setup", what],
            env=environment | self.answers | answers,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def called(self, program: str) -> list[str]:
        """What `program` was called with, since the last `setup`."""
        calls = [line.partition(" ")[2] for line in self.log.read_text().splitlines() if line.startswith(program + " ")]
        return [call.replace("-q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=2 ", "") for call in calls]


@pytest.fixture
def computer(tmp_path: Path) -> Computer:
    return Computer(tmp_path)


QEMU = "install -y --no-install-recommends qemu-system-x86 qemu-utils"


def test_the_first_run_makes_the_environment_and_says_so(computer: Computer) -> None:
    done = computer.setup("lab")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(" ")[1] for line in done.stdout.splitlines()] == ["making", "installing"]
    assert any("pip install" in call and call.endswith("--editable .") for call in computer.called("python3"))


def test_the_second_run_does_nothing_and_says_nothing(computer: Computer) -> None:
    computer.setup("lab")
    done = computer.setup("lab")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not any("pip" in call for call in computer.called("python3"))
    assert computer.called("apt-get") == []


def test_another_pyproject_is_installed_again(computer: Computer) -> None:
    computer.setup("lab")
    (computer.checkout / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    assert "installing" in computer.setup("lab").stdout


def test_a_checkout_that_was_moved_is_made_ready_again(computer: Computer) -> None:
    computer.setup("lab")
    computer.checkout = computer.checkout.rename(computer.checkout.with_name("moved"))
    assert "installing" in computer.setup("lab").stdout


@pytest.mark.parametrize(("what", "extra"), [("lab", "."), ("test", ".[test]"), ("bench", ".[bench]")])
def test_each_purpose_has_its_own_extra(computer: Computer, what: str, extra: str) -> None:
    assert computer.setup(what).returncode == 0
    assert computer.called("python3")[-1].endswith(f"--editable {extra}")


def test_an_unknown_purpose_is_a_wrong_call(computer: Computer) -> None:
    done = computer.setup("everything")
    assert (done.returncode, done.stderr) == (2, "usage: scripts/setup lab|test|bench\n")


def test_root_installs_only_the_programs_that_are_missing(computer: Computer) -> None:
    done = computer.without("qemu-img").setup("lab")
    assert done.returncode == 0, done.stderr
    assert computer.called("apt-get") == ["update", "install -y --no-install-recommends qemu-utils"]


def test_lists_of_packages_are_not_fetched_when_they_know_what_is_needed(computer: Computer) -> None:
    (computer.bin / "updated").touch()
    assert computer.without("qemu-img", "qemu-system-x86_64").setup("lab").returncode == 0
    assert computer.called("apt-get") == [QEMU]


def test_tests_need_a_browser_and_a_chinese_font_too(computer: Computer) -> None:
    assert computer.without("chromium", "fc-list").setup("test").returncode == 0
    assert computer.called("apt-get")[-1].endswith("recommends chromium fontconfig fonts-noto-cjk")


def test_a_python_without_venv_gets_it(computer: Computer) -> None:
    computer.setup("lab", NO_VENV="1")
    assert computer.called("apt-get")[-1].endswith("recommends python3.11-venv")


def test_where_chromium_is_a_snap_playwright_brings_one(computer: Computer) -> None:
    computer.program("grep", "exit 0")  # /etc/os-release says ID=ubuntu
    done = computer.without("chromium").setup("test")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "setup: fetching Chromium")
    assert computer.called("python3")[-1] == "-m playwright install --with-deps chromium"
    assert computer.called("apt-get") == []
    assert computer.setup("test").stdout == ""


def test_tests_need_the_library_that_playwright_needs(computer: Computer) -> None:
    computer.setup("test", NO_LIBATOMIC="1")
    assert computer.called("apt-get")[-1].endswith("recommends libatomic1")


def test_sudo_is_used_where_it_asks_nothing(computer: Computer) -> None:
    computer.program("id", "echo 1000")
    computer.program("sudo", 'shift; exec "$@"')
    done = computer.without("qemu-img", "qemu-system-x86_64").setup("lab")
    assert done.returncode == 0, done.stderr
    assert all(call.startswith("-n ") for call in computer.called("sudo"))
    assert computer.called("apt-get") == ["update", QEMU]


@pytest.mark.parametrize("sudo", ["absent", "wants a password"])
def test_without_rights_it_says_what_to_ask_an_administrator_for(computer: Computer, sudo: str) -> None:
    computer.program("id", "echo 1000")
    if sudo != "absent":
        computer.program("sudo", "exit 1")
    done = computer.without("qemu-img", "qemu-system-x86_64").setup("lab")
    assert done.returncode == 1
    assert "missing: qemu-system-x86_64 qemu-img" in done.stderr
    assert f"    apt-get update && apt-get {QEMU}\n" in done.stderr
    assert computer.called("apt-get") == []


def test_without_apt_it_says_which_programs_are_missing(computer: Computer) -> None:
    done = computer.without("qemu-system-x86_64", "apt-get", "apt-cache").setup("lab")
    assert done.returncode == 1
    assert "missing: qemu-system-x86_64\n" in done.stderr


def test_a_failed_installation_shows_what_apt_said(computer: Computer) -> None:
    (computer.bin / "broken").touch()
    done = computer.without("qemu-img").setup("lab")
    assert done.returncode == 1
    assert "E: the disk is full" in done.stderr
    assert "that failed: apt-get install" in done.stderr


def test_a_program_that_did_not_come_is_noticed(computer: Computer) -> None:
    computer.program("apt-get")
    done = computer.without("qemu-img").setup("lab")
    assert done.returncode == 1
    assert "still missing: qemu-img" in done.stderr


def test_an_old_python_is_refused_with_the_way_out(computer: Computer) -> None:
    done = computer.setup("lab", OLD_PYTHON="1")
    assert done.returncode == 1
    assert "make lab PYTHON=/path/to/python3.12" in done.stderr


def test_a_named_python_that_is_none_is_refused(computer: Computer) -> None:
    done = computer.setup("lab", PYTHON="/nowhere/python3")
    assert (done.returncode, done.stderr) == (1, "setup: PYTHON=/nowhere/python3 is no Python 3.11 or newer.\n")


def test_a_failed_pip_is_a_failure_that_the_next_run_repeats(computer: Computer) -> None:
    failed = computer.setup("lab", NO_NETWORK="1")
    assert failed.returncode == 1
    assert "Is the network there?" in failed.stderr
    assert "installing" in computer.setup("lab").stdout


def test_tools_that_tests_only_compare_with_are_tried_once_and_may_be_missing(computer: Computer) -> None:
    done = computer.without("skopeo", "umoci").setup("test")
    assert done.returncode == 0, done.stderr
    assert computer.called("apt-get") == ["update", "install -y --no-install-recommends skopeo umoci"]
    assert computer.setup("test").stdout == ""


def test_tools_that_can_not_be_installed_are_gone_without(computer: Computer) -> None:
    (computer.bin / "broken").touch()
    done = computer.without("umoci").setup("test")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "setup: going on without umoci: tests that need them are skipped"
