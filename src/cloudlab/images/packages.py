"""Debian packages: which are needed, which versions were tested, and how they come here, through apt itself.

apt works as any user when it is given its own state: lists, cache and an empty list of installed packages.
It authenticates what it fetches with the keys that the system trusts (apt-secure(8)).
"""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import unquote

from tqdm.auto import tqdm

from cloudlab.errors import CloudlabError, UsageError
from cloudlab.images.recipe import Recipe

_BATCH = 24  # packages a call of apt-get download, which takes 0.6 s to start
_LISTS_FRESH_S = 24 * 3600.0
_UPDATE_DEADLINE_S, _FETCH_DEADLINE_S = 300.0, 1800.0


@dataclass(frozen=True, order=True)
class Package:
    """One package: `name`, `version`, its size in bytes and the SHA-256 of the .deb ("" while not known)."""

    name: str
    version: str
    sha256: str = ""
    size: int = 0


def distribution() -> str:
    """Return which distribution's packages are used, as "debian-12" (os-release(5)); "" where there is no apt."""
    if not shutil.which("apt-get"):
        return ""
    release = platform.freedesktop_os_release()
    return f"{release['ID']}-{release.get('VERSION_ID', 'testing')}"


def read_lock(path: Path, distro: str) -> list[Package]:
    """Read the tested packages of one distribution; empty where none was tested."""
    if not path.exists():
        return []
    table = tomllib.loads(path.read_text()).get(distro, {})
    return [Package(name, version, sha256) for name, (version, sha256) in table.items()]


def write_lock(path: Path, distro: str, packages: Iterable[Package]) -> None:
    """Write the tested packages of one distribution; the others' stay as they are."""
    tables = tomllib.loads(path.read_text()) if path.exists() else {}
    tables[distro] = {package.name: [package.version, package.sha256] for package in packages}
    lines = ["# Versions and SHA-256 of the packages that were tested: written by `cloudlab images lock`."]
    for name in sorted(tables):
        lines += ["", f"[{name}]"]
        lines += [f'"{package}" = ["{v}", "{sha}"]' for package, (v, sha) in sorted(tables[name].items())]
    path.write_text("\n".join(lines) + "\n")


class Apt:
    """apt with a state of its own in `directory`; downloaded packages stay in `directory`/packages."""

    def __init__(self, directory: Path) -> None:
        if not shutil.which("apt-get"):
            raise UsageError(
                "There is no apt-get on this computer, and images are built from Debian's packages.",
                allowed="Debian or Ubuntu; or an image file that somebody exported",
                example="cloudlab images import node.cloudlab-image",
            )
        self._state, self.packages = directory / "apt", directory / "packages"
        for folder in ("lists/partial", "cache/archives/partial"):
            (self._state / folder).mkdir(parents=True, exist_ok=True)
        (self._state / "status").touch()
        self.packages.mkdir(exist_ok=True)

    def update(self, *, force: bool = False) -> None:
        """Fetch the lists of packages, at most once a day."""
        stamp = self._state / "updated"
        if not force and stamp.exists() and time.time() - stamp.stat().st_mtime < _LISTS_FRESH_S:
            return
        with tqdm(total=1, desc="lists of packages", unit="update", leave=False) as bar:
            self._run("update", deadline_s=_UPDATE_DEADLINE_S)
            bar.update()
        stamp.touch()

    def resolve(self, names: Iterable[str], skip: Sequence[str] = ()) -> list[Package]:
        """Return the current versions of `names` and all they depend on, less those that fit `skip`."""
        self.update()
        names = list(names)
        output = self._run("install", "--no-install-recommends", "--print-uris", *names)
        found = []
        for file, size in re.findall(r"^'[^']+' (\S+\.deb) (\d+)", output, re.MULTILINE):
            name, version, _ = unquote(file).split("_")
            if name in names or not any(fnmatch(name, pattern) for pattern in skip):
                found.append(Package(name, version, "", int(size)))
        return sorted(found)

    def obtain(self, packages: Iterable[Package]) -> dict[Package, Path]:
        """Return a file for each package, fetched where it is not here; a locked SHA-256 must fit.

        Raises `CloudlabError` naming the packages that the archive does not have in that version.
        """
        wanted = list(packages)
        missing = [package for package in wanted if self._cached(package) is None]
        with tqdm(total=len(missing), desc="packages", unit="package", leave=False, disable=not missing) as bar:
            for start in range(0, len(missing), _BATCH):
                self._fetch(missing[start : start + _BATCH])
                bar.update(len(missing[start : start + _BATCH]))
        files = {package: self._cached(package) for package in wanted}
        absent = sorted(package.name for package, file in files.items() if file is None)
        if absent:
            raise CloudlabError(f"the archive gave something else than was asked for: {', '.join(absent)}")
        return {package: file for package, file in files.items() if file}

    def _cached(self, package: Package) -> Path | None:
        """A package's file carries its SHA-256 in its name: a damaged one is noticed, removed and fetched again."""
        stem = f"{package.name}_{package.version.replace(':', '%3a')}_"
        for path in self.packages.glob(glob_escape(stem) + "*.deb"):
            said = path.stem.rsplit("_", 1)[1]
            if hashlib.sha256(path.read_bytes()).hexdigest() != said:
                path.unlink(missing_ok=True)
            elif package.sha256 in ("", said):
                return path
        return None

    def _fetch(self, batch: Sequence[Package]) -> None:
        inbox = self._state / f"inbox-{time.monotonic_ns()}"
        inbox.mkdir()
        try:
            words = [f"{package.name}={package.version}" for package in batch]
            self._run("download", *words, deadline_s=_FETCH_DEADLINE_S, cwd=inbox)
            for path in inbox.glob("*.deb"):
                name, version, _ = path.name.split("_")
                sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
                path.replace(self.packages / f"{name}_{version}_{sha256}.deb")
        finally:
            shutil.rmtree(inbox, ignore_errors=True)

    def _run(self, *words: str, deadline_s: float = 120.0, cwd: Path | None = None) -> str:
        options = {
            "Dir::State": self._state,
            "Dir::State::lists": self._state / "lists",
            "Dir::State::status": self._state / "status",
            "Dir::Cache": self._state / "cache",
            "Dir::Log": self._state,
            "Debug::NoLocking": 1,
            "APT::Architecture": "amd64",  # guests are x86-64 whatever the computer is
            "APT::Sandbox::User": "",
            "APT::Get::Assume-Yes": 1,
        }
        command = ["apt-get", "-q", *(f"-o{key}={value}" for key, value in options.items()), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=deadline_s, cwd=cwd, check=False)
        except subprocess.TimeoutExpired as error:
            raise CloudlabError(f"apt-get {words[0]} did not end within {deadline_s:.0f} s: is the network there?") from error
        if done.returncode:
            last = "\n".join(done.stderr.strip().splitlines()[-6:])
            raise CloudlabError(f"apt-get {words[0]} failed (exit status {done.returncode}):\n{last}")
        return done.stdout


def glob_escape(text: str) -> str:
    """Take away the meaning of *, ? and [ in a file name."""
    return re.sub(r"([*?[])", r"[\1]", text)


def packages_for(recipe: Recipe, apt: Apt, *, use_lock: bool = True) -> tuple[dict[Package, Path], list[str]]:
    """Return the files of all packages that `recipe` needs, and a line for each that is not the one tested.

    Locked versions come first; where the archive has dropped one, the current set takes the whole lock's place
    (libraries and programs must fit each other), as apt authenticates it.
    """
    distro = distribution()
    locked = read_lock(recipe.lock_file, distro) if use_lock else []
    if locked:
        try:
            return apt.obtain(locked), []
        except CloudlabError:
            apt.update(force=True)  # a stale list can hide what the archive still has
            try:
                return apt.obtain(locked), []
            except CloudlabError as gone:
                reason = str(gone)
    current = apt.obtain(apt.resolve([kernel_package(recipe, distro), *recipe.take], recipe.skip))
    if not use_lock:
        return current, []
    if not locked:
        return current, [f"recipe {recipe.name!r} was not tested with packages of {distro}; using the current ones"]
    tested = {package.name: package.version for package in locked}
    changes = [
        f"{package.name} {package.version} in place of the tested {tested.get(package.name, 'none')}"
        for package in current
        if tested.get(package.name) != package.version and (package.name in tested or package.name.startswith("linux-image"))
    ]
    return current, [f"the archive no longer has every tested version ({reason.splitlines()[-1]}):", *changes]


def kernel_package(recipe: Recipe, distro: str) -> str:
    """Return the kernel's package for a distribution ("debian-12"), or for one it is like."""
    family = [distro.split("-")[0]]
    if distro:
        family += platform.freedesktop_os_release().get("ID_LIKE", "").split()
    for name in family:
        if name in recipe.kernel:
            return recipe.kernel[name]
    raise UsageError(
        f"Recipe {recipe.name!r} names no kernel for {distro or 'this computer'}.",
        allowed=", ".join(recipe.kernel),
        example='[kernel] ubuntu = "linux-image-virtual"',
    )
