"""The kernel out of a bzImage, and modules with all they need."""

from __future__ import annotations

import gzip
import lzma
import struct
from collections.abc import Callable

import lz4.block
import pytest
import zstandard

from cloudlab.errors import CloudlabError
from cloudlab.images.kernel import Modules, extract_vmlinux
from cloudlab.images.tree import Tree

ELF = b"\x7fELF" + bytes(range(256)) * 100


def bzimage(packed: bytes, *, setup_sectors: int = 3, offset: int = 64) -> bytes:
    """A boot sector with a setup header, some setup code, and the packed kernel, as boot.rst has it."""
    image = bytearray((setup_sectors + 1) * 512 + offset)
    image[0x1F1], image[0x1FE:0x200], image[0x202:0x206] = setup_sectors, b"\x55\xaa", b"HdrS"
    struct.pack_into("<II", image, 0x248, offset, len(packed))
    return bytes(image) + packed + b"a signature of whoever built it"


def lz4_legacy(data: bytes) -> bytes:
    packed = lz4.block.compress(data, store_size=False)
    return b"\x02\x21\x4c\x18" + struct.pack("<I", len(packed)) + packed


@pytest.mark.parametrize("pack", [lz4_legacy, zstandard.compress, lzma.compress], ids=["lz4", "zstd", "xz"])
def test_the_kernel_is_unpacked_however_it_was_packed(pack: Callable[[bytes], bytes]) -> None:
    assert extract_vmlinux(bzimage(pack(ELF) + struct.pack("<I", len(ELF)))) == ELF


def test_gzip_has_the_size_at_its_end_itself() -> None:
    assert extract_vmlinux(bzimage(gzip.compress(ELF))) == ELF


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (b"", "not a bzImage"),
        (ELF * 4, "not a bzImage"),
        (bzimage(b"\x89LZO..."), "unknown way"),
        (bzimage(gzip.compress(ELF)[:-30]), "early"),
        (bzimage(gzip.compress(b"no program")), "not an ELF"),
    ],
)
def test_what_is_no_kernel_is_refused_with_a_reason(image: bytes, complaint: str) -> None:
    with pytest.raises(CloudlabError, match=complaint):
        extract_vmlinux(image)


def module(*needs: str, alias: tuple[str, ...] = ()) -> bytes:
    """What modprobe reads of a module: the strings in its section .modinfo."""
    info = [f"depends={','.join(needs)}", *(f"alias={word}" for word in alias), "license=GPL"]
    return b"\x7fELF\0" + b"\0".join(word.encode() for word in info) + b"\0"


def kernel_files(suffix: str = "", pack: Callable[[bytes], bytes] = bytes) -> Tree:
    files, base = Tree(), "usr/lib/modules/6.8.0-1-generic"
    for path, content in {
        "net/netfilter/nf_tables.ko": module("libcrc32c", "nfnetlink", alias=("nfnetlink-subsys-10",)),
        "net/netfilter/nfnetlink.ko": module(),
        "lib/libcrc32c.ko": module(),
        "net/netfilter/nft-masq.ko": module("nf_tables", alias=("nft-expr-masq", "a-b")),
        "drivers/net/broken.ko": module("not_here"),
    }.items():
        files.add_file(f"{base}/kernel/{path}{suffix}", pack(content))
    files.add_file(f"{base}/modules.builtin", "kernel/drivers/virtio/virtio_pci.ko\nkernel/fs/ext4/ext4.ko\n")
    files.add_file(f"{base}/modules.order", "kernel/lib/libcrc32c.ko\n")
    return files


def test_what_a_module_needs_is_loaded_before_it() -> None:
    order = Modules(kernel_files()).closure(["nft_masq"])
    assert order == ["libcrc32c", "nfnetlink", "nf_tables", "nft_masq"]


def test_what_is_built_into_the_kernel_counts_as_there() -> None:
    assert Modules(kernel_files()).closure(["virtio-pci", "ext4", "?ext4"]) == []


def test_a_question_mark_lets_a_module_be_absent() -> None:
    assert Modules(kernel_files()).closure(["?pvpanic", "?nfnetlink"]) == ["nfnetlink"]


@pytest.mark.parametrize("name", ["pvpanic", "broken"])
def test_without_it_an_absent_module_or_need_is_an_error(name: str) -> None:
    with pytest.raises(CloudlabError, match=r"no module '(pvpanic|not_here)'"):
        Modules(kernel_files()).closure([name])


def test_the_release_is_what_uname_says() -> None:
    assert Modules(kernel_files()).release == "6.8.0-1-generic"


@pytest.mark.parametrize(
    ("suffix", "pack"), [("", bytes), (".xz", lzma.compress), (".zst", zstandard.compress), (".gz", gzip.compress)]
)
def test_the_guest_gets_modules_unpacked_with_the_tables_of_modprobe(
    suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    root, base = Tree(), "usr/lib/modules/6.8.0-1-generic"
    Modules(kernel_files(suffix, pack)).add_to(root, ["nft_masq"])
    masq, tables = "kernel/net/netfilter/nft-masq.ko", "kernel/net/netfilter/nf_tables.ko"
    assert root[f"{base}/{masq}"].data == module("nf_tables", alias=("nft-expr-masq", "a-b"))
    assert root[f"{base}/modules.dep"].data.decode().splitlines() == [
        "kernel/lib/libcrc32c.ko:",
        "kernel/net/netfilter/nfnetlink.ko:",
        f"{tables}: kernel/net/netfilter/nfnetlink.ko kernel/lib/libcrc32c.ko",
        f"{masq}: {tables} kernel/net/netfilter/nfnetlink.ko kernel/lib/libcrc32c.ko",
    ]
    assert root[f"{base}/modules.alias"].data.decode().splitlines() == [
        "alias a-b nft_masq",
        "alias nfnetlink-subsys-10 nf_tables",
        "alias nft-expr-masq nft_masq",
    ]
    assert f"{base}/modules.builtin" in root
    assert f"{base}/{masq}{suffix}" in root or suffix
    assert f"{base}/kernel/drivers/net/broken.ko" not in root


def test_a_package_without_modules_is_refused() -> None:
    with pytest.raises(CloudlabError, match="no modules"):
        Modules(Tree())
