"""Containers by name: images, the network, restarts and health put together, in real guests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudlab import Lab, MachineError, UsageError
from cloudlab.containers.container import Container
from cloudlab.containers.engine import Engine
from cloudlab.containers.supervisor import Health
from cloudlab.lab.node import Node

Eventually = Callable[[Callable[[], object], float], None]


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def n1(shared: Lab) -> Node:
    return shared.machine("n1")


@pytest.fixture
def engine(n1: Node) -> Iterator[Engine]:
    engine = n1.containers
    before = traces(n1)
    yield engine
    for container in n1.containers:
        container.remove()
    for _ in range(20):  # init takes a second to bury the dead
        if traces(n1) == before:
            return
        n1.succeed("sleep 0.2")
    assert traces(n1) == before


def traces(machine: Node) -> str:
    """What a container must not leave behind; its network stays, as docker's does."""
    printed = machine.succeed(
        "grep -v nsfs /proc/mounts | cut -d' ' -f2; ip -br link | grep -c veth;"
        "ls /run/cloudlab/containers /var/lib/cloudlab/containers 2>/dev/null | grep -v :;"
        "find /sys/fs/cgroup/cloudlab -mindepth 1 -type d 2>/dev/null; ps -eo comm,args | grep '[c]loudlab-process'; true"
    )
    return " ".join(printed.split())


def idle(engine: Engine, name: str = "", **options: object) -> Container:
    return engine.create(name, command=["sleep", "1000"], **options)  # type: ignore[arg-type]


# --- what it is -------------------------------------------------------------------------------------------------


def test_a_container_sees_itself_alone(engine: Engine) -> None:
    web = idle(engine, "web", network="none")
    assert web.exec("hostname") == "web\n"
    assert web.exec(["ps", "-o", "pid,args"]).splitlines()[1].split() == ["1", "sleep", "1000"]
    assert web.exec("ls /sys/class/net") == "lo\n"
    assert web.exec("id -u") == "0\n"
    assert web.exec("cat /proc/1/cgroup") == "0::/\n"


def test_its_root_is_nobody_outside(engine: Engine, n1: Node) -> None:
    web = idle(engine, "web")
    assert n1.succeed(f"stat -c %u /proc/{web.pid}") == "100000\n"
    assert "permission denied" in web.run("mount -t tmpfs x /tmp").stderr
    assert web.run("touch /here").stderr.strip() == "touch: /here: Read-only file system"
    assert web.run("touch /tmp/here").ok
    assert not web.run("echo 1 > /proc/sys/kernel/panic").ok


def test_a_writable_container_keeps_what_it_writes_until_it_is_removed(engine: Engine) -> None:
    web = idle(engine, "web", writable=True)
    web.exec("echo hello > /etc/greeting; rm /etc/os-release")
    assert [str(change) for change in web.changes()] == ["C /etc", "A /etc/greeting", "D /etc/os-release"]
    web.stop(0)
    web.start()
    assert web.exec("cat /etc/greeting") == "hello\n"
    web.remove()
    assert not idle(engine, "web", writable=True).run("test -e /etc/greeting").ok


def test_what_it_prints_is_kept_by_stream(engine: Engine) -> None:
    talker = engine.create("talker", command="echo out; echo err >&2; printf half; exit 3", network="none")
    assert talker.wait() == 3
    assert (talker.logs(stream="stdout"), talker.logs(stream="stderr")) == ("out\nhalf", "err\n")
    assert sorted(line.text for line in talker.log) == ["err", "half", "out"]
    assert talker.logs(last=1) in ("half", "err\n", "out\n")
    assert repr(talker).startswith("<container talker of busybox: stopped, exit status 3, sh -c")


def test_a_limit_of_memory_kills_and_says_so(engine: Engine) -> None:
    greedy = engine.create("greedy", command="tail /dev/zero", memory="16M", network="none")
    assert greedy.wait() == 137
    assert greedy.state.out_of_memory


def test_one_that_has_ended_uses_nothing_and_says_so(engine: Engine) -> None:
    short = engine.create("short", command="true", network="none")
    short.wait()
    with pytest.raises(UsageError, match="Container short has ended"):
        short.stats()


def test_a_full_table_of_processes_is_told(engine: Engine, eventually: Eventually) -> None:
    full = engine.create("full", command="for i in 1 2 3 4; do sleep 1000 & done; wait", pids=5, network="none")
    eventually(lambda: full.stats().pids == 5, 30)
    with pytest.raises(UsageError, match="no room for another process"):
        full.run("true")


def test_limits_are_changed_while_it_runs(engine: Engine, n1: Node) -> None:
    web = idle(engine, "web", memory="32M", cpus=0.5, pids=10)
    web.limit(memory="24M", pids=7)
    assert (
        n1.succeed("cd /sys/fs/cgroup/cloudlab/web; cat memory.max pids.max cpu.max")
        == f"{24 << 20}\n7\n50000 100000\n"
    )
    assert web.stats().pids == 1
    assert "sleep 1000" in web.processes()


def test_pause_stop_kill_and_start(engine: Engine) -> None:
    web = idle(engine, "web", network="none")
    web.pause()
    assert web.status == "paused"
    with pytest.raises(UsageError, match="paused, not running"):
        web.exec("true")
    web.resume()
    assert web.exec("echo back") == "back\n"
    web.kill()
    assert (web.wait(), web.status) == (137, "stopped")
    web.start()
    assert web.status == "running"
    polite = engine.create("polite", command="trap 'exit 5' TERM; while :; do sleep 0.1; done", network="none")
    assert polite.stop() == 5


def test_another_command_runs_in_it(engine: Engine) -> None:
    web = idle(engine, "web", user="1000:1000", env={"COLOUR": "blue"})
    assert web.exec(["cat"], input="through\n") == "through\n"
    assert web.exec("echo $COLOUR $SIZE; id -u; pwd", env={"SIZE": "7"}, directory="/tmp") == "blue 7\n1000\n/tmp\n"
    assert web.exec("id -u", user="0") == "0\n"
    assert web.run("exit 9").exit_status == 9
    with pytest.raises(MachineError, match="the command failed"):
        web.exec("false")
    with pytest.raises(UsageError, match="'nothing' can't be run in a container of busybox: ENOENT"):
        web.run(["nothing"])


# --- what can't be ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["none", "bridge"])
def test_a_program_that_is_not_there_is_told_and_leaves_nothing(engine: Engine, network: str) -> None:
    with pytest.raises(UsageError, match="'nothing' can't be run in a container of busybox: ENOENT"):
        engine.create("odd", command=["nothing"], network=network)
    assert "odd" not in engine


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"image": "nothing"}, "no image 'nothing'"),
        ({"memory": "much"}, "is not a size"),
        ({"cpus": 0}, "is no share of CPUs"),
        ({"user": "root"}, "is not the number of a user"),
        ({"colour": "blue"}, "has no colour"),
        ({"restart": "sometimes"}, "is not a restart policy"),
        ({"volumes": [("data", "/data")]}, "is not a path in a guest"),
        ({"drop_capabilities": ["FLY"]}, "no capability 'FLY'"),
        ({"name": "Über"}, "is not a name for a container"),
    ],
)
def test_nonsense_is_explained_and_leaves_nothing(engine: Engine, options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        engine.create(**{"command": ["sleep", "1"], **options})  # type: ignore[arg-type]
    assert not list(engine)


def test_a_name_is_taken_once(engine: Engine) -> None:
    idle(engine, "web")
    with pytest.raises(UsageError, match="There is a container 'web' already"):
        idle(engine, "web")
    with pytest.raises(UsageError, match=r"There is no container 'wob'.*\nAllowed: web"):
        engine["wob"]
    with pytest.raises(UsageError, match="is running"):
        engine["web"].remove(force=False)
    assert engine["web"].status == "running"


# --- together ---------------------------------------------------------------------------------------------------


def test_containers_find_each_other_by_name(engine: Engine) -> None:
    server = engine.create("server", command="while :; do echo hello | nc -l -p 80; done")
    client = engine.create("client", command="until nc server 80 </dev/null | grep hello; do sleep 0.1; done")
    assert client.wait() == 0
    assert client.logs() == "hello\n"
    assert server.address == "172.20.1.2"


def test_a_published_port_leads_in_from_the_guest(engine: Engine, n1: Node) -> None:
    engine.create(
        "server", command="mkdir -p /tmp/w; echo page > /tmp/w/index.html; httpd -f -h /tmp/w -p 80", ports={8080: 80}
    )
    assert n1.wait_until_succeeds("curl -s http://127.0.0.1:8080/") == "page\n"


def test_a_directory_of_the_guest_is_shared(engine: Engine, n1: Node) -> None:
    n1.succeed("mkdir -p /srv/data; chmod 777 /srv/data; echo given > /srv/data/file")
    web = idle(engine, "web", volumes=[("/srv/data", "/data")])
    assert web.exec("cat /data/file; echo taken > /data/back") == "given\n"
    assert n1.succeed("cat /srv/data/back; rm -r /srv/data") == "taken\n"


def test_a_container_that_fails_is_started_again_as_often_as_its_policy_says(
    engine: Engine, eventually: Eventually
) -> None:
    failing = engine.create("failing", command="exit 3", restart="on-failure:2", network="none")
    eventually(lambda: failing.restarts == 2 and failing.status == "stopped", 30)
    healthy = engine.create("fine", command="true", restart="on-failure", network="none")
    healthy.wait()
    assert healthy.restarts == 0


def test_a_container_that_is_killed_comes_back_and_one_that_is_stopped_does_not(
    engine: Engine, n1: Node, eventually: Eventually
) -> None:
    web = idle(engine, "web", restart="always")
    first = web.pid
    n1.succeed(f"kill -9 {first}")
    eventually(lambda: web.pid not in (0, first), 30)
    eventually(lambda: web.status == "running", 30)
    assert web.exec("hostname") == "web\n"
    web.stop(0)
    n1.succeed("sleep 0.5")
    assert (web.status, web.restarts) == ("stopped", 1)


def test_what_happens_to_a_container_is_told(engine: Engine, eventually: Eventually) -> None:
    web = engine.create("web", command="tail /dev/zero", memory="16M", restart="on-failure:1", network="none")
    eventually(lambda: [event.what for event in web.events].count("die") == 2, 30)
    first = ["create", "start", "oom", "die", "restart", "start", "oom", "die"]
    assert [event.what for event in web.events] == first
    assert web.events[3].detail == "exit status 137"
    web.remove()
    assert [event.what for event in web.events] == [*first, "remove"]
    assert str(web.events[0]).endswith(" web create")
    paused = idle(engine, "paused", network="none")
    paused.pause()
    paused.resume()
    paused.kill("TERM")
    paused.stop(0)
    eventually(lambda: paused.events[-1].what == "die", 30)
    assert [event.what for event in paused.events] == ["create", "start", "pause", "resume", "kill", "die"]
    assert {event.container for event in engine.events} >= {"web", "paused"}


def test_a_restart_that_fails_is_told(engine: Engine, n1: Node, eventually: Eventually) -> None:
    web = idle(engine, "web", restart="always", network="none")
    n1.succeed("mv /var/lib/cloudlab/layers /var/lib/cloudlab/elsewhere")
    try:
        n1.succeed(f"kill -9 {web.pid}")
        eventually(lambda: web.events[-1].what == "fail", 30)
    finally:
        n1.succeed("mv /var/lib/cloudlab/elsewhere /var/lib/cloudlab/layers")
    assert "overlay" in web.events[-1].detail


def test_health_is_asked_for(engine: Engine, eventually: Eventually) -> None:
    web = idle(engine, "web", network="none", health=Health(["test", "-e", "/tmp/good"], every_s=0.2, retries=2))
    eventually(lambda: web.health == "unhealthy", 30)
    web.exec("touch /tmp/good")
    eventually(lambda: web.health == "healthy", 30)


def test_two_hundred_are_not_needed_to_see_that_names_are_given(engine: Engine) -> None:
    assert [idle(engine, network="none").name for _ in range(3)] == ["c1", "c2", "c3"]


def test_the_lab_shows_its_containers(engine: Engine, shared: Lab) -> None:
    web = idle(engine, "web")
    facts = shared.topology.nodes["n1/web"]
    assert facts == {"kind": "container", "state": "running", "image": "busybox", "address": web.address}
    assert shared.topology.has_edge("n1", "n1/web")
    web.pause()
    assert shared.topology.nodes["n1/web"]["state"] == "paused"
    web.remove()
    assert "n1/web" not in shared.topology


# --- images -----------------------------------------------------------------------------------------------------

CONTAINERFILE = """
FROM busybox
COPY hello.sh /usr/bin/hello
RUN chmod 755 /usr/bin/hello; echo made > /made
ENV WHOM=world
WORKDIR /srv/app
CMD ["hello"]
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "Containerfile").write_text(CONTAINERFILE)
    (tmp_path / "hello.sh").write_text("#!/bin/sh\ncat /made; pwd; echo hello $WHOM\n")
    return tmp_path


def test_an_image_is_built_and_run(engine: Engine, app: Path) -> None:
    steps: list[bool] = []
    first = engine.build(app, "app:1", on_step=lambda step: steps.append(step.cached or not step.layer))
    again = engine.build(app, "app:2", on_step=lambda step: steps.append(step.cached or not step.layer))
    assert first.digest == again.digest
    assert all(steps[len(steps) // 2 :])
    container = engine.create(image="app:1", network="none")
    assert container.wait() == 0
    assert container.logs() == "made\n/srv/app\nhello world\n"


def test_a_run_that_fails_says_what_it_printed(engine: Engine, app: Path) -> None:
    (app / "Containerfile").write_text("FROM busybox\nRUN echo about to fail; exit 7\n")
    with pytest.raises(MachineError, match="about to fail") as caught:
        engine.build(app, "bad")
    assert caught.value.exit_status == 7


def test_an_image_is_made_of_a_container(engine: Engine) -> None:
    web = idle(engine, "web", writable=True, network="none")
    web.exec("echo mine > /etc/mine; rm /etc/os-release")
    web.commit("mine")
    copy = engine.create(image="mine", command="cat /etc/mine; ls /etc/os-release", network="none")
    copy.wait()
    assert copy.logs(stream="stdout") == "mine\n"
    assert "No such file" in copy.logs(stream="stderr")


def test_an_image_is_pushed_and_pulled_by_another_guest_without_what_both_have(
    engine: Engine, app: Path, shared: Lab
) -> None:
    n2 = shared.machine("n2")
    name = f"{shared.registry.address}/app:1"
    engine.build(app, name)
    base = engine.image("busybox").layers[0].digest
    engine.push(f"{shared.registry.address}/busybox")
    pushed = engine.push(name)
    assert base not in [blob.digest for blob in pushed.sent]
    with pytest.raises(UsageError):
        n2.container(image="app:1")
    n2.containers.pull(name)
    container = n2.container(image=name, network="none")
    container.wait()
    assert container.logs() == "made\n/srv/app\nhello world\n"
    n2.close()


# --- ends -------------------------------------------------------------------------------------------------------


def test_a_guest_that_ends_takes_its_containers_and_their_thread_with_it(shared: Lab, eventually: Eventually) -> None:
    n3 = shared.machine("n3")
    web = idle(n3.containers, "web", restart="always")
    assert "containers-n3" in [thread.name for thread in threading.enumerate()]
    n3.crash()
    with pytest.raises(MachineError, match="the plug was pulled"):
        web.exec("true")
    eventually(lambda: "containers-n3" not in [thread.name for thread in threading.enumerate()], 30)
    n3.start()
    assert not list(n3.containers)
    assert idle(n3.containers, "web").status == "running"
    n3.close()


def test_starts_at_once_are_all_there(engine: Engine) -> None:
    threads = [threading.Thread(target=idle, args=(engine, f"t{number}")) for number in range(8)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert time.monotonic() - began < 60
    assert sorted(container.name for container in engine) == [f"t{number}" for number in range(8)]
    assert len({container.address for container in engine}) == 8
