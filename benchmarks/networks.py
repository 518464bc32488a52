"""Networks: many guests at once, and frames through the switch; beside it, two guests joined without one."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.bench import Bench
from benchmarks.measure import OURS, Measure, Side, compared, interleave, timed
from cloudlab import Lab, Machine, star
from cloudlab.lab.net import Net

DIRECT = "no switch"
_PINGS = 50


def cluster(bench: Bench) -> list[Measure]:
    """Guests on one switch, from lab.start(star(n)) until each has answered with its own name, MAC, address and randomness."""
    sizes = {16: 1.5, 24: 2.0, 64: 8.0} if not bench.quick else {4: 1.5}
    measures = []
    for count, target in sizes.items():
        taken = interleave({OURS: Side(lambda n=count: _start(bench, n), bench.few if count == 64 else bench.runs)})  # type: ignore[misc]
        measures.append(compared(taken, "started", f"{count} guests started and answering", "s", target))
        if count in (4, 16):
            measures.append(compared(taken, "memory", f"one of {count} guests: memory (PSS)", "MB", 48))
            measures.append(compared(taken, "ping_all", f"ping_all of {count} ({count * (count - 1)} pings)", "s", 10))
    return measures


def _start(bench: Bench, count: int) -> dict[str, float]:
    with Lab() as lab:
        net: Net

        def start() -> None:
            nonlocal net
            net = lab.start(star(count, accelerator=bench.accelerator))
            for machine in net.machines.values():
                machine.running.agent.ping().wait(30)

        numbers = {"started": timed(start)}
        _check_identities(net)
        numbers["memory"] = lab.budget.per_guest / 1e6
        return numbers | ({"ping_all": timed(net.ping_all)} if count <= 16 else {})


def _check_identities(net: Net) -> None:
    """A guest that answers, but is not yet itself, does not count."""
    told = {
        name: machine.succeed("hostname; cat /sys/class/net/eth0/address; od -An -tx1 -N8 /dev/urandom").split("\n")
        for name, machine in net.machines.items()
    }
    assert all(lines[:2] == [name, net[name].identity.mac] for name, lines in told.items())
    assert len({lines[2] for lines in told.values()}) == len(told), "two guests draw the same random numbers"


def switch(bench: Bench) -> list[Measure]:
    """TCP between two guests (iperf3, MTU 1500) and ping; ours with a capture of all frames, the other with no switch at all."""
    with Lab() as lab, _pair(bench) as direct:
        net = lab.start(star(2, accelerator=bench.accelerator))
        link = net.link("n1", "s1")

        def captured() -> dict[str, float]:
            with link.capture():
                return _traffic(net["n1"], net["n2"], "n2", bench)

        taken = interleave(
            {
                OURS: Side(captured, bench.runs),
                DIRECT: Side(lambda: _traffic(*direct, "10.9.0.2", bench), bench.runs),
            }
        )
    return [
        compared(taken, "rate", "TCP between two guests, captured", "Mbit/s", 250, more_is_better=True),
        compared(taken, "ping", "ping between two guests", "ms", 3),
    ]


def _traffic(a: Machine, b: Machine, address: str, bench: Bench) -> dict[str, float]:
    b.succeed("iperf3 --server --one-off --daemon")
    b.wait_until_succeeds("ss -Htln sport = 5201 | grep -q .")
    seconds = 1 if bench.quick else 3
    report = json.loads(a.succeed(f"iperf3 --client {address} --time {seconds} --json"))
    pings = a.succeed(f"ping -n -c {_PINGS} -i 0.02 {address}").splitlines()
    times = [float(line.split("time=")[1].split()[0]) for line in pings if "time=" in line]
    return {"rate": report["end"]["sum_received"]["bits_per_second"] / 1e6, "ping": statistics.median(times) / 1e3}


@contextmanager
def _pair(bench: Bench) -> Iterator[tuple[Machine, Machine]]:
    """Two guests whose QEMUs are joined by one socket, as qemu(1) shows it for `-netdev stream`."""
    with Lab() as lab:
        a, b = (lab.machine(name, accelerator=bench.accelerator) for name in ("n1", "n2"))
        wire = {
            "type": "stream",
            "id": "wire",
            "server": False,
            "addr": {"type": "unix", "path": str(lab.path("n1.net0"))},
        }
        card = {
            "driver": "virtio-net-pci",
            "id": "card",
            "netdev": "wire",
            "bus": "slots",
            "addr": "0xf",
            "romfile": "",
        }
        b.running.qmp.answer(b.running.qmp.send("netdev_add", arguments=wire))
        b.running.qmp.answer(b.running.qmp.send("device_add", arguments=card))
        a.set_carrier(0, up=True)
        b.wait_until_succeeds("test -e /sys/class/net/eth1")
        for machine, device, number in ((a, "eth0", 1), (b, "eth1", 2)):
            machine.succeed(f"ip address add 10.9.0.{number}/24 dev {device}; ip link set {device} up")
        yield a, b
