"""Where cloudlab keeps things: one cache for images and saved states, one short directory for each lab."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import platformdirs

from cloudlab.errors import UsageError

SOCKET_PATH_LIMIT = 107  # sun_path holds 108 bytes with the final NUL (unix(7))


def cache_directory() -> Path:
    """Return the cache: CLOUDLAB_CACHE, else the user's cache directory, else one in /var/tmp if HOME can't be written.

    Raises `UsageError` if none of them can be written.
    """
    named = os.environ.get("CLOUDLAB_CACHE")
    users, public = platformdirs.user_cache_path("cloudlab"), Path(f"/var/tmp/cloudlab-{os.getuid()}")
    places = [Path(named).absolute()] if named else [users, public]
    for place in places:
        # a user without a home (in some containers) has a cache path that leads nowhere: ~/.cache, as it stands
        if place.is_absolute() and _writable(place) and (place != public or _is_mine(place)):
            return place
    raise UsageError(
        f"cloudlab can't write to {' nor to '.join(map(str, places))}.",
        allowed="a directory of yours with about 1 GB of room",
        example="export CLOUDLAB_CACHE=/path/to/room",
    )


def labs_directory() -> Path:
    """Return the directory in which labs have theirs: CLOUDLAB_RUN, else a short one in the temporary directory.

    Short, because the names of Unix sockets are limited to 107 bytes; private (mode 0700), because a socket is a door.
    """
    named = os.environ.get("CLOUDLAB_RUN")
    own = f"cloudlab-{os.getuid()}"
    for place in [Path(named).resolve()] if named else [Path(tempfile.gettempdir()) / own, Path("/tmp") / own]:
        if len(os.fsencode(place)) + 60 <= SOCKET_PATH_LIMIT and _writable(place) and _is_mine(place):
            place.chmod(0o700)
            return place
    raise UsageError(
        "There is no place for the lab's sockets.",
        allowed="a directory of yours whose name is at most 47 bytes long",
        example="export CLOUDLAB_RUN=/tmp/me",
    )


def _writable(place: Path) -> bool:
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return False
    return os.access(place, os.W_OK | os.X_OK)


def _is_mine(place: Path) -> bool:
    """Where anybody can make directories, one that another user made (or a link to one) is a trap."""
    found = place.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
