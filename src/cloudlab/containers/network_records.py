"""What a guest knows of its networks: looked at, and changed by scripts; and what a script's exit status means, in words."""

from __future__ import annotations

import time
from collections.abc import Callable

from cloudlab.containers.calls import Place
from cloudlab.containers.network_plan import Attachment, Seen, read
from cloudlab.containers.network_scripts import (
    CHANGED,
    DIRECTORY,
    EXISTS,
    FULL,
    GONE,
    NO_PROCESS,
    SAME_NAMESPACE,
    TAKEN,
)
from cloudlab.errors import MachineError, UsageError
from cloudlab.machines.result import Result

_DEADLINE_S = 60.0


class Records:
    """The files in a guest, as one network sees them. Errors of scripts are raised as what they mean for it."""

    def __init__(self, place: Place, network: str) -> None:
        self._place, self._network = place, network

    def look(self, more: str = "") -> tuple[Seen, str]:
        """Return what is known in the guest; and all that was printed, which has the output of the commands `more`."""
        printed = self.run(f"cd {DIRECTORY} 2>/dev/null && cat */network */containers/* 2>/dev/null\n{more}exit 0\n")
        return read(printed), printed

    def change(self, decide: Callable[[Seen, str], str], more: str = "") -> None:
        """Look, decide, act; and begin again if somebody else has changed something in between."""
        until = time.monotonic() + _DEADLINE_S
        while script := decide(*self.look(more)):
            result = self._place.run(["/bin/sh", "-c", script])
            if result.exit_status != CHANGED:
                self._check(result)
                return
            if time.monotonic() > until:
                raise MachineError(
                    self._place.name, f"network {self._network} is changed all the time: nothing was done"
                )

    def run(self, script: str, wanted: Attachment | None = None) -> str:
        """Run a script and return what it printed; `wanted` is the container that is to be attached."""
        result = self._place.run(["/bin/sh", "-c", script])
        self._check(result, wanted)
        return result.stdout

    def _check(self, result: Result, wanted: Attachment | None = None) -> None:
        if not result.ok:
            raise explained(result, self._place.name, self._network, wanted)


def explained(result: Result, guest: str, network: str, wanted: Attachment | None = None) -> UsageError | MachineError:
    """Return the error that the exit status of a script stands for; `wanted` is the container that was to be attached."""
    name, pid = (wanted.name, wanted.pid) if wanted else ("it", 0)
    problem, allowed = {
        GONE: (f"There is no network {network} on {guest} any more.", "to make it again: Network(…)"),
        CHANGED: (f"{name} was detached while it was being attached.", "one after the other"),
        NO_PROCESS: (f"There is no process {pid} on {guest}.", "a process that runs"),
        SAME_NAMESPACE: (
            f"Process {pid} is in the network namespace of {guest} itself.",
            "a process with one of its own (unshare -n, CLONE_NEWNET)",
        ),
        TAKEN: (f"{name} is on network {result.stdout.strip()} already.", "another name, or detach it first"),
        FULL: (f"Network {network} has no address left.", "to detach a container, or a larger subnet"),
        EXISTS: (f"An interface on {guest} has the name that is needed, and is not ours.", "another name"),
    }.get(result.exit_status, ("", ""))
    if problem:
        return UsageError(problem, allowed=allowed, example='network.attach("web", pid)')
    what = f"network {network} could not be changed"
    return MachineError(guest, what, exit_status=result.exit_status, output=result.stderr)
