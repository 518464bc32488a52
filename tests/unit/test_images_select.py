"""Choosing programs by patterns, and the closure of what they need to run."""

from __future__ import annotations

import struct

import pytest

from cloudlab.errors import CloudlabError
from cloudlab.images.select import closure, match, needed
from cloudlab.images.tree import Tree

LIB = "usr/lib/x86_64-linux-gnu"


def elf(*libraries: str, loader: str = "") -> bytes:
    """The smallest ELF file with PT_INTERP and DT_NEEDED (elf(5)): header, three segments, strings, dynamic section."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in libraries)
    offsets = [strings.index(b"\0" + name.encode() + b"\0") + 1 for name in libraries]
    interp_at = 64 + 3 * 56
    strings_at = interp_at + len(loader) + 1
    dynamic_at = strings_at + len(strings)
    entries = [(1, offset) for offset in offsets] + [(5, strings_at), (10, len(strings)), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    size = dynamic_at + len(dynamic)

    def segment(kind: int, at: int, length: int) -> bytes:
        return struct.pack("<IIQQQQQQ", kind, 4, at, at, at, length, length, 1)

    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 3, 64, 0, 0)
    segments = segment(1, 0, size) + segment(2, dynamic_at, len(dynamic))
    segments += segment(3 if loader else 6, interp_at, len(loader) + 1)
    return header + segments + loader.encode() + b"\0" + strings + dynamic


def tree(**files: bytes) -> Tree:
    made = Tree()
    for path, data in files.items():
        made.add_file(path, data, 0o755)
    return made


FILES = tree(
    **{
        "usr/bin/ip": elf("libmnl.so.0", "libc.so.6", loader="/lib64/ld-linux-x86-64.so.2"),
        "usr/bin/iptables-save": b"#!/bin/sh",
        "usr/bin/iptables": b"#!/bin/sh",
        "usr/bin/static": elf(),
        f"{LIB}/libmnl.so.0.2": elf("libc.so.6"),
        f"{LIB}/libc.so.6": elf(),
        f"{LIB}/ld-linux-x86-64.so.2": elf(),
        f"{LIB}/libgcc_s.so.1": elf("libc.so.6"),
        f"{LIB}/private/libmnl.so.0": elf(),
        "usr/lib/tc/netem.dist": b"numbers",
        "usr/lib/tc/deep/er": b"numbers",
    }
)
FILES.add_link(f"{LIB}/libmnl.so.0", "libmnl.so.0.2")
FILES.add_link("usr/lib64/ld-linux-x86-64.so.2", "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")


def test_the_synthetic_program_names_what_it_was_told() -> None:
    assert needed(FILES["usr/bin/ip"].data) == ["libmnl.so.0", "libc.so.6", "/lib64/ld-linux-x86-64.so.2"]


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("ip", ["usr/bin/ip"]),
        ("iptables*", ["usr/bin/iptables", "usr/bin/iptables-save"]),
        ("sbin/ip", ["usr/bin/ip"]),
        ("usr/lib/tc/", ["usr/lib/tc/deep/er", "usr/lib/tc/netem.dist"]),
        ("usr/lib/tc", ["usr/lib/tc/deep/er", "usr/lib/tc/netem.dist"]),
        ("lib/*/libc.so.6", [f"{LIB}/libc.so.6"]),
        ("?nothing", []),
    ],
)
def test_a_bare_word_is_a_program_and_anything_with_a_slash_a_path(pattern: str, paths: list[str]) -> None:
    assert match(FILES, [pattern]) == (paths, [])


def test_a_pattern_that_nothing_fits_is_told() -> None:
    assert match(FILES, ["ip", "route", "etc/*.conf"]) == (["usr/bin/ip"], ["route", "etc/*.conf"])


def test_a_program_brings_its_loader_its_libraries_and_their_links() -> None:
    taken, absent = closure(FILES, ["usr/bin/ip"])
    assert set(taken) == {
        "usr/bin/ip",
        f"{LIB}/libmnl.so.0",
        f"{LIB}/libmnl.so.0.2",
        f"{LIB}/libc.so.6",
        f"{LIB}/libgcc_s.so.1",  # named by no file: glibc opens it when a thread is cancelled
        "usr/lib64/ld-linux-x86-64.so.2",
        f"{LIB}/ld-linux-x86-64.so.2",
    }
    assert absent == []


def test_of_two_libraries_of_one_name_the_public_one_is_taken() -> None:
    assert f"{LIB}/private/libmnl.so.0" not in closure(FILES, ["usr/bin/ip"])[0]


def test_a_library_that_no_package_brought_is_told() -> None:
    files = tree(**{"usr/bin/curl": elf("libcurl.so.4")})
    assert closure(files, ["usr/bin/curl"])[1] == ["usr/bin/curl needs libcurl.so.4"]


def test_a_damaged_program_is_an_error_that_names_it() -> None:
    with pytest.raises(CloudlabError, match="usr/bin/bad is not a whole ELF file"):
        closure(tree(**{"usr/bin/bad": b"\x7fELF\x09\x09"}), ["usr/bin/bad"])
