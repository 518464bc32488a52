"""A machine: one guest, and the verbs to work with it."""

from __future__ import annotations

import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

from cloudlab.errors import UsageError
from cloudlab.machines import hotplug, qemu
from cloudlab.machines.accelerator import Accelerator
from cloudlab.machines.console import TAIL, Console, Wire
from cloudlab.machines.hardware import Hardware
from cloudlab.machines.launch import Source, save_devices
from cloudlab.machines.life import Home, State
from cloudlab.machines.spec import Identity, Spec, check_name
from cloudlab.machines.states import Template, require_room
from cloudlab.machines.stats import Picture, Stats, measure
from cloudlab.units import format_size


@dataclass(frozen=True)
class Saved:
    """A saved state of one machine: devices and memory, and a copy of each of its own disks as they were."""

    file: Path
    devices: dict[str, hotplug.Device]
    disks: dict[str, Path]


class Machine(Hardware):
    """A guest computer, emulated by one QEMU process.

    Made by `Lab.machine`. `run` gives a command's result, `succeed` its output (or raises `MachineError`),
    `console` is the serial line with a shell, `command_line` how QEMU was started.
    """

    def __init__(self, home: Home, identity: Identity, spec: Spec, template: Template | None) -> None:
        super().__init__(home, identity, spec, template)
        self._saved: dict[str, Saved] = {}

    def save(self, name: str = "saved") -> None:
        """Save everything under a name: memory, devices, and its own disks; the machine goes on as if nothing had been.

        Raises `UsageError` if there is no room.
        """
        check_name(name)
        running, owner = self.running, self._home.owner
        require_room(owner.directory, 2 * self.spec.memory, "a saved state")
        was_paused = self._state is State.PAUSED
        running.qmp.execute("stop")
        try:
            file = owner.path(f"{self.name}.{name}.state")
            save_devices(running, file, with_memory=True)
            disks = {}
            for device in self.devices.values():
                if device.file is not None and device.file.parent == owner.directory:
                    disks[device.id] = owner.path(f"{self.name}.{name}.{device.id}.qcow2")
                    shutil.copy(device.file, disks[device.id])  # QEMU lets go of disks once a state is written
            self._saved[name] = Saved(file, dict(self.devices), disks)
        finally:
            if not was_paused:
                running.qmp.execute("cont")

    def restore(self, name: str = "saved") -> None:
        """Go back to a saved state: everything since then is undone. Connections from outside are lost."""
        if name not in self._saved:
            raise UsageError(
                f"{self.name} has no saved state {name!r}.",
                allowed=", ".join(self._saved) or "none yet",
                example=f'{self.name}.save("{name}")',
            )
        saved = self._saved[name]
        if self._state not in (State.OFF, State.CRASHED):
            self.close()
        self.devices = dict(saved.devices)
        for device_id, copy in saved.disks.items():
            file = self.devices[device_id].file
            assert file is not None  # only devices with a file were copied
            shutil.copy(copy, file)
        self._launch(Source(state=saved.file))

    def clone(self, name: str) -> Machine:
        """Make a second machine that is this one at this moment, with a name, addresses and randomness of its own."""
        if any(device.kind == "disk" for device in self.devices.values()):
            raise UsageError(
                f"{self.name} has disks, and two machines can't share one.",
                allowed="clone a machine without disks",
                example=f'{self.name}.unplug("disk1")',
            )
        self.save(f"for-{check_name(name)}")
        saved = self._saved.pop(f"for-{name}")
        try:
            clone = self._home.sibling(name, self.spec, Source(state=saved.file), saved.devices)
            for card in (device for device in clone.devices.values() if device.kind == "nic"):
                number = int(card.guest_name.removeprefix("eth"))
                clone.succeed(f"ip link set {card.guest_name} address {hotplug.mac_of(number, clone.identity)}")
            return clone
        finally:
            saved.file.unlink()

    @property
    def saved_states(self) -> list[str]:
        """Names that `restore` knows."""
        return list(self._saved)

    @property
    def console(self) -> Console:
        """The serial line with a shell on it, as pexpect has it."""
        running = self.running
        with self._console_lock:  # QEMU has room for one: a second line would be silent
            if self._console is None:
                printed = running.printed(TAIL)
                line = socket.socket(socket.AF_UNIX)
                line.connect(str(running.console_socket))
                self._wire = Wire(self.name, line, printed)
                self._console = Console(self.name, self._wire, running.console_log)
            return self._console

    @property
    def pid(self) -> int:
        """The number of its QEMU process on this computer."""
        return self.running.child.pid

    def monitor(self, command: str) -> str:
        """Ask QEMU itself, in the words of its monitor: "info registers", "info pic", "info mtree -f" (qemu(1), QEMU Monitor)."""
        return str(self.running.qmp.execute("human-monitor-command", command_line=command)).replace("\r", "")

    @property
    def command_line(self) -> str:
        """How QEMU was started, one option a line."""
        if self._running is None:
            raise self._not_running()
        return qemu.printable(self._running.command_line)

    @property
    def accelerator(self) -> Accelerator:
        """What runs its instructions, and why that was chosen."""
        return self._home.accelerator

    @property
    def boot_timing(self) -> dict[str, float]:
        """Seconds from the call to each step of the start: process, state loaded, agent."""
        return dict(self.running.timing)

    @property
    def stats(self) -> Stats:
        """What it uses now: CPU seconds and memory of its process here, bytes from and to its disks."""
        running = self.running
        try:
            return measure(psutil.Process(running.child.pid), self.spec.memory, running.qmp.execute("query-blockstats"))
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError) as error:
            raise self._not_running() from error  # it ended in this very moment

    @property
    def closed(self) -> bool:
        """Has it been closed, or its lab? One that crashed or powered off has not."""
        return not self._home.owner.alive or self._ending == "it was closed"

    def screenshot(self) -> Picture:
        """Return what its screen shows, as a PNG picture; needs a machine made with `screen=True`."""
        if not self.spec.screen:
            raise UsageError(
                f"{self.name} has no screen, only a serial line.",
                allowed="a machine with a VGA card",
                example='lab.machine("n2", screen=True).screenshot()',
            )
        file = self._home.owner.path(f"{self.name}.png")
        self.running.qmp.execute("screendump", filename=str(file), format="png")
        return Picture(file.read_bytes())

    def __repr__(self) -> str:
        hardware = f"{format_size(self.spec.memory)}, {self.spec.cpus} CPU"
        return f"<machine {self.name}: {self.state.value}, {hardware}, {self.identity.address}>"
