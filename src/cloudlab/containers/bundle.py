"""OCI runtime bundles: what a container is to be, as its config.json says it.

Source: OCI runtime specification 1.1, config.md and config-linux.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, TypeVar

from cloudlab.containers.syscalls import Clone
from cloudlab.errors import UsageError

T = TypeVar("T")
EXAMPLE = '{"ociVersion": "1.1.0", "process": {"args": ["sh"], "cwd": "/"}, "root": {"path": "rootfs"}}'
NAMESPACES = {
    "mount": Clone.NEWNS,
    "uts": Clone.NEWUTS,
    "ipc": Clone.NEWIPC,
    "pid": Clone.NEWPID,
    "network": Clone.NEWNET,
    "user": Clone.NEWUSER,
    "cgroup": Clone.NEWCGROUP,
    "time": Clone.NEWTIME,
}
_RLIMITS = """
    CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME
"""
RLIMITS = tuple(f"RLIMIT_{name}" for name in _RLIMITS.split())  # in the order of their numbers: getrlimit(2)
_PARAMETERS = {  # beginnings of names of kernel parameters: the kind of namespace that has its own
    "net.": "network",
    "fs.mqueue.": "ipc",
    "kernel.shm": "ipc",
    "kernel.msg": "ipc",
    "kernel.sem": "ipc",
    "kernel.domainname": "uts",
}
_LAST_ID = (1 << 32) - 2  # the one behind it, -1, is no id: setresuid(2) would take it for "as it was"
_LAST_LIMIT = (1 << 64) - 1  # RLIM_INFINITY
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


@dataclass(frozen=True)
class User:
    """Who the process is, by numbers of its user namespace."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    umask: int | None = None


@dataclass(frozen=True)
class Rlimit:
    """One resource limit of getrlimit(2)."""

    number: int
    soft: int
    hard: int


@dataclass(frozen=True)
class Process:
    """What runs in the container."""

    args: tuple[str, ...]
    cwd: str = "/"
    env: tuple[str, ...] = ()
    user: User = User()
    capabilities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by set: bounding, effective, ...
    no_new_privileges: bool = False
    rlimits: tuple[Rlimit, ...] = ()
    oom_score_adj: int | None = None


@dataclass(frozen=True)
class MountPoint:
    """One file system in the container."""

    destination: str
    type: str = "none"
    source: str = "none"
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Device:
    """One device file: `kind` is c, b, u or p of mknod(1)."""

    path: str
    kind: str
    major: int = 0
    minor: int = 0
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class IdMapping:
    """`size` ids of the container from `container` on are those of the host from `host` on: user_namespaces(7)."""

    container: int
    host: int
    size: int


@dataclass(frozen=True)
class Hook:
    """A program that the runtime calls at a certain point, with the container's state on its standard input."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout_s: float | None = None


@dataclass(frozen=True)
class Bundle:
    """One config.json, read and checked. `namespaces`: kind -> path of one to join, or "" for a new one."""

    process: Process
    root: str
    read_only_root: bool = False
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[MountPoint, ...] = ()
    namespaces: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    cgroups_path: str = ""
    resources: Mapping[str, Any] = field(default_factory=dict)
    sysctl: Mapping[str, str] = field(default_factory=dict)
    seccomp: Mapping[str, Any] | None = None
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    root_propagation: str = ""
    hooks: Mapping[str, tuple[Hook, ...]] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def flags(self) -> Clone:
        """The namespaces that are made with the container."""
        return Clone(sum(NAMESPACES[kind] for kind, path in self.namespaces.items() if not path))


def read(config: Mapping[str, Any]) -> Bundle:
    """Check a config.json and return what it says. Raises `UsageError` that names the place in it and what is allowed there."""
    top = _Object("config.json", config)
    if not top.text("ociVersion", "").startswith("1."):
        raise _wrong("ociVersion", config.get("ociVersion"), '"1.0.0" to "1.2.0"')
    linux = top.object("linux")
    namespaces = _namespaces(linux, top)
    return Bundle(
        process=_process(top.object("process", needed=True)),
        root=top.object("root", needed=True).text("path"),
        read_only_root=top.object("root").flag("readonly"),
        hostname=top.text("hostname", ""),
        domainname=top.text("domainname", ""),
        mounts=tuple(_mount(each) for each in top.objects("mounts")),
        namespaces=namespaces,
        devices=tuple(_device(each) for each in linux.objects("devices")),
        uid_mappings=tuple(_mapping(each) for each in linux.objects("uidMappings")),
        gid_mappings=tuple(_mapping(each) for each in linux.objects("gidMappings")),
        cgroups_path=linux.text("cgroupsPath", ""),
        resources=linux.object("resources").value,
        sysctl=_sysctl(linux, namespaces),
        seccomp=linux.object("seccomp").value or None,
        masked_paths=linux.paths("maskedPaths"),
        readonly_paths=linux.paths("readonlyPaths"),
        root_propagation=linux.choice("rootfsPropagation", ("", "private", "slave", "shared", "unbindable")),
        hooks={kind: tuple(map(_hook, top.object("hooks").objects(kind))) for kind in HOOKS},
        annotations=top.texts_by_name("annotations"),
    )


def _process(process: _Object) -> Process:
    args = process.words("args")
    if not args:
        raise _wrong(f"{process.place}.args", [], "at least the program's name")
    user = process.object("user")
    sets = process.object("capabilities")
    return Process(
        args=args,
        cwd=process.path("cwd"),
        env=process.words("env"),
        user=User(
            user.number("uid", 0, most=_LAST_ID),
            user.number("gid", 0, most=_LAST_ID),
            user.numbers("additionalGids", _LAST_ID),
            user.number("umask", most=0o777) if "umask" in user.value else None,
        ),
        capabilities={kind: sets.words(kind) for kind in sets.value},
        no_new_privileges=process.flag("noNewPrivileges"),
        rlimits=tuple(_rlimit(each) for each in process.objects("rlimits")),
        oom_score_adj=process.number("oomScoreAdj", least=-1000, most=1000) if "oomScoreAdj" in process.value else None,
    )


def _rlimit(rlimit: _Object) -> Rlimit:
    kind = rlimit.choice("type", RLIMITS)
    return Rlimit(RLIMITS.index(kind), rlimit.number("soft", most=_LAST_LIMIT), rlimit.number("hard", most=_LAST_LIMIT))


def _namespaces(linux: _Object, top: _Object) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in linux.objects("namespaces"):
        kind = each.choice("type", list(NAMESPACES))
        if kind in found:
            raise _wrong(f"{each.place}.type", kind, "each kind once")
        found[kind] = each.path("path") if each.value.get("path") else ""
    if "mount" not in found:
        raise _wrong("linux.namespaces", sorted(found), "a list with a mount namespace: a container's root is its own")
    for key, kind in (("hostname", "uts"), ("domainname", "uts")):
        if top.text(key, "") and kind not in found:
            raise _wrong(key, top.text(key), f"a name only with a {kind} namespace: else it would be the host's")
    for key in ("uidMappings", "gidMappings"):
        if (found.get("user") == "") != bool(linux.objects(key)):
            raise _wrong(f"linux.{key}", linux.value.get(key), "mappings with a new user namespace, and only then")
    return found


def _mount(mount: _Object) -> MountPoint:
    return MountPoint(
        mount.path("destination"), mount.text("type", "none"), mount.text("source", "none"), mount.words("options")
    )


def _device(device: _Object) -> Device:
    return Device(
        device.path("path"),
        device.choice("type", ("c", "b", "u", "p")),
        device.number("major", 0),
        device.number("minor", 0),
        device.number("fileMode", 0o666, most=0o7777),
        device.number("uid", 0, most=_LAST_ID),
        device.number("gid", 0, most=_LAST_ID),
    )


def _mapping(mapping: _Object) -> IdMapping:
    first, outside = (mapping.number(key, most=_LAST_ID) for key in ("containerID", "hostID"))
    return IdMapping(first, outside, mapping.number("size", least=1, most=_LAST_ID))


def _hook(hook: _Object) -> Hook:
    seconds = float(hook.number("timeout", least=1)) if "timeout" in hook.value else None
    return Hook(hook.path("path"), hook.words("args"), hook.words("env"), seconds)


def _sysctl(linux: _Object, kinds: Collection[str]) -> dict[str, str]:
    """Kernel parameters that belong to a namespace of the container's (man pages of namespaces(7)); others are the host's too."""
    parameters = linux.texts_by_name("sysctl")
    for name in parameters:
        kind = next((kind for start, kind in _PARAMETERS.items() if name.startswith(start)), None)
        if kind not in kinds or "/" in name:
            allowed = f"{', '.join(_PARAMETERS)}, each with a namespace of its kind: others are the host's"
            raise _wrong(f"linux.sysctl.{name}", parameters[name], allowed)
    return parameters


class _Object:
    """One object of the JSON text, at a place that errors name."""

    def __init__(self, place: str, value: object) -> None:
        if not isinstance(value, Mapping):
            raise _wrong(place, value, "an object")
        self.place, self.value = place, value

    def _at(self, key: str) -> str:
        return key if self.place == "config.json" else f"{self.place}.{key}"

    def _get(self, key: str, kind: type[T], name: str, default: T | None = None) -> T:
        value = self.value.get(key, default)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise _wrong(self._at(key), value, name)
        return value

    def object(self, key: str, *, needed: bool = False) -> _Object:
        value = self.value.get(key)
        return _Object(self._at(key), {} if value is None and not needed else value)

    def objects(self, key: str) -> list[_Object]:
        listed = self._get(key, list, "a list", []) if self.value.get(key) is not None else []
        return [_Object(f"{self._at(key)}[{number}]", each) for number, each in enumerate(listed)]

    def text(self, key: str, default: str | None = None) -> str:
        text = self._get(key, str, "a text", default)
        if "\0" in text:
            raise _wrong(self._at(key), text, "a text without NUL")
        return text

    def path(self, key: str) -> str:
        path = self.text(key)
        if not PurePosixPath(path).is_absolute():
            raise _wrong(self._at(key), path, "a path that begins with /")
        return path

    def number(self, key: str, default: int | None = None, *, least: int = 0, most: int = (1 << 32) - 1) -> int:
        number = self._get(key, int, f"a number, {least} to {most}", default)
        if not least <= number <= most:
            raise _wrong(self._at(key), number, f"{least} to {most}")
        return number

    def flag(self, key: str) -> bool:
        return self._get(key, bool, "true or false", False)

    def choice(self, key: str, allowed: Sequence[str]) -> str:
        value = self.value.get(key, allowed[0] if "" in allowed else None)
        if value not in allowed:
            raise _wrong(self._at(key), value, ", ".join(filter(None, allowed)))
        return str(value)

    def words(self, key: str) -> tuple[str, ...]:
        return tuple(each.text(place) for place, each in self._listed(key, "a list of texts"))

    def numbers(self, key: str, most: int) -> tuple[int, ...]:
        return tuple(each.number(place, most=most) for place, each in self._listed(key, "a list of numbers"))

    def paths(self, key: str) -> tuple[str, ...]:
        return tuple(each.path(place) for place, each in self._listed(key, "a list of paths"))

    def _listed(self, key: str, name: str) -> Iterator[tuple[str, _Object]]:
        """Each value of a list as an object that has it at "key[number]": so that errors name it."""
        listed = self.value.get(key) or ()
        if not isinstance(listed, list | tuple):
            raise _wrong(self._at(key), listed, name)
        for number, each in enumerate(listed):
            place = f"{key}[{number}]"
            yield place, _Object(self.place, {place: each})

    def texts_by_name(self, key: str) -> dict[str, str]:
        value = self.object(key).value
        if not all(isinstance(each, str) for each in value.values()):
            raise _wrong(self._at(key), value, "texts by name")
        return dict(value)


def _wrong(place: str, value: object, allowed: str) -> UsageError:
    given = "missing" if value is None else repr(value)
    return UsageError(f"{place} of the bundle's config.json is {given}.", allowed=allowed, example=EXAMPLE)
