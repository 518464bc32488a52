"""QEMU's command line, as data that can be read, printed and compared."""

from __future__ import annotations

import functools
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cloudlab.errors import CloudlabError, UsageError
from cloudlab.machines.spec import MAX_CPUS, Spec
from cloudlab.owner import FIRST_FD
from cloudlab.units import GIB, MIB

PROGRAM = "qemu-system-x86_64"
OLDEST = (7, 2)  # -netdev stream came with 7.2
_CACHE_OF_TRANSLATIONS = 32  # MiB of translated code a guest: more gains nothing, and is memory
_CPU = {"tcg": "qemu64", "kvm": "host"}


@dataclass(frozen=True)
class Places:
    """Where one run of a guest has its files and sockets, and which RAM it starts from.

    `ram`: file that holds the guest's memory; `shared`: does the guest write to it (a template) or keep its changes
    to itself (copy on write)? `incoming`: wait for a saved state instead of booting.
    """

    console_log: str
    network: str
    mac: str
    ram: str | None = None
    shared: bool = False
    incoming: bool = False


def arguments(spec: Spec, places: Places, plugged: tuple[str, ...] = ()) -> list[str]:
    """Return QEMU's arguments for one guest; the sockets of console, control and agent are inherited (FIRST_FD)."""
    size = spec.memory // MIB
    words = ["-nodefaults", "-no-user-config", "-display", "none", "-msg", "timestamp=on"]
    words += [
        "-machine",
        "q35,memory-backend=ram,vmport=off,smm=off",
        "-accel",
        _accelerator(spec),
        "-cpu",
        _CPU[spec.accelerator],
    ]
    words += ["-smp", f"{spec.cpus},maxcpus={max(MAX_CPUS, spec.cpus)}"]
    words += ["-m", f"{size}M,slots=4,maxmem={max(2 * GIB, 4 * spec.memory) // MIB}M"]
    words += ["-object", _memory(places, size)]
    words += ["-kernel", str(spec.kernel), "-initrd", str(spec.initrd), "-append", spec.kernel_parameters]
    words += [
        "-chardev",
        f"socket,id=console,fd={FIRST_FD},server=on,wait=off,logfile={_comma(places.console_log)},logappend=on",
    ]
    words += ["-serial", "chardev:console"]
    words += [
        "-chardev",
        f"socket,id=control,fd={FIRST_FD + 1},server=on,wait=off",
        "-mon",
        "chardev=control,mode=control",
    ]
    words += ["-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,fd={FIRST_FD + 2},server=on,wait=off"]
    words += ["-device", "virtserialport,chardev=agent,name=cloudlab.agent"]
    words += ["-netdev", f"stream,id=net0,server=on,addr.type=unix,addr.path={_comma(places.network)}"]
    words += ["-device", f"virtio-net-pci,id=nic0,netdev=net0,mac={places.mac},romfile=,guest_announce=off"]
    words += [
        "-device",
        "virtio-rng-pci",
        "-device",
        "virtio-balloon-pci,id=balloon",
        "-device",
        "pvpanic-pci",
    ]
    # What is plugged in later goes behind this bridge: root ports cost 0.5 MB each
    words += ["-device", "pcie-pci-bridge,id=slots"]
    if spec.screen:
        words += ["-device", "VGA,id=screen,vgamem_mb=8,romfile=vgabios-stdvga.bin"]
    words += plugged
    return [*words, "-incoming", "defer"] if places.incoming else words


def _accelerator(spec: Spec) -> str:
    return f"tcg,tb-size={_CACHE_OF_TRANSLATIONS}" if spec.accelerator == "tcg" else spec.accelerator


def _memory(places: Places, size: int) -> str:
    if places.ram is None:
        return f"memory-backend-ram,id=ram,size={size}M"
    return f"memory-backend-file,id=ram,size={size}M,mem-path={_comma(places.ram)},share={'on' if places.shared else 'off'}"


def _comma(value: str) -> str:
    """In an option's value, a comma is written twice (qemu(1))."""
    return value.replace(",", ",,")


def find_qemu() -> str:
    """Return the path of QEMU; raises `UsageError` with what to install if there is none, or it is too old."""
    path = shutil.which(PROGRAM)
    if path is None:
        raise UsageError(
            f"QEMU is not installed: there is no {PROGRAM} in PATH.",
            allowed=f"QEMU {OLDEST[0]}.{OLDEST[1]} or newer, with the x86-64 system emulator",
            example="sudo apt-get install --no-install-recommends qemu-system-x86 qemu-utils",
        )
    if version_of(path)[:2] < OLDEST:
        raise UsageError(
            f"{path} is QEMU {'.'.join(map(str, version_of(path)))}.",
            allowed=f"{OLDEST[0]}.{OLDEST[1]} or newer",
        )
    return path


@functools.cache
def version_of(path: str) -> tuple[int, ...]:
    """Return QEMU's version, as (7, 2, 22)."""
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False)
    match = re.search(r"version (\d+)\.(\d+)\.(\d+)", done.stdout)
    if match is None:
        raise CloudlabError(
            f"{path} --version says {done.stdout.strip()[:200]!r} {done.stderr.strip()[:200]!r}: is this QEMU?"
        )
    return tuple(int(number) for number in match.groups())


@functools.cache
def build_of(path: str) -> str:
    """Return what tells one build of QEMU from another: its version line, its size and its time of change."""
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False)
    status = Path(path).resolve().stat()
    return f"{done.stdout.splitlines()[0]} {status.st_size} {status.st_mtime_ns}"


def printable(words: list[str]) -> str:
    """Write a command line for people: one option a line, in a form that a shell accepts."""
    lines, rest = [shlex.quote(words[0])], words[1:]
    while rest:
        take = 2 if len(rest) > 1 and not rest[1].startswith("-") else 1
        lines.append(shlex.join(rest[:take]))
        rest = rest[take:]
    return " \\\n  ".join(lines)
