"""Containers by hand: namespaces, control groups, a root, a network, and the runtime they add up to; a module a mechanism.

The common names can be had from here; they are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Calls": "calls",
    "Cgroup": "cgroups",
    "Clone": "syscalls",
    "Container": "container",
    "Health": "supervisor",
    "Layers": "layerstore",
    "Mount": "syscalls",
    "Network": "network",
    "Open": "syscalls",
    "Overlay": "rootfs",
    "Process": "process",
    "Rootfs": "rootfs",
    "Runtime": "runtime",
    "Volume": "specification",
    "enter_root": "rootfs",
    "make": "calls",
}
__all__ = sorted(_HOME)  # noqa: PLE0605 - the names of _HOME, loaded lazily

if TYPE_CHECKING:
    from cloudlab.containers.calls import Calls as Calls
    from cloudlab.containers.calls import make as make
    from cloudlab.containers.cgroups import Cgroup as Cgroup
    from cloudlab.containers.container import Container as Container
    from cloudlab.containers.layerstore import Layers as Layers
    from cloudlab.containers.network import Network as Network
    from cloudlab.containers.process import Process as Process
    from cloudlab.containers.rootfs import Overlay as Overlay
    from cloudlab.containers.rootfs import Rootfs as Rootfs
    from cloudlab.containers.rootfs import enter_root as enter_root
    from cloudlab.containers.runtime import Runtime as Runtime
    from cloudlab.containers.specification import Volume as Volume
    from cloudlab.containers.supervisor import Health as Health
    from cloudlab.containers.syscalls import Clone as Clone
    from cloudlab.containers.syscalls import Mount as Mount
    from cloudlab.containers.syscalls import Open as Open


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
