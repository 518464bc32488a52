"""`cloudlab ps`: the labs of this user, and the machines in them."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cloudlab.cli.table import Commands, command, table
from cloudlab.units import format_duration, format_size

if TYPE_CHECKING:
    from cloudlab.owner.owner import LabRecord

_HEADER = ("LAB", "STATE", "OWNER", "AGE", "MACHINE", "PID", "MEMORY", "ADDRESS")


@dataclass(frozen=True)
class MachineRow:
    """One machine: `memory_pss` is its share of the computer's memory in bytes, None if its process has ended."""

    name: str
    pid: int | None
    memory_pss: int | None
    address: str | None


@dataclass(frozen=True)
class LabRow:
    """One lab. `owner` is the process (a notebook's kernel, mostly) that it belongs to."""

    id: str
    directory: str
    alive: bool
    owner: int | None
    age_s: float
    machines: list[MachineRow]


def add(commands: Commands) -> None:
    """Add the command `ps`."""
    parser = command(commands, "ps", run, "list your labs and their machines")
    parser.add_argument("--json", action="store_true", help="as JSON, sizes in bytes and times in seconds")


def run(arguments: argparse.Namespace) -> int:
    """Print every lab of this user, dead ones included."""
    from cloudlab.owner import labs

    rows = [lab_row(record, time.time()) for record in labs()]
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    elif not rows:
        print("No labs.")
    else:
        print(table(_HEADER, [line for row in rows for line in _lines(row)]))
    return 0


def lab_row(record: LabRecord, now: float) -> LabRow:
    """Turn what a lab's directory says into a row; machines that ended are left out of a living lab."""
    facts = record.facts
    machines = [_machine_row(note, facts.get("keeper")) for note in record.machines if "machine" in note]
    return LabRow(
        id=record.directory.name,
        directory=str(record.directory),
        alive=record.alive,
        owner=facts.get("pid"),
        age_s=round(now - facts.get("started", record.directory.stat().st_mtime), 1),
        machines=[row for row in machines if row.pid is not None or not record.alive],
    )


def _machine_row(note: dict[str, Any], keeper: int | None) -> MachineRow:
    pid = note.get("pid")
    memory = _memory(pid, keeper) if pid else None
    return MachineRow(note["machine"], pid if memory is not None else None, memory, note.get("address"))


def _memory(pid: int, keeper: int | None) -> int | None:
    """Its share of memory; None if there is no such child of the keeper: numbers of processes are used again."""
    import psutil

    from cloudlab.machines.stats import measure

    try:
        process = psutil.Process(pid)
        return measure(process, 0).memory_pss if process.ppid() == keeper else None
    except (psutil.Error, ProcessLookupError, FileNotFoundError):
        return None


def _lines(row: LabRow) -> list[tuple[object, ...]]:
    lab = (row.id, "alive" if row.alive else "dead", row.owner, format_duration(row.age_s))
    if not row.machines:
        return [(*lab, None, None, None, None)]
    sizes = [None if m.memory_pss is None else format_size(m.memory_pss) for m in row.machines]
    return [
        (*lab, machine.name, machine.pid, size, machine.address)
        for machine, size in zip(row.machines, sizes, strict=True)
    ]
