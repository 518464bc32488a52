"""A process that makes calls, the pure part: how answers are cut, what it refuses, what it does to have children."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudlab.containers import children, signatures
from cloudlab.containers.calls import Call, Calls, Outcome, Room, opening, outcomes_in, whole_records
from cloudlab.containers.here import Here
from cloudlab.containers.process import Process
from cloudlab.errors import MachineError, UsageError


def record(index: int, returned: int, data: bytes = b"") -> bytes:
    return struct.pack("<HqQI", index, returned, 0, len(data)) + data


def test_answers_are_cut_into_records_and_half_a_record_is_left() -> None:
    whole = record(3, 0) + record(4, 5, b"hello")
    assert whole_records(whole) == {3: record(3, 0), 4: record(4, 5, b"hello")}
    assert list(whole_records(whole[:-1])) == [3]
    assert whole_records(b"") == {}


def test_a_long_answer_is_whole_when_all_its_pieces_have_come() -> None:
    calls = Calls()
    calls.call("read", 0, Room(10), 10)
    pieces = record(0, 8, b"12345") + record(0, 8, b"678")
    whole = [outcomes_in(calls, pieces[:length])[0].whole for length in (22, 27, 49, 51, 52)]
    assert whole == [False, False, False, False, True]
    assert outcomes_in(calls, pieces)[0].data == b"12345678"


def test_an_answer_without_data_and_a_failure_are_whole_at_once() -> None:
    def came(call: Call, returned: int, data: bytes = b"") -> Outcome:
        return Outcome(call, returned, 0, data)

    assert came(Calls().call("getpid"), 99).whole
    assert came(Calls().call("read", 9, Room(10), 10), -9).whole
    assert not came(Calls().call("uname", Room(390, whole=True)), 0, b"Linux").whole


def test_answers_to_calls_that_nobody_waits_for_any_more_are_passed_over() -> None:
    calls = Calls(iter([7]))
    calls.call("getpid")
    found = outcomes_in(calls, record(6, 1) + record(7, 42) + record(65535, -2))
    assert [outcome.returned for outcome in found.values()] == [42]


def test_arguments_are_what_the_kernel_takes() -> None:
    assert signatures.arguments_of("mount", [None, Path("/etc"), ["a", "b"]]) == [0, "/etc", ("a", "b")]
    assert signatures.arguments_of("open", [bytearray(b"/etc"), 1]) == [b"/etc", 1]


def test_the_length_of_a_text_is_added_where_it_is_left_out() -> None:
    assert signatures.arguments_of("write", [1, "żółw"]) == [1, "żółw", 7]
    assert signatures.arguments_of("write", [1, "żółw", 2]) == [1, "żółw", 2]


def test_a_call_that_answers_with_data_makes_its_own_room_unless_it_is_given_one() -> None:
    arguments, meaning = signatures.spread("read", [3, 100])
    assert arguments == (3, Room(100), 100)
    assert meaning(Outcome(Calls().call("read"), 2, 0, b"ab")) == b"ab"
    assert signatures.spread("read", [3, Room(5), 5])[0] == (3, Room(5), 5)
    with pytest.raises(UsageError, match=r"p\.read: not these arguments\.\nAllowed: fd, size"):
        signatures.spread("read", [3])


@pytest.mark.parametrize("wrong", [1.5, {"a": 1}, [1, 2], object()])
def test_other_arguments_are_refused(wrong: object) -> None:
    with pytest.raises(UsageError, match="mount can't take"):
        signatures.arguments_of("mount", [wrong])


@pytest.mark.parametrize("name", ["fork", "vfork", "clone", "clone3", "exit_group"])
def test_calls_that_would_split_or_end_it_are_refused_with_what_to_use(name: str) -> None:
    with pytest.raises(UsageError, match=r"Allowed: p\.run, p\.spawn, p\.execve, p\.exit"):
        signatures.arguments_of(name, [0])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("close", [0]), ("close", [200]), ("dup2", [5, 0]), ("read", [0, 1]), ("close_range", [3, 1000, 0])],
)
def test_the_wire_to_it_is_kept(name: str, arguments: list[int]) -> None:
    with pytest.raises(UsageError, match="hears calls by descriptor 0"):
        signatures.arguments_of(name, arguments)


def test_other_descriptors_may_be_closed() -> None:
    signatures.arguments_of("close", [5])
    signatures.arguments_of("dup2", [0, 5])
    signatures.arguments_of("close_range", [300, 400, 0])


# --- children ---------------------------------------------------------------------------------------------------


def test_a_child_ends_with_its_parent_and_has_files_of_its_own() -> None:
    calls = Calls()
    run = children.add_run(calls, ["/bin/true"], b"given")
    inside = [line.strip(" |") for line in str(calls).splitlines() if line.startswith("  | ")]
    assert inside[:4] == ["prctl(SET_PDEATHSIG, KILL)", *(f"dup2(<memfd_create>, {number})" for number in range(3))]
    assert inside[4].startswith('execve("/bin/true"')
    assert [call.name for call in (*run.files, run.ended, *run.sizes)] == ["memfd_create"] * 3 + ["waitid"] + [
        "lseek"
    ] * 2


@pytest.mark.parametrize(("code", "status", "said"), [(1, 7, 7), (2, 9, 137), (3, 11, 139)])
def test_an_exit_status_is_read_as_the_shell_says_it(code: int, status: int, said: int) -> None:
    siginfo = struct.pack("<iii4xiiii", 17, 0, code, 1, 0, status, 0).ljust(128, b"\0")
    assert children.exit_status(siginfo) == said


class Ended:
    """A guest that ends when its process is told to: the error quotes what was printed, answers that nobody can read."""

    name, running = "n1", True
    stderr = "printed by a child"

    def __init__(self) -> None:
        self.stdout_bytes = b""

    def spawn(self, _: object) -> Ended:
        return self

    def write(self, data: bytes) -> None:
        """Answer a call, whose index is behind two lengths; the opening is no call."""
        if len(data) > len(opening("a")):
            self.stdout_bytes += record(*struct.unpack_from("<H", data, 8), 42)

    def wait_until_printed(self, seen: Callable[[bytes], bool], _: float) -> bool:
        return seen(self.stdout_bytes)

    def wait(self, _: float) -> None:
        raise MachineError(self.name, "it was closed", output=repr(self.stdout_bytes))

    def kill(self) -> None:
        self.running = False


def test_when_the_guest_has_ended_the_error_says_what_was_printed_and_quotes_no_answers() -> None:
    place = Ended()
    p = Process(place)
    for place.running, ask in ((True, p.exit), (False, p.exit), (False, p.getpid)):  # it ends then, or had ended before
        with pytest.raises(
            MachineError, match=r"n1: it was closed; it can't make (exit_group\(0\)|getpid\(\))"
        ) as caught:
            ask()
        assert "printed by a child" in str(caught.value)
        assert "x00" not in str(caught.value)


# --- on this computer -------------------------------------------------------------------------------------------


def test_a_command_on_this_computer_can_be_written_to_and_heard() -> None:
    spawned = Here(Path("/nonexistent")).spawn(["cat"])
    spawned.write(b"hello")
    assert spawned.wait_until_printed(lambda printed: printed == b"hello", 10)
    spawned.end_input()
    assert spawned.wait(10).stdout == "hello"
    assert not spawned.running


def test_a_command_on_this_computer_is_killed_and_says_so() -> None:
    spawned = Here(Path("/nonexistent")).spawn(["cat"])
    assert not spawned.wait_until_printed(lambda printed: b"x" in printed, 0.05)
    spawned.kill()
    assert spawned.wait(10).exit_status == 137
    spawned.write(b"nobody reads this")


def test_a_command_on_this_computer_that_takes_too_long_is_an_error() -> None:
    spawned = Here(Path("/nonexistent")).spawn(["sleep", "100"])
    with pytest.raises(MachineError, match=r"not done within 0\.05 s; it was killed"):
        spawned.wait(0.05)
    assert not spawned.running
