"""From a few words (image, command, memory="32M") to a whole config.json: what a container is if nobody says otherwise.

The defaults are the safe ones: its own user, PID, mount, network, IPC, host-name and control-group namespaces, root without
power outside, few capabilities, a filter of system calls, no new privileges, a read-only root, nothing of the host to be seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from cloudlab.containers import capabilities, seccomp
from cloudlab.errors import UsageError
from cloudlab.units import parse_size

ID_BASE, ID_COUNT = 100_000, 65_536  # root in a container is user 100000 outside, which owns nothing there: subuid(5)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MASKED = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
          "/proc/timer_stats", "/sys/firmware")  # fmt: skip
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_QUOTA_PERIOD_US = 100_000
_KINDS = ("pid", "network", "ipc", "uts", "mount", "cgroup")


@dataclass(frozen=True)
class Volume:
    """A directory or file of the guest that a container sees too; what it writes there stays."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Wishes:
    """What is asked of a container; whatever is not said has a safe default.

    `cpus` is a quota (0.5 of one CPU), `memory` bytes or "32M", `pids` the most processes at once. `user` is "uid" or "uid:gid".
    `writable` lets it write in its root (else only in /tmp and volumes); `userns=False` makes its root the guest's root;
    `privileged` takes all walls of security away, as docker's --privileged does.
    """

    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    directory: str = "/"
    user: str = "0"
    hostname: str = ""
    cpus: float | None = None
    cpu_weight: int | None = None
    cpuset: str = ""
    memory: int | str | None = None
    pids: int | None = 512
    volumes: Sequence[Volume] = ()
    writable: bool = False
    userns: bool = True
    privileged: bool = False
    add_capabilities: Sequence[str] = ()
    drop_capabilities: Sequence[str] = ()
    seccomp: Mapping[str, Any] | None = field(default_factory=lambda: seccomp.DEFAULT_PROFILE)
    network: str = "bridge"
    hosts_file: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def configuration(wishes: Wishes, root: str) -> dict[str, Any]:
    """Return the config.json (OCI runtime specification 1.1) that says it all. Raises `UsageError` for what can't be."""
    _check(wishes)
    kinds = [kind for kind in _KINDS if kind != "network" or wishes.network != "host"]
    userns = _in_user_namespace(wishes)
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in [*kinds, *(["user"] if userns else [])]],
        "resources": _resources(wishes),
        "maskedPaths": [] if wishes.privileged else list(MASKED),
        "readonlyPaths": [] if wishes.privileged else list(READ_ONLY),
    }
    if userns:
        mapping = [{"containerID": 0, "hostID": ID_BASE, "size": ID_COUNT}]
        linux |= {"uidMappings": mapping, "gidMappings": mapping}
    if wishes.seccomp and not wishes.privileged:
        linux["seccomp"] = dict(wishes.seccomp)
    return {
        "ociVersion": "1.1.0",
        "process": _process(wishes),
        "root": {"path": root, "readonly": not wishes.writable},
        "hostname": wishes.hostname,
        "mounts": _mounts(wishes),
        "linux": linux,
        "annotations": dict(wishes.labels),
    }


def _in_user_namespace(wishes: Wishes) -> bool:
    return wishes.userns and not wishes.privileged


def process_of(wishes: Wishes, command: Sequence[str], **more: Any) -> dict[str, Any]:
    """Return what config.json says of a process that is executed in such a container, with another command."""
    return _process(wishes) | {"args": list(command)} | more


def _process(wishes: Wishes) -> dict[str, Any]:
    uid, _, gid = wishes.user.partition(":")
    environment = {
        "PATH": PATH,
        "HOME": "/root" if uid == "0" else "/",
        "HOSTNAME": wishes.hostname,
        "TERM": "vt220",
        **wishes.env,
    }
    process: dict[str, Any] = {
        "terminal": False,
        "user": {"uid": int(uid), "gid": int(gid or uid)},
        "args": list(wishes.command),
        "env": [f"{key}={value}" for key, value in environment.items()],
        "cwd": wishes.directory,
        "noNewPrivileges": not wishes.privileged,
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 4096, "soft": 1024}],
    }
    kept = _capabilities(wishes)
    powers = kept if uid == "0" else []  # who is not root has none to use, and can gain none
    process["capabilities"] = {
        "bounding": kept,
        "permitted": powers,
        "effective": powers,
        "inheritable": [],
        "ambient": [],
    }
    return process


def _capabilities(wishes: Wishes) -> list[str]:
    if wishes.privileged:
        return list(capabilities.NAMES)
    added, dropped = (set(map(_full_name, names)) for names in (wishes.add_capabilities, wishes.drop_capabilities))
    if "CAP_ALL" in added:
        chosen = set(capabilities.NAMES) - dropped
    elif "CAP_ALL" in dropped:
        chosen = added  # as docker has it: drop all but these
    else:
        chosen = set(capabilities.DEFAULT) - dropped | added
    return sorted(chosen, key=capabilities.NAMES.index)


def _full_name(name: str) -> str:
    full = "CAP_" + name.upper().removeprefix("CAP_")
    if full != "CAP_ALL" and full not in capabilities.NAMES:
        raise UsageError(
            f"There is no capability {name!r}.",
            allowed="those of capabilities(7), or ALL",
            example='add_capabilities=["NET_RAW"]',
        )
    return full


def _resources(wishes: Wishes) -> dict[str, Any]:
    resources: dict[str, Any] = {}
    cpu: dict[str, Any] = {}
    if wishes.cpus is not None:
        cpu |= {"quota": round(wishes.cpus * _QUOTA_PERIOD_US), "period": _QUOTA_PERIOD_US}
    if wishes.cpu_weight is not None:
        cpu["shares"] = wishes.cpu_weight
    if wishes.cpuset:
        cpu["cpus"] = wishes.cpuset
    if cpu:
        resources["cpu"] = cpu
    if wishes.memory is not None:
        size = parse_size(wishes.memory)
        resources["memory"] = {"limit": size, "swap": size}
    if wishes.pids is not None:
        resources["pids"] = {"limit": wishes.pids}
    return resources


def _mounts(wishes: Wishes) -> list[dict[str, Any]]:
    plain = ["nosuid", "noexec", "nodev"]
    # Who shares the host's network, and has no power over it, can have no sysfs of its own; nor what lies in it.
    sysfs = wishes.network != "host" or not _in_user_namespace(wishes)
    mounts = [
        _mount("/proc", "proc", plain),
        _mount("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=64k"]),
        _mount("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        _mount("/dev/shm", "tmpfs", [*plain, "mode=1777", "size=16m"]),
        _mount("/dev/mqueue", "mqueue", plain),
        _mount("/sys", "sysfs" if sysfs else "tmpfs", [*plain, "ro"]),
        *([_mount("/sys/fs/cgroup", "cgroup", [*plain, "relatime", "ro"])] if sysfs else []),
        _mount("/tmp", "tmpfs", ["nosuid", "nodev", "mode=1777", "size=16m"]),
    ]
    if wishes.hosts_file:
        mounts.append(
            {"destination": "/etc/hosts", "type": "bind", "source": wishes.hosts_file, "options": ["bind", "ro"]}
        )
    for volume in wishes.volumes:
        options = ["rbind", "ro" if volume.read_only else "rw"]
        mounts.append({"destination": volume.target, "type": "bind", "source": volume.source, "options": options})
    return mounts


def _mount(target: str, kind: str, options: list[str]) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": kind, "options": options}


def _check(wishes: Wishes) -> None:
    if not wishes.command or isinstance(wishes.command, str):
        raise UsageError(
            f"{wishes.command!r} is not a command for a container.",
            allowed="a list of words",
            example='command=["sleep", "60"]',
        )
    uid, *gid = wishes.user.split(":", 1)
    for what, number in (("user", uid), *(("group", each) for each in gid)):
        if not (number.isascii() and number.isdecimal()) or int(number) >= ID_COUNT:
            raise UsageError(
                f"user={wishes.user!r}: {number!r} is not the number of a {what}.",
                allowed=f"0 to {ID_COUNT - 1}",
                example='user="1000:1000"',
            )
    for path in (wishes.directory, *(each for volume in wishes.volumes for each in (volume.source, volume.target))):
        if not PurePosixPath(path).is_absolute():
            raise UsageError(
                f"{path!r} is not a path in a guest.",
                allowed="one that begins with /",
                example='Volume("/srv/data", "/data")',
            )
    if wishes.cpus is not None and not 0.01 <= wishes.cpus <= 64:
        raise UsageError(f"cpus={wishes.cpus!r} is no share of CPUs.", allowed="0.01 to 64", example="cpus=0.5")
