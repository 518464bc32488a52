"""The images on this computer: found by the hash of all that goes into them, checked, built, exported, imported."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import zstandard
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from cloudlab.errors import CloudlabError, UsageError
from cloudlab.images import builder
from cloudlab.images.packages import Apt, distribution, packages_for, write_lock
from cloudlab.images.recipe import Recipe, find_recipe
from cloudlab.paths import cache_directory
from cloudlab.units import format_size

_FILES = ("vmlinux", "initrd.cpio")
_BUILD_DEADLINE_S = 1800.0
_ROOM = 600 << 20


@dataclass(frozen=True)
class Image:
    """One built image: a kernel (ELF, started directly) and an initramfs, with what they were made of."""

    name: str
    key: str
    directory: Path
    append: str
    sha256: dict[str, str]
    packages: dict[str, str]
    untested: list[str] = field(default_factory=list)
    built_at: float = 0.0
    build_s: float = 0.0

    @property
    def kernel(self) -> Path:
        """The kernel, an ELF file."""
        return self.directory / "vmlinux"

    @property
    def initrd(self) -> Path:
        """The root file system, a cpio archive."""
        return self.directory / "initrd.cpio"

    @property
    def kernel_release(self) -> str:
        """What `uname -r` says in the guest."""
        names = [name for name in self.packages if name.startswith("linux-image-") and name[12:13].isdigit()]
        return names[0].removeprefix("linux-image-") if names else "unknown"

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in (self.kernel, self.initrd))

    def is_whole(self) -> bool:
        """Compare every byte with what was written: False if a file is gone, cut or changed."""
        try:
            return all(_sha256(self.directory / name) == self.sha256[name] for name in _FILES)
        except OSError:
            return False


class ImageStore:
    """All images of this user, in `directory` (by default the cache; CLOUDLAB_CACHE moves it)."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or cache_directory()
        self.images = self.directory / "images"

    def key(self, recipe: Recipe) -> str:
        """Return the hash of all that goes into the image: recipe, files, agent, locked packages, builder."""
        text = f"{builder.FORMAT}\0{recipe.name}\0{recipe.fingerprint()}\0{distribution()}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def find(self, name: str) -> Image | None:
        """Return the image if it is here and looks whole (sizes are compared; `Image.is_whole` reads every byte)."""
        recipe = find_recipe(name)
        for directory in (self.images / f"{name}-{self.key(recipe)}", self.images / f"{name}-imported"):
            image = _load(directory)
            if image is not None:
                return image
        return None

    def get(self, name: str = "node") -> Image:
        """Return the image, building it first if it is not here or damaged. Two who build at once wait for each other."""
        return self.find(name) or self.build(name)

    def build(self, name: str = "node", *, force: bool = False, relock: bool = False) -> Image:
        """Build the image from its recipe; `relock` takes the current packages and writes recipe.lock."""
        recipe = find_recipe(name)
        with self._locked(name), _disk_errors(self.directory):
            if not (force or relock) and (image := self.find(name)):
                return image
            self._require_room()
            began = time.monotonic()
            apt = Apt(self.directory)
            packages, untested = packages_for(recipe, apt, use_lock=not relock)
            fetched = time.monotonic()
            built = builder.build(recipe, packages, self.directory)
            if relock:
                write_lock(recipe.lock_file, distribution(), _with_hashes(built, packages))
                recipe = find_recipe(name)
            for line in untested:
                tqdm.write(f"image {name}: {line}")
            versions = {package.name: package.version for package in built.used}
            image = Image(name, self.key(recipe), self.images / f"{name}-{self.key(recipe)}", recipe.append, {}, versions, untested)
            return self._write(image, built, time.monotonic() - fetched, fetched - began)

    def _write(self, image: Image, built: builder.Built, build_s: float, fetch_s: float) -> Image:
        """Write into a new directory and give it its name at the end: a half-written image has no name."""
        self.images.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.images, prefix=".building-") as place:
            (Path(place) / "vmlinux").write_bytes(built.vmlinux)
            with (Path(place) / "initrd.cpio").open("wb") as file:
                built.root.write_cpio(file)
            hashes = {name: _sha256(Path(place) / name) for name in _FILES}
            whole = Image(image.name, image.key, image.directory, image.append, hashes, image.packages, image.untested, time.time(), build_s)
            _save(whole, Path(place))
            shutil.rmtree(image.directory, ignore_errors=True)
            Path(place).chmod(0o755)
            os.rename(place, image.directory)
            Path(place).mkdir()  # so that TemporaryDirectory finds something to remove
        return whole

    def all(self) -> list[Image]:
        """Return every image that is here and looks whole."""
        found = [_load(path) for path in sorted(self.images.glob("*-*"))]
        return [image for image in found if image is not None]

    def remove(self, name: str) -> int:
        """Remove every image called `name`; returns how many bytes that freed."""
        doomed = [path for path in self.images.glob(f"{name}-*") if path.is_dir()]
        if not doomed:
            known = sorted({image.name for image in self.all()})
            raise UsageError(f"There is no image {name!r} here.", allowed=", ".join(known) or "none yet", example="cloudlab images list")
        freed = sum(file.stat().st_size for path in doomed for file in path.iterdir())
        for path in doomed:
            shutil.rmtree(path)
        return freed

    def export(self, name: str, to: Path) -> Path:
        """Write an image to one file, packed with Zstandard, for computers that cannot build."""
        image = self.get(name)
        with to.open("wb") as raw, zstandard.ZstdCompressor(level=10, threads=-1).stream_writer(raw) as packed:
            with tarfile.open(fileobj=packed, mode="w|") as archive:
                for path in sorted(image.directory.iterdir()):
                    archive.add(path, arcname=path.name)
        return to

    def import_(self, file: Path) -> Image:
        """Take in an exported image; every byte is compared with the hashes it carries."""
        if not file.is_file():
            raise UsageError(f"There is no file {file}.", allowed="a file that `cloudlab images export` wrote", example="cloudlab images import node.cloudlab-image")
        self.images.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.images, prefix=".importing-") as place:
            try:
                with file.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as plain:
                    with tarfile.open(fileobj=plain, mode="r|") as archive:
                        archive.extractall(place, filter="data")
                image = _load(Path(place))
            except (tarfile.TarError, zstandard.ZstdError, EOFError) as error:
                raise UsageError(f"{file} is damaged or no image file: {error}.", allowed="a file that `cloudlab images export` wrote") from error
            if image is None or not image.is_whole():
                raise UsageError(f"{file} is damaged: its content does not fit its own hashes.", allowed="a whole file: copy it again")
            target = self.images / f"{image.name}-imported"
            shutil.rmtree(target, ignore_errors=True)
            Path(place).chmod(0o755)
            os.rename(place, target)
            Path(place).mkdir()
        loaded = _load(target)
        assert loaded is not None  # it was whole a moment ago
        return loaded

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.directory / f".{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            tqdm.write(f"image {name}: another process builds it; waiting")
            try:
                lock.acquire(timeout=_BUILD_DEADLINE_S)
            except Timeout as error:
                raise CloudlabError(f"another process has been building image {name!r} for {_BUILD_DEADLINE_S:.0f} s") from error
        try:
            yield
        finally:
            lock.release()

    def _require_room(self) -> None:
        free = shutil.disk_usage(self.directory).free
        if free < _ROOM:
            raise UsageError(
                f"Building an image needs {format_size(_ROOM)} in {self.directory}, and {format_size(free)} are free.",
                allowed="any directory with room",
                example="export CLOUDLAB_CACHE=/path/with/room",
            )


def _with_hashes(built: builder.Built, files: dict[builder.Package, Path]) -> list[builder.Package]:
    return [builder.Package(p.name, p.version, files[p].stem.rsplit("_", 1)[1]) for p in built.used]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _save(image: Image, place: Path) -> None:
    record = asdict(image) | {"sizes": {name: (place / name).stat().st_size for name in _FILES}}
    record.pop("directory")
    (place / "image.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def _load(directory: Path) -> Image | None:
    """Read an image's record; None if there is none, or its files do not have the sizes it says."""
    try:
        record = json.loads((directory / "image.json").read_text())
        sizes = record.pop("sizes")
        if any((directory / name).stat().st_size != sizes[name] for name in _FILES):
            return None
        return Image(directory=directory, **record)
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _disk_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UsageError(f"The disk that holds {place} is full.", allowed="any directory with room", example="export CLOUDLAB_CACHE=/path/with/room") from error
        raise
