"""Capabilities and filters of system calls, by what they do to real processes; crun beside them as the reference."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from errno import EPERM, EROFS, errorcode
from signal import SIGSYS
from typing import Any

import pytest

from cloudlab import Machine, UsageError
from cloudlab.containers import capabilities, seccomp
from cloudlab.containers.calls import PROGRAM, Call, CallError, Calls, Room, make, outcomes_in, program
from cloudlab.containers.capabilities import DEFAULT, DEFAULT_SETS, NAMES
from cloudlab.containers.seccomp import DEFAULT_PROFILE
from cloudlab.containers.syscalls import NUMBERS, Clone, Prctl
from cloudlab.machines.result import Result

pytestmark = pytest.mark.guest

PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
NOBODY = 65534
WHOLE = 2**64 - 1
NO_FILE = 1 << 30  # a file descriptor that nobody has open
_P_PID, _WEXITED = 1, 4


def no_new_privileges(calls: Calls) -> None:
    calls.call("prctl", Prctl.SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def become(calls: Calls, uid: int) -> None:
    calls.call("setgroups", 0, 0)
    calls.call("setresgid", uid, uid, uid)
    calls.call("prctl", Prctl.SET_KEEPCAPS, 1)
    calls.call("setresuid", uid, uid, uid)


def read_status(calls: Calls) -> Call:
    """Read /proc/self/status without executing anything: what the process itself has."""
    file = calls.call("open", "/proc/self/status", 0)
    return calls.call("read", file, Room(4096), 4096)


def execute(calls: Calls, *command: str) -> None:
    calls.call("execve", command[0], command, (PATH, "LC_ALL=C.UTF-8", "HOME=/root"))


def executed(machine: Machine, calls: Calls) -> Result:
    """Have the calls made, of which the last executes something, and return what that printed."""
    return machine.run([PROGRAM], input=program(calls, "f"))


def rule(names: str, action: str = "ERRNO", *args: tuple[Any, ...], **more: Any) -> dict[str, Any]:
    """A rule of a profile; `args`: (index, op, value, value of MASKED_EQ)."""
    listed = [
        {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": (*two, 0)[0]}
        for index, op, value, *two in args
    ]
    return {"names": names.split(), "action": f"SCMP_ACT_{action}", **({"args": listed} if listed else {}), **more}


def profile(*syscalls: dict[str, Any], default: str = "ALLOW", **more: Any) -> dict[str, Any]:
    return {"defaultAction": f"SCMP_ACT_{default}", "syscalls": list(syscalls), **more}


# --- filters ----------------------------------------------------------------------------------------------------


def test_a_filter_makes_a_call_fail_with_the_error_asked_for(n1: Machine) -> None:
    calls = Calls()
    seccomp.add(calls, profile(rule("mkdir", errnoRet=EROFS)))
    tried, other = (
        calls.call("mkdir", "/tmp/filtered", 0o755, harmless=None),
        calls.call("rmdir", "/tmp/none", harmless=None),
    )
    outcomes = make(n1, calls)
    assert outcomes[tried.index].returned == -EROFS
    assert outcomes[other.index].error.startswith("ENOENT")
    assert not n1.run(["ls", "-d", "/tmp/filtered"]).ok


def test_a_filter_stays_when_a_program_is_executed(n1: Machine) -> None:
    calls = Calls()
    seccomp.add(calls, profile(rule("mkdir mkdirat", errnoRet=EROFS)))
    execute(calls, "/usr/bin/mkdir", "/tmp/filtered")
    assert executed(n1, calls).stderr.strip().endswith("Read-only file system")


@pytest.mark.parametrize("action", ["KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP"])
def test_a_call_can_end_the_process_with_sigsys(n1: Machine, action: str) -> None:
    calls = Calls()
    child, inside = calls.child()
    seccomp.add(inside, profile(rule("mkdir", action)))
    inside.call("mkdir", "/tmp/filtered", 0o755, harmless=None)
    inside.call("exit_group", 7)
    calls.end_as(child)
    assert n1.run([PROGRAM], input=program(calls, "f")).exit_status == 128 + SIGSYS
    assert not n1.run(["ls", "-d", "/tmp/filtered"]).ok


def test_flags_of_clone_decide(n1: Machine) -> None:
    masked = [rule("clone", "ERRNO", (0, "MASKED_EQ", flag, flag)) for flag in (Clone.NEWUTS, Clone.NEWPID)]
    calls = Calls()
    seccomp.add(calls, profile(*masked))
    tried = [calls.call("clone", flags, 0, 0, 0, 0, harmless=None) for flags in (Clone.NEWUTS | 17, Clone.NEWPID | 17)]
    outcomes = make(n1, calls)
    assert [outcomes[call.index].returned for call in tried] == [-EPERM, -EPERM]
    plain = Calls()
    seccomp.add(plain, profile(*masked))
    execute(plain, "/bin/sh", "-c", "echo $(echo forked)")
    assert executed(n1, plain).stdout == "forked\n"


def test_a_filter_needs_the_right_to_put_it_on_or_no_new_privileges(n1: Machine) -> None:
    calls = Calls()
    become(calls, NOBODY)
    seccomp.add(calls, profile())
    with pytest.raises(CallError, match=r"seccomp\(SET_MODE_FILTER, SPEC_ALLOW, .* failed: EACCES"):
        make(n1, calls)
    allowed = Calls()
    become(allowed, NOBODY)
    no_new_privileges(allowed)
    seccomp.add(allowed, profile())
    make(n1, allowed)


def test_the_kernel_takes_a_program_as_long_as_it_may_be(n1: Machine) -> None:
    rules = [rule("lseek openat", "ERRNO", (n % 5, "EQ", n << 31), (5, "LE", n)) for n in range(200)]
    long = seccomp.compile(profile(*rules))
    assert 3900 < len(long) // 8 <= seccomp.LIMIT
    calls = Calls()
    seccomp.add(calls, profile(*rules))
    make(n1, calls)


def test_every_flag_is_one_that_the_kernel_takes(n1: Machine) -> None:
    calls = Calls()
    for flag in seccomp.Flag:
        seccomp.add(calls, profile(flags=[f"SECCOMP_FILTER_FLAG_{flag.name}"]))
    make(n1, calls)


# --- the default profile ----------------------------------------------------------------------------------------

SESSION = r"""
set -eu
cd "$(mktemp -d)"
printf 'pear\napple\nfig\n' > fruit
[ "$(sort fruit | head -n 1)" = apple ]
ls -la / > list; [ "$(wc -l < list)" -gt 5 ]
mkdir -p a/b; ln -s ../fruit a/link; chmod 640 fruit; chown 65534:65534 fruit; touch a/b/file
tar czf all.tgz a fruit; rm -r a; tar xzf all.tgz; [ "$(readlink a/link)" = ../fruit ]
find . -name 'f*' | xargs -n 1 basename | sort | tr '\n' ' '; echo
ps -e | grep -q ps
sleep 0.01 & wait
nc -lU socket > heard & listener=$!
until [ -S socket ]; do :; done
echo hello | nc -NU socket; wait $listener; cat heard
grep -c processor /proc/cpuinfo > /dev/null; date > /dev/null; df / > /dev/null; id -u
sed -n 2p fruit; busybox awk '{ print length($1) }' fruit | tail -n 1
stress-ng --quiet --pthread 1 --pthread-ops 20 --timeout 30
timeout 5 sh -c 'kill -9 $$' || echo killed $?
setpriv --reuid 65534 --clear-groups id -u
"""


def test_an_ordinary_session_works_under_the_default_profile(n1: Machine) -> None:
    calls = Calls()
    capabilities.add_bounding(calls, DEFAULT_SETS)
    capabilities.add_sets(calls, DEFAULT_SETS)
    no_new_privileges(calls)
    seccomp.add(calls, DEFAULT_PROFILE)
    execute(calls, "/bin/sh", "-c", SESSION)
    result = executed(n1, calls)
    assert result.ok, result.stderr
    assert result.stdout == "file fruit \nhello\n0\napple\n3\nkilled 137\n65534\n"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("mount -t tmpfs t /mnt", "permission denied"),
        ("umount /proc", "permission denied|must be superuser|not permitted"),
        ("unshare --user true", "Operation not permitted"),
        ("unshare --net true", "Operation not permitted"),
        ("nsenter --net=/proc/1/ns/net true", "Operation not permitted"),
        ("hostname other", "Operation not permitted|must be root"),
        ("busybox dmesg", "Operation not permitted"),
        ("date -s 2001-01-01", "Operation not permitted"),
        ("busybox swapoff /dev/null", "Operation not permitted"),
        ("busybox reboot -f", "Operation not permitted"),
        ("modprobe dummy || busybox insmod /etc/passwd", "Operation not permitted"),
    ],
)
def test_what_the_default_profile_denies_fails_even_for_root_with_all_capabilities(
    n1: Machine, command: str, says: str
) -> None:
    calls = Calls()
    seccomp.add(calls, DEFAULT_PROFILE)
    execute(calls, "/bin/sh", "-c", command)
    result = executed(n1, calls)
    assert not result.ok
    assert any(words in result.stderr for words in says.split("|")), result.stderr


# --- capabilities -----------------------------------------------------------------------------------------------


def test_a_guests_first_process_has_every_capability(n1: Machine) -> None:
    sets = capabilities.of(n1, 1)
    assert sets["effective"] == sets["permitted"] == sets["bounding"] == NAMES
    assert sets["ambient"] == sets["inheritable"] == ()
    with pytest.raises(UsageError, match=rf"There is no process 4194305 on {n1.name}"):
        capabilities.of(n1, 4194305)


SOME_SETS = [
    DEFAULT_SETS,
    {},
    {"bounding": NAMES, "permitted": NAMES, "effective": (), "inheritable": NAMES},
    {
        "bounding": ("CAP_KILL", "CAP_NET_RAW", "CAP_CHECKPOINT_RESTORE"),
        "permitted": ("CAP_NET_RAW", "CAP_CHECKPOINT_RESTORE", "CAP_SYS_TIME"),
        "effective": ("CAP_SYS_TIME",),
        "inheritable": ("CAP_NET_RAW",),
        "ambient": ("CAP_NET_RAW",),
    },
]


@pytest.mark.parametrize("uid", [0, NOBODY])
@pytest.mark.parametrize("sets", SOME_SETS)
def test_a_process_has_exactly_the_sets_that_it_took_on(
    n1: Machine, sets: dict[str, tuple[str, ...]], uid: int
) -> None:
    calls = Calls()
    capabilities.add_bounding(calls, sets)
    become(calls, uid)
    capabilities.add_sets(calls, sets)
    status = read_status(calls)
    found = capabilities.sets_in(make(n1, calls)[status.index].data.decode())
    assert {name: set(names) for name, names in found.items()} == {
        name: set(sets.get(name, ())) for name in capabilities.SETS
    }


def test_what_root_executes_gets_the_bounding_set(n1: Machine) -> None:
    calls = Calls()
    capabilities.add_bounding(calls, DEFAULT_SETS)
    capabilities.add_sets(calls, DEFAULT_SETS)
    execute(calls, "/usr/bin/cat", "/proc/self/status")
    found = capabilities.sets_in(executed(n1, calls).stdout)
    assert {name: set(names) for name, names in found.items()} == {
        name: set(names) for name, names in DEFAULT_SETS.items()
    }


def test_what_another_user_executes_gets_the_ambient_set_and_nothing_else(n1: Machine) -> None:
    names = ("CAP_NET_RAW", "CAP_CHOWN")
    sets = {"bounding": DEFAULT, "permitted": names, "effective": names, "inheritable": names, "ambient": names[:1]}
    calls = Calls()
    capabilities.add_bounding(calls, sets)
    become(calls, NOBODY)
    capabilities.add_sets(calls, sets)
    execute(calls, "/usr/bin/cat", "/proc/self/status")
    found = capabilities.sets_in(executed(n1, calls).stdout)
    assert found["effective"] == found["permitted"] == found["ambient"] == ("CAP_NET_RAW",)
    assert set(found["bounding"]) == set(DEFAULT)


def test_root_without_a_capability_can_not_do_what_it_allows(n1: Machine) -> None:
    without = tuple(name for name in NAMES if name not in ("CAP_CHOWN", "CAP_SYS_ADMIN"))
    sets = {"bounding": without, "permitted": without, "effective": without}
    calls = Calls()
    calls.write_file("/tmp/of-root", "x", flags=0o1101)
    capabilities.add_bounding(calls, sets)
    capabilities.add_sets(calls, sets)
    owner = calls.call("chown", "/tmp/of-root", 7, 7, harmless=None)
    mode = calls.call("chmod", "/tmp/of-root", 0o600)
    mount = calls.call("mount", "t", "/mnt", "tmpfs", 0, 0, harmless=None)
    outcomes = make(n1, calls)
    assert [outcomes[call.index].returned for call in (owner, mode, mount)] == [-EPERM, 0, -EPERM]


@pytest.fixture(scope="module")
def setuid_cat(n1: Machine) -> str:
    n1.succeed("cp /usr/bin/cat /usr/bin/setuid-cat && chmod 4755 /usr/bin/setuid-cat")
    return "/usr/bin/setuid-cat"


def test_a_setuid_program_makes_root_again_but_only_within_the_bounding_set(n1: Machine, setuid_cat: str) -> None:
    calls = Calls()
    capabilities.add_bounding(calls, {"bounding": ("CAP_KILL",)})
    become(calls, NOBODY)
    capabilities.add_sets(calls, {})
    execute(calls, setuid_cat, "/proc/self/status")
    status = executed(n1, calls).stdout
    assert f"Uid:\t{NOBODY}\t0\t0\t0" in status
    assert capabilities.sets_in(status)["effective"] == ("CAP_KILL",)


def test_with_no_new_privileges_a_setuid_program_gives_nothing_back(n1: Machine, setuid_cat: str) -> None:
    calls = Calls()
    become(calls, NOBODY)
    capabilities.add_sets(calls, {})
    no_new_privileges(calls)
    execute(calls, setuid_cat, "/proc/self/status")
    status = executed(n1, calls).stdout
    assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}" in status
    assert "NoNewPrivs:\t1" in status
    sets = capabilities.sets_in(status)
    assert sets["effective"] == sets["permitted"] == ()
    assert sets["bounding"] == NAMES  # it is there, and out of reach


def test_what_was_given_up_can_not_be_taken_on_again(n1: Machine) -> None:
    calls = Calls()
    capabilities.add_sets(calls, {"permitted": ("CAP_KILL",), "effective": ("CAP_KILL",)})
    capabilities.add_sets(calls, {"permitted": DEFAULT})
    with pytest.raises(CallError, match=r"capset\(.*failed: EPERM"):
        make(n1, calls)


# --- the reference ----------------------------------------------------------------------------------------------

BUNDLE: dict[str, Any] = {
    "ociVersion": "1.0.0",
    "process": {
        "user": {"uid": 0, "gid": 0},
        "args": ["/process"],
        "cwd": "/",
        "capabilities": {},
        "noNewPrivileges": True,
    },
    "root": {"path": "rootfs"},
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
    "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]},
}
PROBED = ("lseek", "copy_file_range", "fallocate", "getpriority", "mkdir")
INTERESTING = [0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, 1 << 63, WHOLE - 1, WHOLE]


def near(source: random.Random) -> int:
    return (source.choice(INTERESTING) + source.choice([-1, 0, 1])) & WHOLE


def random_profile(seed: int) -> dict[str, Any]:
    """One rule with one to five conditions for each of three calls.

    Not several rules for one call: libseccomp 2.5.4 merges their 64-bit comparisons and can deny what each rule alone
    lets pass (arg 2 > 3 and arg 5 != N, beside arg 2 <= 0 and arg 3 == 1). Several rules are compared in PROFILES by hand.
    """
    source = random.Random(seed)
    operations = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]
    rules = []
    for name in PROBED[:3]:
        indices = source.sample(range(1, 6), source.choice([1, 1, 2, 2, 3, 5]))
        args = [(index, source.choice(operations), near(source), near(source)) for index in indices]
        rules.append(rule(name, "ERRNO", *args, errnoRet=95))
    return profile(*rules, rule("getpriority", "ERRNO", errnoRet=seed + 1))


UNPROBED = " ".join(name for name in NUMBERS if name not in PROBED)
PROFILES: dict[str, dict[str, Any]] = {
    "one call": profile(rule("mkdir", errnoRet=EROFS)),
    "all but some": profile(
        rule(UNPROBED, "ALLOW"), rule("lseek", "ALLOW", (2, "LE", 1)), default="ERRNO", defaultErrnoRet=38
    ),
    "killed": profile(
        rule("mkdir", "KILL"), rule("lseek", "KILL_PROCESS", (1, "GT", 1 << 32)), rule("fallocate", "TRAP")
    ),
    "logged": profile(rule("mkdir", "LOG"), rule("lseek", "TRACE", errnoRet=7)),
    "masked": profile(
        *(rule("lseek", "ERRNO", (1, "MASKED_EQ", bit, bit | 4), errnoRet=95) for bit in (1 << 31, 1 << 63))
    ),
    "several rules": profile(
        rule("lseek", "ERRNO", (1, "GT", 1 << 32), errnoRet=95),
        rule("lseek", "ERRNO", (2, "LT", 2), errnoRet=95),
        rule("copy_file_range", "ERRNO", (1, "EQ", WHOLE), errnoRet=5),
        rule("copy_file_range", "ERRNO", (1, "EQ", 0), errnoRet=6),
    ),
    "one argument twice": profile(rule("lseek", "ERRNO", (1, "EQ", 1), (1, "EQ", 2), (2, "EQ", 1))),
    "without conditions first": profile(
        rule("lseek", "ERRNO", (1, "EQ", 1), errnoRet=5), rule("lseek", errnoRet=6), rule("lseek", "KILL")
    ),
    "allowed and denied": profile(rule("mkdir", "ALLOW"), rule("mkdir chown32 not_a_call", errnoRet=13)),
    "ours": dict(DEFAULT_PROFILE),
    **{f"random {seed}": random_profile(seed) for seed in range(8)},
}


def probes(*, apart: bool) -> Calls:
    """Calls that fail with EBADF or the like unless a filter says otherwise, each `apart` in a process of its own or not."""
    source, calls = random.Random(1), Calls()
    once = {"mkdir": ("/proc", 0o755), "personality": (0x40000,), "socket": (40, 1, 0), "unshare": (1,)}
    for name in (*once, "getpriority", "setns", "keyctl", "bpf", "mount_setattr"):
        _probe(calls, name, once.get(name, (NO_FILE, NO_FILE)), apart)
    for _ in range(60):
        _probe(calls, source.choice(PROBED[:3]), (NO_FILE, *(near(source) for _ in range(5))), apart)
    return calls


def _probe(calls: Calls, name: str, arguments: Sequence[Any], apart: bool) -> None:
    if not apart:
        calls.call(name, *arguments, harmless=None)
        return
    child, inside = calls.child()
    inside.call(name, *arguments, harmless=None)
    calls.call("waitid", _P_PID, child, Room(128, whole=True), _WEXITED, 0)


def answers(made: Calls, printed: bytes) -> list[tuple[str, str]]:
    """What became of each probe: (call, its error, or the signal that ended its process)."""
    outcomes = outcomes_in(made, printed)
    tried = [call for call in made if call.name not in ("clone3", "waitid")]
    signals = [outcome.data[24] if outcome.data[8] > 1 else 0 for outcome in outcomes.values() if outcome.data]
    return [
        (str(call), f"signal {signal}" if signal else errorcode.get(-outcomes[call.index].returned, "no error"))
        for call, signal in zip(tried, signals or [0] * len(tried), strict=True)
    ]


@pytest.fixture(scope="module")
def bundle(n1: Machine) -> str:
    n1.succeed(f"mkdir -p /b/rootfs/proc /b/rootfs/dev && cp {PROGRAM} /b/rootfs/process")
    return "/b"


@pytest.mark.parametrize("name", PROFILES)
def test_calls_come_to_the_same_under_our_filter_and_crun_s(n1: Machine, bundle: str, name: str) -> None:
    given = PROFILES[name]
    n1.put(f"{bundle}/config.json", json.dumps(BUNDLE | {"linux": BUNDLE["linux"] | {"seccomp": given}}))
    tried = probes(apart=name != "ours")  # which has no clone3, by which calls.child() makes processes
    reference = n1.run(["crun", "run", "-b", bundle, "reference"], input=program(tried, "a"))
    assert reference.ok, reference.stderr
    calls = Calls()
    capabilities.add_bounding(calls, {})
    capabilities.add_sets(calls, {})
    no_new_privileges(calls)
    seccomp.add(calls, given)
    execute(calls, PROGRAM)
    ours = n1.run([PROGRAM], input=program(calls, "f") + program(tried, "a"))
    assert ours.ok, ours.stderr
    found = answers(tried, ours.stdout_bytes)
    assert found == answers(tried, reference.stdout_bytes)
    assert len({error for _, error in found}) > 2


@pytest.mark.parametrize("uid", [0, NOBODY])
@pytest.mark.parametrize("sets", SOME_SETS)
def test_a_program_has_the_same_capabilities_by_our_calls_and_by_crun(
    n1: Machine, bundle: str, sets: dict[str, tuple[str, ...]], uid: int
) -> None:
    process = BUNDLE["process"] | {"capabilities": sets, "user": {"uid": uid, "gid": uid}}
    n1.put(f"{bundle}/config.json", json.dumps(BUNDLE | {"process": process}))
    asked = Calls()
    status = read_status(asked)
    reference = n1.run(["crun", "run", "-b", bundle, "reference"], input=program(asked, "a"))
    assert reference.ok, reference.stderr
    calls = Calls()
    capabilities.add_bounding(calls, sets)
    become(calls, uid)
    capabilities.add_sets(calls, sets)
    no_new_privileges(calls)
    execute(calls, PROGRAM)
    ours = n1.run([PROGRAM], input=program(calls, "f") + program(asked, "a"))
    found, expected = (
        capabilities.sets_in(outcomes_in(asked, printed)[status.index].data.decode())
        for printed in (ours.stdout_bytes, reference.stdout_bytes)
    )
    assert found == expected
