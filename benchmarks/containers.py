"""How fast a container starts and ends, what each of its parts costs, and how many fit into a guest."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from benchmarks.bench import Bench
from benchmarks.bundle import OWN, Staged
from benchmarks.measure import OURS, Measure, Side, compared, in_a_row, interleave, timed
from cloudlab import Container, Machine
from cloudlab.containers.calls import Calls, Outcome, Room, make
from cloudlab.containers.namespaces import KINDS
from cloudlab.containers.setting import P_PID, SIGINFO, WEXITED
from cloudlab.lab.node import Node
from cloudlab.views.steps import HIDING, NAMESPACES, WAITING, parts_of, purpose_of

CRUN = "crun"
_ROW = 10  # containers in a row: a value is their mean


def containers(bench: Bench) -> list[Measure]:
    """`true` in a container, from start to exit: one bundle by crun, then by us; what its parts cost; from the notebook."""
    machine = bench.lab.machine("n1")
    try:
        stage = Staged(machine)
        sides = {CRUN: Side(partial(_theirs, stage), bench.runs), OURS: Side(partial(_ours, stage), bench.runs)}
        taken = interleave(sides)
        parts = interleave({OURS: Side(partial(_parts, stage), bench.runs)})
        notebook = interleave({OURS: Side(partial(_from_the_notebook, machine), bench.runs)})
    finally:
        machine.close()
    return [
        _not_slower(compared(taken, "stacked", "container: true, start to exit; by us with its overlay", "ms", None)),
        _not_slower(compared(taken, "run", "container: true, start to exit; overlay mounted before", "ms", None)),
        *(
            compared(notebook, name, f"n1.container(...): true, start to exit, {name}", "ms", 150)
            for name in notebook[OURS]
        ),
        *(compared(parts, name, f"container, part: {name}", "ms", None) for name in parts[OURS]),
    ]


def _not_slower(measure: Measure) -> Measure:
    """The target is what crun took in the same run."""
    return replace(measure, target=float(f"{statistics.median(measure.peers[CRUN]):.3g}"))


def _theirs(stage: Staged) -> dict[str, float]:
    took = in_a_row(_ROW, stage.by_crun)
    return {"stacked": took, "run": took}


def _ours(stage: Staged) -> dict[str, float]:
    return {
        "stacked": in_a_row(_ROW, partial(stage.by_us, stage.overlay)),
        "run": in_a_row(_ROW, stage.by_us),
    }


def _from_the_notebook(machine: Node) -> dict[str, float]:
    """As a learner does it; that it is removed afterwards is not part of it."""
    took = {}
    for network in ("none", "bridge"):
        _whole(machine, network)  # layers are sent and the bridge is made once
        took[f"network {network}"] = statistics.median(_whole(machine, network) for _ in range(_ROW))
    return took


def _whole(machine: Node, network: str) -> float:
    made: list[Container] = []

    def whole() -> None:
        made.append(machine.container(command=["true"], network=network))
        assert made[0].wait() == 0

    took = timed(whole)
    made[0].remove()
    return took


# --- parts ------------------------------------------------------------------------------------------------------


def _parts(stage: Staged) -> dict[str, float]:
    """What each part took, by the guest's own clock: by purpose, then single calls, then each namespace alone."""
    outcomes = stage.by_us(stage.overlay)
    return {
        **{part.purpose: part.took_s for part in parts_of(outcomes) if part.purpose != WAITING},
        **_single(outcomes),
        **{
            f"namespace {kind.name}, alone": _alone(stage.machine, _unshare(kind.flag), "unshare")
            for kind in KINDS.values()
        },
        "execve of true, to its exit": _alone(stage.machine, _execution(f"{stage.layer}/usr/bin/busybox"), "waitid"),
        "cleanup, from SIGKILL until nothing is left": stage.end(),
    }


def _single(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return what each mount of a file system took, and the calls that a lesson names."""
    took: dict[str, float] = {}
    for outcome in outcomes:
        name, words = outcome.call.name, outcome.call.arguments
        if name == "mount" and words[0] not in ("", "dev/null") and words[2]:
            if purpose_of(outcome.call) != HIDING:
                took[f"mount of {words[2]!s}, {'/' if str(words[1]).startswith(OWN) else words[1]!s}"] = outcome.took_s
        elif name in ("pivot_root", "seccomp"):
            took[f"{name}()"] = took.get(f"{name}()", 0.0) + outcome.took_s
        elif name == "clone3" and purpose_of(outcome.call) == NAMESPACES:
            took["clone3() with its namespaces"] = outcome.took_s
    return took


def _unshare(flag: int) -> Calls:
    calls = Calls()
    calls.call("unshare", flag)
    return calls


def _execution(program: str) -> Calls:
    calls = Calls()
    child, inside = calls.child()
    inside.call("execve", program, ["true"], [])
    calls.call("waitid", P_PID, child, Room(SIGINFO, whole=True), WEXITED, 0)
    return calls


def _alone(machine: Machine, calls: Calls, name: str) -> float:
    return next(outcome.took_s for outcome in make(machine, calls).values() if outcome.call.name == name)


# --- how many ---------------------------------------------------------------------------------------------------


def density(bench: Bench) -> list[Measure]:
    """200 containers that run in one guest of 512 MB: seconds until all do, and the guest's memory for each."""
    number = 5 if bench.quick else 200
    taken = interleave({OURS: Side(partial(_crowd, bench, number), bench.few)})
    return [
        compared(taken, "started", f"{number} containers in a guest of 512 MB: all started", "s", None),
        compared(taken, "memory", f"one of {number} containers: memory of its guest", "MB", None),
        compared(taken, "removed", f"{number} containers: all removed", "s", None),
    ]


def _crowd(bench: Bench, number: int) -> dict[str, float]:
    machine = bench.lab.machine("n2", memory="512M")
    try:
        machine.container("first", command=["true"], network="none").wait()  # layers are sent once
        before = _available(machine)
        started = timed(lambda: [_sleeper(machine, n) for n in range(number)])
        assert machine.succeed("pgrep -xc sleep").strip() == str(number)
        memory = (before - _available(machine)) / number
        removed = timed(machine.containers.close)
        assert not machine.run("pgrep -x sleep").ok
        return {"started": started, "memory": memory / 1e6, "removed": removed}
    finally:
        machine.close()


def _sleeper(machine: Node, number: int) -> Container:
    return machine.container(f"s{number}", command=["sleep", "3600"], network="none", memory="8M")


def _available(machine: Machine) -> int:
    """MemAvailable of proc(5), when what can be had at any time has been given back."""
    machine.succeed("sync; echo 3 > /proc/sys/vm/drop_caches")
    return 1024 * int(machine.succeed("awk '/^MemAvailable/ {print $2}' /proc/meminfo"))
