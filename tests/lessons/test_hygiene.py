"""Every lesson in lessons/ keeps the rules: translated, built from its source, small, testable, covered."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudlab.teaching.__main__ import check
from cloudlab.teaching.coverage import check_coverage
from cloudlab.teaching.hygiene import WARNING
from cloudlab.teaching.places import find_sources, lesson_id

LESSONS = Path(__file__).parents[2] / "lessons"


@pytest.mark.parametrize("source", find_sources([LESSONS]), ids=lesson_id)
def test_lesson_keeps_the_rules(source: Path) -> None:
    assert [finding for finding in check(source) if not finding.startswith(WARNING)] == []


def test_the_coverage_table_says_what_the_lessons_say() -> None:
    assert check_coverage(LESSONS) == []
