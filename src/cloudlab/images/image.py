"""One image on disk: a kernel and an initramfs, or a root for containers, and the record of what they are, in one directory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

BOOT_FILES, ROOT_FILES = ("vmlinux", "initrd.cpio"), ("rootfs.tar",)
RECORD = "image.json"


@dataclass(frozen=True)
class Image:
    """One built image, with what it was made of: a kernel (ELF, started directly) and an initramfs, or a root for containers.

    A root for containers has no kernel, and its `kernel_release` is empty.
    `recipe` is the fingerprint of the recipe it was made from; `untested` has a line for each thing that is
    not as the recipe was tested; `stamps` are size and time of change (ns) of each file, as it was written.
    """

    name: str
    key: str
    directory: Path
    append: str
    recipe: str
    kernel_release: str
    packages: dict[str, str]
    untested: list[str] = field(default_factory=list)
    built_at: float = 0.0
    build_s: float = 0.0
    sha256: dict[str, str] = field(default_factory=dict)
    stamps: dict[str, list[int]] = field(default_factory=dict)

    @property
    def kernel(self) -> Path:
        """The kernel, an ELF file."""
        return self.directory / "vmlinux"

    @property
    def initrd(self) -> Path:
        """The root file system, a cpio archive."""
        return self.directory / "initrd.cpio"

    @property
    def rootfs(self) -> Path:
        """The root for containers, a tar archive (pax, not compressed): one layer."""
        return self.directory / "rootfs.tar"

    @property
    def bootable(self) -> bool:
        """Can a guest be started from it?"""
        return bool(self.kernel_release)

    @property
    def files(self) -> tuple[str, ...]:
        """The names of what it consists of."""
        return BOOT_FILES if self.bootable else ROOT_FILES

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(size for size, _ in self.stamps.values())

    def is_whole(self) -> bool:
        """Compare every byte with what was written (0.2 s): False if a file is gone, cut or changed."""
        try:
            return set(self.sha256) == set(self.files) and _hashes(self.directory, self.files) == self.sha256
        except OSError:
            return False


def sealed(image: Image, directory: Path) -> Image:
    """Write the record of an image whose files lie in `directory`, and return the image with their hashes in it."""
    whole = replace(image, sha256=_hashes(directory, image.files), stamps=_stamps(directory, image.files))
    _write_record(whole, directory)
    return whole


def load(directory: Path) -> Image | None:
    """Return the image in `directory`; None if there is none, or one that is not whole.

    Files that have the size and the time of change they were written with are believed; where the time is another,
    every byte is compared, and the new time is noted if all are right (a cache that was copied, say).
    """
    try:
        record = json.loads((directory / RECORD).read_text())
        image = Image(**record, directory=directory)
        stamps = _stamps(directory, image.files)
        if any(stamps[name][0] != image.stamps[name][0] for name in image.files):
            return None
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
    if stamps == image.stamps:
        return image
    if not image.is_whole():
        return None
    image = replace(image, stamps=stamps)
    if os.access(directory, os.W_OK):
        _write_record(image, directory)
    return image


def _write_record(image: Image, directory: Path) -> None:
    record = asdict(image)
    record.pop("directory")
    new = directory / f".{RECORD}.{os.getpid()}"
    new.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    new.replace(directory / RECORD)


def _stamps(directory: Path, names: Iterable[str]) -> dict[str, list[int]]:
    return {name: [(found := (directory / name).stat()).st_size, found.st_mtime_ns] for name in names}


def _hashes(directory: Path, names: Iterable[str]) -> dict[str, str]:
    hashes = {}
    for name in names:
        with (directory / name).open("rb") as file:
            hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes
