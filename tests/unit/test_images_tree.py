"""A tree of files in memory, and the cpio archive that a kernel unpacks as its first root file system."""

from __future__ import annotations

import io
import stat
import tarfile

import pytest

from cloudlab.images.tree import Tree, normal


def cpio(tree: Tree) -> bytes:
    out = io.BytesIO()
    tree.write_cpio(out)
    return out.getvalue()


NUMBERS = (
    *("ino", "mode", "uid", "gid", "nlink", "mtime", "size"),
    *("devmajor", "devminor", "rdevmajor", "rdevminor", "namesize", "check"),
)


def listing(archive: bytes) -> dict[str, tuple[int, bytes, dict[str, int]]]:
    """Read a newc archive as the kernel does (init/initramfs.c): a header of 13 numbers in hexadecimal, name, data."""
    found, at = {}, 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = {name: int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n, name in enumerate(NUMBERS)}
        name = archive[at + 110 : at + 110 + fields["namesize"] - 1].decode()
        data_at = at + (110 + fields["namesize"] + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (fields["mode"], archive[data_at : data_at + fields["size"]], fields)
        at = data_at + (fields["size"] + 3) // 4 * 4


@pytest.mark.parametrize(
    ("path", "in_the_guest"),
    [
        ("./bin/ls", "usr/bin/ls"),
        ("/sbin/ip", "usr/bin/ip"),
        ("usr/sbin/ip", "usr/bin/ip"),
        ("lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/libc.so.6"),
        ("lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"),
        ("./", ""),
        ("usr/share/../bin/a", "usr/bin/a"),
        ("../../etc/passwd", "etc/passwd"),
        ("library/book", "library/book"),
    ],
)
def test_paths_are_named_as_in_the_guest_where_bin_and_lib_are_merged_into_usr(path: str, in_the_guest: str) -> None:
    assert normal(path) == in_the_guest


def test_the_archive_holds_files_links_and_directories_with_their_modes() -> None:
    tree = Tree()
    tree.add_file("usr/bin/tool", b"\x7fELF", 0o4755)
    tree.add_file("etc/名", "text ü")
    tree.add_link("usr/bin/sh", "tool")
    tree.add_directory("tmp", 0o1777)
    found = listing(cpio(tree))
    assert found["usr/bin/tool"][:2] == (stat.S_IFREG | 0o4755, b"\x7fELF")
    assert found["etc/名"][:2] == (stat.S_IFREG | 0o644, "text ü".encode())
    assert found["usr/bin/sh"][:2] == (stat.S_IFLNK | 0o777, b"tool")
    assert found["tmp"][:2] == (stat.S_IFDIR | 0o1777, b"")


def test_parents_that_nobody_named_stand_before_their_children() -> None:
    tree = Tree()
    tree.add_file("a/b/c", b"")
    tree.add_file("a-b", b"")
    names = list(listing(cpio(tree)))
    assert names == ["a", "a-b", "a/b", "a/b/c"]
    assert listing(cpio(tree))["a/b"][0] == stat.S_IFDIR | 0o755


def test_everything_belongs_to_root_and_carries_no_time() -> None:
    tree = Tree()
    tree.add_file("a", b"1")
    for _, _, fields in listing(cpio(tree)).values():
        assert (fields["uid"], fields["gid"], fields["mtime"]) == (0, 0, 0)


def test_equal_trees_are_equal_bytes_in_whatever_order_they_were_filled() -> None:
    one, other = Tree(), Tree()
    for name in ("x", "y/z", "w"):
        one.add_file(name, name)
    for name in ("w", "y/z", "x"):
        other.add_file(name, name)
    assert cpio(one) == cpio(other)


def test_the_archive_ends_at_a_block_of_512_bytes() -> None:
    tree = Tree()
    tree.add_file("a", b"12345")
    assert len(cpio(tree)) % 512 == 0


def test_a_link_leads_to_a_path_of_the_same_tree() -> None:
    tree = Tree()
    tree.add_link("usr/lib/a.so", "a.so.1")
    tree.add_link("usr/bin/x", "/sbin/y")
    tree.add_link("usr/lib64/l", "../../lib/l")
    assert [tree.target(path) for path in tree] == ["usr/lib/a.so.1", "usr/bin/y", "usr/lib/l"]


def test_a_tar_archive_has_the_whole_tree_sorted_of_root_and_without_time() -> None:
    tree, out = Tree(), io.BytesIO()
    tree.add_file("usr/bin/b", b"program", 0o4755)
    tree.add_link("usr/bin/a", "b" * 200)
    tree.add_directory("tmp", 0o1777)
    tree.add_file("etc/" + "n" * 300, "é", 0o600)
    tree.write_tar(out)
    assert out.getvalue()[-1024:] == bytes(1024)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        members = archive.getmembers()
        assert {(each.uid, each.gid, each.uname, each.gname, each.mtime) for each in members} == {(0, 0, "", "", 0)}
        assert [(each.name, each.type, oct(each.mode), each.linkname) for each in members] == [
            ("etc", tarfile.DIRTYPE, "0o755", ""),
            ("etc/" + "n" * 300, tarfile.REGTYPE, "0o600", ""),
            ("tmp", tarfile.DIRTYPE, "0o1777", ""),
            ("usr", tarfile.DIRTYPE, "0o755", ""),
            ("usr/bin", tarfile.DIRTYPE, "0o755", ""),
            ("usr/bin/a", tarfile.SYMTYPE, "0o777", "b" * 200),
            ("usr/bin/b", tarfile.REGTYPE, "0o4755", ""),
        ]
        file = archive.extractfile("usr/bin/b")
        assert file is not None
        assert file.read() == b"program"
