"""Processes: what /proc tells of them, shown as a list, as a matrix of who is with whom, and as trees."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cloudlab.containers.calls import Place
from cloudlab.containers.kinds import KINDS, Namespace, link_of
from cloudlab.containers.namespace_errors import no_process
from cloudlab.errors import MachineError

IdMap = tuple[int, int, int]  # first id inside, first id outside, how many: user_namespaces(7)


@dataclass(frozen=True)
class ProcessInfo:
    """A process: `pids` are its numbers, from the outermost PID namespace that is seen to its own (NSpid of proc(5))."""

    pid: int
    ppid: int
    pids: tuple[int, ...]
    name: str
    command: str
    uid: int
    state: str
    namespaces: Mapping[str, Namespace]
    uid_map: tuple[IdMap, ...]
    kernel: bool = False  # a thread of the kernel's own


# One shell, three commands, no loop: the status of all processes, then their command lines, maps and namespaces.
_GATHER = r"""
echo $$; cd /proc
grep -aHsE '^(Name|State|PPid|Uid|NSpid|Kthread|VmSize):' [0-9]*/status
printf '\0'
grep -zaHs '' [0-9]*/cmdline [0-9]*/uid_map
find [0-9]*/ns -mindepth 1 -printf '%p:%l\0' 2>/dev/null
exit 0
"""


def processes(place: Place) -> list[ProcessInfo]:
    """Return all processes by number, those of the kernel too; one round trip."""
    result = place.run(["/bin/sh", "-c", _GATHER])
    if not result.ok:
        raise MachineError(place.name, "can't list processes", exit_status=result.exit_status, output=result.stderr)
    return parse_processes(result.stdout_bytes)


def parse_processes(printed: bytes) -> list[ProcessInfo]:
    """Read what was gathered; a process that ended meanwhile is left out, and so are those that gathered it."""
    lines, _, records = printed.decode(errors="replace").partition("\0")
    measuring, _, lines = lines.partition("\n")
    status: dict[int, dict[str, str]] = {}
    for pid, key, value in re.findall(r"^(\d+)/status:(\w+):\t*(.*)$", lines, re.MULTILINE):
        status.setdefault(int(pid), {})[key] = value
    more: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
    for record in records.split("\0"):
        if match := re.match(r"(\d+)/(cmdline|uid_map|ns)(?:/(?!\w+_for_children)\w+)?:", record):
            more[int(match[1]), match[2]].append(record[match.end() :])
    return [
        _process(pid, fields, more[pid, "cmdline"], more[pid, "uid_map"], more[pid, "ns"])
        for pid, fields in sorted(status.items())
        if measuring not in (str(pid), fields.get("PPid")) and {"PPid", "Uid"} <= fields.keys()
    ]


def _process(pid: int, status: Mapping[str, str], words: list[str], maps: list[str], links: list[str]) -> ProcessInfo:
    return ProcessInfo(
        pid=pid,
        ppid=int(status["PPid"]),
        pids=tuple(map(int, status.get("NSpid", str(pid)).split())),
        name=status.get("Name", "?"),
        command=" ".join(filter(None, words)) or f"[{status.get('Name', '?')}]",
        uid=int(status["Uid"].split()[0]),
        state=status.get("State", "?")[:1],
        namespaces={link.kind: link for link in map(link_of, links) if link},
        uid_map=tuple((int(a), int(b), int(n)) for a, b, n in re.findall(r"(\d+) +(\d+) +(\d+)", "".join(maps))),
        kernel=status.get("Kthread", "0") == "1"
        or (2 in (pid, int(status["PPid"])) and "VmSize" not in status and not words),
    )


# --- who is with whom -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Matrix:
    """Processes by kinds of namespaces: in a column, processes with the same letter are in the same namespace."""

    processes: tuple[ProcessInfo, ...]
    kinds: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]  # "-": a process that has ended (a zombie) is in none any more

    def __str__(self) -> str:
        rows = [("PID", *self.kinds, "COMMAND")]
        rows += [(str(p.pid), *cells, p.command) for p, cells in zip(self.processes, self.cells, strict=True)]
        return "\n".join(
            f"{pid:>7}  " + " ".join(f"{cell:6}" for cell in cells) + f" {command}" for pid, *cells, command in rows
        )


def matrix(place: Place, pids: Iterable[int] | None = None) -> Matrix:
    """Return who is with whom; without `pids`, of all processes but the kernel's own."""
    found = {process.pid: process for process in processes(place)}
    if pids is None:
        return matrix_of([process for process in found.values() if process.state != "Z" and not process.kernel])
    wanted = list(pids)
    for pid in wanted:
        if pid not in found:
            raise no_process(place, pid)
    return matrix_of([found[pid] for pid in wanted])


def matrix_of(rows: Sequence[ProcessInfo]) -> Matrix:
    """Give each namespace a letter, in each column anew, in the order of the rows."""
    known: dict[str, list[Namespace]] = {kind: [] for kind in KINDS}
    for process in rows:
        for kind, namespace in process.namespaces.items():
            if namespace not in known[kind]:
                known[kind].append(namespace)
    cells = [
        tuple(_letters(known[kind].index(p.namespaces[kind])) if kind in p.namespaces else "-" for kind in KINDS)
        for p in rows
    ]
    return Matrix(tuple(rows), tuple(KINDS), tuple(cells))


def _letters(number: int) -> str:
    """Count a, b, ... z, aa, ab, ... as the columns of a spreadsheet are."""
    more, last = divmod(number, 26)
    return (_letters(more - 1) if more else "") + chr(ord("a") + last)


# --- who is whose child -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tree:
    """A process (`pid`: its number as seen from where one looks) with its children."""

    pid: int
    process: ProcessInfo
    children: tuple[Tree, ...]

    def __str__(self) -> str:
        return "\n".join(self._lines("", "", ""))

    def _lines(self, indent: str, branch: str, below: str) -> list[str]:
        lines = [f"{indent}{branch}{self.pid} {self.process.command}"]
        for child in self.children:
            last = child is self.children[-1]
            lines += child._lines(indent + below, "└─ " if last else "├─ ", "   " if last else "│  ")
        return lines


@dataclass(frozen=True)
class Forest:
    """The trees of all processes that are seen: those whose parents are not seen are roots."""

    roots: tuple[Tree, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.roots))


def tree_of(seen: Sequence[ProcessInfo], level: int) -> Forest:
    """Grow trees of the processes that are seen, by their numbers in PID namespaces of that level."""
    known = {process.pid for process in seen}
    children: dict[int, list[ProcessInfo]] = {}
    for process in seen:
        children.setdefault(process.ppid if process.ppid in known else 0, []).append(process)

    def grow(process: ProcessInfo) -> Tree:
        return Tree(process.pids[level], process, tuple(map(grow, children.get(process.pid, []))))

    return Forest(tuple(map(grow, children.get(0, []))))
