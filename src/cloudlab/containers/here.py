"""This computer as a place for containers, where its kernel allows them: the same programs of system calls, no guest."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from cloudlab.containers import calls
from cloudlab.errors import MachineError
from cloudlab.images.compiler import compile_static
from cloudlab.images.recipe import find_recipe
from cloudlab.machines.result import Result
from cloudlab.paths import cache_directory


def here() -> Here:
    """Return this computer as a place for containers: `Runtime(here()).create(...)`; needs Linux, and root's rights for most of it.

    Compiles the program that makes the system calls, once; it is kept in the cache.
    """
    source, cache = find_recipe("node").directory / "process.c", cache_directory()
    program = cache / f"process-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not program.exists():
        with tempfile.TemporaryDirectory(prefix=".compiling-", dir=cache) as folder:
            new = Path(folder) / "process"
            new.write_bytes(compile_static(source, cache))
            new.chmod(0o755)
            new.rename(program)
    return Here(program)


class Here:
    """This computer, with the verbs of a `Machine` that containers use; `program` is process.c, compiled."""

    name = "this computer"

    def __init__(self, program: Path) -> None:
        self._program = program

    def run(
        self,
        command: str | Sequence[str],
        *,
        input: bytes | str = b"",
        timeout_s: float = 60.0,
        directory: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        """Run a command to its end, as `Machine.run` does."""
        words = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        if words[0] == calls.PROGRAM:
            words[0] = str(self._program)
        began = time.monotonic()
        data = input.encode() if isinstance(input, str) else input
        try:
            done = subprocess.run(
                words, input=data, capture_output=True, timeout=timeout_s, cwd=directory, env=environment, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise MachineError(
                self.name, f"not done within {timeout_s:.3g} s; it was killed", command=" ".join(words)
            ) from error
        status = done.returncode if done.returncode >= 0 else 128 - done.returncode
        return Result(" ".join(words), status, done.stdout, done.stderr, time.monotonic() - began)

    def spawn(self, command: Sequence[str]) -> HereSpawned:
        """Start a command and go on, as `Machine.spawn` does."""
        words = list(command)
        if words[0] == calls.PROGRAM:
            words[0] = str(self._program)
        return HereSpawned(self.name, words)


class HereSpawned:
    """A running command on this computer, with the verbs that `Machine.spawn` gives one in a guest."""

    def __init__(self, place: str, words: Sequence[str]) -> None:
        self._place, self.command, self._began = place, " ".join(words), time.monotonic()
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True)
        self._out, self._err, self._changed = bytearray(), bytearray(), threading.Condition()
        streams = ((self._process.stdout, self._out), (self._process.stderr, self._err))
        for stream, into in streams:
            threading.Thread(target=self._listen, args=(stream, into), daemon=True).start()
        threading.Thread(target=self._await, daemon=True).start()

    def _listen(self, stream: IO[bytes], into: bytearray) -> None:
        with stream:
            while data := stream.read(1 << 16):
                with self._changed:
                    into += data
                    self._changed.notify_all()

    def _await(self) -> None:
        self._process.wait()
        with self._changed:
            self._changed.notify_all()

    @property
    def stdout_bytes(self) -> bytes:
        """What it has printed so far."""
        return bytes(self._out)

    @property
    def stderr(self) -> str:
        """What it has printed so far on standard error."""
        return bytes(self._err).decode(errors="replace")

    @property
    def running(self) -> bool:
        """Has it not ended yet?"""
        return self._process.poll() is None

    def write(self, data: bytes) -> None:
        """Write to its standard input."""
        assert self._process.stdin is not None  # it was made with a pipe
        try:
            self._process.stdin.write(data)
        except (BrokenPipeError, ValueError):
            pass  # it has ended, and the pipe may be closed: `running` and `wait` say so

    def end_input(self) -> None:
        """Close its standard input: it reads the end of the file."""
        assert self._process.stdin is not None  # it was made with a pipe
        self._process.stdin.close()

    def wait_until_printed(self, seen: Callable[[bytes], bool], timeout_s: float = 60.0) -> bool:
        """Wait until `seen(stdout_bytes)`; False if it has ended before, or the time is up."""
        with self._changed:
            self._changed.wait_for(lambda: seen(self.stdout_bytes) or not self.running, timeout_s)
            return seen(self.stdout_bytes)

    def wait(self, timeout_s: float = 60.0) -> Result:
        """Wait for its end. Raises `MachineError` at the deadline; it is killed then."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            self.kill()
            problem = f"not done within {timeout_s:.3g} s; it was killed"
            raise MachineError(self._place, problem, command=self.command) from error
        self.end_input()
        status = code if code >= 0 else 128 - code
        return Result(self.command, status, self.stdout_bytes, bytes(self._err), time.monotonic() - self._began)

    def kill(self) -> None:
        """Kill it and the processes of its group, if it still runs."""
        if self.running:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self.end_input()
