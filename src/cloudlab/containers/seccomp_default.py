"""The profile of our containers: all calls but those that reach past a container's walls, each with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from errno import ENOSYS, EPERM
from typing import Any

from cloudlab.containers.bpf import HALF
from cloudlab.containers.syscalls import Clone

_DENIED = {
    "create_module init_module finit_module delete_module get_kernel_syms query_module": "kernel modules: code of one's own there",
    "kexec_load kexec_file_load reboot": "another kernel in place of the host's, or none",
    "mount umount2 pivot_root": "mounts: what is where decides what a path leads to",
    "open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr": "mounts, by the new interface",
    "unshare setns": "namespaces: in a new user namespace one is root again, for much kernel code that only root reaches",
    "sethostname setdomainname": "names of the host, where there is no UTS namespace",
    "add_key request_key keyctl": "keyrings: the kernel's keys know no namespace",
    "bpf perf_event_open lookup_dcookie": "programs in the kernel, and measuring it",
    "io_uring_setup io_uring_enter io_uring_register": "io_uring: a second way to have calls made, which no filter sees",
    "userfaultfd": "page faults handled by a program: they stop the kernel where an exploit wants it to stop",
    "kcmp pidfd_getfd process_madvise": "looking into other processes, as ptrace does",
    "settimeofday clock_settime": "the clock: there is one for all",
    "swapon swapoff": "swap space: the host's",
    "acct quotactl quotactl_fd": "accounting and quotas: the host's",
    "iopl ioperm": "I/O ports: devices, past the kernel",
    "mbind get_mempolicy set_mempolicy set_mempolicy_home_node migrate_pages move_pages": "memory by node: slows others down",
    "open_by_handle_at fanotify_init": "files by handle, or all of a mount watched: past the mount namespace",
    "syslog": "the kernel's log: a map for attacks on it",
    "vhangup": "terminals of others",
    "uselib ustat sysfs _sysctl nfsservctl getpmsg putpmsg afs_syscall tuxcall security vserver":
        "obsolete: nobody calls them, and nobody looks for holes in them",
}  # fmt: skip
_EPERM = {"action": "SCMP_ACT_ERRNO", "errnoRet": EPERM}
_NEW_NAMESPACES = [Clone.NEWNS, Clone.NEWCGROUP, Clone.NEWUTS, Clone.NEWIPC, Clone.NEWUSER, Clone.NEWPID, Clone.NEWNET]
_AF_VSOCK = 40  # a socket's family is 32 bits: a test of all 64 could be evaded
_PERSONALITIES = 0x20008


def _masked(name: str, comment: str, mask: int, value: int) -> dict[str, Any]:
    condition = {"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": mask, "valueTwo": value}
    return {"names": [name], **_EPERM, "args": [condition], "comment": comment}


DEFAULT_PROFILE: Mapping[str, Any] = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64"],
    "unknownErrnoRet": ENOSYS,
    "syscalls": [
        *({"names": names.split(), **_EPERM, "comment": reason} for names, reason in _DENIED.items()),
        *(_masked("clone", f"a new namespace ({flag.name})", int(flag), int(flag)) for flag in _NEW_NAMESPACES),
        {
            "names": ["clone3"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": ENOSYS,
            "comment": "its flags are behind a pointer, where no filter sees them; if it is unknown, the C library takes clone",
        },
        _masked("socket", "AF_VSOCK: a line to the hypervisor, past every network namespace", HALF, _AF_VSOCK),
        {
            "names": ["personality"],
            **_EPERM,
            "args": [{"index": 0, "op": "SCMP_CMP_GT", "value": _PERSONALITIES}],
            "comment": "other personalities: memory at known addresses, and code paths that nobody tests",
        },
    ],
}
