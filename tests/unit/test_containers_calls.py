"""Programs of system calls: how they are written, printed and read, and that process.c makes them on this computer's kernel."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudlab.containers.calls import (
    FAILED,
    PROGRAM,
    Answer,
    Call,
    CallError,
    Calls,
    Length,
    Room,
    Struct,
    Words,
    failure_in,
    make,
    new_mark,
    outcomes_in,
    program,
)
from cloudlab.containers.here import Here
from cloudlab.containers.syscalls import Clone, Mount, Open, Signal
from cloudlab.errors import CloudlabError, MachineError, UsageError
from cloudlab.images.compiler import compile_static

SOURCE = Path(__file__).parents[2] / "vm-images" / "node" / "process.c"
P_PID, WEXITED = 1, 4


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory) -> Here:
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler on this computer")
    place = tmp_path_factory.mktemp("process")
    try:
        compiled = compile_static(SOURCE, place)
    except CloudlabError as error:
        pytest.skip(str(error))
    (place / "process").write_bytes(compiled)
    (place / "process").chmod(0o755)
    return Here(place / "process")


# --- how they are written and printed ---------------------------------------------------------------------------


def test_a_program_reads_like_the_output_of_strace() -> None:
    calls = Calls()
    calls.call("mount", "", "/", "", Mount.REC | Mount.SLAVE, 0)
    file = calls.call("open", "/a\nb", Open.RDONLY | Open.CLOEXEC)
    calls.call("read", file, Room(16), 16)
    pipe = calls.call("pipe2", Room(8, whole=True), Open.CLOEXEC)
    calls.call("close", Answer(pipe, 4))
    _, child = calls.child(Clone.NEWPID)
    child.call("execve", "/bin/true", ["true"], [])
    assert str(calls).splitlines() == [
        'mount("", "/", "", REC|SLAVE, 0)',
        'open("/a\\nb", CLOEXEC)',
        "read(<open>, <16 bytes>, 16)",
        "pipe2(<8 bytes>, CLOEXEC)",
        "close(<pipe2[1]>)",
        "clone3({NEWPID, CHLD}, 88)",
        '  | execve("/bin/true", ["true"], [])',
    ]


def test_bytes_numbers_and_lengths_are_printed_short() -> None:
    calls = Calls()
    ours = calls.call("getpid")
    calls.call("write", 1, b"\0" * 100, Length())
    calls.call("open", Words("/proc/%d/maps", ours), 0)
    shown = str(calls).splitlines()
    assert len(shown[1]) < 130
    assert shown[1].endswith("..., <its length>)")
    assert shown[2] == 'open("/proc/%d/maps", 0)'


def test_a_program_can_be_read_in_order_with_what_children_do() -> None:
    calls = Calls()
    calls.call("getpid")
    clone, child = calls.child()
    child.call("getuid")
    calls.end_as(clone)
    assert [call.name for call in calls] == ["getpid", "clone3", "getuid", "end_as"]
    assert [call.index for call in calls] == [0, 1, 2, 3]


def test_a_system_call_that_does_not_exist_is_refused_with_those_that_are_near() -> None:
    with pytest.raises(UsageError, match="mount"):
        Calls().call("mountt")


@pytest.mark.parametrize(("arguments", "harmless"), [(range(7), ()), ((), (1, 2, 3))])
def test_more_arguments_or_harmless_errors_than_there_is_room_for_are_refused(
    arguments: tuple[int, ...], harmless: tuple[int, ...]
) -> None:
    with pytest.raises(UsageError, match="six arguments, two harmless"):
        Calls().call("getpid", *arguments, harmless=harmless)


def test_more_calls_than_can_be_numbered_are_refused() -> None:
    calls = Calls()
    for _ in range(65535):
        calls.call("getpid")
    with pytest.raises(UsageError, match="65535 calls"):
        calls.call("getpid")


@pytest.mark.parametrize("text", ["no number", "%s", "%d and %d", "100%", "%d %n"])
def test_words_that_printf_would_read_otherwise_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="one %d"):
        Words(text, Calls().call("getpid"))


def test_answers_are_read_in_whatever_order_processes_gave_them() -> None:
    calls = Calls()
    first, second = calls.call("getpid"), calls.call("getuid")
    answer = struct.pack("<HqQI", 1, -errno.EPERM, 2000, 0) + struct.pack("<HqQI", 0, 7, 1000, 3) + b"abc"
    outcomes = outcomes_in(calls, answer)
    assert outcomes[first.index].data == b"abc"
    assert outcomes[second.index].error == "EPERM (Operation not permitted)"
    assert str(outcomes[second.index]) == "getuid() = -1 EPERM (Operation not permitted)"


def test_an_answer_that_breaks_off_is_read_as_far_as_it_goes() -> None:
    calls = Calls()
    calls.call("getpid")
    calls.call("getuid")
    answer = struct.pack("<HqQI", 0, 7, 1000, 0) + b"\1\0\0"
    assert list(outcomes_in(calls, answer)) == [0]


def test_each_failure_has_its_own_mark() -> None:
    assert len({new_mark() for _ in range(100)}) == 100


# --- how they are made ------------------------------------------------------------------------------------------


def test_calls_return_what_the_kernel_returned(here: Here) -> None:
    calls = Calls()
    ids = [calls.call("getuid"), calls.call("getpid"), calls.call("umask", 0o22)]
    outcomes = make(here, calls)
    assert outcomes[ids[0].index].returned == os.getuid()
    assert outcomes[ids[1].index].returned > 1
    assert all(0 <= outcome.took_s < 1 for outcome in outcomes.values())


def test_a_result_can_be_an_argument_of_later_calls(here: Here, tmp_path: Path) -> None:
    calls = Calls()
    calls.write_file(str(tmp_path / "file"), "hello", flags=Open.WRONLY | Open.CREAT)
    file = calls.call("open", str(tmp_path / "file"), Open.RDONLY)
    read = calls.call("read", file, Room(100), 100)
    assert make(here, calls)[read.index].data == b"hello"


def test_room_comes_back_whole_or_as_much_as_the_call_returned(here: Here, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    calls = Calls()
    file = calls.call("open", str(tmp_path / "file"), Open.RDONLY)
    part = calls.call("read", file, Room(16), 16)
    name = calls.call("uname", Room(390, whole=True))
    failing = calls.call("read", -1, Room(16), 16, harmless=None)
    outcomes = make(here, calls)
    assert outcomes[part.index].data == b"abc"
    assert outcomes[name.index].data.startswith(b"Linux\0")
    assert len(outcomes[name.index].data) == 390
    assert outcomes[failing.index].data == b""


def test_an_answer_larger_than_a_pipe_arrives_whole(here: Here, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    (tmp_path / "file").write_bytes(data)
    calls = Calls()
    file = calls.call("open", str(tmp_path / "file"), Open.RDONLY)
    read = calls.call("read", file, Room(300_000), 300_000)
    calls.call("getpid")
    assert make(here, calls)[read.index].data == data


def test_an_int_out_of_an_answer_can_be_an_argument(here: Here) -> None:
    calls = Calls()
    pipe = calls.call("pipe2", Room(8, whole=True), Open.CLOEXEC)
    calls.call("write", Answer(pipe, 4), "through the pipe", Length())
    read = calls.call("read", Answer(pipe, 0), Room(100), 100)
    assert make(here, calls)[read.index].data == b"through the pipe"


def test_the_address_of_an_answer_can_be_an_argument(here: Here, tmp_path: Path) -> None:
    calls = Calls()
    name = calls.call("uname", Room(390, whole=True))
    file = calls.call("open", str(tmp_path / "uname"), Open.WRONLY | Open.CREAT, 0o600)
    calls.call("write", file, Answer(name), 5)
    make(here, calls)
    assert (tmp_path / "uname").read_bytes() == b"Linux"


def test_words_have_the_number_in_them_that_a_call_returned(here: Here, tmp_path: Path) -> None:
    calls = Calls()
    ours = calls.call("getpid")
    calls.write_file(str(tmp_path / "pid"), Words("100 %% of %d\n", ours), flags=Open.WRONLY | Open.CREAT)
    link = calls.call("readlink", Words("/proc/%d/exe", ours), Room(4096), 4096)
    outcomes = make(here, calls)
    assert (tmp_path / "pid").read_text() == f"100 % of {outcomes[ours.index].returned}\n"
    assert outcomes[link.index].data.endswith(b"/process")


@pytest.mark.parametrize("text", [b"", b"a\0b\0", "żółw\n", "%s%d%n", b"\xff\xfe"])
def test_whatever_is_in_a_text_its_length_is_that_of_its_bytes(here: Here, tmp_path: Path, text: bytes | str) -> None:
    calls = Calls()
    file = calls.call("open", str(tmp_path / "file"), Open.WRONLY | Open.CREAT, 0o600)
    calls.call("write", file, text, Length())
    make(here, calls)
    assert (tmp_path / "file").read_bytes() == (text.encode() if isinstance(text, str) else text)


def test_a_structure_has_64_bit_fields_in_their_order(here: Here) -> None:
    calls = Calls()
    calls.call("prlimit64", 0, 7, Struct((100, 200)), 0)
    read = calls.call("prlimit64", 0, 7, 0, Room(16, whole=True))
    assert struct.unpack("<QQ", make(here, calls)[read.index].data) == (100, 200)


def test_negative_numbers_arrive_as_such(here: Here) -> None:
    calls = Calls()
    close = calls.call("close", -1, harmless=[errno.EBADF])
    assert make(here, calls)[close.index].returned == -errno.EBADF


def test_words_of_a_command_arrive_as_they_are(here: Here) -> None:
    calls = Calls()
    calls.call("execve", "/usr/bin/env", ["env", "printf", "%s|", "a b", "", "*", "ü"], ["PATH=/usr/bin:/bin"])
    assert here.run([PROGRAM], input=program(calls, "f")).stdout == "a b||*|ü|"


# --- children ---------------------------------------------------------------------------------------------------


def test_a_child_does_its_calls_and_ends_and_the_parent_knows_its_number(here: Here) -> None:
    calls = Calls()
    before = calls.call("getpid")
    clone, child = calls.child()
    parent = child.call("getppid")
    ended = calls.call("waitid", P_PID, clone, Room(128, whole=True), WEXITED, 0)
    calls.must_be(Answer(ended, 24), 0, "the child's exit status")
    outcomes = make(here, calls)
    assert outcomes[clone.index].returned > 1
    assert outcomes[parent.index].returned == outcomes[before.index].returned


def test_a_childs_child_knows_what_its_parents_calls_returned(here: Here) -> None:
    calls = Calls()
    first = calls.call("getpid")
    clone, child = calls.child()
    _, grandchild = child.child()
    last = grandchild.call("kill", first, 0)
    calls.call("waitid", P_PID, clone, Room(128, whole=True), WEXITED, 0)
    assert make(here, calls)[last.index].returned == 0


def test_processes_that_answer_at_the_same_time_do_not_mix_their_answers(here: Here) -> None:
    calls = Calls()
    ours = calls.call("getpid")
    made = []
    for _ in range(6):
        clone, child = calls.child()
        made.append((clone, [child.call("getppid") for _ in range(2500)]))
    for clone, _ in made:
        calls.call("waitid", P_PID, clone, Room(128, whole=True), WEXITED, 0)
    outcomes = make(here, calls)
    parent = outcomes[ours.index].returned
    assert {outcomes[call.index].returned for _, theirs in made for call in theirs} == {parent}
    assert len(outcomes) == 1 + 6 * 2502


def test_what_was_returned_before_the_report_is_closed_is_still_reported(here: Here) -> None:
    calls = Calls()
    last = calls.call("getpid")
    calls.call("close", 200)
    unheard = calls.call("getuid")
    outcomes = make(here, calls)
    assert last.index in outcomes
    assert unheard.index not in outcomes


# --- failures ---------------------------------------------------------------------------------------------------


def test_a_call_that_fails_is_named_as_strace_names_it(here: Here) -> None:
    calls = Calls()
    calls.call("getpid")
    calls.call("open", "/does/not/exist", Open.RDONLY)
    never = calls.call("getpid")
    with pytest.raises(
        CallError, match=r'open\("/does/not/exist", 0\) failed: ENOENT \(No such file or directory\)'
    ) as error:
        make(here, calls)
    assert error.value.errno == errno.ENOENT
    assert error.value.outcome.call is not never
    assert "this computer" in str(error.value)


def test_no_call_behind_one_that_failed_is_made(here: Here, tmp_path: Path) -> None:
    calls = Calls()
    calls.call("rmdir", str(tmp_path / "none"))
    calls.call("mkdir", str(tmp_path / "made"), 0o755)
    with pytest.raises(CallError):
        make(here, calls)
    assert not (tmp_path / "made").exists()


def test_a_call_that_fails_in_a_child_is_named_too(here: Here) -> None:
    calls = Calls()
    clone, child = calls.child()
    _, grandchild = child.child()
    grandchild.call("chdir", "/does/not/exist")
    calls.call("waitid", P_PID, clone, Room(128, whole=True), WEXITED, 0)
    with pytest.raises(CallError, match=r'chdir\("/does/not/exist"\) failed: ENOENT'):
        make(here, calls)


@pytest.mark.parametrize("harmless", [[errno.ENOENT], [errno.EPERM, errno.ENOENT], None])
def test_errors_that_are_harmless_are_told_and_are_no_failure(here: Here, harmless: list[int] | None) -> None:
    calls = Calls()
    failing = calls.call("rmdir", "/does/not/exist", harmless=harmless)
    after = calls.call("getpid")
    outcomes = make(here, calls)
    assert outcomes[failing.index].error == "ENOENT (No such file or directory)"
    assert outcomes[after.index].returned > 0


def test_an_error_that_is_not_the_harmless_one_is_a_failure(here: Here) -> None:
    calls = Calls()
    calls.call("rmdir", "/does/not/exist", harmless=[errno.EEXIST])
    with pytest.raises(CallError, match="ENOENT"):
        make(here, calls)


def test_a_program_that_is_missing_is_a_failing_call(here: Here) -> None:
    calls = Calls()
    calls.call("execve", "/does/not/exist", ["x"], [])
    with pytest.raises(CallError, match="execve"):
        make(here, calls)


@pytest.mark.parametrize(("status", "good"), [(0, True), (3, False)])
def test_must_be_fails_with_what_it_was_about(here: Here, status: int, good: bool) -> None:
    calls = Calls()
    clone, child = calls.child()
    child.call("exit_group", status)
    ended = calls.call("waitid", P_PID, clone, Room(128, whole=True), WEXITED, 0)
    calls.must_be(Answer(ended, 24), 0, "the hook /bin/false")
    if good:
        make(here, calls)
        return
    with pytest.raises(CallError, match="the hook /bin/false"):
        make(here, calls)


def test_a_process_that_is_killed_is_no_success(here: Here) -> None:
    calls = Calls()
    calls.call("kill", calls.call("getpid"), Signal.KILL)
    with pytest.raises(MachineError, match="ended early"):
        make(here, calls)


def test_a_program_that_breaks_off_makes_no_half_read_call(here: Here, tmp_path: Path) -> None:
    calls = Calls()
    calls.call("mkdir", str(tmp_path / "made"), 0o755)
    whole = program(calls, "a")
    for length in (0, 1, 16, 19, len(whole) - 1):
        done = here.run([PROGRAM], input=whole[:length])
        assert done.exit_status in (0, FAILED)
    assert not (tmp_path / "made").exists()


# --- programs that execute something ----------------------------------------------------------------------------


def test_standard_input_behind_the_program_is_left_for_what_it_executes(here: Here) -> None:
    calls = Calls()
    calls.call("execve", "/bin/cat", ["cat"], [])
    sent = os.urandom(200_000)
    done = here.run([PROGRAM], input=program(calls, "f") + sent)
    assert done.stdout_bytes == sent
    assert done.stderr == ""


def test_in_mode_f_only_a_failure_is_told_behind_the_mark(here: Here) -> None:
    calls, mark = Calls(), new_mark()
    calls.call("write", 2, "something of its own\n", Length())
    failing = calls.call("execve", "/does/not/exist", ["x"], [])
    done = here.run([PROGRAM], input=program(calls, "f", mark))
    failure = failure_in(calls, mark, done.stderr_bytes)
    assert done.exit_status == FAILED
    assert done.stdout == ""
    assert failure is not None
    assert failure.call is failing
    assert failure.error.startswith("ENOENT")


def test_without_the_mark_nothing_is_taken_for_a_failure(here: Here) -> None:
    calls = Calls()
    calls.call("execve", "/bin/sh", ["sh", "-c", "echo looks bad >&2; exit 125"], [])
    mark = new_mark()
    done = here.run([PROGRAM], input=program(calls, "f", mark))
    assert done.exit_status == FAILED
    assert failure_in(calls, mark, done.stderr_bytes) is None


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
)
def test_end_as_ends_as_the_child_did(here: Here, script: str, status: int) -> None:
    calls = Calls()
    clone, child = calls.child()
    child.call("execve", "/bin/sh", ["sh", "-c", script], [])
    calls.end_as(clone)
    assert here.run([PROGRAM], input=program(calls, "f")).exit_status == status


def test_what_is_executed_has_no_file_open_that_it_should_not_have(here: Here) -> None:
    calls = Calls()
    calls.call("execve", "/bin/ls", ["ls", "/proc/self/fd"], [])
    assert here.run([PROGRAM], input=program(calls, "f")).stdout.split() == ["0", "1", "2", "3"]


def test_what_is_executed_ignores_and_blocks_no_signals(here: Here) -> None:
    calls = Calls()
    calls.call("execve", "/bin/grep", ["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"], [])
    plain = here.run(["/bin/grep", "-E", "SigBlk|SigIgn", "/proc/self/status"])
    assert here.run([PROGRAM], input=program(calls, "f")).stdout == plain.stdout


# --- the log ----------------------------------------------------------------------------------------------------


@pytest.fixture
def logged(here: Here, tmp_path: Path) -> Callable[..., list[tuple[str, str, bytes]]]:
    """Run a shell script whose output is kept, and read the log: stream, F or P, text."""

    def run(script: str, limit: int = 1 << 20) -> list[tuple[str, str, bytes]]:
        calls = Calls()
        out, err = (calls.call("pipe2", Room(8, whole=True), Open.CLOEXEC) for _ in range(2))
        clone, child = calls.child()
        child.call("dup2", Answer(out, 4), 1)
        child.call("dup2", Answer(err, 4), 2)
        child.call("close", 0)
        child.call("execve", "/bin/sh", ["sh", "-c", script], ["PATH=/usr/bin:/bin"])
        for end in (Answer(out, 4), Answer(err, 4)):
            calls.call("close", end)
        pidfd = calls.call("pidfd_open", clone, 0)
        calls.keep_log(pidfd, Answer(out, 0), Answer(err, 0), str(tmp_path / "log"), limit)
        calls.call("waitid", P_PID, clone, Room(128, whole=True), WEXITED, 0)
        make(here, calls, timeout_s=20)
        return read_log(tmp_path / "log")

    return run


def read_log(path: Path) -> list[tuple[str, str, bytes]]:
    parts = [line.split(b" ", 3) for line in path.read_bytes().split(b"\n")[:-1]]
    assert all(len(stamp) == len(b"2026-01-01T00:00:00.000000000Z") for stamp, *_ in parts)
    return [(stream.decode(), kind.decode(), text) for _, stream, kind, text in parts]


def test_each_line_is_kept_with_its_stream(logged: Callable[..., list[tuple[str, str, bytes]]]) -> None:
    assert logged("echo one; echo; echo two") == [
        ("stdout", "F", b"one"),
        ("stdout", "F", b""),
        ("stdout", "F", b"two"),
    ]
    assert logged("echo oops >&2")[-1] == ("stderr", "F", b"oops")


def test_a_line_without_an_end_is_kept_as_part_of_one(logged: Callable[..., list[tuple[str, str, bytes]]]) -> None:
    assert logged("printf 'one\ntw'; printf half >&2") in (
        [("stdout", "F", b"one"), ("stdout", "P", b"tw"), ("stderr", "P", b"half")],
        [("stdout", "F", b"one"), ("stderr", "P", b"half"), ("stdout", "P", b"tw")],
    )


def test_a_long_line_is_kept_in_parts_that_add_up(logged: Callable[..., list[tuple[str, str, bytes]]]) -> None:
    lines = logged("head -c 50000 /dev/zero | tr '\\0' x; echo end")
    assert [kind for _, kind, _ in lines] == ["P", "P", "P", "F"]
    assert b"".join(text for *_, text in lines) == b"x" * 50_000 + b"end"


def test_output_larger_than_a_pipe_is_kept_whole(logged: Callable[..., list[tuple[str, str, bytes]]]) -> None:
    lines = logged("seq 1 40000", limit=0)
    assert [int(text) for *_, text in lines] == list(range(1, 40_001))


def test_bytes_that_are_no_text_are_kept_as_they_are(logged: Callable[..., list[tuple[str, str, bytes]]]) -> None:
    assert logged(r"printf '\0\377\r\n'") == [("stdout", "F", b"\0\xff\r")]


def test_a_full_log_becomes_the_older_one_and_nothing_is_lost_between_them(
    logged: Callable[..., list[tuple[str, str, bytes]]], tmp_path: Path
) -> None:
    newer = logged("seq -w 1 3000", limit=100_000)
    kept = [int(text) for *_, text in [*read_log(tmp_path / "log.1"), *newer]]
    assert kept == list(range(kept[0], 3001))
    assert len(kept) > 1000
    assert (tmp_path / "log.1").stat().st_size < 250_000


@pytest.mark.parametrize("background", ["sleep 30", "timeout 30 sh -c 'yes & yes >&2 & yes'"])
def test_a_process_left_in_the_background_does_not_keep_the_log_open(
    logged: Callable[..., list[tuple[str, str, bytes]]], tmp_path: Path, background: str
) -> None:
    try:
        lines = logged(f"echo said; {background} & echo $! > {tmp_path}/pid; printf last", limit=1 << 18)
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    if background == "sleep 30":
        assert [text for *_, text in lines] == [b"said", b"last"]


def test_a_process_that_closes_its_output_is_waited_for(
    logged: Callable[..., list[tuple[str, str, bytes]]], tmp_path: Path
) -> None:
    assert logged(f"echo said; exec >&- 2>&-; sleep 0.2; : > {tmp_path}/done") == [("stdout", "F", b"said")]
    assert (tmp_path / "done").exists()


# --- size -------------------------------------------------------------------------------------------------------


def test_a_megabyte_of_arguments_arrives(here: Here, tmp_path: Path) -> None:
    text = "0123456789abcdef" * 65_536
    calls = Calls()
    calls.write_file(str(tmp_path / "file"), text, flags=Open.WRONLY | Open.CREAT)
    calls.call("execve", "/bin/sh", ["sh", "-c", 'echo "$#"', *(["x" * 1000] * 1000)], [])
    assert here.run([PROGRAM], input=program(calls, "f")).stdout == "999\n"
    assert (tmp_path / "file").read_text() == text


def test_five_thousand_calls_are_made_in_their_order(here: Here, tmp_path: Path) -> None:
    calls = Calls()
    file = calls.call("open", str(tmp_path / "file"), Open.WRONLY | Open.CREAT, 0o600)
    writes: list[Call] = [calls.call("write", file, f"{number}\n", Length()) for number in range(5000)]
    outcomes = make(here, calls)
    assert len(outcomes) == 5001
    assert all(outcomes[call.index].returned > 1 for call in writes)
    assert (tmp_path / "file").read_text().split() == [str(number) for number in range(5000)]


# --- this computer ----------------------------------------------------------------------------------------------


def test_this_computer_runs_commands_as_a_guest_does(here: Here) -> None:
    done = here.run("cat; echo err >&2; exit 3", input="in")
    assert (done.stdout, done.stderr, done.exit_status) == ("in", "err\n", 3)
    assert here.run(["sh", "-c", "kill -9 $$"]).exit_status == 137
    with pytest.raises(MachineError, match=r"within 0.1 s"):
        here.run(["sleep", "10"], timeout_s=0.1)
