"""The rules that every lesson keeps to, and the table of what the lessons cover."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloudlab.teaching.coverage import Point, check_coverage, coverage, coverage_text, lecture, write_coverage
from cloudlab.teaching.hygiene import hygiene
from cloudlab.teaching.percent import stamp

HEADER = """\
# ---
# jupyter:
#   cloudlab:
#     title: {en: "A computer", zh: "一台计算机"}
#     minutes: 30
#     kind: example
# ---

"""
TITLE = '# %% [markdown] lang="en"\n# # A computer\n\n# %% [markdown] lang="zh"\n# # 一台计算机\n\n'
QUESTION = """\
[[question]]
id = 1
kind = "bool"
answer = "sealed:KeSctlJDeOY="
ask = { en = "?", zh = "？" }
hint = { en = "h", zh = "提示" }
explanation = "sealed:"
"""


def lesson(folder: Path, cells: str = "", header: str = HEADER, name: str = "01-a-computer") -> Path:
    part = folder / "0-ground"
    part.mkdir(exist_ok=True)
    path = part / f"{name}.py"
    path.write_text(header + TITLE + cells, encoding="utf-8")
    stamp(path)
    return path


def markdown(text: str) -> str:
    """The same text in both languages."""
    lines = "".join(f"# {line}\n" for line in text.splitlines())
    return f'# %% [markdown] lang="en"\n{lines}\n# %% [markdown] lang="zh"\n{lines}\n'


def test_a_lesson_in_order_has_no_findings(tmp_path: Path) -> None:
    assert hygiene(lesson(tmp_path, markdown("## Part\n\n![A star of four hosts](star.svg)") + "# %%\n1 + 1\n")) == []


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ("# %%\n" + "x = 1\n" * 13, "13 lines of code, allowed are 12"),
        ("# %%\nx = '" + "y" * 100 + "'\n", "a line of 106 characters, allowed are 100"),
        (markdown("word " * 121), "121 words, allowed are 120"),
        (markdown("# Another title"), "2 headings # in en"),
        (markdown("### Too deep"), "a heading of level 3 after one of level 1"),
        (markdown("![A star](https://example.org/star.svg)"), "from the network"),
        (markdown('<script src="https://example.org/x.js"></script>'), "from the network"),
        ('# %%\nHTML(\'<img src="http://example.org/x.png" alt="x">\')\n', "from the network"),
        (markdown("![](star.svg)"), "without alternative text"),
        (markdown('<img src="star.svg" alt="">'), "without alternative text"),
        ("# %%\nimport time\ntime.sleep(3)\n", "time.sleep"),
        ("# %%\nlesson.check(7, ...)\n", "question 7 is asked in the lesson and is not here"),
        ("# %%\nlesson.predict(7, ...)\n", "question 7 is asked in the lesson and is not here"),
    ],
)
def test_findings_in_the_source(tmp_path: Path, cells: str, said: str) -> None:
    findings = hygiene(lesson(tmp_path, cells))
    assert said in " ".join(findings)
    assert all(finding.startswith("01-a-computer") for finding in findings)


@pytest.mark.parametrize(
    "cells",
    [
        '# %% tags=["sleep-ok"]\nimport time\ntime.sleep(3)\n',
        '# %%\nn1.succeed("sleep 1")\n',
        markdown("```python\n# a comment, no heading\n```"),
        markdown("```\n" + "word " * 200 + "\n```"),
        markdown('<img src="star.svg" alt="A star of four hosts">'),
        markdown("A [link](https://example.org) to read on."),
    ],
)
def test_what_is_allowed(tmp_path: Path, cells: str) -> None:
    assert hygiene(lesson(tmp_path, cells)) == []


def test_a_title_belongs_in_the_first_cell(tmp_path: Path) -> None:
    path = lesson(tmp_path)
    path.write_text(HEADER + "# %%\n1 + 1\n\n" + TITLE, encoding="utf-8")
    assert "in the first cell" in " ".join(hygiene(path))


def test_a_question_that_is_never_checked_or_not_sealed_is_found(tmp_path: Path) -> None:
    path = lesson(tmp_path, "# %%\nlesson.predict(1, ...)\n")
    plain = 'explanation = { en = "e", zh = "解释" }\nanswer = true\n'
    text = "".join(line + "\n" for line in QUESTION.splitlines() if "sealed" not in line) + plain
    path.with_suffix(".questions.toml").write_text(text, encoding="utf-8")
    findings = hygiene(path)
    assert "01-a-computer.questions.toml: question 1 is never checked in the lesson" in findings
    assert any("1.answer is in plain text" in finding for finding in findings)
    assert any("1.explanation is in plain text" in finding for finding in findings)


def test_a_seal_that_can_not_be_opened_is_a_finding(tmp_path: Path) -> None:
    path = lesson(tmp_path, "# %%\nlesson.check(1, ...)\n")
    path.with_suffix(".questions.toml").write_text(QUESTION, encoding="utf-8")
    assert "The seal of 1.answer can't be opened" in hygiene(path)[0]


def test_only_a_lesson_proper_is_warned_about_its_length(tmp_path: Path) -> None:
    (finding,) = hygiene(lesson(tmp_path, "# %%\n1 + 1\n", HEADER.replace("kind: example", "kind: lesson")))
    assert finding == "warning: 01-a-computer.py: 1 code cells, not 25 to 45"


def test_a_header_names_only_points_of_the_lecture_and_tells_only_what_may_be_told(tmp_path: Path) -> None:
    header = HEADER.replace("kind: example", 'kind: example\n#     ids: ["9.99"]\n#     told: ["1.01", "1.06"]')
    assert hygiene(lesson(tmp_path, header=header)) == [
        "01-a-computer.py: the lecture has no point 9.99",
        "01-a-computer.py: point 1.06 has to be run by a lesson, not only told",
    ]


def test_a_source_that_can_not_be_read_is_a_finding(tmp_path: Path) -> None:
    path = lesson(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace("minutes: 30", "minutes: half"), encoding="utf-8")
    assert "minutes is 'half'" in hygiene(path)[0]


def committed(path: Path, outputs: list[dict[str, object]], count: int | None = 1, tags: tuple[str, ...] = ()) -> None:
    cell = {
        "cell_type": "code",
        "source": [],
        "metadata": {"tags": list(tags)},
        "execution_count": count,
        "outputs": outputs,
    }
    path.with_suffix(".ipynb").write_text(json.dumps({"cells": [cell], "metadata": {}}), encoding="utf-8")


def stream(text: str) -> list[dict[str, object]]:
    return [{"output_type": "stream", "name": "stdout", "text": [text]}]


def test_a_cell_that_was_never_run_is_found_because_nbval_would_compare_nothing(tmp_path: Path) -> None:
    path = lesson(tmp_path)
    committed(path, [], count=None)
    assert hygiene(path) == ["01-a-computer.ipynb: cell 1 was never run, so nothing in it is tested"]


@pytest.mark.parametrize("text", ["/home/ada/x.log", "/Users/ada/x", "in '/tmp/tmpabc/n1'", "/root/.cache/x"])
def test_a_path_of_the_builders_computer_in_an_output_is_found(tmp_path: Path, text: str) -> None:
    path = lesson(tmp_path)
    committed(path, stream(text))
    assert "tag the cell paths-ok" in hygiene(path)[0]
    committed(path, stream(text), tags=("paths-ok",))
    assert hygiene(path) == []


def test_letters_of_a_picture_are_not_taken_for_a_path(tmp_path: Path) -> None:
    path = lesson(tmp_path)
    committed(path, [{"output_type": "display_data", "metadata": {}, "data": {"image/png": "iVBOR/tmp/AAAA"}}])
    assert hygiene(path) == []


def test_the_state_of_widgets_is_found(tmp_path: Path) -> None:
    path = lesson(tmp_path)
    path.with_suffix(".zh.ipynb").write_text('{"cells": [], "metadata": {"widgets": {}}}', encoding="utf-8")
    assert hygiene(path) == ["01-a-computer.zh.ipynb: the metadata hold the state of widgets"]


def test_the_lecture_has_its_points_in_order_in_both_languages() -> None:
    points = lecture()
    assert [point.id for point in points] == (
        [f"1.{n:02d}" for n in range(1, 12)]
        + [f"2.{n:02d}" for n in range(1, 26)]
        + [f"3.{n:02d}" for n in range(1, 18)]
    )
    assert [point.id for point in points if point.told] == ["1.01", "1.02", "1.05", "2.21", "3.01"]
    assert all(point.en and point.zh for point in points)


def test_a_point_is_covered_by_running_it_and_a_told_one_by_telling_it(tmp_path: Path) -> None:
    header = HEADER.replace("kind: example", 'ids: ["2.01"]\n#     partly: ["2.02"]\n#     told: ["1.01", "2.03"]')
    path = lesson(tmp_path, header=header)
    rows = {row.point.id: row for row in coverage(tmp_path)}
    assert rows["2.01"].run == (path,)
    assert [id_ for id_, row in rows.items() if row.covered] == ["1.01", "2.01"]
    assert [row.point.id for row in coverage(tmp_path, [Point("2.02", "en", "zh")])] == ["2.02"]


def row(table: list[str], point: str) -> str:
    return next(line for line in table if line.startswith(f"| {point} "))


def test_the_table_links_the_lessons_and_says_what_is_missing(tmp_path: Path) -> None:
    header = HEADER.replace("kind: example", 'ids: ["2.01"]\n#     partly: ["2.02"]\n#     told: ["1.01"]')
    lesson(tmp_path, header=header)
    table = coverage_text(tmp_path).splitlines()
    link = "[0-ground/01-a-computer](0-ground/01-a-computer.ipynb)"
    assert "2 of 53 points are covered." in table
    assert row(table, "2.01").endswith(f"| {link} |")
    assert row(table, "2.02").endswith(f"| {link} (in part) |")
    assert row(table, "1.01").endswith(f"| {link} (told) |")
    assert row(table, "3.17").endswith("| not yet |")


def test_a_table_that_is_not_up_to_date_is_found(tmp_path: Path) -> None:
    assert "not up to date" in check_coverage(tmp_path)[0]
    write_coverage(tmp_path)
    assert check_coverage(tmp_path) == []
