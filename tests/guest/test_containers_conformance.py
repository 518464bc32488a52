"""The same OCI bundles run by our runtime and by crun, in one guest: what the container sees, prints and ends with is the same."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest

from cloudlab import Machine, MachineError, UsageError
from cloudlab.containers.calls import PROGRAM, Answer, Calls, Room, program
from cloudlab.containers.runtime import Runtime

pytestmark = pytest.mark.guest
Config = dict[str, Any]

# --- bundles ----------------------------------------------------------------------------------------------------

PROBE = """
echo "-- directory"; pwd
echo "-- environment"; env
echo "-- process"; read -r line < /proc/$$/stat; echo "$$ $line"
echo "-- namespaces"; ls -l /proc/self/ns
echo "-- files"; ls /proc/self/fd
echo "-- devices"; ls -ln /dev
echo "-- name"; uname -n
cd /proc; tail -n +1 self/status self/limits self/mountinfo self/cgroup self/oom_score_adj sys/kernel/domainname
"""
CGROUP_FILES = "memory.max memory.swap.max memory.low memory.high pids.max cpu.max cpu.weight cpuset.cpus"
_PLAIN = ["nosuid", "noexec", "nodev"]
_POWERS = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_SETS = ("bounding", "effective", "permitted")


def mount(target: str, kind: str, *options: str, source: str = "") -> Config:
    return {"destination": target, "type": kind, "source": source or kind, "options": list(options)}


def kinds(*names: str, **paths: str) -> list[Config]:
    return [{"type": name} for name in names] + [{"type": name, "path": path} for name, path in paths.items()]


_ALL = ("pid", "network", "ipc", "uts", "mount", "cgroup")
_BASE: Config = {  # what `crun spec` writes, but for the terminal
    "ociVersion": "1.0.0",
    "process": {
        "user": {"uid": 0, "gid": 0},
        "args": ["sh", "-c", PROBE],
        "env": ["PATH=/usr/local/bin:/bin", "TERM=xterm", "HOME=/root"],
        "cwd": "/",
        "capabilities": {**dict.fromkeys(_SETS, _POWERS), "inheritable": [], "ambient": []},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512}],
        "noNewPrivileges": True,
    },
    "root": {"path": "rootfs", "readonly": False},
    "hostname": "box",
    "mounts": [
        mount("/proc", "proc"),
        mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
        mount("/dev/shm", "tmpfs", *_PLAIN, "mode=1777", "size=65536k", source="shm"),
        mount("/dev/mqueue", "mqueue", *_PLAIN),
        mount("/sys", "sysfs", *_PLAIN, "ro"),
        mount("/sys/fs/cgroup", "cgroup", *_PLAIN, "relatime", "ro"),
    ],
    "linux": {"namespaces": kinds(*_ALL)},
}
_MAPPED = [{"containerID": 0, "hostID": 100_000, "size": 65_536}]
_USERNS = {"linux.namespaces": kinds(*_ALL, "user"), "linux.uidMappings": _MAPPED, "linux.gidMappings": _MAPPED}


def seccomp(action: str, *syscalls: Config, **more: Any) -> Config:
    return {"defaultAction": action, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": list(syscalls), **more}


def rule(action: str, *names: str, **more: Any) -> Config:
    return {"names": list(names), "action": action, **more}


def hook(kind: str, script: str, **more: Any) -> Config:
    place = "/bin/sh"
    return {"path": place, "args": ["sh", "-c", script], "env": ["PATH=/bin"], **more}


@dataclass(frozen=True)
class Case:
    """One bundle: what in config.json differs from `_BASE` (by path; with + behind it: added to a list), and what to compare.

    `setup` is done in the bundle's directory before, `after` afterwards: what it prints is compared too.
    """

    name: str
    change: Mapping[str, Any] = field(default_factory=dict)
    setup: str = ""
    after: str = ""
    refused: bool = False
    status: int | None = 0

    @property
    def container(self) -> str:
        return self.name.lower()

    def config(self, directory: str) -> Config:
        config = deepcopy(_BASE)
        for path, value in self.change.items():
            *parents, key = path.removesuffix("+").split(".")
            place = config
            for parent in parents:
                place = place.setdefault(parent, {})
            if path.endswith("+"):
                place[key] = [*place.get(key, []), *value]
            elif value is None:
                place.pop(key, None)
            else:
                place[key] = value
        return json.loads(json.dumps(config).replace("$BUNDLE", directory))  # type: ignore[no-any-return]


def sh(script: str) -> Config:
    """A script in place of the probe."""
    return {"process.args": ["sh", "-c", script]}


def user(uid: int, gid: int = 0, **more: Any) -> Config:
    return {"process.user": {"uid": uid, "gid": gid, **more}}


def without(*kinds_: str) -> Config:
    return {"linux.namespaces": kinds(*(kind for kind in _ALL if kind not in kinds_))}


def powers(*names: str, **sets: list[str]) -> Config:
    return {"process.capabilities": {**dict.fromkeys(_SETS, names), **sets}}


def resources(**more: Any) -> Config:
    return {
        "linux.resources": more,
        **sh(f"cd /sys/fs/cgroup; for f in {CGROUP_FILES}; do echo $f $(cat $f 2>/dev/null); done"),
    }


_OWNED = "chown -R 100000:100000 rootfs"
_FEW = """
    execve read write openat open close exit exit_group brk mmap munmap arch_prctl set_tid_address rt_sigaction
    rt_sigprocmask rt_sigreturn getuid geteuid getgid getegid getpid getppid fcntl dup dup2 dup3 fstat stat newfstatat
    lstat ioctl prlimit64 mprotect readlink getrandom set_robust_list rseq uname prctl getcwd wait4 fork vfork clone
"""
_READER = Calls()  # busybox gives up what it gets as a setuid program: so one of ours reads what only root can
_opened = _READER.call("open", "/secret", 0, harmless=None)
_read = _READER.call("read", _opened, Room(6), 6, harmless=None)
_READER.call("write", 1, Answer(_read), 6)
_SETUID = f"""
echo secret > rootfs/secret; chmod 600 rootfs/secret
cp {PROGRAM} rootfs/bin/reader; chmod 4755 rootfs/bin/reader
echo {b64encode(program(_READER, "f")).decode()} | base64 -d > rootfs/etc/calls
"""
_HOOKED = r"""
for place in . rootfs; do
  cat $place/said $place/where 2>/dev/null
  cat $place/state 2>/dev/null | tr -d ' \n' | grep -o '"pid":[1-9]\|"id":"[a-zA-Z-]*"\|"bundle"' | sort
done
"""
_MKDIR = sh("mkdir /tmp/a; echo $?")
_CHMOD = sh("chmod 700 /srv; echo $?")
_TOO_MUCH = {"linux.resources": {"memory": {"limit": 8 << 20, "swap": 8 << 20}}}

CASES = [
    Case("plain"),
    Case("env", {"process.env": ["PATH=/bin", "HOME=/", "A=1", "EMPTY=", "SPACE=a b", "A=2", "WORD"]}),
    Case("env-none", {"process.env": None, "process.args": ["/bin/sh", "-c", PROBE]}),
    Case("cwd", {"process.cwd": "/srv/data"}, setup="mkdir -p rootfs/srv/data"),
    Case("cwd-missing", {"process.cwd": "/srv/missing"}, after="ls -ln rootfs | grep srv | cut -c1-10"),
    Case("cwd-of-another-user", {"process.cwd": "/srv", **user(1000)}, setup="mkdir -m 700 rootfs/srv"),
    Case("user", user(1000, 1001)),
    Case("user-with-groups", user(1000, 1001, additionalGids=[5, 6, 70000])),
    Case("umask", user(0, umask=0o77)),
    Case("hostname-none", {"hostname": None}),
    Case("domainname", {"domainname": "example.test"}),
    Case(
        "read-only-root",
        {"root.readonly": True, **sh("touch /x; echo $?; mkdir /tmp/y; echo $?; : > /dev/shm/z; echo $?")},
    ),
    Case("tmpfs", {"mounts+": [mount("/scratch", "tmpfs", "size=1m", "mode=0700", "noexec")]}),
    Case(
        "bind-directory",
        {
            "mounts+": [mount("/data", "bind", "bind", source="$BUNDLE/data")],
            **sh("ls /data; echo new > /data/new; grep /data /proc/mounts | cut -d' ' -f2,4 | cut -c1-8"),
        },
        setup="mkdir data; echo 1 > data/one",
        after="cat data/new",
    ),
    Case(
        "bind-read-only",
        {"mounts+": [mount("/data", "bind", "bind", "ro", "nosuid", source="$BUNDLE/data")]},
        setup="mkdir data",
    ),
    Case(
        "bind-file",
        {
            "mounts+": [mount("/etc/deep/file", "none", "bind", "ro", source="$BUNDLE/file")],
            **sh("cat /etc/deep/file; echo x > /etc/deep/file"),
        },
        setup="echo text > file",
        status=1,
    ),
    Case(
        "bind-relative",
        {"mounts+": [mount("/data", "bind", "bind", source="data")], **sh("cat /data/one")},
        setup="mkdir data; echo 1 > data/one",
    ),
    Case(
        "rbind-with-submount",
        {"mounts+": [mount("/data", "bind", "rbind", source="$BUNDLE/data")]},
        setup="mkdir -p data/sub; mount -t tmpfs sub data/sub",
        after="umount data/sub",
    ),
    Case(
        "bind-without-submount",
        {"mounts+": [mount("/data", "bind", "bind", source="$BUNDLE/data")]},
        setup="mkdir -p data/sub; mount -t tmpfs sub data/sub",
        after="umount data/sub",
    ),
    Case(
        "propagation",
        {
            "linux.rootfsPropagation": "slave",
            "mounts+": [
                mount("/data", "bind", "rbind", "rslave", source="$BUNDLE/data"),
                mount("/more", "bind", "rbind", "rprivate", source="$BUNDLE/data"),
            ],
        },
        setup="mkdir data; mount --bind data data; mount --make-shared data",
        after="umount data",
    ),
    Case("rootfs-shared", {"linux.rootfsPropagation": "shared"}),
    Case(
        "mount-behind-a-link",
        {"mounts+": [mount("/link/data", "tmpfs")], **sh("ls -d /target/data; cut -d' ' -f2 /proc/mounts | grep data")},
        setup="mkdir rootfs/target; ln -s /target rootfs/link; rm -rf /target",
        after="ls -d /target",
    ),
    Case("no-proc", {"mounts": [mount("/dev", "tmpfs")], **sh("ls /proc | wc -l; ls /dev")}),
    Case("no-mounts", {"mounts": [], **sh("ls /dev; ls /proc | wc -l")}),
    Case("proc-read-only", {"mounts": [mount("/proc", "proc", "ro", *_PLAIN), mount("/dev", "tmpfs")]}),
    Case(
        "masked", {"linux.maskedPaths": ["/proc/acpi", "/proc/kcore", "/sys/firmware", "/proc/missing", "/none/such"]}
    ),
    Case(
        "masked-by-the-hosts-null",
        {
            "linux.maskedPaths": ["/srv/a"],
            "mounts": [mount("/proc", "proc")],
            **sh("cat /srv/a; echo x > /srv/a"),
        },
        setup="mkdir rootfs/srv; echo a > rootfs/srv/a; echo b > rootfs/etc/b; ln -s /etc/b rootfs/dev/null",
        after="cat rootfs/etc/b rootfs/srv/a",
        status=None,
    ),
    Case(
        "masked-is-empty",
        {
            "linux.maskedPaths": ["/proc/kcore", "/sys/kernel", "/srv"],
            **sh("cat /proc/kcore; ls /sys/kernel; ls -a /srv; echo > /srv/x"),
        },
        setup="mkdir rootfs/srv; : > rootfs/srv/a",
        status=1,
    ),
    Case(
        "read-only-paths",
        {"linux.readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger", "/proc/missing", "/none/such", "/srv"]},
        setup="mkdir rootfs/srv",
    ),
    Case(
        "devices",
        {
            "linux.devices": [
                {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o600, "uid": 3, "gid": 4},
                {"path": "/dev/disk", "type": "b", "major": 7, "minor": 300},
                {"path": "/dev/deep/pipe", "type": "p", "fileMode": 0o640},
                {"path": "/srv/null", "type": "u", "major": 1, "minor": 3},
            ],
            **sh("ls -ln /dev/fuse /dev/disk /dev/deep/pipe /srv/null | awk '{print $1,$3,$4,$5,$6,$NF}'"),
        },
        setup="mkdir rootfs/srv",
    ),
    Case(
        "devices-of-their-own-mode",
        {"linux.devices": [{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600}]},
    ),
    Case(
        "rlimits",
        {
            "process.rlimits": [
                {"type": f"RLIMIT_{name}", "soft": soft, "hard": soft + 5}
                for name, soft in (
                    ("CORE", 0),
                    ("NPROC", 50),
                    ("STACK", 1 << 22),
                    ("AS", 1 << 30),
                    ("NICE", 3),
                    ("RTTIME", 77),
                    ("MSGQUEUE", 5000),
                )
            ]
        },
    ),
    Case("capabilities-not-given", {"process.capabilities": None}),
    Case("capabilities-empty", {"process.capabilities": {}}),
    Case("capabilities-some", powers("CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE")),
    Case("capabilities-user", {**powers("CAP_CHOWN"), **user(1000)}),
    Case(
        "capabilities-ambient-user",
        {**powers("CAP_CHOWN", "CAP_KILL", inheritable=["CAP_CHOWN"], ambient=["CAP_CHOWN"]), **user(1000)},
    ),
    Case(
        "capabilities-ambient-works",
        {
            **powers("CAP_CHOWN", inheritable=["CAP_CHOWN"], ambient=["CAP_CHOWN"]),
            **user(1000),
            **sh("chown 7 /srv && ls -lnd /srv | cut -c1-20; kill -0 1"),
        },
        setup="mkdir rootfs/srv",
    ),
    Case(
        "no-new-privileges",
        {**user(1000), **sh("/bin/reader < /etc/calls; grep NoNew /proc/self/status")},
        setup=_SETUID,
    ),
    Case(
        "new-privileges",
        {"process.noNewPrivileges": False, **user(1000), **sh("/bin/reader < /etc/calls")},
        setup=_SETUID,
    ),
    Case(
        "seccomp-errno",
        {
            "linux.seccomp": seccomp("SCMP_ACT_ALLOW", rule("SCMP_ACT_ERRNO", "mkdir", "mkdirat")),
            **sh("mkdir /tmp/a; echo $?; grep Seccomp: /proc/self/status"),
        },
    ),
    Case(
        "seccomp-default-errno",
        {
            "linux.seccomp": seccomp("SCMP_ACT_ERRNO", rule("SCMP_ACT_ALLOW", *_FEW.split()), defaultErrnoRet=38),
            **_CHMOD,
        },
        setup="mkdir rootfs/srv",
    ),
    Case(
        "seccomp-kill",
        {"linux.seccomp": seccomp("SCMP_ACT_ALLOW", rule("SCMP_ACT_KILL_PROCESS", "chmod", "fchmodat")), **_CHMOD},
        setup="mkdir rootfs/srv",
    ),
    Case(
        "seccomp-kill-init",
        {
            "linux.seccomp": seccomp("SCMP_ACT_ALLOW", rule("SCMP_ACT_KILL", "chmod", "fchmodat")),
            "process.args": ["chmod", "700", "/srv"],
        },
        setup="mkdir rootfs/srv",
        status=159,
    ),
    Case(
        "seccomp-args",
        {
            "linux.seccomp": seccomp(
                "SCMP_ACT_ALLOW", rule("SCMP_ACT_ERRNO", "kill", args=[{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}])
            ),
            **sh("trap '' USR1 USR2; kill -USR2 $$; echo $?; kill -USR1 $$; echo $?"),
        },
    ),
    Case(
        "seccomp-unknown-names",
        {
            "linux.seccomp": seccomp(
                "SCMP_ACT_ALLOW", rule("SCMP_ACT_ERRNO", "mkdir", "no_such_call", "arm_sync_file_range")
            ),
            **_MKDIR,
        },
    ),
    Case(
        "seccomp-without-no-new-privileges",
        {"process.noNewPrivileges": False, "linux.seccomp": seccomp("SCMP_ACT_ALLOW", rule("SCMP_ACT_ERRNO", "mkdir"))},
    ),
    Case(
        "seccomp-of-a-user",
        {
            "process.noNewPrivileges": False,
            **user(1000),
            "linux.seccomp": seccomp("SCMP_ACT_ALLOW", rule("SCMP_ACT_ERRNO", "mkdir")),
        },
    ),
    Case("user-namespace", _USERNS, setup=_OWNED),
    Case(
        "user-namespace-maps",
        {
            **_USERNS,
            **sh(
                "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; : > /x; ls -ln /x | cut -c1-30; echo > /dev/null"
            ),
        },
        setup=_OWNED,
        after="ls -ln rootfs/x | cut -c1-30",
    ),
    Case(
        "user-namespace-capabilities",
        {
            **_USERNS,
            **powers("CAP_SYS_ADMIN", "CAP_CHOWN"),
            **sh("hostname other; hostname; mount -t tmpfs x /tmp; echo $?; cat /proc/self/uid_map"),
        },
        setup=_OWNED,
    ),
    *(
        Case(f"host-{kind}", {**without(kind), **({"hostname": None} if kind == "uts" else {})})
        for kind in ("pid", "ipc", "network", "uts")
    ),
    Case("host-cgroup", {**without("cgroup"), "linux.cgroupsPath": "/given/here"}),
    Case(
        "joined",
        {
            "linux.namespaces": kinds("pid", "mount", "cgroup", "ipc", network="$BUNDLE/net", uts="$BUNDLE/uts"),
            "hostname": None,
            **sh("ip addr show dev lo | grep inet; uname -n"),
        },
        setup=": > net; : > uts; unshare --net=net ip link set lo up; unshare --uts=uts hostname joined",
        after="umount net uts",
    ),
    Case(
        "joined-is-none", {"linux.namespaces": kinds("pid", "mount", "ipc", "uts", network="/etc/passwd")}, refused=True
    ),
    Case(
        "sysctl",
        {
            "linux.sysctl": {
                "net.ipv4.ip_forward": "1",
                "net.ipv4.ip_unprivileged_port_start": "80",
                "kernel.shmmax": "123456",
            },
            **sh(
                "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax"
            ),
        },
    ),
    Case("sysctl-of-the-host", {"linux.sysctl": {"vm.swappiness": "1"}}, refused=True),
    Case(
        "sysctl-of-the-hosts-network",
        {**without("network"), "linux.sysctl": {"net.ipv4.ip_forward": "1"}},
        refused=True,
    ),
    Case("sysctl-missing", {"linux.sysctl": {"net.ipv4.no_such_thing": "1"}}, refused=True),
    Case("memory", resources(memory={"limit": 32 << 20, "swap": 32 << 20, "reservation": 16 << 20})),
    Case("memory-runs-out", {**_TOO_MUCH, **sh("tail /dev/zero; echo $?")}),
    Case("memory-runs-out-init", {**_TOO_MUCH, "process.args": ["tail", "/dev/zero"]}, status=137),
    Case("pids", resources(pids={"limit": 20})),
    Case(
        "pids-run-out",
        {"linux.resources": {"pids": {"limit": 4}}, **sh("for i in 1 2 3 4 5 6; do sleep 9 & done; wait")},
        status=2,
    ),
    Case("cpu", resources(cpu={"quota": 50_000, "period": 200_000, "shares": 512, "cpus": "0"})),
    Case("unified", resources(unified={"memory.high": "20000000", "cpu.weight": "77"})),
    Case("oom-score", {"process.oomScoreAdj": 321}),
    Case("cgroups-path", {"linux.cgroupsPath": "/given/there", **sh("cat /proc/self/cgroup; exec sleep 0")}),
    Case(
        "annotations",
        {"annotations": {"a.b/c": "1", "d": ""}, "hooks.createRuntime": [hook("createRuntime", "cat > $BUNDLE/state")]},
        after="tr ',' '\\n' < state | grep -o '\"[ad][.b/c]*\" *: *\"[^\"]*\"' | tr -d ' '",
    ),
    *(
        Case(
            f"hook-{kind}",
            {
                f"hooks.{kind}": [
                    hook(kind, f"cat > {place}/state; echo $0 $# $PATH > {place}/said; pwd > {place}/where"),
                    hook(kind, f"echo second >> {place}/said"),
                ],
                "process.args": ["sh", "-c", "ls /said; cat /said"],
            },
            after=_HOOKED,
            status=None,
        )
        for kind in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
        for place in ["" if kind == "startContainer" else "$BUNDLE"]
    ),
    *(
        Case(
            f"hook-fails-{kind}",
            {f"hooks.{kind}": [hook(kind, "exit 3")], **sh(": > /ran")},
            after="ls rootfs/ran",
            refused=True,
        )
        for kind in ("prestart", "createRuntime", "createContainer", "startContainer")
    ),
    Case(
        "hook-fails-poststop",
        {"hooks.poststop": [hook("poststop", "exit 3"), hook("poststop", ": > $BUNDLE/second")], **sh("echo ran")},
        after="ls second",
    ),
    Case(
        "hook-timeout",
        {"hooks.createRuntime": [hook("createRuntime", "exec sleep 30", timeout=1)], **sh("echo ran")},
        refused=True,
    ),
    Case(
        "hook-in-the-containers-namespaces",
        {
            "hooks.createContainer": [
                hook("createContainer", "for n in mnt uts net; do readlink /proc/self/ns/$n; done > $BUNDLE/ns")
            ],
            **sh("true"),
        },
        after="for n in mnt uts net; do grep -c $(readlink /proc/self/ns/$n) ns; done",
    ),
    *(Case(f"exit-{status}", sh(f"exit {status}"), status=status) for status in (3,)),
    Case("exit-127-of-a-shell", sh("missing-program"), status=127),
    Case("exit-126-of-a-shell", sh("/etc"), status=126),
    Case("program-missing", {"process.args": ["missing-program"]}, refused=True),
    Case(
        "program-not-executable", {"process.args": ["/etc/text"]}, setup="echo echo hi > rootfs/etc/text", refused=True
    ),
    Case("program-relative", {"process.args": ["bin/sh", "-c", "echo $0"]}),
    Case(
        "program-along-path",
        {"process.args": ["prog"], "process.env": ["PATH=/none:/etc:/opt:/bin"]},
        setup="mkdir rootfs/opt; : > rootfs/etc/prog; printf '#!/bin/sh\\necho 1\\n' > rootfs/opt/prog; chmod 755 rootfs/opt/prog",
    ),
    Case("killed", {**without("pid"), **sh("kill -TERM $$")}, status=143),
    Case("signal-to-pid-1", sh("kill -TERM $$; echo alive")),
    Case("large-output", sh("seq 1 20000; seq 1 15000 >&2")),
    Case("output-is-binary", sh(r"printf '\001\377\000\r\n'")),
    Case("stdin-is-empty", sh("wc -c; cat")),
    Case("children-are-left", sh("sleep 60 & echo done")),
    Case(
        "arguments",
        {"process.args": ["sh", "-c", 'for a; do echo "[$a]"; done', "sh", "a b", "", "*", "'", "ü", "$HOME"]},
    ),
    Case("wrong-no-args", {"process.args": []}, refused=True),
    Case("wrong-relative-cwd", {"process.cwd": "srv"}, setup="mkdir rootfs/srv", refused=True),
    Case("wrong-namespace", {"linux.namespaces": kinds("pid", "mount", "moon")}, refused=True),
    Case("wrong-namespace-twice", {"linux.namespaces": kinds("pid", "mount", "pid")}, refused=True),
    Case("wrong-hostname-without-uts", without("uts"), refused=True),
    Case("wrong-version", {"ociVersion": "0.1"}, refused=True),
    Case("wrong-root-missing", {"root": None}, refused=True),
    Case("wrong-root-is-no-directory", {"root.path": "nothing"}, refused=True),
    Case("wrong-mount-type", {"mounts+": [mount("/x", "moonfs")]}, refused=True),
    Case("wrong-mount-source", {"mounts+": [mount("/x", "bind", "bind", source="$BUNDLE/nothing")]}, refused=True),
    Case("wrong-mapping-without-namespace", {"linux.uidMappings": _MAPPED, "linux.gidMappings": _MAPPED}, refused=True),
    Case("wrong-namespace-without-mapping", {"linux.namespaces": kinds(*_ALL, "user")}, refused=True),
    Case("wrong-rlimit", {"process.rlimits": [{"type": "RLIMIT_MOON", "soft": 1, "hard": 1}]}, refused=True),
    Case(
        "wrong-rlimit-soft-above-hard",
        {"process.rlimits": [{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 8}]},
        refused=True,
    ),
    Case("wrong-capability", powers("CAP_MOON"), refused=True),
    Case("wrong-device-type", {"linux.devices": [{"path": "/dev/x", "type": "z"}]}, refused=True),
    Case("wrong-propagation", {"linux.rootfsPropagation": "moon"}, refused=True),
    Case("wrong-resource", {"linux.resources": {"memory": {"limit": "much"}}}, refused=True),
]

# Where we differ on purpose: each of them is refused by one or the other, or differs in what is named here.
OURS_REFUSES = {
    "wrong-relative-cwd": "the specification wants an absolute path; crun 1.8 takes it from /",
    "wrong-mapping-without-namespace": "ids are mapped in a user namespace only; crun passes over what then has no effect",
    "wrong-namespace-without-mapping": "an empty map makes everybody nobody; crun makes up a map that config.json does not have",
    "wrong-capability": "specification 1.0 wants an error, 1.1 a warning; a learner's typing error is better told than run",
    "wrong-device-type": "the specification knows c, b, u and p; crun 1.8 passes over others",
    "wrong-propagation": "the specification knows four kinds; crun 1.8 passes over others",
    "wrong-resource": "a limit is a number; crun 1.8 takes a word for 0, and then for none",
}
ANOTHER = {
    "env-none": (
        "environment",
        "crun adds HOME out of the image's passwd; the specification has it from config.json only",
    ),
}

# --- what is compared -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """What came of a bundle: None as exit status says that the runtime refused it."""

    status: int | None
    stdout: str
    stderr: str
    after: str
    error: str = ""


def sections(printed: str) -> dict[str, list[str]]:
    """What stands below each title: the probe's own ("-- files"), and those of tail(1) ("==> self/limits <==")."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"^(?:-- |==> )", printed, flags=re.MULTILINE)[1:]:
        title, *lines = part.splitlines()
        found[title.removesuffix(" <==")] = [line for line in lines if line]
    return found


def _mounts(lines: list[str]) -> list[Any]:
    found = []
    for line in lines:
        before, after = line.split(" - ")
        _, _, _, _, target, flags, *tags = before.split()
        kind, _, options = after.split()
        kept = sorted({"ro", "nosuid", "nodev", "noexec", "relatime", "noatime"} & set(flags.split(",")))
        size = sorted(option for option in options.split(",") if option.split("=")[0] in ("size", "mode", "ptmxmode"))
        found.append(
            (target, kind, kept, size if kind in ("tmpfs", "devpts") else [], [tag.split(":")[0] for tag in tags])
        )
    return sorted(found)


def _status(lines: list[str]) -> list[str]:
    names = [
        "Umask",
        "Uid",
        "Gid",
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "SigBlk",
        "SigIgn",
    ]
    return [line.strip() for line in lines if line.split(":")[0] in names]


def _devices(lines: list[str]) -> list[str]:
    fields = [line.split() for line in lines]
    return [" ".join([*f[:1], *f[2:4], *(f[4:6] if f[0][0] in "cb" else []), f[-1]]) for f in fields if len(f) > 5]


def _process(lines: list[str]) -> list[Any]:
    shell, pid, _, _, parent, group, session = lines[0].replace("(sh)", "sh").split()[:7]
    return [shell == "1", pid == shell, parent == "0", group == pid, session == pid]


def facets(ran: Ran, host: Mapping[str, str]) -> dict[str, Any]:
    """What is compared: all that was printed, or, of the probe, each of its sections without what never is the same."""
    found = sections(ran.stdout)
    if not found:
        return {"status": ran.status, "stdout": ran.stdout, "stderr": ran.stderr, "after": ran.after}
    links = {line.split()[-3]: line.split()[-1] for line in found.pop("namespaces") if "->" in line}
    return {
        "status": ran.status,
        "stderr": ran.stderr,
        "after": ran.after,
        "namespaces": {kind: "host's" if link == host[kind] else "own" for kind, link in links.items()},
        "mounts": _mounts(found.pop("self/mountinfo", [])),
        "capabilities": _status(found.pop("self/status", [])),
        "devices": _devices(found.pop("devices")),
        "process": _process(found.pop("process")) if "process" in found else [],
        **found,
    }


# --- how they are run -------------------------------------------------------------------------------------------

WHO = ("ours", "crun")

TEMPLATE = """
mkdir -p /c/rootfs/bin /c/rootfs/proc /c/rootfs/sys /c/rootfs/dev /c/rootfs/tmp /c/rootfs/etc
cp $(which busybox) /c/rootfs/bin
for a in sh ls cat env uname grep cut wc head tail seq sleep chmod chown mkdir touch hostname mount awk ip id; do
  ln -s busybox /c/rootfs/bin/$a
done
"""


@pytest.fixture(scope="module")
def host(n1: Machine) -> dict[str, str]:
    n1.succeed("sh", input=TEMPLATE)
    lines = n1.succeed("ls -l /proc/self/ns").splitlines()
    return {line.split()[-3]: line.split()[-1] for line in lines if "->" in line}


def prepare(n1: Machine, case: Case) -> None:
    """Make the bundle twice, alike, one for each."""
    each = (
        f"mkdir -p /c/{{0}}/{case.name}; cd /c/{{0}}/{case.name}; cp -al /c/rootfs rootfs; cat > config.json <<'END'\n{{1}}\nEND\n"
        f"{{{{ {case.setup or ':'}\n}}}} > /dev/null"
    )
    n1.succeed("sh", input="\n".join(each.format(who, json.dumps(case.config(f"/c/{who}/{case.name}"))) for who in WHO))


def afterwards(n1: Machine, case: Case, who: str) -> str:
    directory = f"/c/{who}/{case.name}"
    return (
        n1.run(f"cd {directory}; {{ {case.after}\n}} 2>&1").stdout.replace(directory, "$BUNDLE") if case.after else ""
    )


def by_us(n1: Machine, runtime: Runtime, case: Case) -> Ran:
    directory = f"/c/ours/{case.name}"
    try:
        runtime.create(case.container, case.config(directory), directory=directory, start=True)
        status = runtime.wait(case.container)
        log = runtime.log(case.container)
        runtime.delete(case.container)
    except (UsageError, MachineError) as error:
        return Ran(None, "", "", afterwards(n1, case, "ours"), str(error))
    return Ran(status, printed(log, b"stdout"), printed(log, b"stderr"), afterwards(n1, case, "ours"))


def printed(log: bytes, stream: bytes) -> str:
    parts = [line.split(b" ", 3)[1:] for line in log.split(b"\n")[:-1]]
    return b"".join(text + (b"\n" if kind == b"F" else b"") for name, kind, text in parts if name == stream).decode(
        errors="replace"
    )


def by_crun(n1: Machine, case: Case) -> Ran:
    result = n1.run(["crun", "run", "-b", f"/c/crun/{case.name}", case.container])
    after = afterwards(n1, case, "crun")
    if case.refused and not result.ok and not result.stdout:
        return Ran(None, "", "", after, result.stderr)
    return Ran(result.exit_status, result.stdout, result.stderr, after)


@pytest.fixture(scope="module")
def runtime(n1: Machine) -> Iterator[Runtime]:
    runtime = Runtime(n1)
    yield runtime
    assert runtime.names() == []
    assert "/c/" not in n1.succeed("cat /proc/mounts")


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_bundle_runs_as_it_does_with_crun(n1: Machine, host: Mapping[str, str], runtime: Runtime, case: Case) -> None:
    prepare(n1, case)
    ours, theirs = by_us(n1, runtime, case), by_crun(n1, case)
    seen, wanted = facets(ours, host), facets(theirs, host)
    if case.refused:
        assert ours.status is None
    elif case.status is not None:
        assert ours.status == case.status
    if case.name in OURS_REFUSES:
        assert theirs.status == 0, "crun refuses it too: no difference to be known"
        return
    different, _ = ANOTHER.get(case.name, ("", ""))
    assert not different or seen.pop(different) != wanted.pop(different)
    assert seen == wanted, f"ours: {ours.error}; crun's: {theirs.error}"


def test_what_is_compared_is_there_and_tells_bundles_apart(
    n1: Machine, host: Mapping[str, str], runtime: Runtime
) -> None:
    plain = Case("self-test")
    other = Case(
        "self-test", {"process.rlimits": None, "mounts": plain.config("/")["mounts"][:2], **user(7, umask=0o77)}
    )
    found = []
    for case in (plain, other):
        prepare(n1, case)
        found.append(facets(by_us(n1, runtime, case), host))
        n1.succeed("rm -rf /c/ours/self-test /c/crun/self-test")
    assert {"self/limits", "self/cgroup", "self/oom_score_adj", "environment", "files", "name"} < set(found[0])
    assert all(value for facet, value in found[0].items() if facet not in ("status", "stderr", "after"))
    different = {facet for facet in found[0] if found[0][facet] != found[1][facet]}
    assert different >= {"mounts", "capabilities", "self/limits", "devices"}
