"""Stacks of layers: which layer answers for a path, what a stack is mounted with, what differs from one container to the next."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cloudlab.containers.calls import Calls
from cloudlab.containers.layerstore import Layers
from cloudlab.containers.rootfs import (
    InitLayer,
    Kind,
    Overlay,
    Rootfs,
    Stack,
    changes,
    enter_root,
    init_layer,
    resolve,
)
from cloudlab.errors import MachineError, UsageError
from cloudlab.machines.result import Result

_LETTERS = {"f": Kind.FILE, "d": Kind.DIRECTORY, "l": Kind.LINK, "w": Kind.WHITEOUT, "o": Kind.OPAQUE}
DIGEST = "sha256:" + "5" * 64


def layer(text: str) -> dict[str, Kind]:
    """Write a listing as words: d/etc is a directory, f a file, l a link, w a whiteout, o an opaque directory."""
    return {word[1:]: _LETTERS[word[0]] for word in text.split()}


def stack(**layers: str) -> dict[str, dict[str, Kind]]:
    return {name: layer(text) for name, text in layers.items()}


@pytest.mark.parametrize(
    ("upper", "middle", "base", "answers", "why"),
    [
        ("", "", "f/x", ["base"], "base is the highest layer that has it"),
        ("f/x", "", "f/x", ["upper"], "upper is the highest"),
        ("", "f/x", "f/x", ["middle"], "middle is the highest"),
        ("", "", "l/x", ["base"], "base is the highest"),
        ("w/x", "f/x", "f/x", [], "upper has a whiteout: it was deleted there"),
        ("", "w/x", "f/x", [], "middle has a whiteout"),
        ("f/x", "w/x", "f/x", ["upper"], "upper is the highest"),
        ("w/x", "", "", [], "upper has a whiteout"),
        ("d/x", "", "d/x", ["upper", "base"], "merged from upper, base"),
        ("d/x", "d/x", "d/x", ["upper", "middle", "base"], "merged from upper, middle, base"),
        ("", "", "d/x", ["base"], "base is the highest"),
        ("o/x", "d/x", "d/x", ["upper"], "upper has an opaque directory: nothing below it is seen"),
        ("d/x", "o/x", "d/x", ["upper", "middle"], "merged from upper, middle"),
        ("d/x", "w/x", "d/x", ["upper"], "upper is the highest"),
        ("d/x", "f/x", "d/x", ["upper"], "upper is the highest"),
        ("d/x", "l/x", "d/x", ["upper"], "upper is the highest"),
        ("f/x", "d/x", "d/x", ["upper"], "upper is the highest"),
        ("w/x", "d/x", "d/x", [], "upper has a whiteout"),
    ],
)
def test_the_layer_that_answers_for_a_path(upper: str, middle: str, base: str, answers: list[str], why: str) -> None:
    found = resolve(stack(upper=upper, middle=middle, base=base))["/x"]
    assert list(found.answers) == answers
    assert found.layer == (answers[0] if answers else None)
    assert why in found.why


@pytest.mark.parametrize(
    ("upper", "middle", "base", "answers"),
    [
        ("d/x", "d/x", "d/x f/x/y", ["base"]),
        ("o/x", "d/x f/x/y", "d/x f/x/y", []),
        ("d/x", "o/x", "d/x f/x/y", []),
        ("d/x", "o/x f/x/y", "d/x f/x/y", ["middle"]),
        ("d/x", "w/x", "d/x f/x/y", []),
        ("d/x", "f/x", "d/x f/x/y", []),
        ("w/x", "d/x f/x/y", "", []),
        ("f/x", "d/x f/x/y", "", []),
        ("l/x", "d/x f/x/y", "", []),
        ("", "f/x", "d/x f/x/y", []),
        ("o/x d/x/y", "", "d/x d/x/y", ["upper"]),
        ("d/x w/x/y", "d/x f/x/y", "", []),
        ("d/x", "d/x w/x/y", "d/x f/x/y", []),
        ("d/x f/x/y", "d/x w/x/y", "d/x f/x/y", ["upper"]),
    ],
)
def test_what_lies_in_a_directory_is_asked_only_of_the_layers_that_are_merged_there(
    upper: str, middle: str, base: str, answers: list[str]
) -> None:
    assert list(resolve(stack(upper=upper, middle=middle, base=base))["/x/y"].answers) == answers


def test_what_is_hidden_says_by_what() -> None:
    found = resolve(stack(upper="w/a o/b", base="d/a d/a/c f/a/c/e d/b f/b/d"))
    assert found["/a/c/e"].why == found["/a"].why == "upper has a whiteout: it was deleted there"
    assert found["/b/d"].why == "in /b only upper can be seen"
    assert str(found["/b/d"]) == "/b/d: nobody answers: in /b only upper can be seen"
    assert (found["/b"].kind, found["/b/d"].kind) == (Kind.OPAQUE, None)


def test_a_name_that_begins_like_a_directory_is_not_in_it() -> None:
    found = resolve(stack(upper="w/a", base="d/a f/a-b f/a.c f/a/b"))
    assert [path for path, each in found.items() if each.answers] == ["/", "/a-b", "/a.c"]


def test_the_root_is_merged_from_all_layers_even_if_one_says_it_is_opaque() -> None:
    found = resolve({"upper": {"/": Kind.OPAQUE}, "base": layer("f/x")})
    assert found["/"].answers == ("upper", "base")
    assert found["/x"].layer == "base"


@pytest.mark.parametrize("listing", ["f/x/y", "f/x f/x/y", "w/x f/x/y"])
def test_a_listing_that_no_directory_can_have_is_a_mistake(listing: str) -> None:
    with pytest.raises(UsageError, match="no directory '/x'"):
        resolve(stack(upper=listing, base="d/x"))
    with pytest.raises(UsageError, match="no directory ''"):
        resolve({"upper": {"etc": Kind.DIRECTORY}})


@pytest.mark.parametrize(
    ("upper", "base", "expected"),
    [
        ("", "f/x", ""),
        ("f/x", "", "A /x"),
        ("f/x", "f/x", "C /x"),
        ("w/x", "f/x", "D /x"),
        ("w/x", "", ""),
        ("w/x", "d/x f/x/y", "D /x"),
        ("d/x f/x/y", "d/x", "C /x, A /x/y"),
        ("d/x w/x/y", "d/x d/x/y f/x/y/z", "C /x, D /x/y"),
        ("o/x f/x/z", "d/x f/x/y f/x/z", "C /x, D /x/y, C /x/z"),
        ("o/x d/x/e", "d/x d/x/e f/x/e/y", "C /x, C /x/e, D /x/e/y"),
        ("f/x", "d/x f/x/y", "C /x"),
        ("o/x", "f/x", "C /x"),
        ("d/x d/x/y f/x/y/z", "", "A /x, A /x/y, A /x/y/z"),
    ],
)
def test_changes_are_those_that_docker_diff_tells(upper: str, base: str, expected: str) -> None:
    assert ", ".join(map(str, changes(stack(upper=upper, base=base)))) == expected


def test_changes_are_against_what_the_lower_layers_show_not_against_what_they_have() -> None:
    layers = stack(upper="f/x", init="w/x", base="f/x f/y")
    assert [str(each) for each in changes(layers)] == ["A /x"]


def test_a_stack_is_printed_as_a_table() -> None:
    layers = stack(upper="w/x", base="f/x d/etc")
    lines = str(Stack(tuple(layers), resolve(layers))).splitlines()
    assert lines[0].split() == ["PATH", "upper", "base", "ANSWERS"]
    assert lines[2].split() == ["/etc", "directory", "base"]
    assert lines[3].split() == ["/x", "whiteout", "file", "nobody"]
    assert lines[2].index("base") == lines[0].index("ANSWERS")


def test_a_part_of_a_stack_is_a_stack() -> None:
    layers = stack(upper="w/x", base="f/x d/etc f/etc/hosts f/etc-old")
    whole = Stack(tuple(layers), resolve(layers))
    for name in ("/etc", "etc/"):
        assert [each.path for each in whole.below(name)] == ["/etc", "/etc/hosts"]
    assert whole.below("/") == whole
    assert whole["etc/hosts"].layer == "base"


def test_the_options_of_a_mount_name_the_highest_lower_first() -> None:
    overlay = Overlay(("/l/app", "/l/base"), "/c/upper", "/c/work")
    assert overlay.options == "lowerdir=/l/app:/l/base,upperdir=/c/upper,workdir=/c/work"
    calls = Calls()
    overlay.add_mount(calls, "/c/merged")
    assert str(calls) == f'mount("overlay", "/c/merged", "overlay", 0, "{overlay.options}")'
    assert Overlay(("/l",), "/u", "/w", user=True).options.endswith(",workdir=/w,userxattr")


def test_what_parts_options_is_escaped_in_paths() -> None:
    overlay = Overlay(("/sha256:1", r"/a\b"), "/u,ro", "/w:1")
    assert overlay.options == r"lowerdir=/sha256\:1:/a\\b,upperdir=/u\,ro,workdir=/w\:1"


@pytest.mark.parametrize(
    ("lowers", "upper", "work"),
    [
        ((), "/u", "/w"),
        (("/l", "/l"), "/u", "/w"),
        (("/u",), "/u", "/w"),
        (("l",), "/u", "/w"),
        (("/l",), "", "/w"),
        (("/l\0",), "/u", "/w"),
    ],
)
def test_an_overlay_that_can_not_be_is_refused(lowers: tuple[str, ...], upper: str, work: str) -> None:
    with pytest.raises(UsageError, match="No overlay can be made"):
        Overlay(lowers, upper, work)


def overlay_of(count: int) -> Overlay:
    return Overlay(tuple(f"/var/lib/cloudlab/layers/{number:064x}" for number in range(count)), "/c/upper", "/c/work")


@pytest.mark.parametrize("count", [45, 46, 200])
def test_options_longer_than_a_page_name_the_layers_by_descriptors(count: int) -> None:
    calls = Calls()
    overlay_of(count).add_mount(calls, "/m")
    mounts = [call for call in calls if call.name == "mount"]
    assert len(mounts) == 1
    assert len(str(mounts[0].arguments[-1])) < 4096
    opened = [call.arguments[0] for call in calls if call.name == "open"]
    assert opened == ([] if count == 45 else list(overlay_of(count).lowers))
    assert [call.arguments[:2] for call in calls if call.name == "close_range"] == (
        [] if count == 45 else [(300, 299 + count)]
    )


def test_more_layers_than_a_mount_can_name_are_refused() -> None:
    with pytest.raises(UsageError, match="300 layers are too many"):
        overlay_of(300).add_mount(Calls(), "/m")


def test_a_root_is_entered_with_four_calls() -> None:
    calls = Calls()
    enter_root(calls, "/m")
    assert str(calls).splitlines() == ['chdir("/m")', 'pivot_root(".", ".")', 'umount2(".", DETACH)', 'chdir("/")']


def test_an_init_layer_has_the_files_that_differ_between_containers() -> None:
    files = init_layer("web", {"db": "10.1.0.3"}, ["10.1.0.1", "10.1.0.2"]).files
    assert files == {
        "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 web\n10.1.0.3 db\n",
        "etc/hostname": "web\n",
        "etc/resolv.conf": "nameserver 10.1.0.1\nnameserver 10.1.0.2\n",
    }


def test_an_init_layer_belongs_to_whom_it_is_said() -> None:
    calls, owned = Calls(), Calls()
    layer = InitLayer(["etc"], {"etc/hostname": "web\n"})
    layer.add_to(calls, "/i")
    layer.add_to(owned, "/i", owner=1000)
    assert "chown" not in str(calls)
    assert str(owned).splitlines()[-3:] == [f'chown("/i/{name}", 1000, 1000)' for name in ("", "etc", "etc/hostname")]


class Nowhere:
    """A place in which nothing can be done: what is refused is refused before."""

    name = "nowhere"

    def run(self, command: Sequence[str], *, input: bytes = b"", timeout_s: float = 60.0) -> Result:
        return Result(" ".join(command), 1, b"", b"nothing works here")


@pytest.mark.parametrize("name", ["", "Base", "../base", "a/b", "-x", "sha256:12", "x" * 128])
def test_what_can_not_name_a_layer_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no name of a layer"):
        Layers(Nowhere()).path(name)


def test_a_layer_lies_under_its_digest_or_its_name() -> None:
    layers = Layers(Nowhere())
    assert layers.path(DIGEST) == layers.path("5" * 64) == "/var/lib/cloudlab/layers/" + "5" * 64
    assert layers.path("with-motd_1.0").endswith("/with-motd_1.0")


@pytest.mark.parametrize("name", ["", "C1", "c_1", "c.1", "-c", "../c", "x" * 64])
def test_what_can_not_name_a_host_can_not_name_a_root(name: str) -> None:
    with pytest.raises(UsageError, match="no name for a root"):
        Rootfs(Nowhere(), ["base"], name)


def test_a_place_that_fails_is_an_error_with_what_it_said() -> None:
    with pytest.raises(MachineError, match="nowhere: can't make /var/lib/cloudlab") as caught:
        Rootfs(Nowhere(), ["base"], "c1")
    assert "nothing works here" in str(caught.value)
