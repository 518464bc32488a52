"""A network that runs: the machines, switches and links that `lab.start(topology)` has brought up."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx as nx

from cloudlab.errors import UsageError
from cloudlab.machines import Machine
from cloudlab.networks import Link, Switch
from cloudlab.progress import progress
from cloudlab.units import natural

if TYPE_CHECKING:
    from cloudlab.lab.lab import Lab

_AT_ONCE = 8  # guests that are asked or started at the same time
_TIME = re.compile(r"/tmp/ping\.(\S+?):.*time=([\d.]+) ms")


@dataclass(frozen=True)
class Pings:
    """Who could reach whom: `rtt_ms` maps (from, to) to the round trip in milliseconds, or None if no answer came."""

    rtt_ms: dict[tuple[str, str], float | None]

    @property
    def missing(self) -> list[tuple[str, str]]:
        """Pairs between which no answer came."""
        return [pair for pair, rtt in self.rtt_ms.items() if rtt is None]

    def __bool__(self) -> bool:
        return not self.missing

    @property
    def _summary(self) -> str:
        return f"{len(self.rtt_ms) - len(self.missing)} of {len(self.rtt_ms)} pings answered"

    def __repr__(self) -> str:
        lost = ", ".join(f"{a} > {b}" for a, b in self.missing[:20])
        return f"{self._summary}{f'; none: {lost}' if lost else ''}"

    def _repr_html_(self) -> str:
        names = sorted({a for a, _ in self.rtt_ms}, key=natural)
        head = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in names)
        rows = "".join(
            f"<tr><th scope='row'>{html.escape(a)}</th>{''.join(self._cell(a, b) for b in names)}</tr>" for a in names
        )
        return f"<table><caption>{self._summary}</caption><tr><th>from / to</th>{head}</tr>{rows}</table>"

    def _cell(self, a: str, b: str) -> str:
        if a == b:
            return "<td></td>"
        return "<td>✓</td>" if self.rtt_ms.get((a, b)) is not None else "<td><b>✗</b></td>"


class Net:
    """Part of a lab, by names: `net["n1"]` is a machine or a switch, `net.link("n1", "s1")` the link between two of them."""

    def __init__(self, lab: Lab, names: list[str]) -> None:
        self._lab, self.names = lab, names

    def __getitem__(self, name: str) -> Any:
        if name not in self.names:
            raise UsageError(
                f"There is no {name!r} in this network.",
                allowed=", ".join(self.names),
                example=f'net["{self.names[0]}"]',
            )
        return self._lab.switches[name] if name in self._lab.switches else self._lab[name]

    @property
    def machines(self) -> dict[str, Machine]:
        """Its machines by name, routers included, in the topology's order."""
        machines = self._lab.machines
        return {name: machines[name] for name in self.names if name in machines}

    @property
    def switches(self) -> dict[str, Switch]:
        """Its switches by name."""
        switches = self._lab.switches
        return {name: switches[name] for name in self.names if name in switches}

    @property
    def links(self) -> list[Link]:
        """Its links."""
        return [link for link in self._lab.links if link.a in self.names and link.b in self.names]

    def link(self, a: str, b: str) -> Link:
        """Return the link between two things, named in either order."""
        found = next((link for link in self.links if {link.a, link.b} == {a, b}), None)
        if found is None:
            raise UsageError(
                f"{a} and {b} are not linked.",
                allowed=", ".join(link.name for link in self.links),
                example='net.link("n1", "s1")',
            )
        return found

    @property
    def closed(self) -> bool:
        """Has it ended, or its lab?"""
        return not self.names or self._lab.closed

    @property
    def topology(self) -> nx.Graph[str]:
        """The live graph of this network."""
        return self._lab.topology.subgraph(self.names).copy()

    def ping_all(self, timeout_s: int = 2) -> Pings:
        """Let each machine ping each other one once, all at the same time; tells who got an answer within `timeout_s`."""
        machines = {name: m for name, m in self.machines.items() if m.state.value == "running"}
        addresses = {name: self._lab.address(name) for name in machines}

        def ping(name: str) -> dict[tuple[str, str], float | None]:
            others = {other: address for other, address in addresses.items() if other != name}
            found = dict(_TIME.findall(machines[name].run(_ping_script(others, timeout_s)).stdout)) if others else {}
            return {(name, other): float(found[other]) if other in found else None for other in others}

        return Pings({pair: rtt for answer in at_once(ping, list(machines), "ping") for pair, rtt in answer.items()})

    def close(self) -> None:
        """End its machines and take its switches and links out: their names are free again."""
        names, self.names = self.names, []
        self._lab._take_back(names)

    def __repr__(self) -> str:
        counts = (
            (len(self.machines), "machine", "s"),
            (len(self.switches), "switch", "es"),
            (len(self.links), "link", "s"),
        )
        return f"<net: {', '.join(f'{n} {thing}{end if n != 1 else str()}' for n, thing, end in counts)}>"


def _ping_script(others: dict[str, str], timeout_s: int) -> str:
    asks = "\n".join(
        f"ping -n -c1 -W{timeout_s} {address} >/tmp/ping.{name} 2>&1 &" for name, address in others.items()
    )
    return f"rm -f /tmp/ping.*\n{asks}\nwait\ngrep -H time= /tmp/ping.*"


def at_once(do: Callable[[str], Any], names: list[str], what: str) -> list[Any]:
    """Do something for each name, a few at the same time, with a bar; the first error is raised when all are done."""
    with progress(len(names), what) as bar, ThreadPoolExecutor(_AT_ONCE) as pool:

        def one(name: str) -> Any:
            try:
                return do(name)
            finally:
                bar.update()

        return [future.result() for future in [pool.submit(one, name) for name in names]]
