"""Where a container or a control group is, and what it is called among those of several guests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloudlab.containers.calls import Place
    from cloudlab.containers.cgroups import Cgroup
    from cloudlab.containers.container import Container


def place_of(thing: Container | Cgroup) -> Place:
    """Return the guest that it is in."""
    return thing.machine if hasattr(thing, "machine") else thing.place


def full_name(thing: Container | Cgroup) -> str:
    """Return its name with its guest's: n1/web, as in `lab.topology`."""
    inner = thing.path if hasattr(thing, "path") else f"/{thing.name}"
    return f"{place_of(thing).name}{inner}"
