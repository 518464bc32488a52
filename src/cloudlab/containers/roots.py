"""A container's root: mounted, entered, and filled with the file systems that its bundle names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from errno import EEXIST, EINVAL, ELOOP, ENOENT, ENOTDIR
from pathlib import PurePosixPath

from cloudlab.containers import cgroups
from cloudlab.containers.bundle import Bundle, Device, MountPoint
from cloudlab.containers.calls import Call, Calls, Struct
from cloudlab.containers.hooks import add_hooks
from cloudlab.containers.mounts import PROPAGATION, parse_options
from cloudlab.containers.setting import Setting
from cloudlab.containers.syscalls import AT_FDCWD, Mount, Open, Umount

_OPEN_TREE_CLONE, _AT_RECURSIVE, _AT_EMPTY_PATH, _MOVE_MOUNT_F_EMPTY_PATH = 1, 0x8000, 0x1000, 4
_S_IFREG, _S_IFIFO, _S_IFCHR, _S_IFBLK = 0o100000, 0o010000, 0o020000, 0o060000
_ATTR_ATIME = 0x70
_ATTRIBUTES = {  # flags as mount_setattr(2) has them
    Mount.RDONLY: 1,
    Mount.NOSUID: 2,
    Mount.NODEV: 4,
    Mount.NOEXEC: 8,
    Mount.NOATIME: 0x10,
    Mount.STRICTATIME: 0x20,
    Mount.NODIRATIME: 0x80,
    Mount.NOSYMFOLLOW: 0x200000,
}
_DEVICES = [Device(f"/dev/{name}", "c", major, minor) for name, major, minor in
            (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))]  # fmt: skip
_LINKS = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "core": "/proc/kcore",
}


def build_root(init: Calls, bundle: Bundle, setting: Setting) -> None:
    """Mount the root, go into it, and only then mount what belongs in it: a link in the image can lead nowhere else."""
    root = bundle.root if bundle.root.startswith("/") else f"{setting.directory}/{bundle.root}"
    init.call(
        "mount", "", "/", "", Mount.REC | (Mount.PRIVATE if bundle.root_propagation == "private" else Mount.SLAVE), 0
    )
    init.call("mount", root, root, "", Mount.BIND | Mount.REC, 0)  # a mount of our own, which can become the root
    sources = {
        number: _open_source(init, mount, setting) for number, mount in enumerate(bundle.mounts) if _binds(mount)
    }
    in_user = "user" in bundle.namespaces
    dev = next((mount for mount in bundle.mounts if mount.destination == "/dev"), None)
    devices = _devices(bundle, dev)
    nodes = {device.path: _open_tree(init, device.path) for device in devices} if in_user else {}
    add_hooks(init, bundle, setting, "createContainer", None)
    old_root = init.call("open", "/", Open.DIRECTORY | Open.PATH | Open.CLOEXEC)
    init.call("chdir", root)
    init.call("pivot_root", ".", ".")
    if dev is None:
        _fill_dev(init, devices, nodes)
    for number, mount in enumerate(bundle.mounts):
        _add_mount(init, mount, sources.get(number), setting.cgroup_version)
        if mount is dev:
            _fill_dev(init, devices, nodes, links=not _binds(mount))
    _make_directories(init, bundle.process.cwd)
    init.call("fchdir", old_root)
    _hide(init, bundle)
    init.call("umount2", ".", Umount.DETACH)
    init.call("chdir", "/")
    if bundle.root_propagation:
        init.call("mount", "", "/", "", PROPAGATION[bundle.root_propagation], 0)
    if bundle.read_only_root:
        _set_flags(init, "/", Mount.RDONLY)


def _devices(bundle: Bundle, dev: MountPoint | None) -> list[Device]:
    """The devices that each container has (unless its /dev is one of the host's), and its own: one for each path."""
    common = [] if dev is not None and _binds(dev) else _DEVICES
    return list({device.path: device for device in [*common, *bundle.devices]}.values())


def _binds(mount: MountPoint) -> bool:
    return mount.type == "bind" or bool({"bind", "rbind"} & set(mount.options))


def _open_source(init: Calls, mount: MountPoint, setting: Setting) -> Call:
    source = mount.source if mount.source.startswith("/") else f"{setting.directory}/{mount.source}"
    return _open_tree(init, source, _AT_RECURSIVE if "rbind" in mount.options else 0)


def _open_tree(init: Calls, path: str, recursive: int = 0) -> Call:
    """Take hold of what is at `path` while it can still be seen: open_tree(2) makes a copy of the mount, not yet anywhere."""
    return init.call("open_tree", AT_FDCWD, path, _OPEN_TREE_CLONE | recursive | int(Open.CLOEXEC))


def _set_flags(init: Calls, path: str, flags: Mount, harmless: Sequence[int] = ()) -> None:
    """Add flags to a mount and leave its others as they are: mount_setattr(2). Those of access times exclude each other."""
    attributes = sum(attribute for flag, attribute in _ATTRIBUTES.items() if flag in flags)
    cleared = _ATTR_ATIME if flags & (Mount.NOATIME | Mount.RELATIME | Mount.STRICTATIME) else 0
    init.call("mount_setattr", AT_FDCWD, path, 0, Struct((attributes, cleared, 0, 0)), 32, harmless=harmless)


def _add_mount(init: Calls, mount: MountPoint, source: Call | None, cgroup_version: int) -> None:
    options, target = parse_options(mount.options), mount.destination
    _make_directories(init, target if source is None else str(PurePosixPath(target).parent))
    if source is not None:
        _place(init, source, target)
        if changes := options.flags & ~(Mount.BIND | Mount.REC):
            _set_flags(init, target, changes)
    elif mount.type in ("cgroup", "cgroup2"):
        cgroups.add_mounts(init, cgroup_version, target, options.flags)
    else:
        init.call("mount", mount.source, target, mount.type, options.flags, options.data)
    if options.propagation:
        init.call("mount", "", target, "", options.propagation, 0)


def _place(init: Calls, tree: Call, target: str) -> None:
    """Put a tree from `_open_tree` where it belongs: on a directory, or on a file if it is one (EINVAL tells)."""
    move = ("move_mount", tree, "", AT_FDCWD, target, _MOVE_MOUNT_F_EMPTY_PATH)
    init.call("mkdir", target, 0o755, harmless=None)
    init.call(*move, harmless=[EINVAL])
    init.call("rmdir", target, harmless=None)  # EBUSY if it lies there; else an empty directory makes room for a file
    init.call("mknod", target, _S_IFREG | 0o644, 0, harmless=[EEXIST])
    init.call(*move, harmless=[ELOOP])


def _make_directories(init: Calls, path: str) -> None:
    parts = path.strip("/").split("/") if path != "/" else []
    for depth in range(1, len(parts) + 1):
        init.call("mkdir", "/" + "/".join(parts[:depth]), 0o755, harmless=None)


def _fill_dev(init: Calls, devices: Sequence[Device], nodes: Mapping[str, Call], *, links: bool = True) -> None:
    for directory in sorted({str(PurePosixPath(device.path).parent) for device in devices}):
        _make_directories(init, directory)
    for device in devices:
        if device.path in nodes:
            init.call("mknod", device.path, _S_IFREG | 0o666, 0, harmless=[EEXIST])
            init.call("move_mount", nodes[device.path], "", AT_FDCWD, device.path, _MOVE_MOUNT_F_EMPTY_PATH)
            _set_flags(init, device.path, Mount.NOSUID | Mount.NOEXEC)
            continue
        kind = {"c": _S_IFCHR, "u": _S_IFCHR, "b": _S_IFBLK, "p": _S_IFIFO}[device.kind]
        init.call("mknod", device.path, kind | device.mode, _makedev(device.major, device.minor), harmless=[EEXIST])
        init.call("chmod", device.path, device.mode)
        if device.uid or device.gid:
            init.call("chown", device.path, device.uid, device.gid)
    for name, target in _LINKS.items() if links else ():
        init.call("symlink", target, f"/dev/{name}", harmless=[EEXIST])


def _makedev(major: int, minor: int) -> int:
    return (major & 0xFFF) << 8 | (minor & 0xFF) | (minor & ~0xFF) << 12 | (major & ~0xFFF) << 32


def _hide(init: Calls, bundle: Bundle) -> None:
    """Cover what is not to be seen, a file by /dev/null, a directory by an empty one; make read-only what is not to be changed.

    The /dev/null is the old root's, in which we stand: an image's own could be a link to what it wants to write.
    """
    for path in bundle.masked_paths:
        init.call("mount", "dev/null", path, "", Mount.BIND, 0, harmless=[ENOTDIR, ENOENT])
        init.call("mount", "tmpfs", path, "tmpfs", Mount.RDONLY, "size=0k", harmless=[ENOTDIR, ENOENT])
        _set_flags(init, path, Mount.RDONLY, harmless=[ENOENT, EINVAL])
    for path in bundle.readonly_paths:
        init.call("mount", path, path, "", Mount.BIND | Mount.REC, 0, harmless=[ENOENT])
        _set_flags(init, path, Mount.RDONLY, harmless=[ENOENT, EINVAL])
