from __future__ import annotations

import subprocess
import sys

import pytest

from cloudlab.errors import CloudlabError, MachineError, UsageError
from cloudlab.units import format_duration, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256M", 256 << 20),
        ("1.5 GiB", 3 << 29),
        ("64k", 65536),
        (1024, 1024),
        ("7", 7),
        ("2T", 2 << 40),
        ("1GB", 1 << 30),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1M", "1X", "much", "0", 0, -5, True, None, 1.5, "1 2M"])
def test_what_is_no_size_is_explained(text: object) -> None:
    with pytest.raises(UsageError, match=r'is not a size(.|\n)*Example: memory="256M"'):
        parse_size(text)  # type: ignore[arg-type]


def test_sizes_and_durations_are_written_for_people() -> None:
    assert [format_size(size) for size in (0, 1536, 256 << 20, 3 << 40)] == ["0 B", "1.5 KiB", "256 MiB", "3 TiB"]
    assert [format_duration(s) for s in (0.00002, 0.0021, 0.25, 1.5, 75)] == [
        "20 µs",
        "2.1 ms",
        "250 ms",
        "1.5 s",
        "1 min 15 s",
    ]


def test_a_usage_error_says_what_is_allowed_and_what_works() -> None:
    error = UsageError("x is no colour.", allowed="red, green", example='paint("red")')
    assert str(error) == 'x is no colour.\nAllowed: red, green\nExample: paint("red")'
    assert isinstance(error, CloudlabError)


def test_a_machine_error_names_machine_command_status_output_and_log(tmp_path: object) -> None:
    error = MachineError("n1", "the command failed", command="ls", exit_status=2, output="a\n" * 30 + "last\n")
    lines = str(error).splitlines()
    assert lines[:3] == ["n1: the command failed", "command: ls", "exit status: 2"]
    assert lines[-1] == "  | last"
    assert len(lines) == 16


def test_importing_cloudlab_loads_nothing_heavy() -> None:
    code = "import cloudlab, sys; print({'IPython', 'plotly', 'networkx', 'ipywidgets', 'psutil'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_public_names_are_there() -> None:
    import cloudlab

    for name in cloudlab.__all__:
        assert getattr(cloudlab, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'; it has"):
        cloudlab.nonsense  # noqa: B018
