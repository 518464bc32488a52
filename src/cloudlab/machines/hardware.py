"""Verbs that change a running guest's hardware."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from cloudlab.errors import MachineError, UsageError
from cloudlab.machines import hotplug
from cloudlab.machines.commands import Commands
from cloudlab.machines.qmp import Event, Qmp
from cloudlab.owner.waiting import wait_showing
from cloudlab.units import format_size, parse_size

_COUNT = {"memory": "awk '/MemTotal/ {print $2}' /proc/meminfo", "cpu": "nproc"}
_SWITCH_ON_CPUS = """
for online in /sys/devices/system/cpu/cpu[0-9]*/online; do test $(cat $online) = 1 || echo 1 > $online; done
test $(nproc) -gt"""


class Hardware(Commands):
    """A guest into which devices can be plugged."""

    def plug(
        self,
        *,
        disk: str | int | Path | None = None,
        nic: bool = False,
        memory: str | int | None = None,
        cpu: bool = False,
        writable: bool = False,
    ) -> hotplug.Device:
        """Plug one device into the running machine; returns it, with its name in the guest, when the guest has it.

        `disk`: a size for an empty disk, or a raw or qcow2 file (used through an overlay unless `writable`);
        `memory`: a multiple of 128M; `nic=True`: one more network card; `cpu=True`: one more CPU.
        """
        wanted = [kind for kind, value in (("disk", disk), ("nic", nic), ("memory", memory), ("cpu", cpu)) if value]
        if len(wanted) != 1:
            raise UsageError(
                f"plug() takes one device, and got {', '.join(wanted) or 'none'}.",
                allowed='disk="1G", nic=True, memory="256M" or cpu=True',
                example='n1.plug(disk="1G")',
            )
        device_id, directory = hotplug.next_id(wanted[0], self.devices), self._home.owner.directory
        self._agent()  # a guest that is still booting would miss the new device
        qmp = self.running.qmp
        if disk:
            device = hotplug.disk(
                disk, device_id, hotplug.free_slot(self.devices), directory, self.name, writable=writable
            )
        elif nic:
            device = hotplug.nic(device_id, hotplug.free_slot(self.devices), directory, self.identity)
        elif memory:
            self._refuse_memory_after_cpu()
            device = hotplug.memory(memory, device_id)
        else:
            device = hotplug.cpu(qmp.execute("query-hotpluggable-cpus"), device_id)
        before = int(self.succeed(_COUNT[wanted[0]])) if wanted[0] in _COUNT else 0
        self._add(qmp, device)
        device = replace(device, guest_name=self._appeared(device, before))
        self.devices[device.id] = device
        return device

    def _add(self, qmp: Qmp, device: hotplug.Device) -> None:
        """Make what stands behind the device, then the device; if QEMU refuses one, what was made goes again."""
        done = 0
        try:
            for command, arguments in device.commands:
                qmp.answer(qmp.send(command, arguments=arguments))
                done += 1
                if command == "netdev_add":
                    qmp.execute("set_link", name=arguments["id"], up=False)  # no cable is in yet (see launch)
        except MachineError:
            self._clear_backend(qmp, replace(device, commands=device.commands[:done]))
            raise

    def _refuse_memory_after_cpu(self) -> None:
        """QEMU 7.2 aborts when memory is plugged in after a CPU was taken out."""
        if self._cpu_removed:
            raise UsageError(
                "QEMU would crash: memory can't be plugged in after a CPU was unplugged.",
                allowed="plug the memory first, or start anew",
            )

    def _appeared(self, device: hotplug.Device, before: int) -> str:
        """Wait until the guest has the device; returns its name there."""
        if device.kind == "disk":
            found = self.wait_until_succeeds(f"grep -lx {device.id} /sys/block/*/serial")
            return "/dev/" + found.split("/")[3]
        if device.kind == "nic":
            self.wait_until_succeeds(f"test -e /sys/class/net/{device.guest_name}")
            return device.guest_name
        if device.kind == "memory":
            self.wait_until_succeeds(f"test $({_COUNT['memory']}) -gt {before}")
            return ""
        self.wait_until_succeeds(f"{_SWITCH_ON_CPUS} {before}")
        return f"cpu{before}"

    def unplug(self, device: str | hotplug.Device, timeout_s: float = 30.0) -> None:
        """Take a plugged device out; returns when the guest has let go of it."""
        device_id = device if isinstance(device, str) else device.id
        if device_id not in self.devices:
            raise UsageError(
                f"{self.name} has no plugged device {device_id!r}.",
                allowed=", ".join(self.devices) or "none is plugged in",
                example=f"{self.name}.devices",
            )
        qmp, known = self.running.qmp, self.devices[device_id]
        qmp.events.clear()
        qmp.execute("device_del", id=device_id)
        event = qmp.wait_event(lambda e: _is_end_of(device_id, e), timeout_s, f"unplugging {device_id}")
        if event["event"] != "DEVICE_DELETED":
            raise MachineError(self.name, f"the guest would not let go of {device_id}: it is in use")
        self._clear_backend(qmp, known)
        self._cpu_removed |= known.kind == "cpu"
        del self.devices[device_id]

    def _clear_backend(self, qmp: Qmp, device: hotplug.Device) -> None:
        """What stood behind the device: the disk's file, the card's wire, the module's memory."""
        for command, arguments in device.commands:
            if command == "blockdev-add":
                qmp.execute("blockdev-del", node_name=device.id)
            elif command == "netdev_add":
                qmp.execute("netdev_del", id=arguments["id"])
            elif command == "object-add":
                qmp.execute("object-del", id=arguments["id"])
        if device.file is not None and device.file.parent == self._home.owner.directory:
            device.file.unlink(missing_ok=True)

    def set_carrier(self, card: int, *, up: bool) -> None:
        """Tell network card eth`card` whether a working cable is in it; the guest sees it at once (`ip link`: NO-CARRIER)."""
        self.running.qmp.execute("set_link", name=f"net{card}", up=up)

    def set_balloon(self, size: str | int, timeout_s: float = 20.0) -> int:
        """Ask the guest to leave only `size` of memory to itself; returns what it came to, in bytes.

        The balloon driver in the guest takes pages and gives them back to the host (virtio, 5.5 Traditional Memory Balloon Device).
        """
        target, qmp = parse_size(size), self.running.qmp
        if target > self.spec.memory:
            raise UsageError(
                f"{format_size(target)} is more than {self.name} has.",
                allowed=f"up to {format_size(self.spec.memory)}",
                example='n1.set_balloon("128M")',
            )
        qmp.execute("balloon", value=target)

        def reached(seconds: float) -> bool:
            until = time.monotonic() + seconds
            while qmp.execute("query-balloon")["actual"] != target:
                if time.monotonic() > until:
                    return False
                time.sleep(0.02)  # QEMU tells of changes once a second at the most (BALLOON_CHANGE): asking is sooner
            return True

        wait_showing(f"{self.name}: balloon", reached, timeout_s)
        return int(qmp.execute("query-balloon")["actual"])


def _is_end_of(device_id: str, event: Event) -> bool:
    """Does an event end an unplugging? Of a CPU only a part is named, by its path (QEMU, qapi/qdev.json)."""
    data = event.get("data", {})
    named = data.get("device") == device_id or data.get("path", "").startswith(f"/machine/peripheral/{device_id}/")
    return named and event["event"] in ("DEVICE_DELETED", "MEM_UNPLUG_ERROR", "DEVICE_UNPLUG_GUEST_ERROR")
