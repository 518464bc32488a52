"""Unpack what packages and kernels are packed with; the first bytes say how (magic(5))."""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Any

import lz4.block
import zstandard

_LZ4_LEGACY = b"\x02\x21\x4c\x18"
_STREAMS: dict[bytes, Callable[[], Any]] = {  # each makes an object as zlib.decompressobj does
    b"\x28\xb5\x2f\xfd": lambda: zstandard.ZstdDecompressor().decompressobj(),
    b"\x1f\x8b": lambda: zlib.decompressobj(wbits=31),
    b"\xfd7zXZ": lzma.LZMADecompressor,
    b"\x5d\x00\x00": lzma.LZMADecompressor,
    b"BZh": bz2.BZ2Decompressor,
}


def unpack(data: bytes) -> bytes:
    """Unpack zstd, gzip, xz, lzma, bzip2 or lz4 (legacy); what follows the packed data is left alone.

    Raises `ValueError` if it is damaged, cut short or packed in an unknown way.
    """
    try:
        if data.startswith(_LZ4_LEGACY):
            return _unpack_lz4(data)
        for magic, decompressor in _STREAMS.items():
            if data.startswith(magic):
                return _unpack_streams(data, magic, decompressor)
    except (zlib.error, lzma.LZMAError, zstandard.ZstdError, lz4.block.LZ4BlockError, OSError) as error:
        raise ValueError(f"the packed data is damaged: {error}") from error
    raise ValueError(f"packed in an unknown way: it starts with {data[:6].hex()}")


def _unpack_streams(data: bytes, magic: bytes, decompressor: Callable[[], Any]) -> bytes:
    """Several streams behind each other count as one, as the command line tools have it."""
    parts = []
    while data.startswith(magic):
        stream = decompressor()
        parts.append(stream.decompress(data))
        if not stream.eof:
            raise ValueError("the packed data ends too early")
        data = stream.unused_data
    return b"".join(parts)


def _unpack_lz4(data: bytes) -> bytes:
    """A magic number, then blocks of up to 8 MiB, each behind its packed size (lz4_Frame_format.md, legacy).

    A kernel adds the unpacked size, 4 bytes that are no block (Linux, lib/decompress_unlz4.c).
    """
    blocks, at = [], 4
    while at + 4 < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        if at + 4 + size > len(data):
            raise ValueError("the packed data ends too early")
        blocks.append(lz4.block.decompress(data[at + 4 : at + 4 + size], uncompressed_size=8 << 20))
        at += 4 + size
    return b"".join(blocks)
