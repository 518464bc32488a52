"""What is decided for networks of containers: names, addresses, ports, scripts, rules; no guest."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from cloudlab import UsageError
from cloudlab.containers import netfilter
from cloudlab.containers.netfilter import Packet, Port, Rules, Way, parse_port, route_of
from cloudlab.containers.network import (
    Attachment,
    Plan,
    batch_for,
    batch_for_network,
    check_container,
    check_free,
    check_network,
    check_subnet,
    choose_subnet,
    claim,
    creation,
    detaching,
    host_interface,
    mac_of,
    read,
    removal,
)

SUBNET = IPv4Network("172.20.2.0/24")
BRIDGE = Plan("bridge", SUBNET)
ROUTED = Plan("far", SUBNET, "routed")
WEB = Attachment("web", 312, 2, BRIDGE, (Port(8080, 80),), ("www",))


# --- names and addresses ------------------------------------------------------------------------------------------


def test_the_guest_predicts_the_subnet() -> None:
    assert choose_subnet(2, []) == SUBNET
    assert choose_subnet(258, []) == SUBNET
    assert choose_subnet(2, [SUBNET]) == IPv4Network("172.21.2.0/24")


def test_there_are_twelve_subnets_to_choose_from() -> None:
    with pytest.raises(UsageError, match="All subnets"):
        choose_subnet(1, [IPv4Network("172.16.0.0/12")])


def test_the_address_predicts_the_mac() -> None:
    assert mac_of(IPv4Address("172.20.2.3")) == "02:42:ac:14:02:03"
    assert (WEB.address, WEB.mac, WEB.gateway) == (
        IPv4Address("172.20.2.2"),
        "02:42:ac:14:02:02",
        IPv4Address("172.20.2.1"),
    )


def test_a_bridge_is_named_after_its_network() -> None:
    assert (BRIDGE.bridge, Plan("front", SUBNET).bridge, ROUTED.bridge) == ("cloudlab0", "br-front", "")


def test_names_of_interfaces_fit_into_15_characters_and_differ() -> None:
    assert host_interface("a" * 10) == "veth-" + "a" * 10
    long = {host_interface("a" * 20), host_interface("a" * 21)}
    assert len(long) == 2
    assert all(len(name) == 9 and name.startswith("v") for name in long)


@pytest.mark.parametrize("name", ["", "A", "1st", "a_b", "a-", "thirteen-char", "a/b", "a b", None])
def test_a_name_that_no_bridge_can_have_is_refused(name: Any) -> None:
    with pytest.raises(UsageError, match="is not a name for a network"):
        check_network(name)
    assert check_network("twelve-chars") == "twelve-chars"


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a/b", "a'b", "a\nb", "x" * 64, "localhost", 7])
def test_a_name_that_can_not_stand_in_a_hosts_file_is_refused(name: Any) -> None:
    with pytest.raises(UsageError, match="is not a name for a container"):
        check_container(name)
    assert check_container("web_1.Front-2") == "web_1.Front-2"


@pytest.mark.parametrize(
    ("subnet", "problem"),
    [
        ("172.20.2.1/24", "host bits set"),
        ("nonsense", "is no IPv4 network"),
        ("8.8.8.0/24", "can't be a network"),
        ("127.0.5.0/24", "can't be a network"),
        ("172.20.2.0/30", "can't be a network"),
        ("10.0.7.0/24", "overlaps 10.0.0.0/16, which is in use by eth0"),
    ],
)
def test_a_subnet_that_can_not_be_is_refused(subnet: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        check_subnet(subnet, {IPv4Network("10.0.0.0/16"): "eth0"})


# --- ports --------------------------------------------------------------------------------------------------------


def test_ports_are_written_as_docker_has_them() -> None:
    assert parse_port("8080:80") == Port(8080, 80)
    assert parse_port("127.0.0.1:5353:53/udp") == Port(5353, 53, "udp", IPv4Address("127.0.0.1"))
    assert parse_port(str(WEB.ports[0])) == WEB.ports[0]


@pytest.mark.parametrize(
    "text", ["80", "0:80", "80:65536", "80:80/icmp", "1.2.3:80:80", "999.0.0.1:1:1", "a:b", "", 80, None]
)
def test_what_is_no_port_is_refused(text: Any) -> None:
    with pytest.raises(UsageError, match="is not a port to publish"):
        parse_port(text)


def test_a_port_on_all_addresses_overlaps_with_one_on_any() -> None:
    everywhere, local, other = (
        Port(80, 1),
        Port(80, 2, "tcp", IPv4Address("127.0.0.1")),
        Port(80, 1, "tcp", IPv4Address("10.0.0.1")),
    )
    assert everywhere.overlaps(local)
    assert local.overlaps(everywhere)
    assert not local.overlaps(other)
    assert not everywhere.overlaps(replace(everywhere, protocol="udp"))


@pytest.mark.parametrize(
    ("line", "who"),
    [
        ('tcp LISTEN 0 5 0.0.0.0:8080 0.0.0.0:* users:(("nc",pid=7,fd=3))', r"nc \(process 7\)"),
        ('tcp LISTEN 0 5 *:8080 *:* users:(("nc",pid=7,fd=3))', r"nc \(process 7\)"),
        ("tcp LISTEN 0 5 [::]:8080 [::]:*", "a program in the guest"),
        ('tcp LISTEN 0 5 127.0.0.1%lo:8080 0.0.0.0:* users:(("nc",pid=7,fd=3))', r"nc \(process 7\)"),
    ],
)
def test_a_program_that_listens_has_the_port(line: str, who: str) -> None:
    with pytest.raises(UsageError, match=f"Port 8080/tcp is taken by {who}"):
        check_free(WEB, [], line)


def test_a_port_is_free_if_nobody_has_the_same() -> None:
    other = Attachment("b", 1, 3, BRIDGE, (Port(8081, 80), Port(8080, 80, "udp")))
    check_free(WEB, [other], "udp UNCONN 0 0 0.0.0.0:8080 0.0.0.0:*")
    with pytest.raises(UsageError, match="is taken by container web on bridge"):
        check_free(replace(other, ports=(Port(8080, 1),)), [WEB])
    with pytest.raises(UsageError, match="is taken by web"):
        check_free(replace(WEB, ports=(Port(1, 1), Port(1, 2))), [])


# --- what is kept in the guest ------------------------------------------------------------------------------------


def test_what_is_written_is_what_is_read() -> None:
    seen = read(f"{BRIDGE}\nsomething else\n{Plan('shut', SUBNET, 'routed', True)}\n{WEB}\n")
    assert seen.plans == {"bridge": BRIDGE, "shut": Plan("shut", SUBNET, "routed", True)}
    assert seen.attachments == [WEB]
    assert seen.at("shut") == []


def claimed(directory: Path, wanted: Attachment) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/bin/sh", "-c", claim(wanted, str(directory))], capture_output=True, text=True)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in ("bridge/addresses", "bridge/containers"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "bridge/network").write_text(f"{BRIDGE}\n")
    (tmp_path / "bridge/addresses/1").write_text("172.20.2.1 gateway\n")
    return tmp_path


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a process of this computer pass for one with a network namespace of its own."""
    real = claim
    monkeypatch.setattr(
        f"{__name__}.claim", lambda *given: real(*given).replace("-ef /proc/self/ns/net", "-ef /dev/null")
    )


needs_flock = pytest.mark.skipif(
    shutil.which("flock") is None or not Path("/proc/self").exists(), reason="needs flock(1) and /proc"
)


@needs_flock
@pytest.mark.usefixtures("stranger")
def test_the_lowest_free_address_is_taken(directory: Path) -> None:
    for number in (2, 3, 5):
        (directory / f"bridge/addresses/{number}").write_text(f"172.20.2.{number} x\n")
    found = claimed(directory, replace(WEB, pid=os.getpid()))
    assert read(found.stdout).attachments == [replace(WEB, pid=os.getpid(), number=4)]
    assert (directory / "bridge/addresses/4").exists()


@needs_flock
@pytest.mark.usefixtures("stranger")
def test_a_name_that_is_being_attached_is_taken_and_one_that_has_ended_keeps_its_address(directory: Path) -> None:
    assert claimed(directory, replace(WEB, pid=os.getpid())).returncode == 0
    assert claimed(directory, replace(WEB, pid=os.getpid())).returncode == 65
    (directory / "bridge/addresses/2").write_text("172.20.2.2 web\n")
    again = claimed(directory, replace(WEB, pid=os.getpid()))
    assert f"was {replace(WEB, pid=os.getpid())}" in again.stdout
    assert read(again.stdout).attachments == [replace(WEB, pid=os.getpid())]


@needs_flock
def test_what_can_not_be_attached_takes_no_address(directory: Path) -> None:
    assert claimed(directory, replace(WEB, pid=4194305)).returncode == 63
    assert claimed(directory, replace(WEB, pid=os.getpid(), plan=ROUTED)).returncode == 66
    assert [file.name for file in (directory / "bridge/addresses").iterdir()] == ["1"]


@needs_flock
@pytest.mark.usefixtures("stranger")
def test_a_full_network_has_no_address(directory: Path) -> None:
    small = Plan("bridge", IPv4Network("172.20.2.0/29"))
    for number in range(2, 7):
        (directory / f"bridge/addresses/{number}").touch()
    assert claimed(directory, replace(WEB, pid=os.getpid(), plan=small)).returncode == 67


# --- scripts ------------------------------------------------------------------------------------------------------


def test_a_container_gets_a_veth_pair_with_one_end_inside() -> None:
    host, inside = batch_for(WEB)
    assert (
        host == "link add veth-web master cloudlab0 up type veth peer name eth0 address 02:42:ac:14:02:02 netns 312\n"
    )
    assert inside.splitlines() == [
        "link set lo up",
        "addr add 172.20.2.2/24 dev eth0",
        "link set eth0 up",
        "route add default via 172.20.2.1",
    ]


def test_a_routed_container_has_a_route_of_its_own_and_no_bridge() -> None:
    host, inside = batch_for(replace(WEB, plan=ROUTED))
    assert "addr add 172.20.2.1 peer 172.20.2.2/32 dev veth-web\n" in host
    assert "master" not in host
    assert inside == batch_for(WEB)[1]
    assert batch_for_network(ROUTED) == "route add unreachable 172.20.2.0/24\n"


@pytest.mark.parametrize(
    "script",
    [
        creation(BRIDGE, read("")),
        creation(ROUTED, read(str(BRIDGE))),
        claim(WEB),
        detaching(WEB),
        removal(BRIDGE, [WEB]),
        removal(ROUTED, []),
    ],
)
def test_scripts_are_shell_and_hold_the_lock(script: str) -> None:
    assert script.startswith("set -e; exec 9</run; flock 9\n")
    subprocess.run(["/bin/sh", "-n", "-c", script], check=True)


def test_what_is_known_of_a_network_goes_after_its_rules() -> None:
    """A network whose rules could not be taken away is still there, to be removed again."""
    script = removal(BRIDGE, [WEB])
    others, last = script.split("\nelse\n")
    assert others.index("nft -f -") < others.index("rm -r bridge")
    assert last.index("nft ") < last.index("ip_forward") < last.index("rm -r bridge ip_forward")


@pytest.mark.parametrize("script", [removal(BRIDGE, [WEB]), detaching(WEB)])
@pytest.mark.parametrize(("table", "ends"), [("is there", 1), ("is gone", 0)])
def test_rules_that_can_not_be_taken_away_end_the_script_unless_there_is_no_table(
    script: str, table: str, ends: int
) -> None:
    line = next(line for line in script.splitlines() if line.startswith("nft -f -")).replace("<<'END'", "</dev/null")
    nft = f"nft() {{ [ \"$1\" = list ] && [ '{table}' = 'is there' ]; }}"
    ended = subprocess.run(["/bin/sh", "-c", f"set -e; {nft}; {line}\necho went on"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (ends, "" if ends else "went on\n")


def test_only_the_first_network_makes_the_rules() -> None:
    assert "chain forward" in creation(BRIDGE, read(""))
    assert "chain forward" not in creation(ROUTED, read(str(BRIDGE)))


# --- rules --------------------------------------------------------------------------------------------------------


def test_each_rule_says_what_it_is_for_in_words_that_fit() -> None:
    """A comment in nftables has at most 128 bytes."""
    rules = [
        line for line in netfilter.ruleset().splitlines() if line.startswith("    ") and not line.startswith("    type")
    ]
    assert len(rules) == 13
    comments = [line.split('comment "')[1].rstrip('"; ') for line in rules]
    assert all(0 < len(comment.encode()) <= 128 for comment in comments)


def test_a_published_port_is_one_element_of_a_map() -> None:
    assert netfilter.publication(WEB.ports[0], "web", WEB.address) == (
        'create element ip cloudlab published { 0.0.0.0/0 . tcp . 8080 comment "web" : 172.20.2.2 . 80 }\n'
    )
    local = parse_port("127.0.0.1:53:53/udp")
    assert "{ 127.0.0.1 . udp . 53 }" in netfilter.withdrawal(local, "web", WEB.address)


def test_a_network_is_in_the_sets_that_say_how_it_is_connected() -> None:
    def sets(plan: Plan) -> list[str]:
        return [line.split()[4] for line in plan.membership("add").splitlines()]

    assert sets(BRIDGE) == ["networks", "same_network", "hidden"]
    assert sets(ROUTED) == ["networks", "same_network"]
    assert sets(replace(ROUTED, isolated=True)) == ["networks", "same_network", "hidden", "isolated"]


def match(left: dict[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


SOURCE, TARGET = ({"payload": {"protocol": "ip", "field": field}} for field in ("saddr", "daddr"))
PREFIX = {"prefix": {"addr": "172.20.2.0", "len": 24}}
KEY = {
    "concat": [
        TARGET,
        {"payload": {"protocol": "ip", "field": "protocol"}},
        {"payload": {"protocol": "th", "field": "dport"}},
    ]
}
ELEMENT = {"elem": {"val": {"concat": [{"prefix": {"addr": "0.0.0.0", "len": 0}}, 6, 8080]}, "comment": "web"}}
LISTING = {  # as nft -j prints it, without what is not looked at
    "nftables": [
        {"set": {"name": "networks", "elem": [PREFIX]}},
        {"set": {"name": "empty"}},
        {"map": {"name": "published", "elem": [[ELEMENT, {"concat": ["172.20.2.2", 80]}]]}},
        {
            "rule": {
                "chain": "prerouting",
                "comment": "a port",
                "expr": [
                    match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"),
                    {"dnat": {"family": "ip", "addr": {"map": {"key": KEY, "data": "@published"}}}},
                ],
            }
        },
        {
            "rule": {
                "chain": "forward",
                "expr": [match({"ct": {"key": "state"}}, ["established", "related"], "in"), {"accept": None}],
            }
        },
        {"rule": {"chain": "forward", "expr": [match(SOURCE, "@empty"), {"drop": None}]}},
        {
            "rule": {
                "chain": "forward",
                "comment": "open",
                "expr": [match({"ct": {"key": "status"}}, "dnat", "in"), {"accept": None}],
            }
        },
        {
            "rule": {
                "chain": "forward",
                "comment": "closed",
                "expr": [match(TARGET, "@networks"), {"counter": None}, {"drop": None}],
            }
        },
        {
            "rule": {
                "chain": "postrouting",
                "comment": "out",
                "expr": [match(SOURCE, "@networks"), match(TARGET, "@networks", "!="), {"masquerade": None}],
            }
        },
    ]
}
GUEST = IPv4Address("10.0.0.1")
CHAINS = ["prerouting", "forward", "postrouting"]


def walked(packet: Packet) -> list[tuple[str, str]]:
    return [
        (step.comment, step.verdict)
        for step in Rules(LISTING, lambda address: address == GUEST).walk(packet, CHAINS, GUEST)
    ]


def test_a_packet_to_a_published_port_is_translated_and_let_through() -> None:
    assert walked(Packet(IPv4Address("10.0.0.2"), GUEST, "tcp", 8080)) == [("a port", "dnat"), ("open", "accept")]
    assert walked(Packet(IPv4Address("10.0.0.2"), GUEST, "udp", 8080)) == []


def test_a_packet_that_is_dropped_goes_no_further() -> None:
    assert walked(Packet(WEB.address, IPv4Address("172.20.2.9"))) == [("closed", "drop")]


def test_a_packet_on_its_way_out_is_masqueraded() -> None:
    steps = list(Rules(LISTING, lambda _: False).walk(Packet(WEB.address, IPv4Address("10.0.0.2")), CHAINS, GUEST))
    assert [(step.verdict, step.packet.source) for step in steps] == [("masquerade", GUEST)]


# --- the way of a packet ------------------------------------------------------------------------------------------

ROUTES = [
    {"dst": "default", "gateway": "10.0.255.254", "dev": "eth0"},
    {"dst": "10.0.0.0/16", "dev": "eth0"},
    {"dst": "172.20.2.0/24", "dev": "cloudlab0"},
    {"dst": "fe80::/64", "dev": "eth0"},
    {"type": "local", "dst": "10.0.0.1", "dev": "eth0", "table": "local"},
    {"type": "unreachable", "dst": "172.21.2.0/24"},
]


def test_the_longest_prefix_wins() -> None:
    def device(address: str) -> Any:
        found = route_of(ROUTES, IPv4Address(address))
        return found.get("type") or found.get("gateway") or found["dev"]

    assert [device(address) for address in ("10.0.0.1", "10.0.0.2", "172.20.2.9", "9.9.9.9", "172.21.2.3")] == [
        "local", "eth0", "cloudlab0", "10.0.255.254", "unreachable",
    ]  # fmt: skip
    assert route_of(ROUTES[1:2], IPv4Address("9.9.9.9")) == {}


def test_a_way_is_found_from_what_the_tools_list() -> None:
    inside = [{"dst": "default", "gateway": "172.20.2.1", "dev": "eth0"}, {"dst": "172.20.2.0/24", "dev": "eth0"}]
    interfaces = [
        {"ifname": "eth0", "addr_info": [{"family": "inet", "local": "10.0.0.1"}]},
        {"ifname": "cloudlab0", "addr_info": [{"family": "inet", "local": "172.20.2.1"}]},
        {"ifname": "veth-web", "master": "cloudlab0", "addr_info": []},
    ]
    other = Attachment("db", 313, 3, BRIDGE)
    ends = {each.address: (each.name, each.host_interface, each.mac) for each in (WEB, other)}
    learned = [{"mac": other.mac, "ifname": "veth-db", "state": ""}]
    way = Way([inside, ROUTES, interfaces, learned, LISTING], ends, "n2")

    def names(target: str) -> list[str]:
        return [hop.name for hop in way.of(Packet(WEB.address, IPv4Address(target)))]

    assert names("172.20.2.3") == ["eth0", "veth-web", "cloudlab0", "veth-db", "eth0"]
    assert names("172.20.2.9")[-1] == "nobody"
    assert names("10.0.0.2") == ["eth0", "veth-web", "cloudlab0", "10.0.0.0/16", "postrouting", "eth0", "10.0.0.2"]
    assert names("10.0.0.1")[-1] == "local"
    assert names("172.21.2.3")[-1] == "no route"
