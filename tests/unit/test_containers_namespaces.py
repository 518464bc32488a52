"""Namespaces, the pure part: what is read of /proc, who is with whom, and the programs of calls that make and enter them."""

from __future__ import annotations

from errno import EINVAL, EPERM

import pytest

from cloudlab.containers import execution, sharing
from cloudlab.containers import namespaces as ns
from cloudlab.containers.calls import Calls, Outcome
from cloudlab.containers.namespaces import KINDS, Namespace, ProcessInfo
from cloudlab.containers.syscalls import Clone
from cloudlab.errors import MachineError, UsageError
from cloudlab.machines.result import Result


def process(pid: int, ppid: int = 0, pids: tuple[int, ...] = (), **inodes: int) -> ProcessInfo:
    namespaces = {kind: Namespace(kind, inodes.get(kind, 1)) for kind in KINDS}
    return ProcessInfo(pid, ppid, pids or (pid,), "sh", f"sh {pid}", 0, "S", namespaces, ((0, 0, 1),))


# --- the kinds --------------------------------------------------------------------------------------------------


def test_there_are_eight_kinds_each_with_its_flag_and_a_sentence() -> None:
    assert list(KINDS) == ["mnt", "uts", "ipc", "pid", "net", "user", "cgroup", "time"]
    assert len({kind.flag for kind in KINDS.values()}) == 8
    assert all(kind.isolates.endswith(".") for kind in KINDS.values())
    assert (KINDS["mnt"].flag, KINDS["time"].since) == (Clone.NEWNS, "5.6")


def test_kinds_are_written_as_words_or_as_a_list() -> None:
    assert (
        ns.flags_of("uts net") == ns.flags_of("uts,net") == ns.flags_of(["net", "uts"]) == Clone.NEWUTS | Clone.NEWNET
    )
    assert ns.flags_of([]) == 0


@pytest.mark.parametrize("wrong", ["network", "uts nett", "", ["mount"]])
def test_a_kind_that_is_none_is_refused_with_those_there_are(wrong: str | list[str]) -> None:
    with pytest.raises(
        UsageError, match=r"There is no kind of namespace .*\nAllowed: mnt, uts, ipc, pid, net, user, cgroup, time"
    ):
        ns.flags_of(wrong)


# --- what is read of /proc --------------------------------------------------------------------------------------

STATUS = """900
7/status:Name:\tsh
7/status:State:\tS (sleeping)
7/status:PPid:\t1
7/status:Uid:\t1000\t0\t0\t0
7/status:NSpid:\t7\t3\t1
7/status:VmSize:\t    2980 kB
8/status:Name:\tkworker
8/status:State:\tI (idle)
8/status:PPid:\t2
8/status:Uid:\t0\t0\t0\t0
9/status:Name:\tgone
900/status:Name:\tsh
900/status:State:\tS (sleeping)
900/status:PPid:\t1
900/status:Uid:\t0\t0\t0\t0
901/status:Name:\tgrep
901/status:State:\tR (running)
901/status:PPid:\t900
901/status:Uid:\t0\t0\t0\t0
"""
RECORDS = [
    "7/cmdline:sh",
    "7/cmdline:-c",
    "7/cmdline:echo\n8/status:Uid:\t5",
    "7/uid_map:         0     100000      65536\n",
    "7/ns/uts:uts:[4026531838]",
    "7/ns/pid_for_children:pid:[99]",
    "7/ns/pid:pid:[4026531836]",
    "8/ns/uts:uts:[4026531838]",
    "777/ns/uts:uts:[5]",
]


@pytest.fixture
def read() -> list[ProcessInfo]:
    return ns.parse_processes((STATUS + "\0" + "\0".join(RECORDS) + "\0").encode())


def test_a_process_is_read_with_its_numbers_in_each_nested_pid_namespace(read: list[ProcessInfo]) -> None:
    assert (read[0].pid, read[0].ppid, read[0].pids, read[0].uid, read[0].state) == (7, 1, (7, 3, 1), 1000, "S")
    assert read[0].uid_map == ((0, 100000, 65536),)
    assert not read[0].kernel


def test_a_namespace_is_its_kind_and_inode_and_that_of_future_children_is_not_its_own(read: list[ProcessInfo]) -> None:
    assert read[0].namespaces == {"uts": Namespace("uts", 4026531838), "pid": Namespace("pid", 4026531836)}
    assert str(read[0].namespaces["uts"]) == "uts:[4026531838]"


def test_a_command_line_can_not_forge_another_process(read: list[ProcessInfo]) -> None:
    assert read[0].command == "sh -c echo\n8/status:Uid:\t5"
    assert read[1].uid == 0


def test_threads_of_the_kernel_are_known_as_such(read: list[ProcessInfo]) -> None:
    assert (read[1].kernel, read[1].command) == (True, "[kworker]")


def test_who_ended_meanwhile_and_who_measures_are_left_out(read: list[ProcessInfo]) -> None:
    assert [process.pid for process in read] == [7, 8]


# --- the same or not --------------------------------------------------------------------------------------------


def test_two_processes_are_compared_kind_by_kind() -> None:
    same = ns.compare(process(1).namespaces, process(2, uts=5, net=6).namespaces)
    assert [kind for kind, is_same in same.items() if not is_same] == ["uts", "net"]
    assert ns.compare({}, process(1).namespaces) == {}


def test_in_the_matrix_the_same_letter_means_the_same_namespace() -> None:
    made = ns.matrix_of([process(1), process(2, uts=5), process(3, uts=5, net=6), process(4, uts=7)])
    columns = dict(zip(made.kinds, zip(*made.cells, strict=True), strict=True))
    assert columns["uts"] == ("a", "b", "b", "c")
    assert columns["net"] == ("a", "a", "b", "a")
    assert columns["mnt"] == ("a", "a", "a", "a")


def test_the_matrix_is_readable_as_text() -> None:
    head, first, second = str(ns.matrix_of([process(1), process(20, uts=5)])).splitlines()
    assert head.split() == ["PID", *KINDS, "COMMAND"]
    assert first.split() == ["1", *"aaaaaaaa", "sh", "1"]
    assert second.split() == ["20", *"abaaaaaa", "sh", "20"]


def test_letters_go_on_behind_z_and_a_zombie_has_none() -> None:
    many = [process(number, uts=number) for number in range(1, 29)]
    zombie = ProcessInfo(99, 1, (99,), "x", "[x]", 0, "Z", {}, ())
    uts = [cells[1] for cells in ns.matrix_of([*many, zombie]).cells]
    assert uts[25:] == ["z", "aa", "ab", "-"]


# --- trees ------------------------------------------------------------------------------------------------------


def test_a_tree_from_outside_has_the_numbers_of_outside() -> None:
    tree = ns.tree_of([process(1), process(5, 1), process(6, 5), process(7, 1)], level=0)
    assert str(tree) == "1 sh 1\n├─ 5 sh 5\n│  └─ 6 sh 6\n└─ 7 sh 7"


def test_a_tree_from_inside_has_the_numbers_of_inside_and_who_entered_is_a_root() -> None:
    tree = ns.tree_of([process(5, 1, (5, 1)), process(6, 5, (6, 2)), process(9, 3, (9, 7))], level=1)
    assert [root.pid for root in tree.roots] == [1, 7]
    assert [child.pid for child in tree.roots[0].children] == [2]


# --- programs of calls ------------------------------------------------------------------------------------------


def test_entering_is_setns_then_a_child_that_executes() -> None:
    listing = str(ns.entering(42, ["uts", "pid"], "hostname")).splitlines()
    assert listing[0] == "pidfd_open(42, 0)"
    assert listing[1] == "setns(<pidfd_open>, NEWUTS|NEWPID)"
    assert listing[2].startswith("clone3(")
    assert listing[3].startswith('  | execve("/bin/sh", ["/bin/sh", "-c", "hostname"]')
    assert listing[-1] == "end_as(<clone3>)"


def test_who_enters_a_user_namespace_becomes_its_root() -> None:
    names = [call.name for call in ns.entering(42, ["user"], "id")]
    assert names[3:5] == ["setresgid", "setresuid"]
    assert "setresuid" not in [call.name for call in ns.entering(42, ["uts"], "id")]


def test_a_maker_in_the_new_user_namespace_makes_the_others() -> None:
    calls, child = ns.creation("user uts pid", ["true"], uid_map=[(0, 100000, 65536)])
    listing = str(calls)
    assert "clone3({NEWUSER, CHLD}, 88)" in listing
    assert "  | unshare(NEWUTS|NEWPID)" in listing
    assert '"0 100000 65536\\n"' in listing
    assert child.name == "clone3"


def test_without_a_user_namespace_no_map_is_written() -> None:
    assert "uid_map" not in str(ns.creation("uts", ["true"])[0])


def test_new_mounts_are_private_and_with_new_pids_proc_is_new() -> None:
    both, only = (str(ns.creation(kinds, ["true"])[0]) for kinds in ("mnt pid", "mnt"))
    assert 'mount("", "/", "", REC|PRIVATE, 0)' in both
    assert ('mount("proc", "/proc", "proc"' in both, 'mount("proc"' in only) == (True, False)


def test_a_program_without_a_path_is_looked_for_where_path_says() -> None:
    calls = Calls()
    ns.add_execution(calls, ["ps", "ax"])
    assert [call.arguments[0] for call in calls] == [f"{directory}/ps" for directory in ns.PATH]
    assert [bool(call.harmless) for call in calls] == [True] * 5 + [False]


@pytest.mark.parametrize(
    ("environment", "paths"),
    [
        (["PATH=/a:/b", "PATH=/c"], ["/a/ps", "/b/ps"]),
        (["PATH=/a::/b"], ["/a/ps", "./ps", "/b/ps"]),
        (["HOME=/"], ["/usr/bin/ps", "/bin/ps"]),
    ],
)
def test_path_is_that_of_the_environment(environment: list[str], paths: list[str]) -> None:
    assert execution.candidates("ps", environment) == paths
    assert execution.candidates("./ps", environment) == ["./ps"]


@pytest.mark.parametrize("wrong", [[], [1], ["sleep", 5]])
def test_what_is_no_command_is_refused(wrong: list[str]) -> None:
    with pytest.raises(UsageError, match="is no command"):
        ns.entering(1, "uts", wrong)


def test_offsets_need_a_time_namespace_and_one_of_two_clocks() -> None:
    with pytest.raises(UsageError, match="Only a new time namespace"):
        ns.creation("uts", "true", offsets_s={"boottime": 1})
    with pytest.raises(UsageError, match="No clock 'realtime' is isolated"):
        ns.creation("time", "true", offsets_s={"realtime": 1})


@pytest.mark.parametrize("wrong", [[], [(0, 0)]])
def test_a_map_has_three_numbers_a_row(wrong: list[ns.IdMap]) -> None:
    with pytest.raises(UsageError, match="maps no users"):
        ns.creation("user", "true", uid_map=wrong)


# --- errors, and what is not isolated ---------------------------------------------------------------------------


def test_errors_about_namespaces_are_explained() -> None:
    unshare, setns, read = (Calls().call(name, 0) for name in ("unshare", "setns", "read"))
    assert "only a user namespace" in ns.explain(Outcome(unshare, -EPERM, 0))
    assert "no namespace or not of the asked kind" in ns.explain(Outcome(setns, -EINVAL, 0))
    assert ns.explain(Outcome(read, -EINVAL, 0)) == ""


def test_what_reads_the_same_is_shared_and_time_may_go_on_a_little() -> None:
    count = len(sharing._PROBES)
    outside = ["6.1", "1000", *["x"] * (count - 2)]
    inside = ["6.1", "1003", *["x"] * (count - 3), "y"]
    found = ns.shared_of(*(Result("sh", 0, "\n".join(lines).encode(), b"") for lines in (outside, inside)))
    assert [each.shared for each in found] == [True] * (count - 1) + [False]


def test_probes_that_say_too_little_are_an_error() -> None:
    with pytest.raises(MachineError, match="not all could be read"):
        ns.shared_of(Result("sh", 0, b"6.1\n", b""), Result("sh", 0, b"6.1\n", b""))
