"""The life of containers through `Runtime`: each verb by what is seen in the guest, and that nothing is left when it goes wrong."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cloudlab import Lab, Machine, MachineError, UsageError
from cloudlab.containers import bundle, logs
from cloudlab.containers.bundle import Process
from cloudlab.containers.calls import CallError
from cloudlab.containers.runtime import Runtime, Status
from cloudlab.containers.specification import Volume, Wishes, configuration, process_of

pytestmark = pytest.mark.guest
Eventually = Callable[[Callable[[], bool], float], None]
ROOT = "/c/rootfs"
BUSYBOX = f"""
mkdir -p {ROOT}/bin {ROOT}/proc {ROOT}/sys {ROOT}/dev {ROOT}/tmp {ROOT}/etc {ROOT}/data
cp $(which busybox) {ROOT}/bin
for a in sh ls cat env id hostname sleep seq head wc kill touch readlink true false; do ln -s busybox {ROOT}/bin/$a; done
"""
SLEEP = ("sleep", "1000")


def config(*command: str, **wishes: Any) -> dict[str, Any]:
    return configuration(Wishes(command=list(command), **wishes), ROOT)


def process(*command: str, **more: Any) -> Process:
    wishes = Wishes(command=list(command))
    return bundle.read(configuration(wishes, ROOT) | {"process": process_of(wishes, command, **more)}).process


@pytest.fixture(scope="module")
def runtime(n1: Machine) -> Runtime:
    n1.succeed("sh", input=BUSYBOX)
    return Runtime(n1)


@pytest.fixture(scope="module")
def before(n1: Machine, runtime: Runtime) -> dict[str, list[str]]:
    return emptied(n1, runtime)


@pytest.fixture(autouse=True)
def _clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test leaves no container in the shared guest."""
    yield
    if "runtime" in request.fixturenames:
        runtime: Runtime = request.getfixturevalue("runtime")
        for name in runtime.names():
            runtime.delete(name, force=True)


def left(machine: Machine) -> dict[str, list[str]]:
    """All that a container could leave behind; zombies are among the processes."""
    found = {
        "mounts": "cut -d' ' -f2,3 /proc/mounts",
        "processes": "ps -e -o ppid=,stat=,comm= | awk '$1 != 2 {print ($2 ~ /Z/), $3}'",
        "groups": "find /sys/fs/cgroup -type d",
        "interfaces": "ls /sys/class/net",
        "files": "find /run /tmp",
    }
    return {what: sorted(machine.succeed(command).splitlines()) for what, command in found.items()}


def nothing_more(machine: Machine, before: dict[str, list[str]], within_s: float = 2.0) -> None:
    """All is again as it was before, at the latest when init has reaped who ended."""
    until = time.monotonic() + within_s
    while (now := left(machine)) != before:
        if time.monotonic() > until:
            assert now == before


def emptied(machine: Machine, runtime: Runtime) -> dict[str, list[str]]:
    """What there is when a first container has come and gone: the directories that all share stay."""
    runtime.create("first", config("true"), start=True)
    runtime.wait("first")
    runtime.delete("first")
    machine.wait_until_succeeds("! ps -e -o stat= | grep Z")
    return left(machine)


def text(runtime: Runtime, name: str) -> str:
    return logs.printed(logs.parse(runtime.log(name)))


# --- from create to delete --------------------------------------------------------------------------------------


def test_a_created_container_waits_runs_when_started_and_is_remembered_until_it_is_deleted(runtime: Runtime) -> None:
    made = runtime.create("web", config("sh", "-c", "echo runs; exit 3"))
    created = runtime.state("web")
    assert (created.status, created.pid, created.exit_status) == (Status.CREATED, made.pid, None)
    assert text(runtime, "web") == ""
    runtime.start("web")
    assert runtime.wait("web") == 3
    ended = runtime.state("web")
    assert (ended.status, ended.pid, ended.exit_status, ended.out_of_memory) == (Status.STOPPED, 0, 3, False)
    assert text(runtime, "web") == "runs\n"
    runtime.delete("web")
    assert runtime.names() == []


def test_a_container_that_is_made_to_start_at_once_runs(runtime: Runtime) -> None:
    made = runtime.create("web", config(*SLEEP), start=True)
    assert runtime.state("web").status is Status.RUNNING
    assert runtime.place.run(["cat", f"/proc/{made.pid}/comm"]).stdout == "sleep\n"


def test_what_was_done_to_make_it_can_be_read(runtime: Runtime) -> None:
    made = runtime.create("web", config("true"), start=True)
    shown = [str(outcome) for outcome in made.outcomes]
    assert any(line.startswith("pivot_root(") for line in shown)
    assert sum(outcome.took_s for outcome in made.outcomes) > 0


def test_a_container_is_what_its_config_says_as_long_as_it_is_known(runtime: Runtime) -> None:
    runtime.create("web", config("true", hostname="box"), start=True)
    runtime.wait("web")
    assert runtime.state("web").config["hostname"] == "box"


def test_all_containers_are_listed_with_their_states(runtime: Runtime) -> None:
    runtime.create("b", config(*SLEEP))
    runtime.create("a", config(*SLEEP), start=True)
    runtime.create("c", config("false"), start=True)
    runtime.wait("c")
    assert [(state.name, state.status, state.exit_status) for state in runtime.list()] == [
        ("a", Status.RUNNING, None),
        ("b", Status.CREATED, None),
        ("c", Status.STOPPED, 1),
    ]


def test_a_name_can_be_taken_again_after_removal(runtime: Runtime) -> None:
    for word in ("one", "two"):
        runtime.create("web", config("sh", "-c", f"echo {word}"), start=True)
        runtime.wait("web")
        assert text(runtime, "web") == f"{word}\n"
        runtime.delete("web")


def test_a_name_that_is_taken_is_refused_and_its_container_is_not_touched(runtime: Runtime) -> None:
    made = runtime.create("web", config(*SLEEP), start=True)
    with pytest.raises(UsageError, match="already"):
        runtime.create("web", config("true"), start=True)
    assert runtime.state("web").pid == made.pid
    assert runtime.state("web").status is Status.RUNNING


@pytest.mark.parametrize("name", ["", "Web", "-web", "a/b", "..", "a b", "x" * 64, "a\nb", "web\n"])
def test_a_name_that_would_be_no_file_name_is_refused(runtime: Runtime, name: str) -> None:
    with pytest.raises(UsageError, match="not a name for a container"):
        runtime.create(name, config("true"))
    with pytest.raises(UsageError, match="not a name for a container"):
        runtime.delete(name)


def test_a_container_that_is_not_there_is_told_with_those_that_are(runtime: Runtime) -> None:
    runtime.create("web", config(*SLEEP))
    for verb in (
        runtime.state,
        runtime.kill,
        runtime.wait,
        runtime.start,
        runtime.pause,
        runtime.resume,
        runtime.cgroup,
    ):
        with pytest.raises(UsageError, match="web"):
            verb("other")
    with pytest.raises(UsageError, match="web"):
        runtime.exec("other", process("true"))


def test_verbs_in_the_wrong_order_are_explained(runtime: Runtime) -> None:
    runtime.create("web", config(*SLEEP))
    for verb in (runtime.pause, runtime.resume):
        with pytest.raises(UsageError, match="created, not"):
            verb("web")
    with pytest.raises(UsageError, match="created, not running"):
        runtime.exec("web", process("true"))
    with pytest.raises(UsageError, match="force=True"):
        runtime.delete("web")
    runtime.start("web")
    with pytest.raises(UsageError, match="running, not waiting to be started"):
        runtime.start("web")
    with pytest.raises(UsageError, match="running, not paused"):
        runtime.resume("web")
    runtime.kill("web", "KILL")
    assert runtime.wait("web") == 137
    for do in (runtime.start, runtime.kill, runtime.pause, runtime.resume):
        with pytest.raises(UsageError, match="stopped, not"):
            do("web")
    with pytest.raises(UsageError, match="stopped, not running"):
        runtime.exec("web", process("true"))


def test_a_container_that_waits_for_its_start_can_be_killed(runtime: Runtime) -> None:
    runtime.create("web", config("true"))
    runtime.kill("web", "KILL")
    assert runtime.wait("web") == 137


def test_a_config_that_is_wrong_makes_nothing(runtime: Runtime, n1: Machine, before: dict[str, list[str]]) -> None:
    wrong = config("true")
    wrong["process"]["cwd"] = "here"
    with pytest.raises(UsageError, match=r"process\.cwd"):
        runtime.create("web", wrong)
    nothing_more(n1, before)


@pytest.mark.parametrize("start", [True, False])
def test_a_creation_that_fails_half_way_leaves_nothing(
    runtime: Runtime, n1: Machine, before: dict[str, list[str]], start: bool
) -> None:
    wrong = config("true", volumes=[Volume("/does/not/exist", "/data")])
    with pytest.raises(CallError, match="/does/not/exist"):
        runtime.create("web", wrong, start=start)
    hooked = config("true") | {"hooks": {"createRuntime": [{"path": "/bin/false"}]}}
    with pytest.raises(CallError, match="hook /bin/false"):
        runtime.create("web", hooked, start=start)
    nothing_more(n1, before)


# --- signals, ends and waiting ----------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", ["TERM", "SIGTERM", 15])
def test_a_signal_arrives_by_name_or_number(runtime: Runtime, eventually: Eventually, signal: str | int) -> None:
    runtime.create("web", config("sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done"), start=True)
    eventually(lambda: text(runtime, "web") == "ready\n", 10)
    runtime.kill("web", signal)
    assert runtime.wait("web") == 7


@pytest.mark.parametrize("signal", ["MOON", 0, 99, -9])
def test_a_signal_that_does_not_exist_is_refused(runtime: Runtime, signal: str | int) -> None:
    runtime.create("web", config(*SLEEP), start=True)
    with pytest.raises(UsageError, match="signal"):
        runtime.kill("web", signal)
    assert runtime.state("web").status is Status.RUNNING


def test_waiting_ends_at_its_deadline_and_the_container_goes_on(runtime: Runtime) -> None:
    runtime.create("web", config(*SLEEP), start=True)
    with pytest.raises(MachineError, match="1 s"):
        runtime.wait("web", timeout_s=1.0)
    assert runtime.state("web").status is Status.RUNNING


def test_two_can_wait_for_the_same_container(runtime: Runtime) -> None:
    runtime.create("web", config("sh", "-c", "sleep 0.5; exit 5"), start=True)
    with ThreadPoolExecutor() as pool:
        assert list(pool.map(runtime.wait, ["web", "web"])) == [5, 5]


def test_processes_end_with_their_first(runtime: Runtime, n1: Machine, before: dict[str, list[str]]) -> None:
    runtime.create("web", config("sh", "-c", "sleep 1000 & sleep 1000 & exit 0"), start=True)
    assert runtime.wait("web") == 0
    runtime.delete("web")
    nothing_more(n1, before)


# --- exec -------------------------------------------------------------------------------------------------------


def test_exec_runs_in_the_containers_namespaces_and_control_group(runtime: Runtime, n1: Machine) -> None:
    made = runtime.create("web", config(*SLEEP, hostname="box"), start=True)
    kinds = "cgroup ipc mnt net pid user uts"
    inside = runtime.exec("web", process("sh", "-c", f"for kind in {kinds}; do readlink /proc/self/ns/$kind; done"))
    outside = n1.succeed(f"for kind in {kinds}; do readlink /proc/{made.pid}/ns/$kind; done")
    assert inside.stdout == outside
    assert runtime.exec("web", process("hostname")).stdout == "box\n"
    runtime.exec("web", process("sh", "-c", "sleep 1000 &"))
    assert len(runtime.cgroup("web").processes) == 2


def test_exec_passes_on_input_output_and_exit_status(runtime: Runtime) -> None:
    runtime.create("web", config(*SLEEP), start=True)
    done = runtime.exec("web", process("sh", "-c", "cat; echo problem >&2; exit 3"), input=b"a\0b\xff")
    assert (done.stdout_bytes, done.stderr, done.exit_status) == (b"a\0b\xff", "problem\n", 3)
    assert done.command.startswith("sh -c")
    large = bytes(range(256)) * 2000
    assert runtime.exec("web", process("cat"), input=large).stdout_bytes == large
    assert runtime.exec("web", process("sh", "-c", "kill -9 $$")).exit_status == 137


def test_exec_has_the_limits_of_its_process(runtime: Runtime) -> None:
    runtime.create("web", config(*SLEEP), start=True)
    done = runtime.exec(
        "web", process("sh", "-c", "id -u; pwd; cat /proc/self/status", user={"uid": 7, "gid": 8}, cwd="/data")
    )
    lines = done.stdout.splitlines()
    assert lines[:2] == ["7", "/data"]
    assert "CapEff:\t0000000000000000" in lines
    assert "NoNewPrivs:\t1" in lines
    assert "Seccomp:\t2" in lines


@pytest.mark.parametrize(("command", "error"), [("missing", "ENOENT"), ("/etc", "EACCES"), ("/bin/none", "ENOENT")])
def test_a_program_that_cannot_be_executed_is_told_like_any_call(runtime: Runtime, command: str, error: str) -> None:
    runtime.create("web", config(*SLEEP), start=True)
    with pytest.raises(CallError, match=rf"execve\(.*{error}"):
        runtime.exec("web", process(command))
    with pytest.raises(CallError, match=rf"{error}"):
        runtime.create("other", config(command), start=True)
    assert runtime.names() == ["web"]


def test_a_program_that_itself_ends_with_125_has_not_failed_to_start(runtime: Runtime) -> None:
    runtime.create("web", config(*SLEEP), start=True)
    assert runtime.exec("web", process("sh", "-c", "echo looks bad >&2; exit 125")).exit_status == 125


def test_exec_at_its_deadline_is_told_and_the_container_goes_on(runtime: Runtime) -> None:
    runtime.create("web", config(*SLEEP), start=True)
    with pytest.raises(MachineError, match="1 s"):
        runtime.exec("web", process("sleep", "100"), timeout_s=1.0)
    assert runtime.exec("web", process("true")).ok


# --- pause ------------------------------------------------------------------------------------------------------


def test_a_paused_container_stands_still_until_it_is_resumed(
    runtime: Runtime, n1: Machine, eventually: Eventually
) -> None:
    runtime.create("web", config("sh", "-c", "while :; do echo; sleep 0.01; done"), start=True)
    eventually(lambda: len(text(runtime, "web")) > 2, 10)
    runtime.pause("web")
    assert runtime.state("web").status is Status.PAUSED
    assert "frozen 1" in n1.succeed("cat /sys/fs/cgroup/cloudlab/web/cgroup.events")
    before = text(runtime, "web")
    n1.succeed("sleep 0.3")
    assert text(runtime, "web") == before
    with pytest.raises(UsageError, match="paused, not running"):
        runtime.exec("web", process("true"))
    runtime.resume("web")
    assert runtime.state("web").status is Status.RUNNING
    eventually(lambda: len(text(runtime, "web")) > len(before), 10)


def test_a_paused_container_can_be_removed(runtime: Runtime) -> None:
    runtime.create("web", config(*SLEEP), start=True)
    runtime.pause("web")
    runtime.delete("web", force=True)
    assert runtime.names() == []


# --- the log ----------------------------------------------------------------------------------------------------


def test_the_log_has_each_line_with_its_stream_and_time(runtime: Runtime, n1: Machine) -> None:
    runtime.create("web", config("sh", "-c", "echo out; echo problem >&2; printf half"), start=True)
    runtime.wait("web")
    lines = list(logs.parse(runtime.log("web")))
    assert {(line.stream, line.text, line.whole) for line in lines} == {
        ("stdout", "out", True),
        ("stderr", "problem", True),
        ("stdout", "half", False),
    }
    assert abs(lines[0].time.timestamp() - float(n1.succeed("date +%s"))) < 60


def test_a_log_of_binary_and_of_much_output_is_whole(runtime: Runtime) -> None:
    runtime.create("web", config("sh", "-c", r"seq 1 20000; printf '\r\0\n'"), start=True)
    runtime.wait("web")
    assert text(runtime, "web") == "".join(f"{number}\n" for number in range(1, 20_001)) + "\r\0\n"


# --- when the monitor or the guest is killed --------------------------------------------------------------------


@pytest.mark.parametrize("start", [True, False])
def test_a_container_whose_monitor_was_killed_is_lost_and_can_be_removed(
    runtime: Runtime, n1: Machine, before: dict[str, list[str]], eventually: Eventually, start: bool
) -> None:
    made = runtime.create("web", config(*SLEEP), start=start)
    n1.succeed(f"kill -9 $(cut -d' ' -f4 /proc/{made.pid}/stat)")
    eventually(lambda: runtime.state("web").status is Status.LOST, 5)
    with pytest.raises(MachineError, match="monitor was killed"):
        runtime.wait("web")
    with pytest.raises(UsageError, match="lost"):
        runtime.exec("web", process("true"))
    runtime.delete("web")
    nothing_more(n1, before)


def test_a_saved_and_restored_guest_still_has_its_containers(fresh: Machine) -> None:
    fresh.succeed("sh", input=BUSYBOX)
    runtime = Runtime(fresh)
    made = runtime.create("web", config(*SLEEP, hostname="box"), start=True)
    runtime.create("waits", config("sh", "-c", "echo started"))
    fresh.save("with")
    runtime.delete("web", force=True)
    fresh.restore("with")
    again = Runtime(fresh)
    assert [(state.name, state.status) for state in again.list()] == [
        ("waits", Status.CREATED),
        ("web", Status.RUNNING),
    ]
    assert again.state("web").pid == made.pid
    assert again.exec("web", process("hostname")).stdout == "box\n"
    again.start("waits")
    assert again.wait("waits") == 0
    assert text(again, "waits") == "started\n"
    again.kill("web", "KILL")
    assert again.wait("web") == 137


def test_a_guest_that_crashes_amid_fifty_starts_is_told_by_each_and_starts_anew(fresh: Machine) -> None:
    fresh.succeed("sh", input=BUSYBOX)
    runtime = Runtime(fresh)
    assert runtime.cgroup_version == 2
    some = threading.Semaphore(0)

    def start(number: int) -> str:
        try:
            runtime.create(f"c{number}", config(*SLEEP), start=True, timeout_s=30.0)
        except MachineError as error:
            return str(error)
        some.release()
        return ""

    with ThreadPoolExecutor(8) as pool:
        starts = [pool.submit(start, number) for number in range(50)]
        for _ in range(15):
            assert some.acquire(timeout=60)
        fresh.crash()
        told = [each.result(timeout=60) for each in starts]
    assert len(told) == 50
    assert 15 <= told.count("") < 50
    assert all(fresh.name in each and "the plug was pulled" in each for each in told if each), {
        each for each in told if each
    }
    fresh.start()
    fresh.succeed("sh", input=BUSYBOX)
    assert runtime.names() == []
    runtime.create("c0", config("sh", "-c", "exit 4"), start=True)
    assert runtime.wait("c0") == 4


def test_two_hundred_containers_start_are_listed_and_leave_nothing(lab: Lab, eventually: Eventually) -> None:
    machine = lab.machine("many", memory="512M")
    machine.succeed("sh", input=BUSYBOX)
    runtime = Runtime(machine)
    before = emptied(machine, runtime)
    names = [f"c{number:03}" for number in range(200)]
    for name in names:
        runtime.create(name, config(*SLEEP), start=True)
    assert [(state.name, state.status) for state in runtime.list()] == [(name, Status.RUNNING) for name in names]
    assert left(machine)["processes"].count("0 sleep") == 200
    assert json.dumps(runtime.state("c123").config) == json.dumps(config(*SLEEP))
    for name in names:
        runtime.delete(name, force=True)
    assert runtime.names() == []
    nothing_more(machine, before)
    machine.close()
