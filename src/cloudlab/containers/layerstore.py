"""Layers in a guest: kept, each a directory that nothing changes any more and all roots share; and listed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cloudlab.containers.calls import Place
from cloudlab.containers.stack import Kind, Listing
from cloudlab.errors import MachineError, UsageError

DIRECTORY = "/var/lib/cloudlab"
LAYERS = f"{DIRECTORY}/layers"
_NAME = re.compile(r"(?:sha256:)?(?P<hex>[0-9a-f]{64})|(?P<name>[a-z0-9][a-z0-9_.-]{0,126})")
_DEADLINE_S = 600.0
# by find(1)'s letters; all others are devices
_KINDS = {"f": Kind.FILE, "d": Kind.DIRECTORY, "l": Kind.LINK, "p": Kind.PIPE, "s": Kind.SOCKET}

# What overlayfs notes in an upper directory for itself (enum ovl_xattr in fs/overlayfs/overlayfs.h): no part of a layer.
_NOTES = ("impure", "metacopy", "nlink", "origin", "protattr", "redirect", "upper", "uuid")
_ATTRIBUTES = ("--numeric-owner", "--xattrs", "--xattrs-include=*")
_UNPACK = ("tar", "-xpf", "-", *_ATTRIBUTES, "-C")
_PACK = (
    *("tar", "-cf", "-", "--sort=name", *_ATTRIBUTES, *(f"--xattrs-exclude=*.overlay.{note}" for note in _NOTES)),
    *("--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime", "-C"),
)
_PREPARE = f"""
mkdir -p {DIRECTORY} && exec 9<{DIRECTORY} && flock 9 || exit 1
case $(stat -f -c %T {DIRECTORY}) in
  tmpfs|ext2/ext3|xfs|btrfs|f2fs) ;;
  *) mount -t tmpfs -o mode=755 cloudlab {DIRECTORY} ;;
esac
mkdir -p {LAYERS} {DIRECTORY}/rootfs
"""
# A layer has another name until it is whole; with the number of the process in it, what a killed one has left is known.
_NEW = f"""
cd {LAYERS} || exit 1
for left in .new-*; do
  if [ -e "$left" ] && [ ! -e "/proc/${{left#.new-}}" ]; then rm -rf "$left"; fi
done
new=.new-$$ name=$1; shift
mkdir -m 755 "$new" && mkdir -m 755 "$new/layer" || exit 1
"""
_KEEP = """
status=0
[ ! -e "$new/cut" ] && { mv -T "$new/layer" "$name" 2>&1 || [ -d "$name" ]; } || status=1
rm -rf "$new"
exit $status
"""
_RECEIVE = """
bytes=$1; shift
{ head -c "$bytes"; read -r word; [ "$word" = whole ] || : > "$new/cut"; } | "$@" "$new/layer" || : > "$new/cut"
"""
_COPY = """
from=$1; shift
{ tar "$@" "$from" . || : > "$new/cut"; } | UNPACK "$new/layer" || : > "$new/cut"
""".replace("UNPACK", " ".join(_UNPACK).replace("*", "'*'"))


def output_of(place: Place, problem: str, words: Sequence[str], *, data: bytes = b"", timeout_s: float = 60.0) -> bytes:
    """Run a command that must succeed; returns what it printed. Raises `MachineError`, which begins with `problem`."""
    result = place.run(words, input=data, timeout_s=timeout_s)
    if result.ok:
        return result.stdout_bytes
    shown = words[0] if words[0] != "sh" else "sh -c ..."
    said = result.stderr + result.stdout
    raise MachineError(place.name, problem, command=shown, exit_status=result.exit_status, output=said)


def prepare(place: Place) -> None:
    """Make the directory of layers and roots, on a file system that can hold an upper layer; does nothing where it is there.

    An upper layer needs extended attributes of the kind `trusted` (overlayfs.rst, "Upper and Lower"; xattr(7)). A guest's
    root is a ramfs, which has none: there a tmpfs is mounted on /var/lib/cloudlab, once. It may fill half of the memory
    (tmpfs(5)), so a container that writes too much is told ENOSPC, and the guest lives on.
    """
    output_of(place, f"can't make {DIRECTORY}", ["sh", "-c", _PREPARE])


class Layers:
    """The layers of one guest, in /var/lib/cloudlab/layers: by digest those that were pulled, by name those made by hand.

    What is added is in the form that overlayfs reads: a whiteout is a character device 0/0, an opaque directory has the
    extended attribute trusted.overlay.opaque=y.
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    def path(self, digest: str) -> str:
        """Return the directory of a layer, whether it is there or not; raises `UsageError` for what can't be a name."""
        match = _NAME.fullmatch(digest)
        if match is None:
            raise UsageError(
                f"{digest!r} is no name of a layer.",
                allowed="sha256: and 64 hexadecimal digits; or lower-case letters, digits and _ . -, at most 127",
                example='Layers(n1).add("with-motd", tar)',
            )
        return f"{LAYERS}/{match['hex'] or match['name']}"

    def has(self, digests: str | Iterable[str]) -> set[str]:
        """Return those of `digests` (one, or several) that are there, and whole."""
        digests, there = [digests] if isinstance(digests, str) else digests, self._names()
        return {digest for digest in digests if self.path(digest).rpartition("/")[2] in there}

    def add(self, digest: str, tar: bytes | Path, *, timeout_s: float = _DEADLINE_S) -> str:
        """Unpack a layer that is not there yet, and return its directory.

        Nobody takes a part of one for the whole: it gets its name when all has arrived and is unpacked. Raises
        `UsageError` if `tar` has no end, `MachineError` if it can't be unpacked.
        """
        path = self.path(digest)
        if self.has(digest):
            return path
        data = tar.read_bytes() if isinstance(tar, Path) else tar
        if len(data) % 512 or data[-1024:] != bytes(1024):
            raise UsageError(
                f"The archive of layer {digest!r} is cut short, or packed: it does not end as tar archives do.",
                allowed="a whole tar archive, not compressed (two blocks of zeros at its end)",
            )
        self._make(_RECEIVE, digest, [str(len(data)), *_UNPACK], data + b"whole\n", timeout_s)
        return path

    def keep(self, name: str, directory: str, *, timeout_s: float = _DEADLINE_S) -> str:
        """Copy a directory in the place (an upper layer) as a new layer, and return the layer's directory."""
        if self.has(name):
            raise UsageError(f"There is a layer {name!r} already.", allowed="a new name; or remove the old layer first")
        self._make(_COPY, name, [directory, *_PACK[1:]], b"", timeout_s)
        return self.path(name)

    def _make(self, script: str, name: str, words: Sequence[str], data: bytes, timeout_s: float) -> None:
        prepare(self._place)
        command = ["sh", "-c", _NEW + script + _KEEP, "sh", self.path(name).rpartition("/")[2], *words]
        output_of(self._place, f"can't make layer {name!r}", command, data=data, timeout_s=timeout_s)

    def remove(self, digest: str) -> None:
        """Remove a layer, which no root may be using; raises `UsageError` if it is not there."""
        if not self.has(digest):
            raise UsageError(f"There is no layer {digest!r} here.", allowed=", ".join(self.list()) or "none yet")
        script = f'new={LAYERS}/.new-$$; mkdir "$new" && mv "$1" "$new" && rm -rf "$new"'
        output_of(self._place, f"can't remove layer {digest!r}", ["sh", "-c", script, "sh", self.path(digest)])

    def list(self) -> dict[str, int]:
        """Return the layers that are there, with what each takes: bytes of disk, or of memory where a tmpfs holds them."""
        script = f'cd {LAYERS} 2>/dev/null || exit 0; set -- *; [ -e "$1" ] || exit 0; du -s -B1 -- "$@"'
        lines = output_of(self._place, "can't list its layers", ["sh", "-c", script]).decode().splitlines()
        sizes = {name: int(size) for size, _, name in (line.partition("\t") for line in lines)}
        return {f"sha256:{name}" if len(name) == 64 else name: size for name, size in sorted(sizes.items())}

    def tar_of(self, directory: str, *, timeout_s: float = _DEADLINE_S) -> bytes:
        """Return a directory in the place (an upper layer) as a tar archive, the same bytes each time it is the same."""
        return output_of(self._place, f"can't pack {directory}", [*_PACK, directory, "."], timeout_s=timeout_s)

    def _names(self) -> set[str]:
        script = f"cd {LAYERS} 2>/dev/null || exit 0; ls"
        return set(output_of(self._place, "can't list its layers", ["sh", "-c", script]).decode().split())


def listings(place: Place, directories: Mapping[str, str], *, user: bool = False) -> dict[str, Listing]:
    """List directories (name -> path) as layers: files of every kind, whiteouts, opaque directories."""
    paths = list(directories.values())
    found: dict[str, dict[str, Kind]] = {path: {} for path in paths}
    printed = output_of(
        place, "can't list the layers", ["find", "-H", *paths, "-mindepth", "1", "-printf", r"%H\0%y\0/%P\0"]
    )
    for layer, letter, path in zip(*[iter(map(os.fsdecode, printed.split(b"\0")))] * 3, strict=False):
        found[layer][path] = _KINDS.get(letter, Kind.DEVICE)
    for path in _whiteouts(place, paths):
        _mark(found, path, Kind.WHITEOUT)
    for path in _opaque(place, paths, "user" if user else "trusted"):
        _mark(found, path, Kind.OPAQUE)
    return {name: found[path] for name, path in directories.items()}


def _mark(found: Mapping[str, dict[str, Kind]], path: str, kind: Kind) -> None:
    for layer, listing in found.items():
        if path.startswith(layer + "/"):
            listing[path.removeprefix(layer)] = kind


def _whiteouts(place: Place, paths: Sequence[str]) -> list[str]:
    command = ["find", "-H", *paths, "-type", "c", "-exec", "stat", "--printf", r"%t:%T %n\0", "{}", "+"]
    devices = os.fsdecode(output_of(place, "can't list the layers", command)).split("\0")
    return [device.removeprefix("0:0 ") for device in devices if device.startswith("0:0 ")]


def _opaque(place: Place, paths: Sequence[str], namespace: str) -> list[str]:
    pattern = rf"^{namespace}\.overlay\.opaque$"
    printed = output_of(
        place, "can't list the layers", ["getfattr", "-RdPh", "--absolute-names", "-m", pattern, *paths]
    )
    names = re.findall(rb'^# file: (.*)\n\S+="y"$', printed, re.MULTILINE)
    return [os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), name)) for name in names]
