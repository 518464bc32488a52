"""Networks of real guests: what a guest sees and hears is what the topology says."""

from __future__ import annotations

import http.server
import io
import json
import math
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import dpkt
import psutil
import pytest

from cloudlab import Lab, Machine, MachineError, UsageError
from cloudlab.lab.net import Net
from cloudlab.machines import State
from cloudlab.networks import Port, Switch, Topology, ring, star

pytestmark = pytest.mark.guest
Eventually = Callable[[Callable[[], bool], float], None]
_DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    with Lab() as lab:
        lab.start(star(4))
        yield lab


@pytest.fixture
def net(shared: Lab) -> Iterator[Net]:
    """Four guests on a switch, for tests that leave them as they found them; links are mended afterwards."""
    found = Net(shared, ["n1", "n2", "n3", "n4", "s1"])
    yield found
    for link in found.links:
        link.set(delay=0, jitter=0, loss=0, rate=None).heal()


def carrier(machine: Machine, card: int = 0) -> bool:
    """Does the guest see a working cable in its card?"""
    return machine.succeed(f"cat /sys/class/net/eth{card}/carrier").strip() == "1"


def know_each_other(net: Net, *names: str) -> None:
    """Neighbours are written down, so that no test of lost frames depends on ARP."""
    for a in names:
        for b in names:
            if a != b:
                other = net[b].identity
                net[a].succeed(f"ip neigh replace {other.address} lladdr {other.mac} dev eth0 nud permanent")


def round_trips_ms(machine: Machine, options: str) -> list[float]:
    return [float(time) for time in re.findall(r"time=([\d.]+) ms", machine.succeed(f"ping -n {options}"))]


# --- a switch ---------------------------------------------------------------------------------------------------


def test_all_guests_reach_each_other_by_name(net: Net) -> None:
    pings = net.ping_all(timeout_s=20)
    assert pings
    assert len(pings.rtt_ms) == 12
    assert "from n2 (10.0.0.2)" in net["n1"].succeed("ping -c 1 n2")


def test_the_switch_has_learned_who_lives_where(net: Net) -> None:
    net.ping_all(timeout_s=20)
    learned = {(address, port) for _, address, port in net["s1"].mac_table}
    assert learned >= {(net[name].identity.mac, name) for name in ("n1", "n2", "n3", "n4")}


def test_a_network_hands_out_its_machines_switches_and_links(net: Net, shared: Lab) -> None:
    assert net["n1"].run("hostname").stdout == "n1\n"
    assert net["n1"] is shared["n1"]
    assert net.link("s1", "n1") is net.link("n1", "s1")
    assert (list(net.machines), list(net.switches), len(net.links)) == (["n1", "n2", "n3", "n4"], ["s1"], 4)
    with pytest.raises(UsageError, match=r"There is no 'n9' in this network\.\nAllowed: n1, "):
        net["n9"]
    with pytest.raises(UsageError, match=r"n1 and n2 are not linked\.\nAllowed: n1-s1, "):
        net.link("n1", "n2")


def test_the_topology_is_what_exists_now(net: Net) -> None:
    net.link("n2", "s1").set(delay="5ms").cut()
    graph = net.topology
    assert graph.nodes["n1"]["mac"] == "52:54:00:00:00:01"
    assert (graph.nodes["n1"]["address"], graph.nodes["s1"]["kind"]) == ("10.0.0.1", "switch")
    assert (graph.edges["n2", "s1"]["state"], graph.edges["n2", "s1"]["delay_s"]) == ("down", 0.005)
    assert graph.edges["n1", "s1"]["state"] == "up"


def test_a_broadcast_reaches_all_guests(net: Net) -> None:
    captures = [net.link(name, "s1").capture() for name in ("n2", "n3", "n4")]
    net["n1"].run("arping -c 1 -w 1 -I eth0 10.0.0.99")
    for capture in captures:
        asked = [row for row in capture.stop() if row.info == "who has 10.0.0.99? tell 10.0.0.1"]
        assert len(asked) == 1


def test_what_is_meant_for_one_guest_is_not_seen_by_others(net: Net) -> None:
    net.ping_all(timeout_s=20)
    with net.link("n3", "s1").capture() as elsewhere:
        net["n1"].succeed("ping -n -c 2 -i 0.2 n2")
    assert "ICMP" not in [row.protocol for row in elsewhere]


def test_a_mirror_port_sees_the_traffic_of_another(net: Net) -> None:
    net.ping_all(timeout_s=20)
    net["s1"].mirror("n1", "n3")
    try:
        with net.link("n3", "s1").capture() as watched:
            net["n1"].succeed("ping -n -c 2 -i 0.2 n2")
    finally:
        net["s1"].mirror("n1", None)
    seen = [row.info for row in watched if row.protocol == "ICMP"]
    assert seen == ["echo request 1", "echo reply 1", "echo request 2", "echo reply 2"]


def test_jumbo_frames_pass(net: Net) -> None:
    for name in ("n1", "n2"):
        net[name].succeed("ip link set eth0 mtu 9000")
    try:
        assert "0% packet loss" in net["n1"].succeed("ping -n -M do -s 8972 -c 3 -i 0.2 n2")
    finally:
        for name in ("n1", "n2"):
            net[name].succeed("ip link set eth0 mtu 1500")


def test_garbage_from_inside_a_guest_harms_nobody(net: Net) -> None:
    """Some two thousand frames of random bytes, addresses and types included."""
    for size in (14, 17, 60, 1500):
        net["n4"].succeed(f"head -c {500 * size} /dev/urandom | socat -u -b {size} - INTERFACE:eth0")
    assert net["s1"].ports["n4"].frames_in > 1000
    net["s1"].forget()
    assert net.ping_all(timeout_s=20)


def test_switching_the_switch_off_takes_the_carrier_and_on_brings_it_back(net: Net, eventually: Eventually) -> None:
    machines = list(net.machines.values())
    net["s1"].power_off()
    assert not any(carrier(machine) for machine in machines)
    assert net.topology.nodes["s1"]["state"] == "off"
    assert not net.ping_all(timeout_s=1)
    net["s1"].power_on()
    assert all(carrier(machine) for machine in machines)
    eventually(lambda: bool(net.ping_all()), _DEADLINE_S)


# --- links ------------------------------------------------------------------------------------------------------


def test_a_cut_link_is_seen_in_the_guest_and_a_healed_one_too(net: Net) -> None:
    link, n1 = net.link("n1", "s1"), net["n1"]
    assert carrier(n1)
    link.cut()
    assert not carrier(n1)
    assert "NO-CARRIER" in n1.succeed("ip link show eth0")
    assert net.ping_all(timeout_s=1).missing
    link.heal()
    assert carrier(n1)
    n1.wait_until_succeeds("ping -n -c 1 -W 1 n2", _DEADLINE_S)


def test_thirty_percent_loss_each_way_answers_half_the_pings(net: Net) -> None:
    """0.7 · 0.7 = 49 %; five standard deviations of 400 pings are 50."""
    know_each_other(net, "n1", "n2")
    net.link("n1", "s1").set(loss=0.3)
    said = net["n1"].run("ping -n -q -c 400 -i 0.005 -W 1 n2").stdout
    sent, received = (int(count) for count in re.findall(r"(\d+) packets transmitted, (\d+) received", said)[0])
    assert sent == 400
    assert abs(received - 400 * 0.49) < 5 * math.sqrt(400 * 0.49 * 0.51)


def test_a_delay_of_100_ms_makes_round_trips_of_200(net: Net) -> None:
    know_each_other(net, "n1", "n2")
    net.link("n1", "s1").set(delay="100ms")
    times = round_trips_ms(net["n1"], "-c 10 -i 0.1 n2")
    assert len(times) == 10
    assert 200 <= min(times) <= 220


def test_a_rate_of_10_megabit_is_what_iperf3_measures(net: Net) -> None:
    net["n2"].succeed("iperf3 -s -D -1")
    net.link("n1", "s1").set(rate="10M")
    net["n2"].wait_until_succeeds("ss -Hltn 'sport = :5201' | grep -q .", _DEADLINE_S)
    told = json.loads(net["n1"].succeed("iperf3 -J -u -b 20M -O 1 -t 4 -c n2"))
    assert told["end"]["sum_received"]["bits_per_second"] == pytest.approx(10e6, rel=0.15)


def test_a_transfer_outlives_a_link_cut_and_healed_in_the_middle(net: Net, eventually: Eventually) -> None:
    n1, n2, link = net["n1"], net["n2"], net.link("n1", "s1")
    link.set(rate="20M")
    n1.succeed("head -c 6000000 /dev/urandom >/tmp/sent")
    n2.succeed("socat -u TCP-LISTEN:9000,reuseaddr CREATE:/tmp/got >/dev/null 2>&1 &")
    n2.wait_until_succeeds("ss -Hltn 'sport = :9000' | grep -q .", _DEADLINE_S)
    before = link.octets
    sending = threading.Thread(target=lambda: n1.succeed("socat -u OPEN:/tmp/sent TCP:n2:9000", timeout_s=90))
    sending.start()
    eventually(lambda: link.octets - before > 1_500_000, _DEADLINE_S)
    link.cut()
    assert not carrier(n1)
    assert link.octets - before < 6_000_000, "it was over already"
    link.heal()
    sending.join(90)
    assert not sending.is_alive()
    digest = n1.succeed("sha256sum </tmp/sent")
    n2.wait_until_succeeds(f'test "$(sha256sum </tmp/got)" = "{digest.strip()}"', _DEADLINE_S)


# --- captures ---------------------------------------------------------------------------------------------------


def frames_in(pcap: bytes) -> list[bytes]:
    return [frame for _, frame in dpkt.pcap.Reader(io.BytesIO(pcap))]


def test_a_capture_is_byte_for_byte_what_tcpdump_in_the_guest_records(net: Net) -> None:
    n1 = net["n1"]
    n1.succeed("tcpdump -Z root -i eth0 -n -U -s 0 -w /tmp/guest.pcap icmp or arp >/tmp/tcpdump.log 2>&1 &")
    n1.wait_until_succeeds("grep -q 'listening on' /tmp/tcpdump.log", _DEADLINE_S)
    with net.link("n1", "s1").capture() as capture:
        n1.succeed("ip neigh flush dev eth0; ping -n -c 5 -i 0.2 -s 1400 -p c0ffee n2; ping -n -c 3 -i 0.2 n3")
        n1.wait_until_succeeds(
            "test $(tcpdump -Z root -r /tmp/guest.pcap icmp 2>/dev/null | wc -l) -ge 16", _DEADLINE_S
        )
    n1.succeed("killall -w tcpdump")
    ours = [frame.frame for frame, row in zip(capture.frames, capture, strict=True) if row.protocol in ("ICMP", "ARP")]
    theirs = frames_in(n1.get("/tmp/guest.pcap"))
    assert sum(row.protocol == "ICMP" for row in capture) == 16
    # tcpdump started a moment earlier, and ended a moment later: frames before and after ours may be there
    starts = [at for at in range(len(theirs)) if theirs[at : at + len(ours)] == ours]
    assert starts, f"{len(ours)} frames here, {len(theirs)} in the guest, and not the same ones"


def test_a_saved_capture_is_read_by_tcpdump(net: Net, tmp_path: Path) -> None:
    with net.link("n1", "s1").capture() as capture:
        net["n1"].succeed("ping -n -c 3 -i 0.2 n2")
    net["n3"].put("/tmp/saved.pcap", capture.save(tmp_path / "saved.pcap"))
    said = net["n3"].succeed("tcpdump -Z root -n -r /tmp/saved.pcap icmp")
    assert said.count("10.0.0.1 > 10.0.0.2: ICMP echo request") == 3
    assert said.count("10.0.0.2 > 10.0.0.1: ICMP echo reply") == 3


# --- guests come and go -----------------------------------------------------------------------------------------


def test_a_crashed_guest_rejoins_when_it_starts_again(net: Net) -> None:
    net["n4"].crash()
    assert net["n4"].state is State.CRASHED
    assert net.ping_all(timeout_s=20)
    net["n4"].start()
    assert carrier(net["n4"])
    assert net.ping_all(timeout_s=20)


def test_a_paused_guest_holds_up_nobody(net: Net) -> None:
    know_each_other(net, "n1", "n4")
    net["n4"].pause()
    try:
        net["n1"].succeed("head -c 5000000 /dev/zero | socat -u -b 1400 - UDP-SENDTO:n4:9999")
        net["n1"].succeed("ping -n -c 1 n2")
    finally:
        net["n4"].resume()
    net["n1"].wait_until_succeeds("ping -n -c 1 -W 1 n4", _DEADLINE_S)


def test_a_restored_guest_is_on_the_network_again(net: Net) -> None:
    n4 = net["n4"]
    n4.save("linked")
    n4.restore("linked")
    assert carrier(n4)
    assert net.ping_all(timeout_s=20)
    net.link("n4", "s1").cut()
    n4.restore("linked")
    assert not carrier(n4), "the cable was cut in the meantime"
    net.link("n4", "s1").heal()
    n4.wait_until_succeeds("ping -n -c 1 -W 1 n1", _DEADLINE_S)


def test_a_clone_is_not_on_the_network_until_it_is_linked(net: Net, shared: Lab) -> None:
    clone = net["n3"].clone("n7")
    clone.fail("ping -n -c 1 -W 1 10.0.0.1")
    shared.link("n7", "s1")
    assert carrier(clone)
    clone.wait_until_succeeds("ping -n -c 1 -W 1 n1", _DEADLINE_S)
    assert "10.0.0.7" in net["n1"].succeed("ping -n -c 1 n7")
    clone.close()


def test_a_clone_sees_no_carrier_until_it_is_linked(net: Net) -> None:
    clone = net["n3"].clone("n8")
    try:
        assert not carrier(clone)
    finally:
        clone.close()


def test_a_clone_with_a_second_card_has_a_card_of_its_own(own_lab: Lab) -> None:
    for name in ("n1", "n2"):
        own_lab.machine(name)
    own_lab.switch("s1")
    own_lab.link("n1", "s1")
    own_lab.link("n1", "n2")
    clone = own_lab["n1"].clone("n5")
    assert clone.succeed("cat /sys/class/net/eth1/address").strip() == "52:54:01:00:00:05"
    own_lab.link("n5", "s1")
    own_lab.link("n5", "n2")
    clone.succeed("ping -n -c 1 -W 20 n1")


# --- laid by hand -----------------------------------------------------------------------------------------------


def test_two_guests_on_a_direct_link(own_lab: Lab, eventually: Eventually) -> None:
    n1, n2 = own_lab.machine("n1"), own_lab.machine("n2")
    assert not carrier(n1)
    own_lab.link("n1", "n2", delay="20ms")
    assert carrier(n1)
    assert min(round_trips_ms(n1, "-c 3 -i 0.2 n2")) >= 40
    n2.crash()
    eventually(lambda: not carrier(n1), _DEADLINE_S)
    n2.start()
    assert carrier(n1)
    n1.wait_until_succeeds("ping -n -c 1 -W 1 n2", _DEADLINE_S)


def test_a_second_link_is_a_second_card_and_outlives_a_reboot(own_lab: Lab) -> None:
    n1, _ = own_lab.machine("n1"), own_lab.machine("n2")
    own_lab.switch("s1")
    own_lab.switch("s2", subnet="203.0.113.0/24")
    for name in ("n1", "n2"):
        own_lab.link(name, "s1")
    own_lab.link("n2", "s2")
    assert not n1.test("test -e /sys/class/net/eth1")
    own_lab.link("n1", "s2")
    assert n1.succeed("cat /sys/class/net/eth1/address").strip() == "52:54:01:00:00:01"
    n1.succeed("ping -n -c 1 -W 20 203.0.113.2 && ping -n -c 1 -W 20 n2")
    n1.reboot()
    n1.wait_until_succeeds("ip -4 -br address show eth1 | grep -q 203.0.113.1/24", _DEADLINE_S)
    n1.wait_until_succeeds("ping -n -c 1 -W 1 203.0.113.2 && ping -n -c 1 -W 1 n2", _DEADLINE_S)


def test_a_second_card_on_a_direct_link_has_an_address_of_its_own(own_lab: Lab) -> None:
    for name in ("n1", "n2"):
        own_lab.machine(name)
    own_lab.switch("s1")
    own_lab.link("n1", "s1")
    own_lab.link("n2", "s1")
    own_lab.link("n1", "n2")
    assert "10.1.0.1/16" in own_lab["n1"].succeed("ip -4 -br address show eth1")
    own_lab["n1"].succeed("ping -n -c 1 -W 20 10.1.0.2")


def test_links_that_can_not_be_are_refused(own_lab: Lab) -> None:
    own_lab.machine("n1")
    own_lab.switch("s1")
    own_lab.link("n1", "s1")
    with pytest.raises(UsageError, match=r"There is no machine or switch 'n9' to link\.\nAllowed: n1, s1"):
        own_lab.link("n9", "s1")
    with pytest.raises(UsageError, match="n1 and n1 can't be linked"):
        own_lab.link("n1", "n1")
    with pytest.raises(UsageError, match="can't be linked again"):
        own_lab.link("s1", "n1")
    with pytest.raises(UsageError, match="s1 is in this lab already"):
        own_lab.switch("s1")
    with pytest.raises(UsageError, match="s1 is in this lab already"):
        own_lab.machine("s1")
    with pytest.raises(UsageError, match="n1 is in this lab already"):
        own_lab.switch("n1")


def test_two_labs_with_the_same_names_do_not_hear_each_other(own_lab: Lab) -> None:
    with Lab() as other:
        ours, theirs = own_lab.start(star(2)), other.start(star(2))
        with theirs.link("n2", "s1").capture() as heard:
            assert ours.ping_all(timeout_s=20)
            theirs["n1"].run("true")
        assert "ICMP" not in [row.protocol for row in heard]
        assert theirs.ping_all(timeout_s=20)
    assert ours.ping_all(timeout_s=20)


# --- larger networks --------------------------------------------------------------------------------------------


def test_vlans_are_apart_over_a_trunk(own_lab: Lab) -> None:
    topology = Topology().switch("s1").switch("s2").link("s1", "s2", trunk=[10, 20])
    for name, switch, vlan in (("n1", "s1", 10), ("n2", "s1", 20), ("n3", "s2", 10), ("n4", "s2", 20)):
        topology.machine(name).link(name, switch, vlan=vlan)
    net = own_lab.start(topology)
    with net.link("s1", "s2").capture() as trunk:
        answered = {pair for pair, rtt in net.ping_all(timeout_s=5).rtt_ms.items() if rtt is not None}
    assert answered == {("n1", "n3"), ("n3", "n1"), ("n2", "n4"), ("n4", "n2")}
    assert {row.info.split(":")[0] for row in trunk if row.protocol == "ICMP"} == {"VLAN 10", "VLAN 20"}
    assert {(vlan, port) for vlan, _, port in net["s1"].mac_table} >= {(10, "n1"), (20, "n2"), (10, "s2"), (20, "s2")}


def test_a_ring_with_spanning_tree_works_and_heals_when_a_link_is_cut(own_lab: Lab, eventually: Eventually) -> None:
    net = own_lab.start(ring(4))
    eventually(lambda: sum(len(switch.blocked) for switch in net.switches.values()) == 1, _DEADLINE_S)
    eventually(lambda: bool(net.ping_all()), _DEADLINE_S)
    net.link("s1", "s2").cut()
    eventually(lambda: not any(switch.blocked for switch in net.switches.values()), _DEADLINE_S)
    eventually(lambda: bool(net.ping_all()), _DEADLINE_S)
    net.link("s1", "s2").heal()
    eventually(lambda: sum(len(switch.blocked) for switch in net.switches.values()) == 1, _DEADLINE_S)
    eventually(lambda: bool(net.ping_all()), _DEADLINE_S)
    assert own_lab.notices == []


def test_a_ring_without_spanning_tree_storms_and_stays_bearable(own_lab: Lab, eventually: Eventually) -> None:
    net = own_lab.start(ring(3, spanning_tree=False))
    net["n1"].succeed(
        "(while true; do arping -q -c 1 -w 1 -I eth0 10.0.0.99; done) >/dev/null 2>&1 & echo $! >/tmp/pid"
    )
    eventually(lambda: any("frames go in circles" in notice for notice in own_lab.notices), _DEADLINE_S)
    for machine in net.machines.values():
        assert machine.succeed("echo alive") == "alive\n"
    net.link("s1", "s2").cut()
    net["n1"].succeed("kill $(cat /tmp/pid)")
    eventually(lambda: bool(net.ping_all()), _DEADLINE_S)
    storms = sum(switch.storms for switch in net.switches.values())
    assert net.ping_all(timeout_s=20)
    assert sum(switch.storms for switch in net.switches.values()) == storms, "it goes on"


def test_a_router_hides_the_inside_behind_its_own_address(own_lab: Lab) -> None:
    topology = Topology().switch("s1").switch("s2", subnet="203.0.113.0/24").machine("n1").machine("n2").router("r1")
    topology.link("n1", "s1").link("r1", "s1").link("r1", "s2").link("n2", "s2")
    net = own_lab.start(topology)
    assert own_lab.address("r1") == "10.0.0.254"
    with net.link("n2", "s2").capture() as outside:
        assert "from 203.0.113.2" in net["n1"].succeed("ping -n -c 2 -i 0.2 n2")
    seen = {(row.source, row.destination) for row in outside if row.protocol == "ICMP"}
    assert seen == {("203.0.113.254", "203.0.113.2"), ("203.0.113.2", "203.0.113.254")}
    assert "unreachable" in net["n2"].fail("ping -n -c 1 -W 1 10.0.0.1").lower()
    assert own_lab.topology.nodes["r1"]["kind"] == "router"


# --- a start that fails -----------------------------------------------------------------------------------------


def nothing_is_left(lab: Lab) -> bool:
    return (lab.machines, lab.switches, lab.links) == ({}, {}, [])


def test_a_start_that_finds_no_room_takes_back_what_it_had_started() -> None:
    with Lab(guests=2) as lab:
        with pytest.raises((UsageError, MachineError)):
            lab.start(star(4))
        assert nothing_is_left(lab)
        assert lab.start(star(2)).ping_all(timeout_s=20)


def test_a_start_with_a_name_that_is_taken_changes_nothing(own_lab: Lab) -> None:
    n2 = own_lab.machine("n2")
    with pytest.raises(UsageError, match="n2 is in this lab already"):
        own_lab.start(star(3))
    assert list(own_lab.machines) == ["n2"]
    assert own_lab.switches == {}
    assert n2.succeed("echo untouched") == "untouched\n"


def test_a_start_with_an_option_that_no_machine_has_leaves_nothing(own_lab: Lab) -> None:
    with pytest.raises((UsageError, TypeError), match="memry"):
        own_lab.start(Topology().switch("s1").machine("n1", memry="1G").machine("n2").link("n1", "s1").link("n2", "s1"))
    assert nothing_is_left(own_lab)


# --- the way out, and what a lab offers beside --------------------------------------------------------------------


class Hello(http.server.BaseHTTPRequestHandler):
    """A page of this computer's."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello from outside")

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def web_port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_uplink_leads_to_this_computer_directly_and_through_a_router(own_lab: Lab, web_port: int) -> None:
    plan = (
        Topology()
        .switch("s1")
        .switch("s2", subnet="203.0.113.0/24")
        .machine("n1")
        .machine("n9")
        .router("r1")
        .uplink("u1")
    )
    for a, b in (("n1", "s1"), ("r1", "s1"), ("r1", "s2"), ("n9", "s2"), ("u1", "s2")):
        plan.link(a, b)
    net = own_lab.start(plan)
    for name in ("n1", "n9"):
        assert net[name].succeed(f"curl -s -m 20 http://203.0.113.249:{web_port}/") == "hello from outside"
    assert own_lab.topology.nodes["u1"]["state"] == "running"
    assert "nameserver 203.0.113.248" in net["n1"].succeed("cat /etc/resolv.conf")


def test_an_uplink_can_come_later_and_ends_with_the_lab(web_port: int) -> None:
    with Lab() as lab:
        lab.start(star(1))
        lab.uplink("u1", "s1")
        assert lab["n1"].succeed(f"curl -s -m 20 http://10.0.255.249:{web_port}/") == "hello from outside"
        process = psutil.Process(
            next(p.pid for p in psutil.process_iter() if str(lab.path("u1.net0")) in " ".join(p.cmdline()))
        )
        with pytest.raises(UsageError, match="no switch 's7'"):
            lab.uplink("u2", "s7")
    process.wait(5)


def test_the_same_topology_again_is_the_same_network_and_what_has_ended_starts_anew(own_lab: Lab) -> None:
    net = own_lab.start(star(2))
    net["n2"].crash()
    assert own_lab.start(star(2)) is net
    assert list(own_lab.running) == ["n1", "n2"]
    assert net.ping_all(20)
    net.close()
    assert own_lab.start(star(2)) is not net


def test_a_switch_of_ones_own_making_is_used_and_its_mistakes_are_told(own_lab: Lab) -> None:
    class Hub(Switch):
        """It knows nothing, and sends everything to everybody."""

        def receive(self, port: Port, frame: bytes) -> list[tuple[Port, bytes]]:
            if b"mistake" in frame:
                raise ValueError("that was one")
            return [(other, frame) for other in self.ports.values() if other is not port]

    own_lab.switch("s1", switch_class=Hub)
    for name in ("n1", "n2", "n3"):
        own_lab.machine(name)
        own_lab.link(name, "s1")
    at_3 = own_lab.links[2].capture()
    assert own_lab["n1"].succeed("ping -n -c3 -i0.2 n2").count("time=") == 3
    assert len(at_3.only("ICMP")) == 6
    own_lab["n1"].run("echo mistake | nc -u -w1 n2 9")
    assert own_lab.notices == ["s1: Hub.receive raised ValueError: that was one; the frame is lost."]
    assert own_lab["n1"].test("ping -n -c1 -W20 n2")


def test_a_lab_knows_what_a_guest_costs(own_lab: Lab) -> None:
    own_lab.start(star(4))
    assert re.search(r"4 of 128 guests, \d+(\.\d)? MiB each", repr(own_lab.budget))
    assert 10e6 < own_lab.budget.per_guest < 100e6


def test_a_network_whose_uplink_has_a_name_that_is_taken_takes_nothing_away(own_lab: Lab) -> None:
    own_lab.start(Topology().switch("s1").uplink("u1").link("u1", "s1"))
    for again in (Topology().switch("s2").uplink("u1").link("u1", "s2"), Topology().machine("u1")):
        with pytest.raises(UsageError, match="u1 is in this lab already"):
            own_lab.start(again)
    with pytest.raises(UsageError, match="u1 is in this lab already"):
        own_lab.machine("u1")
    assert own_lab.topology.nodes["u1"]["state"] == "running"
    assert list(own_lab.switches) == ["s1"]


def test_no_frame_is_on_a_network_that_nobody_uses(own_lab: Lab) -> None:
    net = own_lab.start(star(2))
    net["n1"].succeed("sleep 1.5")
    assert [link.frames for link in net.links] == [0, 0]
    assert net["s1"].mac_table == []
