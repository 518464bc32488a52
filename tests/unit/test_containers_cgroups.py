"""Control groups without a guest: limits as files, bundles' resources as limits, programs of calls, what the kernel prints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cloudlab.containers import cgroups
from cloudlab.containers.calls import CallError, Calls, Outcome
from cloudlab.containers.cgroup_calls import check_path, directories
from cloudlab.containers.cgroup_errors import explained
from cloudlab.containers.cgroup_stats import IoUse, limits_in, stats_of
from cloudlab.containers.cgroup_tree import hierarchies_in, printed_files, tree_of
from cloudlab.containers.cgroups import Cgroup, limits_of
from cloudlab.containers.limits import (
    UNLIMITED,
    DeviceRule,
    IoLimit,
    Limits,
    parse_limits,
    settings,
    shares_of_weight,
    weight_of_shares,
)
from cloudlab.containers.syscalls import Mount
from cloudlab.errors import UsageError
from cloudlab.machines import Result

MIB = 1 << 20


def files(version: int, **limits: Any) -> list[tuple[str, str]]:
    return [(setting.file, setting.value) for setting in settings(version, parse_limits(**limits))]


# --- limits as files -------------------------------------------------------------------------------------------------

BOTH: list[tuple[dict[str, Any], list[tuple[str, str]], list[tuple[str, str]]]] = [
    ({}, [], []),
    ({"cpus": 0.5}, [("cpu.max", "50000 100000")], [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "50000")]),
    ({"cpus": 2}, [("cpu.max", "200000 100000")], [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "200000")]),
    ({"cpus": "max"}, [("cpu.max", "max 100000")], [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "-1")]),
    ({"period_us": 50_000}, [("cpu.max", "max 50000")], [("cpu.cfs_period_us", "50000")]),
    ({"cpu_weight": 100}, [("cpu.weight", "100")], [("cpu.shares", "1024")]),
    ({"cpu_weight": 1}, [("cpu.weight", "1")], [("cpu.shares", "10")]),
    ({"cpu_shares": 1024}, [("cpu.weight", "39")], [("cpu.shares", "1024")]),
    ({"cpuset": "0-1,3"}, [("cpuset.cpus", "0-1,3")], [("cpuset.cpus", "0-1,3")]),
    ({"cpuset": 1}, [("cpuset.cpus", "1")], [("cpuset.cpus", "1")]),
    ({"memory": "32M"}, [("memory.max", "33554432")], [("memory.limit_in_bytes", "33554432")]),
    ({"memory": "max"}, [("memory.max", "max")], [("memory.limit_in_bytes", "-1")]),
    ({"memory_low": "1M"}, [("memory.low", "1048576")], [("memory.soft_limit_in_bytes", "1048576")]),
    ({"pids": 20}, [("pids.max", "20")], [("pids.max", "20")]),
    ({"pids": "max"}, [("pids.max", "max")], [("pids.max", "max")]),
    (
        {"io": {"254:0": {"write": "1M", "read_operations": 120, "read": "max"}}},
        [("io.max", "254:0 rbps=max wbps=1048576 riops=120")],
        [
            ("blkio.throttle.read_bps_device", "254:0 0"),
            ("blkio.throttle.write_bps_device", "254:0 1048576"),
            ("blkio.throttle.read_iops_device", "254:0 120"),
        ],
    ),
    ({"io_weight": 10_000}, [("io.bfq.weight", "1000"), ("io.weight", "10000")], [("blkio.bfq.weight", "1000")]),
]


@pytest.mark.parametrize(("limits", "v2", "v1"), BOTH, ids=[str(case[0]) for case in BOTH])
def test_a_limit_is_one_file_in_v2_and_another_in_v1(
    limits: dict[str, Any], v2: list[tuple[str, str]], v1: list[tuple[str, str]]
) -> None:
    assert files(2, **limits) == v2
    assert files(1, **limits) == v1


def test_swap_is_counted_alone_in_v2_and_with_memory_in_v1() -> None:
    assert files(2, memory="32M", swap="0") == [("memory.max", "33554432"), ("memory.swap.max", "0")]
    names = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.limit_in_bytes"]
    assert files(1, memory="32M", swap="8M") == list(zip(names, ["33554432", "41943040", "33554432"], strict=True))
    with pytest.raises(UsageError, match="without memory"):
        files(1, swap="8M")


def test_a_cpuset_comes_first_in_v1_where_no_process_can_join_without_one() -> None:
    assert files(1, pids=3, memory="1M", cpuset="0", cpuset_mems="0")[:2] == [
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
    ]


def test_what_only_one_version_has_is_refused_in_the_other() -> None:
    assert files(2, memory_high="16M") == [("memory.high", "16777216")]
    assert files(2, unified={"memory.min": "4096"}) == [("memory.min", "4096")]
    assert files(1, swappiness=0, oom_killer=False) == [("memory.swappiness", "0"), ("memory.oom_control", "1")]
    wrong: list[tuple[int, dict[str, Any]]] = [(1, {"memory_high": "16M"}), (1, {"unified": {"memory.min": "1"}})]
    for version, limits in [*wrong, (2, {"swappiness": 0}), (2, {"oom_killer": True})]:
        with pytest.raises(UsageError, match=f"cgroup v{version} has no"):
            files(version, **limits)


def test_shares_become_a_weight_in_a_straight_line_and_a_weight_shares_as_the_kernel_has_it() -> None:
    assert [weight_of_shares(shares) for shares in (2, 1024, 262_144)] == [1, 39, 10_000]
    assert [shares_of_weight(weight) for weight in (1, 100, 10_000)] == [10, 1024, 102_400]


WRONG: list[dict[str, Any]] = [
    {"cpus": 0}, {"cpus": 0.001}, {"cpus": -2}, {"cpus": "half"}, {"cpu_weight": 0}, {"cpu_weight": 10_001}, {"cpuset": "a"},
    {"cpuset": "0,"}, {"memory": "lots"}, {"memory": -5}, {"pids": 0}, {"pids": "many"}, {"pids": 1.5}, {"period_us": 10},
    {"io": {"vda": {"read": 1}}},
    {"io": {"1:2": {"speed": 1}}}, {"io": {"1:2": {"read": 0}}}, {"io_weight": 0}, {"unified": {"../x": "1"}}, {"ram": 3},
    {"swappiness": 101}, {"memory": True}, {"pids": True},
]  # fmt: skip


@pytest.mark.parametrize("limits", WRONG, ids=str)
def test_a_wrong_limit_is_refused_with_what_is_allowed_and_an_example(limits: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as error:
        parse_limits(**limits)
    assert error.value.allowed
    assert error.value.example


# --- bundles ---------------------------------------------------------------------------------------------------------


def test_resources_of_a_bundle_become_limits() -> None:
    resources = {
        "memory": {"limit": 32 * MIB, "reservation": 16 * MIB, "swap": 48 * MIB},
        "cpu": {"shares": 512, "quota": 20_000, "period": 50_000, "cpus": "0-1", "mems": "0"},
        "pids": {"limit": 64},
        "blockIO": {"weight": 1000, "throttleWriteBpsDevice": [{"major": 254, "minor": 0, "rate": MIB}]},
        "unified": {"memory.high": "16777216"},
        "devices": [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        ],
    }
    limits = limits_of(resources)
    assert (limits.memory, limits.memory_low, limits.swap, limits.pids) == (32 * MIB, 16 * MIB, 16 * MIB, 64)
    assert (limits.cpus, limits.period_us, limits.cpu_shares, limits.cpuset, limits.cpuset_mems) == (
        0.4,
        50_000,
        512,
        "0-1",
        "0",
    )
    assert (limits.io, limits.io_weight) == ({"254:0": IoLimit(write=MIB)}, 10_000)
    assert limits.devices == (DeviceRule(False), DeviceRule(True, "c", "10:229", "rw"))
    written = {(setting.file, setting.value) for setting in settings(2, limits)}
    assert {("cpu.max", "20000 50000"), ("cpu.weight", "20"), ("memory.high", "16777216")} <= written


def test_a_quota_of_a_bundle_is_kept_to_the_microsecond() -> None:
    for quota in range(1000, 100_001, 333):
        limits = limits_of({"cpu": {"quota": quota, "period": 33_333}})
        assert settings(2, limits)[0].value == f"{quota} 33333"


def test_zero_says_nothing_and_minus_one_takes_a_limit_away() -> None:
    zeros = {
        "memory": {"limit": 0, "swap": 0},
        "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": ""},
        "blockIO": {"weight": 0},
    }
    assert limits_of(zeros) == limits_of({"memory": None}) == limits_of({}) == Limits()
    limits = limits_of({"memory": {"limit": -1, "swap": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}})
    assert (limits.memory, limits.swap, limits.cpus, limits.pids) == (UNLIMITED,) * 4


def test_rules_for_devices_are_written_in_v1_with_the_usual_ones_behind() -> None:
    limits = limits_of({"devices": [{"allow": False, "access": "rwm"}]})
    written = [(setting.file, setting.value) for setting in settings(1, limits)]
    assert written[0] == ("devices.deny", "a *:* rwm")
    assert ("devices.allow", "c 1:3 rwm") in written
    assert settings(2, limits) == settings(1, limits_of({})) == []


@pytest.mark.parametrize(
    ("resources", "place"),
    [
        ({"memroy": {}}, "memroy"),
        ({"memory": {"limits": 1}}, "memory.limits"),
        ({"memory": {"limit": "32M"}}, "memory.limit"),
        ({"memory": {"limit": 64, "swap": 32}}, "memory.swap"),
        ({"memory": {"swap": 32}}, "memory.swap"),
        ({"memory": 3}, "memory"),
        ({"cpu": {"realtimeRuntime": 1}}, "cpu.realtimeRuntime"),
        ({"cpu": {"quota": True}}, "cpu.quota"),
        ({"blockIO": {"throttleReadBpsDevice": [{"major": 8}]}}, "blockIO.throttleReadBpsDevice"),
        ({"devices": [{"access": "rwm"}]}, "devices"),
        ({"devices": [{"allow": True, "access": "x"}]}, "devices"),
        ({"devices": {"allow": True}}, "devices"),
        ({"unified": {"memory.high": 3}}, "unified"),
    ],
    ids=str,
)
def test_what_a_bundle_has_wrong_is_named(resources: dict[str, Any], place: str) -> None:
    with pytest.raises(UsageError, match=rf"linux\.resources\.{place}"):
        limits_of(resources)


# --- programs of calls -----------------------------------------------------------------------------------------------


def shown(add: Callable[..., object], *arguments: Any, **more: Any) -> list[str]:
    calls = Calls()
    add(calls, *arguments, **more)
    return str(calls).splitlines()


def test_a_group_of_v2_is_made_with_controllers_handed_down_at_each_level() -> None:
    lines = shown(cgroups.add_creation, 2, "/web/php", Limits(pids=5, cpuset="0"))
    names = '"+cpu +cpuset +memory +pids"'
    assert [line for line in lines if not line.startswith("close")] == [
        'open("/sys/fs/cgroup/cgroup.subtree_control", WRONLY|CLOEXEC, 420)'.replace("WRONLY|CLOEXEC", flags(lines[0])),
        f"write(<open>, {names}, <its length>)",
        'mkdir("/sys/fs/cgroup/web", 493)',
        f'open("/sys/fs/cgroup/web/cgroup.subtree_control", {flags(lines[0])}, 420)',
        f"write(<open>, {names}, <its length>)",
        'mkdir("/sys/fs/cgroup/web/php", 493)',
        f'open("/sys/fs/cgroup/web/php/cpuset.cpus", {flags(lines[0])})',
        'write(<open>, "0", 1)',
        f'open("/sys/fs/cgroup/web/php/pids.max", {flags(lines[0])})',
        'write(<open>, "5", 1)',
    ]


def flags(line: str) -> str:
    return line.split(", ")[1]


def test_a_group_of_v1_is_a_directory_in_each_hierarchy() -> None:
    lines = shown(cgroups.add_creation, 1, "/web", Limits(memory=MIB))
    made = [line.split('"')[1] for line in lines if line.startswith("mkdir")]
    assert made == directories(1, "/web")
    assert len(made) == 8
    assert any("/sys/fs/cgroup/memory/web/memory.limit_in_bytes" in line for line in lines)
    clone = next(number for number, line in enumerate(lines) if "cpuset/cgroup.clone_children" in line)
    assert clone < lines.index('mkdir("/sys/fs/cgroup/cpuset/web", 493)')


def test_without_a_path_nothing_is_done() -> None:
    for version in (1, 2):
        assert shown(cgroups.add_creation, version, "", Limits(pids=3)) == []
        assert shown(cgroups.add_joining, version, "") == shown(cgroups.add_removal, version, "") == []
        assert cgroups.add_open(Calls(), version, "") == 0
        assert '"/dev/null"' in shown(cgroups.add_memory_events, version, "")[0]


def test_a_child_is_born_in_its_group_in_v2_and_added_in_v1() -> None:
    calls = Calls()
    pid = calls.call("getpid")
    assert cgroups.add_open(calls, 1, "/web") == 0
    cgroups.add_membership(calls, 2, "/web", pid)
    assert len(list(calls)) == 1
    assert cgroups.add_open(calls, 2, "/web") != 0
    lines = shown(cgroups.add_membership, 1, "/web", pid)
    assert sum('"%d"' in line for line in lines) == 8


def test_groups_are_mounted_in_a_container_as_the_version_has_them() -> None:
    assert shown(cgroups.add_mounts, 2, "/sys/fs/cgroup", Mount.RDONLY) == [
        'mount("cgroup2", "/sys/fs/cgroup", "cgroup2", RDONLY, 0)'
    ]
    lines = shown(cgroups.add_mounts, 1, "/sys/fs/cgroup", Mount.RDONLY | Mount.NOSUID)
    assert lines[0] == 'mount("tmpfs", "/sys/fs/cgroup", "tmpfs", NOSUID, "mode=755")'
    assert sum('"cgroup", "/sys/fs/cgroup/' in line for line in lines) == 8
    assert "REMOUNT" in lines[-1]


def test_a_path_does_not_lead_out_of_the_hierarchy() -> None:
    assert [check_path(path) for path in ("", "/", "web", "/web//php/", "/a:b")] == ["", "", "/web", "/web/php", "/a:b"]
    for path in ("../x", "/web/../../etc", "/a\nb", "/a\0"):
        with pytest.raises(UsageError, match="not the path of a control group"):
            check_path(path)
    with pytest.raises(UsageError, match="not a version"):
        Cgroup(Nowhere(), "/web", version=3)


# --- what the kernel prints ------------------------------------------------------------------------------------------


def test_statistics_of_v2_are_read_in_seconds_and_bytes() -> None:
    stats = stats_of(
        2,
        {
            "cpu.stat": "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nnr_throttled 3\nthrottled_usec 20000\n",
            "memory.current": "4096\n",
            "memory.peak": "8192\n",
            "memory.stat": "anon 1000\nfile 2000\nfile_mapped 5\n",
            "memory.events": "low 0\nhigh 7\nmax 2\noom 1\noom_kill 1\noom_group_kill 0\n",
            "pids.current": "3\n",
            "pids.events": "max 12\n",
            "io.stat": "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n8:0 \n",
            "cpu.pressure": "some avg10=12.50 avg60=0.68 avg300=0.14 total=5701\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        },
        10.0,
    )
    assert (stats.cpu_s, stats.user_s, stats.system_s, stats.throttled, stats.throttled_s) == (1.5, 1.0, 0.5, 3, 0.02)
    assert (stats.memory, stats.memory_peak, stats.anonymous, stats.file, stats.oom_kills) == (
        4096,
        8192,
        1000,
        2000,
        1,
    )
    assert (stats.pids, stats.pids_refused, stats.io) == (3, 12, {"254:0": IoUse(1, 2, 3, 4)})
    assert stats.pressure == {"cpu": 12.5}


def test_statistics_of_v1_are_the_same_from_other_files() -> None:
    stats = stats_of(
        1,
        {
            "cpuacct.usage": "1500000000\n",
            "cpuacct.usage_user": "1000000000\n",
            "cpuacct.usage_sys": "500000000\n",
            "cpu.stat": "nr_periods 9\nnr_throttled 3\nthrottled_time 20000000\n",
            "memory.usage_in_bytes": "4096\n",
            "memory.memsw.usage_in_bytes": "5096\n",
            "memory.max_usage_in_bytes": "8192\n",
            "memory.stat": "cache 1\nrss 1\ntotal_cache 2000\ntotal_rss 1000\n",
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
            "memory.failcnt": "17\n",
            "blkio.throttle.io_service_bytes_recursive": "254:0 Read 1\n254:0 Write 2\n254:0 Total 3\nTotal 3\n",
            "blkio.throttle.io_serviced_recursive": "254:0 Read 3\n254:0 Write 4\nTotal 7\n",
        },
        10.0,
    )
    assert (stats.cpu_s, stats.user_s, stats.system_s, stats.throttled, stats.throttled_s) == (1.5, 1.0, 0.5, 3, 0.02)
    assert (stats.memory, stats.swap, stats.memory_peak, stats.anonymous, stats.file) == (4096, 1000, 8192, 1000, 2000)
    assert (stats.memory_events, stats.io) == ({"oom_kill": 1, "max": 17}, {"254:0": IoUse(1, 2, 3, 4)})


def test_two_readings_say_how_many_cpus_were_used_between_them() -> None:
    before = stats_of(2, {"cpu.stat": "usage_usec 1000000"}, 10.0)
    assert stats_of(2, {"cpu.stat": "usage_usec 2000000"}, 12.0).cpus_since(before) == 0.5
    assert before.cpus_since(before) == 0.0


@pytest.mark.parametrize("version", [1, 2])
def test_limits_that_were_written_are_read_back(version: int) -> None:
    limits = parse_limits(cpus=0.5, memory="32M", pids=20, cpuset="0", io={"254:0": {"write": "1M"}})
    written: dict[str, str] = {}
    for setting in settings(version, limits):
        written[setting.file] = setting.value
    found = limits_in(version, written)
    assert (found.cpus, found.memory, found.pids, found.cpuset) == (0.5, 32 * MIB, 20, "0")
    assert found.io["254:0"].write == MIB


def test_no_limit_is_none() -> None:
    assert (
        limits_in(2, {"cpu.max": "max 100000", "memory.max": "max", "pids.max": "max", "memory.low": "0"}) == Limits()
    )
    assert limits_in(1, {"cpu.cfs_quota_us": "-1", "memory.limit_in_bytes": "9223372036854771712"}) == Limits()


def test_a_tree_has_each_group_before_those_below_it_and_no_neighbour() -> None:
    printed = b"".join(
        f"/sys/fs/cgroup{name}\0{line}\n".encode()
        for name, line in [
            ("/web/a/cgroup.stat", "nr_descendants 0"),
            ("/web-2/cgroup.stat", "nr_descendants 0"),
            ("/web/cgroup.stat", "nr_descendants 1"),
            ("/web/a/cgroup.procs", "12"),
            ("/web/a/cgroup.procs", "7"),
            ("/web/memory.max", "4096"),
            ("/web-2/cgroup.procs", "5"),
        ]
    )
    nodes = tree_of(2, "/web", printed + b"/proc/uptime\x0012.50 3.00\n")
    assert [(node.path, node.processes, node.limits.memory) for node in nodes] == [
        ("/web", (), 4096),
        ("/web/a", (7, 12), None),
    ]
    assert nodes[0].stats.time_s == 12.5
    assert [node.path for node in tree_of(2, "/", printed)] == ["/web", "/web/a", "/web-2"]


def test_the_hierarchies_of_v1_are_one_group_in_the_tree() -> None:
    printed = b"".join(
        f"/sys/fs/cgroup/{name}\0{line}\n".encode()
        for name, line in [
            ("cpu/web/notify_on_release", "0"),
            ("memory/web/notify_on_release", "0"),
            ("memory/web/memory.usage_in_bytes", "4096"),
            ("cpu/web/cpu.shares", "512"),
            ("cpu/web/cgroup.procs", "7"),
            ("memory/web/cgroup.procs", "8"),
        ]
    )
    (node,) = tree_of(1, "/web", printed)
    assert (node.path, node.processes, node.limits.cpu_shares, node.stats.memory) == ("/web", (7, 8), 512, 4096)


def test_names_and_lines_of_files_are_told_apart() -> None:
    assert printed_files(b"/a:b\0x y\n/a:b\0z\n/c\0\n") == {"/a:b": "x y\nz", "/c": ""}


def test_hierarchies_are_told_from_mountinfo() -> None:
    table = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t2\t5\t1\ncpuacct\t2\t5\t1\nmemory\t0\t3\t1\nnet_cls\t0\t3\t0\n"
    mounts = (
        "28 22 0:24 / /sys/fs/cgroup rw - tmpfs cgroup rw,mode=755\n"
        "30 28 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:4 - cgroup cpu rw,cpu,cpuacct\n"
        "31 28 0:27 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
    )
    v1, v2 = hierarchies_in(table, mounts, "memory\n")
    assert (v1.version, v1.controllers, v1.mount_point, v1.groups) == (
        1,
        ("cpu", "cpuacct"),
        "/sys/fs/cgroup/cpu,cpuacct",
        5,
    )
    assert (v2.version, v2.controllers, v2.mount_point, v2.groups) == (2, ("memory",), "/sys/fs/cgroup/unified", 3)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "errno", "said"),
    [
        ("web/cgroup.subtree_control", 16, "processes of its own"),
        ("web/cgroup.procs", 16, "hands controllers"),
        ("web/cgroup.procs", 3, "no such process"),
        ("cpuset/web/cgroup.procs", 28, "no CPUs"),
        ("web/memory.max", 22, "refuses that value"),
        ("web/memory.max", 2, "no memory.max here"),
        ("web", 2, "no such group"),
        ("web/memory.max", 30, "read-only"),
    ],
)
def test_an_error_of_the_kernel_says_what_it_means_and_the_way_out(file: str, errno: int, said: str) -> None:
    calls = Calls()
    opened = calls.call("open", f"/sys/fs/cgroup/{file}", 1)
    call = calls.call("write", opened, "x", 1)
    error = explained(CallError("n1", Outcome(call, -errno, 0.0)), "/web")
    assert said in str(error)
    assert f"/sys/fs/cgroup/{file}" in str(error)
    assert "way out:" in str(error)


class Nowhere:
    """A place that nothing is run in."""

    name = "nowhere"

    def run(self, command: Any, *, input: bytes = b"", timeout_s: float = 60.0) -> Result:
        raise AssertionError(command)
