"""Views of containers in a real guest: what they show is what the guest itself says."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cloudlab import Cgroup, Lab, UsageError, cgroup_tree, figure, layer_stack, meters, namespace_matrix
from cloudlab.containers.container import Container
from cloudlab.containers.rootfs import Rootfs
from cloudlab.lab.node import Node
from cloudlab.views import parts

pytestmark = pytest.mark.guest
Eventually = Callable[[Callable[[], bool], float], None]
BUSY = "echo hello > /etc/motd; rm /usr/bin/vi; echo more >> /etc/passwd; echo ready; while :; do :; done"


@pytest.fixture(scope="module")
def node(lab: Lab) -> Iterator[Node]:
    machine = lab.machine("v1")
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def web(node: Node) -> Iterator[Container]:
    """A container that has changed its root and uses all the CPU that it may."""
    container = node.container(
        "web", command=["/bin/sh", "-c", BUSY], network="none", writable=True, memory="32M", cpus=0.5, pids=20
    )
    node.wait_until_succeeds("grep -q ready /run/cloudlab/containers/web/log")
    yield container
    container.remove()


def test_a_container_is_alone_in_its_namespaces_with_what_is_run_in_it(node: Node, web: Container) -> None:
    child = node.spawn(["nsenter", "-t", str(web.pid), "-a", "/bin/sleep", "60"])
    try:
        node.wait_until_succeeds(f"grep -q {web.pid} /run/cloudlab/containers/web/pid && pgrep -x sleep")
        shown = namespace_matrix(node)
    finally:
        child.kill()
    names = {row.pid: shown.owners[row.pid] for row in shown.matrix.processes}
    assert names[web.pid] == "web"
    assert names[1] == ""
    mine = [cells for row, cells in zip(shown.matrix.processes, shown.matrix.cells, strict=True) if names[row.pid]]
    guests = shown.matrix.cells[0]
    assert all(mine[0][column] != guests[column] for column in range(7))
    assert mine[0][7] == guests[7]  # time
    assert str(namespace_matrix(node, [web])).splitlines()[2].startswith("web        /bin/sh -c")


def test_the_inodes_in_the_matrix_are_those_of_proc(node: Node, web: Container) -> None:
    shown = namespace_matrix(node, [web.pid])
    link = node.succeed(f"readlink /proc/{web.pid}/ns/net").strip()
    assert f'title="{link}"' in shown.html
    with pytest.raises(UsageError, match="no process of 99999"):
        namespace_matrix(node, [99999])


def test_the_stack_says_of_each_change_which_layer_answers(web: Container) -> None:
    shown = layer_stack(web, path="/usr/bin/vi")
    base = shown.stack.layers[-1]
    assert shown.stack.layers[:2] == ("upper", "init")
    assert shown.changes["/etc/motd"] == "A"
    assert shown.changes["/etc/passwd"] == "C"
    assert str(shown.answer) == "/usr/bin/vi: nobody answers: upper has a whiteout: it was deleted there"
    assert shown.stack["/etc/passwd"].kinds.keys() == {"upper", base}
    assert {row.path for row in shown.rows} > {"/etc/motd", "/etc/passwd", "/usr/bin/vi"}
    assert str(shown) == str(layer_stack(web, path="/usr/bin/vi"))


def test_a_root_made_by_hand_is_shown_by_the_same_view(node: Node, web: Container) -> None:
    node.succeed("mkdir -p /tmp/base/etc && echo 1 > /tmp/base/etc/issue")
    root = Rootfs(node, ["/tmp/base"], "byhand")
    root.mount()
    try:
        node.succeed(f"rm -rf {root.merged}/etc && mkdir {root.merged}/etc && : > {root.merged}/etc/new")
        shown = layer_stack(root, "/etc")
        assert str(shown.stack["/etc"].kinds["upper"]) == "opaque directory"
        assert shown.changes["/etc/new"] == "A"
        assert shown.changes["/etc/issue"] == "D"
        assert shown.stack.layers == ("upper", "init", "base")
    finally:
        root.remove()


def test_the_tree_of_groups_follows_use_against_limits(node: Node, web: Container, eventually: Eventually) -> None:
    view = cgroup_tree(node)
    try:

        def mine() -> dict[str, str]:
            group = next(group for group in view.groups if group.node.path == "/cloudlab/web")
            return {key: use.words(group.node.path) for key, use in group.uses.items()}

        assert str(view).splitlines()[-1].endswith("web  (cpu 0.5, memory 32 MiB, pids 20)")
        eventually(lambda: mine()["cpu"].endswith("of 0.5, throttled"), 10)
        assert mine()["memory"].endswith("of 32 MiB")
        assert mine()["pids"] == "1 of 20"
        web.limit(pids=30)
        eventually(lambda: mine()["pids"] == "1 of 30", 10)
        other = Cgroup(node, "/other").create(memory="8M")
        eventually(lambda: any(group.node.path == "/other" for group in view.groups), 10)
        other.remove()
    finally:
        view.close()


def test_a_tree_in_version_1_has_the_same_rows(own_lab: Lab) -> None:
    old = own_lab.machine("old", cgroups="v1")
    Cgroup(old, "/web").create(memory="16M", cpus=0.5, pids=9)
    view = cgroup_tree(old, "/web")
    view.stop()
    assert str(view).splitlines() == ["control groups of old", "web  (cpu 0.5, memory 16 MiB, pids 9)"]


def test_meters_of_a_container_count_what_its_quota_leaves_it(
    node: Node, web: Container, eventually: Eventually
) -> None:
    idle = Cgroup(node, "/idle").create()
    view = meters([web, idle])
    try:
        assert repr(view) == f"<meters of {node.name}/web, {node.name}/idle: cpu, memory, disk, processes>"
        eventually(lambda: len([one for one in view.samples if one.machine.endswith("web")]) > 2, 20)
        used = [one for one in view.samples if one.machine.endswith("web")]
        assert all(20 < one.cpu < 65 for one in used[1:])
        assert {one.processes for one in used} == {1}
        assert all(one.cpu == 0 for one in view.samples if one.machine.endswith("idle"))
        idle.remove()
        eventually(lambda: view._shown[f"words {node.name}/idle"] == "does not run", 10)
    finally:
        view.close()


def test_what_a_container_took_is_put_together_by_purpose(web: Container) -> None:
    shown = parts(web)
    purposes = [part.purpose for part in shown.parts]
    assert purposes[0] == "namespaces"
    assert {"control group", "layers", "change of root", "mounts", "seccomp", "privileges"} < set(purposes)
    assert shown.calls == len(web.steps)
    assert 0 < shown.took_s < 5


def test_a_lab_is_drawn_with_its_containers(lab: Lab, node: Node, web: Container) -> None:
    shown = figure(lab)
    rows = {row["name"]: row for row in shown.table}
    assert rows[f"{node.name}/web"]["kind"] == "container"
    assert rows[f"{node.name}/web"]["state"] == "running"
    assert rows[f"{node.name}-{node.name}/web"]["kind"] == "inside"
    web.pause()
    assert f"{node.name}/web is paused" in repr(figure(lab))
    web.resume()
