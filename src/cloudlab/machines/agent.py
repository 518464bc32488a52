"""The host's side of the agent: many commands and files at once over one virtio-serial port.

The frames are described where they are answered, in vm-images/node/agent.c.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count

from cloudlab.errors import MachineError

EXEC, DATA, EOF, SIGNAL, PUT, GET, PING, IDENTITY = range(1, 9)
OUT, ERR, EXIT, PONG, CREDIT = range(16, 21)
_HEADER = struct.Struct("<2sBBII")
_PAYLOAD = 65536
_WINDOW = 16 * _PAYLOAD  # bytes of DATA that may be under way before the guest has used them
_KILL_GRACE_S = 2.0


class Job:
    """One command or file transfer in the guest. `status` is None until it ends; then 0 to 255, 256 + signal, or -errno."""

    def __init__(self, number: int, on_output: Callable[[int, bytes], None] | None = None) -> None:
        self.number = number
        self.out, self.err = bytearray(), bytearray()
        self.status: int | None = None
        self.failure = ""
        self.credit = _WINDOW
        self._on_output = on_output
        self._changed = threading.Condition()

    def take(self, kind: int, payload: bytes) -> None:
        """Take a frame from the guest (in the reading thread)."""
        if kind in (OUT, ERR):
            (self.out if kind == OUT else self.err).extend(payload)
            if self._on_output:
                self._on_output(kind, payload)
            return
        with self._changed:
            if kind == CREDIT:
                self.credit += int(struct.unpack("<I", payload)[0])
            elif kind == EXIT:
                self.status = int(struct.unpack("<i", payload)[0])
            elif kind == PONG:
                self.status = 0
            self._changed.notify_all()

    def fail(self, reason: str) -> None:
        """End it: the guest will say no more."""
        with self._changed:
            self.failure = reason
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        """Is nothing more to come?"""
        return self.status is not None or bool(self.failure)

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; False if it has not come within `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: self.ended, timeout_s)

    def spend(self, size: int, timeout_s: float) -> bool:
        """Wait until the guest has room for `size` more bytes; False if it has not, or the job has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self.ended or self.credit >= size, timeout_s)
            if self.ended or self.credit < size:
                return False
            self.credit -= size
            return True


class Agent:
    """A connection to the agent of one guest."""

    def __init__(self, name: str, sock: socket.socket) -> None:
        self.name, self._socket = name, sock
        self._numbers = count(secrets.randbelow(1 << 30))  # a guest's earlier host may have left jobs of its own
        self._jobs: dict[int, Job] = {}
        self._lock = threading.Lock()
        self._gone = ""
        threading.Thread(target=self._read, name=f"agent-{name}", daemon=True).start()

    def start(
        self,
        command: str | Sequence[str],
        *,
        directory: str | None = None,
        environment: Mapping[str, str] | None = None,
        on_output: Callable[[int, bytes], None] | None = None,
    ) -> Job:
        """Start a command: text goes to /bin/sh, a list of words is executed as it is."""
        fields = (
            [b"s" + os.fsencode(command)]
            if isinstance(command, str)
            else [b"a" + os.fsencode(word) for word in command]
        )
        fields += [b"e" + os.fsencode(f"{key}={value}") for key, value in (environment or {}).items()]
        if directory is not None:
            fields.append(b"d" + os.fsencode(directory))
        return self._job(EXEC, b"".join(field + b"\0" for field in fields), on_output)

    def put(self, path: str, mode: int) -> Job:
        """Begin to write a file; its bytes go to `feed`."""
        return self._job(PUT, struct.pack("<I", mode) + os.fsencode(path))

    def get(self, path: str) -> Job:
        """Begin to read a file; its bytes come in the job's `out`."""
        return self._job(GET, os.fsencode(path))

    def ping(self) -> Job:
        """Ask for a sign of life."""
        return self._job(PING, b"?")

    def identify(self, hostname: str, mac: str, address: str, machine_id: str) -> Job:
        """Give the guest its own name, addresses, machine id, time and randomness, by system calls."""
        fields = [
            f"h{hostname}",
            f"m{machine_id}",
            f"t{time.time():.9f}",
            f"r{secrets.token_hex(64)}",
            f"ieth0,{mac},{address},16",
        ]
        return self._job(IDENTITY, b"".join(field.encode() + b"\0" for field in fields))

    def feed(self, job: Job, data: bytes, timeout_s: float, *, end: bool = True) -> None:
        """Send bytes to a job's standard input or file, no faster than they are used, then (or not yet) its end.

        A job that ends first has read what it wanted: that is no error here.
        """
        until = time.monotonic() + timeout_s
        view = memoryview(data)
        for start in range(0, len(view), _PAYLOAD):
            piece = view[start : start + _PAYLOAD]
            if not job.spend(len(piece), until - time.monotonic()):
                return
            self._send(DATA, job.number, piece)
        if end:
            self._send(EOF, job.number)

    def signal(self, job: Job, number: int) -> None:
        """Send a signal to the process group of a job's command."""
        self._send(SIGNAL, job.number, struct.pack("<I", number))

    def finish(self, job: Job, timeout_s: float) -> bool:
        """Wait for a job's end; at the deadline it is killed, and False says so."""
        in_time = job.wait(timeout_s)
        if not in_time:
            self.signal(job, signal.SIGKILL)
            job.wait(_KILL_GRACE_S)
        self._jobs.pop(job.number, None)
        if job.failure:
            raise MachineError(self.name, job.failure)
        return in_time

    def forget(self, reason: str) -> None:
        """End all jobs: the guest that ran them is no more (it was reset)."""
        with self._lock:
            jobs, self._jobs = list(self._jobs.values()), {}
        for job in jobs:
            job.fail(reason)

    def close(self) -> None:
        """Hang up."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # QEMU hung up first

    def _job(self, kind: int, payload: bytes, on_output: Callable[[int, bytes], None] | None = None) -> Job:
        if len(payload) > _PAYLOAD:
            raise MachineError(
                self.name,
                f"the command or path is {len(payload)} bytes long; the agent takes {_PAYLOAD}",
                hint="put a script and run that",
            )
        job = Job(next(self._numbers) & 0xFFFFFFFF, on_output)
        self._jobs[job.number] = job
        self._send(kind, job.number, payload)
        return job

    def _send(self, kind: int, number: int, payload: bytes | memoryview = b"") -> None:
        with self._lock:
            if self._gone:
                raise MachineError(self.name, self._gone)
            try:
                self._socket.sendall(_HEADER.pack(b"CL", kind, 0, number, len(payload)) + payload)
            except OSError as error:
                raise MachineError(self.name, "QEMU has ended") from error

    def _read(self) -> None:
        buffer = bytearray()
        try:
            while data := self._socket.recv(1 << 18):
                buffer += data
                self._take_frames(buffer)
        except OSError:
            pass  # a connection that breaks has ended, like one that is closed
        self._gone = "QEMU has ended"
        self.forget("QEMU ended while the guest was working")
        self._socket.close()

    def _take_frames(self, buffer: bytearray) -> None:
        at = 0
        while len(buffer) - at >= _HEADER.size:
            magic, kind, _, number, length = _HEADER.unpack_from(buffer, at)
            if magic != b"CL":
                at += 1  # the rest of a frame that a reset cut off
                continue
            if len(buffer) - at < _HEADER.size + length:
                break
            start = at + _HEADER.size
            job = self._jobs.get(number)
            if job is not None:
                job.take(kind, bytes(memoryview(buffer)[start : start + length]))
            at = start + length
        del buffer[:at]
