"""The owner, its keeper and the budget, with plain programs instead of guests."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from cloudlab.errors import CloudlabError, UsageError
from cloudlab.owner import FIRST_FD, Budget, Owner, budget
from cloudlab.owner.waiting import wait_showing


@pytest.fixture
def owner() -> Iterator[Owner]:
    owner = Owner()
    yield owner
    owner.close()


def test_a_program_runs_and_its_end_is_known(owner: Owner) -> None:
    child = owner.spawn("p", ["sh", "-c", "echo said; exit 3"], log=owner.path("p.log"))
    assert child.wait(10)
    assert (child.exit_status, child.how_it_ended(), child.printed()) == (3, "exit status 3", "said\n")


def test_a_program_that_is_not_there_says_so_in_its_log(owner: Owner) -> None:
    child = owner.spawn("p", ["/no/such/program"], log=owner.path("p.log"))
    assert child.wait(10)
    assert child.exit_status == 127
    assert "No such file" in child.printed()


def test_a_program_inherits_the_descriptors_it_was_given_and_no_other(owner: Owner) -> None:
    ours, theirs = socket.socketpair()
    child = owner.spawn(
        "p",
        ["bash", "-c", f"echo through >&{FIRST_FD}; ls /proc/self/fd"],
        log=owner.path("p.log"),
        fds=[theirs.fileno()],
    )
    theirs.close()
    assert ours.recv(100) == b"through\n"
    ours.close()
    assert child.wait(10)
    assert child.printed().split() == ["0", "1", "100", "2", "3"]  # 3 is the directory that ls reads


def test_stop_asks_first_and_then_makes_it(owner: Owner) -> None:
    polite = owner.spawn("p", ["sleep", "100"], log=owner.path("p.log"))
    polite.stop()
    assert polite.exit_status == -signal.SIGTERM
    stubborn = owner.spawn(
        "s", ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], log=owner.path("s.log")
    )
    while "ready" not in stubborn.printed():
        os.sched_yield()
    stubborn.stop(timeout_s=0.2)
    assert stubborn.how_it_ended() == "killed by SIGKILL"


def test_what_is_to_happen_at_the_end_happens_once_even_if_it_is_late(owner: Owner) -> None:
    calls: list[int] = []
    child = owner.spawn("p", ["true"], log=owner.path("p.log"))
    child.on_exit(lambda: calls.append(1))
    assert child.wait(10)
    child.on_exit(lambda: calls.append(2))
    assert calls == [1, 2]


def test_many_threads_may_start_programs_at_once(owner: Owner) -> None:
    statuses: list[int | None] = [None] * 20

    def start(number: int) -> None:
        child = owner.spawn(f"p{number}", ["sh", "-c", f"exit {number}"], log=owner.path(f"p{number}.log"))
        assert child.wait(20)
        statuses[number] = child.exit_status

    threads = [threading.Thread(target=start, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == list(range(20))


def test_a_closed_owner_refuses_politely(owner: Owner) -> None:
    owner.close()
    with pytest.raises(CloudlabError, match=r"has ended(.|\n)*lab = Lab\(\)"):
        owner.spawn("p", ["true"], log=owner.path("p.log"))


def test_the_labs_directory_is_ours_alone(owner: Owner) -> None:
    assert owner.directory.stat().st_mode & 0o777 == 0o700
    assert owner.directory.parent.stat().st_mode & 0o777 == 0o700


def test_the_budget_counts_what_guests_really_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "available_memory", lambda: 8 << 30)
    monkeypatch.setattr(budget, "private_memory", lambda pid: 50 << 20)
    limits = Budget("256M")
    for number in range(4):
        limits.admit(f"n{number}", 384 << 20)
        limits.started(f"n{number}", 1000 + number)
    assert limits.used == 200 << 20
    with pytest.raises(
        UsageError, match="n4 needs about 96 MiB; the lab uses 200 MiB of its 256 MiB, and 56 MiB are left"
    ):
        limits.admit("n4", 384 << 20)
    limits.release("n0")
    limits.admit("n4", 384 << 20)


def test_the_budget_never_goes_beyond_the_memory_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "available_memory", lambda: 90 << 20)
    with pytest.raises(UsageError, match="are left"):
        Budget("4G").admit("n1", 384 << 20)


def test_a_budget_without_guests_is_explained() -> None:
    with pytest.raises(UsageError, match=r"Example: Lab\(guests=8\)"):
        Budget("1G", guests=0)


def test_a_container_s_limit_counts() -> None:
    assert 0 < budget.available_memory() <= 1 << 50


def test_waiting_is_quiet_at_first_and_ends_with_what_it_waited_for() -> None:
    event = threading.Event()
    threading.Timer(0.05, event.set).start()
    assert wait_showing("an event", event.wait, 5)
    assert not wait_showing("nothing", threading.Event().wait, 0.05)
