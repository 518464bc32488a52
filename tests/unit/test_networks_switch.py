"""A learning switch as a specification: frames go in, (port, frame) pairs come out; time is what the test says it is."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from cloudlab import UsageError
from cloudlab.networks import Port, Switch
from cloudlab.networks.frames import (
    BROADCAST,
    STP_GROUP,
    TAGGED,
    mac_bytes,
    mac_text,
    tagged,
    untagged,
    vlan_of,
)
from cloudlab.networks.switch import FLOODS_A_SECOND

A, B, C = (mac_bytes(f"52:54:00:00:00:0{number}") for number in (1, 2, 3))
PRIORITY = TAGGED + b"\xe0\x00"  # a tag of VLAN 0: a priority and nothing more


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def switch(clock: Clock) -> Switch:
    made = Switch("s1", clock=clock)
    for name in ("a", "b", "c"):
        made.add_port(name)
    return made


def frame(to: bytes, source: bytes, inside: bytes = b"\x08\x00" + b"hello" * 10) -> bytes:
    return to + source + inside


def send(switch: Switch, port: str, data: bytes) -> dict[str, bytes]:
    """What leaves the switch by which port, when `data` comes in by `port`; each port at most once."""
    outputs = switch.receive(switch.ports[port], data)
    names = [to.name for to, _ in outputs]
    assert len(names) == len(set(names)), "a port got two copies"
    assert port not in names, "a frame went back where it came from"
    return {to.name: out for to, out in outputs}


# --- learning ---------------------------------------------------------------------------------------------------


def test_an_unknown_destination_is_flooded_to_all_other_ports(switch: Switch) -> None:
    data = frame(B, A)
    assert send(switch, "a", data) == {"b": data, "c": data}


def test_a_learned_destination_gets_the_frame_alone(switch: Switch) -> None:
    send(switch, "b", frame(BROADCAST, B))
    assert send(switch, "a", frame(B, A)) == {"b": frame(B, A)}


def test_a_broadcast_reaches_all_others_even_when_everybody_is_known(switch: Switch) -> None:
    for port, address in (("a", A), ("b", B), ("c", C)):
        assert len(send(switch, port, frame(BROADCAST, address))) == 2


def test_a_frame_for_a_station_on_its_own_port_goes_nowhere(switch: Switch) -> None:
    send(switch, "a", frame(BROADCAST, A))
    assert send(switch, "a", frame(A, B)) == {}


def test_a_station_that_moves_is_found_at_its_new_port(switch: Switch) -> None:
    send(switch, "b", frame(BROADCAST, B))
    send(switch, "c", frame(BROADCAST, B))
    assert list(send(switch, "a", frame(B, A))) == ["c"]


def test_an_address_not_heard_for_the_ageing_time_is_flooded_again(switch: Switch, clock: Clock) -> None:
    send(switch, "b", frame(BROADCAST, B))
    clock.now += 300
    assert list(send(switch, "a", frame(B, A))) == ["b"]
    clock.now += 0.1
    assert list(send(switch, "a", frame(B, A))) == ["b", "c"]
    assert [line[1] for line in switch.mac_table] == [mac_text(A)]


def test_each_frame_makes_its_sources_entry_young_again(switch: Switch, clock: Clock) -> None:
    for _ in range(5):
        clock.now += 200
        send(switch, "b", frame(A, B))
    assert list(send(switch, "a", frame(B, A))) == ["b"]


def test_the_mac_table_names_vlan_address_and_port_the_oldest_first(switch: Switch, clock: Clock) -> None:
    for port, address in (("a", A), ("b", B), ("a", A)):
        send(switch, port, frame(BROADCAST, address))
        clock.now += 1
    assert switch.mac_table == [(1, mac_text(B), "b"), (1, mac_text(A), "a")]


def test_a_group_is_never_learned_as_a_source(switch: Switch) -> None:
    send(switch, "a", frame(B, BROADCAST))
    send(switch, "a", frame(B, b"\x01\x00\x5e\x00\x00\x01"))
    assert switch.mac_table == []


def test_a_full_table_forgets_the_address_not_heard_for_longest(switch: Switch, clock: Clock) -> None:
    """An attacker who invents addresses fills the table, as macof(8) does: memory stays bounded, and frames are flooded."""
    send(switch, "b", frame(C, B))
    for number in range(9000):
        send(switch, "a", frame(A, b"\x02" + number.to_bytes(5, "big")))
    assert len(switch.mac_table) == 8192
    clock.now += 1  # the storm is over
    assert list(send(switch, "a", frame(B, A))) == ["b", "c"]


def test_a_port_taken_out_is_forgotten_with_all_behind_it(switch: Switch) -> None:
    send(switch, "b", frame(BROADCAST, B))
    send(switch, "c", frame(BROADCAST, C))
    switch.mirror("a", "b")
    switch.remove_port("b")
    assert switch.mac_table == [(1, mac_text(C), "c")]
    assert list(send(switch, "a", frame(B, A))) == ["c"]
    with pytest.raises(UsageError, match=r"s1 has no port 'b'.\nAllowed: a, c"):
        switch.remove_port("b")


@pytest.mark.parametrize("ask", [lambda s: s.port("x"), lambda s: s.mirror("x", "a"), lambda s: s.mirror("a", "x")])
def test_an_unknown_port_is_an_error_with_the_names_there_are(switch: Switch, ask: object) -> None:
    with pytest.raises(UsageError, match=r"s1 has no port 'x'.\nAllowed: a, b, c"):
        ask(switch)  # type: ignore[operator]


# --- VLANs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def vlans(clock: Clock) -> Switch:
    """Two stations in VLAN 10, two in 20, and two trunks: the second one's native VLAN is 10."""
    made = Switch("s1", clock=clock)
    for name, vlan in (("a10", 10), ("b10", 10), ("a20", 20), ("b20", 20)):
        made.add_port(name, vlan=vlan)
    made.add_port("trunk", trunk=[10, 20])
    made.add_port("native", vlan=10, trunk=[20])
    return made


def test_a_broadcast_stays_in_its_vlan_and_is_tagged_on_a_trunk(vlans: Switch) -> None:
    data = frame(BROADCAST, A)
    assert send(vlans, "a10", data) == {"b10": data, "trunk": tagged(data, 10), "native": data}
    assert send(vlans, "a20", data) == {"b20": data, "trunk": tagged(data, 20), "native": tagged(data, 20)}


def test_a_tag_from_a_trunk_chooses_the_vlan_and_is_taken_off_at_an_access_port(vlans: Switch) -> None:
    data = frame(BROADCAST, A)
    assert send(vlans, "trunk", tagged(data, 20)) == {"a20": data, "b20": data, "native": tagged(data, 20)}


def test_untagged_frames_on_a_trunk_belong_to_its_native_vlan(vlans: Switch) -> None:
    data = frame(BROADCAST, A)
    assert list(send(vlans, "native", data)) == ["a10", "b10", "trunk"]
    assert send(vlans, "trunk", data) == {}, "VLAN 1 has no other port here"


def test_a_frame_of_a_vlan_that_a_port_does_not_carry_may_not_enter(vlans: Switch) -> None:
    assert send(vlans, "trunk", tagged(frame(BROADCAST, A), 30)) == {}
    assert send(vlans, "a10", tagged(frame(BROADCAST, A), 20)) == {}
    assert (vlans.ports["trunk"].dropped, vlans.ports["a10"].dropped) == (1, 1)
    assert vlans.mac_table == []


def test_a_tag_of_an_access_ports_own_vlan_may_enter(vlans: Switch) -> None:
    assert list(send(vlans, "a10", tagged(frame(BROADCAST, A), 10))) == ["b10", "trunk", "native"]


def test_a_priority_tag_names_no_vlan(vlans: Switch) -> None:
    data = frame(BROADCAST, A)
    priority = data[:12] + PRIORITY + data[12:]
    assert send(vlans, "a20", priority)["b20"] == data
    assert send(vlans, "a20", priority)["trunk"] == tagged(data, 20)


def test_the_priority_in_a_tag_does_not_change_the_vlan(vlans: Switch) -> None:
    data = frame(BROADCAST, A)
    assert list(send(vlans, "trunk", data[:12] + TAGGED + b"\xe0\x14" + data[12:])) == ["a20", "b20", "native"]


def test_one_address_may_live_in_two_vlans(vlans: Switch) -> None:
    send(vlans, "a10", frame(BROADCAST, A))
    send(vlans, "a20", frame(BROADCAST, A))
    assert {(vlan, port) for vlan, _, port in vlans.mac_table} == {(10, "a10"), (20, "a20")}
    assert list(send(vlans, "b10", frame(A, B))) == ["a10"]
    assert list(send(vlans, "b20", frame(A, B))) == ["a20"]


def test_only_the_outer_one_of_two_tags_is_taken_off(vlans: Switch) -> None:
    data = frame(BROADCAST, A)
    assert send(vlans, "trunk", tagged(tagged(data, 10), 20))["a20"] == tagged(data, 10)


def test_a_double_tag_hops_into_another_vlan_through_the_native_one(vlans: Switch) -> None:
    """A real weakness of 802.1Q: the first switch takes the outer tag off, the second one believes the inner one."""
    data = frame(BROADCAST, A)
    over_the_trunk = send(vlans, "a10", tagged(tagged(data, 20), 10))["native"]
    assert over_the_trunk == tagged(data, 20)
    second = Switch("s2")
    second.add_port("native", vlan=10, trunk=[20])
    second.add_port("victim", vlan=20)
    assert send(second, "native", over_the_trunk) == {"victim": data}


@pytest.mark.parametrize("number", [0, -1, 4095, 1.5, True, "10", None])
def test_a_number_that_is_no_vlan_is_refused(switch: Switch, number: object) -> None:
    with pytest.raises(UsageError, match=r"is no VLAN.\nAllowed: 1 to 4094"):
        switch.add_port("x", vlan=number)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is no VLAN"):
        switch.add_port("x", trunk=[10, number])  # type: ignore[list-item]
    assert "x" not in switch.ports


@pytest.mark.parametrize("trunk", [10, "10", 1.5])
def test_a_trunk_is_a_list_of_vlans(switch: Switch, trunk: object) -> None:
    with pytest.raises(UsageError, match=r"is no list of VLANs(.|\n)*trunk=\[10, 20\]"):
        switch.add_port("x", trunk=trunk)  # type: ignore[arg-type]


@pytest.mark.parametrize("trunk", [[10, 20], (10, 20), range(10, 21, 10), {10, 20}, (n for n in (10, 20))])
def test_a_trunk_may_be_anything_to_go_through(switch: Switch, trunk: Iterable[int]) -> None:
    assert switch.add_port("x", trunk=trunk).trunk == {10, 20}


def test_tags_come_off_as_they_went_on() -> None:
    data = frame(B, A)
    assert untagged(tagged(data, 4094)) == data
    assert vlan_of(tagged(data, 4094)) == 4094
    assert vlan_of(data) is None
    assert untagged(data) == data


def test_addresses_are_written_and_read() -> None:
    assert mac_text(A) == "52:54:00:00:00:01"
    assert mac_bytes(mac_text(A)) == A
    for wrong in ("52:54:00", "hello", "", "52:54:00:00:00:01:02"):
        with pytest.raises(ValueError, match=r".+"):
            mac_bytes(wrong)


# --- mirrors ----------------------------------------------------------------------------------------------------


def test_a_mirror_sees_both_directions_of_another_port(switch: Switch) -> None:
    send(switch, "a", frame(BROADCAST, A))
    send(switch, "b", frame(BROADCAST, B))
    switch.mirror("a", "c")
    assert list(send(switch, "a", frame(B, A))) == ["b", "c"]
    assert list(send(switch, "b", frame(A, B))) == ["a", "c"]
    switch.mirror("a", None)
    assert list(send(switch, "a", frame(B, A))) == ["b"]


def test_a_mirror_gets_a_flooded_frame_once(switch: Switch) -> None:
    switch.mirror("a", "c")
    assert list(send(switch, "a", frame(BROADCAST, A))) == ["b", "c"]


def test_what_the_mirroring_station_itself_sends_does_not_come_back_to_it(switch: Switch) -> None:
    switch.mirror("a", "c")
    assert list(send(switch, "c", frame(BROADCAST, C))) == ["a", "b"]


def test_a_mirror_gets_frames_of_another_vlan_untagged(vlans: Switch) -> None:
    vlans.mirror("a10", "b20")
    data = frame(BROADCAST, A)
    assert send(vlans, "a10", data)["b20"] == data
    assert send(vlans, "trunk", tagged(data, 10))["b20"] == data


def test_a_frame_that_goes_nowhere_is_mirrored_still(switch: Switch) -> None:
    send(switch, "a", frame(BROADCAST, A))
    switch.mirror("a", "c")
    assert list(send(switch, "a", frame(A, B))) == ["c"]


# --- figures, storms, power -------------------------------------------------------------------------------------


def test_each_port_counts_frames_and_octets(switch: Switch) -> None:
    send(switch, "a", frame(BROADCAST, A))
    send(switch, "b", frame(A, B))
    size = len(frame(A, B))
    counts = {
        name: (port.frames_in, port.octets_in, port.frames_out, port.octets_out) for name, port in switch.ports.items()
    }
    assert counts == {"a": (1, size, 1, size), "b": (1, size, 1, size), "c": (0, 0, 1, size)}


@pytest.mark.parametrize("size", range(14))
def test_what_is_shorter_than_a_header_is_dropped_and_counted(switch: Switch, size: int) -> None:
    assert send(switch, "a", bytes(size)) == {}
    assert (switch.ports["a"].dropped, switch.ports["a"].frames_in) == (1, 0)


@pytest.mark.parametrize("size", range(14, 18))
def test_a_tag_that_is_cut_short_is_dropped(vlans: Switch, size: int) -> None:
    whole = tagged(frame(BROADCAST, A), 10)
    assert send(vlans, "a10", whole[:size]) == {}
    assert vlans.ports["a10"].dropped == 1


def test_frames_for_the_bridges_own_group_are_not_passed_on(switch: Switch) -> None:
    assert send(switch, "a", frame(STP_GROUP, A)) == {}
    assert switch.mac_table == []


def test_a_storm_is_held_at_so_many_floods_a_second(switch: Switch, clock: Clock) -> None:
    passed = sum(bool(send(switch, "a", frame(BROADCAST, A))) for _ in range(3 * FLOODS_A_SECOND))
    assert passed == FLOODS_A_SECOND
    assert switch.storms == switch.ports["a"].dropped == 2 * FLOODS_A_SECOND
    clock.now += 0.5
    passed = sum(bool(send(switch, "a", frame(BROADCAST, A))) for _ in range(FLOODS_A_SECOND))
    assert passed == FLOODS_A_SECOND // 2


def test_a_storm_does_not_hold_up_frames_for_known_stations(switch: Switch) -> None:
    send(switch, "b", frame(BROADCAST, B))
    for _ in range(2 * FLOODS_A_SECOND):
        send(switch, "a", frame(BROADCAST, A))
    assert list(send(switch, "c", frame(B, C))) == ["b"]


def test_a_switch_that_is_off_passes_nothing_and_has_forgotten_all(switch: Switch) -> None:
    told: list[bool] = []
    switch.changed = lambda: told.append(switch.on)
    send(switch, "b", frame(BROADCAST, B))
    switch.power_off()
    switch.power_off()
    assert send(switch, "a", frame(B, A)) == {}
    assert switch.tick() == []
    assert switch.mac_table == []
    assert "off" in repr(switch)
    switch.power_on()
    assert told == [False, True]
    assert list(send(switch, "a", frame(B, A))) == ["b", "c"]


def test_a_switch_tells_what_it_is() -> None:
    assert repr(Switch("s1")) == "<switch s1: 0 ports, 0 addresses learned>"


# --- garbage ----------------------------------------------------------------------------------------------------


def garbage(chance: random.Random) -> bytes:
    """A frame as nobody would send it: empty, cut short, with group sources, odd tags, tags in tags."""
    addresses = [A, B, C, BROADCAST, STP_GROUP, bytes(6), chance.randbytes(6)]
    tags = [
        b"",
        TAGGED + chance.randbytes(2),
        TAGGED + b"\x00\x0a",
        PRIORITY,
        (TAGGED + b"\x00\x0a") * 2,
        b"\x88\xa8\x00\x0a",
    ]
    whole = chance.choice(addresses) + chance.choice(addresses) + chance.choice(tags) + chance.randbytes(40)
    return whole[: chance.choice([0, 1, 5, 6, 11, 12, 13, 14, 15, 16, 17, 18, len(whole), len(whole)])]


@pytest.mark.parametrize("spanning_tree", [False, True])
def test_ten_thousand_malformed_frames_leave_the_switch_up(clock: Clock, *, spanning_tree: bool) -> None:
    switch = Switch("s1", spanning_tree=spanning_tree, clock=clock)
    switch.add_port("a", vlan=10)
    switch.add_port("b", vlan=10)
    switch.add_port("trunk", trunk=[10, 20])
    switch.add_port("ear")
    switch.mirror("a", "ear")
    for port in switch.ports.values():
        switch.port_changed(port, up=True)
    chance = random.Random(17)
    for _ in range(10_000):
        clock.now += 0.001
        port, data = chance.choice(list(switch.ports)), garbage(chance)
        out = switch.receive(switch.ports[port], data)
        if data[:6] != STP_GROUP:
            assert port not in [to.name for to, _ in out]
        assert all(len(sent) >= 14 for _, sent in out)
    clock.now += 1000
    switch.tick()
    assert list(send(switch, "a", frame(BROADCAST, A))) == ["b", "trunk", "ear"]


def test_ports_are_their_own_selves() -> None:
    assert Port("a") != Port("a")
