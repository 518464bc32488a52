"""What the kernel means when it refuses something of a control group: errno(3) in words, with a way out."""

from __future__ import annotations

from errno import E2BIG, EACCES, EBUSY, EINVAL, ENODEV, ENOENT, ENOSPC, EOPNOTSUPP, EPERM, ERANGE, EROFS, ESRCH

from cloudlab.containers.calls import Argument, Call, CallError, Words
from cloudlab.containers.cgroup_calls import ROOT
from cloudlab.errors import MachineError

# (error, end of the file's name) -> problem, way out; the first that fits. Sources: cgroup-v2.rst, cgroup-v1/{memory,cpusets}.rst
_MEANINGS = (
    (EBUSY, "cgroup.subtree_control", "it has processes of its own, so it can't hand controllers to groups below it",
     "move its processes into a group below it first: in v2 processes belong in the leaves"),
    (EBUSY, "cgroup.procs", "it hands controllers to groups below it, so it can't have processes of its own",
     "add them to a group below it: in v2 processes belong in the leaves"),
    (EOPNOTSUPP, "cgroup.procs", "it is not a group that takes processes now", "look at its cgroup.type"),
    (ENOSPC, "cgroup.procs", "its cpuset has no CPUs or no memory nodes", 'limit(cpuset="0", cpuset_mems="0") first'),
    (ESRCH, "cgroup.procs", "there is no such process", "it may have ended: look at ps"),
    (EINVAL, "cgroup.procs", "that process can't be moved: it is a thread of the kernel's, or no number", "choose another"),
    (EBUSY, "limit_in_bytes", "more memory is in use than that, and can't be taken away", "kill something, or allow more"),
    (EINVAL, "cfs_quota_us", "the kernel refuses that quota: in v1 a group can't have more than the one above it",
     "allow the one above more first"),
    (ENODEV, "io.max", "there is no such device",
     "lsblk shows the numbers (MAJ:MIN) of disks; a partition has no limit of its own"),
    (ENODEV, "_device", "there is no such device",
     "lsblk shows the numbers (MAJ:MIN) of disks; a partition has no limit of its own"),
    (EINVAL, "memsw.limit_in_bytes", "memory and swap together can't be less than memory", "allow more swap"),
    (EACCES, "cpuset.cpus", "the group above it does not have these CPUs", "choose from those of cpuset.cpus of the group above"),
    (ERANGE, "cpuset.cpus", "the computer does not have these CPUs", "lscpu shows which there are"),
    (EINVAL, "cpuset.cpus", "the computer, or the group above, does not have these CPUs", "lscpu shows which there are"),
    (ENOENT, "cgroup.subtree_control", "the group above has not all these controllers", "look at its cgroup.controllers"),
    (ENOENT, "bfq.weight", "this kernel has no weights for disks in v1: they came with the scheduler BFQ",
     "limit rates instead, with io="),
    (EINVAL, "", "the kernel refuses that value", "see files() for what is there now"),
    (ERANGE, "", "the kernel refuses that value: out of range", "see files() for what is there now"),
    (E2BIG, "", "the kernel refuses that value: too long", "see files() for what is there now"),
    (EPERM, "", "that is not permitted to this user", "root may"),
    (EACCES, "", "that is not permitted to this user", "root may"),
    (EROFS, "", "control groups are mounted read-only here", "do it outside of the container"),
)  # fmt: skip


def explained(error: CallError, path: str) -> MachineError:
    """Return the error of a call in words: which group, which file, why, and what to do; with the call as strace(1) writes it."""
    file = file_of(error.outcome.call)
    problem, hint = _meaning(error.errno, file)
    where = file.removeprefix(ROOT) or path
    said = f"control group {path}: {problem} ({where}: {error.outcome.error})"
    found = MachineError(error.machine, said, command=_shown(error.outcome.call), output=error.output, hint=hint)
    found.__cause__ = error
    return found


def _meaning(number: int, file: str) -> tuple[str, str]:
    for each, ending, problem, hint in _MEANINGS:
        if each == number and file.endswith(ending):
            return problem, hint
    if number == ENOENT:
        last = file.rpartition("/")[2]
        if "." in last:
            return (
                f"this kernel has no {last} here",
                "its controller is not enabled, or not built in: look at controllers",
            )
        return "there is no such group", "create() it"
    return "the kernel refuses", ""


def file_of(call: Call) -> str:
    """Return the path of the file that a call is about: its own, or that of the open(2) whose descriptor it has."""
    first: Argument = call.arguments[0] if call.arguments else ""
    while isinstance(first, Call):
        first = first.arguments[0] if first.arguments else ""
    return first.text if isinstance(first, Words) else first if isinstance(first, str) else ""


def _shown(call: Call) -> str:
    return f"{call} of {file_of(call)}" if file_of(call) and not isinstance(call.arguments[0], str) else str(call)
