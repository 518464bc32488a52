"""A process that makes the system calls one writes in Python, in a real guest."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from errno import EBADF, EINVAL, ENOMEM, EPERM

import pytest

from cloudlab import Lab, Machine, MachineError, UsageError
from cloudlab.containers import namespaces as ns
from cloudlab.containers.calls import PROGRAM, CallError, Room
from cloudlab.containers.process import Process
from cloudlab.containers.syscalls import Clone, Mount, Open, Signal

pytestmark = pytest.mark.guest
Eventually = Callable[[Callable[[], bool], float], None]
_P_PID, _WEXITED = 1, 4


@pytest.fixture
def p(n1: Machine) -> Iterator[Process]:
    with Process(n1) as process:
        yield process


def ended(n1: Machine, pid: int) -> bool:
    """Is there no such process any more, or only its exit status?"""
    return not n1.test(f"grep -q '^State:.[^ZX]' /proc/{pid}/status")


# --- calls ------------------------------------------------------------------------------------------------------


def test_a_host_name_of_its_own_in_three_lines(n1: Machine, p: Process) -> None:
    p.unshare(Clone.NEWUTS)
    p.sethostname("box", 3)
    assert p.run("hostname").stdout == "box\n"
    assert n1.succeed("hostname").strip() == n1.name


def test_calls_take_effect_one_after_the_other_in_one_process(p: Process) -> None:
    assert p.getpid() == p.pid == p.call("getpid")
    p.chdir("/etc")
    assert p.getcwd() == "/etc"
    assert p.umask(0o077) == 0o022
    assert p.umask(0o022) == 0o077


def test_calls_that_answer_with_data_return_data(n1: Machine, p: Process) -> None:
    fd = p.open("/etc/passwd", Open.RDONLY)
    assert p.read(fd, 5) == b"root:"
    assert p.pread64(fd, 4, 0) == b"root"
    assert p.close(fd) == 0
    assert p.uname().nodename == n1.name
    assert p.readlink("/proc/self/ns/uts") == str(p.namespaces["uts"])
    assert len(p.getrandom(16)) == 16
    assert p.clock_gettime(7) > 0


def test_a_room_can_be_given_explicitly(p: Process) -> None:
    fd = p.open("/etc/passwd", 0)
    assert p.read(fd, Room(4), 4) == b"root"
    assert p.call("pread64", fd, Room(4), 4, 0) == 4
    assert p.trace[-1].data == b"root"


def test_a_pipe_holds_what_is_written(p: Process) -> None:
    out, into = p.pipe2(Open.CLOEXEC)
    assert p.write(into, "hello") == 5
    assert p.write(into, b"\0\1") == 2
    assert p.read(out, 100) == b"hello\0\1"


def test_answers_of_any_length_come_whole(p: Process) -> None:
    fd = p.open("/dev/zero", 0)
    for size in (4057, 4058, 4059, 8116, 300_000):
        assert p.read(fd, size) == bytes(size)
    assert p.getpid() == p.pid


def test_what_it_writes_to_its_standard_output_does_not_disturb(p: Process) -> None:
    assert p.write(1, "to whom it may concern\n") == 23
    assert p.getpid() == p.pid
    assert "to whom it may concern" in p.printed


def test_the_trace_reads_like_strace(p: Process) -> None:
    p.unshare(Clone.NEWUTS)
    with pytest.raises(CallError):
        p.close(77)
    assert [str(outcome) for outcome in p.trace] == [
        "unshare(NEWUTS) = 0",
        "close(77) = -1 EBADF (Bad file descriptor)",
    ]


# --- errors -----------------------------------------------------------------------------------------------------


def test_a_call_that_fails_raises_and_the_process_lives_on(n1: Machine, p: Process) -> None:
    with pytest.raises(CallError, match=rf"{n1.name}: read\(99, <5 bytes>, 5\) failed: EBADF") as caught:
        p.read(99, 5)
    assert caught.value.errno == EBADF
    assert p.getpid() == p.pid


def test_setns_of_a_file_that_is_no_namespace_is_explained(p: Process) -> None:
    with pytest.raises(CallError, match="that file is no namespace") as caught:
        p.setns(p.open("/etc/passwd", 0), 0)
    assert caught.value.errno == EINVAL


def test_setns_of_a_namespace_of_another_kind_is_einval(p: Process) -> None:
    uts = p.open("/proc/self/ns/uts", Open.RDONLY)
    assert p.setns(uts, Clone.NEWUTS) == 0
    with pytest.raises(CallError) as caught:
        p.setns(uts, Clone.NEWNET)
    assert caught.value.errno == EINVAL


def test_nobody_may_not_set_the_host_name_and_is_told_why(p: Process) -> None:
    p.setresuid(65534, 65534, 65534)
    with pytest.raises(
        CallError, match="it takes CAP_SYS_ADMIN in the user namespace that owns the UTS namespace"
    ) as caught:
        p.sethostname("mine")
    assert caught.value.errno == EPERM


def test_after_its_first_process_a_pid_namespace_takes_no_other_and_that_is_explained(p: Process) -> None:
    p.unshare(Clone.NEWPID)
    assert p.run("echo $$").stdout == "1\n"
    with pytest.raises(CallError, match=r"the first process .* has ended") as caught:
        p.run("true")
    assert caught.value.errno == ENOMEM
    assert p.getpid() == p.pid


@pytest.mark.parametrize("name", ["unshar", "frobnicate"])
def test_a_call_that_is_none_is_a_mistake_of_the_caller(p: Process, name: str) -> None:
    with pytest.raises(UsageError, match=f"There is no system call '{name}'"):
        getattr(p, name)()


def test_wrong_arguments_are_a_mistake_of_the_caller(p: Process) -> None:
    with pytest.raises(UsageError, match=r"mount can't take 1\.5"):
        p.mount(1.5)
    with pytest.raises(UsageError, match=r"Example: p\.read\(fd, size\)"):
        p.read(3)
    with pytest.raises(UsageError, match="fork would make a second process"):
        p.fork()
    with pytest.raises(UsageError, match="hears calls by descriptor 0"):
        p.close(0)
    assert p.getpid() == p.pid


def test_a_call_that_takes_too_long_ends_the_process_and_says_so(n1: Machine, eventually: Eventually) -> None:
    with Process(n1) as p:
        with pytest.raises(MachineError, match=rf"pause\(\) was not done within 0\.3 s; process {p.pid} was killed"):
            p.pause(timeout_s=0.3)
        eventually(lambda: ended(n1, p.pid), 10)


def test_a_process_that_was_killed_says_so(n1: Machine, p: Process) -> None:
    n1.succeed(f"kill -KILL {p.pid}")
    with pytest.raises(MachineError, match=rf"process {p.pid} has ended, and can't make getpid\(\)\nexit status: 137"):
        p.getpid()
    assert not p.alive


def test_a_guest_that_ends_is_named(fresh: Machine) -> None:
    p = Process(fresh)
    fresh.close()
    with pytest.raises(MachineError, match=f"{fresh.name}: it was closed"):
        p.getpid()
    with pytest.raises(MachineError, match=rf"{fresh.name}: it was closed; it can't make exit_group\(0\)") as caught:
        p.exit()
    assert str(caught.value).replace("\n", "").isprintable()  # no answers of process.c are quoted


# --- namespaces by hand -----------------------------------------------------------------------------------------


def test_a_user_namespace_by_hand_makes_nobody_root(n1: Machine, p: Process) -> None:
    p.setresgid(65534, 65534, 65534)
    p.setresuid(65534, 65534, 65534)
    p.unshare(Clone.NEWUSER | Clone.NEWUTS)
    n1.succeed(f"echo '0 65534 1' > /proc/{p.pid}/uid_map")
    assert p.getuid() == 0
    p.sethostname("mine")
    assert p.run("id -u; hostname").stdout.split() == ["0", "mine"]
    assert next(each for each in ns.processes(n1) if each.pid == p.pid).uid == 65534


def test_mounts_of_ones_own_by_hand(n1: Machine, p: Process) -> None:
    p.unshare(Clone.NEWNS)
    p.mount(None, "/", None, Mount.REC | Mount.PRIVATE, None)
    p.mount("none", "/mnt", "tmpfs", 0, "size=1m")
    fd = p.open("/mnt/secret", Open.WRONLY | Open.CREAT, 0o600)
    p.write(fd, "treasure")
    assert p.run("cat /mnt/secret").stdout == "treasure"
    assert not n1.test("test -e /mnt/secret")


def test_one_process_joins_the_namespace_of_another(n1: Machine, p: Process) -> None:
    p.unshare(Clone.NEWUTS)
    p.sethostname("shared")
    with Process(n1) as other:
        other.setns(other.pidfd_open(p.pid, 0), Clone.NEWUTS)
        assert other.uname().nodename == "shared"
        other.sethostname("changed")
        assert ns.compare(p.namespaces, other.namespaces)["uts"]
    assert p.uname().nodename == "changed"


def test_a_namespace_lives_on_while_a_file_of_it_is_open(n1: Machine, p: Process) -> None:
    with Process(n1) as other:
        other.unshare(Clone.NEWUTS)
        other.sethostname("kept")
        fd = p.open(f"/proc/{other.pid}/ns/uts", Open.RDONLY)
    p.setns(fd, Clone.NEWUTS)
    assert p.uname().nodename == "kept"


# --- children ---------------------------------------------------------------------------------------------------


def test_run_returns_output_errors_and_exit_status(p: Process) -> None:
    result = p.run("cat; echo oops >&2; exit 7", input="given")
    assert (result.stdout, result.stderr, result.exit_status) == ("given", "oops\n", 7)
    assert p.run(["sh", "-c", "kill -TERM $$"]).exit_status == 128 + Signal.TERM
    assert p.run("head -c 300000 /dev/zero").stdout_bytes == bytes(300_000)


def test_run_leaves_no_file_open_and_no_child(p: Process) -> None:
    p.run("true")
    before = p.run("ls /proc/$PPID/fd").stdout.split()
    p.run(["true"])
    with pytest.raises(CallError, match=r'execve\("/bin/nosuch".*ENOENT'):
        p.run(["nosuch"])
    assert p.run("ls /proc/$PPID/fd").stdout.split() == before
    assert p.children == []


def test_a_child_that_is_spawned_lives_until_it_is_killed_and_waited_for(p: Process) -> None:
    pid = p.spawn(["sleep", "1000"])
    assert p.children == [pid]
    p.kill(pid, Signal.KILL)
    p.waitid(_P_PID, pid, Room(128, whole=True), _WEXITED, 0)
    assert p.children == []


def test_a_program_that_can_not_be_spawned_is_named_and_the_process_lives(p: Process) -> None:
    with pytest.raises(CallError, match=r'execve\("/bin/nosuch".*ENOENT'):
        p.spawn(["nosuch"])
    assert p.getpid() == p.pid


def test_children_print_where_one_can_read_it(p: Process, eventually: Eventually) -> None:
    p.spawn("echo from a child")
    eventually(lambda: "from a child" in p.printed, 10)


def test_the_first_child_in_a_new_pid_namespace_is_number_1(p: Process) -> None:
    p.unshare(Clone.NEWPID | Clone.NEWNS)
    p.mount(None, "/", None, Mount.REC | Mount.PRIVATE, None)
    shown = p.run("mount -t proc proc /proc; ps -eo pid,comm --no-headers").stdout.split()
    assert shown[:2] == ["1", "sh"]
    assert "cloudlab-agent" not in shown


def test_execve_makes_another_program_of_it(p: Process) -> None:
    with pytest.raises(CallError, match="ENOENT"):
        p.execve("/bin/nosuch", ["nosuch"])
    assert p.getpid() == p.pid
    result = p.execve("/bin/sh", ["sh", "-c", "echo $$; exit 6"])
    assert (result.stdout, result.exit_status) == (f"{p.pid}\n", 6)
    assert not p.alive


# --- its end ----------------------------------------------------------------------------------------------------


def test_it_ends_with_the_status_it_is_told(n1: Machine) -> None:
    p = Process(n1)
    assert repr(p) == f"<process {p.pid} on {n1.name}: alive>"
    assert p.exit(5) == 5
    assert repr(p) == f"<process {p.pid} on {n1.name}: ended>"
    assert p.exit() == 5


def test_its_children_end_with_it_even_in_a_session_of_their_own(n1: Machine, eventually: Eventually) -> None:
    for end in (lambda p: p.exit(), lambda p: p.__exit__(None, None, None)):
        p = Process(n1)
        children = [p.spawn(["sleep", "1000"]), p.spawn(["setsid", "sleep", "1000"])]
        end(p)
        eventually(lambda gone=[p.pid, *children]: all(ended(n1, pid) for pid in gone), 10)


def test_one_that_nobody_holds_any_more_is_killed(n1: Machine, eventually: Eventually) -> None:
    p = Process(n1)
    pid = p.pid
    child = p.spawn(["sleep", "1000"])
    del p
    gc.collect()
    eventually(lambda: ended(n1, pid) and ended(n1, child), 10)


def test_the_lab_ends_with_a_process_alive() -> None:
    with Lab() as lab:
        p = Process(lab.machine("n1"))
        p.spawn(["sleep", "1000"])
    assert not p.alive
    with pytest.raises(MachineError):
        p.getpid()


def test_after_a_keyboard_interrupt_answers_are_not_mixed_up(p: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(p._spawned, "wait_until_printed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            p.umask(0o077)
    assert p.getpid() == p.pid
    assert p.umask(0o022) == 0o077


def test_many_processes_at_once(n1: Machine, eventually: Eventually) -> None:
    many = [Process(n1) for _ in range(10)]
    for number, p in enumerate(many):
        p.unshare(Clone.NEWUTS)
        p.sethostname(f"box{number}")
    assert [p.uname().nodename for p in many] == [f"box{number}" for number in range(10)]
    for p in many:
        p.exit()
    eventually(lambda: n1.run(["pgrep", "-f", PROGRAM]).exit_status == 1, 10)


def test_a_call_takes_milliseconds(p: Process) -> None:
    began = time.monotonic()
    for _ in range(100):
        p.getpid()
    assert time.monotonic() - began < 5
