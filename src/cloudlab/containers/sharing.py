"""What no namespace isolates: measured, not told."""

from __future__ import annotations

from dataclasses import dataclass

from cloudlab.containers.calls import Place
from cloudlab.containers.entering import create, enter
from cloudlab.containers.kinds import KINDS
from cloudlab.errors import MachineError
from cloudlab.machines.result import Result

_DAY_S = 86400
_PREPARE = "hostname inside; umount -l /sys; mount -t sysfs sysfs /sys; "  # a sysfs shows the cards of who mounts it
_TIME, _CLOSE_S = "time of day (seconds since 1970)", 60
_PROBES = {
    "kernel release": "uname -r",
    _TIME: "date +%s",
    "memory of the computer": "grep MemTotal /proc/meminfo",
    "processors": "grep -c ^processor /proc/cpuinfo",
    "boot id": "cat /proc/sys/kernel/random/boot_id",
    "kernel.panic": "cat /proc/sys/kernel/panic",
    "vm.overcommit_memory": "cat /proc/sys/vm/overcommit_memory",
    "first line of the kernel's log": "dmesg | head -n 1",
    "kernel modules": "wc -l < /proc/modules",
    "host name": "cat /proc/sys/kernel/hostname",
    "processes that are seen": "ls /proc | grep -c '^[0-9]'",
    "days since boot": f"awk '{{print int($1 / {_DAY_S})}}' /proc/uptime",
    "network cards": "ls /sys/class/net | wc -l",
}


@dataclass(frozen=True)
class Shared:
    """One thing, as it reads outside and in new namespaces of all kinds; `shared`: it is the same."""

    what: str
    outside: str
    inside: str
    shared: bool


def not_isolated(place: Place) -> list[Shared]:
    """Measure what processes in new namespaces (of all kinds but user) share with those outside, and for contrast what not."""
    kinds = [kind for kind in KINDS if kind != "user"]
    script = "; ".join(f"({probe}) 2>&1 | tr '\\n' ' '; echo" for probe in _PROBES.values())
    outside = place.run(["/bin/sh", "-c", script])
    pid = create(place, kinds, ["sleep", "600"], offsets_s={"boottime": _DAY_S})
    try:
        inside = enter(place, pid, kinds).run(_PREPARE + script)
    finally:
        place.run(["kill", "-KILL", str(pid)])
    return shared_of(outside, inside)


def shared_of(outside: Result, inside: Result) -> list[Shared]:
    """Compare what the probes read, a line each."""
    read = [[line.strip() for line in result.stdout.splitlines()] for result in (outside, inside)]
    for result, lines in zip((outside, inside), read, strict=True):
        if len(lines) != len(_PROBES):
            raise MachineError(
                "probes", "not all could be read", command=result.command, output=result.stderr + result.stdout
            )
    return [Shared(what, a, b, _same(what, a, b)) for what, a, b in zip(_PROBES, *read, strict=True)]


def _same(what: str, a: str, b: str) -> bool:
    if what == _TIME:  # the two were not read in the same second
        return abs(int(a) - int(b)) < _CLOSE_S
    return a == b
