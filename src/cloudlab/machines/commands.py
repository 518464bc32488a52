"""Verbs that work in the guest: commands and files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cloudlab.errors import MachineError
from cloudlab.machines.agent import OUT, Agent, Job
from cloudlab.machines.life import Life
from cloudlab.machines.result import Result
from cloudlab.machines.spawned import Spawned
from cloudlab.owner.waiting import wait_showing

_SETTLE_S = 5.0


class Commands(Life):
    """A guest that runs commands and holds files."""

    def run(
        self,
        command: str | Sequence[str],
        *,
        input: bytes | str = b"",
        timeout_s: float = 60.0,
        directory: str | None = None,
        environment: Mapping[str, str] | None = None,
        on_output: Callable[[bytes], None] | None = None,
    ) -> Result:
        """Run a command as root and wait for its end; text goes to /bin/sh (or, as in make(1), straight to the
        program if there is nothing in it for a shell to do), a list of words is run as it is.

        Whatever its exit status, a `Result` comes back. Raises `MachineError` at the deadline (the command is then
        killed, with its output so far in the error), or if the guest ends.
        """
        agent = self._agent()
        words = command if isinstance(command, str) else " ".join(command)
        began = time.monotonic()
        job: Job | None = None
        try:
            job = agent.start(command, directory=directory, environment=environment, on_output=_pass(on_output))
            agent.feed(job, input.encode() if isinstance(input, str) else bytes(input), timeout_s)
        except MachineError as error:  # it has ended in this very moment
            raise self._explained(error, job, words) from error
        return self._ended(agent, job, words, timeout_s, began)

    def spawn(
        self,
        command: str | Sequence[str],
        *,
        directory: str | None = None,
        environment: Mapping[str, str] | None = None,
        on_output: Callable[[bytes], None] | None = None,
    ) -> Spawned:
        """Start a command and go on while it runs; its standard input stays open until `end_input`.

        `on_output` is called with each piece it prints, by the thread that listens to the guest: it must not wait for the guest.
        """

        def start(heard: Callable[[int, bytes], None]) -> tuple[Agent, Job]:
            agent = self._agent()
            return agent, agent.start(command, directory=directory, environment=environment, on_output=heard)

        return Spawned(self, command if isinstance(command, str) else " ".join(command), start, on_output)

    def _ended(self, agent: Agent, job: Job, words: str, timeout_s: float, began: float) -> Result:
        """Wait for a command's end."""
        self._await(agent, job, words, timeout_s)
        return Result(
            words,
            _exit_status(job, self.name, words),
            bytes(job.out),
            bytes(job.err),
            time.monotonic() - began,
        )

    def succeed(self, command: str | Sequence[str], **options: Any) -> str:
        """Run a command that must succeed; returns its standard output. Raises `MachineError` if its exit status is not 0."""
        result = self.run(command, **options)
        if not result.ok:
            raise self._wrong(result, "the command failed")
        return result.stdout

    def fail(self, command: str | Sequence[str], **options: Any) -> str:
        """Run a command that must fail; returns what it printed. Raises `MachineError` if it succeeds."""
        result = self.run(command, **options)
        if result.ok:
            raise self._wrong(result, "the command succeeded, and should have failed")
        return result.stderr + result.stdout

    def test(self, command: str | Sequence[str], **options: Any) -> bool:
        """Run a command and say whether it succeeded."""
        return self.run(command, **options).ok

    def wait_until_succeeds(self, command: str | Sequence[str], timeout_s: float = 30.0) -> str:
        """Run a command again and again until it succeeds; returns its output. Raises `MachineError` with the last try."""
        last: list[Result] = []

        def attempt(seconds: float) -> bool:
            until = time.monotonic() + seconds
            while not last or not last[0].ok:
                last[:] = [self.run(command, timeout_s=max(1.0, timeout_s))]
                if time.monotonic() > until:
                    break
            return last[0].ok

        if not wait_showing(f"{self.name}: {command}", attempt, timeout_s):
            raise self._wrong(last[0], f"the command did not succeed within {timeout_s:.0f} s; its last try failed")
        return last[0].stdout

    def _await(self, agent: Agent, job: Job, what: str, timeout_s: float) -> None:
        """Wait for a job; whatever goes wrong becomes an error that says what, and what it had printed."""
        wait_showing(f"{self.name}: {_short(what)}", job.wait, timeout_s)
        try:
            in_time = agent.finish(job, 0)
        except MachineError as error:
            raise self._explained(error, job, what) from error
        if not in_time:
            state = (
                "it was killed" if job.status is not None else "the guest does not answer: it hangs, or is very busy"
            )
            raise MachineError(
                self.name,
                f"not done within {timeout_s:.3g} s; {state}",
                command=what,
                output=_text(job),
                log=self.running.console_log,
                hint="a longer timeout_s=…",
            )

    def _explained(self, error: MachineError, job: Job | None, what: str) -> MachineError:
        """The guest has ended: say how, and with what last words."""
        self._settle()
        said = (_text(job) if job is not None else "") + self._last_words()
        log = self._running.console_log if self._running else None
        return MachineError(self.name, self._ending or error.problem, command=what, output=said, log=log)

    def _settle(self) -> None:
        """QEMU's lines close a moment before its end is known: wait for that, so that the error can say it."""
        if self._running is not None:
            self._running.child.wait(_SETTLE_S)

    def _wrong(self, result: Result, problem: str) -> MachineError:
        return MachineError(
            self.name,
            problem,
            command=result.command,
            exit_status=result.exit_status,
            output=result.stderr + result.stdout,
            log=self.running.console_log,
        )

    def put(self, path: str, content: bytes | str | Path, *, mode: int = 0o644, timeout_s: float = 120.0) -> None:
        """Write a file in the guest: bytes, text, or the content of a file here (a `Path`)."""
        data = (
            content.read_bytes()
            if isinstance(content, Path)
            else content.encode()
            if isinstance(content, str)
            else bytes(content)
        )
        agent = self._agent()
        job = agent.put(path, mode)
        agent.feed(job, data, timeout_s)
        self._await(agent, job, f"put {path}", timeout_s)
        self._check_file(job, path, "write")

    def get(self, path: str, *, timeout_s: float = 120.0) -> bytes:
        """Return the bytes of a file in the guest."""
        agent = self._agent()
        job = agent.get(path)
        self._await(agent, job, f"get {path}", timeout_s)
        self._check_file(job, path, "read")
        return bytes(job.out)

    def _check_file(self, job: Job, path: str, verb: str) -> None:
        if job.status:
            raise MachineError(self.name, f"can't {verb} {path}: {os.strerror(-job.status)}")


def _short(command: str) -> str:
    """What is shown of a command while it is waited for: its program without the directory, and its first words."""
    program, space, rest = command.partition(" ")
    return f"{program.rpartition('/')[2]}{space}{rest}"[:60]


def _pass(on_output: Callable[[bytes], None] | None) -> Callable[[int, bytes], None] | None:
    if on_output is None:
        return None
    return lambda kind, data: on_output(data) if kind == OUT else None


def _exit_status(job: Job, machine: str, command: str) -> int:
    assert job.status is not None  # a finished job has one
    if job.status < 0:
        raise MachineError(machine, f"could not start the command: {os.strerror(-job.status)}", command=command)
    return job.status if job.status < 256 else job.status - 256 + 128


def _text(job: Job) -> str:
    return (bytes(job.out[-4000:]) + bytes(job.err[-4000:])).decode(errors="replace")
