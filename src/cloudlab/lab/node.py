"""A lab's machine: a `Machine` that can hold containers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudlab.machines import Machine

if TYPE_CHECKING:
    from cloudlab.containers.container import Container
    from cloudlab.containers.engine import Engine


class Node(Machine):
    """A guest computer of a lab, with an engine for containers that is there from the first use on."""

    _engine: tuple[object, Engine] | None = None

    @property
    def containers(self) -> Engine:
        """Its containers by name, their images and networks; a machine that has been started anew has none."""
        from cloudlab.containers.engine import Engine  # with all that it needs: only for who has containers

        life = (self.pid, self._resets)
        if self._engine is None or self._engine[0] != life:
            self._engine = life, Engine(self, self._home.owner.path(f"{self.name}.images"))
        return self._engine[1]

    @property
    def parts(self) -> list[Container]:
        """The containers that it has, without asking it."""
        engine = self._engine
        return list(engine[1]) if engine is not None and self.state.value in ("running", "paused") else []

    def container(self, name: str = "", **options: Any) -> Container:
        """Make a container in this guest and start it: `n1.container("web", image="busybox", command=["httpd", "-f"])`.

        The options are those of `Engine.create` (image, command, ports, network, restart, health, volumes) and of `Wishes`
        (memory, cpus, pids, env, user, writable, …).
        """
        return self.containers.create(name, **options)
