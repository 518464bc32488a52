"""Going into namespaces, as nsenter(1) does, and making new ones, as unshare(1) does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from errno import EINVAL

from cloudlab.containers import calls as system_calls
from cloudlab.containers.calls import Answer, Call, CallError, Calls, Place, Room, Words
from cloudlab.containers.execution import add_execution, text_of
from cloudlab.containers.kinds import checked, compare, flags_of, namespaces_of_each
from cloudlab.containers.namespace_errors import explain, make
from cloudlab.containers.processes import IdMap
from cloudlab.containers.syscalls import Clone, Mount, Open
from cloudlab.errors import UsageError
from cloudlab.machines.result import Result

_P_PID, _WEXITED = 1, 4  # waitid(2)


class Entered:
    """The inside of a process's namespaces: commands run there, as nsenter(1) runs them."""

    def __init__(self, place: Place, pid: int, kinds: Sequence[str]) -> None:
        self._place, self.pid, self.kinds = place, pid, tuple(kinds)

    def run(self, command: str | Sequence[str], *, input: bytes = b"", timeout_s: float = 60.0) -> Result:
        """Run a command to its end. Raises `CallError` if the namespaces can't be entered, or the command is not there."""
        calls, mark = entering(self.pid, self.kinds, command), system_calls.new_mark()
        began = system_calls.program(calls, "f", mark) + input
        result = self._place.run([system_calls.PROGRAM], input=began, timeout_s=timeout_s)
        if wrong := system_calls.failure_in(calls, mark, result.stderr_bytes):
            raise CallError(self._place.name, wrong, before=explain(wrong))
        return Result(text_of(command), result.exit_status, result.stdout_bytes, result.stderr_bytes, result.duration_s)

    def __repr__(self) -> str:
        return f"<namespaces {' '.join(self.kinds) or 'as outside'} of process {self.pid} on {self._place.name}>"


def enter(place: Place, pid: int, kinds: Iterable[str] | str | None = None) -> Entered:
    """Prepare to run commands in the namespaces of a process; without `kinds`, in all that are not ours already."""
    if kinds is not None:
        return Entered(place, pid, checked(kinds))
    theirs, ours = namespaces_of_each(place, [pid, "self"])
    return Entered(place, pid, [kind for kind, same in compare(theirs, ours).items() if not same])


def entering(pid: int, kinds: Iterable[str], command: str | Sequence[str]) -> Calls:
    """Return the calls that run a command in the namespaces of `pid`: setns(2) takes a pidfd since Linux 5.8."""
    calls, flags = Calls(), flags_of(kinds)
    pidfd = calls.call("pidfd_open", pid, 0)
    if flags:
        calls.call("setns", pidfd, flags)
    child, inside = calls.child()  # a process can't change its own PID namespace, only its children's
    if flags & Clone.NEWUSER:
        _become_root(inside)
    add_execution(inside, command)
    calls.end_as(child)
    return calls


def create(
    place: Place,
    kinds: Iterable[str] | str,
    command: str | Sequence[str],
    *,
    uid_map: Sequence[IdMap] = ((0, 0, 1),),
    gid_map: Sequence[IdMap] | None = None,
    offsets_s: Mapping[str, int] | None = None,
) -> int:
    """Start a process in new namespaces, which goes on living; returns its number outside.

    `uid_map`, `gid_map` (if it differs): of a new user namespace; `offsets_s`: seconds by which "monotonic" and "boottime" of a
    new time namespace are ahead (time_namespaces(7)). New mnt and pid together have a /proc of their own.
    """
    calls, child = creation(kinds, command, uid_map=uid_map, gid_map=gid_map, offsets_s=offsets_s)
    return make(place, calls)[child.index].returned


def creation(
    kinds: Iterable[str] | str,
    command: str | Sequence[str],
    *,
    uid_map: Sequence[IdMap] = ((0, 0, 1),),
    gid_map: Sequence[IdMap] | None = None,
    offsets_s: Mapping[str, int] | None = None,
) -> tuple[Calls, Call]:
    """Return the calls that make a process in new namespaces, and the one that returns its number.

    The maker is born in the new user namespace, so that it owns the others; a new PID or time namespace takes effect in its child.
    """
    calls, flags = Calls(), flags_of(kinds)
    _check_offsets(offsets_s or {}, flags)
    ready, go = (calls.call("pipe2", Room(8, whole=True), Open.CLOEXEC) for _ in range(2))
    maker_pid, maker = calls.child(flags & Clone.NEWUSER)
    maker.call("close", Answer(go, 4))
    maker.call("read", Answer(go, 0), Room(1), 1)  # the end of the file: the maps are written
    _unshare(maker, flags, offsets_s or {})
    if flags & Clone.NEWUSER:
        calls.write_file(Words("/proc/%d/uid_map", maker_pid), _map_text(uid_map))
        calls.write_file(Words("/proc/%d/gid_map", maker_pid), _map_text(gid_map or uid_map))
    child, inside = maker.child()
    _begin(inside, flags, command)
    for end in (Answer(go, 4), Answer(ready, 4)):
        calls.call("close", end)
    calls.call("read", Answer(ready, 0), Room(1), 1)  # the end of the file: it runs, or has failed
    calls.call("waitid", _P_PID, maker_pid, Room(128, whole=True), _WEXITED, 0)  # else the maker is left as a zombie
    return calls, child


def _unshare(maker: Calls, flags: Clone, offsets_s: Mapping[str, int]) -> None:
    maker.call("unshare", flags & ~Clone.NEWUSER)
    for clock, seconds in offsets_s.items():  # before anybody is in the time namespace: then they stay as they are
        maker.write_file("/proc/self/timens_offsets", f"{clock} {seconds} 0")
    if flags & Clone.NEWUSER:
        _become_root(maker)


def _begin(inside: Calls, flags: Clone, command: str | Sequence[str]) -> None:
    inside.call("setsid")
    if flags & Clone.NEWNS:
        inside.call("mount", "", "/", "", Mount.REC | Mount.PRIVATE, 0)
        if flags & Clone.NEWPID:
            inside.call("mount", "proc", "/proc", "proc", Mount.NOSUID | Mount.NODEV | Mount.NOEXEC, 0)
    null = inside.call("open", "/dev/null", Open.RDWR | Open.CLOEXEC)
    for end in (0, 1, 2):
        inside.call("dup2", null, end)
    add_execution(inside, command)


def _become_root(calls: Calls) -> None:
    calls.call("setresgid", 0, 0, 0, harmless=[EINVAL])  # no such number in its map: it stays nobody
    calls.call("setresuid", 0, 0, 0, harmless=[EINVAL])


def _check_offsets(offsets_s: Mapping[str, int], flags: Clone) -> None:
    if offsets_s and not flags & Clone.NEWTIME:
        raise UsageError("Only a new time namespace can have offsets.", allowed='kinds with "time"', example='"time"')
    for clock in offsets_s:
        if clock not in ("monotonic", "boottime"):
            raise UsageError(
                f"No clock {clock!r} is isolated.", allowed="monotonic, boottime", example='{"boottime": 86400}'
            )


def _map_text(rows: Sequence[IdMap]) -> str:
    if not rows or not all(len(row) == 3 for row in rows):
        raise UsageError(
            f"{rows!r} maps no users.", allowed="(first inside, first outside, count)", example="[(0, 100000, 65536)]"
        )
    return "".join(f"{inside} {outside} {count}\n" for inside, outside, count in rows)
