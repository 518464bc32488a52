"""What a guest is made of, as data: the command line, the template and the error messages come from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cloudlab.errors import UsageError
from cloudlab.units import GIB, MIB

SLOTS = 15  # PCI slots for what is plugged in later
MAX_CPUS = 4
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?")


@dataclass(frozen=True)
class Spec:
    """One guest's hardware. `memory` in bytes; `screen` adds a VGA card, for `Machine.screenshot`; `cgroups` is "v1" or "v2"."""

    kernel: Path
    initrd: Path
    append: str
    memory: int = 384 * MIB
    cpus: int = 1
    accelerator: str = "tcg"
    screen: bool = False
    aslr: bool = False
    cgroups: str = "v2"

    def __post_init__(self) -> None:
        if not 64 * MIB <= self.memory <= 64 * GIB:
            raise UsageError(
                f"memory={self.memory // MIB}M is not a size for a guest.",
                allowed="64M to 64G",
                example='lab.machine("n1", memory="256M")',
            )
        if not 1 <= self.cpus <= 16:
            raise UsageError(
                f"cpus={self.cpus!r} is not a number of CPUs.",
                allowed="1 to 16",
                example='lab.machine("n1", cpus=2)',
            )
        if self.cgroups not in ("v1", "v2"):
            raise UsageError(
                f"cgroups={self.cgroups!r} is not a version of control groups.",
                allowed='"v2", as used today, or "v1"',
                example='lab.machine("old", cgroups="v1")',
            )

    @property
    def kernel_parameters(self) -> str:
        """What the kernel is told; `aslr` takes away "norandmaps", which keeps addresses the same in each process."""
        words = self.append.split()
        if self.aslr:
            words = [word for word in words if word != "norandmaps"]
        if self.cgroups == "v1":
            words.append("cgroups=v1")  # no word of the kernel's: init finds it in its environment
        if self.screen:
            words = [word for word in words if word != "quiet"]
            words.insert(0, "console=tty0")  # the last console= becomes /dev/console: the serial line stays it
        return " ".join(words)


@dataclass(frozen=True)
class Identity:
    """What sets one guest apart from its copies; a name predicts the rest: n2 is 52:54:00:00:00:02 and 10.0.0.2."""

    name: str
    number: int

    @property
    def mac(self) -> str:
        """The address of its first network card; 52:54:00 is QEMU's own prefix."""
        return ":".join(["52:54:00", *(f"{byte:02x}" for byte in self.number.to_bytes(3, "big"))])

    @property
    def address(self) -> str:
        """Its IPv4 address in the lab's network 10.0.0.0/16."""
        return f"10.0.{self.number >> 8}.{self.number & 255}"


def check_name(name: str) -> str:
    """Return `name` if it can be a host name (RFC 1123, lower case); raises `UsageError` if not."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a name for a machine.",
            allowed="small letters, digits and hyphens, beginning with a letter, at most 32",
            example='lab.machine("n1")',
        )
    return name
