"""What packages and kernels are packed with is known by its first bytes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable

import lz4.block
import pytest
import zstandard

from cloudlab.images.packed import unpack

PLAIN = b"\x7fELF" + bytes(range(256)) * 400


def lz4_legacy(data: bytes) -> bytes:
    packed = lz4.block.compress(data, store_size=False)
    return b"\x02\x21\x4c\x18" + struct.pack("<I", len(packed)) + packed


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstandard.ZstdCompressor().compress,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "lz4": lz4_legacy,
}


@pytest.mark.parametrize("kind", PACKERS)
def test_each_kind_is_unpacked(kind: str) -> None:
    assert unpack(PACKERS[kind](PLAIN)) == PLAIN


@pytest.mark.parametrize("kind", PACKERS)
def test_the_size_that_a_kernel_appends_is_left_alone(kind: str) -> None:
    assert unpack(PACKERS[kind](PLAIN) + struct.pack("<I", len(PLAIN))) == PLAIN


@pytest.mark.parametrize("kind", ["zstd", "gzip", "xz", "bzip2"])
def test_streams_behind_each_other_count_as_one(kind: str) -> None:
    assert unpack(PACKERS[kind](PLAIN[:99]) + PACKERS[kind](PLAIN[99:])) == PLAIN


def test_lz4_has_as_many_blocks_as_it_takes() -> None:
    assert unpack(lz4_legacy(PLAIN) + lz4_legacy(PLAIN)[4:]) == PLAIN + PLAIN


@pytest.mark.parametrize("kind", PACKERS)
def test_what_is_cut_short_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"early|damaged"):
        unpack(PACKERS[kind](PLAIN)[:-20])


@pytest.mark.parametrize("kind", ["zstd", "gzip", "xz", "bzip2"])
def test_what_is_damaged_is_refused(kind: str) -> None:
    packed = bytearray(PACKERS[kind](PLAIN))
    for at in range(8, 24):
        packed[at] ^= 0xFF
    with pytest.raises(ValueError, match=r"early|damaged"):
        unpack(bytes(packed))


def test_an_unknown_kind_is_refused_with_its_first_bytes() -> None:
    with pytest.raises(ValueError, match="unknown way: it starts with 6e6f7468696e"):
        unpack(b"nothing of the sort")
