"""The kernel: unpack bzImage to the ELF file that QEMU starts directly; pick modules with all they need."""

from __future__ import annotations

import posixpath
import re
import struct
from collections.abc import Iterable

from cloudlab.errors import CloudlabError
from cloudlab.images.packed import unpack
from cloudlab.images.tree import Entry, Tree


def extract_vmlinux(bzimage: bytes) -> bytes:
    """Unpack the kernel in a bzImage, so that the guest need not do it at each boot (0.4 s when emulated).

    The setup header says where the packed kernel lies: payload_offset and payload_length at 0x248
    (Linux, Documentation/arch/x86/boot.rst).
    """
    if bzimage[0x1FE:0x200] != b"\x55\xaa" or bzimage[0x202:0x206] != b"HdrS":
        raise CloudlabError("this kernel is not a bzImage: no boot sector with a setup header")
    setup_sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    try:
        kernel = unpack(bzimage[start : start + length])
    except ValueError as error:
        raise CloudlabError(f"this kernel can't be unpacked: {error}") from error
    if kernel[:4] != b"\x7fELF":
        raise CloudlabError("the unpacked kernel is not an ELF file")
    return kernel


class Modules:
    """The modules of one kernel, and which of them to take.

    A module is named as `modprobe` names it: `nf_tables`; a leading ? lets it be absent. What is built
    into the kernel (modules.builtin) counts as there. Raises `CloudlabError` if there are no modules.
    """

    def __init__(self, files: Tree) -> None:
        self.path_of = {_name(path): path for path in sorted(files) if re.search(r"\.ko(\.\w+)?$", path)}
        if not self.path_of:
            raise CloudlabError("the kernel package holds no modules")
        first = next(iter(self.path_of.values()))
        self.directory = first[: first.index("/kernel/")]
        self._files = files
        listing = files.get(f"{self.directory}/modules.builtin", Entry(0)).data.decode()
        self.builtin = {_name(line) for line in listing.split()}
        self._content: dict[str, bytes] = {}

    @property
    def release(self) -> str:
        """What `uname -r` says when this kernel runs."""
        return posixpath.basename(self.directory)

    def content(self, name: str) -> bytes:
        """Return the module as the kernel loads it: unpacked."""
        if name not in self._content:
            path = self.path_of[name]
            data = self._files[path].data
            self._content[name] = data if path.endswith(".ko") else unpack(data)
        return self._content[name]

    def needs(self, name: str) -> list[str]:
        """Return the modules that `name` says it depends on."""
        match = re.search(rb"\0depends=([^\0]*)", self.content(name))
        return [_name(word) for word in match[1].decode().split(",") if word] if match else []

    def closure(self, names: Iterable[str]) -> list[str]:
        """Return `names` and all they need, in an order in which they can be loaded.

        Raises `CloudlabError` for a module that this kernel does not have.
        """
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

    def guest_path(self, name: str) -> str:
        """Return where the module lies in the guest: unpacked, so that busybox's insmod can load it too."""
        return re.sub(r"\.ko\.\w+$", ".ko", self.path_of[name])

    def add_to(self, tree: Tree, names: Iterable[str]) -> None:
        """Put modules and all they need into `tree`, with the tables that modprobe reads.

        Tables as depmod(8) writes them; modprobe loads a line of modules.dep from its end.
        """
        dependencies, aliases = [], set()
        for name in self.closure(names):
            tree.add_file(self.guest_path(name), self.content(name))
            needed = [self._in_table(other) for other in reversed(self.closure([name])[:-1])]
            dependencies.append(f"{self._in_table(name)}: {' '.join(needed)}".rstrip())
            for alias in re.findall(rb"\0alias=([^\0]+)", self.content(name)):
                aliases.add(f"alias {alias.decode()} {name}")
        tree.add_file(f"{self.directory}/modules.dep", _lines(dependencies))
        tree.add_file(f"{self.directory}/modules.alias", _lines(sorted(aliases)))
        for table in ("modules.builtin", "modules.order"):
            if f"{self.directory}/{table}" in self._files:
                tree[f"{self.directory}/{table}"] = self._files[f"{self.directory}/{table}"]

    def _in_table(self, name: str) -> str:
        return self.guest_path(name).removeprefix(self.directory + "/")


def _name(path: str) -> str:
    return re.sub(r"\.ko(\.\w+)?$", "", posixpath.basename(path)).replace("-", "_")


def _lines(words: Iterable[str]) -> str:
    return "".join(word + "\n" for word in words)
