"""What a container took, by purpose: each call of the runtime's own plan has the purpose that a lesson gives it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from cloudlab.containers import bundle, plan
from cloudlab.containers.calls import Call, Outcome
from cloudlab.containers.rootfs import Overlay, init_layer
from cloudlab.containers.setting import Setting
from cloudlab.containers.specification import Wishes, configuration
from cloudlab.views import steps
from cloudlab.views.steps import Parts, parts_of, purpose_of


@pytest.fixture(scope="module")
def calls() -> list[Call]:
    """The calls that make a container as `n1.container(...)` does, with limits and all its mounts."""
    own = "/var/lib/cloudlab/containers/web"
    overlay = Overlay((f"{own}/init", "/var/lib/cloudlab/layers/base"), f"{own}/upper", f"{own}/work")
    wishes = Wishes(["/bin/true"], hostname="web", memory="32M", cpus=0.5, network="none")
    config = bundle.read(configuration(wishes, f"{own}/root"))
    setting = Setting("web", "/", 2, overlay, init_layer("web"))
    made, _ = plan.creation(replace(config, cgroups_path="/cloudlab/web"), setting, "{}")
    return list(made)


def names(calls: list[Call], purpose: str) -> set[str]:
    return {call.name for call in calls if purpose_of(call) == purpose}


def texts(calls: list[Call], purpose: str, name: str) -> set[str]:
    return {str(call.arguments[1]) for call in calls if purpose_of(call) == purpose and call.name == name}


def test_namespaces_are_made_by_clone_and_unshare_and_told_who_is_who(calls: list[Call]) -> None:
    assert {"clone3", "unshare", "sethostname", "open", "write", "close"} <= names(calls, steps.NAMESPACES)


def test_each_mount_of_a_file_system_is_a_mount_and_the_overlay_is_the_layers(calls: list[Call]) -> None:
    assert texts(calls, steps.MOUNTS, "mount") == {
        *("/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup", "/tmp"),
    }
    assert texts(calls, steps.LAYERS, "mount") == {"/var/lib/cloudlab/containers/web/root"}


def test_what_is_hidden_is_that_and_no_mount(calls: list[Call]) -> None:
    assert "/proc/kcore" in texts(calls, steps.HIDING, "mount")
    assert "/proc/sys" in texts(calls, steps.HIDING, "mount")


def test_files_of_the_control_group_count_with_what_is_written_into_them(calls: list[Call]) -> None:
    mine = [call for call in calls if purpose_of(call) == steps.CGROUP]
    assert Counter(call.name for call in mine)["write"] >= 4
    assert names(calls, steps.SECCOMP) == {"seccomp"}
    assert {"prctl", "capset", "setresuid"} <= names(calls, steps.PRIVILEGES)
    assert "pivot_root" in names(calls, steps.ROOT_CHANGE)


def test_waiting_is_no_work(calls: list[Call]) -> None:
    found = Parts("web", parts_of(Outcome(call, 0, 0.001) for call in calls))
    waiting = next(part for part in found.parts if part.purpose == steps.WAITING)
    assert found.took_s == pytest.approx(0.001 * (len(calls) - waiting.calls))
    assert found.calls == len(calls)


def test_the_longest_of_each_part_is_named() -> None:
    short, long = Call(0, "seccomp", 317, (1,)), Call(1, "seccomp", 317, (2,))
    text = str(Parts("<web>", parts_of([Outcome(short, 0, 0.001), Outcome(long, 0, 0.004)])))
    assert text.splitlines() == [
        "what container <web> took: 2 system calls, 5 ms of work",
        "FOR      CALLS  TIME  THE LONGEST",
        "seccomp  2      5 ms  seccomp(2): 4 ms",
    ]
    assert "<web>" not in Parts("<web>", []).html
