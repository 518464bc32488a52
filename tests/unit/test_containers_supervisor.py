"""When a container counts as healthy."""

from __future__ import annotations

import pytest

from cloudlab.containers.supervisor import Condition, Health, condition_after

HEALTH = Health(["true"], retries=3)


@pytest.mark.parametrize("now", list(Condition))
def test_one_good_answer_makes_it_healthy(now: Condition) -> None:
    assert condition_after(now, 0, HEALTH, young=False) is Condition.HEALTHY


@pytest.mark.parametrize(
    ("failures", "then"),
    [(1, Condition.HEALTHY), (2, Condition.HEALTHY), (3, Condition.UNHEALTHY), (4, Condition.UNHEALTHY)],
)
def test_it_is_unhealthy_only_after_as_many_failures_in_a_row_as_are_asked_for(failures: int, then: Condition) -> None:
    assert condition_after(Condition.HEALTHY, failures, HEALTH, young=False) is then


def test_one_that_is_starting_is_given_time_but_not_one_that_has_been_well() -> None:
    assert condition_after(Condition.STARTING, 9, HEALTH, young=True) is Condition.STARTING
    assert condition_after(Condition.STARTING, 9, HEALTH, young=False) is Condition.UNHEALTHY
    assert condition_after(Condition.HEALTHY, 9, HEALTH, young=True) is Condition.UNHEALTHY
