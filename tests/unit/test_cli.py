"""The command line without a guest: what each command says, and with which exit status it ends."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudlab import __version__
from cloudlab.cli import lab as lab_command
from cloudlab.cli import main
from cloudlab.cli.clean import disk_size, remove_all
from cloudlab.cli.ps import lab_row
from cloudlab.cli.table import table
from cloudlab.errors import CloudlabError, UsageError
from cloudlab.owner.owner import LabRecord

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own, and a place for labs whose name is short enough."""
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path / "cache"))
    with tempfile.TemporaryDirectory(dir="/tmp") as run:
        monkeypatch.setenv("CLOUDLAB_RUN", run)
        yield Path(run)


@pytest.fixture
def dead_lab(places: Path) -> Path:
    directory = places / "abc123"
    directory.mkdir(parents=True)
    (directory / "lab.json").write_text(json.dumps({"pid": 4_000_000, "keeper": 4_000_001, "started": 1000.0}))
    (directory / "n1.json").write_text(json.dumps({"machine": "n1", "pid": 4_000_002, "address": "10.0.0.1"}))
    return directory


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = "import sys, cloudlab.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert "doctor" in done.stdout
    heavy = {"networkx", "pexpect", "psutil", "tqdm", "zstandard", "jupyterlab", "plotly", "cloudlab.machines"}
    assert heavy.isdisjoint(done.stdout.split())


def test_the_version_is_the_package_s(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"cloudlab {__version__}\n")


@pytest.mark.parametrize("words", [[], ["nonsense"], ["boot", "--cpus", "many"], ["images"], ["images", "remove"]])
def test_a_wrong_call_ends_with_2(words: list[str], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: cloudlab" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (CloudlabError("the guest is on fire"), 1, "cloudlab: the guest is on fire\n"),
        (UsageError("No.", allowed="yes"), 2, "cloudlab: No.\nAllowed: yes\n"),
        (KeyboardInterrupt(), 130, "\n"),
    ],
)
def test_errors_are_messages_and_exit_statuses_never_tracebacks(
    raised: BaseException, status: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def fail(_: object) -> int:
        raise raised

    monkeypatch.setattr("cloudlab.cli.ps.lab_row", fail)
    monkeypatch.setattr("cloudlab.owner.labs", lambda: fail(None))
    assert main(["ps"]) == status
    assert capsys.readouterr().err == said


def test_a_reader_that_hangs_up_is_no_error() -> None:
    command = 'import sys; from cloudlab.cli import main; sys.stdin.readline(); sys.exit(main(["ps"]))'
    with subprocess.Popen(
        [sys.executable, "-uc", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, said = process.communicate(b"go\n", timeout=30)
    assert (process.returncode, said) == (141, b"")


def test_lessons_is_the_teaching_room_s_own_command(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["lessons", "--help"])
    assert ended.value.code == 0
    assert "cloudlab lessons" in capsys.readouterr().out


# --- ps and clean -------------------------------------------------------------------------------------------------


def test_ps_and_clean_have_little_to_say_where_nothing_is(capsys: Captured) -> None:
    assert (main(["ps"]), main(["ps", "--json"]), main(["clean"])) == (0, 0, 0)
    assert capsys.readouterr().out == "No labs.\n[]\nNothing to clean.\n"


def test_ps_lists_a_dead_lab_with_what_was_in_it(dead_lab: Path, capsys: Captured) -> None:
    assert main(["ps"]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["LAB", "STATE", "OWNER", "AGE", "MACHINE", "PID", "MEMORY", "ADDRESS"]
    assert line.split()[:3] == ["abc123", "dead", "4000000"]
    assert line.split()[-4:] == ["n1", "-", "-", "10.0.0.1"]


def test_ps_json_has_the_same_as_data(dead_lab: Path, capsys: Captured) -> None:
    assert main(["ps", "--json"]) == 0
    (lab,) = json.loads(capsys.readouterr().out)
    assert (lab["id"], lab["alive"], lab["owner"], lab["directory"]) == ("abc123", False, 4_000_000, str(dead_lab))
    assert lab["machines"] == [{"name": "n1", "pid": None, "memory_pss": None, "address": "10.0.0.1"}]


def test_a_process_that_is_no_child_of_the_keeper_is_not_the_machine(tmp_path: Path) -> None:
    note = {"machine": "n1", "pid": os.getpid(), "address": "10.0.0.1"}  # the number was used again
    row = lab_row(LabRecord(tmp_path, True, {"keeper": 4_000_001, "started": 10.0}, [note]), 15.0)
    assert (row.machines, row.age_s) == ([], 5.0)


def test_clean_removes_dead_labs_and_says_which(dead_lab: Path, capsys: Captured) -> None:
    assert main(["clean"]) == 0
    assert capsys.readouterr().out == "removed lab abc123 with n1\n"
    assert not dead_lab.exists()


def test_clean_cache_says_what_it_freed(tmp_path: Path, capsys: Captured) -> None:
    state = tmp_path / "cache" / "states" / "0123456789abcdef"
    state.mkdir(parents=True)
    (state / "ram").write_bytes(b"x" * 100_000)
    (building := state.with_name(".building-1")).mkdir()
    assert main(["clean", "--cache"]) == 0
    assert "KiB of saved states and 0 B of old images" in capsys.readouterr().out
    assert not state.exists()
    assert building.exists(), "somebody is building it"


def test_clean_cache_refuses_while_a_lab_lives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Captured
) -> None:
    monkeypatch.setattr("cloudlab.owner.labs", lambda: [LabRecord(tmp_path, True, {}, [])])
    assert main(["clean", "--cache"]) == 2
    assert "1 labs are alive" in capsys.readouterr().err


def test_holes_in_files_are_not_counted_as_disk(tmp_path: Path) -> None:
    with (tmp_path / "ram").open("wb") as file:
        file.truncate(1 << 30)
    assert disk_size(tmp_path) < 1 << 20
    assert remove_all([tmp_path]) < 1 << 20
    assert not tmp_path.exists()


# --- boot and images ----------------------------------------------------------------------------------------------


def test_boot_needs_a_terminal_and_says_what_does_not(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["boot"]) == 2
    assert "needs a terminal" in capsys.readouterr().err


def test_images_list_names_what_is_not_built(capsys: Captured) -> None:
    assert main(["images", "list"]) == 0
    assert "not built" in capsys.readouterr().out


def test_images_show_of_what_is_not_built_says_how(capsys: Captured) -> None:
    assert main(["images", "show"]) == 1
    assert "cloudlab images build node" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["show", "toaster"], ["build", "toaster"], ["remove", "toaster"], ["import", "/none"]]
)
def test_unknown_images_are_wrong_calls(words: list[str], capsys: Captured) -> None:
    assert main(["images", *words]) == 2
    assert "cloudlab: There is no" in capsys.readouterr().err


# --- lab ----------------------------------------------------------------------------------------------------------


def test_lab_without_qemu_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Captured
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("cloudlab.images.ImageStore.find", lambda *_: object())
    assert main(["lab", "--no-browser"]) == 1
    said = capsys.readouterr().err
    assert "QEMU is not installed" in said
    assert "Traceback" not in said


def test_lab_refuses_a_port_that_is_taken(capsys: Captured) -> None:
    with socket.create_server(("localhost", 0)) as taken:
        assert main(["lab", "--port", str(taken.getsockname()[1])]) == 2
    assert "can't be used" in capsys.readouterr().err


def test_jupyterlab_serves_this_computer_only_and_opens_on_the_contents_page() -> None:
    words = lab_command.jupyter_words(Path("/l e"), "README.md", browser=False, port=9000, root=True)
    assert {"--ServerApp.root_dir=/l e", "--ServerApp.ip=localhost", "--no-browser", "--allow-root"} <= set(words)
    assert {"--LabApp.default_url=/lab/tree/README.md", "--ServerApp.port=9000"} <= set(words)
    assert "--ServerApp.port_retries=0" in words
    assert not any("token" in word or "password" in word for word in words)


def test_jupyterlab_as_a_user_with_a_browser_takes_any_port() -> None:
    words = lab_command.jupyter_words(Path("/l"), None, browser=True, port=None, root=False)
    assert "--LabApp.default_url=/lab" in words
    assert not any(word in ("--no-browser", "--allow-root") or "port" in word for word in words)


def test_the_contents_page_is_rendered_and_no_news_are_fetched() -> None:
    environment = lab_command.jupyter_environment({"PATH": "/bin", "JUPYTER_CONFIG_PATH": "/mine"})
    ours, mine = environment["JUPYTER_CONFIG_PATH"].split(os.pathsep)
    settings = json.loads((Path(ours) / "labconfig" / "default_setting_overrides.json").read_text())
    assert settings["@jupyterlab/docmanager-extension:plugin"]["defaultViewers"] == {"markdown": "Markdown Preview"}
    assert settings["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"
    assert mine == "/mine"
    assert environment["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/bin"]


@pytest.mark.parametrize(
    ("there", "lang", "page"),
    [
        (["README.md", "README.zh.md"], "en", "README.md"),
        (["README.md", "README.zh.md"], "zh", "README.zh.md"),
        (["README.md"], "zh", "README.md"),
        ([], "en", None),
    ],
)
def test_the_contents_page_comes_in_the_language_asked_for(
    tmp_path: Path, there: list[str], lang: str, page: str | None
) -> None:
    for name in there:
        (tmp_path / name).touch()
    assert lab_command.contents_page(tmp_path, lang) == page


def test_a_checkout_s_lessons_are_used_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (lessons := tmp_path / "课 程").mkdir()
    monkeypatch.setenv("CLOUDLAB_LESSONS", str(lessons))
    assert lab_command.lessons_folder(tmp_path / "elsewhere") == lessons


def test_an_installed_package_s_lessons_are_copied_and_what_was_changed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    lesson = tmp_path / "_data" / "lessons" / "0-ground" / "01-a.ipynb"
    lesson.parent.mkdir(parents=True)
    lesson.write_text("new")
    (lesson.parents[1] / "conftest.py").touch()
    monkeypatch.setenv("CLOUDLAB_LESSONS", str(lesson.parents[1]))
    copy = lab_command.lessons_folder(tmp_path)
    assert (copy / "0-ground" / "01-a.ipynb").read_text() == "new"
    (copy / "0-ground" / "01-a.ipynb").write_text("mine")
    assert lab_command.lessons_folder(tmp_path) == copy == tmp_path / "cloudlab-lessons"
    assert (copy / "0-ground" / "01-a.ipynb").read_text() == "mine"
    assert "0 files copied" in capsys.readouterr().out
    assert [path.name for path in copy.iterdir()] == ["0-ground"], "what only tests need stays where it is"


def test_tables_line_up_in_chinese_too() -> None:
    assert table(("A", "B"), [("课程", 1), ("x", None)]) == "A     B\n课程  1\nx     -"
