"""How fast commands and files go into a running guest and come out of it."""

from __future__ import annotations

import hashlib
import os
import time
from functools import partial

from benchmarks.bench import Bench
from benchmarks.measure import BY_HAND, OURS, SANDBOX, Measure, Side, compared, in_a_row, interleave, timed
from benchmarks.peers import Sandbox, Typist, turn
from cloudlab import Machine

_FILE, _BYTES = "/tmp/benchmark", 32 << 20
_TYPED, _PRINTED = 8 << 10, 128 << 10  # over the serial line, 32 MiB would take an hour
_ROW = 20  # commands in a row: a value is their mean
_MB = 1e6
_PROGRAMS = ("true", "bash -c :", "ip link")


def commands(bench: Bench) -> list[Measure]:
    """The smallest command, and a round trip without one; each as a peer does it that starts the same process."""
    machine = bench.lab.machine("n1")
    try:
        with bench.by_hand() as hand, bench.sandbox() as box:
            time.sleep(bench.idle_s)  # what their start has left to do
            sides = {BY_HAND: Side(lambda: _typed(hand), bench.runs)}
            if box is not None:
                sides[SANDBOX] = Side(lambda: _asked(box), bench.runs)
            taken = interleave({**sides, OURS: Side(lambda: _run(machine), bench.runs)})
    finally:
        machine.close()
    return [
        compared(taken, "shell", 'run("true"): a shell', "ms", 6),
        compared(taken, "program", 'run(["true"]): a program', "ms", 6),
        compared(taken, "nothing", "the agent's ping; by hand: the shell's `:`", "ms", None),
    ]


def _run(machine: Machine) -> dict[str, float]:
    agent = machine.running.agent
    return {
        "shell": in_a_row(_ROW, partial(machine.run, "true")),
        "program": in_a_row(_ROW, partial(machine.run, ["true"])),
        "nothing": in_a_row(_ROW, lambda: agent.finish(agent.ping(), 5)),
    }


def _typed(hand: Typist) -> dict[str, float]:
    commands = {"shell": "sh -c true", "program": "/usr/bin/true", "nothing": ":"}
    with turn(hand):
        return {name: in_a_row(_ROW, partial(hand.run, command)) for name, command in commands.items()}


def _asked(box: Sandbox) -> dict[str, float]:
    with turn(box):
        return {"shell": in_a_row(_ROW, partial(box.run, "true"))}


def files(bench: Bench) -> list[Measure]:
    """A file in and out, and back as it was; by hand a small one, as base64 text over the serial line, and its rate."""
    machine = bench.lab.machine("n1")
    try:
        with bench.by_hand() as hand:
            sides = {BY_HAND: Side(lambda: _carry(hand), bench.few), OURS: Side(lambda: _send(machine), bench.runs)}
            taken = interleave(sides)
    finally:
        machine.close()
    sizes = {"put": _TYPED, "get": _PRINTED}
    names = {verb: f"{verb}: {_BYTES >> 20} MiB; by hand {size >> 10} KiB" for verb, size in sizes.items()}
    return [compared(taken, verb, name, "MB/s", 30, more_is_better=True) for verb, name in names.items()]


def _send(machine: Machine) -> dict[str, float]:
    content, back = os.urandom(_BYTES), []
    put = timed(lambda: machine.put(_FILE, content))
    get = timed(lambda: back.append(machine.get(_FILE)))
    assert back == [content]
    return {"put": _BYTES / _MB / put, "get": _BYTES / _MB / get}


def _carry(hand: Typist) -> dict[str, float]:
    content, back = os.urandom(_TYPED), []
    put = timed(lambda: hand.put(_FILE, content))
    assert hand.get(_FILE) == content
    hand.run(f"head -c {_PRINTED} /dev/urandom >{_FILE}")
    get = timed(lambda: back.append(hand.get(_FILE)))
    assert hashlib.sha256(back[0]).hexdigest() in hand.run(f"sha256sum {_FILE}")
    return {"put": _TYPED / _MB / put, "get": _PRINTED / _MB / get}


def randomisation(bench: Bench) -> list[Measure]:
    """What address-space randomisation costs where instructions are translated: each process is translated anew."""
    plain, random = bench.lab.machine("n1"), bench.lab.machine("n2", aslr=True)
    try:
        sides = {
            "aslr=True": Side(lambda: _programs(random), bench.runs),
            OURS: Side(lambda: _programs(plain), bench.runs),
        }
        taken = interleave(sides)
    finally:
        plain.close()
        random.close()
    return [compared(taken, program, f"start of a process: {program}", "ms", None) for program in _PROGRAMS]


def _programs(machine: Machine) -> dict[str, float]:
    return {program: in_a_row(_ROW, partial(machine.run, program.split())) for program in _PROGRAMS}
