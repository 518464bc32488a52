"""config.json of an OCI bundle: what is read, and that each refusal names the place in it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from cloudlab.containers import bundle
from cloudlab.containers.bundle import NAMESPACES, Device, Hook, IdMapping, MountPoint, Rlimit, User
from cloudlab.containers.syscalls import Clone
from cloudlab.errors import UsageError

BASE: dict[str, Any] = {
    "ociVersion": "1.1.0",
    "process": {"args": ["sh"], "cwd": "/"},
    "root": {"path": "rootfs"},
    "linux": {"namespaces": [{"type": kind} for kind in ("mount", "pid", "uts", "ipc", "network")]},
}
_USER = [*BASE["linux"]["namespaces"], {"type": "user"}]
_MAPPED = [{"containerID": 0, "hostID": 100_000, "size": 65_536}]


def changed(**values: Any) -> dict[str, Any]:
    """The base with other values, by path: process__user__uid=7; None takes one away."""
    config = deepcopy(BASE)
    for path, value in values.items():
        *parents, key = path.split("__")
        place = config
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is None:
            place.pop(key, None)
        else:
            place[key] = value
    return config


# --- what is read -----------------------------------------------------------------------------------------------


def test_the_least_that_a_config_says_has_safe_defaults() -> None:
    read = bundle.read(BASE)
    assert read.process.args == ("sh",)
    assert read.process.user == User(0, 0, (), None)
    assert read.process.capabilities == {}
    assert (read.root, read.read_only_root, read.hostname, read.mounts) == ("rootfs", False, "", ())
    assert (read.seccomp, read.resources, read.cgroups_path, read.root_propagation) == (None, {}, "", "")


def test_a_process_is_read_whole() -> None:
    process = bundle.read(
        changed(
            process__env=["A=1"],
            process__user={"uid": 7, "gid": 8, "additionalGids": [9, 10], "umask": 0o77},
            process__capabilities={"bounding": ["CAP_CHOWN"], "effective": []},
            process__noNewPrivileges=True,
            process__rlimits=[{"type": "RLIMIT_NOFILE", "soft": 5, "hard": (1 << 64) - 1}],
            process__oomScoreAdj=-500,
        )
    ).process
    assert process.env == ("A=1",)
    assert process.user == User(7, 8, (9, 10), 0o77)
    assert process.capabilities == {"bounding": ("CAP_CHOWN",), "effective": ()}
    assert process.no_new_privileges
    assert process.rlimits == (Rlimit(7, 5, (1 << 64) - 1),)
    assert process.oom_score_adj == -500


def test_limits_have_the_numbers_of_getrlimit() -> None:
    assert [bundle.RLIMITS.index(f"RLIMIT_{name}") for name in ("CPU", "STACK", "NPROC", "NOFILE", "AS", "RTTIME")] == [
        0,
        3,
        6,
        7,
        9,
        15,
    ]


def test_linux_is_read_whole() -> None:
    read = bundle.read(
        changed(
            hostname="box",
            mounts=[{"destination": "/x", "type": "tmpfs", "source": "t", "options": ["ro"]}, {"destination": "/y"}],
            linux__devices=[
                {"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 4, "gid": 5}
            ],
            linux__namespaces=_USER,
            linux__uidMappings=_MAPPED,
            linux__gidMappings=_MAPPED,
            linux__maskedPaths=["/proc/kcore"],
            linux__readonlyPaths=["/proc/sys"],
            linux__rootfsPropagation="slave",
            linux__sysctl={"net.ipv4.ip_forward": "1", "kernel.shmmax": "1", "fs.mqueue.msg_max": "9"},
            hooks={"poststop": [{"path": "/bin/x", "args": ["x", "y"], "env": ["A=1"], "timeout": 5}]},
            annotations={"a": "b"},
        )
    )
    assert read.mounts == (MountPoint("/x", "tmpfs", "t", ("ro",)), MountPoint("/y", "none", "none", ()))
    assert read.devices == (Device("/dev/x", "c", 1, 3, 0o600, 4, 5),)
    assert read.uid_mappings == read.gid_mappings == (IdMapping(0, 100_000, 65_536),)
    assert read.hooks["poststop"] == (Hook("/bin/x", ("x", "y"), ("A=1",), 5.0),)
    assert (read.masked_paths, read.readonly_paths) == (("/proc/kcore",), ("/proc/sys",))
    assert (read.hostname, read.root_propagation, read.annotations) == ("box", "slave", {"a": "b"})
    assert len(read.sysctl) == 3


def test_new_namespaces_are_flags_and_those_to_join_are_paths() -> None:
    read = bundle.read(
        changed(linux__namespaces=[{"type": "mount"}, {"type": "pid"}, {"type": "network", "path": "/run/netns/a"}])
    )
    assert read.flags == Clone.NEWNS | Clone.NEWPID
    assert read.namespaces["network"] == "/run/netns/a"


def test_all_eight_kinds_of_namespaces_are_known() -> None:
    assert len(NAMESPACES) == len(set(NAMESPACES.values())) == 8


def test_what_is_null_is_as_if_it_were_not_there() -> None:
    assert bundle.read(changed() | {"mounts": None, "hooks": None, "annotations": None}) == bundle.read(BASE)


def test_lists_may_be_tuples_as_python_has_them() -> None:
    assert bundle.read(changed(process__args=("sh", "-c"))).process.args == ("sh", "-c")


# --- what is refused --------------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"ociVersion": None}, "ociVersion"),
    ({"ociVersion": "0.1"}, "ociVersion"),
    ({"ociVersion": 1}, "ociVersion"),
    ({"process": None}, "process"),
    ({"process": []}, "process"),
    ({"process__args": None}, "process.args"),
    ({"process__args": []}, "process.args"),
    ({"process__args": "sh"}, "process.args"),
    ({"process__args": ["sh", 1]}, "process.args[1]"),
    ({"process__args": ["sh", "a\0b"]}, "process.args[1]"),
    ({"process__env": ["A\0"]}, "process.env[0]"),
    ({"process__cwd": None}, "process.cwd"),
    ({"process__cwd": "here"}, "process.cwd"),
    ({"process__user__uid": "root"}, "process.user.uid"),
    ({"process__user__uid": -1}, "process.user.uid"),
    ({"process__user__uid": (1 << 32) - 1}, "process.user.uid"),
    ({"process__user__gid": True}, "process.user.gid"),
    ({"process__user__additionalGids": [1, -1]}, "process.user.additionalGids[1]"),
    ({"process__user__umask": "077"}, "process.user.umask"),
    ({"process__user__umask": 0o1000}, "process.user.umask"),
    ({"process__capabilities": ["CAP_CHOWN"]}, "process.capabilities"),
    ({"process__capabilities__bounding": "CAP_CHOWN"}, "process.capabilities.bounding"),
    ({"process__noNewPrivileges": "yes"}, "process.noNewPrivileges"),
    ({"process__rlimits": [{"type": "NOFILE", "soft": 1, "hard": 1}]}, "process.rlimits[0].type"),
    ({"process__rlimits": [{"type": "RLIMIT_CPU", "hard": 1}]}, "process.rlimits[0].soft"),
    ({"process__rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": -1}]}, "process.rlimits[0].hard"),
    ({"process__oomScoreAdj": 1001}, "process.oomScoreAdj"),
    ({"process__oomScoreAdj": "high"}, "process.oomScoreAdj"),
    ({"root": None}, "root"),
    ({"root__path": None}, "root.path"),
    ({"root__path": 3}, "root.path"),
    ({"root__readonly": 1}, "root.readonly"),
    ({"hostname": 3}, "hostname"),
    ({"hostname": "a\0b"}, "hostname"),
    ({"hostname": "box", "linux__namespaces": [{"type": "mount"}]}, "hostname"),
    ({"domainname": "box", "linux__namespaces": [{"type": "mount"}]}, "domainname"),
    ({"mounts": {}}, "mounts"),
    ({"mounts": [3]}, "mounts[0]"),
    ({"mounts": [{"destination": "x"}]}, "mounts[0].destination"),
    ({"mounts": [{"destination": "/x"}, {"type": "tmpfs"}]}, "mounts[1].destination"),
    ({"mounts": [{"destination": "/x", "options": "ro"}]}, "mounts[0].options"),
    ({"linux": []}, "linux"),
    ({"linux__namespaces": None}, "linux.namespaces"),
    ({"linux__namespaces": [{"type": "pid"}]}, "linux.namespaces"),
    ({"linux__namespaces": [{"type": "moon"}]}, "linux.namespaces[0].type"),
    ({"linux__namespaces": [{"type": "pid"}, {"type": "pid"}]}, "linux.namespaces[1].type"),
    ({"linux__namespaces": [{"type": "pid", "path": "x"}]}, "linux.namespaces[0].path"),
    ({"linux__namespaces": _USER}, "linux.uidMappings"),
    ({"linux__namespaces": _USER, "linux__uidMappings": _MAPPED}, "linux.gidMappings"),
    ({"linux__uidMappings": _MAPPED}, "linux.uidMappings"),
    (
        {
            "linux__namespaces": _USER,
            "linux__uidMappings": [{"containerID": 0, "hostID": 1, "size": 0}],
            "linux__gidMappings": _MAPPED,
        },
        "linux.uidMappings[0].size",
    ),
    (
        {"linux__namespaces": _USER, "linux__uidMappings": _MAPPED, "linux__gidMappings": [{"containerID": 0}]},
        "linux.gidMappings[0].hostID",
    ),
    ({"linux__devices": [{"path": "/dev/x", "type": "z"}]}, "linux.devices[0].type"),
    ({"linux__devices": [{"path": "dev/x", "type": "c"}]}, "linux.devices[0].path"),
    ({"linux__devices": [{"path": "/dev/x", "type": "c", "major": -1}]}, "linux.devices[0].major"),
    ({"linux__devices": [{"path": "/dev/x", "type": "c", "fileMode": 0o20666}]}, "linux.devices[0].fileMode"),
    ({"linux__resources": 3}, "linux.resources"),
    ({"linux__seccomp": "strict"}, "linux.seccomp"),
    ({"linux__maskedPaths": ["proc/kcore"]}, "linux.maskedPaths[0]"),
    ({"linux__readonlyPaths": ["/proc/sys", 4]}, "linux.readonlyPaths[1]"),
    ({"linux__rootfsPropagation": "moon"}, "linux.rootfsPropagation"),
    ({"linux__sysctl": {"net.ipv4.ip_forward": 1}}, "linux.sysctl"),
    ({"linux__sysctl": {"vm.swappiness": "1"}}, "linux.sysctl.vm.swappiness"),
    ({"linux__sysctl": {"kernel.panic": "1"}}, "linux.sysctl.kernel.panic"),
    ({"linux__sysctl": {"net./../vm.swappiness": "1"}}, "linux.sysctl.net./../vm.swappiness"),
    (
        {"linux__sysctl": {"net.ipv4.ip_forward": "1"}, "linux__namespaces": [{"type": "mount"}]},
        "linux.sysctl.net.ipv4.ip_forward",
    ),
    ({"linux__cgroupsPath": 3}, "linux.cgroupsPath"),
    ({"hooks": {"prestart": {}}}, "hooks.prestart"),
    ({"hooks": {"prestart": [{}]}}, "hooks.prestart[0].path"),
    ({"hooks": {"poststop": [{"path": "true"}]}}, "hooks.poststop[0].path"),
    ({"hooks": {"poststop": [{"path": "/bin/true", "timeout": 0}]}}, "hooks.poststop[0].timeout"),
    ({"annotations": {"a": 1}}, "annotations"),
]


@pytest.mark.parametrize(
    ("values", "place"), WRONG, ids=[f"{number}-{place}" for number, (_, place) in enumerate(WRONG)]
)
def test_what_is_wrong_is_refused_with_its_place(values: dict[str, Any], place: str) -> None:
    with pytest.raises(UsageError) as error:
        bundle.read(changed(**values))
    assert str(error.value).startswith(f"{place} of the bundle's config.json is ")
    assert "Allowed:" in str(error.value)


@pytest.mark.parametrize("config", [None, [], "{}", 3])
def test_a_config_that_is_no_object_is_refused(config: Any) -> None:
    with pytest.raises(UsageError, match=r"config\.json"):
        bundle.read(config)
