"""The fabric, with plain sockets in place of QEMU: whoever is at the other end, frames of the others go their way."""

from __future__ import annotations

import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from cloudlab import CloudlabError
from cloudlab.networks import Fabric, Link, Port, Switch
from cloudlab.networks.frames import BROADCAST
from cloudlab.networks.switch import FLOODS_A_SECOND, Output

Eventually = Callable[[Callable[[], bool], float], None]
_DEADLINE_S = 10.0


class Guest:
    """What QEMU is to the fabric: it listens at a path, and speaks frames with their length before them."""

    def __init__(self, directory: Path, name: str, number: int) -> None:
        self.name, self.path = name, directory / f"{name}.net0"
        self.mac = b"\x52\x54\x00\x00\x00" + bytes([number])
        self.door = socket.socket(socket.AF_UNIX)
        self.door.bind(str(self.path))
        self.door.listen(1)
        self.line: socket.socket | None = None

    def answer(self) -> None:
        """Take the fabric's call."""
        self.door.settimeout(_DEADLINE_S)
        self.line, _ = self.door.accept()
        self.line.settimeout(_DEADLINE_S)

    def send(self, *frames: bytes) -> None:
        self.raw(b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames))

    def raw(self, data: bytes) -> None:
        assert self.line is not None
        self.line.sendall(data)

    def receive(self) -> bytes:
        return self._exactly(int.from_bytes(self._exactly(4), "big"))

    def _exactly(self, size: int) -> bytes:
        assert self.line is not None
        data = b""
        while len(data) < size:
            piece = self.line.recv(size - len(data))
            assert piece, "the fabric hung up"
            data += piece
        return data

    def hears_nothing(self) -> bool:
        """Has nothing come? Ask after something else has gone the same way."""
        assert self.line is not None
        self.line.setblocking(False)
        try:
            return not self.line.recv(1)
        except BlockingIOError:
            return True
        finally:
            self.line.settimeout(_DEADLINE_S)

    def hears(self, sender: Guest, said: bytes) -> bool:
        """Does it hear this, among other things? The sender says it once more for each time we ask."""
        assert self.line is not None
        sender.send(said)
        ready, _, _ = select.select([self.line], [], [], 0.1)
        return bool(ready) and said in self.line.recv(1 << 20)

    def is_hung_up(self) -> bool:
        assert self.line is not None
        try:
            while self.line.recv(1 << 16):
                pass
        except ConnectionResetError:
            pass
        return True

    def close(self) -> None:
        for end in (self.line, self.door):
            if end is not None:
                end.close()


class Bench:
    """A fabric and the guests on it."""

    def __init__(self, directory: Path) -> None:
        self.fabric, self._directory = Fabric(), directory
        self.guests: dict[str, Guest] = {}

    def guest(self, name: str) -> Guest:
        made = self.guests[name] = Guest(self._directory, name, len(self.guests) + 1)
        self.join(made)
        return made

    def join(self, guest: Guest) -> None:
        self.fabric.plug(guest.name, guest.path)
        guest.answer()

    def link(self, a: str, b: str) -> Link:
        """Link two things, as the lab's cabling does."""
        link = Link(a, b, self.fabric.carrier_changed)
        ends = tuple(self._end(name, other) for name, other in ((a, b), (b, a)))
        self.fabric.add_link(link, ends)  # type: ignore[arg-type]
        return link

    def _end(self, name: str, other: str) -> tuple[Switch, Port] | str:
        switch = self.fabric.switches.get(name)
        return (switch, switch.add_port(other)) if switch else name

    def star(self, *names: str) -> list[Guest]:
        """Guests on one switch, s1."""
        self.fabric.add_switch(Switch("s1"))
        guests = [self.guest(name) for name in names]
        for name in names:
            self.link(name, "s1")
        return guests

    def close(self) -> None:
        self.fabric.close()
        for guest in self.guests.values():
            guest.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def frame(to: Guest | None, sender: Guest, inside: bytes = b"hello") -> bytes:
    return (to.mac if to else BROADCAST) + sender.mac + b"\x88\xb5" + inside.ljust(46, b"\0")


def plug_of(bench: Bench, guest: Guest) -> int:
    """Frames that a guest did not take in time."""
    return bench.fabric._plugs[guest.name].dropped


# --- frames cross -----------------------------------------------------------------------------------------------


def test_frames_cross_a_switch(bench: Bench) -> None:
    n1, n2, n3 = bench.star("n1", "n2", "n3")
    n1.send(frame(None, n1))
    assert n2.receive() == n3.receive() == frame(None, n1)
    n2.send(frame(n1, n2, b"back"))
    assert n1.receive() == frame(n1, n2, b"back")
    assert n3.hears_nothing()


def test_frames_cross_a_direct_link(bench: Bench) -> None:
    n1, n2 = bench.guest("n1"), bench.guest("n2")
    link = bench.link("n1", "n2")
    n1.send(frame(n2, n1), frame(n2, n1, b"again"))
    assert [n2.receive(), n2.receive()] == [frame(n2, n1), frame(n2, n1, b"again")]
    assert (link.frames, link.octets) == (2, 120)


def test_frames_cross_many_switches(bench: Bench) -> None:
    names = [f"s{number}" for number in range(1, 9)]
    for name in names:
        bench.fabric.add_switch(Switch(name))
    for a, b in pairwise(names):
        bench.link(a, b)
    n1, n2 = bench.guest("n1"), bench.guest("n2")
    bench.link("n1", "s1")
    bench.link("n2", "s8")
    n1.send(frame(n2, n1))
    assert n2.receive() == frame(n2, n1)


@pytest.mark.parametrize("size", [14, 15, 60, 1514, 9014, 65535, 69632])
def test_frames_of_any_size_arrive_whole(bench: Bench, size: int) -> None:
    n1, n2 = bench.star("n1", "n2")
    data = (BROADCAST + n1.mac + random.Random(size).randbytes(size))[:size]
    n1.send(data)
    assert n2.receive() == data


def test_frames_that_come_in_pieces_are_put_together(bench: Bench) -> None:
    n1, n2 = bench.star("n1", "n2")
    whole = b"".join(len(f).to_bytes(4, "big") + f for f in (frame(n2, n1, b"one"), frame(n2, n1, b"two")))
    for at in range(len(whole)):
        n1.raw(whole[at : at + 1])
    assert [n2.receive(), n2.receive()] == [frame(n2, n1, b"one"), frame(n2, n1, b"two")]


def test_frames_keep_their_order(bench: Bench) -> None:
    n1, n2 = bench.star("n1", "n2")
    n2.send(frame(None, n2))
    n1.receive()
    sent = [frame(n2, n1, number.to_bytes(4, "big")) for number in range(5000)]
    threading.Thread(target=n1.send, args=sent).start()
    assert [n2.receive() for _ in sent] == sent


def test_a_card_without_a_cable_is_heard_by_nobody(bench: Bench) -> None:
    n1, n2 = bench.star("n1", "n2")
    stranger = bench.guest("stranger")
    stranger.send(frame(None, stranger))
    n2.send(frame(n1, n2, b"sent later, so read later"))
    n1.receive()
    bench.link("stranger", "s1")
    stranger.send(frame(None, stranger, b"now"))
    assert n1.receive() == frame(None, stranger, b"now")


# --- links as they are -------------------------------------------------------------------------------------------


def test_a_delay_is_waited_for(bench: Bench) -> None:
    n1, n2 = bench.guest("n1"), bench.guest("n2")
    bench.link("n1", "n2").set(delay="100ms")
    began = time.monotonic()
    n1.send(frame(n2, n1))
    n2.receive()
    assert time.monotonic() - began >= 0.1


def test_a_cut_link_passes_nothing_and_loses_what_is_on_its_way(bench: Bench, eventually: Eventually) -> None:
    n1, n2 = bench.guest("n1"), bench.guest("n2")
    link = bench.link("n1", "n2").set(delay=60)
    n1.send(frame(n2, n1, b"late"))
    eventually(lambda: len(bench.fabric._later) == 1, _DEADLINE_S)
    link.cut()
    assert link.lost == 1
    link.set(delay=0)
    n1.send(frame(n2, n1, b"cut"))
    eventually(lambda: link.lost == 2, _DEADLINE_S)
    link.heal()
    n1.send(frame(n2, n1, b"healed"))
    assert n2.receive() == frame(n2, n1, b"healed")
    assert n2.hears_nothing()


def test_a_long_link_holds_so_many_frames_and_loses_more(bench: Bench, eventually: Eventually) -> None:
    n1, n2 = bench.guest("n1"), bench.guest("n2")
    link = bench.link("n1", "n2").set(delay=60)
    n1.send(*[frame(n2, n1)] * 25_000)
    eventually(lambda: len(bench.fabric._later) + link.lost == 25_000, _DEADLINE_S)
    assert link.lost == 5_000


def test_a_capture_records_what_arrives_at_each_end(bench: Bench) -> None:
    n1, n2 = bench.guest("n1"), bench.guest("n2")
    with bench.link("n1", "n2").capture() as capture:
        n1.send(frame(n2, n1, b"there"))
        n2.receive()
        n2.send(frame(n1, n2, b"back"))
        n1.receive()
    assert [(f.sender, f.frame) for f in capture.frames] == [
        ("n1", frame(n2, n1, b"there")),
        ("n2", frame(n1, n2, b"back")),
    ]


def test_a_link_taken_away_stays_away(bench: Bench) -> None:
    n1, n2, n3 = bench.star("n1", "n2", "n3")
    link = next(link for link in bench.fabric.links if link.a == "n3")
    bench.fabric.remove_link(link)
    assert list(bench.fabric.switches["s1"].ports) == ["n1", "n2"]
    link.heal()
    assert not bench.fabric.has_carrier("n3")
    n3.send(frame(None, n3))
    n1.send(frame(None, n1))
    assert n2.receive() == frame(None, n1)
    assert n3.hears_nothing()


# --- carriers ---------------------------------------------------------------------------------------------------


def test_a_card_has_a_carrier_when_cable_and_switch_are_there(bench: Bench) -> None:
    bench.star("n1")
    link, switch, carrier = bench.fabric.links[0], bench.fabric.switches["s1"], bench.fabric.has_carrier
    assert carrier("n1")
    link.cut()
    assert not carrier("n1")
    link.heal()
    switch.power_off()
    assert not carrier("n1")
    switch.power_on()
    assert carrier("n1")
    assert not carrier("nobody")


def test_on_a_direct_link_the_other_guest_is_the_carrier(bench: Bench) -> None:
    bench.guest("n1")
    bench.link("n1", "n2")
    assert not bench.fabric.has_carrier("n1")
    bench.guest("n2")
    assert bench.fabric.has_carrier("n1")
    bench.fabric.unplug("n2")
    assert not bench.fabric.has_carrier("n1")


def test_switches_with_spanning_tree_close_a_circle(bench: Bench, eventually: Eventually) -> None:
    switches = [bench.fabric.add_switch(Switch(name, spanning_tree=True)) for name in ("s1", "s2", "s3")]
    links = [bench.link(a, b) for a, b in (("s1", "s2"), ("s2", "s3"), ("s3", "s1"))]
    eventually(lambda: [switch.blocked for switch in switches] == [[], [], ["s2"]], _DEADLINE_S)
    links[2].cut()
    eventually(lambda: not any(switch.blocked for switch in switches), _DEADLINE_S)


def test_a_circle_without_spanning_tree_is_told_of(bench: Bench, eventually: Eventually) -> None:
    stormy: list[str] = []
    bench.fabric.on_storm = lambda switch: stormy.append(switch.name)
    for name in ("s1", "s2", "s3"):
        bench.fabric.add_switch(Switch(name))
    links = [bench.link(a, b) for a, b in (("s1", "s2"), ("s2", "s3"), ("s3", "s1"))]
    n1 = bench.guest("n1")
    bench.link("n1", "s1")
    n1.send(frame(None, n1))
    eventually(lambda: bool(stormy), _DEADLINE_S)
    for link in links:
        link.cut()
    links[0].heal()
    eventually(lambda: not bench.fabric._work, _DEADLINE_S)
    assert links[1].frames < 100 * FLOODS_A_SECOND


# --- guests that misbehave --------------------------------------------------------------------------------------


def test_a_guest_that_does_not_read_holds_up_nobody(bench: Bench, eventually: Eventually) -> None:
    n1, n2, deaf = bench.star("n1", "n2", "deaf")
    for guest in (n2, deaf):
        guest.send(frame(None, guest))
        n1.receive()
    big = frame(deaf, n1, bytes(60_000))
    for _ in range(60):
        n1.send(big)
    eventually(lambda: plug_of(bench, deaf) > 0, _DEADLINE_S)
    assert len(bench.fabric._plugs["deaf"].backlog) < 4 << 20
    n1.send(frame(n2, n1))
    while (heard := n2.receive()) != frame(n2, n1):
        assert heard == frame(None, deaf)
    assert plug_of(bench, n2) == 0


def test_a_guest_that_reads_again_gets_whole_frames(bench: Bench, eventually: Eventually) -> None:
    n1, deaf = bench.star("n1", "deaf")
    for _ in range(60):
        n1.send(frame(deaf, n1, bytes(60_000)))
    eventually(lambda: plug_of(bench, deaf) > 0, _DEADLINE_S)
    heard, new = b"", frame(None, n1, b"afterwards")
    while heard != new:
        assert heard in (b"", frame(deaf, n1, bytes(60_000)))
        n1.send(new)
        heard = deaf.receive()


@pytest.mark.parametrize("garbage", [b"\xff" * 64, (69633).to_bytes(4, "big"), b"HTTP/1.1 200 OK\r\n"])
def test_a_guest_that_talks_nonsense_is_hung_up_and_the_others_go_on(bench: Bench, garbage: bytes) -> None:
    n1, n2, mad = bench.star("n1", "n2", "mad")
    mad.raw(garbage)
    assert mad.is_hung_up()
    n1.send(frame(None, n1))
    assert n2.receive() == frame(None, n1)
    assert not bench.fabric.is_plugged("mad")


def test_a_guest_that_ends_in_the_middle_of_a_frame_is_let_go(bench: Bench, eventually: Eventually) -> None:
    n1, n2, ending = bench.star("n1", "n2", "ending")
    ending.raw(b"\x00\x00\x00\x40" + bytes(10))
    ending.close()
    eventually(lambda: not bench.fabric.is_plugged("ending"), _DEADLINE_S)
    n1.send(frame(None, n1))
    assert n2.receive() == frame(None, n1)


def test_a_guest_comes_back(bench: Bench, eventually: Eventually) -> None:
    n1, n2 = bench.star("n1", "n2")
    n1.raw(b"\x00\x00\x00\x40half")
    assert n1.line is not None
    n1.line.close()
    eventually(lambda: not bench.fabric.is_plugged("n1"), _DEADLINE_S)
    bench.join(n1)
    n1.send(frame(None, n1))
    assert n2.receive() == frame(None, n1)


def test_a_second_plug_takes_the_place_of_the_first(bench: Bench) -> None:
    n1, n2 = bench.star("n1", "n2")
    first = n1.line
    bench.join(n1)
    assert first is not None
    assert first.recv(1) == b""
    first.close()
    n1.send(frame(None, n1))
    assert n2.receive() == frame(None, n1)


def test_nobody_at_the_other_end_is_an_error_with_the_path(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(CloudlabError, match=r"n9: its network card can't be reached at .*n9\.net0: No such file"):
        bench.fabric.plug("n9", tmp_path / "n9.net0")
    assert not bench.fabric.is_plugged("n9")
    bench.fabric.unplug("n9")


def test_ten_thousand_random_frames_of_two_guests_leave_the_fabric_up(bench: Bench, eventually: Eventually) -> None:
    n1, n2, *mad = bench.star("n1", "n2", "mad1", "mad2")

    def rave(guest: Guest, seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(50):
            heads = [
                b"",
                n1.mac,
                BROADCAST + n2.mac,
                bytes(12) + b"\x81\x00",
                b"\x01\x80\xc2\x00\x00\x00",
                chance.randbytes(12),
            ]
            guest.send(*(chance.choice(heads) + chance.randbytes(chance.randrange(64)) for _ in range(100)))

    threads = [threading.Thread(target=rave, args=(guest, seed)) for seed, guest in enumerate(mad)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_DEADLINE_S)
        assert not thread.is_alive()

    def is_found_again() -> bool:  # what they have said in its name may still be on its way
        n2.send(frame(None, n2, b"I am here, and not where they said"))
        return n2.hears(n1, frame(n2, n1, b"last words"))

    eventually(is_found_again, _DEADLINE_S)


class Broken(Switch):
    """A switch of a learner's own making: it raises, or returns what it should not."""

    answer: object = None

    def receive(self, port: Port, frame: bytes) -> list[Output]:
        if frame.endswith(b"\xff"):
            raise ZeroDivisionError("division by zero")
        if frame.endswith(b"\xfe"):
            return [port]  # type: ignore[list-item]
        if frame.endswith(b"\xfd"):
            return [(port, "text")]  # type: ignore[list-item]
        if frame.endswith(b"\xfc"):
            return None  # type: ignore[return-value]
        return [(to, frame) for to in self.ports.values() if to is not port]


@pytest.mark.parametrize("last", [0xFF, 0xFE, 0xFD, 0xFC])
def test_a_switch_that_fails_loses_that_frame_and_no_other(bench: Bench, last: int) -> None:
    errors: list[str] = []
    bench.fabric.on_error = lambda switch, error: errors.append(f"{switch.name}: {type(error).__name__}")
    bench.fabric.add_switch(Broken("s1"))
    n1, n2 = bench.guest("n1"), bench.guest("n2")
    bench.link("n1", "s1")
    bench.link("n2", "s1")
    n1.send(frame(None, n1) + bytes([last]), frame(None, n1))
    assert n2.receive() == frame(None, n1)
    assert errors in (["s1: ZeroDivisionError"], ["s1: TypeError"])


# --- changes while frames pass ----------------------------------------------------------------------------------


def test_links_and_switches_come_and_go_while_frames_pass(bench: Bench) -> None:
    n1, n2 = bench.star("n1", "n2")
    done = threading.Event()

    def chatter() -> None:
        while not done.is_set():
            n1.send(*[frame(None, n1)] * 50)

    thread = threading.Thread(target=chatter)
    reader = threading.Thread(target=lambda: [n2.receive() for _ in range(200)], daemon=True)
    thread.start()
    reader.start()
    for number in range(2, 200):
        bench.fabric.add_switch(Switch(f"s{number}", spanning_tree=bool(number % 2)))
        link = bench.link("s1", f"s{number}")
        bench.fabric.switches["s1"].forget()
        if number % 3:
            bench.fabric.remove_link(link)
            bench.fabric.remove_switch(f"s{number}")
    done.set()
    thread.join(_DEADLINE_S)
    reader.join(_DEADLINE_S)
    assert not reader.is_alive(), "frames no longer pass"


# --- the end ----------------------------------------------------------------------------------------------------


def test_the_thread_ends_and_guests_are_hung_up_at_close(bench: Bench) -> None:
    (n1,) = bench.star("n1")
    thread = bench.fabric._thread
    assert thread is not None
    assert thread.is_alive()
    bench.fabric.close()
    assert not thread.is_alive()
    assert n1.is_hung_up()


def test_close_can_be_called_twice_and_hurts_nobody_elses_files(bench: Bench, tmp_path: Path) -> None:
    bench.star("n1")
    link = bench.fabric.links[0]
    bench.fabric.close()
    others = [(tmp_path / f"{number}").open("w+b", buffering=0) for number in range(8)]
    bench.fabric.close()
    link.cut()  # rings at the thread's door, which is no longer there
    for file in others:
        assert file.write(b"mine") == 4
        file.close()
    assert {(tmp_path / f"{number}").read_bytes() for number in range(8)} == {b"mine"}


def test_a_fabric_without_anything_in_it_closes_too() -> None:
    fabric = Fabric()
    fabric.close()
    assert fabric._thread is None


def test_no_file_is_left_open(tmp_path: Path) -> None:
    process, before = psutil.Process(), psutil.Process().num_fds()
    for number in range(5):
        directory = tmp_path / str(number)
        directory.mkdir()
        bench = Bench(directory)
        n1, n2, mad = bench.star("n1", "n2", "mad")
        mad.raw(b"\xff" * 8)
        assert mad.is_hung_up()
        n1.send(frame(None, n1))
        n2.receive()
        bench.close()
    assert process.num_fds() <= before
