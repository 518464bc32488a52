"""cloudlab: cloud computing made to happen, on emulated hardware, in a notebook.

The public names are loaded when they are first used, so that `import cloudlab` stays quick (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "CloudlabError": "cloudlab.errors",
    "MachineError": "cloudlab.errors",
    "UsageError": "cloudlab.errors",
    "Lab": "cloudlab.lab",
    "Machine": "cloudlab.machines",
    "Lesson": "cloudlab.teaching",
    "show_source": "cloudlab.teaching",
}
__all__ = [*sorted(_HOME), "__version__"]  # noqa: PLE0604 - the names of _HOME, loaded lazily

if TYPE_CHECKING:
    from cloudlab.errors import CloudlabError as CloudlabError
    from cloudlab.errors import MachineError as MachineError
    from cloudlab.errors import UsageError as UsageError
    from cloudlab.lab import Lab as Lab
    from cloudlab.machines import Machine as Machine
    from cloudlab.teaching import Lesson as Lesson
    from cloudlab.teaching import show_source as show_source


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cloudlab' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
