"""Recipes: what an image is made of, as data. One folder in vm-images/ each."""

from __future__ import annotations

import hashlib
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloudlab.errors import UsageError


@dataclass(frozen=True)
class Recipe:
    """One recipe.toml, read and checked: for an image that guests boot, or (without a kernel) for a root of containers.

    `kernel`: package name for each distribution; `modules`: those in the image, `boot_modules`: those loaded
    at boot; `take`: package -> patterns of the files to take; `dependencies`: which of the packages that those
    depend on can give something (libraries), less those that fit `skip`; `links`: path -> target; `joined`: path -> patterns of
    the files that are put into this one, one behind the other, and do not stay.
    """

    name: str
    title: str
    directory: Path
    kernel: dict[str, str]
    modules: tuple[str, ...]
    boot_modules: tuple[str, ...]
    take: dict[str, tuple[str, ...]]
    dependencies: tuple[str, ...] = ("*",)
    skip: tuple[str, ...] = ()
    links: dict[str, str] = field(default_factory=dict)
    append: str = ""
    joined: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def bootable(self) -> bool:
        """Is it for guests, which have a kernel of their own? Containers use the one that is there."""
        return bool(self.kernel)

    def files(self) -> list[Path]:
        """Return what the folder adds itself (files/…), sorted."""
        return sorted(path for path in (self.directory / "files").rglob("*") if path.is_file())

    @property
    def sources(self) -> list[Path]:
        """C sources of ours; agent.c becomes /usr/libexec/cloudlab-agent when the image is built, and so on."""
        return sorted(self.directory.glob("*.c"))

    @property
    def lock_file(self) -> Path:
        """Versions and SHA-256 of the packages that were tested."""
        return self.directory / "recipe.lock"

    def fingerprint(self) -> str:
        """Return SHA-256 over all that the recipe says: another text, another image."""
        digest = hashlib.sha256()
        for path in [self.directory / "recipe.toml", *self.sources, self.lock_file, *self.files()]:
            if path.exists():
                name = path.relative_to(self.directory).as_posix()
                digest.update(f"{name} {is_program(path)}\0".encode() + path.read_bytes() + b"\0")
        return digest.hexdigest()


def is_program(path: Path) -> bool:
    """Say whether a recipe's file is to be executable: by the owner's bit, which no umask takes away."""
    return bool(path.stat().st_mode & 0o100)


def recipe_directory() -> Path:
    """Return vm-images/: CLOUDLAB_RECIPES, the checkout's, or the one in the installed package."""
    if named := os.environ.get("CLOUDLAB_RECIPES"):
        return Path(named)
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1] / "vm-images"
    return checkout if checkout.is_dir() else package / "_data" / "vm-images"


def recipe_names() -> list[str]:
    """Return the names of all recipes."""
    return sorted(path.parent.name for path in recipe_directory().glob("*/recipe.toml"))


def find_recipe(name: str) -> Recipe:
    """Read the recipe called `name`; raises `UsageError` if there is none or it is ill-formed."""
    path = recipe_directory() / name / "recipe.toml"
    if name not in recipe_names():
        raise UsageError(
            f"There is no recipe {name!r} in {recipe_directory()}.",
            allowed=", ".join(recipe_names()) or "none found",
            example='lab.machine("n1", image="node")',
        )
    try:
        return _parse(path, tomllib.loads(path.read_text()))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path} is not a recipe: {type(error).__name__}: {error}.",
            allowed="the keys title, take, dependencies, skip, links, joined; with a kernel: modules, boot_modules, append",
            example="see vm-images/node/recipe.toml, or vm-images/busybox/recipe.toml for one without a kernel",
        ) from error


def _parse(path: Path, data: dict[str, Any]) -> Recipe:
    kernel = _table(data.pop("kernel", {}))
    recipe = Recipe(
        name=path.parent.name,
        title=data.pop("title"),
        directory=path.parent,
        kernel=kernel,
        modules=_words(data.pop("modules")) if kernel else (),
        boot_modules=_words(data.pop("boot_modules")) if kernel else (),
        take=_table_of_words(data.pop("take")),
        dependencies=_words(data.pop("dependencies", ["*"])),
        skip=_words(data.pop("skip", [])),
        links=_table(data.pop("links", {})),
        append=data.pop("append", "") if kernel else "",
        joined=_table_of_words(data.pop("joined", {})),
    )
    if data:
        raise ValueError(f"unknown key {', '.join(data)}" + ("" if kernel else ", in a recipe without [kernel]"))
    return recipe


def _words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise TypeError(f"{value!r} is not a list of words")
    return tuple(value)


def _table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not a table")
    return value


def _table_of_words(value: object) -> dict[str, tuple[str, ...]]:
    return {key: _words(words) for key, words in _table(value).items()}
