"""Namespaces in a real guest: each by what is seen inside and not outside, and by what the real tools say of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EINVAL, EPERM

import pytest

from cloudlab import Machine, MachineError, UsageError
from cloudlab.containers import namespaces as ns
from cloudlab.containers.calls import CallError
from cloudlab.containers.namespaces import KINDS
from cloudlab.containers.process import Process

pytestmark = pytest.mark.guest
Eventually = Callable[[Callable[[], bool], float], None]
_SLEEP = ["sleep", "100000"]
_DAY_S = 86400


@pytest.fixture(scope="module")
def box(n1: Machine) -> Iterator[int]:
    """A process in new namespaces of all eight kinds, a day ahead in time, in a control group of its own."""
    pid = ns.create(n1, KINDS, _SLEEP, uid_map=[(0, 100000, 1000)], offsets_s={"boottime": _DAY_S})
    yield pid
    n1.run(["kill", "-KILL", str(pid)])


@pytest.fixture
def made(n1: Machine) -> Iterator[Callable[..., int]]:
    """Makes processes in new namespaces, which end with the test."""
    pids: list[int] = []

    def make(kinds: str) -> int:
        pids.append(ns.create(n1, kinds, _SLEEP))
        return pids[-1]

    yield make
    for pid in pids:
        n1.run(["kill", "-KILL", str(pid)])


def inside(n1: Machine, pid: int, command: str) -> str:
    result = ns.enter(n1, pid).run(command)
    assert result.ok, result.stderr
    return result.stdout


# --- each kind, seen inside and not outside ---------------------------------------------------------------------


def test_a_process_can_be_in_new_namespaces_of_all_kinds(n1: Machine, box: int) -> None:
    assert ns.compare(ns.namespaces_of(n1), ns.namespaces_of(n1, box)) == dict.fromkeys(KINDS, False)


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_alone_is_new_and_the_others_are_shared(n1: Machine, made: Callable[..., int], kind: str) -> None:
    same = ns.compare(ns.namespaces_of(n1), ns.namespaces_of(n1, made(kind)))
    assert [each for each, is_same in same.items() if not is_same] == [kind]


def test_uts_a_host_name_set_inside_is_not_seen_outside(n1: Machine, box: int) -> None:
    assert inside(n1, box, "hostname inner; hostname") == "inner\n"
    assert n1.succeed("hostname").strip() == n1.name


def test_mnt_a_mount_made_inside_is_not_seen_outside(n1: Machine, box: int) -> None:
    assert inside(n1, box, "mount -t tmpfs none /mnt; touch /mnt/secret; ls /mnt") == "secret\n"
    assert n1.succeed("ls /mnt; grep -c ' /mnt ' /proc/mounts || true").split() == ["0"]


def test_pid_processes_are_counted_from_1_and_others_not_seen(n1: Machine, box: int) -> None:
    numbers = inside(n1, box, "ps -eo pid,args --no-headers").splitlines()
    assert numbers[0].split() == ["1", *_SLEEP]
    assert "cloudlab-agent" not in "".join(numbers)
    assert "cloudlab-agent" in n1.succeed("ps -e")


def test_pid_a_forked_ps_inside_is_seen_from_outside_by_another_number(n1: Machine, box: int) -> None:
    found = {process.command: process for process in ns.processes(n1) if process.pid == box}
    assert found[" ".join(_SLEEP)].pids == (box, 1)


def test_ipc_a_queue_made_inside_is_not_seen_outside(n1: Machine, box: int) -> None:
    key = re.search(r"0x[0-9a-f]+", inside(n1, box, "ipcmk -Q >/dev/null; ipcs -q | grep 0x"))
    assert key is not None
    assert key[0] not in n1.succeed("ipcs -q")


def test_ipc_a_queue_made_outside_is_not_seen_inside(n1: Machine, box: int) -> None:
    number = n1.succeed("ipcmk -M 4096").split()[-1]
    try:
        assert re.search(rf"^0x\S+ {number} ", n1.succeed("ipcs -m"), re.MULTILINE)
        assert "0x" not in inside(n1, box, "ipcs -m")
    finally:
        n1.succeed(f"ipcrm -m {number}")


def test_net_there_is_only_a_loopback_and_it_is_down(n1: Machine, box: int) -> None:
    assert re.findall(r"^\d+: (\w+): .* state (\w+)", inside(n1, box, "ip -o link"), re.MULTILINE) == [("lo", "DOWN")]
    assert "eth0" in n1.succeed("ip -o link")


def test_user_root_inside_is_a_plain_number_outside(n1: Machine, box: int) -> None:
    assert inside(n1, box, "id -u").strip() == "0"
    found = next(process for process in ns.processes(n1) if process.pid == box)
    assert (found.uid, found.uid_map) == (100000, ((0, 100000, 1000),))


def test_user_files_of_the_real_root_belong_to_nobody_and_power_ends_at_the_border(n1: Machine, box: int) -> None:
    assert inside(n1, box, "stat -c %u /etc/passwd").strip() == "65534"
    assert "CapEff:\t000001ffffffffff" in inside(n1, box, "cat /proc/self/status")
    assert not ns.enter(n1, box).run("echo x >> /etc/passwd").ok
    assert not ns.enter(n1, box).run("echo 1 > /proc/sys/kernel/panic").ok
    assert not ns.enter(n1, box, "user").run("hostname no").ok  # the UTS namespace of the guest is not its own
    assert n1.succeed("hostname").strip() == n1.name


def test_cgroup_the_path_inside_is_the_root(n1: Machine) -> None:
    with Process(n1) as p:
        n1.succeed(f"mkdir -p /sys/fs/cgroup/shelf && echo {p.pid} > /sys/fs/cgroup/shelf/cgroup.procs")
        p.unshare(KINDS["cgroup"].flag)
        assert p.run("cat /proc/self/cgroup").stdout == "0::/\n"
        assert n1.succeed(f"cat /proc/{p.pid}/cgroup") == "0::/shelf\n"


def test_time_the_clock_since_boot_is_ahead_and_the_time_of_day_is_not(n1: Machine, box: int) -> None:
    outside = n1.succeed("cat /proc/uptime; date +%s").split()
    within = inside(n1, box, "cat /proc/uptime; date +%s").split()
    assert float(within[0]) - float(outside[0]) == pytest.approx(_DAY_S, abs=30)
    assert int(within[2]) - int(outside[2]) == pytest.approx(0, abs=30)
    assert re.search(rf"boottime +{_DAY_S} +0", n1.succeed(f"cat /proc/{box}/timens_offsets"))


# --- nested, joined, and as nobody ------------------------------------------------------------------------------


def test_pid_namespaces_nest_and_each_level_has_a_number_of_its_own(n1: Machine) -> None:
    command = "unshare -fp --mount-proc unshare -fp --mount-proc sleep 777"
    pid = int(n1.succeed(f"{command} </dev/null >/dev/null 2>&1 & echo $!"))
    try:
        n1.wait_until_succeeds("pgrep -fx 'sleep 777'")
        deepest = next(process for process in ns.processes(n1) if process.command == "sleep 777")
        assert len(deepest.pids) == 3
        assert (deepest.pids[0], deepest.pids[2]) == (deepest.pid, 1)
        status = n1.succeed(f"grep NSpid /proc/{deepest.pid}/status").split()[1:]
        assert deepest.pids == tuple(map(int, status))
        middle = next(process for process in ns.processes(n1) if process.pid == deepest.ppid)
        seen = ns.tree(n1, middle.ppid if len(middle.pids) == 1 else middle.pid)
        assert "sleep 777" in str(seen)
        assert str(ns.tree(n1, deepest.pid)) == "1 sleep 777"
        assert "cloudlab-agent" in str(ns.tree(n1))
    finally:
        n1.run(["sh", "-c", f"kill -KILL {pid}; pkill -KILL -fx 'sleep 777'"])


def test_from_the_middle_the_inner_ones_are_seen_and_the_outer_ones_not(n1: Machine, made: Callable[..., int]) -> None:
    middle = made("pid mnt")
    ns.enter(n1, middle).run("unshare -fp sleep 778 </dev/null >/dev/null 2>&1 & true")
    n1.wait_until_succeeds("pgrep -fx 'sleep 778'")
    seen = str(ns.tree(n1, middle))
    assert seen.startswith("1 sleep 100000")
    assert "sleep 778" in seen
    assert "cloudlab-agent" not in seen


def test_two_processes_can_share_a_namespace_by_joining(n1: Machine, made: Callable[..., int]) -> None:
    a, b = made("uts net"), made("uts net")
    ns.enter(n1, a).run("hostname joined")
    assert inside(n1, b, "hostname").strip() != "joined"
    mixed = ns.enter(n1, a, "uts").run(["sh", "-c", "readlink /proc/self/ns/uts /proc/self/ns/net"]).stdout.split()
    assert mixed == [str(ns.namespaces_of(n1, a)["uts"]), str(ns.namespaces_of(n1)["net"])]


def test_what_is_entered_by_default_is_what_differs(n1: Machine, made: Callable[..., int]) -> None:
    assert ns.enter(n1, made("uts ipc")).kinds == ("uts", "ipc")
    assert ns.enter(n1, 1).kinds == ()
    assert "nothing" in ns.enter(n1, 1).run("echo nothing").stdout


def test_a_command_inside_gets_its_input_and_gives_its_exit_status(n1: Machine, box: int) -> None:
    result = ns.enter(n1, box).run("cat; echo oops >&2; exit 7", input=b"given")
    assert (result.stdout, result.stderr, result.exit_status) == ("given", "oops\n", 7)


def test_without_capabilities_only_a_user_namespace_can_be_made_and_in_it_all_others(n1: Machine) -> None:
    with Process(n1) as p:
        p.setgroups(0, 0)
        p.setresgid(65534, 65534, 65534)
        p.setresuid(65534, 65534, 65534)
        for kind in KINDS.values():
            if kind.name != "user":
                with pytest.raises(CallError, match=r"EPERM .*only a user namespace can be made"):
                    p.unshare(kind.flag)
        p.unshare(KINDS["user"].flag)
        p.unshare(ns.flags_of([kind for kind in KINDS if kind != "user"]))
        assert p.sethostname("nobodys-box") == 0
        assert p.run("id -u").stdout.strip() == "65534"  # no map yet
    assert n1.succeed("hostname").strip() == n1.name


# --- lists, the matrix, and the real tools ----------------------------------------------------------------------


def lsns(n1: Machine) -> dict[tuple[int, str], tuple[int, int]]:
    """What lsns(8) says: kind and inode -> parent and owner, 0 for none."""
    said = [line.split() for line in n1.succeed("lsns -rno NS,TYPE,PNS,ONS").splitlines()]
    return {(int(inode), kind): (int(parent), int(owner)) for inode, kind, parent, owner in said}


def test_our_list_is_that_of_lsns(n1: Machine, box: int, eventually: Eventually) -> None:
    def ours() -> dict[tuple[int, str], tuple[int, int]]:
        return {
            (each.namespace.inode, each.namespace.kind): (
                each.parent.inode if each.parent else 0,
                each.owner.inode if each.owner else 0,
            )
            for each in ns.all_namespaces(n1)
        }

    eventually(lambda: ours() == lsns(n1), 20)  # what other tests have killed may still be ending
    namespaces = ns.namespaces_of(n1, box)
    mine = next(each for each in ns.all_namespaces(n1) if each.namespace == namespaces["net"])
    assert (mine.first.pid, mine.owner) == (box, namespaces["user"])


def test_the_matrix_of_a_guest_says_who_is_with_whom(n1: Machine, made: Callable[..., int]) -> None:
    a, b = made("uts"), made("uts net")
    matrix = ns.matrix(n1, [1, a, b])
    assert [process.pid for process in matrix.processes] == [1, a, b]
    assert [cells[matrix.kinds.index("uts")] for cells in matrix.cells] == ["a", "b", "c"]
    assert [cells[matrix.kinds.index("net")] for cells in matrix.cells] == ["a", "a", "b"]
    assert not any(process.kernel for process in ns.matrix(n1).processes)


def test_nsenter_sees_what_we_see(n1: Machine, box: int) -> None:
    look = "readlink /proc/self/ns/*; id -u; hostname; ls /sys/fs/cgroup | wc -l"
    assert n1.succeed(["nsenter", "-t", str(box), "-a", "sh", "-c", look]) == inside(n1, box, look)


@contextmanager
def unshared(n1: Machine, options: str, command: str) -> Iterator[int]:
    """A process that unshare(1) made, found by its command."""
    n1.succeed(f"unshare {options} {command} </dev/null >/dev/null 2>&1 &")
    try:
        yield int(n1.wait_until_succeeds(f"pgrep -fx '{command}'"))
    finally:
        n1.run(f"pkill -KILL -fx '{command}'")


def test_what_unshare_makes_we_read_and_enter(n1: Machine) -> None:
    with unshared(n1, "-fpmuinCT --mount-proc", "sleep 779") as pid:
        same = ns.compare(ns.namespaces_of(n1), ns.namespaces_of(n1, pid))
        assert [kind for kind, is_same in same.items() if is_same] == ["user"]
        assert inside(n1, pid, "ps -o args= -p 1").strip() == "sleep 779"


# --- what no namespace isolates ---------------------------------------------------------------------------------


def test_the_kernel_its_clock_its_log_and_its_settings_are_shared(n1: Machine) -> None:
    found = {each.what: each for each in ns.not_isolated(n1)}
    shared = {what for what, each in found.items() if each.shared}
    assert {"kernel release", "memory of the computer", "kernel.panic", "kernel modules", "boot id"} <= shared
    assert any(what.startswith("time of day") for what in shared)
    assert {"host name", "processes that are seen", "days since boot", "network cards"} == found.keys() - shared
    assert n1.run("pgrep -fx 'sleep 600'").exit_status == 1


def test_a_setting_of_the_kernel_changed_inside_is_changed_outside(n1: Machine, made: Callable[..., int]) -> None:
    before = n1.succeed("cat /proc/sys/kernel/panic").strip()
    try:
        ns.enter(n1, made("mnt uts ipc pid net cgroup time")).run("echo 77 > /proc/sys/kernel/panic")
        assert n1.succeed("cat /proc/sys/kernel/panic").strip() == "77"
    finally:
        n1.succeed(f"echo {before} > /proc/sys/kernel/panic")


# --- wrong input, and nothing left ------------------------------------------------------------------------------


def test_a_process_that_is_not_there_is_a_mistake_of_the_caller(n1: Machine) -> None:
    for ask in (
        lambda: ns.namespaces_of(n1, 999999),
        lambda: ns.enter(n1, 999999),
        lambda: ns.matrix(n1, [999999]),
        lambda: ns.tree(n1, 999999),
    ):
        with pytest.raises(UsageError, match="There is no process 999999"):
            ask()


def test_entering_ones_own_user_namespace_is_explained(n1: Machine) -> None:
    with pytest.raises(CallError, match="we are in that user namespace already") as caught:
        ns.enter(n1, 1, "user").run("true")
    assert caught.value.errno == EINVAL


def test_a_program_that_is_not_there_is_named(n1: Machine, box: int) -> None:
    with pytest.raises(CallError, match=r'execve\("/bin/nosuch".*ENOENT'):
        ns.enter(n1, box).run(["nosuch"])
    with pytest.raises(CallError, match=r'execve\("/bin/nosuch".*ENOENT'):
        ns.create(n1, "uts", ["nosuch"])


def test_a_map_that_the_kernel_refuses_is_an_error_of_that_write(n1: Machine) -> None:
    with pytest.raises(CallError, match=r"write\(.*EINVAL") as caught:
        ns.create(n1, "user", _SLEEP, uid_map=[(0, 0, 10), (5, 100, 10)])
    assert caught.value.errno in (EINVAL, EPERM)


def test_a_guest_that_has_ended_says_so(fresh: Machine) -> None:
    fresh.close()
    with pytest.raises(MachineError, match=fresh.name):
        ns.processes(fresh)


def test_namespaces_go_with_their_last_process(n1: Machine, made: Callable[..., int], eventually: Eventually) -> None:
    before = {each.namespace for each in ns.all_namespaces(n1)}
    pid = made("user mnt uts ipc pid net cgroup time")
    new = {each.namespace for each in ns.all_namespaces(n1)} - before
    assert sorted(each.kind for each in new) == sorted(KINDS)
    n1.succeed(["kill", "-KILL", str(pid)])
    eventually(lambda: not new & {each.namespace for each in ns.all_namespaces(n1)}, 20)


def test_two_hundred_of_them_are_listed_in_a_few_round_trips(n1: Machine, made: Callable[..., int]) -> None:
    pids = [made("uts ipc pid net mnt") for _ in range(200)]
    listed = ns.matrix(n1, pids)
    assert [len({cells[listed.kinds.index(kind)] for cells in listed.cells}) for kind in ("uts", "net", "user")] == [
        200,
        200,
        1,
    ]
    counted = [each for each in ns.all_namespaces(n1) if each.namespace.kind == "net"]
    assert len([each for each in counted if each.first.pid in pids]) == 200
