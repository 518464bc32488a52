"""A lesson's source: its header, its cells, and whether the Chinese translates the present English."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudlab.errors import UsageError
from cloudlab.teaching.percent import english_hash, read, stamp, translations

HEADER = """\
# ---
# jupyter:
#   cloudlab:
#     title: {en: "A computer", zh: "一台计算机"}
#     minutes: 30
#     ids: ["2.01", "2.10"]
# ---

"""
ENGLISH = '# %% [markdown] lang="en"\n# # A computer\n#\n# It adds.\n\n'
CHINESE = '# %% [markdown] lang="zh" of="{}"\n# # 一台计算机\n\n'
CODE = '# %% tags=["solution"]\n1 + 1\n\n# %%\n# !ls\n'
PRESENT = english_hash("# A computer\n\nIt adds.")


def lesson(folder: Path, text: str) -> Path:
    path = folder / "01-a-computer.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_lesson_is_read_with_its_header_its_cells_and_their_lines(tmp_path: Path) -> None:
    source = read(lesson(tmp_path, HEADER + ENGLISH + CHINESE.format(PRESENT) + CODE))
    assert source.header.title["zh"] == "一台计算机"
    assert source.header.ids == ("2.01", "2.10")
    assert [(cell.line, cell.type, cell.lang) for cell in source.cells] == [
        (9, "markdown", "en"),
        (14, "markdown", "zh"),
        (17, "code", ""),
        (20, "code", ""),
    ]
    assert source.cells[2].tags == ("solution",)
    assert source.cells[3].text == "!ls"


def test_a_text_and_its_translation_share_one_slot(tmp_path: Path) -> None:
    slots = read(lesson(tmp_path, HEADER + ENGLISH + CHINESE.format(PRESENT) + CODE)).slots
    assert [slot.cell("en").text for slot in slots] == ["# A computer\n\nIt adds.", "1 + 1", "!ls"]
    assert [slot.cell("zh").text for slot in slots] == ["# 一台计算机", "1 + 1", "!ls"]


def test_white_space_does_not_change_the_hash_and_words_do() -> None:
    assert english_hash("It  adds.\nTwice.") == english_hash("It adds. Twice.")
    assert english_hash("It adds.") != english_hash("It adds!")
    assert len(PRESENT) == 8


@pytest.mark.parametrize(
    ("cells", "problems"),
    [
        (ENGLISH + CHINESE.format(PRESENT), []),
        (ENGLISH + CHINESE.format("00000000"), [("stale", 14)]),
        (ENGLISH + CHINESE.replace(' of="{}"', ""), [("stale", 14)]),
        (ENGLISH, [("missing", 9)]),
        (ENGLISH + CODE + CHINESE.format(PRESENT), [("missing", 9), ("orphaned", 19)]),
        (CHINESE.format(PRESENT), [("orphaned", 9)]),
        ("# %% [markdown]\n# Text.\n", [("unmarked", 9)]),
    ],
)
def test_translations_that_are_not_in_order(tmp_path: Path, cells: str, problems: list[tuple[str, int]]) -> None:
    found = translations(lesson(tmp_path, HEADER + cells))
    assert [(stale.problem, stale.line) for stale in found] == problems


def test_a_stale_translation_says_where_it_is_and_what_to_write(tmp_path: Path) -> None:
    (stale,) = translations(lesson(tmp_path, HEADER + ENGLISH + CHINESE.format("00000000")))
    assert str(stale).startswith("01-a-computer.py:14: stale translation of “# A computer It adds.…”")
    assert f'of="{PRESENT}"' in str(stale)


@pytest.mark.parametrize("chinese", [CHINESE.format("00000000"), CHINESE.replace(' of="{}"', "")])
def test_stamping_writes_the_present_hash_and_changes_nothing_else(tmp_path: Path, chinese: str) -> None:
    path = lesson(tmp_path, HEADER + ENGLISH + chinese + CODE)
    assert stamp(path) == 1
    assert path.read_text(encoding="utf-8") == HEADER + ENGLISH + CHINESE.format(PRESENT) + CODE
    assert stamp(path) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ENGLISH, "no `cloudlab:`"),
        (HEADER.replace("minutes: 30", "minuts: 30") + ENGLISH, "unknown key 'minuts'"),
        (HEADER.replace('["2.01", "2.10"]', "[2.01, 2.10]") + ENGLISH, "unquoted"),
        (HEADER.replace(', zh: "一台计算机"', "") + ENGLISH, "both languages"),
        (HEADER.replace("30", "half") + ENGLISH, "minutes is 'half'"),
        (HEADER + "1 + 1\n\n" + ENGLISH, "markers"),
    ],
)
def test_a_mistake_in_the_source_is_named_with_what_works(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(lesson(tmp_path, text))
