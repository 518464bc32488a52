"""`show_source` shows the code that just ran, the same text on every computer."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import pytest

import cloudlab.teaching
import cloudlab.units
from cloudlab.errors import UsageError
from cloudlab.teaching import Lesson, show_source
from cloudlab.units import parse_size


def test_a_function_is_shown_under_its_file_without_a_line_number() -> None:
    lines = repr(show_source(parse_size)).splitlines()
    assert lines[0] == "# cloudlab/units.py"
    assert lines[1].startswith("def parse_size(")


def test_a_method_loses_its_indentation() -> None:
    assert repr(show_source(Lesson.check)).splitlines()[1].startswith("def check(self")


def test_a_property_and_a_decorated_function_show_what_they_hold() -> None:
    @functools.cache
    def twice(x: int) -> int:
        return 2 * x

    assert "def results(self)" in repr(show_source(Lesson.results))
    assert "def twice(" in repr(show_source(twice))
    assert "def parse_size(" in repr(show_source(functools.partial(parse_size, "1M")))


def test_modules_and_packages_are_named_by_their_files() -> None:
    assert repr(show_source(cloudlab.units)).startswith("# cloudlab/units.py\n")
    assert repr(show_source(cloudlab.teaching)).startswith("# cloudlab/teaching/__init__.py\n")


def test_several_objects_are_shown_one_after_the_other() -> None:
    text = repr(show_source(parse_size, Lesson.predict))
    assert text.index("def parse_size") < text.index("# cloudlab/teaching/lesson.py") < text.index("def predict")


def test_jupyter_gets_a_fence_to_colour_and_no_path_of_this_computer() -> None:
    shown = show_source(parse_size)._repr_markdown_()
    assert shown.startswith("```python\n# cloudlab/units.py\n")
    assert shown.endswith("\n```")
    assert str(Path(cloudlab.units.__file__).parent) not in shown


def test_a_fence_inside_the_source_gets_a_longer_fence_around_it() -> None:
    text = '"""\n```\n"""'
    assert cloudlab.teaching.source.Source(text)._repr_markdown_() == f"````python\n{text}\n````"


@pytest.mark.parametrize("thing", [len, math, 3, Lesson.__new__, functools.partial(len)])
def test_what_has_no_source_is_refused_with_an_example(thing: object) -> None:
    with pytest.raises(UsageError, match=r"Example: show_source\(Lesson\.check\)"):
        show_source(thing)


def test_nothing_to_show_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing has no Python source"):
        show_source()
