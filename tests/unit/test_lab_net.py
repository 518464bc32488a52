"""The parts of a network's front door that need no guest."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudlab import UsageError
from cloudlab.lab.cabling import Cabling, Card
from cloudlab.lab.net import _TIME, Pings, _ping_script, at_once
from cloudlab.networks import Switch

BOTH = Pings({("n1", "n2"): 0.5, ("n2", "n1"): 1.5})
HALF = Pings({("n1", "n2"): 0.5, ("n2", "n1"): None})


# --- pings ------------------------------------------------------------------------------------------------------


def test_pings_are_true_when_all_were_answered() -> None:
    assert BOTH
    assert not HALF
    assert HALF.missing == [("n2", "n1")]


def test_pings_tell_how_many_came_back_and_which_did_not() -> None:
    assert repr(BOTH) == "2 of 2 pings answered"
    assert repr(HALF) == "1 of 2 pings answered; none: n2 > n1"
    assert repr(Pings({})) == "0 of 0 pings answered"


def test_a_long_list_of_lost_pings_is_cut_short() -> None:
    many = Pings({(f"n{a}", f"n{b}"): None for a in range(9) for b in range(9) if a != b})
    assert repr(many).count(">") == 20


def test_pings_in_a_notebook_are_a_table_by_number_and_not_by_letter() -> None:
    pings = Pings({(a, b): 1.0 for a in ("n10", "n2", "<n>") for b in ("n10", "n2", "<n>") if a != b})
    page = pings._repr_html_()
    assert page.index(">n2<") < page.index(">&lt;n&gt;<") or page.index(">&lt;n&gt;<") < page.index(">n10<")
    assert page.index(">n2<") < page.index(">n10<")
    assert "<n>" not in page
    assert page.count("✓") == 6
    assert HALF._repr_html_().count("✗") == 1


def test_the_ping_script_asks_all_at_once_and_its_answers_are_read(tmp_path: Path) -> None:
    """Run by the shell here, with a ping that answers for one host alone."""
    (tmp_path / "ping").write_text(
        '#!/bin/sh\n[ "$4" = 10.0.0.2 ] && echo "64 bytes from 10.0.0.2: icmp_seq=1 ttl=64 time=1.25 ms"\n'
    )
    (tmp_path / "ping").chmod(0o755)
    script = _ping_script({"n2": "10.0.0.2", "web-server": "10.0.0.3"}, 2).replace("/tmp/", f"{tmp_path}/")
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, timeout=20, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}
    )
    assert _TIME.findall(done.stdout.replace(f"{tmp_path}/", "/tmp/")) == [("n2", "1.25")]


def test_a_long_round_trip_is_read_too() -> None:
    line = "/tmp/ping.web-server:64 bytes from 10.0.0.3: icmp_seq=1 ttl=64 time=1203 ms"
    assert _TIME.findall(line) == [("web-server", "1203")]


def test_at_once_returns_in_order_and_raises_the_first_error_when_all_are_done() -> None:
    assert at_once(str.upper, ["a", "b", "c"], "letters") == ["A", "B", "C"]
    done: list[str] = []

    def work(name: str) -> None:
        if name == "b":
            raise UsageError("no b")
        done.append(name)

    with pytest.raises(UsageError, match="no b"):
        at_once(work, ["a", "b", "c", "d"], "letters")
    assert sorted(done) == ["a", "c", "d"]


# --- cabling ----------------------------------------------------------------------------------------------------


@pytest.fixture
def cabling(tmp_path: Path) -> Iterator[Cabling]:
    """A lab without machines: cables may be laid before a machine is there."""
    made = Cabling({}, lambda name: tmp_path / name)
    yield made
    made.close()


def test_each_link_takes_the_machines_next_card(cabling: Cabling) -> None:
    cabling.add_switch("s1")
    cabling.add_switch("s2")
    cabling.add_link("n1", "s1")
    cabling.add_link("n1", "s2")
    cabling.add_link("n1", "n2")
    cards = [[str(card) for card in cable.cards()] for cable in cabling.cables]
    assert cards == [["n1"], ["n1.eth1"], ["n1.eth2", "n2"]]
    assert cabling.cables[2].beyond(Card("n2", 0)) == Card("n1", 2)


def test_a_port_is_called_after_what_is_plugged_into_it(cabling: Cabling) -> None:
    switch = cabling.add_switch("s1")
    cabling.add_switch("s2")
    cabling.add_link("n1", "s1", vlan=10)
    cabling.add_link("s2", "s1", trunk=range(10, 12))
    assert list(switch.ports) == ["n1", "s2"]
    assert switch.ports["n1"].vlan == 10
    assert switch.ports["s2"].trunk == {10, 11}


def test_a_link_is_found_by_either_order_of_its_ends(cabling: Cabling) -> None:
    cabling.add_switch("s1")
    link = cabling.add_link("n1", "s1")
    assert cabling.find("s1", "n1") is cabling.find("n1", "s1") is link
    assert cabling.find("n1", "n2") is None


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        ({"vlan": 0}, "0 is no VLAN"),
        ({"trunk": 10}, "10 is no list of VLANs"),
        ({"delay": "soon"}, "is not a time"),
        ({"loss": 2}, "is not a share"),
    ],
)
def test_a_link_with_wrong_conditions_leaves_nothing(
    cabling: Cabling, conditions: dict[str, object], told: str
) -> None:
    switch = cabling.add_switch("s1")
    with pytest.raises(UsageError, match=told):
        cabling.add_link("n1", "s1", **conditions)  # type: ignore[arg-type]
    assert switch.ports == {}
    assert cabling.cables == []


def test_two_things_are_linked_once_and_nothing_to_itself(cabling: Cabling) -> None:
    cabling.add_switch("s1")
    cabling.add_link("n1", "s1")
    with pytest.raises(UsageError, match=r"s1 and n1 can't be linked again"):
        cabling.add_link("s1", "n1")
    with pytest.raises(UsageError, match=r"n1 and n1 can't be linked\."):
        cabling.add_link("n1", "n1")
    with pytest.raises(UsageError, match=r"s1 and s1 can't be linked\."):
        cabling.add_link("s1", "s1")
    assert len(cabling.cables) == 1


def test_a_wrong_subnet_makes_no_switch(cabling: Cabling) -> None:
    with pytest.raises(UsageError, match="is no subnet"):
        cabling.add_switch("s1", subnet="here")
    assert cabling.fabric.switches == {}


def test_what_is_taken_out_takes_its_cables_with_it(cabling: Cabling) -> None:
    first, second = cabling.add_switch("s1"), cabling.add_switch("s2")
    gone, kept = cabling.add_link("n1", "s1"), cabling.add_link("n1", "s2")
    between = cabling.add_link("s1", "s2")
    cabling.remove(["s1"])
    assert [cable.link for cable in cabling.cables] == [kept]
    assert cabling.fabric.switches == {"s2": second}
    assert list(second.ports) == ["n1"]
    assert first.ports == {}
    for link in (gone, between):
        link.heal()  # a cable in nobody's hands: nothing happens
        link.cut()


def storm(cabling: Cabling, switch: Switch) -> list[str]:
    before = len(cabling.notices)
    cabling.fabric.on_storm(switch)
    return cabling.notices[before:]


def test_a_storm_is_told_once_with_the_circle_it_goes_round(cabling: Cabling) -> None:
    switches = [cabling.add_switch(f"s{number}") for number in (1, 2, 3)]
    for a, b in (("s1", "s2"), ("s2", "s3"), ("s3", "s1")):
        cabling.add_link(a, b)
    (told,) = storm(cabling, switches[0])
    assert told.startswith("storm: frames go in circles: s")
    assert all(name in told for name in ("s1", "s2", "s3"))
    assert storm(cabling, switches[0]) == []
    cabling.find("s1", "s2").cut()  # type: ignore[union-attr]
    assert "circles" not in storm(cabling, switches[0])[0]


def test_a_storm_without_a_circle_is_one_guests_doing(cabling: Cabling) -> None:
    (told,) = storm(cabling, cabling.add_switch("s1"))
    assert told == "storm: s1 passes on 2000 frames for everybody a second and drops the rest."
