"""The engine of one guest: images, layers, networks and the runtime put together, as docker's daemon does on a computer.

Nothing runs here but what the learner calls, and one thread that starts containers again and asks after their health.
"""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from cloudlab.containers import logs
from cloudlab.containers.calls import CallError
from cloudlab.containers.container import Container, explained
from cloudlab.containers.layerstore import DIRECTORY, Layers, output_of, prepare
from cloudlab.containers.network import Network
from cloudlab.containers.registry.build import PATH, Step, build
from cloudlab.containers.registry.client import Pushed, pull, push
from cloudlab.containers.registry.image import Config, Descriptor, Image
from cloudlab.containers.registry.layers import oci_form, overlay_form
from cloudlab.containers.registry.store import Store
from cloudlab.containers.rootfs import Change, Overlay, changes_in, init_layer
from cloudlab.containers.runtime import Made, Runtime, Status, check_name
from cloudlab.containers.specification import ID_BASE, Volume, Wishes, configuration
from cloudlab.containers.supervisor import Event, Health, Supervisor
from cloudlab.errors import MachineError, UsageError
from cloudlab.images import ImageStore
from cloudlab.machines import Machine

_WISHES = {field.name for field in fields(Wishes)} - {"command", "network", "volumes", "hosts_file"}
_BUILD_DEADLINE_S = 600.0
_UNCONNECTED = ("none", "host")


@dataclass(frozen=True)
class _Plan:
    """What a container was made from: to make it again, and to make an image of it."""

    image: Image
    overlay: Overlay
    config: Mapping[str, Any]
    ports: Mapping[int, int]


class Engine:
    """The containers of one guest, by name; and the images that it knows."""

    def __init__(self, place: Machine, directory: Path) -> None:
        self.place, self.runtime = place, Runtime(place)
        self.images = Store(directory)
        self.layers = Layers(place)
        prepare(place)
        self._containers: dict[str, Container] = {}
        self._there: set[str] = set()  # layers that the guest has
        self._plans: dict[str, _Plan] = {}
        self._networks: dict[str, Network] = {}
        self._lock = threading.RLock()
        self.supervisor = Supervisor(self)

    def __iter__(self) -> Iterator[Container]:
        return iter(list(self._containers.values()))

    def __getitem__(self, name: str) -> Container:
        if name not in self._containers:
            raise UsageError(
                f"There is no container {name!r} on {self.place.name}.",
                allowed=", ".join(self._containers) or "none is there yet",
                example=f'{self.place.name}.container("{name}", image="busybox", command=["sleep", "60"])',
            )
        return self._containers[name]

    @property
    def events(self) -> list[Event]:
        """What has happened to all containers, the oldest first."""
        return list(self.supervisor.events)

    def __contains__(self, name: object) -> bool:
        return name in self._containers

    def create(
        self,
        name: str = "",
        *,
        image: str = "busybox",
        command: Sequence[str] | str = (),
        ports: Mapping[int, int] | None = None,
        network: str = "bridge",
        restart: str = "no",
        health: Health | None = None,
        volumes: Sequence[Volume | tuple[str, str]] = (),
        start: bool = True,
        **wishes: Any,
    ) -> Container:
        """Make a container of an image, and start it; what else can be asked for, `Wishes` says.

        `ports`: the guest's ports that lead to the container's ({8080: 80}); `network`: "bridge", "none", "host", or one that
        `network` made; `restart`: "no", "always", "unless-stopped", "on-failure:3"; `volumes`: (guest's path, container's path).
        """
        name = check_name(name or self._free_name())
        found = self.image(image)
        mounts = tuple(volume if isinstance(volume, Volume) else Volume(*volume) for volume in volumes)
        wanted = self._wishes(found, {"hostname": name, **wishes}, command, network=network, volumes=mounts)
        container = Container(self, name, image, wanted)
        with self._lock:
            if name in self._containers:
                raise UsageError(
                    f"There is a container {name!r} already.",
                    allowed="another name, or remove it first",
                    example=f'{self.place.name}.containers["{name}"].remove()',
                )
            self._containers[name] = container
        try:
            self._plans[name] = self._plan(container, found, ports or {})
            self.supervisor.watch(container, restart, health)
            if start:
                self._start_new(container)
            else:
                self._make(container, start=False)
        except BaseException:
            self._forget(container)
            raise
        return container

    def start(self, container: Container) -> None:
        """Start a container that was created, or that has ended: with what it wrote before."""
        with container.lock:
            status = self.runtime.state(container.name).status
            if status in (Status.RUNNING, Status.PAUSED):
                raise UsageError(f"Container {container.name} is {status.value} already.", allowed="one that has ended")
            if status is Status.CREATED:
                self._begin(container)
            else:
                self._detach(container)
                self._start_new(container, again=True)

    def _start_new(self, container: Container, *, again: bool = False) -> None:
        """Make a container and start it: in one round trip, or after it has been connected."""
        with container.lock:
            alone = container.wishes.network in _UNCONNECTED
            self._make(container, start=alone, again=again)
            if alone:
                self.supervisor.started(container)
            else:
                self._begin(container)

    def remove(self, container: Container, *, force: bool) -> None:
        """Remove a container; see `Container.remove`."""
        with container.lock:
            if not force and self.runtime.state(container.name).status not in (Status.STOPPED, Status.LOST):
                raise UsageError(
                    f"Container {container.name} is running.",
                    allowed="stop it first, or force=True",
                    example=f"{container.name}.stop()",
                )
            self.expect_end(container)
            self._forget(container)

    def image(self, name: str) -> Image:
        """Return an image that is here, or one that comes with cloudlab ("busybox"). Raises `UsageError` for another."""
        self._bring_if_ours(name)
        return self.images.image(name)

    def build(
        self, directory: str | Path, tag: str, *, on_step: Callable[[Step], None] = lambda _: None, **arguments: str
    ) -> Image:
        """Make an image from a directory with a Containerfile, and call it `tag`; `arguments` are for its ARGs."""
        for name in ImageStore().rootfs_names():
            self.image(name)  # what a FROM may name
        return build(
            self.images, directory, _Builder(self), tag=tag, on_step=on_step, arguments=arguments, offset=ID_BASE
        )

    def push(self, reference: str) -> Pushed:
        """Send an image to the registry that its name begins with ("127.0.0.1:5000/web"); returns what was sent, and what not.

        It is the image of that name here, or of the same name without the registry's, which then gets this one too.
        """
        plain = reference.partition("/")[2]
        self._bring_if_ours(plain)
        if self.images.find(reference) is None:
            self.images.tag(plain, reference)
        return push(self.images, reference)

    def pull(self, reference: str) -> Image:
        """Fetch an image from the registry that its name begins with; layers that are here are not fetched."""
        return pull(self.images, reference)

    def overlay(self, container: Container) -> Overlay:
        """Return the layers of a container's root."""
        return self._plans[container.name].overlay

    def config(self, container: Container) -> Mapping[str, Any]:
        """Return a container's config.json."""
        return self._plans[container.name].config

    def network(self, name: str = "bridge", **options: Any) -> Network:
        """Return a network of containers, made when first asked for."""
        with self._lock:
            if name not in self._networks:
                self._networks[name] = Network(self.place, name, **options)
            return self._networks[name]

    def changes(self, container: Container) -> list[Change]:
        """What a container has changed against its image."""
        return changes_in(self.place, self._plans[container.name].overlay)

    def commit(self, container: Container, tag: str) -> Image:
        """Make an image of a container."""
        plan = self._plans[container.name]
        upper = io.BytesIO(self.layers.tar_of(plan.overlay.upper))
        with self.images.layer_writer() as out:
            oci_form(upper, out, offset=self._offset(container))
            layer = out.commit()
        config = replace(plan.image.config, diff_ids=(*plan.image.config.diff_ids, layer.diff_id))
        return self.images.add_image(config, (*plan.image.layers, layer.descriptor), tag)

    def expect_end(self, container: Container) -> None:
        """Its end is wanted: it is not to be started again."""
        self.supervisor.expect_end(container)

    def close(self) -> None:
        """Remove all containers and networks."""
        for container in self:
            container.remove()
        for network in self._networks.values():
            network.remove()
        self.supervisor.close()

    # --- how -----------------------------------------------------------------------------------------------------

    def _bring_if_ours(self, name: str) -> None:
        """Take a root that was built from packages into the store, as an image of one layer, if that is what is meant."""
        if self.images.find(name) is not None or name not in ImageStore().rootfs_names():
            return
        with ImageStore().rootfs(name).open("rb") as tar, self.images.layer_writer() as out:
            shutil.copyfileobj(tar, out, 1 << 20)
            layer = out.commit()
        config = Config(env=(f"PATH={PATH}",), cmd=("sh",), diff_ids=(layer.diff_id,))
        self.images.add_image(config, (layer.descriptor,), name)

    def _wishes(self, image: Image, wishes: Mapping[str, Any], command: Sequence[str] | str, **more: Any) -> Wishes:
        """Return what is wished, and what the image wishes where nothing is said."""
        if unknown := sorted(set(wishes) - _WISHES):
            raise UsageError(
                f"A container has no {', '.join(unknown)}.",
                allowed=", ".join(sorted(_WISHES)),
                example='n1.container(image="busybox", command=["sleep", "60"], memory="32M")',
            )
        config = image.config
        if isinstance(command, str):
            command = ["sh", "-c", command]
        words = [*config.entrypoint, *(command or config.cmd)]
        env = {**config.environment, **wishes.get("env", {})}
        settled = {"directory": config.working_dir or "/", "user": config.user or "0", **wishes, "env": env}
        hosts = "" if more["network"] in _UNCONNECTED else self.network(more["network"]).hosts
        return Wishes(command=words, hosts_file=hosts, **settled, **more)

    def _plan(self, container: Container, image: Image, ports: Mapping[int, int]) -> _Plan:
        own = f"{DIRECTORY}/containers/{container.name}"
        lowers = self._layers_of(image.layers, self._offset(container))
        overlay = Overlay((f"{own}/init", *reversed(lowers)), f"{own}/upper", f"{own}/work")
        return _Plan(image, overlay, configuration(container.wishes, f"{own}/root"), ports)

    def _layers_of(self, layers: Sequence[Descriptor], offset: int) -> list[str]:
        """See that the guest has the layers; returns where, the lowest first. A layer is sent once for each way to count users."""
        names = {layer.digest: f"{layer.digest.removeprefix('sha256:')}-{offset}" for layer in layers}
        if not self._there.issuperset(names.values()):
            self._there |= self.layers.has(names.values())
        for digest, name in names.items():
            if name not in self._there:
                tar = io.BytesIO()
                with self.images.open_blob(digest) as blob:
                    overlay_form(blob, tar, offset=offset)
                self.layers.add(name, tar.getvalue())
                self._there.add(name)
        return [self.layers.path(names[layer.digest]) for layer in layers]

    def _make(self, container: Container, *, start: bool, again: bool = False) -> Made:
        plan = self._plans[container.name]
        try:
            made = self.runtime.create(
                container.name,
                plan.config,
                overlay=plan.overlay,
                init_layer=init_layer(container.wishes.hostname),
                start=start,
                again=again,
            )
        except CallError as error:
            self._there.clear()  # perhaps somebody has removed a layer
            raise explained(error, container.wishes.command[0], container.image) from error
        container.made(made.pid, made.outcomes)
        if container.wishes.network not in _UNCONNECTED:
            self._attach(container, made.pid)
        return made

    def _begin(self, container: Container) -> None:
        try:
            self.runtime.start(container.name)
        except CallError as error:
            raise explained(error, container.wishes.command[0], container.image) from error
        self.supervisor.started(container)

    def _attach(self, container: Container, pid: int) -> None:
        network, ports = self.network(container.wishes.network), self._plans[container.name].ports
        try:
            container.attachment = network.attach(
                container.name, pid, [f"{outside}:{inside}" for outside, inside in ports.items()]
            )
        except BaseException:
            self.runtime.delete(container.name, force=True)
            raise

    def _detach(self, container: Container) -> None:
        if container.attachment is not None:
            self.network(container.wishes.network).detach(container.name)
            container.attachment = None

    def _forget(self, container: Container) -> None:
        if container.name in self.runtime.names():
            self.runtime.delete(container.name, force=True)
        self.supervisor.forget(container)
        with self._lock:
            self._plans.pop(container.name, None)
            self._containers.pop(container.name, None)
        self._detach(container)
        output_of(self.place, "can't remove what it wrote", ["rm", "-rf", f"{DIRECTORY}/containers/{container.name}"])

    def _offset(self, container: Container) -> int:
        return ID_BASE if container.wishes.userns and not container.wishes.privileged else 0

    def _free_name(self) -> str:
        return next(name for number in range(1, 10_000) if (name := f"c{number}") not in self._containers)


class _Builder:
    """Runs the RUN instructions of a Containerfile: in a container without network, whose upper directory is the new layer."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(
        self,
        layers: Sequence[str],
        command: Sequence[str],
        environment: Mapping[str, str],
        working_directory: str,
        user: str,
    ) -> bytes:
        """Run a command to its end; returns the tar of what it wrote. Raises `MachineError` with what it printed if it fails."""
        engine, name = self._engine, "building"
        own = f"{DIRECTORY}/containers/{name}"
        wishes = Wishes(
            command, environment, working_directory, user or "0", "building", writable=True, network="none", pids=None
        )
        lowers = engine._layers_of([Descriptor("", digest, 0) for digest in layers], ID_BASE)
        overlay = Overlay((f"{own}/init", *reversed(lowers)), f"{own}/upper", f"{own}/work")
        try:
            engine.runtime.create(
                name,
                configuration(wishes, f"{own}/root"),
                overlay=overlay,
                init_layer=init_layer("building"),
                start=True,
            )
            status = engine.runtime.wait(name, _BUILD_DEADLINE_S)
            if status:
                printed = logs.printed(logs.parse(engine.runtime.log(name)))
                raise MachineError(
                    engine.place.name, "a RUN failed", command=" ".join(command), exit_status=status, output=printed
                )
            return engine.layers.tar_of(overlay.upper)
        finally:
            engine.runtime.delete(name, force=True)
            engine.place.run(["rm", "-rf", own])
