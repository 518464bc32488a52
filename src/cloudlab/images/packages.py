"""Which packages an image is made of: the tested ones where they can be had, else the current ones, and it is said."""

from __future__ import annotations

import platform
import re
import shutil
import tomllib
from collections.abc import Iterable
from pathlib import Path

from cloudlab.errors import UsageError
from cloudlab.images.apt import Apt, Package
from cloudlab.images.recipe import Recipe


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
    try:
        table = tomllib.loads(path.read_text()).get(distro, {})
        return [Package(name, version, sha256) for name, (version, sha256) in sorted(table.items())]
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} is not a lock file: {error}.",
            allowed="what `cloudlab images lock` writes",
            example="git checkout recipe.lock",
        ) from error


def write_lock(path: Path, distro: str, packages: Iterable[Package]) -> None:
    """Write the tested packages of one distribution; the others' stay as they are."""
    tables = tomllib.loads(path.read_text()) if path.exists() else {}
    tables[distro] = {package.name: [package.version, package.sha256] for package in packages}
    lines = ["# Versions and SHA-256 of the packages that were tested: written by `cloudlab images lock`."]
    for name in sorted(tables):
        lines += ["", f"[{name}]" if re.fullmatch(r"[\w-]+", name) else f'["{name}"]']
        lines += [f'"{package}" = ["{v}", "{sha}"]' for package, (v, sha) in sorted(tables[name].items())]
    path.write_text("\n".join(lines) + "\n")


def packages_for(recipe: Recipe, apt: Apt, *, use_lock: bool = True) -> tuple[dict[Package, Path], list[str]]:
    """Return the files of all packages that `recipe` needs, and a line for each that is not the one tested.

    Locked versions come first; where the archive has dropped one, the current set takes the whole lock's place
    (libraries and programs must fit each other), as apt authenticates it.
    """
    distro = distribution()
    locked = read_lock(recipe.lock_file, distro) if use_lock else []
    remarks = [
        f"recipe.lock does not know package {name!r}" for name in recipe.take if name not in {p.name for p in locked}
    ]
    if locked and not remarks:
        remarks = apt.refused(locked)
        if not remarks:
            return apt.obtain(locked), []
    elif not locked:
        remarks = [f"the recipe was not tested with packages of {distro}"] if use_lock else []
    names = [*([kernel_package(recipe, distro)] if recipe.bootable else []), *recipe.take]
    current, unknown = apt.resolve(names, recipe.dependencies, recipe.skip)
    remarks += [f"{distro} has no package {name!r}" for name in unknown]
    return apt.obtain(current), remarks + _changes(locked, current)


def _changes(locked: Iterable[Package], current: Iterable[Package]) -> list[str]:
    tested = {package.name: package for package in locked}
    return [
        f"{package.name} {package.version} in place of {tested[package.name].version}"
        for package in current
        if package.name in tested and tested[package.name].version != package.version
    ]


def kernel_package(recipe: Recipe, distro: str) -> str:
    """Return the kernel's package for a distribution ("debian-12"), or for one it is like (ID_LIKE, os-release(5))."""
    family = [distro.partition("-")[0]]
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
