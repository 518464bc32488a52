"""Roots in a real guest: what overlayfs shows is what `resolve` says, and layers stay as they were."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from cloudlab import Machine, MachineError, UsageError
from cloudlab.containers.calls import CallError, Calls, Room, make
from cloudlab.containers.layerstore import DIRECTORY, LAYERS, Layers, prepare
from cloudlab.containers.rootfs import Kind, Overlay, Rootfs, changes, enter_root, listings, resolve
from cloudlab.containers.syscalls import Clone, Mount
from cloudlab.images import ImageStore
from cloudlab.machines.result import Result

pytestmark = pytest.mark.guest
_numbers = count(1)
_TYPES = {"f": tarfile.REGTYPE, "d": tarfile.DIRTYPE, "o": tarfile.DIRTYPE, "l": tarfile.SYMTYPE, "w": tarfile.CHRTYPE}
Tree = dict[str, tuple[str, str, int]]  # path -> kind (as in _TYPES), content or target, mode


def archive(tree: Tree) -> bytes:
    """Return a layer as overlayfs has it: a whiteout is a device 0/0, an opaque directory has an attribute."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, (kind, content, mode) in tree.items():
            member = tarfile.TarInfo(path)
            member.type, member.mode = _TYPES[kind], mode
            if kind == "o":
                member.pax_headers = {"SCHILY.xattr.trusted.overlay.opaque": "y"}
            member.size, member.linkname = (len(content), "") if kind == "f" else (0, content)
            tar.addfile(member, io.BytesIO(content.encode()) if kind == "f" else None)
    return out.getvalue()


BASE = archive(
    {
        ".": ("d", "", 0o755),
        "etc": ("d", "", 0o755),
        "etc/motd": ("f", "welcome\n", 0o644),
        "etc/group": ("f", "root:x:0:\n", 0o644),
        "srv": ("d", "", 0o755),
        "srv/www": ("d", "", 0o755),
        "srv/www/index.html": ("f", "<p>hello\n", 0o644),
        "bin": ("l", "usr/bin", 0o777),
    }
)


@pytest.fixture(scope="module")
def layers(n1: Machine) -> Layers:
    kept = Layers(n1)
    kept.add("base", BASE)
    return kept


@pytest.fixture
def root(n1: Machine, layers: Layers) -> Iterator[Rootfs]:
    """A mounted root on the layer "base"."""
    made = Rootfs(n1, ["base"], f"r{next(_numbers)}")
    made.mount()
    yield made
    made.remove()


def text(found: Sequence[object]) -> list[str]:
    return [str(each) for each in found]


# --- what happens to files ----------------------------------------------------------------------------------------


def test_a_file_is_copied_up_when_it_is_opened_for_writing(n1: Machine, root: Rootfs) -> None:
    assert n1.succeed(f"cat {root.merged}/etc/motd") == "welcome\n"
    before, after = root.copy_up("/etc/motd")
    assert (before.layer, after.layer) == ("base", "upper")
    assert n1.succeed(f"cat {root.upper}/etc/motd") == "welcome\n"
    n1.succeed(f"echo changed > {root.merged}/etc/motd")
    assert n1.succeed(f"cat {root.merged}/etc/motd {LAYERS}/base/etc/motd") == "changed\nwelcome\n"
    assert text(root.changes()) == ["C /etc", "C /etc/motd"]


def test_reading_copies_nothing_up(n1: Machine, root: Rootfs) -> None:
    n1.succeed(f"grep -r . {root.merged} && ls -lR {root.merged}")
    assert root.changes() == []
    assert root.answer("etc/motd").layer == "base"


def test_a_deleted_file_is_covered_by_a_whiteout(n1: Machine, root: Rootfs) -> None:
    n1.succeed(f"rm {root.merged}/etc/motd")
    assert n1.succeed(f"stat -c '%F %t:%T' {root.upper}/etc/motd") == "character special file 0:0\n"
    gone = root.answer("/etc/motd")
    assert (gone.layer, gone.kinds) == (None, {"upper": Kind.WHITEOUT, "base": Kind.FILE})
    assert text(root.changes()) == ["C /etc", "D /etc/motd"]
    assert n1.succeed(f"cat {LAYERS}/base/etc/motd") == "welcome\n"


def test_a_device_that_is_no_whiteout_is_shown(n1: Machine, root: Rootfs) -> None:
    n1.succeed(f"mknod {root.merged}/dev/null c 1 3 && mkfifo {root.merged}/pipe")
    assert (root.answer("/dev/null").kind, root.answer("/pipe").kind) == (Kind.DEVICE, Kind.PIPE)


def test_a_directory_made_in_place_of_a_deleted_one_is_opaque(n1: Machine, root: Rootfs) -> None:
    n1.succeed(f"cd {root.merged}/srv && rm -r www && mkdir www && touch www/new")
    assert 'opaque="y"' in n1.succeed(f"getfattr -d -m - {root.upper}/srv/www")
    stack = root.stack()
    assert stack["/srv/www"].kinds["upper"] is Kind.OPAQUE
    assert stack["/srv/www/index.html"].answers == ()
    assert text(root.changes()) == ["C /srv", "C /srv/www", "D /srv/www/index.html", "A /srv/www/new"]
    assert n1.succeed(f"ls {root.merged}/srv/www") == "new\n"


def test_a_directory_of_a_lower_layer_can_not_be_renamed_only_copied(n1: Machine, root: Rootfs) -> None:
    """rename(2) says EXDEV, as between two file systems: overlayfs.rst, "Redirect directories"; mv(1) then copies."""
    calls = Calls()
    calls.call("rename", f"{root.merged}/srv/www", f"{root.merged}/srv/web")
    with pytest.raises(CallError) as caught:
        make(n1, calls)
    assert caught.value.errno == errno.EXDEV
    n1.succeed(f"mv {root.merged}/srv/www {root.merged}/srv/web")
    assert n1.succeed(f"cat {root.merged}/srv/web/index.html") == "<p>hello\n"
    assert text(root.changes()) == ["C /srv", "A /srv/web", "A /srv/web/index.html", "D /srv/www"]


def test_hard_links_of_the_upper_layer_stay_links_when_it_is_committed(
    n1: Machine, root: Rootfs, layers: Layers
) -> None:
    n1.succeed(f"cd {root.merged} && echo one > a && ln a b && echo two >> b")
    assert n1.succeed(f"cat {root.merged}/a") == "one\ntwo\n"
    root.commit("linked")
    assert n1.succeed(f"stat -c %h {LAYERS}/linked/a") == "2\n"
    layers.remove("linked")


def test_copy_up_parts_the_hard_links_of_a_lower_layer(n1: Machine, root: Rootfs) -> None:
    """overlayfs.rst, "Non-standard behavior": without index=on."""
    n1.succeed("mkdir -p /root/links && cd /root/links && echo one > a && ln -f a b")
    linked = Rootfs(n1, ["/root/links"], "linked")
    n1.succeed(f"cd {linked.mount()} && echo two >> b")
    assert n1.succeed(f"cat {linked.merged}/a") == "one\n"
    linked.remove()


# --- which layer answers --------------------------------------------------------------------------------------------


def random_tree(chance: random.Random, number: int) -> Tree:
    """Names are few, so that layers meet; the mode and the content of each file say which layer it is of."""
    tree: Tree = {".": ("o" if chance.random() < 0.2 else "d", "", 0o700 | number)}
    directories = [""]
    for directory in directories:
        for name in "abc":
            path = f"{directory}{name}"
            kind = chance.choices("fdolw-", [3, 5 if len(path) < 6 else 0, 2, 1, 2, 5])[0]
            if kind == "-":
                continue
            tree[path] = (kind, str(number), 0o700 | number)
            if kind in "do" and len(path) < 6:
                directories.append(path + "/")
    return tree


STACKS, HEIGHT = 60, 5


@pytest.fixture(scope="module")
def stacks(n1: Machine, layers: Layers) -> Iterator[list[Overlay]]:
    """Many stacks of random layers, sent as one archive and mounted by one program."""
    chance = random.Random(20240229)
    everything: Tree = {}
    for stack in range(STACKS):
        everything[f"{stack}"] = ("d", "", 0o755)
        for number in range(HEIGHT):
            tree = random_tree(chance, number)
            everything |= {os.path.normpath(f"{stack}/{number}/{path}"): entry for path, entry in tree.items()}
    layers.add("stacks", archive(everything))
    n1.succeed(
        f"mkdir -p {DIRECTORY}/random && cd {DIRECTORY}/random && mkdir $(seq 0 {STACKS - 1}) $(seq -f %gw 0 {STACKS - 1})"
    )
    paths = [[f"{LAYERS}/stacks/{stack}/{number}" for number in range(HEIGHT)] for stack in range(STACKS)]
    found = [
        Overlay(tuple(below), upper, f"{DIRECTORY}/random/{stack}w") for stack, (upper, *below) in enumerate(paths)
    ]
    calls = Calls()
    for stack, overlay in enumerate(found):
        overlay.add_mount(calls, f"{DIRECTORY}/random/{stack}")
    make(n1, calls)
    yield found
    n1.succeed(f"umount $(seq -f {DIRECTORY}/random/%g 0 {STACKS - 1}) && rm -r {DIRECTORY}/random")
    layers.remove("stacks")


def seen_through(n1: Machine, mounts: Sequence[str]) -> dict[str, set[tuple[str, ...]]]:
    """Ask the kernel: (kind, mode, target, path) of all that can be seen.

    In a directory of which only one layer is seen, readdir(3) still names its whiteouts, and stat(2) says they are not there;
    find prints only what it can stat, and ends with status 1.
    """
    printed = n1.run(["find", *mounts, "-mindepth", "1", "-printf", "%H %y %m /%P %l\n"]).stdout
    found: dict[str, set[tuple[str, ...]]] = {mount: set() for mount in mounts}
    for line in printed.splitlines():
        mount, kind, mode, path, target = line.split(" ")
        found[mount].add((kind, "777" if kind == "l" else mode, path, target))
    return found


def test_the_layer_that_answers_is_the_one_that_the_kernel_shows(n1: Machine, stacks: list[Overlay]) -> None:
    letters = {Kind.FILE: "f", Kind.DIRECTORY: "d", Kind.OPAQUE: "d", Kind.LINK: "l"}
    directories = {path: path for overlay in stacks for path in (overlay.upper, *overlay.lowers)}
    listed = listings(n1, directories)
    real = seen_through(n1, [f"{DIRECTORY}/random/{stack}" for stack in range(STACKS)])
    total = hidden = 0
    for overlay, (mount, seen) in zip(stacks, real.items(), strict=True):
        expected = set()
        for each in resolve({path: listed[path] for path in (overlay.upper, *overlay.lowers)}).values():
            if each.kind and each.layer and each.path != "/":
                number = os.path.basename(each.layer)
                link = each.kind is Kind.LINK
                expected.add((letters[each.kind], "777" if link else f"70{number}", each.path, number if link else ""))
            hidden += not each.answers
        assert seen == expected, f"{mount}: {overlay}"
        total += len(seen)
    assert total > 500
    assert hidden > 200


def test_changes_are_what_is_seen_with_the_upper_layer_and_not_without(n1: Machine, stacks: list[Overlay]) -> None:
    n1.succeed(f"mkdir -p {DIRECTORY}/below && mount -t tmpfs below {DIRECTORY}/below")
    calls = Calls()
    for stack, overlay in enumerate(stacks):
        place = f"{DIRECTORY}/below/{stack}"
        for path in (place, f"{place}/u", f"{place}/w", f"{place}/m"):
            calls.call("mkdir", path, 0o755)
        Overlay(overlay.lowers, f"{place}/u", f"{place}/w").add_mount(calls, f"{place}/m")
    make(n1, calls)
    before = seen_through(n1, [f"{DIRECTORY}/below/{stack}/m" for stack in range(STACKS)])
    after = seen_through(n1, [f"{DIRECTORY}/random/{stack}" for stack in range(STACKS)])
    n1.succeed(f"umount {DIRECTORY}/below/*/m && umount {DIRECTORY}/below && rmdir {DIRECTORY}/below")
    listed = listings(n1, {path: path for overlay in stacks for path in (overlay.upper, *overlay.lowers)})
    for overlay, was, now in zip(stacks, before.values(), after.values(), strict=True):
        there, here = {path for _, _, path, _ in was}, {path for _, _, path, _ in now}
        found = changes({path: listed[path] for path in (overlay.upper, *overlay.lowers)})
        assert {each.path for each in found if each.how == "A"} == here - there
        directories = {path for kind, _, path, _ in now if kind == "d"} | {"/"}
        gone = {path for path in there - here if os.path.dirname(path) in directories}
        assert {each.path for each in found if each.how == "D"} == gone
        assert {each.path for each in found if each.how == "C"} == {
            path for kind, mode, path, target in now if path in there and (mode == "700" or target == "0")
        }


def test_a_path_that_no_layer_has_is_answered_by_nobody(root: Rootfs) -> None:
    assert str(root.answer("etc/nothing")) == "/etc/nothing: nobody answers: no layer has it"
    with pytest.raises(UsageError, match="/bin is a symbolic link"):
        root.answer("/bin/sh")


def test_the_init_layer_lies_above_the_image_and_below_what_is_written(n1: Machine, root: Rootfs) -> None:
    assert root.stack().layers == ("upper", "init", "base")
    assert root.answer("/etc/hostname").layer == "init"
    n1.succeed(f"echo other > {root.merged}/etc/hostname")
    assert root.answer("/etc/hostname").layer == "upper"
    assert n1.succeed(f"cat {root.init}/etc/hostname") == f"{root.name}\n"


def test_names_of_every_kind_are_listed(n1: Machine, root: Rootfs) -> None:
    name = "a b\n\\c=\t:é"
    path = f"{root.merged}/{name}"
    n1.run(["mkdir", f"{root.merged}/srv/{name}"])
    n1.run(
        ["sh", "-c", 'mkdir "$1" && touch "$1/x" && rm -r "$2/www" && mkdir "$2/www"', "sh", path, f"{root.merged}/srv"]
    )
    calls = Calls()
    calls.call("setxattr", f"{root.upper}/{name}", "trusted.overlay.opaque", "y", 1, 0)
    make(n1, calls)
    assert root.stack()[f"/{name}"].kinds == {"upper": Kind.OPAQUE}
    assert root.stack()[f"/{name}/x"].layer == "upper"


# --- roots ----------------------------------------------------------------------------------------------------------


def test_what_was_written_becomes_a_layer_on_which_other_roots_stand(n1: Machine, root: Rootfs, layers: Layers) -> None:
    n1.succeed(f"cd {root.merged} && rm etc/group && rm -r srv/www && mkdir srv/www && echo more > srv/www/more")
    assert root.commit("second") == "second"
    notes = n1.succeed(f"getfattr -Rdm - --absolute-names {LAYERS}/second")
    assert notes.strip() == f'# file: {LAYERS}/second/srv/www\ntrusted.overlay.opaque="y"'
    above = Rootfs(n1, ["base", "second"], "above")
    assert n1.succeed(f"cd {above.mount()} && ls etc srv/www && cat srv/www/more") == (
        "etc:\nhostname\nhosts\nmotd\nresolv.conf\n\nsrv/www:\nmore\nmore\n"
    )
    assert above.changes() == []
    assert above.answer("/etc/group").why == "second has a whiteout: it was deleted there"
    above.remove()
    layers.remove("second")


def test_a_layer_goes_through_a_tar_archive_unchanged(n1: Machine, root: Rootfs, layers: Layers) -> None:
    n1.succeed(
        f"cd {root.merged} && chown 7:8 etc/motd && chmod 4751 etc/motd && rm etc/group && setcap cap_net_raw+ep srv/www/index.html"
    )
    packed = layers.tar_of(root.upper)
    assert packed == layers.tar_of(root.upper)
    layers.add("again", packed)
    assert layers.tar_of(layers.path("again")) == packed
    assert n1.succeed(f"cd {LAYERS}/again && stat -c '%u:%g %a' etc/motd && getcap srv/www/index.html") == (
        "7:8 4751\nsrv/www/index.html cap_net_raw=ep\n"
    )
    layers.remove("again")


def test_unmounting_and_removing_leave_nothing_and_spoil_no_layer(n1: Machine, layers: Layers) -> None:
    before = layers.tar_of(layers.path("base"))
    root = Rootfs(n1, ["base"], "gone")
    n1.succeed(
        f"cd {root.mount()} && rm -r etc && mkdir etc && echo x > srv/www/index.html && mv srv/www /root/www && rm -r /root/www"
    )
    root.unmount()
    assert not root.is_mounted()
    assert n1.succeed(f"ls {root.merged}") == ""
    assert text(root.changes())[:1] == ["C /etc"]
    root.remove()
    assert f"/{root.name}/" not in n1.succeed("cat /proc/mounts")
    assert n1.succeed(f"ls {DIRECTORY}/rootfs") == ""
    assert layers.tar_of(layers.path("base")) == before


def test_a_layer_is_shared_and_what_one_root_writes_no_other_sees(n1: Machine, root: Rootfs) -> None:
    other = Rootfs(n1, ["base"], "other")
    other.mount()
    n1.succeed(f"echo mine > {root.merged}/etc/motd && rm {root.merged}/etc/group")
    assert n1.succeed(f"cat {other.merged}/etc/motd") == "welcome\n"
    assert other.changes() == []
    assert int(n1.succeed(f"du -s -B1 {other.upper} {other.init} | cut -f1 | paste -sd+ | bc")) < 32 << 10
    other.remove()


def test_a_mount_in_use_is_not_taken_away(n1: Machine, root: Rootfs) -> None:
    job = n1.spawn("cat", directory=root.merged)
    with pytest.raises(CallError, match="EBUSY"):
        root.unmount()
    job.end_input()
    job.wait()
    root.unmount()


def test_wrong_steps_say_what_is_right(n1: Machine, root: Rootfs) -> None:
    with pytest.raises(UsageError, match="mounted already"):
        root.mount()
    with pytest.raises(UsageError, match="/etc can't be copied up"):
        root.copy_up("/etc")
    root.unmount()
    with pytest.raises(UsageError, match="not mounted"):
        root.unmount()
    with pytest.raises(UsageError, match="can't be copied up"):
        root.copy_up("/etc/motd")
    with pytest.raises(UsageError, match="There is no layer /var/lib/cloudlab/layers/nothing") as caught:
        Rootfs(n1, ["base", "nothing"], "wrong")
    assert "base" in caught.value.allowed
    with pytest.raises(UsageError, match="There is no layer /etc/passwd"):
        Rootfs(n1, ["/etc/passwd"], "wrong")
    with pytest.raises(UsageError, match="already"):
        root.commit("base")


def test_a_process_enters_a_root_and_lets_go_of_the_old_one(n1: Machine) -> None:
    Layers(n1).add("busybox", ImageStore().rootfs("busybox"))
    root = Rootfs(n1, ["busybox"], "entered")
    root.mount()
    calls = Calls()
    pid, inside = calls.child(Clone.NEWNS)
    inside.call("mount", "", "/", "", Mount.REC | Mount.PRIVATE, 0)
    enter_root(inside, root.merged)
    inside.call("mount", "proc", "/proc", "proc", 0, 0)
    inside.call(
        "execve",
        "/bin/sh",
        ["sh", "-c", "cut -d' ' -f2 /proc/mounts > /mounts; pwd >> /mounts; ls -d /* >> /mounts"],
        ["PATH=/bin"],
    )
    ended = calls.call("waitid", 1, pid, Room(128, whole=True), 4, 0)
    assert make(n1, calls)[ended.index].data[24] == 0  # its exit status
    seen = n1.succeed(f"cat {root.upper}/mounts").split()
    assert seen[:3] == ["/", "/proc", "/"]
    assert "/var" in seen
    assert "/mnt" in seen
    assert "/init" not in seen
    root.remove()


# --- mounts of every kind -------------------------------------------------------------------------------------------


def test_a_hundred_and_fifty_layers_are_one_stack(n1: Machine, layers: Layers) -> None:
    """Their names alone are 13 KB; mount(2) takes 4."""
    tall: Tree = {}
    for number in range(150):
        tall |= {
            f"{number:064x}": ("d", "", 0o755),
            f"{number:064x}/{number}": ("f", "x", 0o644),
            f"{number:064x}/top": ("f", str(number), 0o644),
        }
    layers.add("tall", archive(tall))
    root = Rootfs(n1, [f"{LAYERS}/tall/{number:064x}" for number in range(150)], "tall")
    root.mount()
    assert n1.succeed(f"cat {root.merged}/top && ls {root.merged} | wc -l") == f"149{150 + 5}\n"
    assert root.answer("/7").layer == f"{LAYERS}/tall/{7:064x}"
    root.remove()
    layers.remove("tall")


def test_paths_with_colons_commas_and_backslashes_can_be_mounted(n1: Machine, layers: Layers) -> None:
    place = DIRECTORY + r"/odd:a,b\c"
    calls = Calls()
    for path in ("", "/l", "/l/yes", "/m:1", "/u,ro", "/w:1"):
        calls.call("mkdir", place + path, 0o755)
    Overlay((f"{place}/l", f"{LAYERS}/base"), f"{place}/u,ro", f"{place}/w:1").add_mount(calls, f"{place}/m:1")
    calls.call("mkdir", f"{place}/m:1/new", 0o755)
    calls.call("rmdir", f"{place}/u,ro/new")
    calls.call("umount2", f"{place}/m:1", 0)
    make(n1, calls)
    n1.run(["rm", "-r", place])


def test_in_a_user_namespace_the_option_userxattr_is_needed(n1: Machine, layers: Layers) -> None:
    """mount(2) of overlayfs without privilege: overlayfs.rst, "User xattr"."""
    n1.succeed(f"mkdir -p {DIRECTORY}/user/u {DIRECTORY}/user/w {DIRECTORY}/user/m && chmod 777 {DIRECTORY}/user/*")
    place = f"{DIRECTORY}/user"
    for user in (True, False):
        options = Overlay((f"{LAYERS}/base",), f"{place}/u", f"{place}/w", user=user).options
        script = f"mount -t overlay overlay -o '{options}' {place}/m && echo x > {place}/m/srv/x && grep -o userxattr /proc/mounts"
        done = n1.run(["unshare", "-Urm", "sh", "-c", script])
        assert (done.stdout == "userxattr\n") == user, done
    n1.succeed(f"rm -r {place}")


def test_the_directory_of_layers_is_made_once_and_can_hold_an_upper_layer(n1: Machine) -> None:
    for _ in range(2):
        prepare(n1)
    assert n1.succeed(f"grep -c ' {DIRECTORY} tmpfs ' /proc/mounts") == "1\n"
    assert n1.succeed("stat -f -c %T /") == "ramfs\n"
    assert "not supported" in n1.fail("setfattr -n trusted.x -v y /srv")
    n1.succeed(f"setfattr -n trusted.x -v y {DIRECTORY} && setfattr -x trusted.x {DIRECTORY}")


# --- the store of layers --------------------------------------------------------------------------------------------


class CutOff:
    """A place whose line breaks when `size` bytes have gone through."""

    def __init__(self, machine: Machine, size: int) -> None:
        self.machine, self.size, self.name = machine, size, machine.name

    def run(self, command: Sequence[str], *, input: bytes = b"", timeout_s: float = 60.0) -> Result:
        return self.machine.run(command, input=input[: self.size], timeout_s=timeout_s)


def test_a_layer_is_listed_with_its_size_and_removed(layers: Layers) -> None:
    digest = f"sha256:{hashlib.sha256(BASE).hexdigest()}"
    assert layers.has([digest, "base", "other"]) == {"base"}
    assert layers.add(digest, BASE) == layers.add(digest, b"not read again") == layers.path(digest)
    assert layers.has([digest, "base"]) == {digest, "base"}
    assert 0 < layers.list()[digest] < 64 << 10
    layers.remove(digest)
    assert digest not in layers.list()
    with pytest.raises(UsageError, match="There is no layer"):
        layers.remove(digest)


@pytest.mark.parametrize("size", [0, 512, 1024, 2048, len(BASE) - 1024, len(BASE) - 512, len(BASE) - 1, len(BASE)])
def test_a_layer_of_which_not_all_has_arrived_is_none(n1: Machine, size: int) -> None:
    layers = Layers(CutOff(n1, size))
    with pytest.raises(MachineError, match="can't make layer 'part'"):
        layers.add("part", BASE)
    assert layers.has(["part"]) == set()
    assert "part" not in layers.list()
    assert ".new" not in n1.succeed(f"ls -A {LAYERS}")


class Stuck(CutOff):
    """A place whose line goes silent when `size` bytes have gone through; after a second its commands are killed."""

    def run(self, command: Sequence[str], *, input: bytes = b"", timeout_s: float = 60.0) -> Result:
        if not input:
            return self.machine.run(command)
        return self.machine.run(
            ["sh", "-c", '{ cat; sleep 60; } | "$@"', "sh", *command], input=input[: self.size], timeout_s=1.0
        )


def test_what_a_killed_unpacking_left_is_no_layer_and_goes_with_the_next(n1: Machine, layers: Layers) -> None:
    with pytest.raises(MachineError, match="not done within 1 s; it was killed"):
        Layers(Stuck(n1, 30 << 10)).add(
            "stuck", archive({"etc": ("d", "", 0o755), "large": ("f", "x" * 100_000, 0o644)})
        )
    left = n1.succeed(f"ls -A {LAYERS}").split()[0]
    assert left.startswith(".new-")
    assert n1.test(f"[ -d {LAYERS}/{left}/layer/etc ] && [ ! -e /proc/{left.removeprefix('.new-')} ]")
    assert layers.has("stuck") == set()
    assert not any(name.startswith(".") for name in layers.list())
    layers.add("stuck", BASE)
    assert ".new" not in n1.succeed(f"ls -A {LAYERS}")
    assert layers.tar_of(layers.path("stuck")) == layers.tar_of(layers.path("base"))
    layers.remove("stuck")


def test_an_archive_that_is_none_is_an_error_with_what_tar_said(layers: Layers) -> None:
    with pytest.raises(MachineError, match="does not look like a tar archive"):
        layers.add("wrong", b"garbage!" * 64 * 4000 + bytes(1024))
    for cut in (b"", BASE[:1024], BASE[:2560], BASE[:-1], b"\x1f\x8b" + bytes(600)):
        with pytest.raises(UsageError, match="cut short, or packed"):
            layers.add("wrong", cut)
    with pytest.raises(MachineError, match="can't make layer 'wrong'"):
        layers.keep("wrong", "/nowhere")
    assert layers.has("wrong") == set()


def test_several_that_add_one_layer_at_the_same_time_get_one(n1: Machine, layers: Layers) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: layers.add("twice", BASE), range(4))) == {layers.path("twice")}
    assert layers.tar_of(layers.path("twice")) == layers.tar_of(layers.path("base"))
    assert ".new" not in n1.succeed(f"ls -A {LAYERS}")
    layers.remove("twice")


# --- the image ------------------------------------------------------------------------------------------------------


def test_the_root_for_containers_is_the_same_bytes_wherever_it_is_built(tmp_path: Path) -> None:
    here, there = ImageStore(), ImageStore(tmp_path)
    path = here.rootfs("busybox")
    (tmp_path / "packages").mkdir()
    for package in [
        *here.directory.glob("packages/busybox-static_*"),
        *here.directory.glob("packages/ca-certificates_*"),
    ]:
        shutil.copy(package, tmp_path / "packages")
    assert there.rootfs("busybox").read_bytes() == path.read_bytes()


def test_the_root_for_containers_has_every_command_of_busybox(n1: Machine, layers: Layers) -> None:
    layers.add("busybox", ImageStore().rootfs("busybox"))
    root = Rootfs(n1, ["busybox"], "box")
    inside = f"chroot {root.mount()}"
    commands = n1.succeed(f"{inside} busybox --list").split()
    assert len(commands) > 200
    assert set(n1.succeed(f"{inside} ls /bin").split()) == set(commands) | {"busybox"}
    assert n1.succeed(
        f"{inside} sh -c 'cd; pwd; id -un; stat -c %a /tmp; grep -c BEGIN /etc/ssl/certs/ca-certificates.crt'"
    ).split()[:3] == ["/root", "root", "1777"]
    root.remove()
