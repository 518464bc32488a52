"""The sanitiser of notebook outputs hides what varies between runs, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CONFIGURATION = Path(__file__).parents[1] / "nbval.cfg"


def sanitised(text: str) -> str:
    """What nbval's `get_sanitize_patterns` and `sanitize` do (0.11)."""
    pairs = re.findall("^regex: (.*)$\n^replace: (.*)$", CONFIGURATION.read_text(), flags=re.MULTILINE)
    for regex, replacement in dict(pairs).items():
        text = re.sub(regex, replacement, text)
    return text


@pytest.mark.parametrize(
    ("one_run", "another_run"),
    [
        ("one\r\ntwo", "one\ntwo"),
        (" 45%|####5     | 45/100 [00:01<00:02, 33.1it/s]", "100%|#####| 100/100 [00:03<00:00, 29.0it/s]"),
        ("45it [00:01, 33.1it/s]", "45it [00:02, 20.0it/s]"),
        ("id 0f5a1c0e-94c4-4a3e-9d6f-0c7f3b0f2f11", "id 9b2c1c0e-94c4-4a3e-9d6f-0c7f3b0f2f99"),
        ("<Machine at 0x7f2a41c0d0>", "<Machine at 0x7f99aac0d0>"),
        ("pid:[4026532281]", "pid:[4026532999]"),
        ("pid_for_children:[4026532281]", "pid_for_children:[4026532999]"),
        ("[    0.512345] virtio_net", "[   12.000001] virtio_net"),
        ("started, pid 1234", "started, pid 99"),
        ("PID=1234", "PID=77"),
        ("in /tmp/tmpabc123/n1.log:", "in /tmp/tmpxyz/n1.log:"),
        ("/run/user/1000/cloudlab-1/qmp.sock", "/tmp/cloudlab-abc/qmp.sock"),
        ("http://127.0.0.1:43517/v3", "http://127.0.0.1:5000/v3"),
        ("http://[::1]:43517/v3", "http://[::1]:5000/v3"),
        ("2026-11-23T13:49:00.123Z", "2027-01-02T03:04:05Z"),
        ("2026-11-23 13:49:00,123 up", "2027-01-02 03:04:05,678 up"),
        ("on 2026-11-23", "on 2027-01-02"),
        ("Mon Nov 23 13:49:00 UTC 2026", "Sat Jan  2 03:04:05 UTC 2027"),
        ("Date: Mon, 23 Nov 2026 13:49:00 GMT", "Date: Sat, 02 Jan 2027 03:04:05 GMT"),
        ("root 4096 Nov 23 13:49 etc", "root 4096 Jan  2  2027 etc"),
        (" 13:49:00 up 3 users", " 03:04:05 up 3 users"),
        ("6.1.0-56-cloud-amd64", "6.8.0-31-generic"),
        ("Linux 6.1.192", "Linux 6.1.201"),
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", "QEMU emulator version 9.1.0"),
        ("real 0m1.204s", "real 0m0.998s"),
        ("booted in 1 min 15 s", "booted in 2 min 3 s"),
        ("ping 12.3 ms", "ping 850 µs"),
        ("booted in 1.2 s", "booted in 11 s"),
        ("3 seconds", "4.5 seconds"),
    ],
)
def test_two_runs_of_the_same_cell_compare_as_equal(one_run: str, another_run: str) -> None:
    assert sanitised(one_run) == sanitised(another_run)


@pytest.mark.parametrize(
    "text",
    [
        "52:54:00:00:00:02",
        "10.0.0.2/24",
        "6.1.0.2",
        "256 MiB",
        "1.5 GiB/s",
        "PID 1",
        "pid 7",
        "exit status 127",
        "/tmp/hello",
        "serial port 0x3f8",
        "4 CPUs",
        "100%",
        "10.0.0.2:80",
        "a\nb",
    ],
)
def test_what_is_the_same_in_every_run_is_compared(text: str) -> None:
    assert sanitised(text) == text


def test_sanitising_twice_changes_nothing_more() -> None:
    once = sanitised("pid 1234 at 2026-11-23 13:49:00 took 12.3 ms on http://localhost:80/ 0x7f2a41c0d0")
    assert sanitised(once) == once


def test_every_pattern_has_a_section_and_a_comment() -> None:
    sections = re.split(r"^\[", CONFIGURATION.read_text(), flags=re.MULTILINE)[1:]
    for section in sections:
        assert re.fullmatch(r"[a-z0-9-]+\]\n(# .*\n)+regex: .*\nreplace: .*\n*", section), section
