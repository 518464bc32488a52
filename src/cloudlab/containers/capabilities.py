"""Capabilities: the power of root in 41 parts, and the calls that give a process only some of them (capabilities(7)).

Root in a container is root of the same kernel as outside. What keeps it from acting like it is, first of all, what it lacks here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from enum import IntEnum
from errno import EINVAL

from cloudlab.containers.calls import Calls, Place
from cloudlab.containers.syscalls import Prctl
from cloudlab.errors import UsageError

_KEPT = {
    "CAP_CHOWN": "change the owner of files: package managers and start scripts give files to the user of a service",
    "CAP_DAC_OVERRIDE": "read and write any file whatever its mode: root expects it; the mount namespace says which there are",
    "CAP_FOWNER": "do to others' files what only an owner may, such as chmod: installing software needs it",
    "CAP_FSETID": "keep the set-user-ID bit of a file that is changed: tar and package managers unpack such files",
    "CAP_KILL": "signal processes of other users: the first process stops its children; the PID namespace says which there are",
    "CAP_SETGID": "change the group: a service begins as root and goes on as its own group",
    "CAP_SETUID": "change the user: a service begins as root and goes on as its own user",
    "CAP_SETPCAP": "take capabilities out of the bounding set: so a program in the container can give up still more",
    "CAP_NET_BIND_SERVICE": "listen on ports below 1024: a web server on port 80, in a network namespace of its own",
    "CAP_NET_RAW": "send packets made by hand: ping; it also allows forged ARP answers to containers on the same bridge",
    "CAP_SYS_CHROOT": "change the root directory: services lock themselves in; it leads no higher than the container's own root",
    "CAP_MKNOD": "make device files: image builds do; the device controller of the cgroup says which can then be opened",
    "CAP_AUDIT_WRITE": "write records to the kernel's audit log: login programs and sshd do",
    "CAP_SETFCAP": "put capabilities on files: packages do; what such a file gives is limited by the bounding set",
}
_DROPPED = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at(2) opens any file of the host's disk by its inode number, past the mount namespace",
    "CAP_LINUX_IMMUTABLE": "chattr +i on a shared volume: not even the host's root can delete the file until it finds out why",
    "CAP_NET_BROADCAST": "nothing: no kernel code asks for it; it is dropped because nobody needs it",
    "CAP_NET_ADMIN": "change addresses, routes and firewall rules; with the host's network: read and redirect its traffic",
    "CAP_IPC_LOCK": "lock memory without limit, so that the host can't move it to swap and runs out for everybody else",
    "CAP_IPC_OWNER": "read and write the shared memory of every user in the same IPC namespace, on the host's if that is shared",
    "CAP_SYS_MODULE": "load a kernel module: code of one's own choice in the kernel, and nothing above it is left",
    "CAP_SYS_RAWIO": "read and write I/O ports and raw disks: the host's memory and disks, past every file's mode",
    "CAP_SYS_PTRACE": "with the host's PID namespace: attach to one of its processes as a debugger does, and run code in it",
    "CAP_SYS_PACCT": "acct(2) switches process accounting on or off for the whole kernel, and so hides what ran",
    "CAP_SYS_ADMIN": "mount the host's disk, enter other namespaces, write a release_agent of cgroup v1 that the host runs as root",
    "CAP_SYS_BOOT": "reboot(2) and kexec_load(2): restart the host, or start a kernel of one's own in its place",
    "CAP_SYS_NICE": "real-time priority for a busy loop: the host's own processes get no CPU any more",
    "CAP_SYS_RESOURCE": "raise one's own resource limits and disk quotas: a fork bomb that ulimit does not stop",
    "CAP_SYS_TIME": "set the clock, which is one for all: certificates expire, logs lie, time-outs fire",
    "CAP_SYS_TTY_CONFIG": "vhangup(2) on a terminal of the host: whoever types there is thrown out",
    "CAP_LEASE": "take leases on others' files in a shared volume: whoever opens one has to wait",
    "CAP_AUDIT_CONTROL": "switch the kernel's audit log off before doing what it would have recorded",
    "CAP_MAC_OVERRIDE": "pass over the policy of Smack, a mandatory access control of the host",
    "CAP_MAC_ADMIN": "change the policy of mandatory access control (Smack, AppArmor): unlock the second lock from inside",
    "CAP_SYSLOG": "read kernel addresses in /proc/kallsyms and the kernel's log: a map for attacks on the kernel",
    "CAP_WAKE_ALARM": "set timers that wake a sleeping host",
    "CAP_BLOCK_SUSPEND": "keep the host from going to sleep",
    "CAP_AUDIT_READ": "listen to the audit log: what every process of the host is recorded to do",
    "CAP_PERFMON": "measure other processes and the kernel from inside: keys leak through timing and sampled addresses",
    "CAP_BPF": "load BPF programs into the kernel: its verifier then is all that stands before the kernel's memory",
    "CAP_CHECKPOINT_RESTORE": "choose process numbers, and read links in /proc/PID/map_files: what other processes have open",
}
_WORDS = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
    NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
    SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
    MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""  # in the order of their numbers: include/uapi/linux/capability.h of Linux 6.1
NAMES = tuple(f"CAP_{word}" for word in _WORDS.split())
NUMBERS = {name: number for number, name in enumerate(NAMES)}
DEFAULT = tuple(_KEPT)
DEFAULT_SETS: Mapping[str, tuple[str, ...]] = {
    "bounding": DEFAULT,
    "effective": DEFAULT,
    "inheritable": (),  # else a file with inheritable capabilities would give them to any user of the container
    "permitted": DEFAULT,
    "ambient": (),
}
SETS = {
    "inheritable": "CapInh",
    "permitted": "CapPrm",
    "effective": "CapEff",
    "bounding": "CapBnd",
    "ambient": "CapAmb",
}
_VERSION_3 = 0x20080522  # of capset(2): two structures of 32 bits a set, for 64 capabilities
_WITHIN = (
    ("effective", "permitted"),
    ("inheritable", "bounding"),
    ("ambient", "permitted"),
    ("ambient", "inheritable"),
)


class _Ambient(IntEnum):
    RAISE = 2
    CLEAR_ALL = 4


def explain(name: str) -> str:
    """Say in a line what a capability allows, and why a container has it, or what an escape with it would look like."""
    mask_of([name])
    return f"{name} is kept: {_KEPT[name]}." if name in _KEPT else f"{name} is dropped. With it: {_DROPPED[name]}."


def names_in(mask: int) -> tuple[str, ...]:
    """Return the names of the capabilities in a mask such as /proc/PID/status shows; newer ones than ours by number: CAP_41."""
    return tuple(
        NAMES[bit] if bit < len(NAMES) else f"CAP_{bit}" for bit in range(mask.bit_length()) if mask >> bit & 1
    )


def mask_of(names: Iterable[str]) -> int:
    """Return the mask with a bit for each name; "ALL" stands for all 41. Raises `UsageError` for a name that is none."""
    mask = 0
    for name in [names] if isinstance(names, str) else names:
        if name != "ALL" and name not in NUMBERS:
            raise _unknown(name)
        mask |= (1 << len(NAMES)) - 1 if name == "ALL" else 1 << NUMBERS[name]
    return mask


def _unknown(name: object) -> UsageError:
    wanted = "CAP_" + str(name).upper().removeprefix("CAP_")
    near = get_close_matches(wanted, NAMES, 4) or ["the names in capabilities(7)"]
    return UsageError(f"There is no capability {name!r}.", allowed=", ".join([*near, "ALL"]), example='"CAP_NET_ADMIN"')


def of(place: Place, pid: int) -> dict[str, tuple[str, ...]]:
    """Return the five sets of a running process, from /proc/PID/status (proc(5)). Raises `UsageError` if there is none."""
    result = place.run(["cat", f"/proc/{int(pid)}/status"])
    if not result.ok:
        raise UsageError(f"There is no process {pid} on {place.name}.", allowed="a number that ps shows", example="1")
    return sets_in(result.stdout)


def sets_in(status: str) -> dict[str, tuple[str, ...]]:
    """Read the five sets out of the text of /proc/PID/status: lines such as CapEff, a mask in hexadecimal."""
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return {name: names_in(int(fields[field], 16)) for name, field in SETS.items()}


def add_bounding(calls: Calls, sets: Mapping[str, tuple[str, ...]]) -> None:
    """Add: take out of the bounding set all that is not in sets["bounding"]; no executed program gets these again.

    Needs CAP_SETPCAP, so it comes before `add_sets`. EINVAL: the kernel is older than the capability.
    """
    _check(sets)
    kept = mask_of(sets.get("bounding", ()))
    for number in range(len(NAMES)):
        if not kept >> number & 1:
            calls.call("prctl", Prctl.CAPBSET_DROP, number, 0, 0, 0, harmless=[EINVAL])


def add_sets(calls: Calls, sets: Mapping[str, tuple[str, ...]]) -> None:
    """Add: take on the effective, permitted and inheritable sets by capset(2), then the ambient one by prctl(2).

    A set that is not named is empty, as in an OCI bundle. Raises `UsageError` for sets that the kernel would refuse.
    """
    _check(sets)
    header = struct.pack("<Ii", _VERSION_3, 0)
    masks = [mask_of(sets.get(name, ())) for name in ("effective", "permitted", "inheritable")]
    low, high = ([mask >> shift & 0xFFFFFFFF for mask in masks] for shift in (0, 32))
    calls.call("capset", header, struct.pack("<6I", *low, *high))
    calls.call("prctl", Prctl.CAP_AMBIENT, _Ambient.CLEAR_ALL, 0, 0, 0)
    for name in names_in(mask_of(sets.get("ambient", ()))):
        calls.call("prctl", Prctl.CAP_AMBIENT, _Ambient.RAISE, NUMBERS[name], 0, 0)


def _check(sets: Mapping[str, tuple[str, ...]]) -> None:
    for name in sets:
        if name not in SETS:
            raise UsageError(
                f"{name!r} is no set of capabilities.", allowed=", ".join(SETS), example='{"bounding": ["CAP_KILL"]}'
            )
    for small, large in _WITHIN:
        beyond = mask_of(sets.get(small, ())) & ~mask_of(sets.get(large, ()))
        if beyond and (large != "bounding" or large in sets):
            raise UsageError(
                f"{', '.join(names_in(beyond))}: in the {small} set, but not in the {large} one.",
                allowed=f"a {small} set within the {large} one (capabilities(7))",
            )
