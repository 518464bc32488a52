"""The meters: from counters to samples, from samples to charts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, replace
from xml.etree import ElementTree

import networkx as nx
import psutil
import pytest

from cloudlab import MachineError, UsageError, meters
from cloudlab.containers.cgroup_stats import CgroupStats, IoUse
from cloudlab.machines.stats import Stats, measure
from cloudlab.views import chart
from cloudlab.views.meters import Meters
from cloudlab.views.readings import Reading, link_octets, sample, words

Eventually = Callable[[Callable[[], bool], float], None]
MIB = 1 << 20


class Machine:
    """What `meters` needs of a machine."""

    def __init__(self, name: str) -> None:
        self.name, self.closed, self.runs = name, False, True
        self.now = Stats(1.0, 60 * MIB, 50 * MIB, 384 * MIB, 0, 0)

    @property
    def stats(self) -> Stats:
        if not self.runs:
            raise MachineError(self.name, "is crashed")
        self.now = replace(self.now, cpu_s=self.now.cpu_s + 0.001)
        return self.now


class Source:
    """What `meters` needs of a lab with a network."""

    def __init__(self) -> None:
        self.closed = False
        self.topology: nx.Graph[str] = nx.Graph()
        self.topology.add_edge("n1", "s1", octets=1000)
        self.topology.add_edge("n1", "n2", octets=10)
        self.topology.add_edge("n3", "s1")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Meters, "_period_s", 0.01)


@pytest.fixture
def machine() -> Machine:
    return Machine("n1")


@pytest.fixture
def view(machine: Machine) -> Iterator[Meters]:
    view = meters(machine, seconds=2)
    yield view
    view.close()


# --- from counters to samples -----------------------------------------------------------------------------------------
def test_a_sample_is_what_was_used_between_two_readings() -> None:
    before = Reading("n1", 10.0, Stats(5.0, 60 * MIB, 0, 0, 1000, 0), 500)
    after = Reading("n1", 12.0, Stats(6.0, 70 * MIB, 0, 0, 3000, 4000), 700)
    used = sample(before, after)
    assert (used.cpu, used.memory) == (50.0, 70 * MIB)
    assert (used.disk_read, used.disk_written, used.disk, used.network) == (1000, 2000, 3000, 100)
    with pytest.raises(FrozenInstanceError):
        used.cpu = 0  # type: ignore[misc]


def test_a_machine_that_was_started_again_has_not_used_less_than_nothing() -> None:
    before = Reading("n1", 0.0, Stats(5.0, 1, 0, 0, 1000, 1000))
    after = Reading("n1", 1.0, Stats(0.5, 1, 0, 0, 0, 0))
    used = sample(before, after)
    assert (used.cpu, used.disk, used.network) == (0, 0, None)


def test_network_octets_are_those_of_all_links_of_a_node_that_are_counted() -> None:
    assert link_octets(Source()) == {"n1": 1010, "s1": 1000, "n2": 10}


def test_disk_octets_are_the_sum_of_what_qemu_says_of_each_disk() -> None:
    disks = [{"stats": {"rd_bytes": 5, "wr_bytes": 7}}, {"stats": {"rd_bytes": 10, "wr_bytes": 0}}]
    stats = measure(psutil.Process(), 0, disks)
    assert (stats.disk_read, stats.disk_written) == (15, 7)
    assert measure(psutil.Process(), 0).disk_read == 0


def test_a_sample_in_words() -> None:
    before = Reading("n1", 0.0, Stats(0.0, 0, 0, 0), 0)
    after = Reading("n1", 1.0, Stats(0.25, 64 * MIB, 0, 0, 2048, 0), 1024)
    said = words(sample(before, after))
    assert said == "CPU 25 %, memory 64 MiB, disk 2 KiB/s read, 0 B/s written, network 1 KiB/s"


def group(time_s: float, **used: object) -> CgroupStats:
    return CgroupStats(time_s, **used)  # type: ignore[arg-type]


def test_a_group_is_measured_by_the_clock_of_its_guest() -> None:
    disks = {"254:0": IoUse(1000, 0), "254:16": IoUse(3000, 400)}
    before = Reading("n1/web", 10.0, group(100.0, cpu_s=2.0))
    after = Reading("n1/web", 20.0, group(102.0, cpu_s=3.0, memory=MIB, pids=4, io=disks))
    used = sample(before, after)
    assert (used.cpu, used.memory, used.processes) == (50.0, MIB, 4)
    assert (used.disk_read, used.disk_written, used.network) == (2000, 200, None)
    assert words(used) == "CPU 50 %, memory 1 MiB, I/O 2 KiB/s read, 200 B/s written, 4 processes"


# --- charts -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("unit", "highest", "top"),
    [
        (chart.PERCENT, 3, 100),
        (chart.PERCENT, 130, 150),
        (chart.PERCENT, 500, 500),
        (chart.SIZE, 0, MIB),
        (chart.SIZE, 60 * MIB, 64 * MIB),
        (chart.SIZE, 65 * MIB, 96 * MIB),
        (chart.SPEED, 1025, 1536),
    ],
)
def test_the_top_of_an_axis_is_a_round_number_above_all_values(unit: chart.Unit, highest: float, top: float) -> None:
    assert unit.top(highest) == top


def test_now_is_at_the_right_and_the_top_value_at_the_top() -> None:
    one = chart.Chart("cpu", "CPU", chart.PERCENT)
    made = chart.parts(one, {"n1": [(60, 0), (0, 100)]}, 60)
    assert (made["cpu bottom"], made["cpu middle"], made["cpu top"]) == ("0 %", "50 %", "100 %")
    (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in made["cpu line n1"].split())
    assert x1 < x2 < chart.WIDTH
    assert y2 < y1


def test_lines_differ_in_colour_and_dash() -> None:
    looks = [chart.look(number) for number in range(7)]
    assert len({colour for colour, _ in looks}) == 7
    assert len({dash for _, dash in looks}) == 7
    assert len({chart.look(number) for number in range(70)}) == 70


# --- the widget -------------------------------------------------------------------------------------------------------
def test_samples_come_by_themselves_and_only_the_last_seconds_are_kept(view: Meters, eventually: Eventually) -> None:
    eventually(lambda: len(view.samples) >= 5, 2)
    times = [one.time_s for one in view.samples]
    assert times == sorted(times)
    eventually(lambda: view.samples[0].time_s > 0.5, 5)
    assert view._now_s - view.samples[0].time_s <= 2


def test_a_machine_that_crashes_leaves_a_gap_and_comes_back(
    view: Meters, machine: Machine, eventually: Eventually
) -> None:
    eventually(lambda: len(view.samples) > 1, 2)
    machine.runs = False
    eventually(lambda: view._shown["words n1"] == "does not run", 2)
    machine.runs = True
    eventually(lambda: view._shown["words n1"].startswith("CPU"), 2)
    assert view.following


def test_the_network_has_a_chart_only_where_links_are_counted(view: Meters, machine: Machine) -> None:
    assert repr(view) == "<meters of n1: cpu, memory, disk>"
    with_links = meters([machine, Machine("n2")], source=Source())
    assert repr(with_links) == "<meters of n1, n2: cpu, memory, disk, network>"
    with_links.close()


def test_stop_ends_the_thread_and_leaves_the_samples(view: Meters, eventually: Eventually) -> None:
    eventually(lambda: bool(view.samples), 2)
    thread = view._thread
    view.stop()
    assert thread is not None
    assert not thread.is_alive()
    assert view.samples


def test_the_thread_ends_when_the_machines_are_closed(view: Meters, machine: Machine, eventually: Eventually) -> None:
    machine.closed = True
    eventually(lambda: not view.following, 2)


def test_what_is_shown_first_is_the_same_each_time(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Meters, "_period_s", 60)
    bundles = []
    for _ in range(2):
        view = meters([machine, Machine("<n2>")])
        bundles.append(view._repr_mimebundle_()[0])
        view.close()
    assert bundles[0]["text/html"] == bundles[1]["text/html"]
    assert bundles[0]["text/plain"] == "<meters of n1, <n2>: cpu, memory, disk>"
    assert "<n2>" not in bundles[0]["text/html"]


def test_the_charts_are_well_formed_and_every_part_has_its_place(view: Meters, eventually: Eventually) -> None:
    eventually(lambda: len(view.samples) > 2, 2)
    html = view._still()
    for svg in re.findall(r"<svg.*?</svg>", html):
        ElementTree.fromstring(svg)
    assert set(re.findall(r'data-part="([^"]+)"', html)) == set(view._shown)


class Group:
    """What `meters` needs of a control group."""

    def __init__(self, place: Machine, path: str) -> None:
        self.place, self.path, self.there, self.time_s = place, path, True, 0.0

    def stats(self) -> CgroupStats:
        if not self.there:
            raise UsageError("There is no container 'web' on n1.")
        self.time_s += 1
        return CgroupStats(self.time_s, cpu_s=self.time_s / 4, pids=3)


def test_containers_and_groups_have_charts_of_their_guest(machine: Machine, eventually: Eventually) -> None:
    web, db = Group(machine, "/web"), Group(machine, "/db")
    view = meters([web, db])  # type: ignore[list-item]
    try:
        assert repr(view) == "<meters of n1/web, n1/db: cpu, memory, disk, processes>"
        assert "one CPU of the guest" in view._still()
        eventually(lambda: bool(view.samples), 2)
        assert {(one.cpu, one.processes) for one in view.samples} == {(25, 3)}
        web.there = False
        eventually(lambda: view._shown["words n1/web"] == "does not run", 2)
        machine.closed = True
        eventually(lambda: not view.following, 2)
    finally:
        view.close()


def test_machines_and_groups_do_not_share_a_chart_and_links_count_no_groups(machine: Machine) -> None:
    with pytest.raises(UsageError, match="no chart in common"):
        meters([machine, Group(machine, "/web")])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="not what containers do"):
        meters(Group(machine, "/web"), source=Source())  # type: ignore[arg-type]


def test_only_machines_can_be_measured() -> None:
    with pytest.raises(UsageError, match=r"meters\(\[n1, n2\]\)"):
        meters([])
    with pytest.raises(UsageError, match="can't be measured"):
        meters([7])  # type: ignore[list-item]
