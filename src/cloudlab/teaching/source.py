"""`show_source`: the code that just ran, shown in the lesson that uses it."""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
from pathlib import Path
from types import ModuleType

from cloudlab.errors import UsageError


class Source:
    """Python source as a cell's output: coloured by Jupyter (a Markdown fence), plain elsewhere.

    Markdown and not HTML: what Pygments makes changes with its version, and a notebook's outputs are compared
    letter by letter. For the same reason the file is named, and the line is not.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        longest = max(map(len, re.findall(r"`{3,}", self.text)), default=2)
        fence = "`" * (longest + 1)
        return f"{fence}python\n{self.text}\n{fence}"


def show_source(*objects: object) -> Source:
    """Show the source of functions, classes, methods or modules, each under the file that it is in.

    UsageError for an object that has no Python source (an instance, a built-in function).
    """
    if not objects:
        raise _no_source("nothing")
    return Source("\n\n".join(f"# {_file_of(thing)}\n{_text_of(thing)}" for thing in map(_function_of, objects)))


def _function_of(thing: object) -> object:
    """What holds the source: the getter of a property, the function under a partial or a decorator."""
    if isinstance(thing, property) and thing.fget:
        thing = thing.fget
    if isinstance(thing, functools.cached_property | functools.partial):
        thing = thing.func
    return inspect.unwrap(thing) if callable(thing) else thing


def _text_of(thing: object) -> str:
    try:
        return textwrap.dedent(inspect.getsource(thing)).rstrip()  # type: ignore[arg-type] # TypeError is caught
    except (TypeError, OSError) as error:
        what = f"an instance of {type(thing).__name__}" if "module, class" in str(error) else repr(thing)
        raise _no_source(what) from error


def _file_of(thing: object) -> str:
    """The file as an import would name it (`cloudlab/machines/qmp.py`), wherever the package is installed."""
    module = thing.__name__ if isinstance(thing, ModuleType) else getattr(thing, "__module__", None)
    if not module or module == "__main__":
        return "this notebook"
    parts = module.split(".")
    try:
        package = Path(inspect.getsourcefile(thing) or "").name == "__init__.py"  # type: ignore[arg-type]
    except TypeError:
        package = False  # `_text_of` says what is wrong
    return "/".join([*parts, "__init__.py"]) if package else "/".join(parts) + ".py"


def _no_source(what: str) -> UsageError:
    return UsageError(
        f"{what} has no Python source to show.",
        allowed="a function, method, class or module written in Python",
        example="show_source(Lesson.check)",
    )
