"""Who a container's process is: its limits, its user, its powers, and the filter of its system calls."""

from __future__ import annotations

from collections.abc import Mapping
from errno import EPERM
from typing import Any

from cloudlab.containers import capabilities, seccomp
from cloudlab.containers.bundle import Process
from cloudlab.containers.calls import Calls, Struct
from cloudlab.containers.syscalls import Prctl


def add_identity(init: Calls, process: Process, filters: Mapping[str, Any] | None) -> None:
    """Add: limits, directory, user, capabilities, no new privileges, the filter of system calls; in an order that allows each."""
    user = process.user
    for limit in process.rlimits:
        init.call("prlimit64", 0, limit.number, Struct((limit.soft, limit.hard)), 0)
    init.call("chdir", process.cwd)  # as root: it is where the user begins, be it hers or not
    capabilities.add_bounding(init, process.capabilities)
    if not process.no_new_privileges and filters:
        seccomp.add(init, filters)  # while there is the right to: it takes CAP_SYS_ADMIN, or no_new_privs
    groups = b"".join(group.to_bytes(4, "little") for group in user.groups)
    init.call("setgroups", len(user.groups), groups, harmless=[EPERM])
    init.call("setresgid", user.gid, user.gid, user.gid)
    init.call("prctl", Prctl.SET_KEEPCAPS, 1)
    init.call("setresuid", user.uid, user.uid, user.uid)
    init.call("umask", 0o022 if user.umask is None else user.umask)
    capabilities.add_sets(init, process.capabilities)
    if process.no_new_privileges:
        init.call("prctl", Prctl.SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if filters:
            seccomp.add(init, filters)
