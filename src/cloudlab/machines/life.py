"""A guest's life: started, running, paused, ended, and why."""

from __future__ import annotations

import enum
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloudlab.errors import CloudlabError, MachineError
from cloudlab.machines import hotplug
from cloudlab.machines.accelerator import Accelerator
from cloudlab.machines.agent import Agent, Job
from cloudlab.machines.console import Console, Wire
from cloudlab.machines.launch import Running, Source, explain, launch
from cloudlab.machines.qmp import Event
from cloudlab.machines.spec import Identity, Spec
from cloudlab.machines.states import BOOT_DEADLINE_S, Template
from cloudlab.owner import Budget, Owner
from cloudlab.owner.waiting import wait_showing

if TYPE_CHECKING:
    from cloudlab.machines.machine import Machine

_CLOSE_DEADLINE_S = 5.0
# What the kernel says last, before a page or two about why.
_PANIC, _PANIC_WITHIN = b"Kernel panic - not syncing", 1 << 14


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


class Life:
    """One QEMU process and what becomes of it; `Machine` adds the verbs that work in the guest."""

    def __init__(self, home: Home, identity: Identity, spec: Spec, template: Template | None) -> None:
        self.name, self.identity, self.spec = identity.name, identity, spec
        self.devices: dict[str, hotplug.Device] = {}
        self._home, self._template = home, template
        self._running: Running | None = None
        self._console: Console | None = None
        self._wire: Wire | None = None
        self._console_lock = threading.Lock()
        self._watchers: list[Callable[[], None]] = []
        self._ready, self._settled, self._ending, self._state = threading.Event(), threading.Event(), "", State.OFF
        self._identity_job: Job | None = None
        self._cpu_removed, self._resets = False, 0

    def start(self, *, cold: bool = False) -> Self:
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
        mine = self._home.owner.directory
        self.devices = {name: hotplug.made_for(self.identity, device, mine) for name, device in devices.items()}
        self._launch(source)

    def _launch(self, source: Source) -> None:
        self._home.budget.admit(self.name, self.spec.memory)
        self._ready.clear()
        self._hang_up()
        self._ending, self._cpu_removed, self._state = "", False, State.STARTING
        plugged = tuple(word for device in self.devices.values() for word in device.arguments())
        try:
            running = launch(
                self._home.owner,
                self.name,
                self.spec,
                source,
                mac=self.identity.mac,
                plugged=plugged,
                on_event=self._on_event,
            )
            self._running = running
            self._home.budget.started(self.name, running.child.pid)
            running.child.on_exit(lambda: self._on_exit(running))
            if source.state is not None:
                running.qmp.send("cont")  # the agent's answer says more than QEMU's would
            self._identify(running)
            running.mark("agent")
        except MachineError as error:
            said = explain(self._running, error) if self._running else error
            self._give_up()
            raise said from error
        except BaseException:
            self._give_up()
            raise
        self._note()
        self._come_up()

    def _come_up(self) -> None:
        """Who waits for the guest may go on; who watches it is called, and may use it; `reboot` returns after that."""
        self._settled.clear()
        self._state_now = State.RUNNING
        self._ready.set()
        try:
            self._tell_watchers()
        finally:
            self._settled.set()

    def _give_up(self) -> None:
        self._end_process()
        self._state = State.CRASHED
        self._home.budget.release(self.name)

    def _identify(self, running: Running) -> None:
        """Wait for the agent's first answer, and give the guest its own name, address, time and randomness.

        The agent does things in the order in which they come, so whatever is asked next finds the identity in place:
        its end is waited for there (`_agent`), not here.
        """
        identity = self.identity
        alive = running.agent.ping()
        self._identity_job = running.agent.identify(
            identity.name, identity.mac, identity.address, secrets.token_hex(16)
        )
        if not wait_showing(f"{self.name} starts", alive.wait, BOOT_DEADLINE_S):
            raise MachineError(
                self.name, f"the guest did not answer within {BOOT_DEADLINE_S:.0f} s", log=running.console_log
            )
        if alive.failure:
            raise MachineError(self.name, alive.failure, log=running.console_log)

    def _note(self) -> None:
        facts = {
            "machine": self.name,
            "pid": self.running.child.pid,
            "memory": self.spec.memory,
            "cpus": self.spec.cpus,
        }
        self._home.owner.note(
            self.name, facts | {"accelerator": self.spec.accelerator, "address": self.identity.address}
        )

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
            if _PANIC in self._running.printed(_PANIC_WITHIN):  # before the driver was loaded that would tell
                self._ending = "the guest's kernel panicked"
                self._running.child.kill()
                return
            self._state = State.STARTING
            self._ready.clear()
            self._running.agent.forget("the guest was reset while it was working")
            self._resets += 1
            threading.Thread(target=self._after_reset, args=(self._running, self._resets), daemon=True).start()

    def _after_reset(self, running: Running, reset: int) -> None:
        """A guest that boots again needs its identity again."""
        try:
            self._identify(running)
            self._come_up()
        except CloudlabError as error:
            if reset != self._resets:
                return  # it was reset once more (QEMU tells of a reset twice): the last one counts
            self._ending = error.problem if isinstance(error, MachineError) else str(error)
        self._ready.set()

    def _on_exit(self, running: Running) -> None:
        if running is not self._running or self._state is State.OFF:
            return
        in_order = self._ending == "the guest powered off"
        self._ending = self._ending or f"QEMU ended unexpectedly ({running.child.how_it_ended()})"
        self._state = State.OFF if in_order else State.CRASHED
        self._home.budget.release(self.name)
        self._ready.set()

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._state

    @property
    def ending(self) -> str:
        """Why it ended, in words; empty while it runs."""
        return self._ending

    def on_change(self, call: Callable[[], None]) -> Callable[[], None]:
        """Have `call` called at each change of `state`, by whatever thread makes it; returns what puts an end to that."""
        self._watchers.append(call)
        return lambda: self._watchers.remove(call)

    @property
    def _state(self) -> State:
        return self._state_now

    @_state.setter
    def _state(self, state: State) -> None:
        self._state_now = state
        self._tell_watchers()

    def _tell_watchers(self) -> None:
        for call in list(self._watchers):
            call()

    @property
    def running(self) -> Running:
        """Its process and lines; raises `MachineError` if it does not run, saying what became of it."""
        if self._state in (State.OFF, State.CRASHED) or self._running is None or not self._running.child.alive:
            raise self._not_running()
        return self._running

    def _not_running(self) -> MachineError:
        log = self._running.console_log if self._running else None
        child = self._running.child if self._running else None
        output = self._last_words() or (child.printed() if child else "")
        return MachineError(
            self.name,
            f"is {self._state.value}" + (f": {self._ending}" if self._ending else ""),
            output=output,
            log=log,
            hint=f"{self.name}.start()",
        )

    def _last_words(self) -> str:
        """What the kernel said when it panicked; nothing if it did not."""
        log = self._running.console_log if self._running else None
        text = log.read_text(errors="replace") if log and log.exists() else ""
        return "\n".join(text[text.index("Kernel panic") :].splitlines()[:8]) if "Kernel panic" in text else ""

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
            raise MachineError(
                self.name,
                f"it did not come back within {timeout_s:.0f} s of `reboot`",
                log=self.running.console_log,
            )
        if self._state is not State.RUNNING:
            raise self._not_running()
        self._settled.wait(timeout_s)

    def power_off(self, timeout_s: float = 20.0) -> None:
        """Have the guest shut down in order: files synchronised, processes ended, power off. Does nothing if it is off."""
        if self._state is State.OFF:
            return
        running = self.running
        running.qmp.execute("cont")  # a paused guest can't shut down
        running.agent.start("poweroff")
        if not wait_showing(f"{self.name} shuts down", running.child.wait, timeout_s):
            raise MachineError(
                self.name,
                f"it did not power off within {timeout_s:.0f} s",
                hint=f"{self.name}.crash() pulls the plug",
                log=running.console_log,
            )
        self._ending, self._state = "it was powered off", State.OFF
        self._home.budget.release(self.name)

    def crash(self) -> None:
        """Pull the plug: the process is killed, what was not written to a disk is lost."""
        self.running  # noqa: B018 - raises if it does not run
        self._ending = "the plug was pulled"
        self._end_process()

    def close(self) -> None:
        """End it without ceremony, as the lab does at its own end."""
        self._ending, self._state = "it was closed", State.OFF
        self._end_process()
        self._home.budget.release(self.name)

    def _end_process(self) -> None:
        if self._running is None:
            return
        self._running.child.kill()
        if not self._running.child.wait(_CLOSE_DEADLINE_S):
            raise MachineError(self.name, "its QEMU does not end, even killed", log=self._running.child.log)
        self._hang_up()  # not before its end: who follows the line would call again, and get through
        self._running.close()

    def _hang_up(self) -> None:
        with self._console_lock:
            if self._console is not None and self._wire is not None:
                self._console.close()
                self._wire.close()
            self._console = self._wire = None

    def _agent(self, timeout_s: float = BOOT_DEADLINE_S) -> Agent:
        """The line to the agent, once the guest is up."""
        running = self.running
        if self._state is State.PAUSED:
            raise MachineError(self.name, "is paused, and a paused guest runs nothing", hint=f"{self.name}.resume()")
        if not self._ready.is_set() and not wait_showing(f"{self.name} boots", self._ready.wait, timeout_s):
            raise MachineError(self.name, f"it did not come up within {timeout_s:.0f} s", log=running.console_log)
        if self._identity_job is not None:
            self._check_identity(self._identity_job, timeout_s)
        return self.running.agent

    def _check_identity(self, job: Job, timeout_s: float) -> None:
        running = self.running
        if not running.agent.finish(job, timeout_s) or job.status:
            raise MachineError(
                self.name, f"the guest could not take on its identity ({job.status})", log=running.console_log
            )
        self._identity_job = None
