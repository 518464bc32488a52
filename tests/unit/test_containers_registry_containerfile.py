"""Containerfiles, and the files that say what stays out of a build."""

from __future__ import annotations

import pytest

from cloudlab.containers.registry.containerfile import Instruction, expand, parse_containerfile
from cloudlab.containers.registry.ignore import parse_ignore
from cloudlab.errors import UsageError


def one(line: str) -> Instruction:
    return parse_containerfile(f"FROM scratch\n{line}\n")[1]


def test_instructions_comments_and_continued_lines() -> None:
    text = """\
# syntax=anything

FROM busybox:1
RUN apk add \\
    # not this one
    python3 \\

    curl
copy a b /srv/
"""
    first, run, copy = parse_containerfile(text)
    assert (first.name, first.line, first.words) == ("FROM", 3, ("busybox:1",))
    assert run.line == 4
    assert run.words[:2] == ("/bin/sh", "-c")
    assert run.words[2].split() == ["apk", "add", "python3", "curl"]
    assert (copy.name, copy.line, copy.words) == ("COPY", 9, ("a", "b", "/srv/"))


@pytest.mark.parametrize(
    ("line", "words", "shell"),
    [
        ("RUN echo $HOME", ("/bin/sh", "-c", "echo $HOME"), True),
        ('CMD ["a", "b c"]', ("a", "b c"), False),
        ("ENTRYPOINT top -b", ("/bin/sh", "-c", "top -b"), True),
        ("RUN [ -e /x ]", ("/bin/sh", "-c", "[ -e /x ]"), True),
        ('COPY ["with space", "/to/"]', ("with space", "/to/"), False),
        ("WORKDIR /srv", ("/srv",), False),
        ("EXPOSE 80 53/udp", ("80", "53/udp"), False),
        ("USER 1000:1000", ("1000:1000",), False),
    ],
)
def test_the_words_of_an_instruction(line: str, words: tuple[str, ...], shell: bool) -> None:
    assert (one(line).words, one(line).shell) == (words, shell)


@pytest.mark.parametrize(
    ("line", "pairs"),
    [
        ("ENV A=1 B=two", (("A", "1"), ("B", "two"))),
        ('ENV A="two words" B=a\\ b', (("A", "two words"), ("B", "a b"))),
        ("ENV A='$HOME'", (("A", "\\$HOME"),)),
        ("ENV A all the rest", (("A", "all the rest"),)),
        ('LABEL "with.dots"="x y" b=', (("with.dots", "x y"), ("b", ""))),
        ("ARG VERSION", (("VERSION", None),)),
        ('ARG VERSION="1 2"', (("VERSION", "1 2"),)),
    ],
)
def test_variables_and_labels(line: str, pairs: tuple[tuple[str, str | None], ...]) -> None:
    assert one(line).pairs == pairs


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("", 1, "begin with FROM"),
        ("RUN true", 1, "begin with FROM"),
        ("FROM a\nFROM b", 2, "second FROM"),
        ("FROM a AS b", 1, "one image"),
        ("FROM a\n\nADD x /", 3, "'ADD' is no instruction"),
        ("FROM a\nRUN", 2, "nothing behind it"),
        ("FROM a\nCOPY x", 2, "a destination"),
        ("FROM a\nCOPY --from=b x /", 2, "no option here: --from=b"),
        ("FROM a\nRUN <<EOF\ntrue\nEOF", 2, "here-document"),
        ("FROM a\nCMD ['x']", 2, "no JSON list"),
        ("FROM a\nCMD [1]", 2, "no JSON list"),
        ("FROM a\nENV A", 2, "gives no value"),
        ("FROM a\nENV A=1 B", 2, "no NAME=VALUE"),
        ("FROM a\nENV 1A=1", 2, "no name of a variable"),
        ("FROM a\nEXPOSE http", 2, "'http' is no port"),
        ("FROM a\nEXPOSE 70000", 2, "'70000' is no port"),
        ("FROM a\nWORKDIR a b", 2, "one word"),
        ("FROM a\nARG 5", 2, "declares no argument"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, line: int, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        parse_containerfile(text)
    assert str(caught.value).startswith(f"Containerfile, line {line}: ")
    assert "Allowed: " in str(caught.value) or "Example: " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$A-${A}", "1-1"),
        ("$NONE.", "."),
        ("${NONE:-else}", "else"),
        ("${A:-else}", "1"),
        ("${A:+there}", "there"),
        ("${NONE:+there}", ""),
        (r"\$A", "$A"),
        ("100$", "100$"),
    ],
)
def test_variables_are_put_in(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1"}) == expanded


@pytest.mark.parametrize(
    ("lines", "path", "ignored"),
    [
        (["*.log"], "a.log", True),
        (["*.log"], "sub/a.log", False),
        (["**/*.log"], "sub/deep/a.log", True),
        (["**/*.log"], "a.log", True),
        (["sub"], "sub/a", True),
        (["/sub/"], "sub/a", True),
        (["sub/*", "!sub/keep"], "sub/keep", False),
        (["sub/*", "!sub/keep"], "sub/other", True),
        (["!a", "a"], "a", True),
        (["# a", ""], "a", False),
        (["?.txt"], "a.txt", True),
        (["[!a].txt"], "a.txt", False),
        (["[a-c].txt"], "b.txt", True),
        (["a**"], "abc/d", True),
        (["x.y"], "xzy", False),
    ],
)
def test_what_an_ignore_file_hides(lines: list[str], path: str, ignored: bool) -> None:
    assert (path in parse_ignore(lines)) is ignored
