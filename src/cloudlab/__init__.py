"""cloudlab: cloud computing made to happen, on emulated hardware, in a notebook.

The public names are loaded when they are first used, so that `import cloudlab` stays quick (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "tree": "cloudlab.networks",
    "star": "cloudlab.networks",
    "ring": "cloudlab.networks",
    "leaf_spine": "cloudlab.networks",
    "Topology": "cloudlab.networks",
    "Cgroup": "cloudlab.containers.cgroups",
    "Clone": "cloudlab.containers.syscalls",
    "CloudlabError": "cloudlab.errors",
    "Container": "cloudlab.containers.container",
    "MachineError": "cloudlab.errors",
    "UsageError": "cloudlab.errors",
    "Lab": "cloudlab.lab",
    "Machine": "cloudlab.machines",
    "Lesson": "cloudlab.teaching",
    "Process": "cloudlab.containers.process",
    "Registry": "cloudlab.containers.registry",
    "Rootfs": "cloudlab.containers.rootfs",
    "Span": "cloudlab.views",
    "cgroup_tree": "cloudlab.views",
    "figure": "cloudlab.views",
    "layer_stack": "cloudlab.views",
    "live": "cloudlab.views",
    "meters": "cloudlab.views",
    "namespace_matrix": "cloudlab.views",
    "show_source": "cloudlab.teaching",
    "terminal": "cloudlab.views",
    "timeline": "cloudlab.views",
}
__all__ = [*sorted(_HOME), "__version__"]  # noqa: PLE0604 - the names of _HOME, loaded lazily

if TYPE_CHECKING:
    from cloudlab.containers.cgroups import Cgroup as Cgroup
    from cloudlab.containers.container import Container as Container
    from cloudlab.containers.process import Process as Process
    from cloudlab.containers.registry import Registry as Registry
    from cloudlab.containers.rootfs import Rootfs as Rootfs
    from cloudlab.containers.syscalls import Clone as Clone
    from cloudlab.errors import CloudlabError as CloudlabError
    from cloudlab.errors import MachineError as MachineError
    from cloudlab.errors import UsageError as UsageError
    from cloudlab.lab import Lab as Lab
    from cloudlab.machines import Machine as Machine
    from cloudlab.networks import Topology as Topology
    from cloudlab.networks import leaf_spine as leaf_spine
    from cloudlab.networks import ring as ring
    from cloudlab.networks import star as star
    from cloudlab.networks import tree as tree
    from cloudlab.teaching import Lesson as Lesson
    from cloudlab.teaching import show_source as show_source
    from cloudlab.views import Span as Span
    from cloudlab.views import cgroup_tree as cgroup_tree
    from cloudlab.views import figure as figure
    from cloudlab.views import layer_stack as layer_stack
    from cloudlab.views import live as live
    from cloudlab.views import meters as meters
    from cloudlab.views import namespace_matrix as namespace_matrix
    from cloudlab.views import terminal as terminal
    from cloudlab.views import timeline as timeline


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cloudlab' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
