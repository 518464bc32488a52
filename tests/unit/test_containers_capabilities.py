"""Capabilities: names, numbers, sets, and the calls that take them on."""

from __future__ import annotations

import struct
from errno import EINVAL

import pytest

from cloudlab.containers import capabilities
from cloudlab.containers.calls import Calls
from cloudlab.containers.capabilities import DEFAULT, DEFAULT_SETS, NAMES, NUMBERS
from cloudlab.errors import UsageError
from cloudlab.machines.result import Result

ALL = (1 << 41) - 1
STATUS = """Name:\tcat
Uid:\t0\t0\t0\t0
CapInh:\t0000000000000000
CapPrm:\t00000000a80425fb
CapEff:\t0000000000000400
CapBnd:\t000003ffffffffff
CapAmb:\t0000010000000000
Seccomp:\t0
"""


class Shelf:
    """A place where one file can be read, or none."""

    name = "n1"

    def __init__(self, text: str, exit_status: int = 0) -> None:
        self.text, self.exit_status, self.commands = text, exit_status, []

    def run(self, command, *, input=b"", timeout_s=60.0):
        self.commands.append(list(command))
        return Result(" ".join(command), self.exit_status, self.text.encode(), b"cat: No such file or directory\n")


# --- names and masks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("CAP_CHOWN", 0),
        ("CAP_SETUID", 7),
        ("CAP_NET_RAW", 13),
        ("CAP_SYS_ADMIN", 21),
        ("CAP_MKNOD", 27),
        ("CAP_SETFCAP", 31),
        ("CAP_MAC_OVERRIDE", 32),
        ("CAP_PERFMON", 38),
        ("CAP_CHECKPOINT_RESTORE", 40),
    ],
)
def test_capabilities_have_the_numbers_of_the_kernel(name: str, number: int) -> None:
    assert NUMBERS[name] == number
    assert capabilities.mask_of([name]) == 1 << number
    assert capabilities.names_in(1 << number) == (name,)


def test_there_are_41_and_each_is_explained_once() -> None:
    assert len(NAMES) == len(set(NAMES)) == 41
    lines = {capabilities.explain(name) for name in NAMES}
    assert len(lines) == 41
    assert all(line.startswith("CAP_") and line.endswith(".") and "\n" not in line for line in lines)


def test_the_default_is_the_14_that_docker_keeps() -> None:
    assert capabilities.mask_of(DEFAULT) == 0xA80425FB  # what /proc/1/status shows in a container of docker's
    assert len(DEFAULT) == 14
    assert {name for name in NAMES if "is kept" in capabilities.explain(name)} == set(DEFAULT)


def test_a_dropped_one_is_explained_by_what_an_escape_would_be() -> None:
    assert capabilities.explain("CAP_SYS_MODULE") == (
        "CAP_SYS_MODULE is dropped. With it: load a kernel module: code of one's own choice in the kernel,"
        " and nothing above it is left."
    )
    assert capabilities.explain("CAP_KILL").startswith("CAP_KILL is kept: signal processes of other users")


def test_all_stands_for_every_one() -> None:
    assert capabilities.mask_of(["ALL"]) == capabilities.mask_of("ALL") == ALL
    assert capabilities.names_in(ALL) == NAMES
    assert capabilities.names_in(0) == ()
    assert capabilities.mask_of([]) == 0


def test_a_mask_of_a_newer_kernel_is_not_read_as_less_than_it_is() -> None:
    assert capabilities.names_in(1 << 41 | 1) == ("CAP_CHOWN", "CAP_41")


@pytest.mark.parametrize(
    ("given", "near"),
    [("NET_ADMIN", "CAP_NET_ADMIN"), ("cap_sys_admin", "CAP_SYS_ADMIN"), ("CAP_SYS_ADMN", "CAP_SYS_ADMIN"), (7, "ALL")],
)
def test_an_unknown_name_is_told_those_near_it(given: object, near: str) -> None:
    with pytest.raises(UsageError, match=rf"There is no capability {given!r}\.\nAllowed: .*{near}"):
        capabilities.mask_of([given])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="There is no capability"):
        capabilities.explain(given)  # type: ignore[arg-type]


# --- what a process has -----------------------------------------------------------------------------------------


def test_the_sets_of_a_process_are_read_from_its_status() -> None:
    place = Shelf(STATUS)
    sets = capabilities.of(place, 17)
    assert place.commands == [["cat", "/proc/17/status"]]
    assert sets == {
        "inheritable": (),
        "permitted": tuple(name for name in NAMES if name in DEFAULT),
        "effective": ("CAP_NET_BIND_SERVICE",),
        "bounding": (*NAMES, "CAP_41"),
        "ambient": ("CAP_CHECKPOINT_RESTORE",),
    }


def test_a_process_that_is_not_there_is_said_to_be_none() -> None:
    with pytest.raises(UsageError, match=r"There is no process 99 on n1\.\nAllowed: a number that ps shows"):
        capabilities.of(Shelf("", exit_status=1), 99)


# --- the calls --------------------------------------------------------------------------------------------------


def test_all_that_is_not_in_the_bounding_set_is_dropped_from_it() -> None:
    calls = Calls()
    capabilities.add_bounding(calls, DEFAULT_SETS)
    assert {call.arguments[0] for call in calls} == {24}
    dropped = [call.arguments[1] for call in calls]
    assert len(dropped) == 41 - 14
    assert {NAMES[number] for number in dropped} == set(NAMES) - set(DEFAULT)
    assert all(call.harmless == (EINVAL,) for call in calls)
    assert str(next(iter(calls))) == "prctl(CAPBSET_DROP, 2, 0, 0, 0)"


def test_a_set_that_is_not_named_is_empty() -> None:
    calls = Calls()
    capabilities.add_bounding(calls, {})
    assert len(list(calls)) == 41


def test_the_sets_are_taken_on_by_capset_and_then_the_ambient_ones_are_raised() -> None:
    calls = Calls()
    names = ("CAP_NET_RAW", "CAP_BPF")
    sets = {"effective": ("CAP_BPF",), "permitted": names, "inheritable": names, "ambient": ("CAP_BPF", "CAP_NET_RAW")}
    capabilities.add_sets(calls, sets)
    capset, *rest = calls
    header, data = capset.arguments
    assert struct.unpack("<Ii", header) == (0x20080522, 0)  # version 3, this process
    assert struct.unpack("<6I", data) == (0, 1 << 13, 1 << 13, 1 << 7, 1 << 7, 1 << 7)
    assert [str(call) for call in rest] == [
        "prctl(CAP_AMBIENT, CLEAR_ALL, 0, 0, 0)",
        "prctl(CAP_AMBIENT, RAISE, 13, 0, 0)",
        "prctl(CAP_AMBIENT, RAISE, 39, 0, 0)",
    ]
    assert capset.harmless == ()


@pytest.mark.parametrize(
    ("sets", "problem"),
    [
        ({"bounds": ()}, r"'bounds' is no set of capabilities\.\nAllowed: inheritable, permitted"),
        ({"effective": ("CAP_KILL",)}, "CAP_KILL: in the effective set, but not in the permitted one"),
        ({"ambient": ("CAP_KILL",), "permitted": ("CAP_KILL",)}, "in the ambient set, but not in the inheritable one"),
        ({"ambient": ("CAP_KILL",), "inheritable": ("CAP_KILL",)}, "in the ambient set, but not in the permitted one"),
        ({"bounding": (), "inheritable": ("CAP_KILL",)}, "in the inheritable set, but not in the bounding one"),
        ({"permitted": ("CAP_SLEEP",)}, "There is no capability 'CAP_SLEEP'"),
    ],
)
def test_what_the_kernel_would_refuse_is_refused_before(sets: dict[str, tuple[str, ...]], problem: str) -> None:
    for add in (capabilities.add_bounding, capabilities.add_sets):
        calls = Calls()
        with pytest.raises(UsageError, match=problem):
            add(calls, sets)
        assert not list(calls)
