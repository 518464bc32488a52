"""Plug hardware into a running guest: disks, network cards, memory, CPUs. Each is data first, then a QMP command."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudlab.errors import CloudlabError, UsageError
from cloudlab.machines.spec import SLOTS, Identity
from cloudlab.units import MIB, format_size, parse_size

_MEMORY_STEP = (
    128 * MIB
)  # Linux on x86-64 takes memory in sections of 128 MiB (Documentation/admin-guide/mm/memory-hotplug.rst)
_QEMU_IMG_DEADLINE_S = 120.0
_OPTION = {
    "blockdev-add": "-blockdev",
    "netdev_add": "-netdev",
    "object-add": "-object",
    "device_add": "-device",
}


@dataclass(frozen=True)
class Device:
    """One plugged device: `id` ("disk1"), `kind`, the QMP commands that make it, where the guest has it, its file."""

    id: str
    kind: str
    commands: tuple[tuple[str, dict[str, Any]], ...]
    slot: int | None = None
    guest_name: str = ""
    file: Path | None = None

    def arguments(self) -> tuple[str, ...]:
        """Return the same device as QEMU's arguments, for a start that must have it already."""
        words: list[str] = []
        for command, arguments in self.commands:
            words += [_OPTION[command], json.dumps(arguments)]
        return tuple(words)

    def __repr__(self) -> str:
        return f"<{self.id}{' at ' + self.guest_name if self.guest_name else ''}>"


def free_slot(devices: dict[str, Device]) -> int:
    """Return a PCI slot that is free; raises `UsageError` if none is."""
    taken = {device.slot for device in devices.values()}
    for number in range(1, SLOTS + 1):
        if number not in taken:
            return number
    raise UsageError(
        f"All {SLOTS} slots are taken: {', '.join(devices)}.",
        allowed="unplug one first",
        example='n1.unplug("disk1")',
    )


def _place(slot: int) -> dict[str, str]:
    return {"bus": "slots", "addr": hex(slot)}


def next_id(kind: str, devices: dict[str, Device]) -> str:
    """Return the next free name of a kind: disk1, disk2, …"""
    number = 1
    while f"{kind}{number}" in devices:
        number += 1
    return f"{kind}{number}"


def disk(
    source: str | int | Path, device_id: str, slot: int, directory: Path, machine: str, *, writable: bool
) -> Device:
    """Make a disk: a size ("1G") makes an empty one; a file (raw or qcow2) is used through an overlay, so that it stays as it is.

    `writable` writes into the file itself.
    """
    is_file = isinstance(source, Path) or (isinstance(source, str) and ("/" in source or "." in source))
    overlay = directory / f"{machine}.{device_id}.qcow2"
    if not is_file:
        assert not isinstance(source, Path)
        _qemu_img("create", "-f", "qcow2", str(overlay), str(parse_size(source)))
        file, file_format = overlay, "qcow2"
    else:
        base = Path(source).resolve()  # type: ignore[arg-type]
        if not base.is_file():
            raise UsageError(
                f"There is no disk file {base}.",
                allowed="a raw or qcow2 file, or a size",
                example='n1.plug(disk="1G")',
            )
        base_format = _format_of(base)
        if writable:
            file, file_format = base, base_format
        else:
            _qemu_img("create", "-f", "qcow2", "-b", str(base), "-F", base_format, str(overlay))
            file, file_format = overlay, "qcow2"
    node = {
        "driver": file_format,
        "node-name": device_id,
        "discard": "unmap",
        "file": {"driver": "file", "filename": str(file), "discard": "unmap"},
    }
    card = {
        "driver": "virtio-blk-pci",
        "id": device_id,
        "drive": device_id,
        **_place(slot),
        "serial": device_id,
    }
    return Device(device_id, "disk", (("blockdev-add", node), ("device_add", card)), slot, file=file)


def nic(device_id: str, slot: int, directory: Path, identity: Identity) -> Device:
    """Make one more network card; its wire ends in a socket that a switch can join."""
    number = int(device_id.removeprefix("nic"))
    mac = mac_of(number, identity)
    socket = {"type": "unix", "path": str(directory / f"{identity.name}.net{number}")}
    wire = {"type": "stream", "id": f"net{number}", "server": True, "addr": socket}
    card = {
        "driver": "virtio-net-pci",
        "id": device_id,
        "netdev": f"net{number}",
        "mac": mac,
        "romfile": "",
        "guest_announce": False,
        **_place(slot),
    }
    return Device(device_id, "nic", (("netdev_add", wire), ("device_add", card)), slot, guest_name=f"eth{number}")


def made_for(identity: Identity, device: Device, directory: Path) -> Device:
    """Return the same device for another machine: a network card has an address and a wire of its own."""
    if device.kind != "nic" or device.slot is None:
        return device
    return nic(device.id, device.slot, directory, identity)


def mac_of(card: int, identity: Identity) -> str:
    """Return the address of a machine's network card: of n2's eth1 it is 52:54:01:00:00:02."""
    return identity.mac.replace("52:54:00", f"52:54:{card:02x}", 1)


def memory(size: str | int, device_id: str) -> Device:
    """Make a memory module (a DIMM), in steps of 128 MiB."""
    count = parse_size(size)
    if count % _MEMORY_STEP:
        raise UsageError(
            f"{format_size(count)} is no size for a memory module.",
            allowed="multiples of 128M, up to 4 modules",
            example='n1.plug(memory="256M")',
        )
    backend = {"qom-type": "memory-backend-ram", "id": f"{device_id}-ram", "size": count}
    return Device(
        device_id,
        "memory",
        (
            ("object-add", backend),
            ("device_add", {"driver": "pc-dimm", "id": device_id, "memdev": f"{device_id}-ram"}),
        ),
    )


def cpu(slots: list[dict[str, Any]], device_id: str) -> Device:
    """Make one more CPU in the first socket that has none; `slots` is QEMU's list (query-hotpluggable-cpus)."""
    free = sorted(
        (slot for slot in slots if "qom-path" not in slot),
        key=lambda slot: json.dumps(slot["props"], sort_keys=True),
    )
    if not free:
        raise UsageError(
            f"All {len(slots)} CPU sockets are taken.",
            allowed=f"at most {len(slots)} CPUs",
            example='lab.machine("n2", cpus=8)',
        )
    return Device(device_id, "cpu", (("device_add", {"driver": free[0]["type"], "id": device_id, **free[0]["props"]}),))


def _format_of(file: Path) -> str:
    found = str(json.loads(_qemu_img("info", "--force-share", "--output=json", str(file)))["format"])
    if found not in ("raw", "qcow2"):
        raise UsageError(
            f"{file} is a {found} disk.",
            allowed="raw and qcow2",
            example=f"qemu-img convert -O qcow2 {file.name} {file.stem}.qcow2",
        )
    return found


def _qemu_img(*words: str) -> str:
    program = shutil.which("qemu-img")
    if program is None:
        raise UsageError(
            "Disks need qemu-img, which is not installed.",
            example="sudo apt-get install --no-install-recommends qemu-utils",
        )
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=_QEMU_IMG_DEADLINE_S, check=False)
    if done.returncode:
        raise CloudlabError(f"qemu-img {words[0]} failed: {done.stderr.strip()}")
    return done.stdout
