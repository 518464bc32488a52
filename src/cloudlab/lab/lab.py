"""`Lab`: one call for each thing a learner may ask for; one owner for all that is running."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import networkx as nx

from cloudlab.errors import UsageError
from cloudlab.images import Image, ImageStore
from cloudlab.lab.cabling import HOME_SUBNET, Cabling, Card
from cloudlab.lab.net import Net, at_once
from cloudlab.lab.node import Node
from cloudlab.machines import Spec, State
from cloudlab.machines import accelerator as accelerators
from cloudlab.machines.accelerator import Accelerator
from cloudlab.machines.hotplug import Device
from cloudlab.machines.launch import Source
from cloudlab.machines.life import Home
from cloudlab.machines.qemu import find_qemu
from cloudlab.machines.spec import Identity, check_name
from cloudlab.machines.states import Templates
from cloudlab.networks import Link, Switch, Topology, Uplink
from cloudlab.owner import Budget, Owner
from cloudlab.owner.budget import DEFAULT_GUESTS
from cloudlab.units import natural, parse_size

if TYPE_CHECKING:
    from cloudlab.containers.registry import Registry

_PREDICTED = re.compile(r"([nr])(\d+)")
_CONTAINER_STATES = {"created": "starting", "running": "running", "paused": "paused"}
_HIGHEST = (1 << 16) - 2


class Lab:
    """A laboratory: `lab.machine("n1")` gives a running guest; `lab.close()`, or the end of Python, ends everything.

    `memory` and `guests` limit what it may use (by default: most of the memory that is free now, 128 guests);
    `accelerator` ("tcg", "kvm") is that of all its machines, unless they have one of their own.
    Elsewhere than in a notebook: `with Lab() as lab: …`.
    """

    def __init__(
        self, *, memory: int | str | None = None, guests: int = DEFAULT_GUESTS, accelerator: str | None = None
    ) -> None:
        find_qemu()
        if accelerator is not None:
            accelerators.named(accelerator, "asked for")
        self._wanted = accelerator
        self._nets: list[tuple[str, Net]] = []
        self.budget = Budget(memory, guests)
        self.images = ImageStore()
        self._owner = Owner()
        self._templates = Templates(self.images.directory / "states", self._owner)
        self._machines: dict[str, Node] = {}
        self._images: dict[str, Image] = {}
        self._registry: Registry | None = None
        self._lock = threading.RLock()
        self._cabling = Cabling(self._machines, self._owner.path)

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
        cgroups: str = "v2",
        disks: list[str] | None = None,
        accelerator: str | None = None,
    ) -> Node:
        """Return the running guest called `name`: restored from a saved state in a blink, or booted (`cold`).

        The same call again returns the same machine; one that has ended is started anew. `screen` adds a VGA card, `disks` are
        sizes or files (see `Machine.plug`), `aslr` turns address-space randomisation on: safer, and 2 to 5 times slower to start
        programs where instructions are translated, because what was translated for one address is of no use at another.
        `cgroups="v1"` gives each controller a hierarchy of its own in /sys/fs/cgroup, as it was before version 2.
        """
        self._check_free(name, among=[*self.switches, *self._cabling.uplinks])
        with self._lock:
            built = self._image(image)
            chosen = self._accelerator(built, accelerator)
            spec = self._spec(built, parse_size(memory), cpus, chosen, screen=screen, aslr=aslr, cgroups=cgroups)
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
            machine = self._add(Node(self._home(chosen), self._identity(name), spec, template))
        try:
            machine.start(cold=cold)
        except UsageError:
            if known is None:  # refused by the budget: there never was such a machine
                del self._machines[name]
            raise
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
        wanted = wanted or self._wanted
        if wanted is not None:
            return accelerators.named(wanted, "asked for")
        return accelerators.choose(self._owner, Spec(image.kernel, image.initrd, image.append), self.images.directory)

    def _spec(self, image: Image, memory: int, cpus: int, accelerator: Accelerator, **more: Any) -> Spec:
        return Spec(image.kernel, image.initrd, image.append, memory, cpus, accelerator.name, **more)

    def _home(self, accelerator: Accelerator) -> Home:
        def sibling(name: str, spec: Spec, source: Source, devices: dict[str, Device]) -> Node:
            return self._sibling(self._home(accelerator), name, spec, source, devices)

        return Home(self._owner, self.budget, accelerator, sibling)

    def _sibling(self, home: Home, name: str, spec: Spec, source: Source, devices: dict[str, Device]) -> Node:
        with self._lock:
            if name in self._machines and self._machines[name].state not in (State.OFF, State.CRASHED):
                raise UsageError(
                    f"{name} is running already.",
                    allowed="a name that is free",
                    example=f'n1.clone("{name}-2")',
                )
            machine = self._add(Node(home, self._identity(name), spec, None))
        machine.adopt(source, devices)
        return machine

    def _add(self, machine: Node) -> Node:
        self._machines[machine.name] = machine
        machine.on_change(lambda: self._cabling.follow(machine.name))
        return machine

    def _identity(self, name: str) -> Identity:
        """A name predicts its number: n2 is number 2, if that is free; another name gets the first free one from 200 on."""
        taken = {machine.identity.number for other, machine in self._machines.items() if other != name}
        digits = re.search(r"\d+$", name)
        number = int(digits[0]) if digits else 0
        if name in self._cabling.routers and 0 < number < 100:
            number = 255 - number  # a gateway is the last address of a network, by custom
        if not 0 < number <= _HIGHEST or number in taken:
            number = next(free for free in range(200, _HIGHEST) if free not in taken)
        return Identity(name, number)

    @property
    def machines(self) -> dict[str, Node]:
        """All machines of this lab by name, ended ones included."""
        return dict(sorted(self._machines.items(), key=lambda item: natural(item[0])))

    @property
    def running(self) -> dict[str, Node]:
        """The machines that run now, by name."""
        return {name: machine for name, machine in self.machines.items() if machine.state is State.RUNNING}

    def __getitem__(self, name: str) -> Node:
        if name not in self._machines:
            raise UsageError(
                f"There is no machine {name!r} in this lab.",
                allowed=", ".join(self._machines) or "none yet",
                example=f'lab.machine("{name}")',
            )
        return self._machines[name]

    # --- networks ---

    def switch(
        self, name: str, *, spanning_tree: bool = False, subnet: str = HOME_SUBNET, switch_class: type[Switch] = Switch
    ) -> Switch:
        """Add a switch; guests linked to it have addresses in `subnet`, with the number of their name.

        `switch_class` may be one of your own, with another `receive`.
        """
        self._check_free(name, among=self._names)
        return self._cabling.add_switch(name, spanning_tree=spanning_tree, subnet=subnet, switch_class=switch_class)

    def link(self, a: str, b: str, **conditions: Any) -> Link:
        """Link two machines or switches, running or not; `delay`, `jitter`, `loss`, `rate` as in `Link.set`.

        At a switch, `vlan=10` makes an access port of that VLAN, `trunk=[10, 20]` passes these VLANs with their tags (802.1Q).
        """
        for name in (a, b):
            if name not in self._machines and name not in self.switches:
                raise UsageError(
                    f"There is no machine or switch {name!r} to link.",
                    allowed=", ".join([*self._machines, *self.switches]) or "none yet",
                    example=f'lab.machine("{name}")',
                )
        return self._cabling.add_link(a, b, **conditions)

    def uplink(self, name: str, switch: str) -> Uplink:
        """Give the guests on a switch a way to the network of this computer (see `Uplink`)."""
        self._check_free(name, among=self._names)
        if switch not in self.switches:
            raise UsageError(
                f"There is no switch {switch!r}.",
                allowed=", ".join(self.switches) or "none yet",
                example='lab.switch("s1"); lab.uplink("u1", "s1")',
            )
        return self._cabling.add_uplink(name, switch, self._owner, find_qemu())

    def start(self, topology: Topology) -> Net:
        """Bring up a topology: its switches, links and guests, several at a time; returns the network when all guests answer.

        The same topology again is the same network; machines of it that have ended are started anew. If one can't be
        started, what this call has started ends again, and its error is raised.
        """
        known = next((net for plan, net in self._nets if plan == topology.to_yaml() and not net.closed), None)
        if known is not None:
            self._start_machines(topology)
            return known
        names = list(topology.graph)
        for name in names:
            self._check_free(name, among=self._names)
        machines = topology.named("machine", "router")
        try:
            self._check_subnets(topology)
            self._lay_out(topology)
            self._start_machines(topology)
            self._tell_names(machines)
        except BaseException:
            self._take_back(names)
            raise
        net = Net(self, names)
        self._nets.append((topology.to_yaml(), net))
        return net

    def _start_machines(self, topology: Topology) -> None:
        options = topology.graph.nodes
        at_once(
            lambda name: self.machine(name, **options[name]["options"]), topology.named("machine", "router"), "guests"
        )

    def _lay_out(self, topology: Topology) -> None:
        """Put in switches first, then the links between them, then those to machines that are not there yet."""
        for name in topology.named("switch"):
            self._cabling.add_switch(name, **topology.graph.nodes[name]["options"])
        between, uplinks = set(topology.named("switch")), set(topology.named("uplink"))
        for a, b, _ in topology.links:
            if {a, b} & uplinks:
                self.uplink(*((a, b) if a in uplinks else (b, a)))
        edges = [edge for edge in topology.links if not {edge[0], edge[1]} & uplinks]
        edges.sort(key=lambda edge: not {edge[0], edge[1]} <= between)
        for a, b, conditions in edges:
            self._cabling.add_link(a, b, **conditions)
        for name in topology.named("router"):
            self._cabling.routers[name] = (Card(name, 0), Card(name, 1))

    def _check_subnets(self, topology: Topology) -> None:
        options = {name: topology.graph.nodes[name]["options"] for name in topology.named("switch")}
        for router in topology.named("router"):
            switches = [b if a == router else a for a, b, _ in topology.links if router in (a, b)]
            subnets = [options[name]["subnet"] for name in switches if name in options]
            if len(subnets) != 2 or len(set(subnets)) != 2:
                raise UsageError(
                    f"{router} can't forward between {', '.join(switches) or 'nothing'}: {', '.join(subnets) or 'no switch'}.",
                    allowed="two links, first to the inside switch, then to one of another subnet",
                    example='.switch("s2", subnet="203.0.113.0/24")',
                )

    def _tell_names(self, names: list[str]) -> None:
        """Write each guest's /etc/hosts, so that names mean addresses."""
        addresses = {name: self.address(name) for name in names}
        if all(_is_predicted(name, address) for name, address in addresses.items()):
            return  # the image has these already
        lines = [f"{address} {name}" for name, address in addresses.items()]
        text = "\n".join(["127.0.0.1 localhost", *lines, ""])
        at_once(lambda name: self._machines[name].put("/etc/hosts", text), names, "names")

    def _take_back(self, names: list[str]) -> None:
        for name in names:
            machine = self._machines.pop(name, None)
            if machine is not None:
                machine.close()
        self._cabling.remove(names)

    @property
    def _names(self) -> list[str]:
        """Everything that has a name here."""
        return [*self._machines, *self.switches, *self._cabling.uplinks]

    def _check_free(self, name: str, among: Iterable[str]) -> None:
        check_name(name)
        if name in among:
            raise UsageError(f"{name} is in this lab already.", allowed="a name that is free", example=f"{name}b")

    def address(self, name: str) -> str:
        """Return the address of a machine's first network card."""
        return str(self._cabling.address(Card(self[name].name, 0)).ip)

    @property
    def switches(self) -> dict[str, Switch]:
        """All switches by name."""
        return dict(self._cabling.fabric.switches)

    @property
    def notices(self) -> list[str]:
        """What the networks had to tell: frames that go in circles."""
        return list(self._cabling.notices)

    @property
    def links(self) -> list[Link]:
        """All links."""
        return [cable.link for cable in self._cabling.cables]

    @property
    def topology(self) -> nx.Graph[str]:
        """The graph of what exists now: machines, switches, containers … with kind, state and address; links with their traffic."""
        graph: nx.Graph[str] = nx.Graph()
        for name, machine in list(self._machines.items()):
            kind = "router" if name in self._cabling.routers else "machine"
            state = {"powered off": "off"}.get(machine.state.value, machine.state.value)
            graph.add_node(name, kind=kind, state=state, address=self.address(name), mac=machine.identity.mac)
            for container in machine.parts:
                facts = container.facts
                state = _CONTAINER_STATES.get(facts.pop("status"), "off")
                graph.add_node(f"{name}/{container.name}", kind="container", state=state, **facts)
                graph.add_edge(name, f"{name}/{container.name}", kind="inside")
        for name, switch in self.switches.items():
            graph.add_node(name, kind="switch", state="running" if switch.on else "off", learned=len(switch.mac_table))
        for name, uplink in list(self._cabling.uplinks.items()):
            graph.add_node(
                name, kind="uplink", state="running" if uplink.alive else "crashed", address=str(uplink.gateway)
            )
        for link in self.links:
            if link.a in graph and link.b in graph:
                graph.add_edge(link.a, link.b, **link.facts)
        return graph

    def path(self, name: str) -> Path:
        """Return the path of a file in the lab's own directory, which goes when the lab does."""
        return self._owner.path(name)

    @property
    def registry(self) -> Registry:
        """A registry of images for the containers of all its machines, started when first asked for."""
        from cloudlab.containers.registry import Registry  # with all that it needs: only for who has containers

        with self._lock:
            if self._registry is None:
                self._registry = Registry(self._owner.path("registry"))
            return self._registry

    @property
    def closed(self) -> bool:
        """Has it ended?"""
        return not self._owner.alive

    def close(self) -> list[str]:
        """End everything this lab has started; returns the names of the machines that were running."""
        ended = [name for name, machine in self._machines.items() if machine.state not in (State.OFF, State.CRASHED)]
        for machine in self._machines.values():
            if self._owner.alive:
                machine.close()
        self._cabling.close()
        if self._registry is not None:
            self._registry.close()
        self._owner.close()
        return sorted(ended, key=natural)

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<lab {self._owner.id}: {len(self._machines)} machines, {self.budget!r}>"


def _is_predicted(name: str, address: str) -> bool:
    """Is this the address that the image's own /etc/hosts has for the name?"""
    match = _PREDICTED.fullmatch(name)
    number = int(match[2]) if match else 0
    known = (match is not None) and (1 <= number <= 250 if match[1] == "n" else 1 <= number <= 4)
    return known and address == f"10.0.0.{number if name.startswith('n') else 255 - number}"
