"""Control groups in guests, v2 and v1: each limit by its effect."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from cloudlab import Lab, Machine, MachineError, UsageError
from cloudlab.containers import cgroups
from cloudlab.containers.calls import Answer, Call, Calls, Room, make
from cloudlab.containers.cgroups import Cgroup
from cloudlab.containers.limits import Limits
from cloudlab.containers.syscalls import Clone, Mount

pytestmark = pytest.mark.guest
Eventually = Callable[[Callable[[], bool], float], None]
MIB = 1 << 20
BUSY = ["sha256sum", "/dev/zero"]  # one CPU, until it is killed
TAKES_64M = "dd if=/dev/zero of=/dev/null bs=64M count=1"


@pytest.fixture(scope="module", params=["v2", "v1"])
def guest(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Machine]:
    """A guest of each version, with two CPUs."""
    machine = lab.machine(f"groups-{request.param}", cpus=2, cgroups=request.param)
    yield machine
    machine.close()


@pytest.fixture
def group(guest: Machine) -> Iterator[Cgroup]:
    """A group /web, not made yet; removed afterwards, with all below it."""
    found = Cgroup(guest, "/web")
    yield found
    found.remove()
    assert guest.succeed("find /sys/fs/cgroup -name web") == ""


def cpus_used(group: Cgroup, seconds: float = 1.0) -> float:
    """How many CPUs does a group use in the next second?"""
    before = group.stats()
    group.place.run(["sleep", str(seconds)])
    return group.stats().cpus_since(before)


def pid_of(guest: Machine, command: str) -> int:
    return int(guest.succeed(f"{command} > /dev/null 2>&1 & echo $!"))


# --- what there is ---------------------------------------------------------------------------------------------------


def test_a_guest_has_one_hierarchy_in_v2_and_one_for_each_controller_in_v1(guest: Machine) -> None:
    version, found = cgroups.version_of(guest), cgroups.hierarchies(guest)
    assert version == {"v2": 2, "v1": 1}[guest.spec.cgroups]
    assert all(each.version == version and each.groups >= 1 for each in found)
    if version == 2:
        assert [each.mount_point for each in found] == ["/sys/fs/cgroup"]
        assert {"cpu", "memory", "io", "pids", "cpuset"} <= set(found[0].controllers)
    else:
        places = {each.controllers: each.mount_point for each in found}
        assert places["cpu",] == "/sys/fs/cgroup/cpu"
        assert places["memory",] == "/sys/fs/cgroup/memory"


def test_a_group_is_made_with_those_above_it_and_shows_its_limits(group: Cgroup) -> None:
    php = group.child("php").create(memory="32M", cpus=0.5, pids=20, cpuset="1")
    assert [node.path for node in group.tree()] == ["/web", "/web/php"]
    limits = group.tree()[1].limits
    assert (limits.memory, limits.cpus, limits.pids, limits.cpuset) == (32 * MIB, 0.5, 20, "1")
    assert [child.path for child in group.children] == ["/web/php"]
    assert {"cpu", "cpuset", "memory", "pids"} <= set(php.controllers)
    php.create()  # once more is no harm, and takes nothing away
    assert group.tree()[1].limits == limits


def test_files_are_those_of_the_directory(group: Cgroup) -> None:
    files = group.create(memory="32M").files()
    assert files["memory.max" if group.version == 2 else "memory.limit_in_bytes"] == str(32 * MIB)
    assert files["pids.max"] == "max"


# --- limits by their effect ------------------------------------------------------------------------------------------


def test_a_quota_is_the_cpu_time_it_gets_and_can_be_changed_while_it_runs(group: Cgroup) -> None:
    group.create(cpus=0.2).spawn(BUSY)
    assert 0.1 < cpus_used(group) < 0.3
    assert group.stats().throttled > 3
    assert group.stats().throttled_s > 0.1
    group.limit(cpus="max")
    assert cpus_used(group) > 0.5


def test_weights_share_a_cpu_that_both_want(group: Cgroup) -> None:
    heavy, light = (
        group.child(name).create(cpu_weight=weight, cpuset="0") for name, weight in (("h", 400), ("l", 100))
    )
    heavy.spawn(BUSY)
    light.spawn(BUSY)
    before = heavy.stats(), light.stats()
    group.place.run(["sleep", "2"])
    after = heavy.stats(), light.stats()
    ratio = (after[0].cpu_s - before[0].cpu_s) / (after[1].cpu_s - before[1].cpu_s)
    assert 2.5 < ratio < 6


def test_a_cpuset_keeps_all_of_a_group_on_its_cpus(group: Cgroup) -> None:
    assert group.create().run("nproc").stdout == "2\n"
    group.limit(cpuset="1")
    assert group.run("nproc; grep Cpus_allowed_list /proc/self/status").stdout.split() == [
        "1",
        "Cpus_allowed_list:",
        "1",
    ]
    for _ in range(2):
        group.spawn(BUSY)
    assert cpus_used(group) < 1.2


def test_who_takes_more_memory_than_the_limit_is_killed_and_it_is_counted(group: Cgroup) -> None:
    assert group.create().run(TAKES_64M).ok
    group.limit(memory="32M")
    assert group.stats().oom_kills == 0
    assert group.run(["sh", "-c", f"{TAKES_64M}; exit $?"]).exit_status == 137
    stats = group.stats()
    assert stats.oom_kills == 1
    assert stats.memory_events["max"] > 0
    assert stats.memory <= 32 * MIB


def test_above_memory_high_a_group_is_slowed_and_not_killed(group: Cgroup) -> None:
    if group.version == 1:
        with pytest.raises(UsageError, match="no memory_high"):
            group.create(memory_high="16M")
        return
    command = "dd if=/dev/zero of=/dev/null bs=17M count=1"
    before = group.create().run(command)
    group.limit(memory_high="16M")
    after = group.run(command)
    assert before.ok
    assert after.ok
    assert after.duration_s > before.duration_s + 0.5
    assert group.stats().memory_events["high"] > 0
    assert group.stats().oom_kills == 0


def test_a_fork_bomb_fizzles(group: Cgroup, eventually: Eventually) -> None:
    group.create(pids=12)
    bomb = group.spawn("bomb() { bomb | bomb & }; bomb; sleep 60")
    eventually(lambda: group.stats().pids_refused > 0, 20.0)
    assert group.stats().pids <= 12
    assert group.place.run("true").ok
    group.kill()
    assert group.processes == []
    bomb.wait(10.0)


def test_a_limit_on_io_is_the_rate_that_a_disk_gets(guest: Machine, group: Cgroup) -> None:
    disk = guest.plug(disk="16M")
    try:
        name = disk.guest_name.removeprefix("/dev/")
        device = guest.succeed(f"cat /sys/block/{name}/dev").strip()
        group.create(io={device: {"write": "1M"}})
        command = f"dd if=/dev/zero of={disk.guest_name} bs=64k count=32 oflag=direct"
        slow = group.run(command)
        assert slow.ok
        assert 1.0 < slow.duration_s < 8.0
        use = group.stats().io[device]
        assert (use.written_bytes, use.writes >= 32) == (2 * MIB, True)
        assert group.tree()[0].limits.io[device].write == MIB
        group.limit(io={device: {"write": "max"}})
        assert group.run(command).duration_s < 1.0
    finally:
        guest.unplug(disk)


# --- stopping and ending ---------------------------------------------------------------------------------------------


def test_frozen_processes_stand_still_and_go_on_when_thawed(group: Cgroup) -> None:
    group.create().spawn(BUSY)
    assert cpus_used(group, 0.3) > 0.2
    group.freeze()
    group.freeze()
    assert cpus_used(group, 0.5) < 0.02
    group.thaw()
    assert cpus_used(group, 0.5) > 0.2


def test_kill_ends_all_also_below_and_those_that_left_their_session(group: Cgroup) -> None:
    spawned = group.child("a").create().spawn("setsid sleep 100 & sleep 100")
    deeper = group.child("b/c").create()
    deeper.spawn("exec sleep 100")
    group.kill()
    assert spawned.wait(10.0).exit_status == 137
    assert [node.processes for node in group.tree()] == [()] * 4
    group.kill()  # nobody is there: no harm


def test_remove_takes_all_below_with_it_and_is_no_harm_twice(guest: Machine, group: Cgroup) -> None:
    spawned = group.child("a/b").create().spawn("sleep 100")
    group.remove()
    group.remove()
    assert spawned.wait(10.0).exit_status == 137
    assert guest.succeed("find /sys/fs/cgroup -name web") == ""


# --- who is in a group -----------------------------------------------------------------------------------------------


def test_children_are_born_in_the_group_of_their_parent(group: Cgroup) -> None:
    printed = group.create().run("sh -c 'grep -E \":(memory)?:\" /proc/self/cgroup' | cat").stdout
    assert re.search(r":/web$", printed, re.MULTILINE)


def test_a_command_runs_in_the_group_with_input_and_exit_status(group: Cgroup) -> None:
    result = group.create().run("cat; echo oops >&2; exit 3", input="hello")
    assert (result.stdout, result.stderr, result.exit_status) == ("hello", "oops\n", 3)
    assert group.run(["echo", "a  b", "$HOME"]).stdout == "a  b $HOME\n"


def test_a_spawned_command_is_in_the_group_as_soon_as_it_is_there_to_be_used(guest: Machine, group: Cgroup) -> None:
    group.create()
    for number in range(1, 6):
        group.spawn("exec sleep 100")
        assert len(group.processes) == number
    assert guest.succeed("find /run -name 'joined-*'") == ""


def test_tasks_move_from_group_to_group(guest: Machine, group: Cgroup) -> None:
    a, b = group.child("a").create(), group.child("b").create()
    pid = pid_of(guest, "sleep 100")
    a.add(pid)
    assert (a.processes, a.threads, b.processes) == ([pid], [pid], [])
    b.add(pid)
    assert (a.processes, b.processes) == ([], [pid])


def test_the_limit_of_the_group_above_binds(group: Cgroup) -> None:
    group.create(cpus=0.2, memory="32M")
    child = group.child("php").create()
    assert child.run(TAKES_64M).exit_status == 137
    child.spawn(BUSY)
    assert cpus_used(child) < 0.3
    assert group.stats().oom_kills == (1 if group.version == 2 else 0)  # v1 counts where the process was
    assert child.stats().oom_kills == 1


def test_use_below_adds_up_above(group: Cgroup) -> None:
    children = [group.child(name).create() for name in "ab"]
    for child in children:
        child.run("dd if=/dev/zero bs=1M count=40 | sha256sum")
    below, above = [child.stats() for child in children], group.stats()
    assert all(stats.cpu_s > 0 for stats in below)
    assert above.cpu_s == pytest.approx(sum(stats.cpu_s for stats in below), abs=0.02)
    if group.version == 2:
        assert above.user_s + above.system_s == pytest.approx(above.cpu_s, abs=0.02)


# --- programs of calls -----------------------------------------------------------------------------------------------


def test_a_program_makes_a_group_has_a_child_born_in_it_and_leaves_nothing(guest: Machine) -> None:
    version, calls = cgroups.version_of(guest), Calls()
    cgroups.add_creation(calls, version, "/made/here", Limits(memory=32 * MIB, pids=5, cpus=0.5))
    go = calls.call("pipe2", Room(8, whole=True), 0)
    child, inside = calls.child(cgroup=cgroups.add_open(calls, version, "/made/here"))
    inside.call("read", Answer(go, 0), Room(1), 1)
    where = read(inside, "/proc/self/cgroup")
    cgroups.add_membership(calls, version, "/made/here", child)
    calls.call("write", Answer(go, 4), "x", 1)
    calls.call("waitid", 1, child, Room(128, whole=True), 4, 0)
    events = cgroups.add_memory_events(calls, version, "/made/here")
    for path in ("/made/here", "/made", "/made", ""):
        cgroups.add_removal(calls, version, path)
    outcomes = make(guest, calls)
    assert b":/made/here\n" in outcomes[where.index].data
    assert b"oom_kill 0" in outcomes[events.index].data
    assert guest.succeed("find /sys/fs/cgroup -name made") == ""


def test_a_removal_kills_who_is_left_and_waits_for_their_end_in_v2(guest: Machine) -> None:
    group = Cgroup(guest, "/web").create()
    group.spawn("for i in 1 2 3 4 5 6; do sleep 100 & done; wait")
    calls = Calls()
    cgroups.add_removal(calls, group.version, "/web")
    make(guest, calls)
    left = guest.succeed("find /sys/fs/cgroup -name web")
    assert (left == "") == (group.version == 2)  # v1 can't kill by group: who is left, stays
    group.remove()


def test_a_process_joins_by_itself_and_nothing_happens_without_a_path(guest: Machine, group: Cgroup) -> None:
    calls = Calls()
    cgroups.add_creation(calls, group.version, "", Limits())
    cgroups.add_joining(calls, group.version, "")
    assert cgroups.add_open(calls, group.version, "") == 0
    assert list(calls) == []
    events = cgroups.add_memory_events(calls, group.version, "")
    group.create()
    cgroups.add_joining(calls, group.version, "/web")
    where = read(calls, "/proc/self/cgroup")
    outcomes = make(guest, calls)
    assert b":/web\n" in outcomes[where.index].data
    assert outcomes[events.index].data == b""


def test_a_container_gets_the_file_system_of_its_groups(guest: Machine) -> None:
    version, calls = cgroups.version_of(guest), Calls()
    child, inside = calls.child(Clone.NEWNS | Clone.NEWCGROUP)
    inside.call("mount", "", "/", "", Mount.PRIVATE | Mount.REC, 0)
    cgroups.add_mounts(inside, version, "/mnt", Mount.NOSUID | Mount.RDONLY)
    seen = read(inside, f"/mnt{'' if version == 2 else '/memory'}/cgroup.procs")
    refused = inside.call("mkdir", "/mnt/x", 0o755, harmless=None)
    calls.call("waitid", 1, child, Room(128, whole=True), 4, 0)
    outcomes = make(guest, calls)
    assert outcomes[seen.index].data
    assert "EROFS" in outcomes[refused.index].error


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_group_that_is_not_there_is_said_by_each_verb(group: Cgroup) -> None:
    verbs: list[Callable[[], object]] = [
        group.stats, group.tree, group.files, group.kill, group.freeze, lambda: group.processes, lambda: group.children,
        lambda: group.controllers, lambda: group.limit(pids=3), lambda: group.add(1), lambda: group.run("true"),
        lambda: group.spawn("true"),
    ]  # fmt: skip
    for verb in verbs:
        with pytest.raises(MachineError, match=r"(?s)no (such|control) group.*create\(\)"):
            verb()


def test_what_the_kernel_refuses_is_explained(group: Cgroup) -> None:
    group.create()
    with pytest.raises(MachineError, match=r"(?s)no such device.*lsblk"):
        group.limit(io={"9:9": {"write": "1M"}})
    with pytest.raises(MachineError, match=r"(?s)does not have these CPUs.*lscpu"):
        group.limit(cpuset="7")
    with pytest.raises(MachineError, match="no such process"):
        group.add(99999)
    with pytest.raises(MachineError, match="thread of the kernel"):
        group.add(2)
    with pytest.raises(UsageError, match="root group"):
        Cgroup(group.place, "/").remove()


def test_in_v2_processes_belong_in_the_leaves(guest: Machine, group: Cgroup) -> None:
    pid = pid_of(guest, "sleep 100")
    group.create().add(pid)
    if group.version == 1:
        assert group.child("php").create().processes == []
        return
    with pytest.raises(MachineError, match=r"(?s)has processes of its own.*leaves"):
        group.child("php").create()
    group.kill()
    group.child("php").create()
    with pytest.raises(MachineError, match=r"(?s)hands controllers to groups below.*leaves"):
        group.add(pid_of(guest, "sleep 1"))


def test_in_v1_a_group_can_not_have_more_quota_than_the_one_above(group: Cgroup) -> None:
    group.create(cpus=0.2)
    if group.version == 2:
        group.child("php").create(cpus=0.5)  # the group above binds
        return
    with pytest.raises(MachineError, match="more than the one above"):
        group.child("php").create(cpus=0.5)


def read(calls: Calls, file: str) -> Call:
    opened = calls.call("open", file, 0)
    return calls.call("read", opened, Room(4096), 4096)
