"""Filters of system calls: a compiled program decides what the profile's rules say."""

from __future__ import annotations

import errno
import itertools
import json
import random
import struct
from typing import Any

import pytest

from cloudlab.containers import seccomp
from cloudlab.containers.calls import Calls, Struct
from cloudlab.containers.seccomp import DEFAULT_PROFILE, LIMIT, Action, Instruction, evaluate
from cloudlab.containers.syscalls import NAMES, NUMBERS
from cloudlab.errors import UsageError

ALLOW, KILL = Action("ALLOW"), Action("KILL_PROCESS")
I386 = 0x40000003
WHOLE = 2**64 - 1
COMPARE = {
    "SCMP_CMP_NE": lambda given, value, two: given != value,
    "SCMP_CMP_LT": lambda given, value, two: given < value,
    "SCMP_CMP_LE": lambda given, value, two: given <= value,
    "SCMP_CMP_EQ": lambda given, value, two: given == value,
    "SCMP_CMP_GE": lambda given, value, two: given >= value,
    "SCMP_CMP_GT": lambda given, value, two: given > value,
    "SCMP_CMP_MASKED_EQ": lambda given, value, two: given & value == two & value,
}
INTERESTING = [0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, 1 << 63, WHOLE - 1, WHOLE]


def profile(*syscalls: dict[str, Any], default: str = "ALLOW", **more: Any) -> dict[str, Any]:
    return {"defaultAction": f"SCMP_ACT_{default}", "syscalls": list(syscalls), **more}


def rule(names: str, action: str = "ERRNO", *args: tuple[Any, ...], **more: Any) -> dict[str, Any]:
    """A rule; `args`: (index, op, value, value of MASKED_EQ)."""
    listed = [
        {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": (*two, 0)[0]}
        for index, op, value, *two in args
    ]
    return {"names": names.split(), "action": f"SCMP_ACT_{action}", "args": listed, **more}


def action_of(name: str, number: int | None) -> Action:
    kind = {"KILL": "KILL_THREAD"}.get(name.removeprefix("SCMP_ACT_"), name.removeprefix("SCMP_ACT_"))
    return Action(kind, (1 if number is None else number) if kind in ("ERRNO", "TRACE") else 0)


def directly(given: dict[str, Any], name: str, args: list[int]) -> Action:
    """What the rules of a profile say, read one after the other."""
    default = action_of(given["defaultAction"], given.get("defaultErrnoRet"))
    fitting = []
    for each in given["syscalls"]:
        action = action_of(each["action"], each.get("errnoRet"))
        if name in each["names"] and action != default:
            holds = [COMPARE[arg["op"]](args[arg["index"]], arg["value"], arg["valueTwo"]) for arg in each["args"]]
            indices = [arg["index"] for arg in each["args"]]
            if all(holds) if len(set(indices)) == len(indices) else any(holds):
                fitting.append((bool(each["args"]), action))
    unconditional = [action for conditional, action in fitting if not conditional]
    return (unconditional or [action for _, action in fitting] or [default])[0]


# --- what a program decides -------------------------------------------------------------------------------------


def test_a_call_that_is_named_gets_its_action_and_others_the_default() -> None:
    program = seccomp.compile(profile(rule("mkdir rmdir", "ERRNO", errnoRet=errno.EROFS)))
    assert evaluate(program, "mkdir") == evaluate(program, "rmdir") == Action("ERRNO", errno.EROFS)
    assert evaluate(program, "creat") == evaluate(program, "rename") == ALLOW


@pytest.mark.parametrize(
    ("action", "returned"),
    [
        ("ALLOW", 0x7FFF0000),
        ("LOG", 0x7FFC0000),
        ("TRACE", 0x7FF00001),
        ("ERRNO", 0x00050001),
        ("TRAP", 0x00030000),
        ("KILL", 0),
        ("KILL_THREAD", 0),
        ("KILL_PROCESS", 0x80000000),
    ],
)
def test_every_action_is_the_number_that_the_kernel_has_for_it(action: str, returned: int) -> None:
    program = seccomp.compile(profile(rule("mkdir", action), default="ERRNO", defaultErrnoRet=9))
    assert evaluate(program, "mkdir").value == returned
    assert evaluate(program, "read") == Action("ERRNO", 9)


def test_another_architectures_calls_and_those_of_x32_end_the_process() -> None:
    program = seccomp.compile(profile(architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]))
    assert evaluate(program, "read") == ALLOW
    assert evaluate(program, "read", arch=I386) == KILL
    assert evaluate(program, 0x40000000) == evaluate(program, 0x40000000 | NUMBERS["mount"]) == KILL
    assert evaluate(program, 0xFFFFFFFE) == KILL


def test_a_call_that_a_tracer_has_left_out_is_not_punished() -> None:
    assert evaluate(seccomp.compile(profile(rule("mkdir"))), -1) == ALLOW


@pytest.mark.parametrize("op", [op.removeprefix("SCMP_CMP_") for op in COMPARE])
def test_comparisons_are_of_64_bits(op: str) -> None:
    for value in INTERESTING:
        program = seccomp.compile(profile(rule("lseek", "ERRNO", (1, op, value, 0x180000001))))
        for given in {*INTERESTING, value, (value + 1) & WHOLE, (value - 1) & WHOLE}:
            expected = COMPARE[f"SCMP_CMP_{op}"](given, value, 0x180000001)
            assert (evaluate(program, "lseek", [9, given, 9]).kind == "ERRNO") == expected, (op, value, given)


def test_conditions_of_a_rule_are_and_ed_and_rules_of_a_call_or_ed() -> None:
    program = seccomp.compile(
        profile(rule("lseek", "ERRNO", (1, "EQ", 5), (2, "GT", 1)), rule("lseek", "ERRNO", (0, "EQ", 7), errnoRet=2))
    )
    assert evaluate(program, "lseek", [0, 5, 2]) == Action("ERRNO", 1)
    assert evaluate(program, "lseek", [0, 5, 1]) == evaluate(program, "lseek", [0, 6, 2]) == ALLOW
    assert evaluate(program, "lseek", [7, 6, 2]) == Action("ERRNO", 2)


def test_two_conditions_on_the_same_argument_are_or_ed_as_crun_has_them() -> None:
    program = seccomp.compile(profile(rule("lseek", "ERRNO", (1, "EQ", 5), (1, "EQ", 6), (2, "EQ", 1))))
    assert [evaluate(program, "lseek", [0, given, 0]).kind for given in (4, 5, 6)] == ["ALLOW", "ERRNO", "ERRNO"]
    assert evaluate(program, "lseek", [0, 4, 1]).kind == "ERRNO"


def test_a_rule_without_conditions_goes_before_those_with_some_wherever_it_stands() -> None:
    conditional, plain = rule("lseek", "ERRNO", (1, "EQ", 5), errnoRet=5), rule("lseek", "ERRNO", errnoRet=6)
    for listed in ([conditional, plain], [plain, conditional]):
        assert evaluate(seccomp.compile(profile(*listed)), "lseek", [0, 5]) == Action("ERRNO", 6)
    first_of_two = seccomp.compile(profile(plain, rule("lseek", "TRAP")))
    assert evaluate(first_of_two, "lseek") == Action("ERRNO", 6)


def test_a_rule_with_the_default_action_shields_nothing() -> None:
    program = seccomp.compile(profile(rule("mkdir", "ALLOW"), rule("mkdir")))
    assert evaluate(program, "mkdir").kind == "ERRNO"


def random_profile(source: random.Random) -> dict[str, Any]:
    pool = source.sample(sorted(NUMBERS), 6)
    pool += [NAMES[NUMBERS[name] + 1] for name in pool if NUMBERS[name] + 1 in NAMES]  # neighbours share ranges
    actions = ["ALLOW", "KILL", "KILL_PROCESS", "TRAP", "LOG", "TRACE", "ERRNO", "ERRNO", "ERRNO"]
    rules = []
    for _ in range(source.randrange(12)):
        count = source.choice([0, 0, 1, 1, 2, 3, 6])
        args = [
            (source.randrange(6), source.choice(list(COMPARE))[9:], value_near(source), value_near(source))
            for _ in range(count)
        ]
        action = source.choice(actions)
        more = {"errnoRet": source.randrange(1, 100)} if action in ("ERRNO", "TRACE") and source.random() < 0.7 else {}
        rules.append(rule(" ".join(source.sample(pool, source.randint(1, 3))), action, *args, **more))
    default = source.choice(["ALLOW", "ERRNO", "KILL", "LOG"])
    return profile(*rules, default=default, **({"defaultErrnoRet": 38} if default == "ERRNO" else {}))


def value_near(source: random.Random) -> int:
    return (
        source.choice([*INTERESTING, source.getrandbits(64), 1 << source.randrange(64)]) + source.randint(-1, 1)
    ) & WHOLE


@pytest.mark.parametrize("seed", range(150))
def test_a_program_decides_what_its_rules_say_for_any_profile_and_call(seed: int) -> None:
    source = random.Random(seed)
    given = random_profile(source)
    program = seccomp.compile(given)
    named = sorted({name for each in given["syscalls"] for name in each["names"]})
    mentioned = [arg[key] for each in given["syscalls"] for arg in each["args"] for key in ("value", "valueTwo")]
    for _ in range(300):
        name = source.choice(named) if named and source.random() < 0.8 else source.choice(sorted(NUMBERS))
        args = [
            source.choice([value_near(source), *source.sample(mentioned, min(4, len(mentioned)))]) for _ in range(6)
        ]
        assert evaluate(program, name, args) == directly(given, name, args), (name, args, given)


# --- the program itself -----------------------------------------------------------------------------------------


def test_a_program_is_an_array_of_struct_sock_filter() -> None:
    program = seccomp.compile(profile())
    assert struct.unpack_from("<HBBI", program) == (0x20, 0, 0, 4)  # BPF_LD | BPF_W | BPF_ABS, the architecture
    assert struct.unpack_from("<HBBI", program, 8) == (0x15, 1, 0, 0xC000003E)  # BPF_JMP | BPF_JEQ, AUDIT_ARCH_X86_64
    assert struct.unpack_from("<HBBI", program, len(program) - 8) == (0x06, 0, 0, 0x7FFF0000)  # BPF_RET, ALLOW
    assert seccomp.instructions(program)[0] == Instruction(0x20, 0, 0, 4)


def lengthy(rules: int) -> dict[str, Any]:
    """Many rules with conditions for calls in the middle and at the ends of the numbers."""
    calls = ["read", "lseek", "mount", "openat", "statx", "futex_waitv"]
    return profile(
        *(rule(calls[n % 6], "ERRNO", (n % 5, "EQ", n << 31), (5, "LE", n), errnoRet=1 + n % 99) for n in range(rules))
    )


def test_jumps_farther_than_255_are_made_in_two() -> None:
    given = lengthy(300)
    program = seccomp.compile(given)
    assert 2500 < len(program) // 8 <= LIMIT
    assert any(step.code == 0x05 and step.value > 255 for step in seccomp.instructions(program))
    source = random.Random(1)
    for _ in range(1500):
        at = source.randrange(300)
        args = [source.choice([at, source.randrange(300)]) << 31 for _ in range(5)] + [source.randrange(310)]
        name = source.choice(
            ["read", "lseek", "mount", "openat", "statx", "futex_waitv", "open", "close_range", "time"]
        )
        assert evaluate(program, name, args) == directly(given, name, args)


def test_calls_behind_a_block_of_any_length_are_found() -> None:
    lengths = set()
    for short, long in itertools.product(range(80, 88), range(3)):  # of 3 and of 4 instructions
        rules = [rule("read", "ERRNO", (1, "MASKED_EQ", 0xFFFFFFFF, n)) for n in range(short)]
        rules += [rule("read", "ERRNO", (2, "MASKED_EQ", 0xFF, 1 + n)) for n in range(long)]
        program = seccomp.compile(profile(*rules, rule("write", errnoRet=9)))
        assert evaluate(program, "write") == Action("ERRNO", 9)
        assert evaluate(program, "open") == evaluate(program, "read", [0, 99]) == ALLOW
        assert evaluate(program, "read", [0, short - 1]) == Action("ERRNO", 1)
        lengths.add(3 * short + 4 * long + 1)
    assert lengths >= {254, 255, 256, 257}


def test_no_jump_leads_out_of_a_program_and_every_path_returns() -> None:
    for given in (DEFAULT_PROFILE, lengthy(300), *(random_profile(random.Random(seed)) for seed in range(50))):
        code = seccomp.instructions(seccomp.compile(given))
        for at, step in enumerate(code):
            overs = {step.value} if step.code == 0x05 else {step.yes, step.no}
            assert step.code == 0x06 or all(at + 1 + over < len(code) for over in overs)
        assert code[-1].code == 0x06


def test_more_than_4096_instructions_are_too_many() -> None:
    with pytest.raises(UsageError, match=r"This profile takes \d{4} instructions\.\nAllowed: 4096"):
        seccomp.compile(lengthy(600))


def test_names_of_other_architectures_and_newer_kernels_are_passed_over_and_told() -> None:
    given = profile(rule("chown32 mkdir"), rule("time_travel"), rule("chown32"))
    assert seccomp.unknown_names(given) == ("chown32", "time_travel")
    assert evaluate(seccomp.compile(given), "mkdir").kind == "ERRNO"


def test_calls_newer_than_our_list_can_be_told_to_be_unknown() -> None:
    program = seccomp.compile(profile(unknownErrnoRet=errno.ENOSYS))
    assert evaluate(program, max(NAMES)) == ALLOW
    assert evaluate(program, max(NAMES) + 1) == evaluate(program, 0x3FFFFFFF) == Action("ERRNO", errno.ENOSYS)
    assert evaluate(program, 0x40000000) == KILL
    assert evaluate(seccomp.compile(profile()), max(NAMES) + 1) == ALLOW


# --- profiles that are none -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (7, "The whole of a seccomp profile is 7"),
        ({}, "default: defaultAction of a seccomp profile is None"),
        (profile(default="DENY"), r"defaultAction of a seccomp profile is 'SCMP_ACT_DENY'\.\nAllowed: SCMP_ACT_KILL, "),
        ({"defaultAction": "ALLOW"}, "defaultAction of a seccomp profile is 'ALLOW'"),
        (profile(defaultErrnoRet=1), "defaultErrnoRet of a seccomp profile is 1.\nAllowed: none with SCMP_ACT_ALLOW"),
        (profile(rule("mkdir", "NOTIFY")), r"syscalls\[0\]: action of a seccomp profile is 'SCMP_ACT_NOTIFY'"),
        (profile(rule("mkdir", errnoRet=4096)), r"syscalls\[0\]: errnoRet .* 4096.\nAllowed: 0 to 4095"),
        (profile(rule("mkdir", errnoRet="EPERM")), "errnoRet of a seccomp profile is 'EPERM'"),
        (profile(rule("mkdir", "KILL", errnoRet=1)), "Allowed: none with SCMP_ACT_KILL"),
        (
            profile(rule("mkdir"), rule("mkdir", "ERRNO", (6, "EQ", 0))),
            r"syscalls\[1\]\.args: index .* 6.\nAllowed: 0 to 5",
        ),
        (
            profile(rule("mkdir", "ERRNO", (0, "IS", 0))),
            "op of a seccomp profile is 'SCMP_CMP_IS'.\nAllowed: SCMP_CMP_EQ",
        ),
        (profile(rule("mkdir", "ERRNO", (0, "EQ", -1))), "value of a seccomp profile is -1"),
        (profile(rule("mkdir", "ERRNO", (0, "EQ", 1 << 64))), "value of a seccomp profile is 18446744073709551616"),
        (profile(rule("mkdir", "ERRNO", (0, "EQ", True))), "value of a seccomp profile is True"),
        (profile(rule("mkdir", "ERRNO", (0, "MASKED_EQ", 1, "x"))), "valueTwo of a seccomp profile is 'x'"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}, "syscalls of a seccomp profile is {}"),
        (profile("mkdir"), r"syscalls\[0\] of a seccomp profile is 'mkdir'"),  # type: ignore[arg-type]
        (profile({"name": "mkdir", "action": "SCMP_ACT_ERRNO"}), r"syscalls\[0\]\.names of a seccomp profile is None"),
        (profile({"names": [83], "action": "SCMP_ACT_ERRNO"}), r"syscalls\[0\]\.names .* is \[83\]"),
        (profile(rule("mkdir", "ERRNO", (0, "EQ", False))), "value of a seccomp profile is False"),
        (profile({"names": "mkdir", "action": "SCMP_ACT_ERRNO"}), r"syscalls\[0\]\.names .* is 'mkdir'"),
        (profile({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [1]}), r"args of a seccomp profile is 1"),
        (profile(unknownErrnoRet=9999), "unknownErrnoRet of a seccomp profile is 9999"),
    ],
)
def test_what_is_no_profile_is_told_what_is_one(given: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as raised:
        seccomp.compile(given)
    assert json.loads(raised.value.example)["defaultAction"] == "SCMP_ACT_ALLOW"


def test_the_example_in_errors_is_a_profile() -> None:
    program = seccomp.compile(json.loads(seccomp.EXAMPLE))
    assert evaluate(program, "mkdir") == Action("ERRNO", errno.EPERM)


# --- put on by a call -------------------------------------------------------------------------------------------


def test_a_filter_is_put_on_by_one_call() -> None:
    calls, given = Calls(), profile(rule("mkdir"), flags=["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"])
    seccomp.add(calls, given)
    (call,) = calls
    program = seccomp.compile(given)
    assert call.name == "seccomp"
    assert call.arguments == (1, 3, Struct((len(program) // 8, program)))
    assert str(call).startswith("seccomp(SET_MODE_FILTER, TSYNC|LOG, {")


def test_flags_are_those_of_the_profile_or_what_crun_takes() -> None:
    assert seccomp.flags_of(profile()) == 4
    assert seccomp.flags_of(profile(flags=[])) == 0
    assert seccomp.flags_of(profile(flags=["SECCOMP_FILTER_FLAG_SPEC_ALLOW"])) == 4
    for flags in (["SECCOMP_FILTER_FLAG_FAST"], "LOG"):
        with pytest.raises(UsageError, match="flags of a seccomp profile is"):
            seccomp.flags_of(profile(flags=flags))


# --- read again -------------------------------------------------------------------------------------------------


EXPLAINED = """\
   0  load architecture
   1  architecture == x86-64 ? 3 : 2
   2  return KILL_PROCESS
   3  load number
   4  number >= 258 (mkdirat) ? 22 : 5
   5  number >= 84 (rmdir) ? 15 : 6
   6  number >= 83 (mkdir) ? 8 : 7
   7  return ALLOW
   8  load argument 1 high
   9  argument 1 high > 0x1 ? 13 : 10
  10  argument 1 high == 0x1 ? 11 : 14
  11  load argument 1 low
  12  argument 1 low >= 0x1c0 ? 13 : 14
  13  return ERRNO EPERM
  14  return ALLOW
  15  number >= 257 (openat) ? 17 : 16
  16  return ALLOW
  17  load argument 2 low
  18  argument 2 low & 0x3
  19  (argument 2 low & 0x3) == 0x1 ? 20 : 21
  20  return KILL_THREAD
  21  return ALLOW
  22  number >= 0x40000000 ? 26 : 23
  23  number >= 451 ? 25 : 24
  24  return ALLOW
  25  return ERRNO ENOSYS
  26  number >= 0xffffffff ? 28 : 27
  27  return KILL_PROCESS
  28  return ALLOW"""


def test_a_program_is_explained_line_by_line() -> None:
    listed = [rule("mkdir", "ERRNO", (1, "GE", 0x1_0000_01C0)), rule("openat", "KILL", (2, "MASKED_EQ", 3, 1))]
    assert seccomp.explain(seccomp.compile(profile(*listed, unknownErrnoRet=errno.ENOSYS))) == EXPLAINED


def test_an_explanation_has_a_line_for_each_instruction_and_knows_what_is_compared() -> None:
    for given in (DEFAULT_PROFILE, lengthy(300)):
        program = seccomp.compile(given)
        lines = seccomp.explain(program).splitlines()
        assert len(lines) == len(program) // 8
        assert not any(
            "? " in line and line.split()[1] not in ("number", "architecture", "argument", "(argument")
            for line in lines
        )
    assert "272 (unshare)" in seccomp.explain(seccomp.compile(DEFAULT_PROFILE))


@pytest.mark.parametrize(
    "program", [b"", b"1234567", struct.pack("<HBBI", 0x07, 0, 0, 0), struct.pack("<HBBI", 0x20, 0, 0, 0)]
)
def test_what_is_no_filter_is_not_run(program: bytes) -> None:
    with pytest.raises(UsageError, match=r"no program of BPF|not one that filters use|has no end"):
        evaluate(program, "read")


# --- the profile of our containers ------------------------------------------------------------------------------


def test_the_default_profile_can_be_written_into_a_bundle() -> None:
    assert json.loads(json.dumps(DEFAULT_PROFILE)) == DEFAULT_PROFILE
    assert seccomp.unknown_names(DEFAULT_PROFILE) == ()
    assert len(seccomp.compile(DEFAULT_PROFILE)) // 8 < 200


DENIED = {
    "mount",
    "unshare",
    "setns",
    "bpf",
    "keyctl",
    "init_module",
    "kexec_load",
    "reboot",
    "swapon",
    "fsopen",
    "io_uring_setup",
}


def test_the_default_profile_denies_what_dockers_does_with_a_reason_for_each() -> None:
    program, reasons = seccomp.compile(DEFAULT_PROFILE), seccomp.denied(DEFAULT_PROFILE)
    assert reasons.keys() > DENIED
    assert len(reasons) == 67 + 3  # 67 always, and clone, socket, personality with certain arguments
    assert all(reasons.values())
    for name in NUMBERS:
        action = evaluate(program, name)
        if name not in reasons:
            assert action == evaluate(program, name, [WHOLE] * 6) == ALLOW
        elif "only with certain arguments" not in reasons[name]:
            assert action == Action("ERRNO", errno.ENOSYS if name == "clone3" else errno.EPERM)


@pytest.mark.parametrize(
    ("name", "args", "kind"),
    [
        ("clone", [0x11], "ALLOW"),  # fork
        ("clone", [0x3D0F00], "ALLOW"),  # a thread
        ("clone", [0x10000011], "ERRNO"),  # CLONE_NEWUSER
        ("clone", [0x20000 | 0x11], "ERRNO"),  # CLONE_NEWNS
        ("clone", [0x40000011], "ERRNO"),  # CLONE_NEWNET
        ("clone3", [0, 88], "ERRNO"),
        ("socket", [2, 1, 0], "ALLOW"),
        ("socket", [40, 1, 0], "ERRNO"),
        ("socket", [1 << 32 | 40, 1, 0], "ERRNO"),  # the kernel looks at 32 bits only
        ("personality", [0], "ALLOW"),
        ("personality", [0x40000], "ERRNO"),  # ADDR_NO_RANDOMIZE
    ],
)
def test_some_calls_are_denied_by_their_arguments(name: str, args: list[int], kind: str) -> None:
    assert evaluate(seccomp.compile(DEFAULT_PROFILE), name, args).kind == kind


def test_denied_tells_what_a_list_of_allowed_calls_leaves_out() -> None:
    given = profile(
        rule("read write", "ALLOW"), rule("lseek", "ALLOW", (2, "EQ", 0)), rule("time", "LOG"), default="ERRNO"
    )
    reasons = seccomp.denied(given)
    assert len(reasons) == len(NUMBERS) - 3
    assert reasons["mount"] == "ERRNO EPERM in this profile"
    assert reasons["lseek"] == "ERRNO EPERM in this profile (only with certain arguments)"
