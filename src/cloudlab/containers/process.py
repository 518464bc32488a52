"""A process in a guest that makes the system calls one writes in Python, one at a time.

    p = Process(n1)
    p.unshare(Clone.NEWUTS)
    p.sethostname("box")
    p.run("hostname").stdout        # "box"; n1 itself still has its own name

Each call goes to a running process.c as a block of its own (`calls.block`); what it returned comes back at once.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any

from cloudlab.containers.calls import (
    PROGRAM,
    Argument,
    Call,
    CallError,
    Calls,
    Outcome,
    block,
    failed,
    opening,
    outcomes_in,
    whole_records,
)
from cloudlab.containers.children import add_becoming, add_run, add_spawn, add_taking, exit_status
from cloudlab.containers.execution import ENVIRONMENT, text_of
from cloudlab.containers.kinds import Namespace, namespaces_of
from cloudlab.containers.namespace_errors import explain
from cloudlab.containers.signatures import Names, arguments_of, spread
from cloudlab.containers.spawning import Running, Spawning, kill_soon
from cloudlab.containers.syscalls import NUMBERS, number_of
from cloudlab.errors import MachineError
from cloudlab.machines.result import Result

__all__ = ["Names", "Process", "Running", "Spawning"]
_END_S = 10.0


class Process:
    """A process in `place` that makes system calls: `p.unshare(Clone.NEWUTS)`, or `p.call("unshare", Clone.NEWUTS)`.

    It is killed at the end of a `with`, when nobody holds it any more, and with the lab; its children go with it.
    What is written to its standard output and error is in `printed`; all calls with what they came to are in `trace`.
    """

    def __init__(self, place: Spawning) -> None:
        self.place, self.pid = place, 0
        self.trace: list[Outcome] = []
        self._indices, self._lock, self._read = count(), threading.Lock(), 0
        self._spawned = place.spawn([PROGRAM])
        self._finalizer = weakref.finalize(self, kill_soon, self._spawned)
        self._finalizer.atexit = False  # the end of its standard input ends it too
        self._spawned.write(opening("a"))
        self.call("dup2", 2, 1)  # answers have a descriptor of their own: what is written to 1 must not get among them
        self.pid = self.call("getpid")
        self.trace.clear()

    # --- calls ----------------------------------------------------------------------------------------------

    def call(self, name: str, *arguments: object, timeout_s: float = 60.0) -> int:
        """Make a system call; returns what it returned.

        Raises `CallError` (with `errno`) if it fails, `MachineError` if nobody answers within `timeout_s`.
        Arguments: numbers, flags, texts, bytes, lists of texts; `Room` where the kernel writes (then see `trace[-1].data`).
        """
        return self._made(name, arguments, timeout_s).returned

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *NUMBERS]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return the system call of that name as a function: those of `read`, `uname`, ... return data, others numbers."""
        if name.startswith("_"):
            raise AttributeError(name)
        number_of(name)  # raises, and says what there is
        return partial(self._natural, name)

    def _natural(self, name: str, *arguments: object, timeout_s: float = 60.0) -> Any:
        all_arguments, meaning = spread(name, arguments)
        return meaning(self._made(name, all_arguments, timeout_s))

    def _made(self, name: str, arguments: Sequence[object], timeout_s: float) -> Outcome:
        calls = _Tried(self._indices)
        call = calls.call(name, *arguments_of(name, arguments))
        outcome = self._exchange(calls, timeout_s)[call.index]
        if outcome.error:
            raise CallError(self.place.name, outcome, before=explain(outcome))
        return outcome

    # --- children -------------------------------------------------------------------------------------------

    def run(self, command: str | Sequence[str], *, input: bytes | str = b"", timeout_s: float = 60.0) -> Result:
        """Run a command as a child: in this process's namespaces, as its user. Returns its `Result` when it has ended.

        Raises `CallError` if there can be no child, or no such program. What it prints is kept in memory (memfd_create(2)).
        """
        calls = _Tried(self._indices)
        run = add_run(calls, command, os.fsencode(input))
        outcomes = self._exchange(calls, timeout_s)
        files, sizes = ([outcomes[call.index].returned for call in each] for each in (run.files, run.sizes))
        out, err = self._take(files, sizes)
        self._require(outcomes)
        ended = outcomes[run.ended.index]
        return Result(text_of(command), exit_status(ended.data), out, err, ended.took_s)

    def _take(self, files: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        calls = _Tried(self._indices)
        read = add_taking(calls, files, sizes)
        outcomes = self._exchange(calls, _END_S)
        return [outcomes[call.index].data for call in read]

    def spawn(self, command: str | Sequence[str]) -> int:
        """Start a command as a child and go on; returns its number, as this process sees it. `wait4` asks how it ended."""
        calls = _Tried(self._indices)
        child = add_spawn(calls, command)
        return self._require(self._exchange(calls, _END_S))[child.index].returned

    def execve(
        self, path: str, words: Sequence[str], environment: Sequence[str] = ENVIRONMENT, timeout_s: float = 60.0
    ) -> Result:
        """Become another program; returns its `Result` when it has ended, and this process with it. If that fails, it lives on."""
        calls = _Tried(self._indices)
        became = add_becoming(calls, path, words, environment)
        before = len(self.printed.encode())
        try:
            outcomes = self._exchange(calls, timeout_s)
        except MachineError:
            if became.index - 1 not in self._records():  # it did not even come to execve(2), which would not answer
                raise
            ended = self._wait()
            return Result(" ".join(words), ended.exit_status, ended.stderr_bytes[before:], b"", ended.duration_s)
        raise CallError(self.place.name, outcomes[became.index])

    def _require(self, outcomes: dict[int, Outcome]) -> dict[int, Outcome]:
        """Raise the error of the first call that failed, ours or a child's."""
        for outcome in outcomes.values():
            if failed(outcome) or (outcome.error and outcome.call.harmless is None):
                raise CallError(self.place.name, outcome, before=explain(outcome))
        return outcomes

    # --- itself ---------------------------------------------------------------------------------------------

    @property
    def printed(self) -> str:
        """What it and the children that it spawned have written to standard output and error."""
        return self._spawned.stderr

    @property
    def alive(self) -> bool:
        """Does it still run?"""
        return self._spawned.running

    @property
    def namespaces(self) -> dict[str, Namespace]:
        """The namespaces it is in, by kind."""
        return namespaces_of(self.place, self.pid)

    @property
    def children(self) -> list[int]:
        """The numbers of its children, as `place` sees them; those too that have ended and not been waited for (proc(5))."""
        found = self.place.run(["cat", f"/proc/{self.pid}/task/{self.pid}/children"])
        return [int(pid) for pid in found.stdout.split()]

    def exit(self, status: int = 0) -> int:
        """End it with an exit status, and its children; returns the status as its parent sees it (0 to 255)."""
        calls = _Tried(self._indices)
        call = calls.call("exit_group", status)
        if self._spawned.running:
            self._spawned.write(block(calls))
        self._finalizer.detach()
        return self._wait(f"; it can't make {call}").exit_status

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __repr__(self) -> str:
        return f"<process {self.pid} on {self.place.name}: {'alive' if self.alive else 'ended'}>"

    # --- the wire to it -------------------------------------------------------------------------------------

    def _exchange(self, calls: Calls, timeout_s: float) -> dict[int, Outcome]:
        """Have a block of calls made; its last call must be the process's own, so that its answer is the last."""
        *_, last = calls
        with self._lock:
            if not self._spawned.running:
                raise self._lost(last, timeout_s)
            self._spawned.write(block(calls))
            if not self._spawned.wait_until_printed(lambda _: self._has_answered(calls, last), timeout_s):
                raise self._lost(last, timeout_s)
            records = self._records()
            self._read += sum(map(len, records.values()))
        outcomes = outcomes_in(calls, b"".join(records.values()))
        self.trace += outcomes.values()
        return outcomes

    def _has_answered(self, calls: Calls, last: Call) -> bool:
        outcome = outcomes_in(calls, self._spawned.stdout_bytes[self._read :]).get(last.index)
        return outcome is not None and outcome.whole

    def _records(self) -> dict[int, bytes]:
        return whole_records(self._spawned.stdout_bytes[self._read :])

    def _lost(self, call: Call, timeout_s: float) -> MachineError:
        """Say why there is no answer: it takes too long (it is killed: who knows what it would still do), or nobody is there."""
        if self._spawned.running:
            self._end()
            problem = f"{call} was not done within {timeout_s:g} s; process {self.pid} was killed"
            return MachineError(self.place.name, problem)
        try:
            status = self._wait(f"; it can't make {call}").exit_status
        except MachineError as error:
            return error
        problem = f"process {self.pid} has ended, and can't make {call}"
        return MachineError(self.place.name, problem, exit_status=status, output=self.printed)

    def _wait(self, what: str = "") -> Result:
        """Wait for its end. The error of a guest that has ended quotes our answers, which nobody can read: say what was printed."""
        try:
            return self._spawned.wait(_END_S)
        except MachineError as error:
            problem = f"{error.problem}{what}"
            raise MachineError(self.place.name, problem, output=self.printed, log=error.log) from None

    def _end(self) -> None:
        self._finalizer.detach()
        self._spawned.kill()


class _Tried(Calls):
    """Calls of which each may fail: the process lives on, and Python judges what they came to. Those of a child may not."""

    def call(self, name: str, *arguments: Argument | Sequence[str], harmless: Sequence[int] | None = None) -> Call:
        return super().call(name, *arguments, harmless=harmless)

    def child(
        self, flags: int = 0, cgroup: Argument = 0, *, harmless: Sequence[int] | None = None
    ) -> tuple[Call, Calls]:
        return super().child(flags, cgroup, harmless=harmless)
