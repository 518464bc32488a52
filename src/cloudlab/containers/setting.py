"""Where a container is made: what its bundle leaves open, and where what is known of it stands."""

from __future__ import annotations

from dataclasses import dataclass

from cloudlab.containers.rootfs import InitLayer, Overlay

STATE_DIRECTORY = "/run/cloudlab/containers"
EVENTS = "/run/cloudlab/ended"  # a line for each container that has ended
SIGINFO, SI_STATUS = 128, 24  # bytes of siginfo_t, and where in it the exit status stands: x86-64's layout
P_PID, WEXITED = 1, 4  # of waitid(2)


@dataclass(frozen=True)
class Setting:
    """What the bundle leaves open: the container's name, where the bundle lies, its root's layers (or none), the host's cgroups."""

    name: str
    directory: str
    cgroup_version: int
    overlay: Overlay | None = None
    init_layer: InitLayer | None = None
    wait_for_start: bool = False
    again: bool = False  # it has been there before, and keeps its log

    @property
    def state(self) -> str:
        """The directory that says what is known of the container."""
        return f"{STATE_DIRECTORY}/{self.name}"
