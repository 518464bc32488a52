"""What docker's daemon does while nobody asks: notes how containers end, starts them again, and asks others how they are."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING

from cloudlab.containers.restart import Policy, parse_policy
from cloudlab.containers.runtime import Status
from cloudlab.containers.setting import EVENTS
from cloudlab.errors import CloudlabError

if TYPE_CHECKING:
    from cloudlab.containers.container import Container
    from cloudlab.containers.engine import Engine
    from cloudlab.machines.spawned import Spawned


_EVENTS_KEPT = 10_000


@dataclass(frozen=True)
class Health:
    """A question to a container: `command` is run in it each `every_s`; failed `retries` times in a row, it is unhealthy."""

    command: Sequence[str]
    every_s: float = 5.0
    timeout_s: float = 5.0
    retries: int = 3
    start_period_s: float = 0.0


class Condition(Enum):
    """How a container is, as far as its health check tells."""

    NONE = "no health check"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


def condition_after(now: Condition, failures: int, health: Health, *, young: bool) -> Condition:
    """Say how a container is after its check failed `failures` times in a row (0: it succeeded); a `young` one is given time."""
    if failures == 0:
        return Condition.HEALTHY
    if young and now is Condition.STARTING:
        return now
    return Condition.UNHEALTHY if failures >= health.retries else now


@dataclass(frozen=True)
class Event:
    """Something that happened to a container.

    create, start, die, oom, restart, fail (it could not be), pause, resume, kill, healthy, unhealthy, remove.
    """

    time: datetime
    container: str
    what: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.time:%H:%M:%S} {self.container} {self.what}" + (f" ({self.detail})" if self.detail else "")


@dataclass
class Watched:
    """What is known of one container."""

    container: Container
    policy: Policy
    health: Health | None
    status: Status = Status.CREATED  # as far as this thread has heard
    began: float = field(default_factory=time.monotonic)
    restarts: int = 0  # in all
    in_a_row: int = 0  # since it last lived for a while
    end_is_wanted: bool = False
    failures: int = 0
    condition: Condition = Condition.NONE
    due: float | None = None  # when it is to be started again
    ask: float | None = None  # when it is to be asked again


class Supervisor:
    """One thread of an engine; it sleeps until a container ends, or until something is due."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._watched: dict[str, Watched] = {}
        self.events: deque[Event] = deque(maxlen=_EVENTS_KEPT)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ended: Spawned | None = None
        self._read = 0
        self._closed = False

    def tell(self, container: str, what: str, detail: str = "") -> None:
        """Note that something has happened."""
        self.events.append(Event(datetime.now(UTC), container, what, detail))

    def watch(self, container: Container, restart: str, health: Health | None) -> None:
        """Begin to look after a container."""
        watched = Watched(container, parse_policy(restart), health)
        with self._changed:
            self._watched[container.name] = watched
            self.tell(container.name, "create")
            if self._thread is None:
                self._begin()

    def started(self, container: Container) -> None:
        """It has been started, by whomever."""
        with self._changed:
            watched = self._watched[container.name]
            watched.began, watched.end_is_wanted, watched.due, watched.failures = time.monotonic(), False, None, 0
            watched.status = Status.RUNNING
            self.tell(container.name, "start")
            if watched.health:
                watched.condition, watched.ask = Condition.STARTING, time.monotonic() + watched.health.every_s
            self._changed.notify_all()

    def expect_end(self, container: Container) -> None:
        """Its end is wanted, and it is not to be started again before it is started by hand."""
        with self._changed:
            self._watched[container.name].end_is_wanted = True
            self._watched[container.name].due = None

    def note(self, container: Container, status: Status) -> None:
        """It is now paused, or runs again."""
        self._watched[container.name].status = status
        self.tell(container.name, "pause" if status is Status.PAUSED else "resume")

    def forget(self, container: Container) -> None:
        """Look after it no more."""
        with self._changed:
            if self._watched.pop(container.name, None):
                self.tell(container.name, "remove")

    def of(self, name: str) -> Watched:
        """What is known of a container."""
        return self._watched[name]

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._ended is not None:
            self._ended.kill()
        if self._thread is not None:
            self._thread.join(10)

    def _begin(self) -> None:
        place = self._engine.place
        place.run(f"mkdir -p {EVENTS.rpartition('/')[0]}; touch {EVENTS}")
        self._ended = place.spawn(["tail", "-n", "0", "-F", EVENTS], on_output=lambda _: self._wake())
        place.on_change(self._wake)
        self._thread = threading.Thread(target=self._work, name=f"containers-{place.name}", daemon=True)
        self._thread.start()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _work(self) -> None:
        assert self._ended is not None  # it was started before this thread
        while not self._closed and self._ended.running:
            with suppress(CloudlabError):  # the guest may end at any moment: then so does the loop
                self._note_ends(self._ended.stdout.split("\n")[:-1])
                self._do_what_is_due()
            with self._changed:
                if not self._closed and self._ended.running and self._read == self._ended.stdout_bytes.count(b"\n"):
                    self._changed.wait(self._patience_s())

    def _note_ends(self, names: Sequence[str]) -> None:
        for name in names[self._read :]:
            self._read += 1
            if watched := self._watched.get(name):
                watched.status = Status.STOPPED
                self._note_end(watched)

    def _note_end(self, watched: Watched) -> None:
        name = watched.container.name
        state = self._engine.runtime.state(name)
        status = 255 if state.exit_status is None else state.exit_status
        if state.out_of_memory:
            self.tell(name, "oom")
        self.tell(name, "die", f"exit status {status}")
        if not watched.end_is_wanted:
            self._decide(watched, status)

    def _decide(self, watched: Watched, exit_status: int) -> None:
        now = time.monotonic()
        lived_s = now - watched.began
        delay_s = watched.policy.delay_s(exit_status, watched.in_a_row, lived_s)
        watched.in_a_row = 0 if delay_s is None or lived_s >= 10 else watched.in_a_row + 1
        watched.due = None if delay_s is None else now + delay_s
        watched.ask = None

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        for watched in list(self._watched.values()):
            if watched.due is not None and watched.due <= now:
                self._restart(watched)
            if watched.ask is not None and watched.ask <= now:
                self._ask(watched)

    def _restart(self, watched: Watched) -> None:
        container = watched.container
        with container.lock:
            if watched.due is None or self._watched.get(container.name) is not watched:
                return  # somebody has stopped or removed it
            watched.due = None
            watched.restarts += 1
            self.tell(container.name, "restart", f"number {watched.restarts}")
            try:
                self._engine.start(container)
            except CloudlabError as error:
                self.tell(container.name, "fail", str(error))

    def _ask(self, watched: Watched) -> None:
        health = watched.health
        assert health is not None
        try:
            good = watched.container.run(list(health.command), timeout_s=health.timeout_s).ok
        except CloudlabError:
            good = False
        now = time.monotonic()
        watched.failures = 0 if good else watched.failures + 1
        young = now - watched.began < health.start_period_s
        before = watched.condition
        watched.condition = condition_after(before, watched.failures, health, young=young)
        if watched.condition is not before:
            self.tell(watched.container.name, watched.condition.value)
        watched.ask = now + health.every_s if watched.ask is not None else None

    def _patience_s(self) -> float | None:
        times = [time for watched in self._watched.values() for time in (watched.due, watched.ask) if time is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None
