"""Saved states: a guest is booted once, frozen, and every later one starts as a copy of it.

The frozen guest's memory is a file. A copy maps it copy-on-write: it shares all pages with its siblings until it
writes to one, so it starts in the time that QEMU takes to start, and costs only what it changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from cloudlab.errors import MachineError, UsageError
from cloudlab.machines import qemu
from cloudlab.machines.launch import Source, explain, launch, save_devices
from cloudlab.machines.spec import Spec
from cloudlab.owner import Owner
from cloudlab.progress import progress
from cloudlab.units import MIB, format_size

BOOT_DEADLINE_S = 90.0
_KEEP = 12  # templates; the least recently used go first
_FORMAT = "2"  # of what is in a template beyond the arguments: another number makes all anew

# What most guests will use sooner or later: loaded once here instead of in every copy.
_WARM_UP = """
for patience in $(seq 200); do test -e /run/late-modules-are-loaded && break; sleep 0.05; done
modprobe -a overlay veth bridge nf_tables nft_chain_nat nft_masq nft_ct >/dev/null 2>&1
for program in "ip link" hostname ps; do $program >/dev/null; done
ldconfig  # without its cache, each start of a program looks for libc in eight places that are not there
"""


@dataclass(frozen=True)
class Template:
    """A frozen guest: its memory and its devices' state."""

    directory: Path

    @property
    def source(self) -> Source:
        """What a copy starts from."""
        return Source(ram=self.directory / "ram", state=self.directory / "devices")


class Templates:
    """The templates of this user, in `directory`; each is built once, when first asked for."""

    def __init__(self, directory: Path, owner: Owner) -> None:
        self.directory, self._owner = directory, owner

    def get(self, spec: Spec, image_key: str) -> Template:
        """Return the template for `spec`, building it if it is not here or damaged."""
        place = self.directory / self.key(spec, image_key)
        if not _is_whole(place):
            self.directory.mkdir(parents=True, exist_ok=True)
            with FileLock(self.directory / ".lock", timeout=BOOT_DEADLINE_S * 4):
                if not _is_whole(place):
                    self._build(place, spec)
        os.utime(place)
        return Template(place)

    def key(self, spec: Spec, image_key: str) -> str:
        """Return the hash of all that must be equal for a state to fit: QEMU, its arguments, the image, the warm-up."""
        same = qemu.arguments(spec, qemu.Places(console_log="-", network="-", mac="-", ram="-"))
        text = json.dumps([_FORMAT, qemu.build_of(qemu.find_qemu()), same, image_key, _WARM_UP])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _build(self, place: Path, spec: Spec) -> None:
        require_room(self.directory, spec.memory + 64 * MIB, "a saved state")
        building = self.directory / f".building-{place.name}"
        self._owner.remove_at_end(building)  # before it is there, so that no moment is left to be killed in
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        try:
            with progress(3, "saved state", unit="step") as bar:
                self._boot_and_freeze(building, spec, bar)
            _write_record(building)
            shutil.rmtree(place, ignore_errors=True)
            building.rename(place)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        self._prune()

    def _boot_and_freeze(self, place: Path, spec: Spec, bar: Any) -> None:
        ram = place / "ram"
        with ram.open("wb") as file:
            file.truncate(spec.memory)
        name = f"template-{time.monotonic_ns() % 1_000_000:06d}"
        running = launch(self._owner, name, spec, Source(ram=ram, shared=True))
        try:
            bar.set_postfix_str("boot")
            if not running.agent.ping().wait(BOOT_DEADLINE_S) or not running.child.alive:
                raise MachineError(name, f"the guest did not answer within {BOOT_DEADLINE_S:.0f} s of its start")
            bar.update()
            bar.set_postfix_str("warm up")
            running.agent.finish(running.agent.start(_WARM_UP), BOOT_DEADLINE_S)
            bar.update()
            bar.set_postfix_str("freeze")
            running.qmp.execute("stop")
            save_devices(running, place / "devices", with_memory=False)
            running.qmp.send("quit")
            if not running.child.wait(30):
                raise MachineError(name, "QEMU did not end after the state was saved")
            bar.update()
        except MachineError as error:
            raise explain(running, error) from error
        finally:
            running.child.kill()
            running.close()
            for file_of_it in self._owner.directory.glob(f"{name}.*"):
                file_of_it.unlink(missing_ok=True)

    def _prune(self) -> None:
        """Old templates go; a guest that runs from one keeps its memory until it ends (unlink(2))."""
        places = [path for path in self.directory.iterdir() if path.is_dir() and not path.name.startswith(".")]
        for path in sorted(places, key=lambda path: path.stat().st_mtime)[:-_KEEP]:
            shutil.rmtree(path, ignore_errors=True)


def require_room(directory: Path, size: int, what: str) -> None:
    """Raise `UsageError` if `directory` has less than `size` bytes free; a full disk under mapped memory kills QEMU."""
    free = shutil.disk_usage(directory).free
    if free < size:
        raise UsageError(
            f"{what.capitalize()} needs {format_size(size)} in {directory}, and {format_size(free)} are free.",
            allowed="any directory with room",
            example="export CLOUDLAB_CACHE=/path/with/room",
        )


def _write_record(place: Path) -> None:
    ram = (place / "ram").stat()
    devices = hashlib.sha256((place / "devices").read_bytes()).hexdigest()
    (place / "template.json").write_text(json.dumps({"ram": [ram.st_size, ram.st_mtime_ns], "devices": devices}))


def _is_whole(place: Path) -> bool:
    """Is every file there, and nothing written to since? The RAM is too large to be read each time: its date must fit."""
    try:
        record = json.loads((place / "template.json").read_text())
        ram = (place / "ram").stat()
        devices = hashlib.sha256((place / "devices").read_bytes()).hexdigest()
        return bool(record == {"ram": [ram.st_size, ram.st_mtime_ns], "devices": devices})
    except (OSError, ValueError):
        return False
