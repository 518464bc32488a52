"""Containerfiles: the recipe of an image, an instruction a line, as docker's builder has them (the part that one stage needs)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cloudlab.errors import UsageError

EXAMPLES = {
    "FROM": "FROM busybox:1",
    "COPY": "COPY app.py data/ /srv/",
    "RUN": 'RUN apk add python3   or   RUN ["mkdir", "/srv"]',
    "ENV": 'ENV MODE=fast GREETING="good day"',
    "WORKDIR": "WORKDIR /srv",
    "CMD": 'CMD ["python3", "app.py"]   or   CMD python3 app.py',
    "ENTRYPOINT": 'ENTRYPOINT ["/bin/app"]',
    "LABEL": 'LABEL author="me"',
    "EXPOSE": "EXPOSE 80 53/udp",
    "USER": "USER 1000:1000",
    "ARG": "ARG VERSION=1",
}
SHELL = ("/bin/sh", "-c")
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_VARIABLE = re.compile(
    rf"\\(?P<literal>\$)|\$(?:(?P<name>{_NAME})|\{{(?P<braced>{_NAME})(?::(?P<how>[-+])(?P<word>[^}}]*))?\}})"
)
_PAIR = re.compile(r"""(?P<key>[^\s=]+)=(?P<value>(?:"(?:\\.|[^"\\])*"|'[^']*'|\\.|[^\s"'\\])*)(?:\s+|$)""", re.DOTALL)
_PORT = re.compile(r"(\d{1,5})(?:-\d{1,5})?(/(tcp|udp|sctp))?")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name, the line it begins in, its text, and the words in it.

    `words` are of FROM and WORKDIR and USER one; of COPY the sources and the destination; of RUN, CMD and ENTRYPOINT the
    command (`shell`: it was a line for the shell, which is put before it); of EXPOSE the ports. `pairs`: of ENV, LABEL and ARG.
    """

    name: str
    line: int
    text: str
    words: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str | None], ...] = ()
    shell: bool = False

    def __str__(self) -> str:
        return f"{self.name} {self.text}"


def parse_containerfile(text: str) -> tuple[Instruction, ...]:
    """Read a Containerfile; raises `UsageError` with the line, what is allowed there, and an example."""
    found = tuple(_instruction(line, words) for line, words in _lines(text))
    before = [each for each in found if each.name != "ARG"]
    if not before or before[0].name != "FROM":
        line = before[0].line if before else 1
        raise _wrong(
            line, "It has to begin with FROM.", "FROM IMAGE, or FROM scratch for an empty one", EXAMPLES["FROM"]
        )
    for second in [each for each in before if each.name == "FROM"][1:]:
        raise _wrong(
            second.line, "There is a second FROM.", "one stage: build the other image first, and COPY its files"
        )
    return found


def expand(text: str, variables: Mapping[str, str]) -> str:
    r"""Put variables in: $NAME, ${NAME}, ${NAME:-if empty}, ${NAME:+if not empty}; \$ is a dollar."""

    def value(match: re.Match[str]) -> str:
        if match["literal"]:
            return "$"
        found = variables.get(match["name"] or match["braced"], "")
        if match["how"] == "-":
            return found or match["word"]
        return (match["word"] if found else "") if match["how"] == "+" else found

    return _VARIABLE.sub(value, text)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Put lines together that end in a backslash; comments and empty lines are left out, also between those."""
    whole, began = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        began = began if whole else number
        more = line.rstrip().endswith("\\")
        whole += line.rstrip().removesuffix("\\") if more else line
        if not more:
            yield began, whole.strip()
            whole = ""
    if whole.strip():
        yield began, whole.strip()


def _instruction(line: int, text: str) -> Instruction:
    word, rest = [*text.split(None, 1), ""][:2]
    name = word.upper()
    if name not in EXAMPLES:
        raise _wrong(line, f"{word!r} is no instruction.", ", ".join(EXAMPLES), EXAMPLES["RUN"])
    if not rest:
        raise _wrong(line, f"{name} has nothing behind it.", example=EXAMPLES[name])
    if rest.startswith("--"):
        raise _wrong(
            line, f"{name} takes no option here: {rest.split()[0]}.", "the instruction without it", EXAMPLES[name]
        )
    if rest.startswith("<<"):
        raise _wrong(line, f"{name} takes no here-document.", r"lines that end in \ ", EXAMPLES[name])
    match name:
        case "RUN" | "CMD" | "ENTRYPOINT":
            listed = _listed(line, name, rest)
            return Instruction(name, line, rest, listed or (*SHELL, rest), shell=listed is None)
        case "ENV" | "LABEL":
            return Instruction(name, line, rest, pairs=_pairs(line, name, rest))
        case "ARG":
            return Instruction(name, line, rest, pairs=_arguments(line, rest))
    return Instruction(name, line, rest, _checked(line, name, _listed(line, name, rest) or tuple(rest.split())))


def _listed(line: int, name: str, text: str) -> tuple[str, ...] | None:
    """Read the JSON form; what is not JSON is for the shell, as in docker, unless it was plainly meant to be a list."""
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except ValueError:
        words = None
    if isinstance(words, list) and words and all(isinstance(word, str) for word in words):
        return tuple(words)
    if text.endswith("]") and not text.startswith(("[ ", "[[")):
        raise _wrong(line, f"{text!r} is no JSON list of words.", 'words in "double" quotes', EXAMPLES[name])
    return None


def _pairs(line: int, name: str, text: str) -> tuple[tuple[str, str], ...]:
    if "=" not in text.split(maxsplit=1)[0]:  # ENV NAME all the rest
        key, _, value = text.partition(" ")
        if name == "LABEL" or not value.strip():
            raise _wrong(line, f"{name} {text} gives no value.", "NAME=VALUE ...", EXAMPLES[name])
        return ((_key(line, name, key), value.strip()),)
    found, at = [], 0
    while at < len(text):
        match = _PAIR.match(text, at)
        if match is None:
            raise _wrong(line, f"{text[at:]!r} is no NAME=VALUE.", 'values with spaces in "quotes"', EXAMPLES[name])
        found.append((_key(line, name, _unquoted(match["key"])), _unquoted(match["value"])))
        at = match.end()
    return tuple(found)


def _key(line: int, name: str, key: str) -> str:
    if name == "ENV" and not re.fullmatch(_NAME, key):
        raise _wrong(
            line, f"{key!r} is no name of a variable.", "letters, digits and _, no digit first", EXAMPLES[name]
        )
    return key


def _arguments(line: int, text: str) -> tuple[tuple[str, str | None], ...]:
    key, equals, value = text.partition("=")
    if not re.fullmatch(_NAME, key.strip()):
        raise _wrong(line, f"{text!r} declares no argument.", "NAME or NAME=DEFAULT", EXAMPLES["ARG"])
    return ((key.strip(), _unquoted(value.strip()) if equals else None),)


def _unquoted(text: str) -> str:
    r"""Take quotes away, and backslashes before what they protect; \$ stays, for `expand`."""
    return re.sub(
        r"""'([^']*)'|"((?:\\.|[^"\\])*)"|\\([^$])""",
        lambda match: (
            (match[1] or "").replace("$", r"\$")
            if match[1] is not None
            else re.sub(r'\\(["\\])', r"\1", match[2])
            if match[2] is not None
            else match[3]
        ),
        text,
        flags=re.DOTALL,
    )


def _checked(line: int, name: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """Judge the words of an instruction that is no command and sets no variables."""
    if name == "COPY" and len(words) < 2:
        raise _wrong(line, "COPY needs sources and a destination.", "COPY SOURCE ... DESTINATION", EXAMPLES[name])
    if name in ("FROM", "WORKDIR", "USER") and len(words) != 1:
        problem = "FROM takes one image; stages have no names here." if name == "FROM" else f"{name} takes one word."
        raise _wrong(line, problem, example=EXAMPLES[name])
    for word in words if name == "EXPOSE" else ():
        match = _PORT.fullmatch(word)
        if not ("$" in word or (match and 0 < int(match[1]) < 65536)):
            raise _wrong(
                line, f"{word!r} is no port.", "1 to 65535, with /tcp, /udp or /sctp behind it or not", EXAMPLES[name]
            )
    return words


def _wrong(line: int, problem: str, allowed: str = "", example: str = "") -> UsageError:
    return UsageError(f"Containerfile, line {line}: {problem}", allowed=allowed, example=example)
