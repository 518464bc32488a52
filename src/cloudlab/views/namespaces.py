"""`namespace_matrix`: which process is in which namespace, and so who sees the same as whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from cloudlab.containers.namespaces import KINDS, Matrix, ProcessInfo, matrix_of, processes
from cloudlab.containers.setting import STATE_DIRECTORY
from cloudlab.errors import MachineError, UsageError
from cloudlab.units import natural
from cloudlab.views import style
from cloudlab.views.labels import shortened
from cloudlab.views.sheet import Cell, Row, Sheet, columns, html_table, sheet
from cloudlab.views.words import number

if TYPE_CHECKING:
    from cloudlab.containers.calls import Place
    from cloudlab.containers.container import Container

# The first namespace of each kind is grey: what differs from it is to be seen at once. Then colours, again after nine.
_COLOURS = [kind.colour for kind in style.KINDS.values() if kind.word != "host"]
_LONGEST = 44  # letters of a command
_NOT_ENDED = f"""
cd {STATE_DIRECTORY} 2>/dev/null || exit 0
for name in *; do [ ! -e "$name/exit" ] && read -r pid < "$name/pid" && echo "$pid $name"; done 2>/dev/null
exit 0
"""


def namespace_matrix(machine: Place, pids: Iterable[int | Container] | None = None) -> NamespaceMatrix:
    """Show processes by kinds of namespaces: same letter and colour in a column, same namespace.

    `pids`: processes by number, and containers (all processes of each); without, all but the kernel's own. Two round trips.
    Raises `UsageError` for a process that is not there. Source: namespaces(7), /proc/PID/ns in proc(5).
    """
    found = [process for process in processes(machine) if process.state != "Z"]
    owners = owners_of(found, _first_processes(machine))
    shown = [process for process in found if not process.kernel] if pids is None else _chosen(found, owners, pids)
    order = sorted(shown, key=lambda process: natural(owners.get(process.pid, "")))  # sorted() keeps the order of pids
    return NamespaceMatrix(machine.name, matrix_of(order), owners)


def _first_processes(machine: Place) -> dict[int, str]:
    """Return the containers that have not ended, by the numbers of their first processes: one shell, no other process."""
    result = machine.run(["/bin/sh", "-c", _NOT_ENDED])
    if not result.ok:
        raise MachineError(machine.name, "can't list containers", exit_status=result.exit_status, output=result.stderr)
    return {int(pid): name for pid, name in map(str.split, result.stdout.splitlines())}


def _chosen(
    found: Sequence[ProcessInfo], owners: Mapping[int, str], pids: Iterable[int | Container]
) -> list[ProcessInfo]:
    wanted = list(pids)
    numbers = {each for each in wanted if isinstance(each, int)}
    names = {each.name for each in wanted if not isinstance(each, int)}
    if missing := [*numbers - {process.pid for process in found}, *names - {*owners.values()}]:
        raise UsageError(
            f"There is no process of {', '.join(map(str, missing))}.",
            allowed="numbers of processes as the guest itself sees them, and containers that run",
            example="namespace_matrix(n1, [1, n1.containers['web']])",
        )
    return [process for process in found if process.pid in numbers or owners.get(process.pid) in names]


def owners_of(found: Sequence[ProcessInfo], first: Mapping[int, str]) -> dict[int, str]:
    """Say which container each process is of: the one whose PID namespace it is in, or the one that its parent is of."""
    spaces = {
        process.namespaces["pid"]: first[process.pid]
        for process in found
        if process.pid in first and "pid" in process.namespaces
    }
    outside = {process.namespaces["pid"] for process in found if process.pid == 1 and "pid" in process.namespaces}
    owners: dict[int, str] = {}
    for process in sorted(found, key=lambda process: (len(process.pids), process.pid)):
        space = process.namespaces.get("pid")
        name = first.get(process.pid) or (spaces.get(space) if space and space not in outside else None)
        if name := name or owners.get(process.ppid):
            owners[process.pid] = name
    return owners


class NamespaceMatrix(Sheet):
    """Processes by namespaces; made by `namespace_matrix`. `str()` leaves out numbers that differ from one run to the next."""

    def __init__(self, machine: str, matrix: Matrix, owners: Mapping[int, str]) -> None:
        self.title, self.matrix = f"namespaces of {machine}", matrix
        self.owners = {process.pid: owners.get(process.pid, "") for process in matrix.processes}
        self.alt = _summary(matrix, self.owners)

    @property
    def html(self) -> str:
        """The table, as a part of a page."""
        kinds = [Cell(kind, hint=KINDS[kind].isolates) for kind in self.matrix.kinds]
        head = [Cell("container"), Cell("process"), Cell("PID"), *kinds]
        rows = [Row(self._cells(*row)) for row in zip(self.matrix.processes, self.matrix.cells, strict=True)]
        key = "<p class='cl-faint'>Same letter and colour in a column: same namespace. Grey, a: the first of its kind here.</p>"
        return sheet(html_table(f"{self.title}: {self.alt}", head, rows, naming=1), key)

    def _cells(self, process: ProcessInfo, letters: tuple[str, ...]) -> list[Cell]:
        inside = f"; inside it is {process.pids[-1]}" if len(process.pids) > 1 else ""
        about = [
            Cell(self.owners[process.pid] or "–", faint=not self.owners[process.pid]),
            Cell(shortened(process.command, _LONGEST), hint=process.command),
            Cell(str(process.pid), hint=f"{process.pid} as the guest sees it{inside}", faint=True),
        ]
        pairs = zip(self.matrix.kinds, letters, strict=True)
        return about + [Cell(letter, _colour(letter), str(process.namespaces.get(kind, ""))) for kind, letter in pairs]

    def __str__(self) -> str:
        rows = [
            (self.owners[process.pid] or "-", shortened(process.command, _LONGEST), *letters)
            for process, letters in zip(self.matrix.processes, self.matrix.cells, strict=True)
        ]
        return f"{self.title}: {self.alt}\n" + columns(("CONTAINER", "PROCESS", *self.matrix.kinds), rows)


def _colour(letter: str) -> str:
    """Return the colour of a namespace by its letter: a, b, ... z, aa, ..."""
    count = 0
    for each in letter if letter.isalpha() else "":
        count = 26 * count + ord(each) - ord("a") + 1
    return "" if count == 0 else style.LINE if count == 1 else _COLOURS[(count - 2) % len(_COLOURS)]


def _summary(matrix: Matrix, owners: Mapping[int, str]) -> str:
    """Count: "5 processes, 2 containers; mnt 3, uts 3, ..."."""
    counts = [len({*column} - {"-"}) for column in zip(*matrix.cells, strict=True)]
    kinds = ", ".join(f"{count} {kind}" for kind, count in zip(matrix.kinds, counts, strict=False))
    containers = len({*owners.values()} - {""})
    said = [number(len(matrix.processes), "process", "processes")]
    said += [number(containers, "container", "containers")] if containers else []
    return f"{', '.join(said)} in {kinds}" if matrix.processes else "no processes"
