"""A container's log, read back."""

from __future__ import annotations

from datetime import UTC, datetime

from cloudlab.containers.logs import Line, parse, printed

LOG = (
    b"2026-11-23T20:35:39.505412335Z stdout F first\n"
    b"2026-11-23T20:35:39.600000000Z stderr F wrong: \xff\n"
    b"2026-11-23T20:35:40.000000001Z stdout F \n"
    b"2026-11-23T20:35:40.100000000Z stdout P no end\n"
)


def test_each_line_has_its_time_its_stream_and_its_text() -> None:
    first, *_ = parse(LOG)
    assert first == Line(datetime(2026, 11, 23, 20, 35, 39, 505412, tzinfo=UTC), "stdout", "first")
    assert [line.text for line in parse(LOG)] == ["first", "wrong: \ufffd", "", "no end"]


def test_what_was_printed_comes_back_as_it_was() -> None:
    assert printed(parse(LOG), "stdout") == "first\n\nno end"
    assert printed(parse(LOG), "stderr") == "wrong: \ufffd\n"
    assert printed(parse(LOG)) == "first\nwrong: \ufffd\n\nno end"
    assert printed(parse(b"")) == ""


def test_what_looks_like_an_end_of_line_is_none() -> None:
    (line,) = parse(b"2026-11-23T20:35:39.505412335Z stdout F 10 %\r20 %\x0b\x0c\n")
    assert line.text == "10 %\r20 %\x0b\x0c"


def test_a_line_may_hold_spaces_and_words_of_the_format() -> None:
    (line,) = parse(b"2026-11-23T20:35:39.505412335Z stdout F  stdout P x \n")
    assert line.text == " stdout P x "
