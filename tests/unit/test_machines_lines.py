"""The lines to a guest, against a peer made of a socket: what is sent, what comes back, what a broken line does."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cloudlab.errors import MachineError
from cloudlab.machines import agent as protocol
from cloudlab.machines.agent import Agent
from cloudlab.machines.qmp import Qmp


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    theirs.close()


def frame(kind: int, number: int, payload: bytes = b"") -> bytes:
    return struct.pack("<2sBBII", b"CL", kind, 0, number, len(payload)) + payload


def read_frame(sock: socket.socket) -> tuple[int, int, bytes]:
    header = sock.recv(12, socket.MSG_WAITALL)
    _, kind, _, number, length = struct.unpack("<2sBBII", header)
    return kind, number, sock.recv(length, socket.MSG_WAITALL) if length else b""


def test_a_command_travels_as_fields(line: tuple[socket.socket, socket.socket]) -> None:
    agent = Agent("n1", line[0])
    agent.start(["ls", "-l"], directory="/tmp", environment={"A": "1"})
    kind, _, payload = read_frame(line[1])
    assert kind == protocol.EXEC
    assert payload == b"als\0a-l\0eA=1\0d/tmp\0"


def test_output_and_status_come_back_in_pieces_of_any_size(line: tuple[socket.socket, socket.socket]) -> None:
    agent = Agent("n1", line[0])
    job = agent.start("echo")
    _, number, _ = read_frame(line[1])
    answer = (
        frame(protocol.OUT, number, b"one")
        + frame(protocol.OUT, number + 1, b"somebody else's")
        + frame(protocol.ERR, number, b"two")
        + frame(protocol.EXIT, number, struct.pack("<i", 256 + 9))
    )
    for byte in answer:
        line[1].sendall(bytes([byte]))
    assert job.wait(5)
    assert (bytes(job.out), bytes(job.err), job.status) == (b"one", b"two", 265)


def test_half_a_frame_from_before_a_reset_is_passed_over(line: tuple[socket.socket, socket.socket]) -> None:
    agent = Agent("n1", line[0])
    job = agent.ping()
    _, number, _ = read_frame(line[1])
    line[1].sendall(b"\x10\x00garbage C" + frame(protocol.PONG, number))
    assert job.wait(5)


def test_data_is_sent_no_faster_than_it_is_used(line: tuple[socket.socket, socket.socket]) -> None:
    agent = Agent("n1", line[0])
    job = agent.start("cat")
    _, number, _ = read_frame(line[1])
    size = 20 * 65536
    feeder = threading.Thread(target=agent.feed, args=(job, b"x" * size, 10))
    feeder.start()
    got = 0
    while got < 16 * 65536:
        got += len(read_frame(line[1])[2])
    line[1].settimeout(0.1)
    with pytest.raises(TimeoutError):
        line[1].recv(1)
    line[1].settimeout(None)
    line[1].sendall(frame(protocol.CREDIT, number, struct.pack("<I", got)))
    while got < size:
        got += len(read_frame(line[1])[2])
    assert read_frame(line[1])[0] == protocol.EOF
    feeder.join(5)


def test_a_job_at_its_deadline_is_killed(line: tuple[socket.socket, socket.socket]) -> None:
    agent = Agent("n1", line[0])
    job = agent.start("sleep 100")
    _, number, _ = read_frame(line[1])

    def guest() -> None:
        kind, killed, payload = read_frame(line[1])
        assert (kind, killed, payload) == (protocol.SIGNAL, number, struct.pack("<I", 9))
        line[1].sendall(frame(protocol.EXIT, number, struct.pack("<i", 265)))

    thread = threading.Thread(target=guest)
    thread.start()
    assert agent.finish(job, 0.05) is False
    thread.join(5)
    assert job.status == 265


def test_a_line_that_ends_ends_its_jobs_with_an_error(line: tuple[socket.socket, socket.socket]) -> None:
    agent = Agent("n1", line[0])
    job = agent.start("sleep 100")
    line[1].close()
    with pytest.raises(MachineError, match="n1: QEMU ended while the guest was working"):
        agent.finish(job, 5)
    with pytest.raises(MachineError, match="QEMU has ended"):
        agent.start("true")


def test_a_command_that_is_too_long_is_refused_with_a_way_out(line: tuple[socket.socket, socket.socket]) -> None:
    agent = Agent("n1", line[0])
    with pytest.raises(MachineError, match="put a script"):
        agent.start("x" * 70_000)
    agent.close()


def qmp_peer(sock: socket.socket, answers: dict[str, dict[str, Any]]) -> None:
    """Answer commands as QEMU does."""
    sock.sendall(b'{"QMP": {"version": {}}}\n')
    for text in sock.makefile():
        request = json.loads(text)
        answer = answers.get(request["execute"], {"return": {}})
        sock.sendall(json.dumps({**answer, "id": request["id"]}).encode() + b"\n")


def test_qmp_answers_are_matched_to_their_commands(line: tuple[socket.socket, socket.socket]) -> None:
    answers = {"query-status": {"return": {"status": "running"}}, "bad": {"error": {"desc": "no such thing"}}}
    threading.Thread(target=qmp_peer, args=(line[1], answers), daemon=True).start()
    qmp = Qmp("n1", line[0])
    first, second = qmp.send("query-status"), qmp.send("other")
    assert qmp.answer(second) == {}
    assert qmp.answer(first) == {"status": "running"}
    with pytest.raises(MachineError, match=r'QEMU refused: no such thing(.|\n)*command: bad {"a-b": 1}'):
        qmp.execute("bad", a_b=1)
    qmp.close()


def test_qmp_events_are_waited_for_and_named_when_they_do_not_come(line: tuple[socket.socket, socket.socket]) -> None:
    qmp = Qmp("n1", line[0])
    line[1].sendall(b'{"event": "STOP"}\n{"event": "RESUME"}\n')
    assert qmp.wait_event(lambda event: event["event"] == "RESUME", 5, "resuming")["event"] == "RESUME"
    with pytest.raises(MachineError, match="n1: flying did not happen within 0 s; events so far: STOP, RESUME"):
        qmp.wait_event(lambda event: event["event"] == "FLY", 0.05, "flying")
    line[1].close()
    with pytest.raises(MachineError, match="QEMU ended before this happened: flying"):
        qmp.wait_event(lambda event: event["event"] == "FLY", 5, "flying")
