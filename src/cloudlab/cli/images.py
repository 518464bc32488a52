"""`cloudlab images`: build, list, show, export, import, remove and lock what guests and containers are started from."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cloudlab.cli.table import Commands, command, table
from cloudlab.units import format_duration, format_size

if TYPE_CHECKING:
    from cloudlab.images import Image, ImageStore


def add(commands: Commands) -> None:
    """Add the command `images` and its own commands."""
    parser = commands.add_parser("images", help="what guests and containers are started from", description=__doc__)
    own = parser.add_subparsers(required=True, metavar="COMMAND")
    built = command(own, "build", _build, "build an image if it is not here")
    built.add_argument("--force", action="store_true", help="build it even if it is here")
    command(own, "list", _list, "list the images on this computer")
    shown = command(own, "show", _show, "show one image: where it is, what it is made of, whether it is whole")
    exported = command(own, "export", _export, "write an image to one file, for computers that can't build")
    removed = command(own, "remove", _remove, "remove every image of that name")
    locked = command(own, "lock", _lock, "build from the current packages, and write down their versions")
    for each in (built, shown, exported, locked):
        each.add_argument("name", metavar="NAME", nargs="?", default="node", help="default: node")
    removed.add_argument("name", metavar="NAME")
    exported.add_argument("--to", type=Path, metavar="FILE", help="default: NAME.cloudlab-image")
    imported = command(own, "import", _import, "take in an image that `export` wrote")
    imported.add_argument("file", type=Path, metavar="FILE")


def _store() -> ImageStore:
    from cloudlab.images import ImageStore

    return ImageStore()


def _build(arguments: argparse.Namespace) -> int:
    store, began = _store(), time.time()
    image = store.build(arguments.name, force=arguments.force)
    if image.built_at < began:
        print(f"{image.name} is here already: {image.directory}")
    else:
        print(f"{image.name} built in {format_duration(time.time() - began)}: {image.directory}")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from cloudlab.images.recipe import recipe_names

    store = _store()
    current = {image.directory for name in recipe_names() if (image := store.find(name))}
    rows: list[tuple[object, ...]] = [
        (
            image.name,
            image.key,
            _state(image, current),
            format_size(image.size),
            image.kernel_release or None,
            _date(image),
        )
        for image in store.all()
    ]
    built = {image.name for image in store.all()}
    rows += [(name, None, "not built", None, None, None) for name in recipe_names() if name not in built]
    print(table(("NAME", "KEY", "STATE", "SIZE", "KERNEL", "BUILT"), rows))
    return 0


def _state(image: Image, current: set[Path]) -> str:
    return "current" if image.directory in current else "old"


def _date(image: Image) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(image.built_at))


def _show(arguments: argparse.Namespace) -> int:
    image = _store().find(arguments.name)
    if image is None:
        print(f"{arguments.name} is not built: cloudlab images build {arguments.name}")
        return 1
    whole = image.is_whole()
    facts = {
        "image": f"{image.name}, key {image.key}",
        "whole": "yes" if whole else f"NO, it was changed: cloudlab images build --force {image.name}",
        "kernel": f"{image.kernel_release}, {image.kernel}" if image.bootable else "none: it is a root for containers",
        "root file system": str(image.initrd if image.bootable else image.rootfs),
        "size": format_size(image.size),
        "built": f"{_date(image)}, in {format_duration(image.build_s)}",
    }
    if image.bootable:
        facts["kernel parameters"] = image.append
    for name, fact in facts.items():
        print(f"{name + ':':18} {fact}")
    for line in image.untested:
        print(f"{'not tested:':18} {line}")
    print(table(("PACKAGE", "VERSION"), sorted(image.packages.items())))
    return 0 if whole else 1


def _export(arguments: argparse.Namespace) -> int:
    file = _store().export(arguments.name, arguments.to or Path(f"{arguments.name}.cloudlab-image"))
    print(f"wrote {file} ({format_size(file.stat().st_size)})")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    image = _store().import_(arguments.file)
    print(f"{image.name} is here: {image.directory}")
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    print(f"removed {arguments.name}, freed {format_size(_store().remove(arguments.name))}")
    return 0


def _lock(arguments: argparse.Namespace) -> int:
    from cloudlab.images.recipe import find_recipe

    image = _store().build(arguments.name, relock=True)
    print(f"wrote {find_recipe(arguments.name).lock_file} ({len(image.packages)} packages)")
    return 0
