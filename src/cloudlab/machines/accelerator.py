"""Which engine runs the guest's instructions: KVM (the CPU itself) or TCG (translated, on any computer).

It is chosen by booting a guest, never by looking: a /dev/kvm that opens, and even runs code, can still crash Linux.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path

from cloudlab.errors import MachineError, UsageError
from cloudlab.machines import qemu
from cloudlab.machines.launch import Running, Source, launch
from cloudlab.machines.spec import Spec
from cloudlab.owner import Owner
from cloudlab.owner.waiting import wait_showing
from cloudlab.progress import say

PROBE_DEADLINE_S = 25.0
_TRIAL_MEMORY = 384 << 20
_EXPECT = {
    "tcg": "every instruction is translated: programs run roughly 5 to 20 times slower than here",
    "kvm": "instructions run on the CPU itself, nearly as fast as here",
}


@dataclass(frozen=True)
class Accelerator:
    """What was chosen ("tcg" or "kvm") and why."""

    name: str
    reason: str

    @property
    def expectation(self) -> str:
        """What a learner may expect of it."""
        return _EXPECT[self.name]

    def __str__(self) -> str:
        return f"{self.name.upper()}: {self.reason}; {self.expectation}"


def kvm_device() -> Path:
    """Return the device that offers KVM; CLOUDLAB_KVM names another, for tests."""
    return Path(os.environ.get("CLOUDLAB_KVM", "/dev/kvm"))


def choose(owner: Owner, spec: Spec, cache: Path) -> Accelerator:
    """Return the accelerator for this computer: what is known already, else what a trial shows (once; remembered)."""
    known = remembered(spec, cache)
    if known is None:
        failure = _try_kvm(owner, spec)
        known = _verdict(failure)
        say(f"accelerator {known}")
        cache.mkdir(parents=True, exist_ok=True)
        file = cache / "accelerators.json"
        file.write_text(json.dumps(_read(file) | {_key(spec): failure}, indent=1) + "\n")
    return known


def remembered(spec: Spec, cache: Path) -> Accelerator | None:
    """Return the accelerator if it is asked for (CLOUDLAB_ACCELERATOR), the only one, or tried before; else None."""
    wanted = os.environ.get("CLOUDLAB_ACCELERATOR", "")
    if wanted:
        return named(wanted, "asked for by CLOUDLAB_ACCELERATOR")
    device = kvm_device()
    if not device.exists():
        return Accelerator("tcg", f"this computer has no {device}")
    if not os.access(device, os.R_OK | os.W_OK):
        return Accelerator("tcg", f"{device} is there, but you may not use it (group kvm?)")
    failure = _read(cache / "accelerators.json").get(_key(spec))
    return None if failure is None else _verdict(failure)


def named(name: str, reason: str) -> Accelerator:
    """Return the accelerator called `name`; raises `UsageError` if there is none of that name."""
    if name not in _EXPECT:
        raise UsageError(
            f"{name!r} is no accelerator.",
            allowed=" or ".join(sorted(_EXPECT)),
            example='lab.machine("n1", accelerator="tcg")',
        )
    return Accelerator(name, reason)


def _verdict(failure: str) -> Accelerator:
    if failure:
        return Accelerator("tcg", f"KVM was tried and failed ({failure})")
    return Accelerator("kvm", "a guest booted under it")


def _try_kvm(owner: Owner, spec: Spec) -> str:
    """Boot a guest under KVM; returns "" if its agent answers, else why not, in a few words."""
    trial = replace(spec, accelerator="kvm", memory=_TRIAL_MEMORY, cpus=1, screen=False)
    try:
        running = launch(owner, "kvm-trial", trial, Source())
    except MachineError as error:
        return error.problem
    try:
        answer = running.agent.ping()
        wait_showing(
            "trying KVM by booting a guest", lambda s: answer.wait(s) or bool(_failure(running)), PROBE_DEADLINE_S
        )
        return "" if answer.status == 0 else _failure(running) or f"no answer within {PROBE_DEADLINE_S:.0f} s"
    except MachineError as error:
        return _failure(running) or error.problem
    finally:
        running.child.kill()
        running.child.wait(5)


def _failure(running: Running) -> str:
    """What QEMU prints when KVM cannot go on; it stops the guest then, and would wait for ever."""
    printed = running.child.printed()
    signs = ("emulation failure", "internal error", "Permission denied", "failed to initialize", "Could not access")
    found = next((sign for sign in signs if sign in printed), "")
    return found or ("" if running.child.alive else f"QEMU: {running.child.how_it_ended()}")


def _key(spec: Spec) -> str:
    """Another QEMU, guest kernel, host kernel or computer: try again."""
    text = "\0".join([qemu.build_of(qemu.find_qemu()), str(spec.kernel), platform.release(), platform.node()])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read(file: Path) -> dict[str, str]:
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError):
        return {}
