"""The two errors: *your mistake* (`UsageError`) and *the machine's failure* (`MachineError`)."""

from __future__ import annotations

from pathlib import Path


class CloudlabError(Exception):
    """Anything that cloudlab itself raises on purpose; catch this to catch both kinds."""


class UsageError(CloudlabError):
    """The caller asked for something that can't be: says what was given, what is allowed, and what works.

    `problem` is one sentence; `allowed` completes "Allowed: …"; `example` is a line that would have worked.
    """

    def __init__(self, problem: str, *, allowed: str = "", example: str = "") -> None:
        self.problem, self.allowed, self.example = problem, allowed, example
        lines = [problem]
        if allowed:
            lines.append(f"Allowed: {allowed}")
        if example:
            lines.append(f"Example: {example}")
        super().__init__("\n".join(lines))


class MachineError(CloudlabError):
    """A guest, process or service failed: says which, what it was doing, and what it last printed.

    `exit_status` follows the shell: 0 to 255, or 128 + N for a process ended by signal N (POSIX sh, 2.8.2).
    """

    def __init__(
        self,
        machine: str,
        problem: str,
        *,
        command: str = "",
        exit_status: int | None = None,
        output: str = "",
        log: Path | None = None,
        hint: str = "",
    ) -> None:
        self.machine, self.problem, self.command = machine, problem, command
        self.exit_status, self.output, self.log = exit_status, output, log
        lines = [f"{machine}: {problem}"]
        if command:
            lines.append(f"command: {command}")
        if exit_status is not None:
            lines.append(f"exit status: {exit_status}")
        if output.strip():
            lines.append("it last printed:\n" + _last_lines(output))
        if hint:
            lines.append(f"way out: {hint}")
        if log is not None:
            lines.append(f"log: {log}")
        super().__init__("\n".join(lines))


def _last_lines(text: str, count: int = 12) -> str:
    lines = text.rstrip().splitlines()[-count:]
    return "\n".join("  | " + line[:200] for line in lines)
