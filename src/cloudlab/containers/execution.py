"""Becoming a program: execve(2), with the program looked for along PATH as execvp(3) does."""

from __future__ import annotations

from collections.abc import Sequence
from errno import EACCES, ENOENT

from cloudlab.containers.calls import Calls
from cloudlab.errors import UsageError

PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
ENVIRONMENT = (f"PATH={':'.join(PATH)}", "HOME=/root", "TERM=linux")
_DEFAULT_PATH = "/usr/bin:/bin"  # where an environment has none


def add_execution(calls: Calls, command: str | Sequence[str], environment: Sequence[str] = ENVIRONMENT) -> None:
    """Add: become a program; text goes to /bin/sh, a word without / is looked for along the environment's PATH."""
    words = words_of(command)
    *others, last = candidates(words[0], environment)
    for path in others:
        calls.call("execve", path, words, environment, harmless=[ENOENT, EACCES])
    calls.call("execve", last, words, environment)


def words_of(command: str | Sequence[str]) -> list[str]:
    """Return the words of a command: a text is one for /bin/sh. Raises `UsageError` if there are none, or other things."""
    words = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
    if not words or not all(isinstance(word, str) for word in words):
        raise UsageError(f"{command!r} is no command.", allowed="a text, or a list of words", example='["ps", "ax"]')
    return words


def candidates(program: str, environment: Sequence[str]) -> list[str]:
    """Return the paths at which a program may be, in the order of PATH; an empty entry there is the current directory."""
    if "/" in program:
        return [program]
    path = next((each.removeprefix("PATH=") for each in environment if each.startswith("PATH=")), _DEFAULT_PATH)
    return [f"{directory or '.'}/{program}" for directory in path.split(":")]


def text_of(command: str | Sequence[str]) -> str:
    """Return a command as one line, to be shown."""
    return command if isinstance(command, str) else " ".join(command)
