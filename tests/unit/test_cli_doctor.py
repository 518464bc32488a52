"""`cloudlab doctor`: each check's verdict for what it may find, and its remedy."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from cloudlab.cli import doctor, main
from cloudlab.cli.doctor import Level, Verdict
from cloudlab.machines.accelerator import Accelerator
from cloudlab.units import GIB, MIB

Captured = pytest.CaptureFixture[str]


def an_image(untested: list[str] | None = None) -> SimpleNamespace:
    """What the check looks at in an image."""
    return SimpleNamespace(directory=Path("/c"), kernel_release="6.1.0", size=2048, untested=untested or [])


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("verdict", "level", "said"),
    [
        (doctor.python((3, 11, 7), "/p"), Level.OK, "3.11.7, /p"),
        (doctor.python((3, 10, 1), "/p"), Level.PROBLEM, "Python 3.11 or newer"),
        (doctor.qemu("/usr/bin/q", (7, 2, 22)), Level.OK, "7.2.22"),
        (doctor.qemu_img("/usr/bin/qemu-img"), Level.OK, "/usr/bin/qemu-img"),
        (doctor.qemu_img(None), Level.PROBLEM, "qemu-utils"),
        (doctor.image(None, whole=False), Level.WARNING, "cloudlab images build node"),
        (doctor.image(an_image(), whole=False), Level.PROBLEM, "build --force node"),
        (doctor.accelerator(None), Level.OK, "will be tried"),
        (doctor.accelerator(Accelerator("tcg", "no /dev/kvm")), Level.OK, "TCG: no /dev/kvm"),
        (doctor.saved_states(0, 0), Level.OK, "none yet"),
        (doctor.saved_states(2, 3 * MIB), Level.OK, "2, 3 MiB"),
        (doctor.memory(200 * MIB), Level.PROBLEM, "200 MiB"),
        (doctor.memory(600 * MIB), Level.WARNING, "close other programs"),
        (doctor.memory(8 * GIB), Level.OK, "8 GiB"),
        (doctor.disk(Path("/c"), 600 * MIB, built=False), Level.PROBLEM, "CLOUDLAB_CACHE"),
        (doctor.disk(Path("/c"), 600 * MIB, built=True), Level.WARNING, "clean --cache"),
        (doctor.disk(Path("/c"), 60 * GIB, built=True), Level.OK, "60 GiB free in /c"),
        (doctor.lab_directory(Path("/tmp/课"), 47), Level.OK, "8 of at most 47 bytes"),
        (doctor.ports(""), Level.OK, "localhost"),
        (doctor.ports("not permitted"), Level.PROBLEM, "not permitted"),
        (doctor.browser(["firefox"], True), Level.OK, "firefox"),
        (doctor.browser(["chromium"], False), Level.WARNING, "NO_BROWSER=1"),
        (doctor.browser([], True), Level.WARNING, "none found"),
        (doctor.compiler(["/usr/bin/cc"], zig=False), Level.OK, "/usr/bin/cc"),
        (doctor.compiler([], zig=True), Level.OK, "ziglang"),
        (doctor.compiler([], zig=False), Level.OK, "will be fetched"),
        (doctor.jupyterlab("4.6.6"), Level.OK, "4.6.6"),
        (doctor.jupyterlab(""), Level.PROBLEM, "make lab"),
        (doctor.leftovers([], []), Level.OK, "none"),
        (doctor.leftovers(["abc123"], []), Level.WARNING, "cloudlab clean"),
        (doctor.leftovers([], [7350]), Level.PROBLEM, "kill 7350"),
    ],
)
def test_a_check_gives_its_verdict_and_a_remedy_if_all_is_not_well(verdict: Verdict, level: Level, said: str) -> None:
    assert verdict.level is level
    assert said in f"{verdict.text} {verdict.remedy}"
    assert bool(verdict.remedy) == (level is not Level.OK)


def test_a_whole_image_is_told_with_its_kernel_and_size() -> None:
    assert doctor.image(an_image(), whole=True) == Verdict(Level.OK, "node, Linux 6.1.0, 2 KiB, whole")
    assert "1 remarks: cloudlab images show" in doctor.image(an_image(["not tested here"]), whole=True).text


def test_a_process_of_a_lab_that_is_gone_is_an_orphan(tmp_path: Path) -> None:
    (tmp_path / "aaaaaa").mkdir()
    words = ["qemu-system-x86_64", "-nodefaults", "-chardev", f"socket,logfile={tmp_path}/bbbbbb/n1.console.log"]
    assert doctor.is_orphan(words, tmp_path)
    assert not doctor.is_orphan([word.replace("bbbbbb", "aaaaaa") for word in words], tmp_path)
    assert not doctor.is_orphan(["grep", f"{tmp_path}/bbbbbb/"], tmp_path)


def test_without_qemu_there_is_a_problem_and_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    problem = next(number for number, line in enumerate(lines) if line.startswith("QEMU"))
    assert lines[problem].split()[1] == "problem"
    assert "sudo apt-get install" in lines[problem + 1]


def test_where_no_lab_can_have_its_directory_there_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("CLOUDLAB_RUN", str(tmp_path / ("long" * 20)))
    assert main(["doctor"]) == 1
    assert "lab directory    problem" in capsys.readouterr().out


def test_doctor_starts_nothing(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("doctor started a lab")

    monkeypatch.setattr("cloudlab.lab.Lab.__init__", refuse)
    monkeypatch.setattr("cloudlab.cli.doctor.is_orphan", lambda *_: False)
    main(["doctor"])
    assert "JupyterLab" in capsys.readouterr().out
