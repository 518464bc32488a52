"""Networks of containers in real guests. Until there is a runtime, a container is a process in namespaces of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import IPv4Address

import pytest

from cloudlab import Lab, Machine, MachineError, UsageError
from cloudlab.containers.calls import Answer, Calls, Room, make
from cloudlab.containers.network import Attachment, Network
from cloudlab.containers.syscalls import Clone, Open
from cloudlab.networks import star

pytestmark = pytest.mark.guest
Start = Callable[[], int]


@pytest.fixture(scope="module")
def guests() -> Iterator[tuple[Machine, Machine]]:
    """Two guests on a switch; each test leaves n1 as it was."""
    with Lab() as lab:
        net = lab.start(star(2))
        net["n2"].succeed("socat TCP-LISTEN:7000,fork,reuseaddr SYSTEM:'echo $SOCAT_PEERADDR' >/dev/null 2>&1 &")
        net["n2"].wait_until_succeeds("ss -Hltn 'sport = :7000' | grep -q .")
        yield net["n1"], net["n2"]


@pytest.fixture
def n1(guests: tuple[Machine, Machine]) -> Iterator[Machine]:
    machine = guests[0]
    before = traces_of_networks(machine)
    yield machine
    for name in machine.run("cd /run/cloudlab/networks && ls -d */").stdout.split():
        Network(machine, name.rstrip("/")).remove()
    assert traces_of_networks(machine) == before


@pytest.fixture
def start(n1: Machine) -> Iterator[Start]:
    """Start a process with network and mount namespaces of its own; returns its number."""
    started: list[int] = []

    def begin() -> int:
        calls = Calls()
        ready = calls.call("pipe2", Room(8, whole=True), Open.CLOEXEC)
        process, inside = calls.child(Clone.NEWNET | Clone.NEWNS)
        calls.call("close", Answer(ready, 4))
        calls.call("read", Answer(ready, 0), Room(1), 1)  # the end of the file: it has become the program
        null = inside.call("open", "/dev/null", Open.RDWR)
        for end in (0, 1, 2):
            inside.call("dup2", null, end)
        inside.call("setsid")
        inside.call("execve", "/usr/bin/sleep", ["sleep", "600"], [])
        started.append(make(n1, calls)[process.index].returned)
        return started[-1]

    yield begin
    for pid in started:
        n1.run(f"kill -9 {pid}; while [ -e /proc/{pid}/ns/net ]; do :; done")


@pytest.fixture
def bridge(n1: Machine) -> Network:
    return Network(n1)


def traces_of_networks(machine: Machine) -> str:
    """What networks could leave behind: interfaces, routes, rules, files, forwarding."""
    machine.wait_until_succeeds(
        "! ls /sys/class/net | grep -q ^veth"
    )  # the kernel takes those of ended processes in its own time
    script = "ls /sys/class/net; ip route; nft list ruleset; find /run/cloudlab; cat /proc/sys/net/ipv4/ip_forward"
    return machine.run(script).stdout.replace("/run/cloudlab\n", "")


def within(pid: int, command: str) -> str:
    return f"nsenter -t {pid} -n -m {command}"


def ping(address: object) -> str:
    return f"ping -n -c 1 -W 2 {address}"


def serve(machine: Machine, pid: int, port: int = 80, kind: str = "TCP") -> None:
    """Let a process answer connections with the address that they seem to come from."""
    answer = f"{kind}-LISTEN:{port},fork,reuseaddr SYSTEM:'echo $SOCAT_PEERADDR'"
    machine.succeed(within(pid, f"socat {answer} >/dev/null 2>&1 &"))
    machine.wait_until_succeeds(within(pid, f"ss -Hlnut 'sport = :{port}' | grep -q ."))


def connect(address: object, port: int) -> str:
    return f"socat -T 3 - TCP:{address}:{port},connect-timeout=2 </dev/null"


# --- one network --------------------------------------------------------------------------------------------------


def test_names_predict_addresses_and_the_first_container_is_number_2(
    n1: Machine, bridge: Network, start: Start
) -> None:
    one = bridge.attach("web", start())
    assert (str(bridge.subnet), str(bridge.gateway)) == ("172.20.1.0/24", "172.20.1.1")
    assert (one.address, one.mac, one.host_interface) == (IPv4Address("172.20.1.2"), "02:42:ac:14:01:02", "veth-web")
    seen = n1.succeed(within(one.pid, "ip address show eth0"))
    assert "link/ether 02:42:ac:14:01:02" in seen
    assert "inet 172.20.1.2/24" in seen
    assert n1.succeed(within(one.pid, "ip route show default")).startswith("default via 172.20.1.1 dev eth0")
    assert "UP" in n1.succeed(within(one.pid, "ip link show lo"))


@pytest.mark.parametrize("mode", ["bridge", "routed"])
def test_containers_of_a_network_reach_each_other_and_the_guest(n1: Machine, start: Start, mode: str) -> None:
    network = Network(n1, "net", mode=mode)
    a, b = network.attach("a", start()), network.attach("b", start())
    n1.succeed(within(a.pid, ping(b.address)))
    n1.succeed(within(b.pid, ping(a.address)))
    n1.succeed(within(a.pid, ping(network.gateway)))
    n1.succeed(ping(b.address))
    n1.fail(within(a.pid, ping(network.subnet[99])))
    assert n1.test("test -e /sys/class/net/br-net") == (mode == "bridge")


def test_containers_know_each_other_by_name_in_a_file_that_stays_the_same(
    n1: Machine, bridge: Network, start: Start
) -> None:
    web = bridge.attach("web", start(), aliases=["www"])
    n1.succeed(within(web.pid, f"mount --bind {bridge.hosts} /etc/hosts"))
    inode = n1.succeed(f"stat -c %i {bridge.hosts}")
    database = bridge.attach("db", start(), aliases=["database", "store"])
    n1.succeed(within(web.pid, ping("database")))
    n1.succeed(within(web.pid, ping("www")))
    assert n1.succeed(within(web.pid, "getent hosts db localhost n2")).split("\n")[0].split()[0] == "172.20.1.3"
    n1.succeed(within(web.pid, "getent hosts n2"))
    assert bridge.names() == {name: one.address for one in (web, database) for name in (one.name, *one.aliases)}
    bridge.detach("db")
    n1.fail(within(web.pid, "getent hosts db"))
    assert n1.succeed(f"stat -c %i {bridge.hosts}") == inode
    assert n1.test(f"test -e {bridge.resolv_conf}")


def test_a_second_object_sees_the_same_network(n1: Machine, bridge: Network, start: Start) -> None:
    one = bridge.attach("web", start(), ports=["8080:80", "127.0.0.1:5353:53/udp"], aliases=["www"])
    again = Network(n1, "bridge")
    assert again.plan == bridge.plan
    assert again.containers() == [one]
    with pytest.raises(UsageError, match="is there already, with mode=bridge, not routed"):
        Network(n1, "bridge", mode="routed")


# --- the world outside --------------------------------------------------------------------------------------------


def test_a_container_goes_out_under_the_guests_address(n1: Machine, bridge: Network, start: Start) -> None:
    one = bridge.attach("web", start())
    assert n1.succeed(within(one.pid, connect("10.0.0.2", 7000))) == "10.0.0.1\n"


def test_a_routed_container_is_seen_outside_under_its_own_address(
    guests: tuple[Machine, Machine], n1: Machine, start: Start
) -> None:
    network, n2 = Network(n1, "net", mode="routed"), guests[1]
    one = network.attach("web", start())
    n2.succeed(f"ip route add {network.subnet} via 10.0.0.1")
    try:
        assert n1.succeed(within(one.pid, connect("10.0.0.2", 7000))) == f"{one.address}\n"
        n2.succeed(ping(one.address))
    finally:
        n2.succeed(f"ip route del {network.subnet}")


def test_a_hidden_container_is_not_reached_from_outside(
    guests: tuple[Machine, Machine], bridge: Network, start: Start
) -> None:
    one, n2 = bridge.attach("web", start()), guests[1]
    n2.succeed(f"ip route add {bridge.subnet} via 10.0.0.1")
    try:
        n2.fail(ping(one.address))
    finally:
        n2.succeed(f"ip route del {bridge.subnet}")


@pytest.mark.parametrize("mode", ["bridge", "routed"])
def test_an_isolated_network_has_no_way_out_and_none_in(
    guests: tuple[Machine, Machine], n1: Machine, start: Start, mode: str
) -> None:
    network = Network(n1, "closed", mode=mode, isolated=True)
    a, b = network.attach("a", start()), network.attach("b", start())
    n1.succeed(within(a.pid, ping(b.address)))
    n1.fail(within(a.pid, connect("10.0.0.2", 7000)))
    with pytest.raises(UsageError, match="closed is isolated: no port can be published"):
        network.publish(8080, "a", 80)


@pytest.mark.parametrize("modes", [("bridge", "bridge"), ("routed", "routed"), ("routed", "bridge")])
def test_networks_do_not_reach_one_another(n1: Machine, start: Start, modes: tuple[str, str]) -> None:
    first, second = (Network(n1, f"net{number}", mode=mode) for number, mode in enumerate(modes))
    a, b = first.attach("a", start()), second.attach("b", start())
    assert not first.subnet.overlaps(second.subnet)
    n1.fail(within(a.pid, ping(b.address)))
    n1.fail(within(b.pid, ping(a.address)))


def test_a_false_sender_is_not_passed_on(n1: Machine, start: Start) -> None:
    """A container that takes an address of another network is still a stranger there (rp_filter)."""
    first, second = Network(n1, "net1"), Network(n1, "net2")
    a, b = first.attach("a", start()), second.attach("b", start())
    n1.succeed(within(a.pid, f"ip address add {second.subnet[77]}/32 dev lo"))
    neighbour = f"{first.gateway} lladdr 02:42:ac:14:01:01 dev eth0 nud permanent"  # ARP would fail for the same reason
    n1.succeed(within(a.pid, f"ip neigh replace {neighbour}"))
    counter = "nstat -az TcpExtIPReversePathFilter | grep -o 'Filter *[0-9]*'"
    before = int(n1.succeed(counter).split()[1])
    n1.fail(within(a.pid, f"ping -n -c 1 -W 1 -I {second.subnet[77]} {b.address}"))
    assert int(n1.succeed(counter).split()[1]) > before


# --- published ports ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["bridge", "routed"])
def test_a_published_port_is_reached_from_everywhere(
    guests: tuple[Machine, Machine], n1: Machine, start: Start, mode: str
) -> None:
    network, other, n2 = Network(n1, "net", mode=mode), Network(n1, "other"), guests[1]
    web, beside, stranger = network.attach("web", start()), network.attach("b", start()), other.attach("c", start())
    serve(n1, web.pid)
    network.publish(8080, "web", 80)
    assert n2.succeed(connect("10.0.0.1", 8080)) == "10.0.0.2\n"
    for address in ("127.0.0.1", "10.0.0.1", network.gateway):
        assert n1.succeed(connect(address, 8080)).strip(), address
    for container in (web, beside, stranger):
        assert n1.succeed(within(container.pid, connect("10.0.0.1", 8080))).strip(), container.name
    network.unpublish(8080)
    n2.fail(connect("10.0.0.1", 8080))
    n1.fail(connect("127.0.0.1", 8080))
    assert network.containers()[0].ports == ()


def test_127_0_0_1_is_not_reached_from_a_container_or_outside(
    guests: tuple[Machine, Machine], n1: Machine, bridge: Network, start: Start
) -> None:
    """What is published on 127.0.0.1 is for the guest; translation of it (route_localnet) opens no way in."""
    one, n2 = bridge.attach("web", start(), ports=["127.0.0.1:8080:80"]), guests[1]
    serve(n1, one.pid)
    assert n1.succeed(connect("127.0.0.1", 8080)).strip()
    n2.fail(connect("10.0.0.1", 8080))
    # the container sends what is for 127.0.0.1 to the gateway: its table "local" is no longer asked
    tricks = (
        "ip link set lo down; ip route add 127.0.0.1 via 172.20.1.1; ip rule add pref 1 lookup main; ip rule del pref 0"
    )
    n1.succeed(within(one.pid, f"sh -c '{tricks}'"))
    drops = "nft list chain ip cloudlab guard"
    before = re.findall(r"packets (\d+)", n1.succeed(drops))
    n1.succeed(within(one.pid, "sysctl -qw net.ipv4.conf.eth0.route_localnet=1"))
    n1.fail(within(one.pid, connect("127.0.0.1", 8080)))
    assert re.findall(r"packets (\d+)", n1.succeed(drops)) != before


def test_udp_is_published_beside_tcp(
    guests: tuple[Machine, Machine], n1: Machine, bridge: Network, start: Start
) -> None:
    one = bridge.attach("dns", start(), ports=["5353:53/udp"])
    serve(n1, one.pid, 53, "UDP")
    assert guests[1].succeed("echo hello | socat -T 1 - UDP:10.0.0.1:5353") == "10.0.0.2\n"
    bridge.publish(5353, "dns", 53, protocol="tcp")
    assert [str(port) for port in bridge.containers()[0].ports] == ["0.0.0.0:5353:53/udp", "0.0.0.0:5353:53/tcp"]


def test_a_port_that_is_taken_is_refused_and_it_is_said_by_whom(n1: Machine, bridge: Network, start: Start) -> None:
    bridge.attach("web", start(), ports=["8080:80"])
    other, pid = Network(n1, "other"), start()
    with pytest.raises(UsageError, match="Port 8080/tcp is taken by container web on bridge"):
        other.attach("b", pid, ports=["10.0.0.1:8080:80"])
    assert other.containers() == []
    other.attach("b", pid)
    with pytest.raises(UsageError, match="Port 8080/tcp is taken by container web on bridge"):
        other.publish(8080, "b", 80)
    n1.succeed("socat TCP-LISTEN:9090 - >/dev/null 2>&1 & echo $! >/tmp/listener")
    n1.wait_until_succeeds("ss -Hltn 'sport = :9090' | grep -q .")
    with pytest.raises(UsageError, match=r"Port 9090/tcp is taken by socat \(process \d+\)"):
        other.publish(9090, "b", 80)
    n1.succeed("kill $(cat /tmp/listener)")
    with pytest.raises(UsageError, match="9090/tcp is not published on network bridge"):
        bridge.unpublish(9090)


# --- containers come and go ---------------------------------------------------------------------------------------


def test_a_container_that_was_killed_can_be_attached_again(n1: Machine, bridge: Network, start: Start) -> None:
    pid = start()
    first = bridge.attach("web", pid, ports=["8080:80"])
    n1.succeed(f"kill -9 {pid}")
    n1.wait_until_succeeds("! test -e /sys/class/net/veth-web")
    second = bridge.attach("web", start(), ports=["8081:80"])
    assert (second.address, second.pid != pid) == (first.address, True)
    n1.succeed(ping(second.address))
    serve(n1, second.pid)
    assert n1.succeed(connect("127.0.0.1", 8081)).strip()
    n1.fail(connect("127.0.0.1", 8080))


def test_a_detached_container_has_no_card_and_its_address_is_free(n1: Machine, bridge: Network, start: Start) -> None:
    a, b, pid = bridge.attach("a", start()), bridge.attach("b", start(), ports=["8080:80"]), start()
    bridge.detach("a")
    assert n1.run(within(a.pid, "ip -br link")).stdout.count("eth0") == 0
    assert bridge.attach("c", pid).address == a.address
    bridge.detach("b")
    assert n1.run("nft list map ip cloudlab published | grep 8080").stdout == ""
    with pytest.raises(UsageError, match=r"'b' is not on network bridge\.\nAllowed: c"):
        bridge.detach("b")
    assert b.address not in [one.address for one in bridge.containers()]


def test_detaching_one_container_leaves_the_others_as_they_were(n1: Machine, bridge: Network, start: Start) -> None:
    a, b = bridge.attach("a", start()), bridge.attach("b", start())
    before = traces(n1)
    bridge.attach("c", start(), ports=["8080:80"])
    bridge.detach("c")
    assert traces(n1) == before
    n1.succeed(within(a.pid, ping(b.address)))


def traces(machine: Machine) -> str:
    rules = re.sub(r"packets \d+ bytes \d+", "", machine.succeed("nft list ruleset"))
    return rules + machine.succeed("ls /sys/class/net; find /run/cloudlab/networks -type f | sort | xargs cat")


def test_removing_all_networks_leaves_nothing(n1: Machine, start: Start) -> None:
    before = traces_of_networks(n1)
    networks = [Network(n1), Network(n1, "net"), Network(n1, "far", mode="routed"), Network(n1, "shut", isolated=True)]
    for number, network in enumerate(networks):
        ports = [] if network.plan.isolated else [f"{8080 + number}:80"]
        network.attach(f"c{number}", start(), ports=ports)
    assert n1.succeed("cat /proc/sys/net/ipv4/ip_forward") == "1\n"
    for network in networks:
        network.remove()
        network.remove()
    assert traces_of_networks(n1) == before


def test_forty_containers_at_once_have_forty_addresses(n1: Machine, bridge: Network, start: Start) -> None:
    pids = [start() for _ in range(40)]
    with ThreadPoolExecutor(40) as pool:
        crowd = list(pool.map(bridge.attach, [f"c{number}" for number in range(40)], pids))
    addresses = {one.address for one in crowd}
    assert addresses == {bridge.subnet[number] for number in range(2, 42)}
    assert {one.address for one in bridge.containers()} == addresses
    assert int(n1.succeed(f"grep -c '^172.20.1.* c' {bridge.hosts}")) == 40
    n1.succeed(within(pids[0], ping(crowd[-1].address)))


# --- what can't be ------------------------------------------------------------------------------------------------


def test_what_can_not_be_attached_is_refused_and_changes_nothing(n1: Machine, bridge: Network, start: Start) -> None:
    bridge.attach("web", start())
    before = traces(n1)
    with pytest.raises(UsageError, match="web is on network bridge already"):
        bridge.attach("web", start())
    with pytest.raises(UsageError, match="There is no process 4194000 on n1"):
        bridge.attach("b", 4194000)
    with pytest.raises(UsageError, match="Process 1 is in the network namespace of n1 itself"):
        bridge.attach("b", 1)
    assert traces(n1) == before


def test_a_process_that_is_attached_already_is_not_attached_again(n1: Machine, bridge: Network, start: Start) -> None:
    pid = start()
    bridge.attach("a", pid)
    before = traces(n1)
    with pytest.raises(UsageError, match=f"Process {pid} is on network bridge already, as a"):
        bridge.attach("b", pid)
    assert traces(n1) == before


def test_a_network_that_would_overlap_or_has_no_room_is_refused(n1: Machine, start: Start) -> None:
    with pytest.raises(UsageError, match=r"10\.0\.7\.0/24 overlaps 10\.0\.0\.0/16, which is in use by eth0"):
        Network(n1, "net", subnet="10.0.7.0/24")
    small = Network(n1, "small", subnet="172.30.0.0/29")
    for number in range(5):
        small.attach(f"c{number}", start())
    with pytest.raises(UsageError, match="Network small has no address left"):
        small.attach("c5", start())


def test_an_interface_that_is_not_ours_stays(n1: Machine, start: Start) -> None:
    n1.succeed("ip link add br-mine type bridge; ip link add veth-mine type bridge")
    try:
        with pytest.raises(UsageError, match="has the name that is needed, and is not ours"):
            Network(n1, "mine")
        with pytest.raises(UsageError, match="has the name that is needed, and is not ours"):
            Network(n1).attach("mine", start())
    finally:
        n1.succeed("ip link del br-mine && ip link del veth-mine")


def test_a_network_can_be_removed_when_somebody_has_flushed_all_rules(n1: Machine, start: Start) -> None:
    first, second = Network(n1), Network(n1, "net")
    first.attach("web", start(), ports=["8080:80"])
    n1.succeed("nft flush ruleset")
    first.detach("web")
    first.remove()
    second.remove()


@contextmanager
def rules_that_stay(machine: Machine) -> Iterator[None]:
    """Let nft(8) list what there is, and change nothing."""
    nft = machine.succeed("readlink -f $(command -v nft)").strip()
    only_lists = '#!/bin/sh\n[ "$1" = list ] && exec /run/nft "$@"\nexit 1\n'
    placed = f"cp {nft} /run/nft; cat >/run/lists; chmod +x /run/lists; mount --bind /run/lists {nft}"
    machine.succeed(placed, input=only_lists)
    try:
        yield
    finally:
        machine.succeed(f"umount {nft}; rm /run/nft /run/lists")


def test_what_can_not_be_taken_away_stays_known_and_goes_later(n1: Machine, start: Start) -> None:
    before = traces_of_networks(n1)
    first, second = Network(n1), Network(n1, "net")
    one = second.attach("web", start(), ports=["8080:80"])
    with rules_that_stay(n1):
        for change in (lambda: second.detach("web"), second.remove):
            with pytest.raises(MachineError, match="network net could not be changed"):
                change()
            assert second.containers() == [one]
    second.remove()
    assert "8080" not in n1.succeed("nft list map ip cloudlab published")
    with rules_that_stay(n1), pytest.raises(MachineError, match="network bridge could not be changed"):
        first.remove()
    first.remove()
    assert traces_of_networks(n1) == before


# --- the way of a packet ------------------------------------------------------------------------------------------


def told(network: Network, container: str, target: str) -> list[str]:
    return [f"{hop.where}:{hop.name}" for hop in network.trace(container, target)]


def test_the_way_to_a_container_on_the_bridge(bridge: Network, start: Start) -> None:
    bridge.attach("a", start())
    bridge.attach("b", start())
    assert told(bridge, "a", "b") == ["a:eth0", "n1:veth-a", "n1:cloudlab0", "n1:veth-b", "b:eth0"]


def test_the_way_out_shows_where_the_address_is_changed(bridge: Network, start: Start) -> None:
    bridge.attach("a", start())
    hops = bridge.trace("a", "10.0.0.2")
    assert [hop.name for hop in hops] == [
        "eth0",
        "veth-a",
        "cloudlab0",
        "10.0.0.0/16",
        "postrouting",
        "eth0",
        "10.0.0.2",
    ]
    assert [str(hop.source) for hop in hops] == ["172.20.1.2"] * 4 + ["10.0.0.1"] * 3
    assert hops[4].note == "masquerade: out, under this guest's address"


def test_the_way_to_another_network_ends_at_a_rule(n1: Machine, bridge: Network, start: Start) -> None:
    bridge.attach("a", start())
    other = Network(n1, "other").attach("b", start())
    last = bridge.trace("a", str(other.address))[-1]
    assert (last.kind, last.name, last.note) == ("rule", "forward", "drop: networks do not reach one another")


def test_the_way_by_a_published_port_is_turned_back(bridge: Network, start: Start) -> None:
    one: Attachment = bridge.attach("a", start(), ports=["8080:80"])
    hops = bridge.trace("a", "10.0.0.1", port=8080, protocol="tcp")
    assert [hop.name for hop in hops if hop.kind == "rule"] == ["prerouting", "forward", "postrouting"]
    assert (hops[-1].where, hops[-1].target, hops[-1].source) == ("a", one.address, bridge.gateway)
