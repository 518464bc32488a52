"""From a few words to a config.json: the defaults are the safe ones, and each wish changes what it should and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from cloudlab.containers import bundle, capabilities, seccomp
from cloudlab.containers.specification import ID_BASE, ID_COUNT, Volume, Wishes, configuration, process_of
from cloudlab.errors import UsageError


def config(**wishes: Any) -> dict[str, Any]:
    return configuration(Wishes(**{"command": ["sh"], **wishes}), "/c/rootfs")


def kinds(found: dict[str, Any]) -> set[str]:
    return {each["type"] for each in found["linux"]["namespaces"]}


def mounts(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["destination"]: each for each in found["mounts"]}


@pytest.mark.parametrize(
    "wishes",
    [
        {},
        {"privileged": True},
        {"userns": False},
        {"network": "host"},
        {"network": "host", "privileged": True},
        {"user": "7:8", "memory": "32M", "cpus": 0.5, "cpuset": "0", "cpu_weight": 10, "pids": None},
        {"volumes": [Volume("/a", "/b")], "hosts_file": "/h", "labels": {"a": "b"}, "hostname": "box", "seccomp": None},
    ],
)
def test_what_it_writes_is_a_config_that_can_be_read(wishes: dict[str, Any]) -> None:
    assert bundle.read(config(**wishes)).process.args == ("sh",)


# --- the defaults -----------------------------------------------------------------------------------------------


def test_nothing_is_shared_with_the_host_if_nobody_says_so() -> None:
    assert kinds(config()) == {"pid", "network", "ipc", "uts", "mount", "cgroup", "user"}
    assert config()["root"] == {"path": "/c/rootfs", "readonly": True}
    assert not [mount for mount in config()["mounts"] if mount["type"] == "bind"]


def test_root_inside_is_nobody_outside() -> None:
    (mapping,) = config()["linux"]["uidMappings"]
    assert mapping == {"containerID": 0, "hostID": ID_BASE, "size": ID_COUNT}
    assert config()["linux"]["gidMappings"] == [mapping]
    assert ID_BASE >= 65_536


def test_few_capabilities_a_filter_and_no_new_privileges() -> None:
    process = config()["process"]
    assert process["noNewPrivileges"]
    assert set(process["capabilities"]["bounding"]) == set(capabilities.DEFAULT)
    assert not {"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_PTRACE"} & set(capabilities.DEFAULT)
    assert process["capabilities"]["ambient"] == process["capabilities"]["inheritable"] == []
    assert {"mount", "unshare", "keyctl", "bpf", "init_module"} <= set(seccomp.denied(config()["linux"]["seccomp"]))


def test_the_kernels_own_files_are_hidden_or_read_only() -> None:
    assert {"/proc/kcore", "/sys/firmware"} <= set(config()["linux"]["maskedPaths"])
    assert {"/proc/sys", "/proc/sysrq-trigger"} <= set(config()["linux"]["readonlyPaths"])
    assert "ro" in mounts(config())["/sys"]["options"]
    assert "ro" in mounts(config())["/sys/fs/cgroup"]["options"]
    assert all("nosuid" in mount["options"] for mount in config()["mounts"])


def test_processes_are_limited_in_number() -> None:
    assert config()["linux"]["resources"] == {"pids": {"limit": 512}}


# --- wishes -----------------------------------------------------------------------------------------------------


def test_limits_are_written_as_control_groups_want_them() -> None:
    found = config(memory="32M", cpus=0.5, cpuset="0-1", cpu_weight=200, pids=20)["linux"]["resources"]
    assert found["memory"] == {"limit": 32 << 20, "swap": 32 << 20}
    assert found["cpu"] == {"quota": 50_000, "period": 100_000, "shares": 200, "cpus": "0-1"}
    assert found["pids"] == {"limit": 20}
    assert config(pids=None)["linux"]["resources"] == {}


@pytest.mark.parametrize(("user", "uid", "gid"), [("0", 0, 0), ("7", 7, 7), ("7:8", 7, 8), ("0:8", 0, 8)])
def test_a_user_may_have_a_group(user: str, uid: int, gid: int) -> None:
    assert config(user=user)["process"]["user"] == {"uid": uid, "gid": gid}


def test_who_is_not_root_has_no_capabilities_to_use() -> None:
    sets = config(user="7")["process"]["capabilities"]
    assert sets["effective"] == sets["permitted"] == sets["ambient"] == []


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (["NET_RAW"], [], {*capabilities.DEFAULT, "CAP_NET_RAW"}),
        (["net_admin", "CAP_SYS_TIME"], [], {*capabilities.DEFAULT, "CAP_NET_ADMIN", "CAP_SYS_TIME"}),
        ([], ["CHOWN"], {*capabilities.DEFAULT} - {"CAP_CHOWN"}),
        ([], ["ALL"], set()),
        (["CHOWN"], ["ALL"], {"CAP_CHOWN"}),
        (["ALL"], [], set(capabilities.NAMES)),
        (["ALL"], ["SYS_ADMIN"], set(capabilities.NAMES) - {"CAP_SYS_ADMIN"}),
        (["CHOWN"], ["CHOWN"], set(capabilities.DEFAULT)),
    ],
)
def test_capabilities_are_added_and_dropped_as_docker_does(add: list[str], drop: list[str], expected: set[str]) -> None:
    sets = config(add_capabilities=add, drop_capabilities=drop)["process"]["capabilities"]
    assert set(sets["bounding"]) == set(sets["effective"]) == expected


def test_privileged_takes_all_walls_away() -> None:
    found = config(privileged=True)
    assert "user" not in kinds(found)
    assert set(found["process"]["capabilities"]["effective"]) == set(capabilities.NAMES)
    assert not found["process"]["noNewPrivileges"]
    assert found["linux"]["maskedPaths"] == found["linux"]["readonlyPaths"] == []
    assert "seccomp" not in found["linux"]


def test_the_hosts_network_leaves_the_other_walls_standing() -> None:
    assert kinds(config(network="host")) == kinds(config()) - {"network"}


@pytest.mark.parametrize(
    ("more", "kind"), [({}, "tmpfs"), ({"userns": False}, "sysfs"), ({"privileged": True}, "sysfs")]
)
def test_sysfs_is_mounted_where_the_network_namespace_belongs_to_the_containers_user(
    more: dict[str, Any], kind: str
) -> None:
    assert mounts(config(network="host", **more))["/sys"]["type"] == kind
    assert mounts(config(**more))["/sys"]["type"] == "sysfs"


def test_volumes_are_bound_read_only_if_so_wished() -> None:
    found = mounts(config(volumes=[Volume("/srv/a", "/a"), Volume("/srv/b", "/b", read_only=True)]))
    assert (found["/a"]["source"], "ro" in found["/a"]["options"]) == ("/srv/a", False)
    assert (found["/b"]["source"], "ro" in found["/b"]["options"]) == ("/srv/b", True)


def test_the_environment_has_what_programs_look_for_and_what_is_wished() -> None:
    found = dict(
        each.split("=", 1) for each in config(env={"A": "b=c", "TERM": "dumb"}, hostname="box")["process"]["env"]
    )
    assert found["A"] == "b=c"
    assert found["TERM"] == "dumb"
    assert found["HOSTNAME"] == "box"
    assert found["PATH"].endswith("/bin")


def test_another_process_of_the_same_container_has_its_limits() -> None:
    wishes = Wishes(command=["sh"], user="7", drop_capabilities=["ALL"])
    other = process_of(wishes, ["ps"], cwd="/tmp")
    assert other["args"] == ["ps"]
    assert other["cwd"] == "/tmp"
    assert other["capabilities"] == configuration(wishes, "/")["process"]["capabilities"]
    assert other["user"] == {"uid": 7, "gid": 7}


# --- what can't be ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wishes", "about"),
    [
        ({"command": []}, "command"),
        ({"command": "sleep 60"}, "command"),
        ({"user": "root"}, "user"),
        ({"user": ""}, "user"),
        ({"user": "-1"}, "user"),
        ({"user": "²"}, "user"),
        ({"user": "65536"}, "user"),
        ({"user": "7:"}, "group"),
        ({"user": "7:wheel"}, "group"),
        ({"user": "7:8:9"}, "group"),
        ({"directory": "srv"}, "'srv'"),
        ({"volumes": [Volume("data", "/data")]}, "'data'"),
        ({"volumes": [Volume("/data", "data")]}, "'data'"),
        ({"cpus": 0}, "cpus"),
        ({"cpus": -1}, "cpus"),
        ({"cpus": float("nan")}, "cpus"),
        ({"cpus": 65}, "cpus"),
        ({"memory": "much"}, "much"),
        ({"add_capabilities": ["MOON"]}, "MOON"),
        ({"drop_capabilities": ["MOON"]}, "MOON"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_with_what_can(wishes: dict[str, Any], about: str) -> None:
    with pytest.raises(UsageError, match=about):
        config(**wishes)
