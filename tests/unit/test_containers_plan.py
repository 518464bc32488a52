"""The program of system calls that makes a container: what is in it, and in which order where the order keeps it in."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from cloudlab.containers import bundle, plan
from cloudlab.containers.bundle import Bundle
from cloudlab.containers.calls import Call, Calls
from cloudlab.containers.execution import add_execution
from cloudlab.containers.rootfs import Overlay
from cloudlab.containers.setting import Setting
from cloudlab.containers.specification import Volume, Wishes, configuration
from cloudlab.containers.syscalls import Open


def read(wishes: dict[str, Any] | None = None, **linux: Any) -> Bundle:
    found = configuration(Wishes(**{"command": ["sh"], **(wishes or {})}), "/c/rootfs")
    found["linux"] |= {"cgroupsPath": "/cloudlab/web", **linux}
    return bundle.read(found)


def creation(made: Bundle | None = None, **setting: Any) -> list[Call]:
    values = {"name": "web", "directory": "/b", "cgroup_version": 2, **setting}
    calls, _ = plan.creation(made or read(), Setting(**values), "{}")
    return list(calls)


def init_of(calls: list[Call]) -> list[Call]:
    """What the container's first process does: between the clone3 with flags and the calls of the monitor."""
    (clone,) = (
        call
        for call in calls
        if call.child and find(list(call.child), "^pivot_root") and not find(list(call.child), "^keep_log")
    )
    assert clone.child is not None
    return list(clone.child)


def find(calls: list[Call], pattern: str) -> list[int]:
    return [number for number, call in enumerate(calls) if re.search(pattern, str(call))]


def first(calls: list[Call], pattern: str) -> int:
    found = find(calls, pattern)
    assert found, f"no {pattern} in\n" + "\n".join(map(str, calls))
    return found[0]


def in_order(calls: list[Call], *patterns: str) -> None:
    places = [first(calls, pattern) for pattern in patterns]
    assert places == sorted(places), list(zip(patterns, places, strict=True))


# --- the root ---------------------------------------------------------------------------------------------------


def test_nothing_is_mounted_in_the_image_before_it_is_the_root() -> None:
    init = init_of(creation(read({"volumes": [Volume("/srv/data", "/data")]})))
    pivot = first(init, r"^pivot_root\(")
    before = [str(call) for call in init[:pivot] if call.name in ("mount", "move_mount", "mkdir", "mknod", "symlink")]
    assert before == ['mount("", "/", "", REC|SLAVE, 0)', 'mount("/c/rootfs", "/c/rootfs", "", BIND|REC, 0)']


def test_sources_of_the_host_are_taken_hold_of_while_they_can_be_seen() -> None:
    init = init_of(creation(read({"volumes": [Volume("/srv/data", "/data")]})))
    in_order(init, r'^open_tree\(-100, "/srv/data"', r"^pivot_root", r'^move_mount\(.*"/data"')


def test_the_old_root_is_gone_before_anything_of_the_image_runs() -> None:
    init = init_of(creation())
    in_order(
        init, r"^pivot_root", r'^mount\("proc", "/proc"', r"^umount2\(\"\.\", DETACH\)", r'^chdir\("/"\)', r"^execve\("
    )


def test_what_is_hidden_is_covered_by_the_hosts_null_and_not_by_one_of_the_image() -> None:
    init = init_of(creation())
    masks = find(init, r'^mount\("dev/null", "/proc/kcore"')
    assert masks
    assert first(init, r"^fchdir\(<open>\)") < masks[0] < first(init, r"^umount2")
    assert not find(init, r'^mount\("/dev/null"')


def test_the_root_is_made_read_only_when_all_is_in_it() -> None:
    init = init_of(creation())
    last = max(find(init, r"^(mkdir|mknod|symlink|move_mount)\("))
    assert last < first(init, r'^mount_setattr\(-100, "/", 0, \{1\}') < first(init, r"^execve")
    assert not find(init_of(creation(read({"writable": True}))), r'^mount_setattr\(-100, "/", ')


def test_a_bind_mount_takes_what_is_mounted_below_only_if_it_says_so() -> None:
    def flags(option: str) -> int:
        mount = {"destination": "/data", "type": "bind", "source": "/srv", "options": [option]}
        made = bundle.read(configuration(Wishes(command=["sh"]), "/r") | {"mounts": [mount]})
        init = init_of(creation(made))
        return int(str(init[first(init, r'^open_tree\(-100, "/srv"')]).rstrip(")").split(", ")[2])

    assert flags("rbind") - flags("bind") == 0x8000


@pytest.mark.parametrize(("userns", "how"), [(True, "move_mount"), (False, "mknod")])
def test_devices_are_made_or_in_a_user_namespace_which_may_not_borrowed(userns: bool, how: str) -> None:
    init = init_of(creation(read({"userns": userns})))
    assert [call for call in init if call.name == how and '"/dev/null"' in str(call)]


def test_the_devices_of_the_host_are_left_alone_if_its_dev_is_bound() -> None:
    config = configuration(Wishes(command=["sh"], userns=False), "/r")
    config["mounts"] = [{"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"]}]
    init = init_of(creation(bundle.read(config)))
    assert not [
        call for call in init if call.name in ("chmod", "symlink") or (call.name == "mknod" and "/dev/" in str(call))
    ]


# --- who it is --------------------------------------------------------------------------------------------------


def test_power_is_given_up_in_an_order_that_leaves_none() -> None:
    in_order(
        init_of(creation(read({"user": "7:8"}))),
        r"CAPBSET_DROP",
        r"^setgroups",
        r"^setresgid\(8, 8, 8\)",
        r"^setresuid\(7, 7, 7\)",
        r"^capset",
        r"SET_NO_NEW_PRIVS",
        r"^seccomp\(",
        r"^execve\(",
    )


def test_behind_the_filter_there_is_only_what_starts_the_program() -> None:
    init = init_of(creation())
    assert {call.name for call in init[first(init, r"^seccomp\(") + 1 :]} == {"execve"}


def test_without_no_new_privileges_the_filter_is_set_while_there_is_the_right_to() -> None:
    config = configuration(Wishes(command=["sh"], user="7"), "/r")
    config["process"]["noNewPrivileges"] = False
    init = init_of(creation(bundle.read(config)))
    assert first(init, r"^seccomp\(") < first(init, r"^setresuid\(7")
    assert not find(init, "SET_NO_NEW_PRIVS")


def test_who_says_nothing_about_capabilities_has_none() -> None:
    config = configuration(Wishes(command=["sh"]), "/r")
    del config["process"]["capabilities"]
    init = init_of(creation(bundle.read(config)))
    assert len(find(init, "CAPBSET_DROP")) > 35
    assert find(init, "^capset")


def test_in_a_user_namespace_init_is_root_before_it_mounts() -> None:
    init = init_of(creation())
    in_order(init, r"^setresgid\(0, 0, 0\)", r"^setresuid\(0, 0, 0\)", r"^mount\(")
    assert not find(init_of(creation(read({"userns": False})))[:40], r"^setresuid\(0, 0, 0\)")


def test_a_containers_first_process_waits_until_it_has_been_given_its_identity() -> None:
    calls = creation()
    in_order(calls, r"/uid_map", r"/gid_map", r'^write\(<pipe2\[1\]>, "x", 1\)')
    init = init_of(calls)
    assert [call.name for call in init[1:4]] == ["close", "read", "must_be"]


def test_nothing_that_was_opened_is_open_in_the_program() -> None:
    init = init_of(creation(read({"volumes": [Volume("/srv/data", "/data")]})))
    for call in init:
        if call.name in ("open", "pipe2"):
            assert Open.CLOEXEC & int(call.arguments[-1 if call.name == "pipe2" else 1]), call  # type: ignore[arg-type]
        if call.name == "open_tree":
            assert int(Open.CLOEXEC) & int(call.arguments[2]), call  # type: ignore[arg-type]


# --- namespaces and control groups ------------------------------------------------------------------------------


def test_the_control_group_is_there_with_its_limits_before_anybody_is_born_into_it() -> None:
    calls = creation(read({"memory": "32M"}))
    in_order(
        calls,
        r'^mkdir\("/sys/fs/cgroup/cloudlab/web"',
        r"memory\.max",
        r"^clone3\(\{CHLD\}",
        r"^clone3\(\{.*INTO_CGROUP",
    )


def test_in_version_1_the_process_is_put_into_its_groups_before_it_goes_on() -> None:
    calls = creation(read({"memory": "32M"}), cgroup_version=1)
    joins = find(calls, r"^open\(.*/memory/cloudlab/web/cgroup\.procs")
    assert joins
    assert joins[0] < first(calls, r'^write\(<pipe2\[1\]>, "x", 1\)')


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts"])
def test_a_namespace_that_is_not_asked_for_is_not_made(kind: str) -> None:
    kinds = [each for each in ("mount", "pid", "network", "ipc", "uts") if each != kind]
    flag = {"pid": "NEWPID", "network": "NEWNET", "ipc": "NEWIPC", "uts": "NEWUTS"}[kind]

    def made(namespaces: list[str]) -> str:
        config = configuration(Wishes(command=["sh"], userns=False), "/r")
        config["linux"]["namespaces"] = [{"type": each} for each in namespaces]
        return "\n".join(map(str, creation(bundle.read(config))))

    assert flag in made([*kinds, kind])
    assert flag not in made(kinds)


def test_a_namespace_with_a_path_is_joined_before_anything_else_is_done() -> None:
    config = configuration(Wishes(command=["sh"], userns=False), "/r")
    config["linux"]["namespaces"] = [{"type": "mount"}, {"type": "network", "path": "/run/netns/a"}]
    init = init_of(creation(bundle.read(config)))
    in_order(init, r'^open\("/run/netns/a"', r"^setns\(<open>, 0\)", r"^mount\(")


# --- hooks and parameters ---------------------------------------------------------------------------------------


def hooked() -> list[Call]:
    config = configuration(Wishes(command=["sh"]), "/r")
    config["hooks"] = {kind: [{"path": f"/bin/{kind}", "timeout": 2}] for kind in bundle.HOOKS}
    config["annotations"] = {"full": "100% %s"}
    return creation(bundle.read(config))


def test_hooks_run_at_their_points() -> None:
    calls = hooked()
    in_order(
        init_of(calls),
        r'execve\("/bin/createContainer"',
        "^pivot_root",
        r"^umount2",
        r'execve\("/bin/startContainer"',
        r"^seccomp",
    )
    monitor = [call for call in calls if call not in init_of(calls)]
    in_order(
        monitor,
        r'execve\("/bin/prestart"',
        r'execve\("/bin/createRuntime"',
        r'^write\(<pipe2\[1\]>, "x", 1\)',
        r'execve\("/bin/poststart"',
        r"^keep_log",
        r'execve\("/bin/poststop"',
        r"^rename\(.*/exit\"\)",
    )


def test_a_hook_that_fails_ends_the_creation_unless_it_comes_after() -> None:
    checked = {
        re.search(r"hook /bin/(\w+)", str(call)).group(1)
        for call in hooked()
        if call.name == "must_be" and "hook" in str(call)
    }  # type: ignore[union-attr]
    assert checked == {"prestart", "createRuntime", "createContainer", "startContainer"}


def test_a_hook_reads_the_containers_state_and_has_its_time() -> None:
    calls = hooked()
    states = [
        str(call.arguments[1]) for call in calls if call.name == "write" and "ociVersion" in str(call.arguments[1])
    ]
    assert len(states) == 6
    assert find(calls, r"^alarm\(2\)")
    plain = [call.arguments[1] for call in calls if call.name == "write" and isinstance(call.arguments[1], str)]
    state = next(json.loads(text) for text in plain if "ociVersion" in text)
    assert (state["id"], state["bundle"], state["annotations"]) == ("web", "/b", {"full": "100% %s"})


def test_kernel_parameters_are_set_in_the_containers_proc_and_before_power_is_given_up() -> None:
    init = init_of(creation(read(sysctl={"net.ipv4.ip_forward": "1"})))
    in_order(init, r'^mount\("proc"', r'^open\("/proc/sys/net/ipv4/ip_forward"', "CAPBSET_DROP")


# --- the three processes ----------------------------------------------------------------------------------------


def test_a_container_that_waits_does_so_when_all_else_is_done() -> None:
    init = init_of(creation(wait_for_start=True))
    waits = max(find(init, r"^read\(<open>, <1 bytes>, 1\)"))
    assert {call.name for call in init[waits + 1 :]} == {"execve"}
    assert waits > first(init, r"^seccomp\(")
    assert not find(creation(wait_for_start=True), r'^mknod\(".*/started"')
    assert find(creation(), r'^mknod\(".*/started"')


def test_the_monitor_keeps_nothing_of_the_callers_open() -> None:
    calls = creation()
    for number in (0, 1, 2, 200):
        assert find(calls, rf"^dup3\(<open>, {number}, ")
    assert max(find(calls, r"^dup3\(<open>, 200")) < first(calls, "^keep_log")


def test_the_lock_is_the_monitors_alone() -> None:
    calls = creation()
    assert first(calls, r"^flock\(<open>, 2\)") < first(calls, r"^pivot_root")
    assert str(init_of(calls)[0]) == "close(<open>)"


def test_how_it_ended_is_written_before_it_is_told() -> None:
    in_order(creation(), r"^waitid", r"exit\.new", r"^rename\(.*exit\.new.*/exit\"\)", r"/run/cloudlab/ended")


def test_layers_are_stacked_by_the_monitor_in_a_mount_namespace_of_its_own() -> None:
    overlay = Overlay(["/l/2", "/l/1"], "/w/upper", "/w/work")
    calls = creation(overlay=overlay)
    in_order(calls, r"^unshare\(NEWNS\)", r'^mount\("", "/", "", REC\|SLAVE', r"overlay", r"^pivot_root")


@pytest.mark.parametrize("wishes", [{}, {"user": "7"}])
def test_another_process_joins_all_before_it_is_limited_like_the_first(wishes: dict[str, Any]) -> None:
    made = read(wishes)
    calls = plan.execution(made, Setting("web", "/", 2), 77, made.process)
    listed = list(calls)
    in_order(
        listed,
        r"^pidfd_open\(77",
        r"cgroup\.procs",
        r"^setns\(<pidfd_open>, ",
        r"^clone3",
        r"CAPBSET_DROP",
        r"^umask",
        r"^capset",
        r"^seccomp",
        r"^execve",
        r"^end_as",
    )


@pytest.mark.parametrize(
    ("args", "env", "tried"),
    [
        (("sh",), ("PATH=/a:/b",), ["/a/sh", "/b/sh"]),
        (("sh",), (), ["/usr/bin/sh", "/bin/sh"]),
        (("sh",), ("PATH=:/b",), ["./sh", "/b/sh"]),
        (("/bin/sh",), ("PATH=/a",), ["/bin/sh"]),
        (("bin/sh",), ("PATH=/a",), ["bin/sh"]),
    ],
)
def test_a_program_is_looked_for_as_execvp_does(args: tuple[str, ...], env: tuple[str, ...], tried: list[str]) -> None:
    calls = Calls()
    add_execution(calls, args, env)
    assert [call.arguments[0] for call in calls] == tried
    assert [bool(call.harmless) for call in calls] == [True] * (len(tried) - 1) + [False]
