"""The tree of control groups: whose limit holds, what is said of it, and what is sent while it changes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from cloudlab import MachineError, cgroup_tree
from cloudlab.containers.cgroup_stats import CgroupStats
from cloudlab.containers.cgroups import Cgroup, Node
from cloudlab.containers.limits import Limits
from cloudlab.views.cgroups import CgroupTree, parts_of
from cloudlab.views.groups import Group, groups_of, tree_lines

Eventually = Callable[[Callable[[], bool], float], None]
MIB = 1 << 20


def node(path: str, limits: Limits | None = None, *processes: int, **used: float) -> Node:
    return Node(path, limits or Limits(), CgroupStats(used.pop("time_s", 10.0), **used), processes)  # type: ignore[arg-type]


NODES = [
    node("/", None, 1, 2, cpu_s=50.0),
    node("/pod", Limits(memory=64 * MIB, cpus=0.5), memory=48 * MIB, cpu_s=4.0, pids=3),
    node("/pod/a", Limits(memory=128 * MIB, pids=10), 7, memory=40 * MIB, cpu_s=3.0, pids=1),
    node("/pod/b", Limits(memory=16 * MIB), 8, 9, memory=15.5 * MIB, cpu_s=1.0, pids=2, throttled=2),
    node("/web", None, memory=MIB, pids=0),
]


def later(old: Node, cpu_s: float, **used: object) -> Node:
    return replace(old, stats=replace(old.stats, time_s=12.0, cpu_s=old.stats.cpu_s + cpu_s, **used))  # type: ignore[arg-type]


def rows(nodes: list[Node], before: list[Node] | None = None) -> dict[str, Group]:
    known = {each.path: each for each in before or []}
    return {group.node.path: group for group in groups_of(nodes, known, 1, 384 * MIB)}


def words(group: Group, key: str) -> str:
    return group.uses[key].words(group.node.path)


def test_the_smallest_limit_on_the_way_up_is_the_one_that_holds() -> None:
    found = rows(NODES)
    assert {path: group.uses["memory"].holder for path, group in found.items()} == {
        "/": "",
        "/pod": "/pod",
        "/pod/a": "/pod",
        "/pod/b": "/pod/b",
        "/web": "",
    }
    assert found["/pod/a"].uses["memory"].limit == 64 * MIB
    assert found["/pod/a"].uses["cpu"].limit == 0.5


def test_use_in_words_says_whose_limit_it_is() -> None:
    found = rows(NODES)
    assert words(found["/pod"], "memory") == "48 MiB of 64 MiB"
    assert words(found["/pod/a"], "memory") == "40 MiB (/pod: 64 MiB)"
    assert words(found["/pod/a"], "pids") == "1 of 10"
    assert words(found["/web"], "memory") == "1 MiB"
    assert words(found["/"], "memory") == "–"


def test_cpu_is_what_was_used_since_the_last_look_and_unknown_before() -> None:
    assert words(rows(NODES)["/pod"], "cpu") == "–"
    after = [later(each, 0.8) for each in NODES]
    assert words(rows(after, NODES)["/pod"], "cpu") == "0.4 of 0.5"
    assert rows(after, NODES)["/pod"].uses["cpu"].share == pytest.approx(0.8)
    assert words(rows(after, NODES)["/web"], "cpu") == "0.4"


def test_what_a_limit_did_is_said() -> None:
    after = [later(each, 1.0, throttled=3, pids_refused=1, memory_events={"oom_kill": 2}) for each in NODES]
    one = rows(after, NODES)["/pod/b"]
    assert words(one, "cpu") == "0.5 (/pod: 0.5), throttled"
    assert words(one, "memory") == "15.5 MiB of 16 MiB, 2 processes killed"
    assert words(one, "pids") == "2, 1 fork refused"


def test_a_group_that_uses_more_than_its_limit_fills_the_bar() -> None:
    full = [node("/x", Limits(memory=MIB), memory=3 * MIB)]
    assert rows(full)["/x"].uses["memory"].share == 1


def test_the_tree_in_lines_has_limits_and_nothing_that_changes_by_itself() -> None:
    assert tree_lines(groups_of(NODES, {}, 1, 384 * MIB)) == [
        "/",
        "├─ pod  (cpu 0.5, memory 64 MiB)",
        "│  ├─ a  (pids 10)",
        "│  └─ b  (memory 16 MiB)",
        "└─ web",
    ]


def test_a_part_of_the_tree_begins_at_its_own_top() -> None:
    assert tree_lines(groups_of(NODES[1:4], {}, None, None))[0] == "pod  (cpu 0.5, memory 64 MiB)"


def test_each_part_has_its_place_and_no_bar_is_drawn_without_a_limit() -> None:
    parts = parts_of(groups_of(NODES, {}, None, None))
    assert parts["memory bar /pod"] == "97.5"
    assert "memory bar /web" not in parts
    assert parts["processes /pod/b"] == "2"


# --- the widget -------------------------------------------------------------------------------------------------------
class Machine:
    """What `cgroup_tree` needs of a machine."""

    name, closed, nodes = "n1", False, NODES


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(Cgroup, "tree", lambda _: list(machine.nodes))
    monkeypatch.setattr(CgroupTree, "_period_s", 0.01)
    return machine


@pytest.fixture
def view(machine: Machine) -> Iterator[CgroupTree]:
    view = cgroup_tree(machine)  # type: ignore[arg-type]
    yield view
    view.close()


def test_only_what_has_changed_is_sent(view: CgroupTree) -> None:
    view.stop()
    assert view._take(NODES).keys() <= {"html"}  # from the second look on there is a rate, and a bar of it
    assert view._take(NODES) == {}
    pod = replace(NODES[1], stats=replace(NODES[1].stats, memory=49 * MIB))
    grown = [NODES[0], pod, *NODES[2:]]
    assert set(view._take(grown)["parts"]) == {"memory words /pod", "memory bar /pod"}


def test_a_bar_that_was_not_there_before_draws_all_anew(machine: Machine) -> None:
    view = CgroupTree(machine, Cgroup(machine, "/"), NODES)  # type: ignore[arg-type]
    view.stop()
    view._take([node("/pod", Limits(memory=MIB))])
    assert "memory bar /x" in view._take([node("/pod", Limits(memory=MIB)), node("/x", Limits(memory=MIB))])["html"]
    view.close()


def test_a_group_that_comes_or_a_limit_that_changes_draws_all_anew(view: CgroupTree) -> None:
    view.stop()
    assert "new &amp; &lt;b&gt;" in view._take([*NODES, node("/new & <b>")])["html"]
    assert "<b>" not in view._still()
    assert "html" in view._take([*NODES[:-1], node("/web", Limits(pids=3))])


def test_every_part_has_its_place_in_the_picture(view: CgroupTree) -> None:
    assert set(re.findall(r'data-part="([^"]+)"', view._still())) == set(view._parts)


def test_it_follows_by_itself(view: CgroupTree, machine: Machine, eventually: Eventually) -> None:
    machine.nodes = [*NODES, node("/zzz")]
    eventually(lambda: view.groups[-1].node.path == "/zzz", 2)


def test_it_ends_with_the_machine(view: CgroupTree, machine: Machine, eventually: Eventually) -> None:
    machine.closed = True
    eventually(lambda: not view.following, 2)


def test_without_a_kernel_it_is_a_table_under_a_name(view: CgroupTree) -> None:
    bundle = view._repr_mimebundle_()[0]
    assert bundle["text/plain"] == "<5 control groups of n1>"
    assert bundle["text/html"].startswith('<div role="group" aria-label="&lt;5 control groups of n1&gt;">')
    assert "<caption>Control groups of n1: use against limits</caption>" in bundle["text/html"]
    assert str(view).splitlines()[:2] == ["control groups of n1", "/"]


def test_a_group_that_is_not_there_is_an_error(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: object) -> list[Node]:
        raise MachineError("n1", "there is no control group /x")

    monkeypatch.setattr(Cgroup, "tree", gone)
    with pytest.raises(MachineError, match="no control group"):
        cgroup_tree(machine, "/x")  # type: ignore[arg-type]
