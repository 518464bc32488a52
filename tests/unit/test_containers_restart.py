"""Restart policies: whether a container is started again, and after how long."""

from __future__ import annotations

import pytest

from cloudlab.containers.restart import Policy, parse_policy
from cloudlab.errors import UsageError


@pytest.mark.parametrize("text", ["no", "always", "on-failure", "on-failure:3", "unless-stopped"])
def test_a_policy_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_policy(text)) == text


@pytest.mark.parametrize(
    "text", ["", "maybe", "Always", "always:3", "on-failure:", "on-failure:x", "on-failure:-1", "on-failure:1:2", ":3"]
)
def test_another_policy_is_refused_with_those_that_are(text: str) -> None:
    with pytest.raises(UsageError, match="on-failure:N"):
        parse_policy(text)


@pytest.mark.parametrize(
    ("policy", "after_success", "after_failure"),
    [("no", False, False), ("always", True, True), ("unless-stopped", True, True), ("on-failure", False, True)],
)
def test_whether_it_is_started_again_depends_on_policy_and_exit_status(
    policy: str, after_success: bool, after_failure: bool
) -> None:
    assert (parse_policy(policy).delay_s(0, 0, 1.0) is not None) is after_success
    assert (parse_policy(policy).delay_s(1, 0, 1.0) is not None) is after_failure
    assert (parse_policy(policy).delay_s(137, 0, 1.0) is not None) is after_failure


def test_a_number_of_restarts_is_the_most() -> None:
    policy = Policy("on-failure", 3)
    assert [policy.delay_s(1, restarts, 1.0) is not None for restarts in range(5)] == [True, True, True, False, False]


def test_the_wait_doubles_from_a_tenth_of_a_second_to_a_minute() -> None:
    policy = Policy("always")
    assert [policy.delay_s(1, restarts, 0.0) for restarts in range(4)] == [0.1, 0.2, 0.4, 0.8]
    assert policy.delay_s(1, 9, 0.0) == pytest.approx(51.2)
    assert policy.delay_s(1, 10, 0.0) == 60.0


@pytest.mark.parametrize("restarts", [100, 1024, 5000, 10**6])
def test_who_is_restarted_for_days_waits_a_minute_still(restarts: int) -> None:
    assert Policy("always").delay_s(1, restarts, 0.0) == 60.0


def test_ten_seconds_of_life_make_it_good_again() -> None:
    assert Policy("always").delay_s(1, 8, 9.9) == pytest.approx(25.6)
    assert Policy("always").delay_s(1, 8, 10.0) == 0.1
