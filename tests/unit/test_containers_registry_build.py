"""Builds: what each instruction makes of an image, what is made anew, and what COPY can't reach."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from cloudlab.containers.registry import Config, Image, Step, Store, build
from cloudlab.containers.registry.stack import merged, resolve
from cloudlab.errors import MachineError, UsageError

MTIME = 1_700_000_000


class Runner:
    """Pretends to run commands: each makes the file /made, with the command in it."""

    def __init__(self) -> None:
        self.ran: list[tuple[tuple[str, ...], Sequence[str], dict[str, str], str, str]] = []

    def run(
        self,
        layers: Sequence[str],
        command: Sequence[str],
        environment: Mapping[str, str],
        working_directory: str,
        user: str,
    ) -> bytes:
        self.ran.append((tuple(command), tuple(layers), dict(environment), working_directory, user))
        if "false" in command[-1]:
            raise MachineError("runner", "the command failed", exit_status=1)
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            header = tarfile.TarInfo("./made")
            header.size, header.mtime = len(command[-1]), int(time.time())
            archive.addfile(header, io.BytesIO(command[-1].encode()))
        return out.getvalue()


class Builder:
    """A build directory, a store and a runner."""

    def __init__(self, place: Path) -> None:
        self.place, self.store, self.runner, self.steps = (
            place / "context",
            Store(place / "store"),
            Runner(),
            list[Step](),
        )
        self.place.mkdir()

    def file(self, name: str, text: str = "", mode: int = 0o644) -> Path:
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def build(self, text: str, tag: str = "test", **arguments: str) -> Image:
        self.file("Containerfile", text)
        self.steps.clear()
        return build(self.store, self.place, self.runner, tag=tag, on_step=self.steps.append, arguments=arguments)

    def cached(self) -> list[bool]:
        return [step.cached for step in self.steps if step.layer]

    def files(self, image: Image) -> dict[str, tarfile.TarInfo]:
        """What the uppermost layer has."""
        with tarfile.open(self.store.blob_path(image.layers[-1].digest)) as archive:
            return {member.name: member for member in archive}


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path)


def base(builder: Builder, add: Callable[[tarfile.TarFile], None]) -> None:
    """Make the image base:1, of one layer."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        add(archive)
    with builder.store.layer_writer() as writer:
        writer.write(out.getvalue())
        layer = writer.commit()
    config = Config(diff_ids=(layer.diff_id,), env=("A=base",), cmd=("base",))
    builder.store.add_image(config, (layer.descriptor,), "base:1")


def member(name: str, kind: bytes, mode: int = 0o755, target: str = "") -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.mode, header.linkname = kind, mode, target
    return header


def ordinary(archive: tarfile.TarFile) -> None:
    archive.addfile(member("tmp", tarfile.DIRTYPE, 0o1777))
    archive.addfile(member("usr/bin", tarfile.DIRTYPE, 0o711))
    archive.addfile(member("bin", tarfile.SYMTYPE, target="usr/bin"))
    archive.addfile(member("usr/bin/sh", tarfile.REGTYPE))


# --- what instructions make ---


def test_every_instruction_leaves_its_mark_on_the_configuration(builder: Builder) -> None:
    config = builder.build(
        """
        FROM scratch
        ARG VERSION=1
        ENV A=$VERSION B="x y"
        ENV A=${A}2
        WORKDIR /srv
        WORKDIR app
        USER 5:6
        LABEL version="$VERSION" more=yes
        EXPOSE 80 53/udp
        ENTRYPOINT ["/bin/app"]
        CMD ["--help"]
        """,
        VERSION="7",
    ).config
    assert config.environment == {"A": "72", "B": "x y"}
    assert (config.working_dir, config.user) == ("/srv/app", "5:6")
    assert config.labels == {"version": "7", "more": "yes"}
    assert config.exposed_ports == ("53/udp", "80/tcp")
    assert (config.entrypoint, config.cmd) == (("/bin/app",), ("--help",))
    assert [line["created_by"] for line in config.history][:2] == ["ARG VERSION=1", 'ENV A=$VERSION B="x y"']
    assert all(line["empty_layer"] for line in config.history)


def test_an_image_begins_as_the_one_below(builder: Builder) -> None:
    base(builder, ordinary)
    image = builder.build("FROM base:1\nENV B=own\nRUN make\n")
    assert image.layers[0] == builder.store.layers("base:1")[0]
    assert image.config.environment == {"A": "base", "B": "own"}
    assert image.config.cmd == ("base",)
    assert len(image.config.diff_ids) == 2


def test_an_entrypoint_of_ones_own_drops_the_command_of_the_image_below(builder: Builder) -> None:
    base(builder, ordinary)
    assert builder.build('FROM base:1\nENTRYPOINT ["own"]').config.cmd == ()
    assert builder.build('FROM base:1\nCMD ["x"]\nENTRYPOINT ["own"]').config.cmd == ("x",)


def test_a_command_is_run_on_the_layers_so_far(builder: Builder) -> None:
    base(builder, ordinary)
    image = builder.build('FROM base:1\nARG V=3\nENV B=own\nWORKDIR /srv\nUSER me\nRUN echo $V\nRUN ["true", "x"]')
    [first, second] = builder.runner.ran
    assert first[0] == ("/bin/sh", "-c", "echo $V")
    assert first[1] == (image.layers[0].digest,)
    assert first[2] == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "A": "base",
        "B": "own",
        "V": "3",
    }
    assert first[3:] == ("/srv", "me")
    assert second[:2] == (("true", "x"), (image.layers[0].digest, image.layers[1].digest))
    assert builder.files(image)["made"].mtime == 0


def test_a_command_that_fails_fails_the_build_and_is_not_remembered(builder: Builder) -> None:
    for _ in range(2):
        with pytest.raises(MachineError, match="the command failed"):
            builder.build("FROM scratch\nRUN false")
    assert len(builder.runner.ran) == 2
    assert not builder.store.images()


# --- COPY ---


def test_files_are_copied_and_are_roots(builder: Builder) -> None:
    builder.file("app", "x", 0o755)
    builder.file("data/deep/a", "y")
    (builder.place / "data/link").symlink_to("../app")
    files = builder.files(builder.build("FROM scratch\nCOPY app data /srv/"))
    assert list(files) == ["srv", "srv/app", "srv/deep", "srv/deep/a", "srv/link"]
    assert (files["srv/app"].mode, files["srv/app"].uid, files["srv/app"].mtime) == (0o755, 0, 0)
    assert files["srv/link"].linkname == "../app"


@pytest.mark.parametrize(
    ("copy", "paths"),
    [
        ("COPY a /b", ["b"]),
        ("COPY a /dir/", ["dir", "dir/a"]),
        ("COPY a.* c /dir/", ["dir", "dir/a.x", "dir/a.y", "dir/c"]),
        ("COPY sub /dir", ["dir", "dir/s"]),
        ("COPY sub/* /dir/", ["dir", "dir/s"]),
        ("WORKDIR /w\nCOPY a .", ["w", "w/a"]),
        ("WORKDIR /w\nCOPY a other", ["w", "w/other"]),
        ('COPY ["a", "/with space"]', ["with space"]),
        ("ENV D=/d\nCOPY a $D/a", ["d", "d/a"]),
    ],
)
def test_where_copies_go(builder: Builder, copy: str, paths: list[str]) -> None:
    for name in ("a", "a.x", "a.y", "c", "sub/s"):
        builder.file(name)
    assert list(builder.files(builder.build(f"FROM scratch\n{copy}"))) == paths


def test_a_copy_leaves_directories_below_as_they_are_and_follows_their_links(builder: Builder) -> None:
    base(builder, ordinary)
    builder.file("tool")
    files = builder.files(builder.build("FROM base:1\nCOPY tool /bin/\nCOPY tool /tmp/x"))
    assert {name: each.mode for name, each in files.items()} == {"tmp": 0o1777, "tmp/x": 0o644}
    files = builder.files(builder.build("FROM base:1\nCOPY tool /bin"))
    assert list(files) == ["usr", "usr/bin", "usr/bin/tool"]
    assert files["usr/bin"].mode == 0o711


def test_links_of_the_image_lead_nowhere_else() -> None:
    from cloudlab.containers.registry.entries import Entry, Kind

    shown = {"up": Entry("up", Kind.SYMLINK, target="../../etc"), "loop": Entry("loop", Kind.SYMLINK, target="loop")}
    assert resolve(shown, "/up/passwd") == "etc/passwd"
    with pytest.raises(UsageError, match="too many symbolic links"):
        resolve(shown, "/loop/x")


def test_a_file_can_not_replace_a_directory(builder: Builder) -> None:
    base(builder, ordinary)
    builder.file("usr/bin")
    with pytest.raises(UsageError, match=r"line 2: COPY: .* is a file, and /usr/bin in the image a directory"):
        builder.build("FROM base:1\nCOPY usr /usr")


@pytest.mark.parametrize(
    "source", ["../secret", "/../secret", "sub/../../secret", "link", "dirlink/secret", "dirlink/*", "up"]
)
def test_a_copy_can_not_leave_the_build_directory(builder: Builder, source: str) -> None:
    (builder.place.parent / "secret").write_text("secret")
    (builder.place / "link").symlink_to("../secret")
    (builder.place / "dirlink").symlink_to("..")
    (builder.place / "up").symlink_to("/etc")
    with pytest.raises(UsageError, match=r"Containerfile, line 2: COPY: .* leads out of"):
        builder.build(f"FROM scratch\nCOPY {source} /")


def test_what_is_ignored_is_not_copied(builder: Builder) -> None:
    for name in ("a", "b.log", "sub/keep", "sub/other", "secret"):
        builder.file(name)
    builder.file(".containerignore", "*.log\nsub/*\n!sub/keep\nsecret\nContainerfile\n.containerignore\n")
    (builder.place / "alias").symlink_to("secret")
    assert list(builder.files(builder.build("FROM scratch\nCOPY . /"))) == ["a", "alias", "sub", "sub/keep"]
    for source in ("secret", "alias"):
        with pytest.raises(UsageError, match="ignore file"):
            builder.build(f"FROM scratch\nCOPY {source} /")


def test_what_is_no_file_is_not_copied(builder: Builder) -> None:
    os.mkfifo(builder.place / "pipe")
    with pytest.raises(UsageError, match="a device, a socket or a fifo"):
        builder.build("FROM scratch\nCOPY . /")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("FROM nowhere:1", "line 1: There is no image 'nowhere:1'"),
        ("FROM scratch\nCOPY none /", "line 2: COPY: there is no 'none'"),
        ("FROM scratch\nCOPY Containerfile Containerfile /x", "a directory, with / at its end"),
    ],
)
def test_a_mistake_is_told_with_its_line(builder: Builder, text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        builder.build(text)


def test_an_argument_that_is_not_declared_is_a_mistake(builder: Builder) -> None:
    with pytest.raises(UsageError, match="has no ARG X"):
        builder.build("FROM scratch", X="1")


# --- the cache ---

TEXT = "FROM scratch\nCOPY first /\nRUN one\nCOPY second /\nRUN two\n"


def test_the_first_step_that_changes_and_all_behind_it_are_made_anew(builder: Builder) -> None:
    builder.file("first", "1")
    builder.file("second", "2")
    before = builder.build(TEXT)
    assert builder.cached() == [False] * 4
    assert builder.build(TEXT) == before
    assert builder.cached() == [True] * 4
    builder.file("second", "changed")
    after = builder.build(TEXT)
    assert builder.cached() == [True, True, False, False]
    assert after.layers[:2] == before.layers[:2]
    builder.build(TEXT.replace("RUN one", "ENV A=1\nRUN one"))
    assert builder.cached() == [True, False, False, False]
    assert len(builder.runner.ran) == 5


def test_times_of_files_change_nothing_but_modes_do(builder: Builder) -> None:
    path = builder.file("first", "1")
    builder.file("second", "2")
    builder.build(TEXT)
    os.utime(path, (MTIME, MTIME))
    builder.build(TEXT)
    assert builder.cached() == [True] * 4
    path.chmod(0o755)
    builder.build(TEXT)
    assert builder.cached() == [False] * 4


def test_an_argument_decides_over_the_steps_behind_it(builder: Builder) -> None:
    text = "FROM scratch\nARG V=1\nRUN echo $V"
    builder.build(text)
    builder.build(text, V="2")
    assert builder.cached() == [False]
    builder.build(text)
    assert builder.cached() == [True]


def test_the_same_input_is_the_same_image_on_another_computer(builder: Builder, tmp_path: Path) -> None:
    for name in ("first", "second"):
        os.utime(builder.file(name, name), (MTIME, MTIME))
    one = builder.build(TEXT)
    for name in ("first", "second"):
        (builder.place / name).touch()
    other = build(Store(tmp_path / "other"), builder.place, Runner(), tag="test")
    assert other.digest == one.digest


def test_a_layer_that_was_lost_is_made_anew(builder: Builder) -> None:
    builder.file("first", "1")
    builder.file("second", "2")
    before = builder.build(TEXT)
    builder.store.blob_path(before.layers[1].digest).unlink()
    assert builder.build(TEXT) == before
    assert builder.cached() == [True, False, True, True]


def test_what_the_image_shows_is_what_was_built(builder: Builder) -> None:
    builder.file("first", "1")
    builder.file("second", "2")
    image = builder.build(TEXT)
    assert set(merged(builder.store, [layer.digest for layer in image.layers])) == {"first", "second", "made"}
