"""`Lab`: one call for each thing a learner may ask for; one owner for all that is running."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import TracebackType

import networkx as nx

from cloudlab.errors import UsageError
from cloudlab.images import Image, ImageStore
from cloudlab.machines import Machine, Spec, State
from cloudlab.machines import accelerator as accelerators
from cloudlab.machines.accelerator import Accelerator
from cloudlab.machines.hotplug import Device
from cloudlab.machines.launch import Source
from cloudlab.machines.life import Home
from cloudlab.machines.qemu import find_qemu
from cloudlab.machines.spec import Identity, check_name
from cloudlab.machines.states import Templates
from cloudlab.owner import Budget, Owner
from cloudlab.owner.budget import DEFAULT_GUESTS
from cloudlab.units import parse_size

_HIGHEST = (1 << 16) - 2


class Lab:
    """A laboratory: `lab.machine("n1")` gives a running guest; `lab.close()`, or the end of Python, ends everything.

    `memory` and `guests` limit what it may use (by default: most of the memory that is free now, 128 guests).
    Elsewhere than in a notebook: `with Lab() as lab: …`.
    """

    def __init__(self, *, memory: int | str | None = None, guests: int = DEFAULT_GUESTS) -> None:
        find_qemu()
        self.budget = Budget(memory, guests)
        self.images = ImageStore()
        self._owner = Owner()
        self._templates = Templates(self.images.directory / "states", self._owner)
        self._machines: dict[str, Machine] = {}
        self._images: dict[str, Image] = {}
        self._lock = threading.RLock()

    def machine(
        self,
        name: str,
        *,
        image: str = "node",
        memory: int | str = "384M",
        cpus: int = 1,
        cold: bool = False,
        screen: bool = False,
        aslr: bool = False,
        disks: list[str] | None = None,
        accelerator: str | None = None,
    ) -> Machine:
        """Return the running guest called `name`: restored from a saved state in a blink, or booted (`cold`).

        The same call again returns the same machine; one that has ended is started anew. `screen` adds a VGA card, `disks` are
        sizes or files (see `Machine.plug`), `aslr` turns address-space randomisation on: safer, and 2 to 5 times slower to start
        programs where instructions are translated, because what was translated for one address is of no use at another.
        """
        check_name(name)
        with self._lock:
            built = self._image(image)
            chosen = self._accelerator(built, accelerator)
            spec = self._spec(built, parse_size(memory), cpus, chosen, screen=screen, aslr=aslr)
            known = self._machines.get(name)
            if (
                known is not None
                and known.spec == spec
                and known.state in (State.RUNNING, State.PAUSED, State.STARTING)
            ):
                return known
            if known is not None and known.state not in (State.OFF, State.CRASHED):
                raise UsageError(
                    f"{name} is running already, and is another kind of machine: {known!r}.",
                    allowed="the same options again, another name, or end it first",
                    example=f"{name}.power_off()",
                )
            template = None if cold else self._templates.get(spec, built.sha256["initrd.cpio"])
            machine = Machine(self._home(chosen), self._identity(name), spec, template)
            self._machines[name] = machine
        machine.start(cold=cold)
        for disk in disks or []:
            machine.plug(disk=disk)
        return machine

    def _image(self, name: str) -> Image:
        """An image is looked for once a lab: what has been found does not change under its name."""
        known = self._images.get(name)
        if known is None or not known.initrd.exists():
            known = self._images[name] = self.images.get(name)
        return known

    def _accelerator(self, image: Image, wanted: str | None) -> Accelerator:
        if wanted is not None:
            return accelerators.named(wanted, "asked for")
        return accelerators.choose(self._owner, Spec(image.kernel, image.initrd, image.append), self.images.directory)

    def _spec(
        self, image: Image, memory: int, cpus: int, accelerator: Accelerator, *, screen: bool, aslr: bool
    ) -> Spec:
        return Spec(image.kernel, image.initrd, image.append, memory, cpus, accelerator.name, screen, aslr)

    def _home(self, accelerator: Accelerator) -> Home:
        def sibling(name: str, spec: Spec, source: Source, devices: dict[str, Device]) -> Machine:
            return self._sibling(self._home(accelerator), name, spec, source, devices)

        return Home(self._owner, self.budget, accelerator, sibling)

    def _sibling(self, home: Home, name: str, spec: Spec, source: Source, devices: dict[str, Device]) -> Machine:
        with self._lock:
            if name in self._machines and self._machines[name].state not in (State.OFF, State.CRASHED):
                raise UsageError(
                    f"{name} is running already.",
                    allowed="a name that is free",
                    example=f'n1.clone("{name}-2")',
                )
            machine = Machine(home, self._identity(name), spec, None)
            self._machines[name] = machine
        machine.adopt(source, devices)
        return machine

    def _identity(self, name: str) -> Identity:
        """A name predicts its number: n2 is number 2, if that is free; another name gets the first free one from 200 on."""
        taken = {machine.identity.number for other, machine in self._machines.items() if other != name}
        digits = re.search(r"\d+$", name)
        number = int(digits[0]) if digits else 0
        if not 0 < number <= _HIGHEST or number in taken:
            number = next(free for free in range(200, _HIGHEST) if free not in taken)
        return Identity(name, number)

    @property
    def machines(self) -> dict[str, Machine]:
        """All machines of this lab by name, ended ones included."""
        return dict(self._machines)

    def __getitem__(self, name: str) -> Machine:
        if name not in self._machines:
            raise UsageError(
                f"There is no machine {name!r} in this lab.",
                allowed=", ".join(self._machines) or "none yet",
                example=f'lab.machine("{name}")',
            )
        return self._machines[name]

    @property
    def topology(self) -> nx.Graph[str]:
        """The graph of what exists now: a node for each machine, with its kind, state and address."""
        graph: nx.Graph[str] = nx.Graph()
        for name, machine in self._machines.items():
            graph.add_node(name, kind="machine", state=machine.state.value, address=machine.identity.address)
        return graph

    def path(self, name: str) -> Path:
        """Return the path of a file in the lab's own directory, which goes when the lab does."""
        return self._owner.path(name)

    def close(self) -> list[str]:
        """End everything this lab has started; returns the names of the machines that were running."""
        ended = [name for name, machine in self._machines.items() if machine.state not in (State.OFF, State.CRASHED)]
        for machine in self._machines.values():
            if self._owner.alive:
                machine.close()
        self._owner.close()
        return ended

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<lab {self._owner.id}: {len(self._machines)} machines, {self.budget!r}>"
