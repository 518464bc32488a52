"""Where a lesson's files are: the lessons folder, and the files that share the lesson's name.

A lesson `0-ground/01-a-computer` is `0-ground/01-a-computer.py` (the source) with `.questions.toml`, `.ipynb`
and `.zh.ipynb` beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from cloudlab.errors import UsageError

LANGS = ("en", "zh")
_NAME = "*/[0-9][0-9]-*"
_QUESTIONS = ".questions.toml"


def lessons_dir() -> Path:
    """The lessons folder: `CLOUDLAB_LESSONS`, else the installed package's own, else the checkout's."""
    named = os.environ.get("CLOUDLAB_LESSONS")
    if named:
        if Path(named).is_dir():
            return Path(named)
        raise UsageError(
            f"CLOUDLAB_LESSONS={named} is not a folder.",
            allowed="a folder with parts such as 0-ground/ in it",
            example="CLOUDLAB_LESSONS=$PWD/lessons jupyter lab",
        )
    # Installed first: a wheel in another project's .venv would else find that project's lessons/.
    installed = Path(__file__).parents[1] / "_data" / "lessons"
    if installed.is_dir():
        return installed
    for folder in Path(__file__).parents:
        if (folder / "lessons").is_dir() and (folder / "pyproject.toml").is_file():
            return folder / "lessons"
    raise UsageError(
        "The lessons folder was not found.",
        allowed="a checkout of cloudlab, an installed wheel, or CLOUDLAB_LESSONS",
        example="CLOUDLAB_LESSONS=/path/to/lessons jupyter lab",
    )


def known_lessons(root: Path) -> list[str]:
    """The ids of all lessons in a lessons folder, in the lecture's order."""
    asked = {_id(path, _QUESTIONS) for path in root.glob(_NAME + _QUESTIONS)}
    return sorted(asked | {lesson_id(path) for path in find_sources([root])})


def find_sources(paths: Iterable[Path]) -> list[Path]:
    """The lesson sources meant by files and folders: a file is itself, a folder all lessons in it."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted({*path.glob(_NAME + ".py"), *path.glob(_NAME.removeprefix("*/") + ".py")})
        elif path.suffix == ".py" and path.is_file():
            found.append(path)
        else:
            raise UsageError(
                f"{path} is not a lesson.",
                allowed="a lesson's source (.py), or a folder of lessons",
                example="python -m cloudlab.teaching check lessons/0-ground",
            )
    return found


def lesson_id(source: Path) -> str:
    """The id of a lesson from its source: `lessons/0-ground/01-name.py` -> `0-ground/01-name`."""
    return _id(source, ".py")


def questions_path(source: Path) -> Path:
    """The questions file that belongs to a lesson's source."""
    return source.with_name(source.stem + _QUESTIONS)


def notebook_path(source: Path, lang: str) -> Path:
    """The committed notebook of a lesson in one language: `NN-name.ipynb` or `NN-name.zh.ipynb`."""
    require_lang(lang)
    return source.with_suffix(".ipynb" if lang == "en" else f".{lang}.ipynb")


def require_lang(lang: str) -> None:
    """Raise UsageError unless `lang` is a language that lessons are written in."""
    if lang not in LANGS:
        raise UsageError(f"{lang!r} is not a language of the lessons.", allowed=" or ".join(LANGS), example='"zh"')


def _id(path: Path, suffix: str) -> str:
    return f"{path.resolve().parent.name}/{path.name.removesuffix(suffix)}"
