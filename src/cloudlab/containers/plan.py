"""From a bundle to the system calls that make it a container: what the runtime does, in the order in which it is done.

Three processes take part. The *caller* makes the control group and waits. The *monitor*, its child, makes the container's
first process, gives it its identity, keeps its log, and writes down how it ended. *Init*, in its new namespaces, builds its
root and becomes the program. Nothing here acts: it is a list that `calls.make` has made, and that `print` shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from errno import EAGAIN, EEXIST, ENOENT
from pathlib import PurePosixPath

from cloudlab.containers import cgroups
from cloudlab.containers.bundle import NAMESPACES, Bundle, IdMapping, Process
from cloudlab.containers.calls import REPORT_FD, Answer, Call, Calls, Room, Struct, Words
from cloudlab.containers.execution import add_execution
from cloudlab.containers.hooks import add_hooks
from cloudlab.containers.identity import add_identity
from cloudlab.containers.layerstore import DIRECTORY
from cloudlab.containers.rootfs import Overlay
from cloudlab.containers.roots import build_root
from cloudlab.containers.setting import EVENTS, P_PID, SIGINFO, STATE_DIRECTORY, WEXITED, Setting
from cloudlab.containers.syscalls import Clone, Mount, Open

LOG_LIMIT = 8 << 20
_S_IFREG, _S_IFIFO = 0o100000, 0o010000
_LOCK_SH, _LOCK_EX, _LOCK_NB = 1, 2, 4
_FIFO = 1 << 16  # bytes that a FIFO holds: pipe(7)


@dataclass(frozen=True)
class _Pipes:
    """Pipes between the three, each the pipe2(2) that makes it: an end to read at offset 0 of its answer, one to write at 4."""

    out: Call
    err: Call
    go: Call
    ready: Call


@dataclass(frozen=True)
class _Gate:
    """Two FIFOs, opened: a created container waits at `start`, and tells through `failed` if it can't become its program."""

    start: Call
    failed: Call


def creation(bundle: Bundle, setting: Setting, config: str) -> tuple[Calls, Call]:
    """Return the calls that make a container, and start it unless it is to `wait_for_start`; and the one that makes init."""
    caller, state = Calls(), setting.state
    for path in ("/run/cloudlab", STATE_DIRECTORY):
        caller.call("mkdir", path, 0o711, harmless=[EEXIST])
    caller.call("mkdir", state, 0o711, harmless=[EEXIST] if setting.again else [])
    caller.write_file(f"{state}/config.json", config, flags=Open.WRONLY | Open.CREAT)
    cgroups.add_creation(caller, setting.cgroup_version, bundle.cgroups_path, cgroups.limits_of(bundle.resources))
    for fifo in ("start", "failed") if setting.wait_for_start else ():
        caller.call("unlink", f"{state}/{fifo}", harmless=[ENOENT])
        caller.call("mknod", f"{state}/{fifo}", _S_IFIFO | 0o600, 0)
    ready = caller.call("pipe2", Room(8, whole=True), Open.CLOEXEC)
    _, monitor = caller.child()
    init = _monitor(monitor, bundle, setting, ready)
    caller.call("close", Answer(ready, 4))
    caller.call("read", Answer(ready, 0), Room(1), 1)  # the end of the file: init runs, or waits, or has failed
    if not setting.wait_for_start:
        caller.call("mknod", f"{state}/started", _S_IFREG | 0o600, 0)
    return caller, init


def starting(setting: Setting) -> tuple[Calls, Call]:
    """Return the calls that let a container go on that waits for its start, and the one that reads what failed then.

    ENXIO or ENOENT of an open says that none waits. All has been told when init's end is closed, by execve(2) or its end.
    """
    calls = Calls()
    calls.call("mknod", f"{setting.state}/started", _S_IFREG | 0o600, 0)
    failed = calls.call("open", f"{setting.state}/failed", Open.RDONLY | Open.NONBLOCK | Open.CLOEXEC)
    start = calls.call("open", f"{setting.state}/start", Open.WRONLY | Open.NONBLOCK | Open.CLOEXEC)
    calls.call("write", start, "x", 1)
    calls.call("poll", Struct((failed,)), 1, -1)  # struct pollfd that asks for nothing: it hears of the end alone
    return calls, calls.call("read", failed, Room(_FIFO), _FIFO)


def execution(bundle: Bundle, setting: Setting, pid: int, process: Process) -> Calls:
    """Return the calls that run another process in the namespaces and the control group of a container's first, `pid`."""
    calls = Calls()
    lock = calls.call("open", f"{setting.state}/lock", Open.RDONLY | Open.CLOEXEC)
    locked = calls.call("flock", lock, _LOCK_SH | _LOCK_NB, harmless=[EAGAIN])
    calls.must_be(locked, -EAGAIN, "a lock that its monitor holds")  # while that lives, `pid` is nobody else's
    paused = calls.call("access", f"{setting.state}/paused", 0, harmless=[ENOENT])
    calls.must_be(paused, -ENOENT, "a container that is not paused")  # in its control group we would be frozen too
    pidfd = calls.call("pidfd_open", pid, 0)
    cgroups.add_joining(calls, setting.cgroup_version, bundle.cgroups_path)
    calls.call("setns", pidfd, sum(NAMESPACES[kind] for kind in bundle.namespaces))
    child, inside = calls.child()  # a process can't change its own PID namespace, only its children's
    if "user" in bundle.namespaces:
        inside.call("setresgid", 0, 0, 0)
        inside.call("setresuid", 0, 0, 0)
    add_identity(inside, process, bundle.seccomp)
    add_execution(inside, process.args, process.env)
    calls.end_as(child)
    return calls


def _monitor(monitor: Calls, bundle: Bundle, setting: Setting, ready: Call) -> Call:
    state = setting.state
    monitor.call("setsid")
    lock = monitor.call("open", f"{state}/lock", Open.RDONLY | Open.CREAT | Open.CLOEXEC, 0o600)
    monitor.call("flock", lock, _LOCK_EX)  # who waits for the container's end, waits for this lock
    for note in ("started", "paused", "exit") if setting.again else ():
        monitor.call("unlink", f"{state}/{note}", harmless=[ENOENT])
    monitor.call("unshare", Clone.NEWNS)  # what is mounted for the container is seen by nobody else, and goes with it
    monitor.call("mount", "", "/", "", Mount.REC | Mount.SLAVE, 0)
    if setting.overlay is not None:
        _add_overlay(monitor, setting.overlay, bundle, setting)
    out, err, go, executed = (monitor.call("pipe2", Room(8, whole=True), Open.CLOEXEC) for _ in range(4))
    pipes = _Pipes(out, err, go, ready)
    cgroup = cgroups.add_open(monitor, setting.cgroup_version, bundle.cgroups_path)
    init, inside = monitor.child(bundle.flags & ~_late(bundle), cgroup)
    inside.call("close", lock)  # it is the monitor's alone
    _init(inside, bundle, setting, pipes)
    cgroups.add_membership(monitor, setting.cgroup_version, bundle.cgroups_path, init)
    for mappings, file in ((bundle.uid_mappings, "uid_map"), (bundle.gid_mappings, "gid_map")):
        if mappings:
            monitor.write_file(Words(f"/proc/%d/{file}", init), _map(mappings))
    if bundle.process.oom_score_adj is not None:
        monitor.write_file(Words("/proc/%d/oom_score_adj", init), str(bundle.process.oom_score_adj))
    monitor.write_file(f"{state}/pid", Words("%d\n", init), flags=Open.WRONLY | Open.CREAT)
    pidfd = monitor.call("pidfd_open", init, 0)
    for kind in ("prestart", "createRuntime"):
        add_hooks(monitor, bundle, setting, kind, init)
    monitor.call("write", Answer(go, 4), "x", 1)
    null = monitor.call("open", "/dev/null", Open.RDWR | Open.CLOEXEC)
    for number in (0, 1, 2, REPORT_FD):  # the caller's ends are not kept open
        monitor.call("dup3", null, number, Open.CLOEXEC if number == REPORT_FD else 0)
    for end in (Answer(go, 0), Answer(go, 4), Answer(out, 4), Answer(err, 4), Answer(executed, 4), Answer(ready, 0)):
        monitor.call("close", end)
    if setting.wait_for_start:
        monitor.call("close", Answer(ready, 4))
    if bundle.hooks.get("poststart"):
        monitor.call("read", Answer(executed, 0), Room(1), 1)  # the end of the file: init has executed its program
        add_hooks(monitor, bundle, setting, "poststart", init)
    if not setting.wait_for_start:
        monitor.call("close", Answer(ready, 4))  # the caller goes on: by now it has all answers
    monitor.keep_log(pidfd, Answer(out, 0), Answer(err, 0), f"{state}/log", LOG_LIMIT)
    _note_the_end(monitor, bundle, setting, init)
    return init


def _late(bundle: Bundle) -> Clone:
    """Namespaces that init makes itself: of control groups, when it is in its own; of IPC, when it is root (mqueue's owner)."""
    return Clone.NEWCGROUP | (Clone.NEWIPC if "user" in bundle.namespaces else Clone(0))


def _add_overlay(monitor: Calls, overlay: Overlay, bundle: Bundle, setting: Setting) -> None:
    """Stack the layers; here and not in a user namespace, where overlayfs could not mark what was deleted (xattrs of a tmpfs)."""
    owner = next((each.host for each in bundle.uid_mappings if each.container == 0), 0)
    for directory in (
        f"{DIRECTORY}/containers",
        str(PurePosixPath(bundle.root).parent),
        overlay.upper,
        overlay.work,
        bundle.root,
    ):
        monitor.call("mkdir", directory, 0o755, harmless=[EEXIST])
    if setting.init_layer is not None:
        setting.init_layer.add_to(monitor, overlay.lowers[0], owner)
    monitor.call("chown", overlay.upper, owner, owner)
    overlay.add_mount(monitor, bundle.root)


def _note_the_end(monitor: Calls, bundle: Bundle, setting: Setting, init: Call) -> None:
    """Write how it ended (waitid(2)'s answer, then what the cgroup says of memory) under another name, then under its own."""
    ending = monitor.call("waitid", P_PID, init, Room(SIGINFO, whole=True), WEXITED, 0)
    events = cgroups.add_memory_events(monitor, setting.cgroup_version, bundle.cgroups_path)
    file = monitor.call("open", f"{setting.state}/exit.new", Open.WRONLY | Open.CREAT | Open.CLOEXEC, 0o644)
    monitor.call("write", file, Answer(ending), SIGINFO)
    monitor.call("write", file, Answer(events), events, harmless=None)
    monitor.call("close", file)
    cgroups.add_removal(monitor, setting.cgroup_version, bundle.cgroups_path)
    add_hooks(monitor, bundle, setting, "poststop", None)
    monitor.call("rename", f"{setting.state}/exit.new", f"{setting.state}/exit")
    monitor.write_file(EVENTS, f"{setting.name}\n", flags=Open.WRONLY | Open.CREAT | Open.APPEND)


def _init(init: Calls, bundle: Bundle, setting: Setting, pipes: _Pipes) -> None:
    init.call("close", Answer(pipes.go, 4))
    word = init.call("read", Answer(pipes.go, 0), Room(1), 1)  # wait until the monitor has said who we are
    init.must_be(word, 1, "the monitor's word")  # none, but the end of the file: it has failed, in a hook perhaps
    gate = None
    if setting.wait_for_start:
        fifos = (f"{setting.state}/{name}" for name in ("start", "failed"))
        gate = _Gate(*(init.call("open", fifo, Open.RDWR | Open.CLOEXEC) for fifo in fifos))
    joined = [
        (kind, init.call("open", path, Open.RDONLY | Open.CLOEXEC)) for kind, path in bundle.namespaces.items() if path
    ]
    for _, file in joined:
        init.call("setns", file, 0)
    if "user" in bundle.namespaces:
        init.call("setresgid", 0, 0, 0)
        init.call("setresuid", 0, 0, 0)
    if late := bundle.flags & _late(bundle):
        init.call("unshare", late)
    init.call("setsid")
    for name, call in ((bundle.hostname, "sethostname"), (bundle.domainname, "setdomainname")):
        if name:
            init.call(call, name, len(name.encode()))
    build_root(init, bundle, setting)
    for key, value in bundle.sysctl.items():
        init.write_file("/proc/sys/" + key.replace(".", "/"), value)
    add_hooks(init, bundle, setting, "startContainer", None)
    _become(init, bundle, gate, pipes)


def _become(init: Calls, bundle: Bundle, gate: _Gate | None, pipes: _Pipes) -> None:
    null = init.call("open", "/dev/null", Open.RDONLY | Open.CLOEXEC)
    init.call("dup2", null, 0)
    init.call("dup2", Answer(pipes.out, 4), 1)
    init.call("dup2", Answer(pipes.err, 4), 2)
    add_identity(init, bundle.process, bundle.seccomp)
    if gate is not None:
        init.call("dup3", gate.failed, REPORT_FD, Open.CLOEXEC)
        init.call("close", gate.failed)
        init.call("close", Answer(pipes.ready, 4))
        init.call("read", gate.start, Room(1), 1)
    add_execution(init, bundle.process.args, bundle.process.env)


def _map(mappings: Sequence[IdMapping]) -> str:
    return "".join(f"{each.container} {each.host} {each.size}\n" for each in mappings)
