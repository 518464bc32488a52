"""The builder: one source, run once, becomes the committed notebooks in English and in Chinese."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from cloudlab.errors import MachineError, UsageError
from cloudlab.teaching.percent import LessonSource, library, read
from cloudlab.teaching.places import LANGS, lesson_id, notebook_path, questions_path
from cloudlab.teaching.seal import seal_file

CELL_TIMEOUT_S = 120
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
# A traceback names files by their place on the builder's computer; it is cut off up to the import root.
_IMPORT_ROOT = re.compile(r"/[^\s:\x1b\"']*/(?:src|site-packages|lib/python[\d.]+)/")
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def build(path: Path, execute: bool = True) -> list[Path]:
    """Run a lesson's code once and write `NN-name.ipynb` and `NN-name.zh.ipynb` with the same outputs.

    Without `execute`, the outputs of the committed notebook stay if its code is still the same, and are
    dropped otherwise. The questions file is then sealed. MachineError when a cell fails: nothing is written.
    """
    source = read(path)
    notebook = assemble(source, "en")
    if execute:
        _execute(source, notebook)
    else:
        _carry_over(notebook, notebook_path(path, "en"))
    texts = {}
    for lang in LANGS:
        edition = assemble(source, lang)
        _copy_outputs(notebook, edition)
        texts[notebook_path(path, lang)] = library("nbformat").writes(edition) + "\n"
    for target, text in texts.items():
        target.write_text(text, encoding="utf-8")
    if questions_path(path).is_file():
        seal_file(questions_path(path))
    return list(texts)


def assemble(source: LessonSource, lang: str) -> Any:
    """The notebook of one language, not yet run; cells have ids by place and content, not by chance."""
    v4 = library("nbformat").v4
    cells = []
    for number, slot in enumerate(source.slots):
        cell = slot.cell(lang)
        new = v4.new_code_cell(cell.text) if slot.code else v4.new_markdown_cell(cell.text)
        digest = hashlib.sha256(slot.cell("en").text.encode()).hexdigest()[:8]
        new.id = f"{number:02d}-{digest}"
        if cell.tags:
            new.metadata["tags"] = list(cell.tags)
        if "solution" in cell.tags:
            new.metadata["jupyter"] = {"source_hidden": True, "outputs_hidden": True}
        cells.append(new)
    return v4.new_notebook(cells=cells, metadata=_metadata(source, lang))


def outdated(path: Path) -> bool:
    """Whether a committed notebook is missing, or was built from another source than the present one."""
    source = read(path)
    return any(_written(notebook_path(path, lang)) != _content(assemble(source, lang)) for lang in LANGS)


def _metadata(source: LessonSource, lang: str) -> dict[str, Any]:
    header = source.header
    return {
        "kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"},
        "language_info": {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"},
        "cloudlab": {
            "lesson": lesson_id(source.path),
            "lang": lang,
            "title": header.title[lang],
            "minutes": header.minutes,
            "ids": list(header.ids),
        },
    }


def _execute(source: LessonSource, notebook: Any) -> None:
    """Run the notebook in a fresh kernel, in the lesson's folder, as a learner who has given no name."""
    folder = source.path.resolve().parent
    exceptions = library("nbclient.exceptions")
    started: list[int] = []
    total = len(notebook.cells)
    with tqdm(total=total, desc=lesson_id(source.path), unit="cell") as bar:
        client = library("nbclient").NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT_S,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(folder)}},
            on_cell_start=lambda cell, cell_index: started.append(cell_index),
            on_cell_complete=lambda cell, cell_index: bar.update(cell_index + 1 - bar.n),
        )
        env = {**os.environ, "CLOUDLAB_LESSONS": str(folder.parent), "CLOUDLAB_STUDENT": "", "TQDM_DISABLE": "1"}
        try:
            client.execute(env=env)
        except (
            exceptions.CellExecutionError,
            exceptions.CellTimeoutError,
            exceptions.DeadKernelError,
        ) as error:
            raise _failure(source, started[-1] if started else 0, error) from error
        bar.update(total - bar.n)


def _failure(source: LessonSource, index: int, error: Exception) -> MachineError:
    cell = source.slots[index].cell("en")
    reason = f"{getattr(error, 'ename', type(error).__name__)}: {getattr(error, 'evalue', error)}"
    return MachineError(
        f"lesson {lesson_id(source.path)}",
        f"cell {index + 1} failed with {_ANSI.sub('', reason).splitlines()[0]}",
        command=cell.text,
        output=_ANSI.sub("", str(getattr(error, "traceback", error))),
        hint=f"repair {source.path.name}:{cell.line}, or give the cell the tag raises-exception",
    )


def _carry_over(notebook: Any, committed: Path) -> None:
    if not committed.is_file():
        return
    before = library("nbformat").read(committed, as_version=4)
    if [cell.source for cell in _code(before)] == [cell.source for cell in _code(notebook)]:
        for old, new in zip(_code(before), _code(notebook), strict=True):
            new.outputs, new.execution_count = old.outputs, old.execution_count


def _copy_outputs(run: Any, edition: Any) -> None:
    for done, cell in zip(_code(run), _code(edition), strict=True):
        cell.execution_count = done.execution_count
        cell.outputs = [_clean(copy.deepcopy(output)) for output in done.outputs]


def _clean(output: Any) -> Any:
    """Drop what differs from run to run and from computer to computer.

    A widget's view is only a random id: as its state is not kept, Jupyter would show an error in its place.
    """
    if "data" in output:
        output.data.pop(_WIDGET_VIEW, None)
    if "traceback" in output:
        output.traceback = [_IMPORT_ROOT.sub("", line) for line in output.traceback]
    return output


def _code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _content(notebook: Any) -> str:
    """All of a notebook that comes from its source, and nothing that comes from running it."""
    cells = [(cell["id"], cell["cell_type"], _joined(cell["source"]), cell["metadata"]) for cell in notebook["cells"]]
    return json.dumps([notebook["metadata"], cells], sort_keys=True)


def _written(path: Path) -> str:
    return _content(load_json(path)) if path.is_file() else ""


def _joined(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)  # on disk, nbformat writes a list of lines


def load_json(path: Path) -> Any:
    """A committed notebook as plain JSON; UsageError when it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{path} is not a notebook: {error}",
            allowed="what `build` wrote",
            example=f"python -m cloudlab.teaching build {path.with_suffix('.py')}",
        ) from error
