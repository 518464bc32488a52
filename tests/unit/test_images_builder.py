"""From packages to an image, with packages as small as they can be."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import random
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from cloudlab.errors import CloudlabError
from cloudlab.images import builder, find_recipe
from cloudlab.images.apt import Package
from cloudlab.images.builder import Built, build, busybox_applets
from cloudlab.images.debs import read_package

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".xz": lzma.compress,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    "": bytes,
}


def tar(files: dict[str, bytes | str | int]) -> bytes:
    """Bytes make a file (0755 in bin), text a symbolic link, "=path" a hard link, a number a directory of that mode."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(f"./{path}")
            member.uname, member.mtime = "builder", 1_700_000_000
            if isinstance(content, int):
                member.type, member.mode = tarfile.DIRTYPE, content
            elif isinstance(content, str):
                member.type = tarfile.LNKTYPE if content.startswith("=") else tarfile.SYMTYPE
                member.linkname = content.removeprefix("=")
            else:
                member.size, member.mode = len(content), 0o755 if "bin/" in path else 0o644
            archive.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()


def deb(path: Path, files: dict[str, bytes | str | int], suffix: str = ".xz") -> Path:
    """Write a package: an ar archive of three members, each at an even offset (deb(5))."""
    archive = b"!<arch>\n"
    members = {"debian-binary": b"2.0\n", "control.tar": tar({}), f"data.tar{suffix}": PACKERS[suffix](tar(files))}
    for name, data in members.items():
        archive += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
        )
    path.write_bytes(archive)
    return path


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_package_is_read_however_its_files_are_packed(tmp_path: Path, suffix: str) -> None:
    files = read_package(deb(tmp_path / "a.deb", {"usr/bin/a": b"program", "etc": 0o755, "etc/a.conf": b"x=1"}, suffix))
    assert {path: (oct(entry.mode), entry.data) for path, entry in files.items()} == {
        "usr/bin/a": ("0o100755", b"program"),
        "etc": ("0o40755", b""),
        "etc/a.conf": ("0o100644", b"x=1"),
    }


def test_links_of_both_kinds_are_read(tmp_path: Path) -> None:
    files = read_package(deb(tmp_path / "a.deb", {"bin/a": b"one", "bin/b": "=./bin/a", "sbin/c": "../bin/a"}))
    assert files["usr/bin/b"] == files["usr/bin/a"]
    assert files["usr/bin/c"].is_link


def test_a_link_from_sbin_to_the_same_program_in_bin_is_not_a_link_to_itself(tmp_path: Path) -> None:
    files = read_package(deb(tmp_path / "a.deb", {"usr/bin/x": b"program", "usr/sbin/x": "../bin/x"}))
    assert files["usr/bin/x"].is_file


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda data: data[:100], "no data.tar"),
        (lambda data: data[:-200], "damaged: it ends too early"),
        (lambda data: b"PK" + data, "damaged: no ar archive"),
        (lambda data: data[:-600] + bytes(80) + data[-520:], "damaged"),
        (lambda data: data.replace(b"data.tar.xz", b"nothing    "), "no data.tar"),
        (lambda _: b"", "damaged"),
    ],
)
def test_a_damaged_package_is_an_error_that_names_the_file(
    tmp_path: Path, damage: Callable[[bytes], bytes], complaint: str
) -> None:
    path = deb(tmp_path / "a.deb", {"usr/bin/a": random.Random(1).randbytes(5000)}, ".xz")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CloudlabError, match=complaint) as caught:
        read_package(path)
    assert "a.deb" in str(caught.value)


RECIPE = """
title = "small"
append = "quiet"
boot_modules = ["virtio_net", "?pvpanic"]
modules = ["overlay", "loop"]
[kernel]
debian = "linux-image-cloud-amd64"
[take]
busybox = ["busybox"]
tools = ["tool", "usr/lib/data/"]
[links]
"usr/bin/sh" = "tool"
"""
APPLETS = ["[", "[[", *sorted(f"applet{n:02}" for n in range(30)), "tool", "busybox"]
BUSYBOX = b"\x01\x02 " + b"".join(name.encode() + b"\0" for name in APPLETS) + b"\0more"


def bzimage(kernel: bytes) -> bytes:
    packed = zstandard.compress(kernel) + struct.pack("<I", len(kernel))
    image = bytearray(1024)
    image[0x1F1], image[0x1FE:0x200], image[0x202:0x206] = 1, b"\x55\xaa", b"HdrS"
    struct.pack_into("<II", image, 0x248, 0, len(packed))
    return bytes(image) + packed


def module(depends: str = "") -> bytes:
    return zstandard.compress(b"\x7fELF\0depends=" + depends.encode() + b"\0alias=x-y\0")


BASE = "lib/modules/6.8.0-1-generic"
KERNEL = {"boot/vmlinuz-6.8.0-1-generic": bzimage(b"\x7fELF kernel")}
MODULES = {
    f"{BASE}/kernel/virtio_net.ko.zst": module("failover"),
    f"{BASE}/kernel/failover.ko.zst": module(),
    f"{BASE}/kernel/overlay.ko.zst": module(),
    f"{BASE}/modules.builtin": b"kernel/drivers/block/loop.ko\n",
}
PACKAGES: dict[str, dict[str, bytes | str | int]] = {
    "busybox": {"bin/busybox": BUSYBOX},
    "tools": {"usr/bin/tool": b"tool", "usr/lib/data/one": b"1", "usr/share/doc/tools": b"words"},
    "libunused1": {"usr/lib/x86_64-linux-gnu/libunused.so.1": b"library"},
    "same": {"usr/bin/tool": b"another package's"},
}
DEBIAN = {**PACKAGES, "linux-image-6.8.0-1-generic": {**KERNEL, **MODULES}}
UBUNTU = {
    **PACKAGES,
    "linux-image-virtual": {"usr/share/doc/linux-image-virtual": b"words"},
    "linux-image-6.8.0-1-generic": dict(KERNEL),
    "linux-modules-6.8.0-1-generic": dict(MODULES),
}


@pytest.fixture
def recipe_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    monkeypatch.setenv("CLOUDLAB_RECIPES", str(tmp_path / "recipes"))
    monkeypatch.setattr(builder, "compile_static", lambda source, _: b"compiled " + source.read_bytes())
    files = tmp_path / "recipes" / "small" / "files"
    (files / "etc").mkdir(parents=True)
    (files / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (files / "init").write_text("#!/bin/sh\n")
    (files / "init").chmod(0o700)
    (files.parent / "agent.c").write_text("int main;")

    def write(text: str) -> None:
        (files.parent / "recipe.toml").write_text(text)

    write(RECIPE)
    return write


@pytest.fixture
def make(tmp_path: Path, recipe_text: Callable[[str], None]) -> Callable[..., Built]:
    def made(contents: dict[str, dict[str, bytes | str | int]], order: int = 0) -> Built:
        packages = {}
        for name, files in contents.items():
            path = deb(tmp_path / f"{name}.deb", files, ".zst")
            packages[Package(name, "1", hashlib.sha256(path.read_bytes()).hexdigest())] = path
        shuffled = random.Random(order).sample(sorted(packages), len(packages))
        return build(find_recipe("small"), {package: packages[package] for package in shuffled}, tmp_path)

    return made


def cpio(built: Built) -> bytes:
    out = io.BytesIO()
    built.root.write_cpio(out)
    return out.getvalue()


@pytest.mark.parametrize("contents", [DEBIAN, UBUNTU], ids=["Debian", "Ubuntu"])
def test_an_image_is_a_kernel_and_a_root_with_what_the_recipe_takes(
    make: Callable[..., Built], contents: dict[str, dict[str, bytes | str | int]]
) -> None:
    built = make(contents)
    text = {path: entry.data.decode(errors="replace") for path, entry in built.root.items()}
    assert built.vmlinux == b"\x7fELF kernel"
    assert built.release == "6.8.0-1-generic"
    assert text["usr/bin/tool"] == "tool"
    assert text["usr/lib/data/one"] == "1"
    assert text["usr/libexec/cloudlab-agent"] == "compiled int main;"
    assert text["etc/hosts"] == "127.0.0.1 localhost\n"
    assert text["etc/boot-modules"] == "failover\nvirtio_net\n"
    assert "usr/lib/modules/6.8.0-1-generic/kernel/overlay.ko" in built.root
    assert oct(built.root["init"].mode) == oct(built.root["usr/libexec/cloudlab-agent"].mode) == "0o100755"
    assert "usr/share/doc/tools" not in built.root
    assert built.absent == []


def test_the_record_names_only_packages_that_gave_something(make: Callable[..., Built]) -> None:
    assert [package.name for package in make(UBUNTU).used] == [
        "busybox",
        "linux-image-6.8.0-1-generic",
        "linux-modules-6.8.0-1-generic",
        "tools",
    ]


def test_busybox_stands_in_for_every_program_that_is_not_taken(make: Callable[..., Built]) -> None:
    root = make(DEBIAN).root
    assert root["usr/bin/applet07"].data == b"busybox"
    assert root["usr/bin/sh"].data == b"tool"
    assert root["usr/bin/tool"].is_file


def test_busybox_tells_its_applets_without_being_run() -> None:
    assert busybox_applets(BUSYBOX) == [name for name in APPLETS if name != "busybox"]
    with pytest.raises(CloudlabError, match="no list of applets"):
        busybox_applets(b"\x7fELF[\0[[\0")


ROOT = """
title = "a root"
[take]
busybox = ["busybox"]
tools = ["usr/lib/data/"]
certificates = ["usr/share/certificates/*.crt"]
[joined]
"etc/all.crt" = ["usr/share/certificates/*.crt"]
"""
CERTIFICATES: dict[str, bytes | str | int] = {
    f"usr/share/certificates/{name}.crt": f"{name}\n".encode() for name in "bca"
}


def tar_of(built: Built) -> bytes:
    out = io.BytesIO()
    built.root.write_tar(out)
    return out.getvalue()


def test_a_root_for_containers_has_no_kernel_and_no_program_of_ours(
    make: Callable[..., Built], recipe_text: Callable[[str], None], tmp_path: Path
) -> None:
    recipe_text(ROOT)
    (tmp_path / "recipes/small/agent.c").unlink()
    built = make({**DEBIAN, "certificates": CERTIFICATES})
    assert (built.vmlinux, built.release, built.absent) == (b"", "", [])
    assert [package.name for package in built.used] == ["busybox", "certificates", "tools"]
    assert not any(
        path.startswith(("usr/lib/modules", "usr/libexec", "home/student", "etc/boot")) for path in built.root
    )
    assert built.root["usr/bin/tool"].data == b"busybox"
    assert oct(built.root["tmp"].mode) == "0o41777"
    assert {"dev", "proc", "sys", "root", "home", "usr/lib", "etc/hosts"} <= set(built.root)


def test_files_are_joined_in_order_and_do_not_stay(
    make: Callable[..., Built], recipe_text: Callable[[str], None]
) -> None:
    recipe_text(ROOT)
    root = make({**PACKAGES, "certificates": CERTIFICATES}).root
    assert root["etc/all.crt"].data == b"a\nb\nc\n"
    assert not any(path.startswith("usr/share/certificates") for path in root)


def test_what_there_is_nothing_to_join_for_is_told(
    make: Callable[..., Built], recipe_text: Callable[[str], None]
) -> None:
    recipe_text(ROOT.replace('["usr/share/certificates/*.crt"]\n[joined]', '["?usr/share/x"]\n[joined]'))
    absent = make({**PACKAGES, "certificates": CERTIFICATES}).absent
    assert absent == ["there is no file 'usr/share/certificates/*.crt' to make etc/all.crt of"]


def test_a_root_for_containers_is_the_same_bytes_in_whatever_order_its_packages_come(
    make: Callable[..., Built], recipe_text: Callable[[str], None]
) -> None:
    recipe_text(ROOT)
    packages = {**PACKAGES, "certificates": CERTIFICATES}
    assert {tar_of(make(packages, order)) for order in range(4)} == {tar_of(make(packages))}


def test_the_same_packages_give_the_same_bytes_in_whatever_order_they_come(make: Callable[..., Built]) -> None:
    first = make(DEBIAN)
    for order in range(1, 4):
        again = make(DEBIAN, order)
        assert (again.vmlinux, cpio(again), again.used) == (first.vmlinux, cpio(first), first.used)


def test_what_the_packages_do_not_have_is_told(make: Callable[..., Built], recipe_text: Callable[[str], None]) -> None:
    changed = RECIPE.replace('"tool",', '"tool", "route",').replace('"overlay",', '"overlay", "squashfs",')
    recipe_text(changed.replace("[links]", 'gone = ["nothing", "?maybe"]\n[links]'))
    assert make(DEBIAN).absent == [
        "tools has no file 'route'",
        "gone has no file 'nothing'",
        "this kernel has no module 'squashfs'",
    ]


def test_no_image_can_do_without_its_boot_modules(
    make: Callable[..., Built], recipe_text: Callable[[str], None]
) -> None:
    recipe_text(RECIPE.replace("?pvpanic", "pvpanic"))
    with pytest.raises(CloudlabError, match="no module 'pvpanic'"):
        make(DEBIAN)


def test_no_image_can_do_without_a_kernel(make: Callable[..., Built]) -> None:
    with pytest.raises(CloudlabError, match="no package brought a kernel"):
        make(PACKAGES)
