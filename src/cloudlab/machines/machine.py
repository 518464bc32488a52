"""A machine: one guest, and the verbs to work with it."""

from __future__ import annotations

import enum
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from cloudlab.errors import MachineError, UsageError
from cloudlab.machines import hotplug, qemu
from cloudlab.machines.accelerator import Accelerator
from cloudlab.machines.agent import OUT, Agent, Job
from cloudlab.machines.console import Console, Wire
from cloudlab.machines.launch import Running, Source, explain, launch, save_devices
from cloudlab.machines.qmp import Event, Qmp
from cloudlab.machines.result import Result
from cloudlab.machines.spec import Identity, Spec, check_name
from cloudlab.machines.states import BOOT_DEADLINE_S, Template, require_room
from cloudlab.machines.stats import Picture, Stats, measure
from cloudlab.owner import Budget, Owner
from cloudlab.owner.waiting import wait_showing
from cloudlab.units import format_size, parse_size

_LOCAL_CLOSE_S = 5.0


class State(enum.Enum):
    """Where a machine is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    OFF = "powered off"
    CRASHED = "crashed"


@dataclass(frozen=True)
class Home:
    """What a machine needs of its lab: the owner of its process, the budget, and how to make a sibling of it."""

    owner: Owner
    budget: Budget
    accelerator: Accelerator
    sibling: Callable[[str, Spec, Source, dict[str, hotplug.Device]], Machine]


@dataclass(frozen=True)
class Saved:
    """A saved state of one machine: devices and memory, and a copy of each of its own disks as they were."""

    file: Path
    devices: dict[str, hotplug.Device]
    disks: dict[str, Path]


class Machine:
    """A guest computer, emulated by one QEMU process.

    Made by `Lab.machine`. `run` gives a command's result, `succeed` its output (or raises `MachineError`),
    `console` is the serial line with a shell, `command_line` how QEMU was started.
    """

    def __init__(self, home: Home, identity: Identity, spec: Spec, template: Template | None) -> None:
        self.name, self.identity, self.spec = identity.name, identity, spec
        self.devices: dict[str, hotplug.Device] = {}
        self._home, self._template = home, template
        self._running: Running | None = None
        self._console: Console | None = None
        self._wire: Wire | None = None
        self._saved: dict[str, Saved] = {}
        self._ready, self._state, self._ending = threading.Event(), State.OFF, ""
        self._cpu_removed = False

    # --- life ---------------------------------------------------------------------------------------------------

    def start(self, *, cold: bool = False) -> Machine:
        """Switch it on: restored from the saved state, or booted (`cold`, about 2 s). A running machine stays as it is.

        Disks that are still plugged keep what is on them, and make it boot.
        """
        if self.state in (State.RUNNING, State.PAUSED):
            return self
        self.devices = {name: device for name, device in self.devices.items() if device.kind in ("disk", "nic")}
        source = self._template.source if self._template and not cold and not self.devices else Source()
        self._launch(source)
        return self

    def adopt(self, source: Source, devices: dict[str, hotplug.Device]) -> None:
        """Start from another machine's saved state (see `clone`)."""
        self.devices = dict(devices)
        self._launch(source)

    def _launch(self, source: Source) -> None:
        self._home.budget.admit(self.name, self.spec.memory)
        self._ready.clear()
        self._state, self._ending, self._cpu_removed = State.STARTING, "", False
        plugged = tuple(word for device in self.devices.values() for word in device.arguments())
        try:
            running = launch(
                self._home.owner, self.name, self.spec, source, mac=self.identity.mac, plugged=plugged, on_event=self._on_event
            )
            self._running = running
            self._home.budget.started(self.name, running.child.pid)
            running.child.on_exit(lambda: self._on_exit(running))
            if source.state is not None:
                running.qmp.execute("cont")
            self._identify(running)
            running.mark("agent")
        except BaseException as error:
            self._end_process()
            self._state = State.CRASHED
            self._home.budget.release(self.name)
            raise explain(self._running, error) if isinstance(error, MachineError) and self._running else error
        self._state = State.RUNNING
        self._ready.set()
        self._note()

    def _identify(self, running: Running) -> None:
        """Give the guest its own name, address, time and randomness; its answer says that it is up."""
        identity = self.identity
        job = running.agent.identify(identity.name, identity.mac, identity.address, secrets.token_hex(16))
        if not wait_showing(f"{self.name} starts", job.wait, BOOT_DEADLINE_S) or job.failure:
            raise MachineError(self.name, f"the guest did not answer within {BOOT_DEADLINE_S:.0f} s", log=running.console_log)
        if job.status:
            raise MachineError(self.name, f"the guest could not take on its identity (errno {-job.status})", log=running.console_log)

    def _note(self) -> None:
        facts = {"machine": self.name, "pid": self.running.child.pid, "memory": self.spec.memory, "cpus": self.spec.cpus}
        self._home.owner.note(self.name, facts | {"accelerator": self.spec.accelerator, "address": self.identity.address})

    def _on_event(self, event: Event) -> None:
        """Called in the control connection's thread."""
        kind, data = event["event"], event.get("data", {})
        if kind == "STOP" and self._state is State.RUNNING:
            self._state = State.PAUSED
        elif kind == "RESUME" and self._state is State.PAUSED:
            self._state = State.RUNNING
        elif kind == "GUEST_PANICKED":
            self._ending = "the guest's kernel panicked"
        elif kind == "SHUTDOWN" and not self._ending and data.get("reason") == "guest-shutdown":
            self._ending = "the guest powered off"
        elif kind == "RESET" and data.get("guest") and self._running:
            self._state = State.STARTING
            self._ready.clear()
            self._running.agent.forget("the guest was reset while it was working")
            threading.Thread(target=self._after_reset, args=(self._running,), daemon=True).start()

    def _after_reset(self, running: Running) -> None:
        """A guest that boots again needs its identity again."""
        try:
            self._identify(running)
            self._state = State.RUNNING
        except MachineError as error:
            self._ending = error.problem
        self._ready.set()

    def _on_exit(self, running: Running) -> None:
        if running is not self._running or self._state is State.OFF:
            return
        self._state = State.OFF if self._ending == "the guest powered off" else State.CRASHED
        self._ending = self._ending or f"QEMU ended unexpectedly ({running.child.how_it_ended()})"
        self._home.budget.release(self.name)
        self._ready.set()

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._state

    @property
    def running(self) -> Running:
        """Its process and lines; raises `MachineError` if it does not run, saying what became of it."""
        if self._state in (State.OFF, State.CRASHED) or self._running is None or not self._running.child.alive:
            raise self._not_running()
        return self._running

    def _not_running(self) -> MachineError:
        log = self._running.console_log if self._running else None
        child = self._running.child if self._running else None
        output = self._log_text() if "panicked" in self._ending else child.printed() if child else ""
        return MachineError(
            self.name, f"is {self._state.value}" + (f": {self._ending}" if self._ending else ""), output=output, log=log, hint=f"{self.name}.start()"
        )

    def _log_text(self) -> str:
        return self._running.console_log.read_text(errors="replace")[-4000:] if self._running and self._running.console_log.exists() else ""

    def pause(self) -> None:
        """Stop its CPUs between two instructions; the guest does not notice, but its clock will."""
        self.running.qmp.execute("stop")

    def resume(self) -> None:
        """Let a paused machine go on."""
        self.running.qmp.execute("cont")

    def reboot(self, timeout_s: float = BOOT_DEADLINE_S) -> None:
        """Have the guest shut down and boot again; returns when it answers. Memory is lost, and so is the root file system."""
        self._ready.clear()
        self.running.agent.start("reboot")
        if not wait_showing(f"{self.name} reboots", self._ready.wait, timeout_s):
            raise MachineError(self.name, f"it did not come back within {timeout_s:.0f} s of `reboot`", log=self.running.console_log)
        if self._state is not State.RUNNING:
            raise self._not_running()

    def power_off(self, timeout_s: float = 20.0) -> None:
        """Have the guest shut down in order: files synchronised, processes ended, power off. Does nothing if it is off."""
        if self._state is State.OFF:
            return
        running = self.running
        running.qmp.execute("cont")  # a paused guest can't shut down
        running.agent.start("poweroff")
        if not wait_showing(f"{self.name} shuts down", running.child.wait, timeout_s):
            raise MachineError(self.name, f"it did not power off within {timeout_s:.0f} s", hint=f"{self.name}.crash() pulls the plug", log=running.console_log)
        self._state, self._ending = State.OFF, "it was powered off"
        self._home.budget.release(self.name)

    def crash(self) -> None:
        """Pull the plug: the process is killed, what was not written to a disk is lost."""
        self.running  # noqa: B018 - raises if it does not run
        self._ending = "the plug was pulled"
        self._end_process()

    def close(self) -> None:
        """End it without ceremony, as the lab does at its own end."""
        self._state, self._ending = State.OFF, "it was closed"
        self._end_process()
        self._home.budget.release(self.name)

    def _end_process(self) -> None:
        if self._console is not None:
            self._console.close()
        self._console = self._wire = None
        if self._running is None:
            return
        self._running.child.kill()
        if not self._running.child.wait(_LOCAL_CLOSE_S):
            raise MachineError(self.name, "its QEMU does not end, even killed", log=self._running.child.log)
        self._running.close()

    # --- commands -----------------------------------------------------------------------------------------------

    def run(
        self,
        command: str | Sequence[str],
        *,
        input: bytes | str = b"",  # noqa: A002 - the name that subprocess.run has
        timeout_s: float = 60.0,
        directory: str | None = None,
        environment: Mapping[str, str] | None = None,
        on_output: Callable[[bytes], None] | None = None,
    ) -> Result:
        """Run a command as root and wait for its end; text goes to /bin/sh, a list of words is run as it is.

        Whatever its exit status, a `Result` comes back. Raises `MachineError` at the deadline (the command is then
        killed, with its output so far in the error), or if the guest ends.
        """
        agent = self._agent()
        words = command if isinstance(command, str) else " ".join(command)
        began = time.monotonic()
        job = agent.start(command, directory=directory, environment=environment, on_output=_pass(on_output))
        agent.feed(job, input.encode() if isinstance(input, str) else bytes(input), timeout_s)
        self._await(agent, job, words, timeout_s)
        return Result(words, _exit_status(job, self.name, words), bytes(job.out), bytes(job.err), time.monotonic() - began)

    def succeed(self, command: str | Sequence[str], **options: Any) -> str:
        """Run a command that must succeed; returns its standard output. Raises `MachineError` if its exit status is not 0."""
        result = self.run(command, **options)
        if not result.ok:
            raise self._wrong(result, "the command failed")
        return result.stdout

    def fail(self, command: str | Sequence[str], **options: Any) -> str:
        """Run a command that must fail; returns what it printed. Raises `MachineError` if it succeeds."""
        result = self.run(command, **options)
        if result.ok:
            raise self._wrong(result, "the command succeeded, and should have failed")
        return result.stderr + result.stdout

    def test(self, command: str | Sequence[str], **options: Any) -> bool:
        """Run a command and say whether it succeeded."""
        return self.run(command, **options).ok

    def wait_until_succeeds(self, command: str | Sequence[str], timeout_s: float = 30.0) -> str:
        """Run a command again and again until it succeeds; returns its output. Raises `MachineError` with the last try."""
        last: list[Result] = []

        def attempt(seconds: float) -> bool:
            until = time.monotonic() + seconds
            while not last or not last[0].ok:
                last[:] = [self.run(command, timeout_s=max(1.0, timeout_s))]
                if time.monotonic() > until:
                    break
            return last[0].ok

        if not wait_showing(f"{self.name}: {command}", attempt, timeout_s):
            raise self._wrong(last[0], f"the command did not succeed within {timeout_s:.0f} s; its last try failed")
        return last[0].stdout

    def _agent(self, timeout_s: float = BOOT_DEADLINE_S) -> Agent:
        """The line to the agent, once the guest is up."""
        running = self.running
        if self._state is State.PAUSED:
            raise MachineError(self.name, "is paused, and a paused guest runs nothing", hint=f"{self.name}.resume()")
        if not self._ready.is_set() and not wait_showing(f"{self.name} boots", self._ready.wait, timeout_s):
            raise MachineError(self.name, f"it did not come up within {timeout_s:.0f} s", log=running.console_log)
        return self.running.agent

    def _await(self, agent: Agent, job: Job, what: str, timeout_s: float) -> None:
        """Wait for a job; whatever goes wrong becomes an error that says what, and what it had printed."""
        wait_showing(f"{self.name}: {what[:60]}", job.wait, timeout_s)
        try:
            in_time = agent.finish(job, 0)
        except MachineError as error:
            self._settle()
            problem = self._ending or error.problem
            raise MachineError(
                self.name, problem, command=what, output=_text(job) or self._log_text(), log=self._running.console_log if self._running else None
            ) from error
        if not in_time:
            state = "it was killed" if job.status is not None else "the guest does not answer: it hangs, or is very busy"
            raise MachineError(
                self.name, f"not done within {timeout_s:g} s; {state}", command=what, output=_text(job), log=self.running.console_log, hint="a longer timeout_s=…"
            )

    def _settle(self) -> None:
        """QEMU's lines close a moment before its end is known: wait for that, so that the error can say it."""
        if self._running is not None:
            self._running.child.wait(1.0)

    def _wrong(self, result: Result, problem: str) -> MachineError:
        return MachineError(
            self.name,
            problem,
            command=result.command,
            exit_status=result.exit_status,
            output=result.stderr + result.stdout,
            log=self.running.console_log,
        )

    # --- files --------------------------------------------------------------------------------------------------

    def put(self, path: str, content: bytes | str | Path, *, mode: int = 0o644, timeout_s: float = 120.0) -> None:
        """Write a file in the guest: bytes, text, or the content of a file here (a `Path`)."""
        data = content.read_bytes() if isinstance(content, Path) else content.encode() if isinstance(content, str) else bytes(content)
        agent = self._agent()
        job = agent.put(path, mode)
        agent.feed(job, data, timeout_s)
        self._await(agent, job, f"put {path}", timeout_s)
        self._check_file(job, path, "write")

    def get(self, path: str, *, timeout_s: float = 120.0) -> bytes:
        """Return the bytes of a file in the guest."""
        agent = self._agent()
        job = agent.get(path)
        self._await(agent, job, f"get {path}", timeout_s)
        self._check_file(job, path, "read")
        return bytes(job.out)

    def _check_file(self, job: Job, path: str, verb: str) -> None:
        if job.status:
            raise MachineError(self.name, f"can't {verb} {path}: {os.strerror(-job.status)}")

    # --- states -------------------------------------------------------------------------------------------------

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
            raise UsageError(f"{self.name} has no saved state {name!r}.", allowed=", ".join(self._saved) or "none yet", example=f'{self.name}.save("{name}")')
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
                f"{self.name} has disks, and two machines can't share one.", allowed="clone a machine without disks", example=f'{self.name}.unplug("disk1")'
            )
        self.save(f"for-{check_name(name)}")
        saved = self._saved.pop(f"for-{name}")
        try:
            return self._home.sibling(name, self.spec, Source(state=saved.file), saved.devices)
        finally:
            saved.file.unlink()

    @property
    def saved_states(self) -> list[str]:
        """Names that `restore` knows."""
        return list(self._saved)

    # --- hardware -----------------------------------------------------------------------------------------------

    def plug(
        self, *, disk: str | int | Path | None = None, nic: bool = False, memory: str | int | None = None, cpu: bool = False, writable: bool = False
    ) -> hotplug.Device:
        """Plug one device into the running machine; returns it, with its name in the guest, when the guest has it.

        `disk`: a size for an empty disk, or a raw or qcow2 file (used through an overlay unless `writable`);
        `memory`: a multiple of 128M; `nic=True`: one more network card; `cpu=True`: one more CPU.
        """
        wanted = [kind for kind, value in (("disk", disk), ("nic", nic), ("memory", memory), ("cpu", cpu)) if value]
        if len(wanted) != 1:
            raise UsageError(
                f"plug() takes one device, and got {', '.join(wanted) or 'none'}.", allowed='disk="1G", nic=True, memory="256M" or cpu=True', example='n1.plug(disk="1G")'
            )
        device_id, directory = hotplug.next_id(wanted[0], self.devices), self._home.owner.directory
        qmp = self._agent() and self.running.qmp
        if disk:
            device = hotplug.disk(disk, device_id, hotplug.free_slot(self.devices), directory, self.name, writable=writable)
        elif nic:
            device = hotplug.nic(device_id, hotplug.free_slot(self.devices), directory, self.identity)
        elif memory:
            self._refuse_memory_after_cpu()
            device = hotplug.memory(memory, device_id)
        else:
            device = hotplug.cpu(qmp.execute("query-hotpluggable-cpus"), device_id)
        before = self._memory_total() if memory else 0
        for command, arguments in device.commands:
            qmp.answer(qmp.send(command, **arguments))
        device = replace(device, guest_name=self._appeared(device, before))
        self.devices[device.id] = device
        return device

    def _refuse_memory_after_cpu(self) -> None:
        """QEMU 7.2 aborts when memory is plugged in after a CPU was taken out."""
        if self._cpu_removed:
            raise UsageError("QEMU would crash: memory can't be plugged in after a CPU was unplugged.", allowed="plug the memory first, or start anew")

    def _appeared(self, device: hotplug.Device, memory_before: int) -> str:
        """Wait until the guest has the device; returns its name there."""
        if device.kind == "disk":
            found = self.wait_until_succeeds(f"grep -lx {device.id} /sys/block/*/serial")
            return "/dev/" + found.split("/")[3]
        if device.kind == "nic":
            self.wait_until_succeeds(f"test -e /sys/class/net/{device.guest_name}")
            return device.guest_name
        if device.kind == "memory":
            self.wait_until_succeeds(f"test $(awk '/MemTotal/ {{print $2}}' /proc/meminfo) -gt {memory_before}")
            return ""
        self.wait_until_succeeds("for c in /sys/devices/system/cpu/cpu[0-9]*/online; do test $(cat $c) = 1 || echo 1 > $c; done; test $(ls -d /sys/devices/system/cpu/cpu[0-9]* | wc -l) = $(nproc --all)")
        return f"cpu{int(self.succeed('nproc --all')) - 1}"

    def _memory_total(self) -> int:
        return int(self.succeed("awk '/MemTotal/ {print $2}' /proc/meminfo"))

    def unplug(self, device: str | hotplug.Device, timeout_s: float = 30.0) -> None:
        """Take a plugged device out; returns when the guest has let go of it."""
        device_id = device if isinstance(device, str) else device.id
        if device_id not in self.devices:
            raise UsageError(f"{self.name} has no plugged device {device_id!r}.", allowed=", ".join(self.devices) or "none is plugged in", example=f"{self.name}.devices")
        qmp, known = self.running.qmp, self.devices[device_id]
        qmp.events.clear()
        qmp.execute("device_del", id=device_id)
        gone = ("DEVICE_DELETED", "MEM_UNPLUG_ERROR", "DEVICE_UNPLUG_GUEST_ERROR")
        event = qmp.wait_event(lambda e: e["event"] in gone and e["data"].get("device") == device_id, timeout_s, f"unplugging {device_id}")
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

    def set_balloon(self, size: str | int, timeout_s: float = 20.0) -> int:
        """Ask the guest to leave only `size` of memory to itself; returns what it came to, in bytes.

        The balloon driver in the guest takes pages and gives them back to the host (virtio, 5.5 Traditional Memory Balloon Device).
        """
        target, qmp = parse_size(size), self.running.qmp
        if target > self.spec.memory:
            raise UsageError(f"{format_size(target)} is more than {self.name} has.", allowed=f"up to {format_size(self.spec.memory)}", example='n1.set_balloon("128M")')
        qmp.execute("balloon", value=target)

        def reached(seconds: float) -> bool:
            until = time.monotonic() + seconds
            while qmp.execute("query-balloon")["actual"] != target:
                if time.monotonic() > until:
                    return False
                threading.Event().wait(0.02)
            return True

        wait_showing(f"{self.name}: balloon", reached, timeout_s)
        return int(qmp.execute("query-balloon")["actual"])

    # --- to look at ---------------------------------------------------------------------------------------------

    @property
    def console(self) -> Console:
        """The serial line with a shell on it, as pexpect has it."""
        running = self.running
        if self._console is None:
            line = socket.socket(socket.AF_UNIX)
            line.connect(str(running.console_socket))
            self._wire = Wire(self.name, line)
            self._console = Console(self.name, self._wire, running.console_log)
        return self._console

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
        """What it uses now: CPU seconds and memory of its process here."""
        return measure(psutil.Process(self.running.child.pid), self.spec.memory)

    def screenshot(self) -> Picture:
        """Return what its screen shows, as a PNG picture; needs a machine made with `screen=True`."""
        if not self.spec.screen:
            raise UsageError(
                f"{self.name} has no screen, only a serial line.", allowed="a machine with a VGA card", example='lab.machine("n2", screen=True).screenshot()'
            )
        file = self._home.owner.path(f"{self.name}.png")
        self.running.qmp.execute("screendump", filename=str(file), format="png")
        return Picture(file.read_bytes())

    def __repr__(self) -> str:
        return f"<machine {self.name}: {self._state.value}, {format_size(self.spec.memory)}, {self.spec.cpus} CPU, {self.identity.address}>"


def _pass(on_output: Callable[[bytes], None] | None) -> Callable[[int, bytes], None] | None:
    if on_output is None:
        return None
    return lambda kind, data: on_output(data) if kind == OUT else None


def _exit_status(job: Job, machine: str, command: str) -> int:
    assert job.status is not None  # a finished job has one
    if job.status < 0:
        raise MachineError(machine, f"could not start the command: {os.strerror(-job.status)}", command=command)
    return job.status if job.status < 256 else job.status - 256 + 128


def _text(job: Job) -> str:
    return (bytes(job.out[-4000:]) + bytes(job.err[-4000:])).decode(errors="replace")
