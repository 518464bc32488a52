"""What the kernel means when it refuses a call about namespaces: errno(3) in words.

Sources: the ERRORS of clone(2), unshare(2), setns(2), sethostname(2), mount(2), chroot(2), pivot_root(2).
"""

from __future__ import annotations

from errno import EINVAL, ENOMEM, ENOSPC, EPERM, EUSERS

from cloudlab.containers import calls as system_calls
from cloudlab.containers.calls import CallError, Calls, Outcome, Place
from cloudlab.errors import UsageError

_OWNER = "it takes CAP_SYS_ADMIN in the user namespace that owns"
_WHY = {
    ("unshare", EPERM): "without CAP_SYS_ADMIN only a user namespace can be made (NEWUSER); in it, all others can",
    ("unshare", EINVAL): "a flag that this kernel has not, or a second NEWPID: its next child is in a new one already",
    ("unshare", ENOSPC): "a limit in /proc/sys/user is reached, or namespaces are nested 32 deep",
    ("unshare", EUSERS): "user namespaces are nested 32 deep",
    ("setns", EPERM): f"{_OWNER} the namespace",
    ("setns", EINVAL): "that file is no namespace or not of the asked kind, or we are in that user namespace already",
    ("sethostname", EPERM): f"{_OWNER} the UTS namespace",
    ("setdomainname", EPERM): f"{_OWNER} the UTS namespace",
    ("mount", EPERM): f"{_OWNER} the mount namespace",
    ("chroot", EPERM): "it takes CAP_SYS_CHROOT",
    ("pivot_root", EINVAL): "the new root must be a mount of its own, and no mount above it shared",
}
_WHY |= {("clone3", number): text for (name, number), text in _WHY.items() if name == "unshare"}
_WHY["clone3", ENOMEM] = (
    "the first process of its children's PID namespace has ended, and nothing can live there any more"
)


def explain(outcome: Outcome) -> str:
    """Return what makes a call about namespaces fail so, to stand behind the error's name; empty if that is not known."""
    text = _WHY.get((outcome.call.name, -outcome.returned), "")
    return f": {text}" if text else ""


def make(place: Place, calls: Calls) -> dict[int, Outcome]:
    """Have calls made as `calls.make` does; the error of one that fails is explained."""
    try:
        return system_calls.make(place, calls)
    except CallError as error:
        raise CallError(place.name, error.outcome, before=explain(error.outcome), output=error.output) from None


def no_process(place: Place, pid: int | str) -> UsageError:
    """Return the error of a process that is not there."""
    return UsageError(
        f"There is no process {pid} on {place.name}.", allowed="the numbers that processes() lists", example="1"
    )
