"""Start QEMU: sockets first, then the process, then the conversation; each failure says what QEMU said."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from cloudlab.errors import CloudlabError, MachineError
from cloudlab.machines import qemu
from cloudlab.machines.agent import Agent
from cloudlab.machines.qmp import Event, Qmp
from cloudlab.machines.spec import Spec
from cloudlab.owner import FIRST_FD, Child, Owner
from cloudlab.owner.waiting import wait_showing

RESTORE_DEADLINE_S = 60.0


@dataclass
class Running:
    """A guest's process and the lines to it. `timing` maps each step of the start to the second it was done at."""

    child: Child
    qmp: Qmp
    agent: Agent
    console_socket: Path
    console_log: Path
    command_line: list[str]
    began: float
    log_start: int = 0
    timing: dict[str, float] = field(default_factory=dict)

    def mark(self, step: str) -> None:
        """Note that a step of the start is done."""
        self.timing[step] = round(time.monotonic() - self.began, 4)

    def printed(self, last: int) -> bytes:
        """Return the last bytes that this process printed on the console (the log goes back to earlier ones of its name)."""
        try:
            with self.console_log.open("rb") as log:
                log.seek(max(self.log_start, log.seek(0, os.SEEK_END) - last))
                return log.read()
        except FileNotFoundError:
            return b""

    def close(self) -> None:
        """Hang up all lines; the process is not touched."""
        self.qmp.close()
        self.agent.close()


@dataclass(frozen=True)
class Source:
    """What a guest starts from: the kernel (nothing given), or a saved state.

    `ram`: a RAM file to use, `shared` if it is to be written to; `state`: a file with the devices' state, and with the
    memory too if `ram` is None.
    """

    ram: Path | None = None
    shared: bool = False
    state: Path | None = None


def launch(
    owner: Owner,
    name: str,
    spec: Spec,
    source: Source,
    *,
    mac: str = "52:54:00:00:00:00",
    plugged: tuple[str, ...] = (),
    on_event: Callable[[Event], None] = lambda event: None,
) -> Running:
    """Start one guest: a boot begins, or a saved state is loaded and waits for `cont`.

    Raises `MachineError` with QEMU's own output if it does not start.
    """
    began = time.monotonic()
    console_log, log = owner.path(f"{name}.console.log"), owner.path(f"{name}.qemu.log")
    log_start = console_log.stat().st_size if console_log.exists() else 0
    places = qemu.Places(
        console_log=str(console_log),
        network=str(owner.path(f"{name}.net0")),
        mac=mac,
        ram=str(source.ram) if source.ram else None,
        shared=source.shared,
        incoming=source.state is not None,
    )
    words = [qemu.find_qemu(), "-name", name, *qemu.arguments(spec, places, plugged)]
    doors = [_door(owner.path(f"{name}.{kind}")) for kind in ("console", "control", "agent")]
    lines = [_connect(owner.path(f"{name}.{kind}")) for kind in ("control", "agent")]
    state = [source.state.open("rb")] if source.state is not None else []
    inherited: list[socket.socket | BinaryIO] = [*doors, *state]
    try:
        child = owner.spawn(name, words, log=log, fds=[end.fileno() for end in inherited])
    except CloudlabError:
        for line in lines:
            line.close()
        raise
    finally:
        for end in inherited:
            end.close()
    running = Running(
        child,
        Qmp(name, lines[0], on_event),
        Agent(name, lines[1]),
        owner.path(f"{name}.console"),
        console_log,
        words,
        began,
        log_start,
    )
    running.mark("process")
    # QEMU's end reaches us through the keeper; the lines are hung up then, should a forked copy hold them open
    child.on_exit(running.close)
    try:
        # No cable is in yet. To say so is also a must: QEMU 7.2 crashes if a guest sends on a line without other end.
        _pull_cables(running, plugged)
        if source.state is not None:
            _load(running, memory_is_a_file=source.ram is not None)
            if source.ram is None:  # the saved guest may have had cables in
                _pull_cables(running, plugged)
    except MachineError as error:
        said = explain(running, error)
        child.kill()  # nobody else knows of it yet
        raise said from error
    return running


def _pull_cables(running: Running, plugged: tuple[str, ...]) -> None:
    for wire in _wires(plugged):
        running.qmp.send("set_link", arguments={"name": wire, "up": False})


def _wires(plugged: tuple[str, ...]) -> list[str]:
    """Name the wires of all network cards: the built-in one's, and those of the plugged ones."""
    options = zip(plugged[::2], plugged[1::2], strict=True)
    return ["net0", *(str(json.loads(value)["id"]) for option, value in options if option == "-netdev")]


def _door(path: Path) -> socket.socket:
    """A listening socket that QEMU inherits: whoever connects early simply waits in its queue."""
    path.unlink(missing_ok=True)
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(path))
    door.listen(1)
    return door


def _connect(path: Path) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.connect(str(path))
    return line


def _load(running: Running, *, memory_is_a_file: bool) -> None:
    """Load a saved state. All commands are sent at once: QEMU answers while it works through them."""
    sent = [
        running.qmp.send("migrate-set-capabilities", arguments=_switches(memory_is_a_file=memory_is_a_file)),
        # The guest has not moved: nobody has to be told again and again. Once, and at once, is before a cable is in.
        running.qmp.send("migrate-set-parameters", arguments={"announce-rounds": 1, "announce-initial": 0}),
        running.qmp.send("migrate-incoming", arguments={"uri": f"fd:{FIRST_FD + 3}"}),
    ]
    for number in sent:
        running.qmp.answer(number, RESTORE_DEADLINE_S)
    wait_migrated(running.qmp, "loading the saved state")
    running.mark("state loaded")


def save_devices(running: Running, to: Path, *, with_memory: bool) -> None:
    """Write the state of a stopped guest's devices to a file, and its memory too unless that is a file already."""
    with to.open("wb") as file:
        sent = [
            running.qmp.send("migrate-set-capabilities", arguments=_switches(memory_is_a_file=not with_memory)),
            running.qmp.send("migrate-set-parameters", arguments={"max-bandwidth": 1 << 40}),
            running.qmp.send("getfd", fds=[file.fileno()], arguments={"fdname": "state"}),
            running.qmp.send("migrate", arguments={"uri": "fd:state"}),
        ]
        running.qmp.events.clear()
        for number in sent:
            running.qmp.answer(number)
        wait_migrated(running.qmp, "saving the state")
        _wait_finalized(running.qmp)


def _wait_finalized(qmp: Qmp) -> None:
    """After the event "completed" QEMU still has a thread to end, and refuses `cont` until then; no event tells of it."""

    def finalized(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while qmp.execute("query-status")["status"] != "postmigrate":
            if time.monotonic() > until:
                return False
        return True

    if not wait_showing(f"{qmp.name}: the end of saving", finalized, RESTORE_DEADLINE_S):
        raise MachineError(qmp.name, f"QEMU did not finish saving within {RESTORE_DEADLINE_S:.0f} s")


def _switches(*, memory_is_a_file: bool) -> dict[str, Any]:
    """x-ignore-shared leaves out memory that is a file already; events tells us the end without asking."""
    wanted = {"events": True, "x-ignore-shared": memory_is_a_file}
    return {"capabilities": [{"capability": name, "state": state} for name, state in wanted.items()]}


def wait_migrated(qmp: Qmp, what: str) -> None:
    """Wait for the end of a migration; raises `MachineError` if it failed."""
    ends = ("completed", "failed", "cancelled")
    event = qmp.wait_event(
        lambda e: e["event"] == "MIGRATION" and e["data"]["status"] in ends, RESTORE_DEADLINE_S, what
    )
    if event["data"]["status"] != "completed":
        raise MachineError(
            qmp.name,
            f"{what} {event['data']['status']}: {qmp.execute('query-migrate').get('error-desc', 'no reason given')}",
        )


def explain(running: Running, error: MachineError) -> MachineError:
    """Return the same error with how QEMU ended and what it printed."""
    running.child.wait(1.0)
    how = "" if running.child.alive else f" (QEMU: {running.child.how_it_ended()})"
    return MachineError(
        running.child.name,
        error.problem + how,
        command=error.command,
        output=running.child.printed() or _tail(running.console_log),
        log=running.child.log,
    )


def _tail(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[-2000:]
    except OSError:
        return ""
