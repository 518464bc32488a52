"""`cloudlab clean`: take away what dead labs left, and on request what can be built again."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from cloudlab.cli.table import Commands, command
from cloudlab.errors import UsageError
from cloudlab.units import format_size


def add(commands: Commands) -> None:
    """Add the command `clean`."""
    parser = command(commands, "clean", run, "remove what labs left behind whose owner is gone")
    parser.add_argument("--cache", action="store_true", help="also saved states, and all images but the current ones")


def run(arguments: argparse.Namespace) -> int:
    """Remove dead labs; living ones are not touched."""
    from cloudlab.owner import remove_dead

    removed = remove_dead()
    for record in removed:
        names = ", ".join(str(note["machine"]) for note in record.machines if "machine" in note)
        print(f"removed lab {record.directory.name}" + (f" with {names}" if names else ""))
    if arguments.cache:
        _clean_cache()
    elif not removed:
        print("Nothing to clean.")
    return 0


def _clean_cache() -> None:
    from cloudlab.images import ImageStore
    from cloudlab.owner import labs

    living = [record for record in labs() if record.alive]
    if living:
        raise UsageError(
            f"Saved states and images are in use: {len(living)} labs are alive.",
            allowed="close them first; this shows whose they are",
            example="cloudlab ps",
        )
    store = ImageStore()
    states = remove_all(_folders(store.directory / "states"))
    images = store.prune()
    print(f"freed {format_size(states)} of saved states and {format_size(images)} of old images in {store.directory}")


def remove_all(folders: list[Path]) -> int:
    """Remove folders; returns how many bytes of disk that freed."""
    freed = sum(disk_size(folder) for folder in folders)
    for folder in folders:
        shutil.rmtree(folder)
    return freed


def disk_size(folder: Path) -> int:
    """Return the bytes of disk that a folder's files take: files of memory are mostly holes."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def _folders(place: Path) -> list[Path]:
    """The finished ones: what is still being built has a name that begins with a dot, and an owner of its own."""
    return [path for path in sorted(place.glob("*")) if path.is_dir() and not path.name.startswith(".")]
