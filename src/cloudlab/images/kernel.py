"""The kernel: unpack bzImage to the ELF file that QEMU can start directly, and pick modules with what they need."""

from __future__ import annotations

import bz2
import gzip
import lzma
import posixpath
import re
import struct
from collections.abc import Callable, Iterable

import lz4.block
import zstandard

from cloudlab.errors import CloudlabError
from cloudlab.images.tree import Entry, Tree


def extract_vmlinux(bzimage: bytes) -> bytes:
    """Unpack the kernel inside a bzImage, so that the guest need not do it at each boot (0.4 s under emulation).

    The setup header says where the packed kernel lies: payload_offset and payload_length at 0x248
    (Linux, Documentation/arch/x86/boot.rst). Its last four bytes are the unpacked size.
    """
    if bzimage[0x202:0x206] != b"HdrS" and bzimage[0x1FE:0x200] != b"\x55\xaa":
        raise CloudlabError("this kernel is not a bzImage: no boot sector signature")
    setup_sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    packed = bzimage[start : start + length - 4]
    for magic, unpack in _UNPACKERS.items():
        if packed.startswith(magic):
            kernel = unpack(packed)
            if kernel[:4] != b"\x7fELF":
                raise CloudlabError("the unpacked kernel is not an ELF file")
            return kernel
    raise CloudlabError(f"this kernel is packed in an unknown way: it starts with {packed[:6].hex()}")


def _lz4_legacy(packed: bytes) -> bytes:
    """A magic number, then blocks of up to 8 MiB, each behind its packed size (lz4_Frame_format.md, legacy)."""
    blocks, at = [], 4
    while at + 4 <= len(packed):
        (size,) = struct.unpack_from("<I", packed, at)
        blocks.append(lz4.block.decompress(packed[at + 4 : at + 4 + size], uncompressed_size=8 << 20))
        at += 4 + size
    return b"".join(blocks)


_UNPACKERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x02\x21\x4c\x18": _lz4_legacy,
    b"\x28\xb5\x2f\xfd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
    b"\x1f\x8b": gzip.decompress,
    b"\xfd7zXZ": lzma.decompress,
    b"\x5d\x00\x00": lzma.decompress,
    b"BZh": bz2.decompress,
}


class Modules:
    """The modules of one kernel package, and which of them to take."""

    def __init__(self, files: Tree) -> None:
        self.path_of = {_name(path): path for path in files if re.search(r"\.ko(\.(xz|zst|gz))?$", path)}
        if not self.path_of:
            raise CloudlabError("the kernel package holds no modules")
        self._files = files
        first = next(iter(self.path_of.values()))
        self.directory = first[: first.index("/kernel/")]
        self.builtin = self._builtin()
        self._content: dict[str, bytes] = {}

    def _builtin(self) -> set[str]:
        listing = self._files.get(f"{self.directory}/modules.builtin", Entry(0)).data.decode()
        return {_name(line) for line in listing.split()}

    def content(self, name: str) -> bytes:
        """Return the module as the kernel loads it: unpacked."""
        if name not in self._content:
            path = self.path_of[name]
            self._content[name] = _unpack_module(path, self._files[path].data)
        return self._content[name]

    def needs(self, name: str) -> list[str]:
        """Return the modules that `name` says it depends on."""
        match = re.search(rb"\0depends=([^\0]*)", self.content(name))
        return [_name(word) for word in match[1].decode().split(",") if word] if match else []

    def closure(self, names: Iterable[str]) -> list[str]:
        """Return `names` and all they need, in an order in which they can be loaded."""
        order: list[str] = []

        def visit(name: str) -> None:
            if name in order or name in self.builtin:
                return
            if name not in self.path_of:
                raise CloudlabError(f"this kernel has no module {name!r}")
            for needed in self.needs(name):
                visit(needed)
            order.append(name)

        for wanted in names:
            optional, name = wanted.startswith("?"), _name(wanted.lstrip("?"))
            if not (optional and name not in self.path_of):
                visit(name)
        return order

    def add_to(self, tree: Tree, names: Iterable[str]) -> list[str]:
        """Put modules into `tree` with the tables that modprobe reads; returns their paths in loading order.

        Tables as depmod(8) writes them; modprobe loads a line of modules.dep from its end.
        """
        order = self.closure(names)
        dep, alias = [], []
        for name in order:
            tree.add_file(self._guest_path(name), self.content(name))
            needed = [self._relative(other) for other in reversed(self.closure([name])[:-1])]
            dep.append(f"{self._relative(name)}: {' '.join(needed)}".rstrip())
            for found in re.findall(rb"\0alias=([^\0]+)", self.content(name)):
                alias.append(f"alias {found.decode()} {name}")
        tree.add_file(f"{self.directory}/modules.dep", "\n".join(dep) + "\n")
        tree.add_file(f"{self.directory}/modules.alias", "\n".join(sorted(set(alias))) + "\n")
        for table in ("modules.builtin", "modules.order"):
            if f"{self.directory}/{table}" in self._files:
                tree[f"{self.directory}/{table}"] = self._files[f"{self.directory}/{table}"]
        return ["/" + self._guest_path(name) for name in order]

    def _guest_path(self, name: str) -> str:
        return re.sub(r"\.ko\.\w+$", ".ko", self.path_of[name])

    def _relative(self, name: str) -> str:
        return self._guest_path(name)[len(self.directory) + 1 :]


def _name(path: str) -> str:
    return re.sub(r"\.ko(\.\w+)?$", "", posixpath.basename(path)).replace("-", "_")


def _unpack_module(path: str, data: bytes) -> bytes:
    if path.endswith(".xz"):
        return lzma.decompress(data)
    if path.endswith(".zst"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return gzip.decompress(data) if path.endswith(".gz") else data
