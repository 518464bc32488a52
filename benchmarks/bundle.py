"""One OCI bundle in a guest, to be run by crun and by us."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from errno import ENOENT
from io import BytesIO

from cloudlab import Machine
from cloudlab.containers import bundle, plan
from cloudlab.containers.calls import Call, Calls, Outcome, Room, make
from cloudlab.containers.layerstore import DIRECTORY, Layers, prepare
from cloudlab.containers.registry.layers import overlay_form
from cloudlab.containers.rootfs import Overlay, init_layer
from cloudlab.containers.runtime import ending
from cloudlab.containers.setting import STATE_DIRECTORY, Setting
from cloudlab.containers.specification import ID_BASE, Wishes, configuration
from cloudlab.containers.syscalls import Open, Signal
from cloudlab.images import ImageStore

OWN = f"{DIRECTORY}/containers/benchmark"
_BUNDLE = "/root/benchmark"
_LOCK_SH = 1


class Staged:
    """One bundle in a guest: `true` in an overlay, with limits, all namespaces and the filter of system calls."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.layer = _busybox(machine)
        self.overlay = Overlay((f"{OWN}/init", self.layer), f"{OWN}/upper", f"{OWN}/work")
        self.mounted = f"{_BUNDLE}/root"
        self.wishes = Wishes(["/bin/true"], hostname="benchmark", network="none", memory="32M", cpus=1.0)
        self._mount()

    def _mount(self) -> None:
        """The same stack, mounted beforehand: crun mounts none."""
        calls, own = Calls(), f"{_BUNDLE}/own"
        for path in (_BUNDLE, own, self.mounted, f"{own}/upper", f"{own}/work"):
            calls.call("mkdir", path, 0o755)
        calls.call("chmod", "/root", 0o755)  # the container's root is nobody there
        init_layer("benchmark").add_to(calls, f"{own}/init", ID_BASE)
        Overlay((f"{own}/init", self.layer), f"{own}/upper", f"{own}/work").add_mount(calls, self.mounted)
        make(self.machine, calls)
        self.machine.put(f"{_BUNDLE}/config.json", json.dumps(configuration(self.wishes, self.mounted)))

    def by_crun(self) -> None:
        """Created, started, waited for, deleted: one command."""
        result = self.machine.run(["crun", "run", "-b", _BUNDLE, "benchmark"])
        assert result.ok, result.stderr

    def by_us(self, overlay: Overlay | None = None) -> list[Outcome]:
        """The same by the same way: one process is told all that is to be done. With an `overlay`, that is mounted too."""
        calls, _ = self._creation(["/bin/true"], overlay)
        exit_read = _add_waiting(calls)
        outcomes = make(self.machine, calls)
        assert ending(outcomes[exit_read].data) == (0, False)
        return list(outcomes.values())

    def end(self) -> float:
        """Kill a container that does nothing; returns the seconds until nothing of it is left: processes, mounts, control group."""
        calls, init = self._creation(["/bin/sleep", "3600"], self.overlay)
        pid = make(self.machine, calls)[init.index].returned
        killing = Calls()
        killing.call("kill", pid, Signal.KILL)
        _add_waiting(killing)
        return sum(
            outcome.took_s for outcome in make(self.machine, killing).values() if outcome.call.name in ("kill", "flock")
        )

    def _creation(self, command: Sequence[str], overlay: Overlay | None) -> tuple[Calls, Call]:
        config = configuration(replace(self.wishes, command=command), f"{OWN}/root" if overlay else self.mounted)
        read = replace(bundle.read(config), cgroups_path="/cloudlab/benchmark")
        setting = Setting("benchmark", "/", 2, overlay, init_layer("benchmark") if overlay else None)
        return plan.creation(read, setting, json.dumps(config))


def _busybox(machine: Machine) -> str:
    """Put the image's layer into a guest, its files owned by the container's root; returns where."""
    tar = BytesIO()
    with ImageStore().rootfs("busybox").open("rb") as source:
        overlay_form(source, tar, offset=ID_BASE)
    prepare(machine)
    return Layers(machine).add("benchmark", tar.getvalue())


def _add_waiting(calls: Calls) -> int:
    """Add: wait for the container's end, read how it ended, and forget it."""
    state = f"{STATE_DIRECTORY}/benchmark"
    lock = calls.call("open", f"{state}/lock", Open.RDONLY | Open.CLOEXEC)
    calls.call("flock", lock, _LOCK_SH)
    file = calls.call("open", f"{state}/exit", Open.RDONLY | Open.CLOEXEC)
    read = calls.call("read", file, Room(4096), 4096)
    for name in ("config.json", "lock", "pid", "started", "log", "exit"):
        calls.call("unlink", f"{state}/{name}", harmless=[ENOENT])
    calls.call("rmdir", state)
    return read.index
