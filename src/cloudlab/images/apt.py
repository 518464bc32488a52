"""Debian packages come here through apt itself, which authenticates them with the keys the system trusts (apt-secure(8)).

apt works as any user when it is given its own state: lists, cache and an empty list of installed packages.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import unquote

from cloudlab.errors import CloudlabError, UsageError
from cloudlab.progress import progress, say

_BATCH = 24  # packages a call of apt-get download, which takes 0.6 s to start
_LISTS_FRESH_S = 24 * 3600.0
_UPDATE_DEADLINE_S, _FETCH_DEADLINE_S = 300.0, 1800.0
_CONFIGURATION = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Get::Assume-Yes "true";
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
Acquire::ForceHash "SHA256";
Acquire::Languages "none";
Debug::NoLocking "true";
"""  # guests are x86-64 whatever the computer is; hooks of the system's own updates are none of ours


@dataclass(frozen=True, order=True)
class Package:
    """One package: `name`, `version`, and of its .deb the SHA-256 and the size in bytes (0: not known)."""

    name: str
    version: str
    sha256: str
    size: int = 0

    @property
    def word(self) -> str:
        """How apt-get is asked for exactly this package."""
        return f"{self.name}={self.version}"


class Apt:
    """apt with a state of its own in `directory`; downloaded packages stay in `directory`/packages.

    Sources, keys and proxies are those that the system's apt uses.
    """

    def __init__(self, directory: Path) -> None:
        if not shutil.which("apt-get"):
            raise UsageError(
                "There is no apt-get on this computer, and images are built from Debian's packages.",
                allowed="Debian or Ubuntu; or an image file that somebody exported",
                example="cloudlab images import node.cloudlab-image",
            )
        self._state, self.packages = directory / "apt", directory / "packages"
        self._updated = False
        for folder in ("lists/partial", "cache/archives/partial"):
            (self._state / folder).mkdir(parents=True, exist_ok=True)
        (self._state / "status").touch()
        (self._state / "apt.conf").write_text(_CONFIGURATION)
        self.packages.mkdir(exist_ok=True)

    def update(self, *, force: bool = False) -> None:
        """Fetch the lists of packages, at most once a day; where that fails older lists serve on, and it is said."""
        stamp = self._state / "updated"
        if not force and stamp.exists() and time.time() - stamp.stat().st_mtime < _LISTS_FRESH_S:
            return
        with progress(1, "lists of packages", unit="update") as bar:
            try:
                self._run("update", deadline_s=_UPDATE_DEADLINE_S)
                stamp.touch()
                self._updated = True
            except CloudlabError as error:
                if not any(path.is_file() for path in (self._state / "lists").glob("*Packages*")):
                    raise
                say(f"not all lists of packages are fresh; going on with those that are here.\n{error}")
            bar.update()

    def resolve(
        self, names: Iterable[str], accept: Sequence[str], skip: Sequence[str]
    ) -> tuple[list[Package], list[str]]:
        """Return the current versions of `names` and of what they depend on, and those that the archive doesn't have.

        Of dependencies only those come that fit `accept` and do not fit `skip`.
        """
        self.update()
        names = list(names)
        try:
            return self._resolve(names, accept, skip), []
        except CloudlabError as error:
            unknown = re.findall(r"^E: (?:Unable to locate p|P)ackage '?([^\s']+)", str(error), re.MULTILINE)
            if not unknown:
                raise
            return self._resolve([name for name in names if name not in unknown], accept, skip), sorted(set(unknown))

    def _resolve(self, names: list[str], accept: Sequence[str], skip: Sequence[str]) -> list[Package]:
        def gives_something(name: str) -> bool:
            return any(fnmatch(name, word) for word in accept) and not any(fnmatch(name, word) for word in skip)

        offered = _offers(self._run("install", "--no-install-recommends", "--print-uris", *names))
        untold = sorted(set(names) - {package.name for package in offered})
        if untold:
            raise CloudlabError(f"apt-get did not tell the SHA-256 of {', '.join(untold)}")
        return [package for package in offered if package.name in names or gives_something(package.name)]

    def refused(self, packages: Iterable[Package]) -> list[str]:
        """Return a line for each package that is neither here nor in the archive as it was tested."""
        missing = [package for package in packages if self._cached(package) is None]
        if not missing:
            return []
        self.update()
        lines = self._refused(missing)
        if lines and not self._updated:  # lists of yesterday can hide what the archive has today
            self.update(force=True)
            lines = self._refused(missing)
        return lines

    def _refused(self, packages: Sequence[Package]) -> list[str]:
        words = [package.word for package in packages]
        offered = {
            package.word: package.sha256
            for package in _offers(self._run("download", "--print-uris", *words, check=False))
        }
        return [
            f"{package.name} {package.version} is no longer in the archive"
            if package.word not in offered
            else f"{package.name} {package.version} has another SHA-256 ({offered[package.word]}) than the one tested"
            for package in packages
            if offered.get(package.word) != package.sha256
        ]

    def obtain(self, packages: Iterable[Package]) -> dict[Package, Path]:
        """Return a file for each package, fetched where it is not here; raises `CloudlabError` if its SHA-256 doesn't fit."""
        wanted = list(packages)
        missing = [package for package in wanted if self._cached(package) is None]
        if missing:
            self._fetch_all(missing)
        files = {package: self._cached(package) for package in wanted}
        absent = sorted(package.name for package, file in files.items() if file is None)
        if absent:
            raise CloudlabError(f"the archive gave something else than was asked for: {', '.join(absent)}")
        return {package: file for package, file in files.items() if file}

    def _cached(self, package: Package) -> Path | None:
        """A package's file carries its SHA-256 in its name: a damaged one is noticed, removed and fetched again."""
        path = self.packages / f"{package.name}_{package.version.replace(':', '%3a')}_{package.sha256}.deb"
        if not path.exists():
            return None
        if _sha256(path) != package.sha256:
            path.unlink(missing_ok=True)
            return None
        return path

    def _fetch_all(self, packages: Sequence[Package]) -> None:
        with progress(len(packages), "packages", unit="package") as bar:
            for start in range(0, len(packages), _BATCH):
                self._fetch(packages[start : start + _BATCH])
                bar.update(len(packages[start : start + _BATCH]))

    def _fetch(self, batch: Sequence[Package]) -> None:
        inbox = self._state / f"inbox-{os.getpid()}-{time.monotonic_ns()}"
        inbox.mkdir()
        try:
            self._run("download", *(package.word for package in batch), deadline_s=_FETCH_DEADLINE_S, cwd=inbox)
            for path in inbox.glob("*.deb"):
                name, version, _ = path.name.split("_")
                path.replace(self.packages / f"{name}_{version}_{_sha256(path)}.deb")
        finally:
            shutil.rmtree(inbox, ignore_errors=True)

    def clean(self) -> None:
        """Remove what a builder that was killed has left; only while no other builder is at work."""
        for inbox in self._state.glob("inbox-*"):
            shutil.rmtree(inbox, ignore_errors=True)

    def _run(self, *words: str, deadline_s: float = 120.0, cwd: Path | None = None, check: bool = True) -> str:
        places = {"": "", "::lists": "lists", "::status": "status"}
        options = [f"-oDir::State{key}={self._state / name}" for key, name in places.items()]
        options += [f"-oDir::Cache={self._state / 'cache'}", f"-oDir::Log={self._state}"]
        command = ["apt-get", "-q", f"-c={self._state / 'apt.conf'}", *options, *words]
        environment = {**os.environ, "LC_ALL": "C"}  # its words are read here
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=deadline_s, cwd=cwd, env=environment, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise CloudlabError(
                f"apt-get {words[0]} did not end within {deadline_s:.0f} s: is the network there?"
            ) from error
        if done.returncode and check:
            lines = done.stderr.strip().splitlines()
            why = "\n".join([line for line in lines if line.startswith("E:")][:20] or lines[-6:])
            raise CloudlabError(f"apt-get {words[0]} failed (exit status {done.returncode}):\n{why}")
        return done.stdout


def _offers(uris: str) -> list[Package]:
    """Read what `apt-get --print-uris` prints: 'address' name_version_arch.deb size SHA256:hash."""
    found = []
    for file, size, sha256 in re.findall(r"^'[^']+' (\S+\.deb) (\d+) SHA256:([0-9a-f]{64})", uris, re.MULTILINE):
        name, version, _ = unquote(file).split("_")
        found.append(Package(name, version, sha256, int(size)))
    return sorted(found)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
