"""Captures: what was recorded is what a file and a table say, and no frame is too strange to be told of."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path

import dpkt
import pytest

from cloudlab.networks import Capture, capture
from cloudlab.networks.decode import describe
from cloudlab.networks.frames import STP_GROUP, mac_bytes, tagged
from cloudlab.networks.spanning_tree import Claim, encode

A, B = mac_bytes("52:54:00:00:00:01"), mac_bytes("52:54:00:00:00:02")
MACS, ADDRESSES = ("52:54:00:00:00:01", "52:54:00:00:00:02"), ("10.0.0.1", "10.0.0.2")
HOSTS = (b"\x0a\x00\x00\x01", b"\x0a\x00\x00\x02")


def ethernet(inside: object, kind: int = 0x0800, to: bytes = B) -> bytes:
    return to + A + struct.pack(">H", kind) + bytes(inside)  # type: ignore[call-overload,no-any-return]


def ip(inside: object, protocol: int, **fields: int) -> bytes:
    data = bytes(inside)  # type: ignore[call-overload]
    return bytes(dpkt.ip.IP(src=HOSTS[0], dst=HOSTS[1], p=protocol, data=data, len=20 + len(data), **fields))


def echo(kind: int, number: int) -> bytes:
    return bytes(dpkt.icmp.ICMP(type=kind, data=dpkt.icmp.ICMP.Echo(id=1, seq=number, data=b"x" * 56)))


ARP = {"sha": A, "spa": HOSTS[0], "tha": B, "tpa": HOSTS[1]}
TCP = dpkt.tcp.TCP(sport=40000, dport=80, flags=dpkt.tcp.TH_SYN | dpkt.tcp.TH_ACK)


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (ethernet(dpkt.arp.ARP(op=1, **ARP), 0x0806), (*MACS, "ARP", "who has 10.0.0.2? tell 10.0.0.1")),
        (ethernet(dpkt.arp.ARP(op=2, **ARP), 0x0806), (*MACS, "ARP", "10.0.0.1 is at 52:54:00:00:00:01")),
        (ethernet(ip(echo(8, 5), 1)), (*ADDRESSES, "ICMP", "echo request 5")),
        (ethernet(ip(echo(0, 5), 1)), (*ADDRESSES, "ICMP", "echo reply 5")),
        (ethernet(ip(TCP, 6)), (*ADDRESSES, "TCP", "40000 > 80 [SYN, ACK] 0 bytes")),
        (ethernet(ip(dpkt.udp.UDP(sport=4, dport=5, ulen=11, data=b"abc"), 17)), (*ADDRESSES, "UDP", "4 > 5 3 bytes")),
        (ethernet(ip(dpkt.udp.UDP(sport=4, dport=53, ulen=11, data=b"abc"), 17)), (*ADDRESSES, "DNS", "4 > 53 3 bytes")),
        (ethernet(ip(b"x" * 40, 89)), (*ADDRESSES, "IP 89", "60 bytes")),
        (tagged(ethernet(ip(echo(8, 1), 1)), 10), (*ADDRESSES, "ICMP", "VLAN 10: echo request 1")),
        (ethernet(b"x" * 46, 0x88B5), (*MACS, "0x88b5", "60 bytes")),
        (b"", ("", "", "?", "0 bytes that make no sense")),
        (A, ("", "52:54:00:00:00:01", "?", "6 bytes that make no sense")),
    ],
    ids=["ARP asks", "ARP answers", "ping", "pong", "TCP", "UDP", "DNS", "other IP", "VLAN", "other", "nothing", "half a header"],
)  # fmt: skip
def test_a_frame_in_words(frame: bytes, told: tuple[str, str, str, str]) -> None:
    assert describe(frame) == told


def test_a_spanning_tree_claim_in_words() -> None:
    root, bridge = bytes.fromhex("8000020000000001"), bytes.fromhex("8000020000000002")
    assert describe(encode(Claim(root, 19, bridge, 3)))[2:] == (
        "STP",
        "root 8000020000000001, cost 19, from 8000020000000002 port 3",
    )


def test_a_fragment_in_words() -> None:
    fragment = bytearray(ip(b"x" * 16, 17))
    fragment[6:8] = (1480 // 8).to_bytes(2, "big")
    assert describe(ethernet(fragment))[2:] == ("IP", "fragment at byte 1480")


def test_ipv6_in_words() -> None:
    packet = struct.pack(">IHBB", 0x60000000, 8, 58, 255) + bytes(15) + b"\x01" + bytes(15) + b"\x02" + bytes(8)
    assert describe(ethernet(packet, 0x86DD))[:3] == ("::1", "::2", "IPv6")


def test_packets_in_packets_in_packets_are_told_of_too() -> None:
    packet = b"x"
    for _ in range(1000):
        packet = ip(packet, 4)
    assert len(describe(ethernet(packet))) == 4


def test_ten_thousand_random_frames_never_raise() -> None:
    chance = random.Random(11)
    kinds = [0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8, 0x8847, 0x8863, 0x8864, 0x88CC, 0x0026, 0x2000, 0x9000]
    for _ in range(10_000):
        inside = chance.randbytes(chance.randrange(100))
        if chance.random() < 0.5:
            inside = ip(inside, chance.choice([1, 2, 4, 6, 17, 41, 47, 50, 51, 58, 89, 103, 112, 132]))
        frame = ethernet(inside, chance.choice(kinds), chance.choice([B, STP_GROUP, bytes(6)]))
        words = describe(frame[: chance.randrange(len(frame) + 1)] if chance.random() < 0.2 else frame)
        assert len(words) == 4
        assert all(isinstance(word, str) for word in words)


# --- recording --------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded() -> Capture:
    made = Capture("web-server", "s1")
    made.add(0, ethernet(ip(echo(8, 1), 1)))
    made.add(1, ethernet(ip(echo(0, 1), 1)))
    return made


def test_frames_name_the_end_they_came_from_and_when(recorded: Capture) -> None:
    assert [frame.sender for frame in recorded.frames] == ["web-server", "s1"]
    first, second = (frame.at_s for frame in recorded.frames)
    assert first <= second <= time.time()
    assert recorded.link == "web-server-s1"


def test_a_table_has_a_row_a_frame(recorded: Capture) -> None:
    rows = recorded.table
    assert [(row.protocol, row.info, row.size) for row in rows] == [
        ("ICMP", "echo request 1", 98),
        ("ICMP", "echo reply 1", 98),
    ]
    assert rows[0].time_s == 0.0
    assert list(recorded) == rows
    assert str(recorded).splitlines()[0] == "         10.0.0.1 > 10.0.0.2          ICMP  echo request 1"
    assert repr(recorded) == "<capture of web-server-s1: 2 frames>"


def test_a_file_holds_the_same_frames_and_times(recorded: Capture, tmp_path: Path) -> None:
    path = recorded.save(tmp_path / "抓包 file.pcap")
    with path.open("rb") as file:
        reader = dpkt.pcap.Reader(file)
        assert reader.datalink() == dpkt.pcap.DLT_EN10MB
        read = list(reader)
    assert [frame for _, frame in read] == [frame.frame for frame in recorded.frames]
    for (at, _), frame in zip(read, recorded.frames, strict=True):
        assert float(at) == pytest.approx(frame.at_s, abs=1e-6)


def test_an_empty_capture_is_a_file_and_a_table_too(tmp_path: Path) -> None:
    empty = Capture("a", "b")
    with empty.save(tmp_path / "empty.pcap").open("rb") as file:
        assert list(dpkt.pcap.Reader(file)) == []
    assert empty.table == []
    assert str(empty) == ""
    assert "0 frames on a-b" in empty._repr_html_()


def test_only_the_newest_frames_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "_LIMIT", 100)
    made = Capture("a", "b")
    for number in range(250):
        made.add(0, number.to_bytes(20, "big"))
    assert len(made) == 100
    assert made.frames[0].frame == (150).to_bytes(20, "big")


def test_a_long_capture_is_shown_in_part() -> None:
    made = Capture("a", "b")
    for _ in range(300):
        made.add(0, ethernet(b"x" * 46, 0x88B5))
    assert str(made).endswith("… and 100 more")
    assert made._repr_html_().count("<tr>") == 201
    assert "300 frames on a-b, the first 200 of them" in made._repr_html_()


def test_the_table_in_a_notebook_escapes_what_it_shows() -> None:
    made = Capture("<b>", "s1")
    assert "&lt;b&gt;-s1" in made._repr_html_()


def test_clear_forgets_and_stop_tells_the_link() -> None:
    stopped: list[Capture] = []
    made = Capture("a", "b", stopped.append)
    made.add(0, bytes(20))
    made.clear()
    assert len(made) == 0
    assert made.stop() is made
    with made:
        pass
    assert stopped == [made, made]
