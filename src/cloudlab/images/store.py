"""The images on this computer: found by the hash of all that goes into them, built, exported, imported, removed."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import zstandard
from filelock import FileLock, Timeout

from cloudlab.errors import CloudlabError, UsageError
from cloudlab.images import builder
from cloudlab.images.apt import Apt
from cloudlab.images.image import BOOT_FILES, RECORD, ROOT_FILES, Image, load, sealed
from cloudlab.images.packages import distribution, packages_for, write_lock
from cloudlab.images.recipe import Recipe, find_recipe, recipe_names
from cloudlab.paths import cache_directory
from cloudlab.progress import say
from cloudlab.units import format_size

_PIECE = 64 << 10  # written at a time
_KEPT = 3  # images of one name, so that switching between a few versions of a recipe needs no building
_LOCK_DEADLINE_S = 1800.0
_ROOM = 400 << 20  # an image (140 MB), packages (up to 130 MB), lists of packages (20 MB in Debian, more in Ubuntu)
_CONTENT = (*BOOT_FILES, *ROOT_FILES, RECORD)
_NAME = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)-(?P<key>[0-9a-f]{16}|imported)")


class ImageStore:
    """All images of this user, in `directory` (by default the cache; CLOUDLAB_CACHE moves it).

    An image is a directory that gets its name when it is complete: a half-written one has no name. One builder
    works at a time, others wait for it.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or cache_directory()
        self.images = self.directory / "images"

    def key(self, recipe: Recipe) -> str:
        """Return the hash of all that goes into the image: recipe, files, agent, locked packages, builder."""
        text = f"{builder.FORMAT}\0{recipe.name}\0{recipe.fingerprint()}\0{distribution()}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def find(self, name: str) -> Image | None:
        """Return the image if it is here and whole: the one built here, else one that was imported.

        An imported image serves if it was made from the same recipe, or if nothing can be built here (no apt-get).
        """
        recipe = find_recipe(name)
        if image := load(self._place(name, self.key(recipe))):
            return image
        imported = load(self._place(name, "imported"))
        if imported and (imported.recipe == recipe.fingerprint() or not distribution()):
            return imported
        return None

    def get(self, name: str = "node") -> Image:
        """Return an image that guests are started from, building it first if it is not here or damaged."""
        image = self._get(name)
        if not image.bootable:
            raise UsageError(
                f"{name!r} has no kernel: no guest can be started from it.",
                allowed=", ".join(sorted({*recipe_names()} - {*self.rootfs_names()})),
                example='lab.machine("n1", image="node")',
            )
        return image

    def rootfs(self, name: str = "busybox") -> Path:
        """Return the root for containers called `name`, a tar archive, building it first if it is not here or damaged."""
        image = self._get(name)
        if image.bootable:
            raise UsageError(
                f"{name!r} is what guests are started from, not a root for containers.",
                allowed=", ".join(self.rootfs_names()) or "none here",
                example='ImageStore().rootfs("busybox")',
            )
        return image.rootfs

    def rootfs_names(self) -> list[str]:
        """Return the names of all roots for containers."""
        return [name for name in recipe_names() if not find_recipe(name).bootable]

    def _get(self, name: str) -> Image:
        return self.find(name) or self.build(name)

    def build(self, name: str = "node", *, force: bool = False, relock: bool = False) -> Image:
        """Build the image from its recipe, unless it is here; `relock` takes the current packages and locks them."""
        recipe = find_recipe(name)
        with self._sole_builder(), _disk_errors(self.directory):
            if not (force or relock):
                if image := self.find(name):  # another process has built it while this one waited
                    return image
                if self._place(name, self.key(recipe)).exists():
                    say(f"image {name}: the one in {self.directory} is damaged, and is built anew")
            self._require_room()
            packages, untested = packages_for(recipe, Apt(self.directory), use_lock=not relock)
            began, fingerprint = time.time(), recipe.fingerprint()
            built = builder.build(recipe, packages, self.directory)
            if recipe.fingerprint() != fingerprint:  # else the image would have the name of the new recipe
                raise CloudlabError(f"recipe {name!r} was changed while it was built: build it again")
            if built.absent and not untested:
                raise CloudlabError(f"recipe {name!r} does not fit its packages:\n" + "\n".join(built.absent))
            untested += built.absent
            _say(name, untested)
            if relock:
                write_lock(recipe.lock_file, distribution(), built.used)
            image = self._write(recipe, built, untested, began)
            self._remove_older(name)
            return image

    def _write(self, recipe: Recipe, built: builder.Built, untested: list[str], began: float) -> Image:
        final = self._place(recipe.name, self.key(recipe))
        with self._workplace() as place:
            for name in BOOT_FILES if recipe.bootable else ROOT_FILES:
                with (place / name).open("wb") as file:
                    _WRITERS[name](built, file)
                    os.fsync(file.fileno())
            image = Image(
                name=recipe.name,
                key=self.key(recipe),
                directory=final,
                append=recipe.append,
                recipe=recipe.fingerprint(),
                kernel_release=built.release,
                packages={package.name: package.version for package in built.used},
                untested=untested,
                built_at=time.time(),
                build_s=time.time() - began,
            )
            image = sealed(image, place)
            _install(place, final)
        return image

    @contextmanager
    def _workplace(self) -> Iterator[Path]:
        self.images.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=self.images, prefix=".new-"))
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def all(self) -> list[Image]:
        """Return every image that is here and whole."""
        return [image for path in self._directories() if (image := load(path))]

    def remove(self, name: str) -> int:
        """Remove every image called `name`; returns how many bytes that freed."""
        doomed = self._directories(name)
        if not doomed:
            known = sorted({image.name for image in self.all()})
            raise UsageError(
                f"There is no image {name!r} here.",
                allowed=", ".join(known) or "none yet",
                example="cloudlab images list",
            )
        return _remove(doomed)

    def prune(self) -> int:
        """Remove every image that is not the current one of its recipe; returns how many bytes that freed."""
        current = {image.directory for name in recipe_names() if (image := self.find(name))}
        return _remove([path for path in self._directories() if path not in current])

    def _remove_older(self, name: str) -> None:
        """Keep the newest of a name, and what was imported.

        A running guest does not mind: QEMU has read its kernel and its initramfs. What is saved of an older image
        (a template) goes on being restored; only to be booted anew would it need the files, and is made of the
        current image then.
        """
        built = [path for path in self._directories(name) if not path.name.endswith("-imported")]
        age = {path: image.built_at if (image := load(path)) else 0.0 for path in built}
        _remove(sorted(built, key=lambda path: age[path], reverse=True)[_KEPT:])

    def _directories(self, name: str | None = None) -> list[Path]:
        """Return the directories of images, whole or not; another recipe's name can begin with this one."""
        found = {path: _NAME.fullmatch(path.name) for path in sorted(self.images.glob("*"))}
        return [path for path, match in found.items() if match and name in (None, match["name"])]

    def _place(self, name: str, key: str) -> Path:
        return self.images / f"{name}-{key}"

    def export(self, name: str, to: Path) -> Path:
        """Write an image to one file, packed with Zstandard, for computers that can't build. Equal images, equal files."""
        image = self._get(name)
        if not to.parent.is_dir():
            raise UsageError(f"There is no directory {to.parent}.", allowed="a file in a directory that is there")
        half = to.with_name(f".{to.name}.{os.getpid()}")
        try:
            with _disk_errors(to.parent), half.open("wb") as raw:
                _pack(image, raw)
            half.replace(to)
        finally:
            half.unlink(missing_ok=True)
        return to

    def import_(self, file: Path) -> Image:
        """Take in an exported image; every byte is compared with the hashes it carries."""
        if not file.is_file():
            raise UsageError(
                f"There is no file {file}.",
                allowed="a file that `cloudlab images export` wrote",
                example="cloudlab images import node.cloudlab-image",
            )
        with self._sole_builder(), _disk_errors(self.directory), self._workplace() as place:
            _unpack(file, place)
            image = load(place)
            if image is None or not image.is_whole() or not _NAME.fullmatch(f"{image.name}-imported"):
                raise UsageError(
                    f"{file} is damaged: its content does not fit its own hashes.",
                    allowed="a whole file: copy it again",
                )
            final = self._place(image.name, "imported")
            _install(place, final)
            return replace(image, directory=final)

    @contextmanager
    def _sole_builder(self) -> Iterator[None]:
        """Wait until no other process writes images here, and clear away what a killed one has left."""
        lock = FileLock(self.directory / ".images.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say("another process is building an image; waiting for it")
            try:
                lock.acquire(timeout=_LOCK_DEADLINE_S)
            except Timeout as error:
                raise CloudlabError(
                    f"another process has been building in {self.directory} for {_LOCK_DEADLINE_S:.0f} s"
                ) from error
        try:
            for pattern in ("images/.*", "apt/inbox-*", ".compiling-*", ".fetching-*"):
                for rest in self.directory.glob(pattern):
                    shutil.rmtree(rest, ignore_errors=True)
            yield
        finally:
            lock.release()

    def _require_room(self) -> None:
        free = shutil.disk_usage(self.directory).free
        if free < _ROOM:
            raise _no_room(self.directory, f"{format_size(free)} are free")


def _say(name: str, untested: list[str]) -> None:
    for line in untested[:8]:
        say(f"image {name}: {line}")
    if untested[8:]:
        say(f"image {name}: and {len(untested) - 8} remarks more: cloudlab images show {name}")


def _install(place: Path, final: Path) -> None:
    """Give a complete directory its name; what had the name before goes."""
    place.chmod(0o755)
    old = place.with_name(f"{place.name}-old")
    if final.exists():
        final.rename(old)
    place.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def _remove(directories: list[Path]) -> int:
    freed = sum(file.stat().st_size for path in directories for file in path.iterdir())
    for path in directories:
        shutil.rmtree(path)
    return freed


def _write_kernel(built: builder.Built, file: BinaryIO) -> None:
    """In pieces: what is written at once may be cached in pages of 2 MB, and each guest's QEMU, which reads a note in
    the middle, would map a whole one."""
    for start in range(0, len(built.vmlinux), _PIECE):
        file.write(built.vmlinux[start : start + _PIECE])


_WRITERS: dict[str, Callable[[builder.Built, BinaryIO], None]] = {
    "vmlinux": _write_kernel,
    "initrd.cpio": lambda built, file: built.root.write_cpio(file),
    "rootfs.tar": lambda built, file: built.root.write_tar(file),
}


def _pack(image: Image, raw: BinaryIO) -> None:
    """Write tar in zstd: owner, time and mode of this computer's files stay here."""
    packer = zstandard.ZstdCompressor(level=10, threads=-1)
    with packer.stream_writer(raw, closefd=False) as packed, tarfile.open(fileobj=packed, mode="w|") as archive:
        for name in (*image.files, RECORD):
            with (image.directory / name).open("rb") as file:
                member = tarfile.TarInfo(name)
                member.size = os.fstat(file.fileno()).st_size
                archive.addfile(member, file)


def _unpack(file: Path, place: Path) -> None:
    try:
        with (
            file.open("rb") as raw,
            zstandard.ZstdDecompressor().stream_reader(raw) as plain,
            tarfile.open(fileobj=plain, mode="r|") as archive,
        ):
            for member in archive:
                if member.name in _CONTENT:
                    archive.extract(member, place, filter="data")
    except (tarfile.TarError, zstandard.ZstdError, EOFError) as error:
        raise UsageError(
            f"{file} is damaged or no image file: {error}.", allowed="a file that `cloudlab images export` wrote"
        ) from error


def _no_room(place: Path, fact: str) -> UsageError:
    return UsageError(
        f"There is no room in {place}: {fact}, and an image needs {format_size(_ROOM)} while it is built.",
        allowed="any directory of yours with room; `cloudlab clean --cache` frees what can be built again",
        example="export CLOUDLAB_CACHE=/path/with/room",
    )


@contextmanager
def _disk_errors(place: Path) -> Iterator[None]:
    """Say where there is no room, whoever noticed it: this process, apt or the compiler."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _no_room(place, "the disk is full") from error
    except CloudlabError as error:
        if not re.search(r"No space left on device|Disk quota exceeded|enough free space", str(error)):
            raise
        raise _no_room(place, "the disk is full") from error
