"""The root of a container: read-only layers, an init layer and a read-write layer, which overlayfs shows as one tree."""

from __future__ import annotations

import errno
import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cloudlab.containers.calls import CallError, Calls, Place, make
from cloudlab.containers.layerstore import DIRECTORY, Layers, listings, output_of, prepare
from cloudlab.containers.stack import Change, Kind, Listing, Resolved, Stack, absolute, changes, resolve
from cloudlab.containers.syscalls import Open, Umount
from cloudlab.errors import UsageError

__all__ = [
    "Change",
    "InitLayer",
    "Kind",
    "Overlay",
    "Resolved",
    "Rootfs",
    "Stack",
    "changes",
    "changes_in",
    "enter_root",
    "init_layer",
    "listings",
    "resolve",
]
_DATA_LIMIT = 4095  # mount(2) copies one page of options, of which the last byte is 0
_FIRST_FD = 300
_DIGEST = re.compile(r"^([0-9a-f]{12})[0-9a-f]{52}")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")  # it becomes the host's name: RFC 1123, 2.1


@dataclass(frozen=True)
class Overlay:
    """One mount of overlayfs: `lowers` (the highest first) are only read, and `upper` gets all that is written.

    `work` is an empty directory of overlayfs's own on the file system of `upper`. `user`: mounted in a user namespace, whiteouts
    and opaque directories are noted in attributes that need no privilege (option userxattr).
    Source: Linux, Documentation/filesystems/overlayfs.rst.
    """

    lowers: tuple[str, ...]
    upper: str
    work: str
    user: bool = False

    def __post_init__(self) -> None:
        paths = (*self.lowers, self.upper, self.work)
        if (
            not self.lowers
            or len(set(paths)) < len(paths)
            or not all(path[:1] == "/" and "\0" not in path for path in paths)
        ):
            raise UsageError(
                f"No overlay can be made of lower {', '.join(self.lowers) or 'nothing'}, upper {self.upper!r}, work {self.work!r}.",
                allowed="absolute paths, each once, and at least one lower",
                example='Overlay(("/layers/app", "/layers/base"), "/c1/upper", "/c1/work")',
            )

    @property
    def options(self) -> str:
        """The last argument of mount(2)."""
        return self._options(self.lowers)

    def _options(self, lowers: Sequence[str]) -> str:
        options = [f"lowerdir={':'.join(map(_escaped, lowers))}", f"upperdir={_escaped(self.upper)}"]
        return ",".join([*options, f"workdir={_escaped(self.work)}", *(["userxattr"] if self.user else [])])

    def add_mount(self, calls: Calls, target: str) -> None:
        """Add the mount, in the namespaces of the process that makes the calls.

        Where the options don't fit into the page that mount(2) takes (more than about 40 layers), the layers are opened
        and named by their descriptors, /proc/self/fd/N: about 200 fit.
        """
        if _fits(self.options):
            calls.call("mount", "overlay", target, "overlay", 0, self.options)
            return
        numbers = range(_FIRST_FD, _FIRST_FD + len(self.lowers))
        options = self._options([f"/proc/self/fd/{number}" for number in numbers])
        if not _fits(options):
            raise UsageError(f"{len(self.lowers)} layers are too many for one mount.", allowed="about 200 layers")
        for number, lower in zip(numbers, self.lowers, strict=True):
            file = calls.call("open", lower, Open.PATH | Open.DIRECTORY | Open.CLOEXEC)
            calls.call("dup3", file, number, Open.CLOEXEC)
            calls.call("close", file)
        calls.call("mount", "overlay", target, "overlay", 0, options)
        calls.call("close_range", numbers.start, numbers.stop - 1, 0)


def _escaped(path: str) -> str:
    r"""Colons part lower directories and commas options; a backslash before them makes them letters."""
    return re.sub(r"([\\:,])", r"\\\1", path)


def _fits(options: str) -> bool:
    return len(os.fsencode(options)) <= _DATA_LIMIT


def enter_root(calls: Calls, new_root: str) -> None:
    """Add the calls that make a mount the root of this process and its children, and let go of the old root: pivot_root(2).

    The second "." puts the old root on top of the new one, from where it is taken away: no directory for it is needed.
    The process must have a mount namespace of its own, whose mounts are private.
    """
    calls.call("chdir", new_root)
    calls.call("pivot_root", ".", ".")
    calls.call("umount2", ".", Umount.DETACH)
    calls.call("chdir", "/")


@dataclass(frozen=True)
class InitLayer:
    """What differs from one container to the next, between its image and what it writes: files of /etc, and mount points.

    A directory here is merged with the image's, and it is this one's mode that is seen: only those that are 0755 belong here.
    """

    directories: Sequence[str] = ("dev", "proc", "sys", "etc")
    files: Mapping[str, str] = field(default_factory=dict)

    def add_to(self, calls: Calls, directory: str, owner: int = 0) -> None:
        """Add the calls that write it into a directory; all in it belongs to `owner`."""
        calls.call("mkdir", directory, 0o755, harmless=[errno.EEXIST])
        for name in self.directories:
            calls.call("mkdir", f"{directory}/{name}", 0o755, harmless=[errno.EEXIST])
        for name, text in self.files.items():
            calls.write_file(f"{directory}/{name}", text, flags=Open.WRONLY | Open.CREAT | Open.TRUNC)
        for name in ("", *self.directories, *self.files) if owner else ():
            calls.call("chown", f"{directory}/{name}", owner, owner)


def init_layer(hostname: str, hosts: Mapping[str, str] | None = None, nameservers: Sequence[str] = ()) -> InitLayer:
    """Return the init layer with hosts(5), hostname(5) and resolv.conf(5); `hosts`: name -> address."""
    known = {"localhost": "127.0.0.1", hostname: "127.0.1.1", **(hosts or {})}
    files = {
        "etc/hosts": "".join(f"{address} {name}\n" for name, address in known.items()),
        "etc/hostname": f"{hostname}\n",
        "etc/resolv.conf": "".join(f"nameserver {address}\n" for address in nameservers),
    }
    return InitLayer(files=files)


class Rootfs:
    """The root of a container, made by hand: layers of an image, an init layer above them, a read-write layer on top.

    The layers of the image are only read, and shared by all containers. What a container writes goes into its `upper`. A file
    of a lower layer is copied up when it is first opened for writing; one that is deleted is covered by a whiteout.

    `layers` from the bottom up, as images list them: names or digests that `Layers` keeps, or directories in the place.
    The directories are made at once, in /var/lib/cloudlab/rootfs/NAME (see `prepare` for the file system they lie on).
    """

    def __init__(
        self,
        place: Place,
        layers: Sequence[str],
        name: str,
        *,
        hosts: Mapping[str, str] | None = None,
        nameservers: Sequence[str] = (),
    ) -> None:
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is no name for a root.",
                allowed="lower-case letters, digits and -, at most 63: it becomes the host's name",
                example='Rootfs(n1, ["base"], "c1")',
            )
        self.place, self.name, self.directory = place, name, f"{DIRECTORY}/rootfs/{name}"
        self.init, self.upper, self.merged = (f"{self.directory}/{part}" for part in ("init", "upper", "merged"))
        self._kept = Layers(place)
        lowers = [layer.rstrip("/") if layer.startswith("/") else self._kept.path(layer) for layer in layers]
        self.overlay = Overlay((self.init, *reversed(lowers)), self.upper, f"{self.directory}/work")
        prepare(place)
        self._create(hosts, nameservers)

    def _create(self, hosts: Mapping[str, str] | None, nameservers: Sequence[str]) -> None:
        calls = Calls()
        for layer in self.overlay.lowers[1:]:
            calls.call("open", layer, Open.PATH | Open.DIRECTORY)  # is it there?
        for path in (self.directory, self.upper, self.overlay.work, self.merged):
            calls.call("mkdir", path, 0o755, harmless=[errno.EEXIST])
        init_layer(self.name, hosts, nameservers).add_to(calls, self.init)
        try:
            make(self.place, calls)
        except CallError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR) or error.outcome.call.name != "open":
                raise
            raise UsageError(
                f"There is no layer {error.outcome.call.arguments[0]!s} in {self.place.name}.",
                allowed=", ".join(self._kept.list()) or "a directory there",
                example='Layers(n1).add("base", ImageStore().rootfs("busybox"))',
            ) from error

    def mount(self) -> str:
        """Mount the stack, and return the directory where it is seen. Raises `UsageError` if it is mounted."""
        if self.is_mounted():
            raise UsageError(f"{self.name} is mounted already.", allowed="one mount: two would spoil the upper layer")
        calls = Calls()
        self.overlay.add_mount(calls, self.merged)
        make(self.place, calls)
        return self.merged

    def unmount(self) -> None:
        """Take the mount away; the layers stay. Raises `UsageError` if it is not mounted, `CallError` (EBUSY) if it is in use."""
        if not self.is_mounted():
            raise UsageError(f"{self.name} is not mounted.", example=f'Rootfs(n1, ["base"], "{self.name}").mount()')
        calls = Calls()
        calls.call("umount2", self.merged, 0)
        make(self.place, calls)

    def is_mounted(self) -> bool:
        """Is the stack mounted at `merged`?"""
        return self.place.run(["mountpoint", "-q", self.merged]).ok

    def remove(self) -> None:
        """Unmount it if it is mounted, and remove all but the layers of the image: what was written is gone."""
        if self.is_mounted():
            self.unmount()
        output_of(self.place, f"can't remove {self.name}", ["rm", "-rf", self.directory])

    def stack(self, directory: str = "/") -> Stack:
        """Return for every path (in `directory`) which layers have it, and which one answers. Layers are read, not the mount."""
        layers = self._listings()
        return Stack(tuple(layers), resolve(layers)).below(directory)

    def answer(self, path: str) -> Resolved:
        """Say which layer answers for one path, and why."""
        found = self.stack().paths
        path = absolute(path)
        above = path
        while above not in found:
            above = posixpath.dirname(above)
        if path != above and found[above].kind is Kind.LINK:
            raise UsageError(
                f"{above} is a symbolic link.", allowed="a path of layers, on which no link lies", example="/usr/bin/sh"
            )
        return found.get(path) or Resolved(path, {}, (), "no layer has it")

    def copy_up(self, path: str) -> tuple[Resolved, Resolved]:
        """Open a file for writing and write nothing: that alone copies it up. Returns who answered before, and who does now."""
        before = self.answer(path)
        if before.kind is not Kind.FILE or not self.is_mounted():
            raise UsageError(
                f"{path} can't be copied up: {before}.", allowed="a file that is seen, of a stack that is mounted"
            )
        calls = Calls()
        calls.call("open", self.merged + before.path, Open.WRONLY)
        make(self.place, calls)
        return before, self.answer(path)

    def changes(self) -> list[Change]:
        """Return what was added (A), changed (C) and deleted (D) since the container began, as `docker diff` does."""
        return changes_in(self.place, self.overlay)

    def commit(self, name: str) -> str:
        """Keep what was written as a new read-only layer, and return its name: roots can have it on top of these layers."""
        self._kept.keep(name, self.upper)
        return name

    def _listings(self) -> dict[str, Listing]:
        lowers = self.overlay.lowers[1:]
        names = [_DIGEST.sub(r"\1", posixpath.basename(path)) for path in lowers]
        names = list(lowers) if len({"upper", "init", *names}) < len(names) + 2 else names
        directories = {"upper": self.upper, "init": self.init, **dict(zip(names, lowers, strict=True))}
        return listings(self.place, directories, user=self.overlay.user)


def changes_in(place: Place, overlay: Overlay) -> list[Change]:
    """Return what the upper layer of an overlay adds (A), changes (C) and deletes (D) in the layers below it."""
    paths = (overlay.upper, *overlay.lowers)
    return changes(listings(place, dict(zip(paths, paths, strict=True)), user=overlay.user))
