"""Mount options as mount(8) and OCI bundles write them: flags for mount(2), propagation, and the file system's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudlab.containers.syscalls import Mount

NONE = Mount(0)
_SETS = {
    "ro": Mount.RDONLY,
    "nosuid": Mount.NOSUID,
    "nodev": Mount.NODEV,
    "noexec": Mount.NOEXEC,
    "sync": Mount.SYNCHRONOUS,
    "dirsync": Mount.DIRSYNC,
    "remount": Mount.REMOUNT,
    "mand": Mount.MANDLOCK,
    "noatime": Mount.NOATIME,
    "nodiratime": Mount.NODIRATIME,
    "bind": Mount.BIND,
    "rbind": Mount.BIND | Mount.REC,
    "relatime": Mount.RELATIME,
    "strictatime": Mount.STRICTATIME,
    "silent": Mount.SILENT,
    "nosymfollow": Mount.NOSYMFOLLOW,
}
_CLEARS = {
    "rw": Mount.RDONLY,
    "suid": Mount.NOSUID,
    "dev": Mount.NODEV,
    "exec": Mount.NOEXEC,
    "async": Mount.SYNCHRONOUS,
    "nomand": Mount.MANDLOCK,
    "atime": Mount.NOATIME,
    "diratime": Mount.NODIRATIME,
    "norelatime": Mount.RELATIME,
    "nostrictatime": Mount.STRICTATIME,
    "loud": Mount.SILENT,
    "symfollow": Mount.NOSYMFOLLOW,
    "defaults": Mount(0),
}
_PROPAGATES = {
    name: flag | more
    for prefix, more in (("", Mount(0)), ("r", Mount.REC))
    for name, flag in (
        (f"{prefix}private", Mount.PRIVATE),
        (f"{prefix}slave", Mount.SLAVE),
        (f"{prefix}shared", Mount.SHARED),
        (f"{prefix}unbindable", Mount.UNBINDABLE),
    )
}
PROPAGATION = {"private": Mount.PRIVATE, "slave": Mount.SLAVE, "shared": Mount.SHARED, "unbindable": Mount.UNBINDABLE}


@dataclass(frozen=True)
class Options:
    """The options of one mount: `flags` of mount(2), `propagation` (another call of it), `data` for the file system."""

    flags: Mount = NONE
    propagation: Mount = NONE
    data: str = ""


def parse_options(words: Sequence[str]) -> Options:
    """Sort the words of a list of mount options; those that mount(2) does not know are the file system's own."""
    flags, propagation, data = Mount(0), Mount(0), []
    for word in words:
        if word in _SETS:
            flags |= _SETS[word]
        elif word in _CLEARS:
            flags &= ~_CLEARS[word]
        elif word in _PROPAGATES:
            propagation |= _PROPAGATES[word]
        else:
            data.append(word)
    return Options(flags, propagation, ",".join(data))
