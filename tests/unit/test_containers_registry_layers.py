"""What a layer may contain, and its two forms: OCI's, and the one that overlayfs wants."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from cloudlab.containers.registry.entries import Limits
from cloudlab.containers.registry.layers import check, oci_form, overlay_form
from cloudlab.containers.registry.names import digest_of
from cloudlab.errors import UsageError

OPAQUE_XATTR = "SCHILY.xattr.trusted.overlay.opaque"


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    header = tarfile.TarInfo(name)
    header.type, header.size, header.mode = kind, len(data), 0o755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in fields.items():
        setattr(header, field, value)
    return header, data


def directory(name: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.DIRTYPE, **fields)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.LNKTYPE, linkname=target)


def device(name: str, major: int = 0, minor: int = 0, kind: bytes = tarfile.CHRTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind, devmajor=major, devminor=minor)


def tar(*entries: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for header, data in entries:
            archive.addfile(header, io.BytesIO(data))
    return io.BytesIO(out.getvalue())


def members(out: io.BytesIO) -> dict[str, tarfile.TarInfo]:
    return {member.name: member for member in tarfile.open(fileobj=io.BytesIO(out.getvalue()))}


def overlay(*entries: tuple[tarfile.TarInfo, bytes], **options: Any) -> dict[str, tarfile.TarInfo]:
    out = io.BytesIO()
    overlay_form(tar(*entries), out, **options)
    return members(out)


def oci(*entries: tuple[tarfile.TarInfo, bytes], **options: Any) -> bytes:
    out = io.BytesIO()
    oci_form(tar(*entries), out, **options)
    return out.getvalue()


# --- what is in a layer ---

ORDINARY = [
    directory("etc/", mtime=100),
    entry("etc/hosts", data=b"127.0.0.1 localhost\n", mtime=100),
    symlink("etc/mtab", "/proc/mounts"),
    hard_link("etc/hosts2", "etc/hosts"),
    entry("etc/.wh.passwd"),
    entry("var/cache/.wh..wh..opq"),
    entry("run/pipe", tarfile.FIFOTYPE),
]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
def test_a_layer_is_read_however_it_is_packed(pack: Callable[[bytes], bytes]) -> None:
    plain = tar(*ORDINARY).getvalue()
    found = check(io.BytesIO(pack(plain)))
    assert (found.diff_id, found.size, found.entries) == (digest_of(plain), len(plain), 7)
    assert (found.whiteouts, found.opaque) == ({"etc/passwd"}, {"var/cache"})
    assert (found.directories, found.parents) == ({"etc"}, {"var", "var/cache", "run"})


def test_a_layer_of_nothing_is_one() -> None:
    assert check(io.BytesIO(bytes(1024))).entries == 0


def test_a_directory_may_be_there_twice_and_a_file_not() -> None:
    assert check(tar(directory("a"), directory("a"))).entries == 2
    with pytest.raises(UsageError, match="twice"):
        check(tar(entry("a"), entry("a")))


# --- hostile ones ---

LONG = "d/" * 2100 + "x"
HOSTILE = {
    "absolute path": ([entry("/etc/passwd")], "absolute"),
    "upwards": ([entry("../etc/passwd")], "upwards"),
    "upwards in the middle": ([entry("a/../../etc/passwd")], "upwards"),
    "upwards at the end": ([directory("a/..")], "upwards"),
    "below a symbolic link": ([symlink("a", "/etc"), entry("a/passwd")], "below 'a', which is a symbolic link"),
    "far below a symbolic link": ([symlink("a", ".."), entry("a/b/c/d")], "below 'a'"),
    "below a link written otherwise": ([symlink("./a/", ".."), entry("a//./b")], "below 'a'"),
    "below a hard link to a symbolic link": ([symlink("a", "/"), hard_link("b", "a"), entry("b/c")], "below 'b'"),
    "below a file": ([entry("a"), entry("a/b")], "below 'a', which is a file"),
    "directory that becomes a link": ([directory("a"), symlink("a", "/etc"), entry("a/passwd")], "twice"),
    "link that becomes a directory": ([symlink("a", "/etc"), directory("a"), entry("a/passwd")], "twice"),
    "parent that becomes a link": ([entry("a/b"), symlink("a", "/etc")], "twice"),
    "root as a link": ([symlink("./", "/etc")], "has no name"),
    "hard link out of the root": ([hard_link("a", "/etc/shadow")], "absolute"),
    "hard link upwards": ([hard_link("a", "../../etc/shadow")], "upwards"),
    "hard link to nothing": ([hard_link("a", "etc/shadow")], "no earlier entry"),
    "hard link to what comes later": ([hard_link("a", "b"), entry("b")], "no earlier entry"),
    "hard link to itself": ([hard_link("a", "a")], "no earlier entry"),
    "hard link to a directory": ([directory("a"), hard_link("b", "a")], "no earlier entry"),
    "hard link through a link": ([symlink("a", "/etc"), hard_link("b", "a/shadow")], "no earlier entry"),
    "character device": ([device("sda", 8, 0)], "device"),
    "block device": ([device("sda", 8, 0, tarfile.BLKTYPE)], "device"),
    "whiteout in overlayfs's form": ([device("etc")], "device"),
    "unknown type": ([entry("a", b"V")], "unknown type"),
    "sparse file": ([entry("a", tarfile.GNUTYPE_SPARSE)], "sparse|damaged"),
    "whiteout of upwards": ([entry(".wh...")], "whiteout of nothing"),
    "whiteout of the root": ([entry(".wh..")], "whiteout of nothing"),
    "whiteout of no name": ([entry("a/.wh.")], "whiteout of nothing"),
    "whiteout of a whiteout": ([entry(".wh..wh.a")], "whiteout of nothing"),
    "whiteout that is a link": ([symlink(".wh.a", "/etc/passwd")], "empty file"),
    "whiteout that has contents": ([entry(".wh.a", data=b"x")], "empty file"),
    "below a whiteout": ([entry(".wh.a/b")], "below a whiteout"),
    "whiteout below a link": ([symlink("a", "/etc"), entry("a/.wh.passwd")], "below 'a'"),
    "opaque link": ([symlink("a", "/etc"), entry("a/.wh..wh..opq")], "twice"),
    "name too long": ([entry("x" * 256)], "no file can have"),
    "path too long": ([entry(LONG)], "too long a path"),
    "zero in a name": ([entry("a", pax_headers={"path": "a\0b"})], "no file can have"),
    "zero in a target": ([entry("a", tarfile.SYMTYPE, linkname="a", pax_headers={"linkpath": "a\0b"})], "can't be"),
    "link to nowhere at all": ([symlink("a", "")], "can't be"),
    "no such time": ([entry("a", pax_headers={"mtime": "nan"})], "time that is none"),
    "nobody's": ([entry("a", pax_headers={"uid": "-5"})], "belongs to nobody"),
    "redirect of overlayfs": (
        [directory("a", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/etc"})],
        "overlayfs",
    ),
    "opaque by attribute": ([directory("a", pax_headers={"SCHILY.xattr.user.overlay.opaque": "y"})], "overlayfs"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_layer_is_refused_before_a_byte_is_written(name: str) -> None:
    entries, why = HOSTILE[name]
    out = io.BytesIO()
    with pytest.raises(UsageError, match=why):
        overlay_form(tar(directory("ordinary"), *entries), out)
    assert out.getvalue() == b""


def test_the_error_names_the_entry_and_why() -> None:
    with pytest.raises(UsageError) as caught:
        check(tar(entry("a/../../etc/passwd")))
    assert "'a/../../etc/passwd' leads upwards by '..'" in str(caught.value)
    assert "Allowed: " in str(caught.value)


def test_no_more_entries_than_the_limit() -> None:
    layer = tar(*(entry(f"f{number}") for number in range(11)))
    assert check(layer, Limits(entries=11)).entries == 11
    with pytest.raises(UsageError, match="'f10' is one too many"):
        check(layer, Limits(entries=10))


def test_a_file_larger_than_the_limit_is_refused_by_its_header() -> None:
    with pytest.raises(UsageError, match="'big' is too large"):
        check(tar(entry("big", data=bytes(3 << 20))), Limits(size=1 << 20))


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_a_bomb_goes_off_no_further_than_the_limit(pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(bytes(64 << 20))  # an end, and zeros behind it
    with pytest.raises(UsageError, match="beyond the limit"):
        check(io.BytesIO(bomb), Limits(size=1 << 20))


def test_a_header_can_not_fill_the_memory() -> None:
    with pytest.raises(UsageError, match="beyond the limit"):
        check(tar(entry("a", pax_headers={"comment": "x" * (8 << 20)})))


def test_a_header_that_claims_much_and_has_little_is_damaged() -> None:
    header = entry("a")[0]
    header.size = 1 << 30
    with pytest.raises(UsageError, match="cut short"):
        check(io.BytesIO(header.tobuf(tarfile.PAX_FORMAT) + b"x" * 100))


@pytest.mark.parametrize("cut", [0, 1, 100, 512, 600, 1500])
def test_a_layer_that_is_cut_short_is_refused(cut: int) -> None:
    whole = tar(entry("a", data=b"x" * 100), entry("b")).getvalue()  # header, contents, header, zeros
    with pytest.raises(UsageError, match="layer refused"):
        check(io.BytesIO(whole[:cut]))


@pytest.mark.parametrize("cut", [612, 1000, 1024, 1536])
def test_a_layer_without_the_zeros_at_its_end_is_whole_all_the_same(cut: int) -> None:
    whole = tar(entry("a", data=b"x" * 100), entry("b")).getvalue()
    assert check(io.BytesIO(whole[:cut])).entries == (2 if cut == 1536 else 1)


def test_a_packed_layer_that_is_cut_short_is_refused() -> None:
    packed = gzip.compress(tar(*ORDINARY).getvalue())
    with pytest.raises(UsageError, match="damaged or cut short"):
        check(io.BytesIO(packed[:-9]))


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end() -> None:
    layer = bytearray(tar(entry("a"), entry("b")).getvalue())
    layer[512 + 10] ^= 0xFF
    with pytest.raises(UsageError, match="damaged"):
        check(io.BytesIO(layer))


def test_digest_and_size_are_compared() -> None:
    layer = tar(*ORDINARY)
    data = layer.getvalue()
    assert check(layer, digest=digest_of(data), size=len(data)).entries == 7
    with pytest.raises(UsageError, match="its digest is sha256:"):
        check(layer, digest="sha256:" + "0" * 64)
    with pytest.raises(UsageError, match=f"it has {len(data)} bytes, not 5"):
        check(layer, size=5)


@pytest.mark.parametrize("seed", range(6))
def test_random_damage_never_gets_through_as_anything_but_an_error_that_is_ours(seed: int) -> None:
    chance = random.Random(seed)
    plain = tar(
        *ORDINARY,
        entry("lang/名字", data=b"x" * 700),
        entry("long/" + "n" * 150),
        directory("x", pax_headers={"SCHILY.xattr.user.a": "b"}),
    )
    packs: list[Callable[[bytes], bytes]] = [bytes, bytes, gzip.compress, zstandard.compress]
    for _ in range(250):
        layer = bytearray(plain.getvalue())
        for _ in range(chance.randint(1, 6)):
            _damage(chance, layer)
        packed = bytearray(chance.choice(packs)(bytes(layer)))
        if chance.random() < 0.3:
            _damage(chance, packed)
        out = io.BytesIO()
        try:
            overlay_form(io.BytesIO(packed), out, Limits(size=1 << 20))
        except UsageError:
            assert out.getvalue() == b""
            continue
        for member in members(out).values():
            assert not member.name.startswith("/")
            assert ".." not in member.name.split("/")
            assert not member.isdev() or member.isfifo() or (member.devmajor, member.devminor) == (0, 0)


def _damage(chance: random.Random, data: bytearray) -> None:
    if not data:
        return
    at = chance.randrange(len(data))
    match chance.randrange(5):
        case 0:
            data[at] = chance.randrange(256)
        case 1:
            del data[at : at + chance.choice([1, 512])]
        case 2:
            data[at:at] = data[: chance.choice([1, 512])]
        case 3:  # a header that is right again, with another name, type or link
            at -= at % 512
            _rewrite(chance, data, at)
        case _:
            words = [b"../", b"/", b".wh.", b"..", b"\0", b"9999999", b"\x80\xff\xff\xff"]
            word = chance.choice(words)
            data[at : at + len(word)] = word


def _rewrite(chance: random.Random, data: bytearray, at: int) -> None:
    header = data[at : at + 512]
    if len(header) < 512:
        return
    name = chance.choice([b"../x", b"/x", b"etc", b"etc/hosts/x", b"etc/mtab/x", b".wh.x", b"a/../b"])
    field = chance.choice([0, 157])
    header[field : field + 100] = name.ljust(100, b"\0")
    header[156:157] = chance.choice([b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"L", b"x", b"g", b"S", b"K"])
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[at : at + 512] = header


# --- the form for overlayfs ---


def test_a_whiteout_becomes_a_character_device() -> None:
    found = overlay(directory("etc"), entry("etc/.wh.passwd"))
    assert set(found) == {".", "etc", "etc/passwd"}
    assert found["etc/passwd"].ischr()
    assert (found["etc/passwd"].devmajor, found["etc/passwd"].devminor) == (0, 0)


@pytest.mark.parametrize("mark_first", [True, False])
def test_an_opaque_mark_becomes_an_attribute_wherever_it_stands(mark_first: bool) -> None:
    entries = [directory("a"), entry("a/.wh..wh..opq"), entry("a/new")]
    found = overlay(*(entries if mark_first else entries[::2] + entries[1:2]))
    assert set(found) == {".", "a", "a/new"}
    assert found["a"].pax_headers[OPAQUE_XATTR] == "y"


def test_in_a_user_namespace_the_attribute_is_a_users() -> None:
    found = overlay(directory("a"), entry("a/.wh..wh..opq"), user_xattr=True)
    assert found["a"].pax_headers["SCHILY.xattr.user.overlay.opaque"] == "y"


def test_what_is_hidden_and_made_anew_hides_what_is_below() -> None:
    found = overlay(entry(".wh.a"), directory("a"), entry("a/b"), entry(".wh.f"), entry("f"))
    assert found["a"].isdir()
    assert found["a"].pax_headers[OPAQUE_XATTR] == "y"
    assert found["f"].isreg()


def test_directories_that_are_only_in_paths_are_made_and_are_roots() -> None:
    found = overlay(entry("a/b/c", uid=5, gid=6), offset=100_000)
    assert {name: (member.uid, member.gid) for name, member in found.items()} == {
        ".": (100_000, 100_000),
        "a": (100_000, 100_000),
        "a/b": (100_000, 100_000),
        "a/b/c": (100_005, 100_006),
    }
    assert found["a"].mode == 0o755


def test_a_user_beyond_the_namespace_is_refused_where_users_are_shifted() -> None:
    assert overlay(entry("a", uid=70_000))["a"].uid == 70_000
    with pytest.raises(UsageError, match="'a' belongs to number 70000"):
        overlay(entry("a", uid=70_000), offset=100_000)


def capabilities(root: int | None = None) -> str:
    revision = 0x02000000 if root is None else 0x03000000
    data = struct.pack("<5I", revision | 1, 1 << 13, 0, 0, 0) + (b"" if root is None else struct.pack("<I", root))
    return data.decode("utf-8", "surrogateescape")


def test_capabilities_of_files_are_those_of_the_user_namespace() -> None:
    name = "SCHILY.xattr.security.capability"
    assert overlay(entry("ping", pax_headers={name: capabilities()}))["ping"].pax_headers[name] == capabilities()
    shifted = overlay(entry("ping", pax_headers={name: capabilities()}), offset=100_000)["ping"].pax_headers[name]
    assert shifted == capabilities(100_000)
    back = members(io.BytesIO(oci(entry("ping", uid=100_000, pax_headers={name: shifted}), offset=100_000)))["ping"]
    assert back.pax_headers[name] == capabilities()


def test_attributes_that_belong_to_one_kernel_are_left_out() -> None:
    headers = {"SCHILY.xattr.security.selinux": "x", "SCHILY.xattr.user.note": "y"}
    found = overlay(entry("a", pax_headers=headers))["a"].pax_headers
    assert {name for name in found if name.startswith("SCHILY")} == {"SCHILY.xattr.user.note"}


# --- and back ---


def test_an_upper_directory_becomes_a_layer() -> None:
    found = members(
        io.BytesIO(
            oci(
                directory("./"),
                directory("./etc", pax_headers={OPAQUE_XATTR: "y", "SCHILY.xattr.trusted.overlay.origin": "z"}),
                entry("./etc/new", data=b"new", uname="me", gname="me", mtime=12.75),
                device("./gone"),
            )
        )
    )
    assert list(found) == [".wh.gone", "etc", "etc/.wh..wh..opq", "etc/new"]
    assert (found["etc/new"].uname, found["etc/new"].mtime, found["etc/new"].size) == ("", 12, 3)
    assert not any("overlay" in name for name in found["etc"].pax_headers)


def test_equal_directories_are_equal_layers_in_whatever_order_they_were_read() -> None:
    files = [directory("a"), entry("a/x", data=b"1"), entry("b", data=b"2"), device("c"), directory("a/d")]
    assert oci(*files) == oci(*files[::-1])


def test_of_a_file_with_many_names_the_first_has_the_contents() -> None:
    one = oci(entry("b", data=b"same"), hard_link("a", "b"), hard_link("c", "b"))
    other = oci(entry("c", data=b"same"), hard_link("b", "c"), hard_link("a", "c"))
    assert one == other
    found = members(io.BytesIO(one))
    assert (found["a"].isreg(), found["b"].linkname, found["c"].linkname) == (True, "a", "a")


def test_overlayfs_may_have_made_all_whiteouts_links_to_one() -> None:
    found = members(io.BytesIO(oci(device("a"), hard_link("b", "a"))))
    assert list(found) == [".wh.a", ".wh.b"]
    assert all(member.isreg() for member in found.values())


def test_times_are_clamped_if_that_is_wanted() -> None:
    found = members(io.BytesIO(oci(entry("old", mtime=5), entry("new", mtime=5000), clamp_s=100)))
    assert (found["old"].mtime, found["new"].mtime) == (5, 100)


def test_users_are_shifted_back_and_who_is_outside_is_nobody() -> None:
    found = members(io.BytesIO(oci(entry("a", uid=100_033, gid=100_000), entry("b", uid=0, gid=0), offset=100_000)))
    assert (found["a"].uid, found["a"].gid, found["b"].uid) == (33, 0, 65534)


def test_whiteouts_are_the_same_whoever_made_the_layer() -> None:
    mark = {OPAQUE_XATTR: "y"}
    shifted = oci(device("gone"), directory("a", uid=100_000, gid=100_000, pax_headers=mark), offset=100_000)
    assert shifted == oci(device("gone"), directory("a", pax_headers=mark))


@pytest.mark.parametrize("name", ["redirect", "metacopy"])
def test_an_upper_directory_that_only_refers_to_others_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="reference to another layer"):
        oci(directory("a", pax_headers={f"SCHILY.xattr.trusted.overlay.{name}": "x"}))


@pytest.mark.parametrize("bad", [device("sda", 8, 0), entry(".wh.x"), entry("../x"), hard_link("a", "/etc/shadow")])
def test_a_hostile_upper_directory_is_refused(bad: tuple[tarfile.TarInfo, bytes]) -> None:
    with pytest.raises(UsageError, match="layer refused"):
        oci(bad)


def test_both_ways_is_the_same_layer() -> None:
    entries = [
        directory("etc", mode=0o700, uid=3),
        entry("etc/.wh..wh..opq"),
        entry("etc/名字", data=b"x" * 3000, mode=0o4755),
        symlink("etc/link", "../away"),
        entry("bytes-\udcff", data=b"y"),
        entry(".wh.gone"),
    ]
    layer, upper, back, again = tar(*entries), io.BytesIO(), io.BytesIO(), io.BytesIO()
    overlay_form(layer, upper, offset=100_000)
    oci_form(upper, back, offset=100_000)
    assert set(members(back)) == {header.name for header, _ in entries}
    overlay_form(back, again, offset=100_000)
    assert {
        name: (each.mode, each.uid, each.size, each.type, each.linkname) for name, each in members(upper).items()
    } == {name: (each.mode, each.uid, each.size, each.type, each.linkname) for name, each in members(again).items()}
