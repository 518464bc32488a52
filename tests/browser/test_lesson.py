"""The lessons as a learner has them: in JupyterLab, in a browser, without a network."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page, expect

from .conftest import Served

pytestmark = [pytest.mark.browser, pytest.mark.guest]
PLACE = Path(__file__).parents[2] / "lessons"
LESSONS = [
    path.relative_to(PLACE).as_posix()
    for path in sorted(PLACE.glob("*/*.ipynb"))
    if not path.name.endswith(".zh.ipynb") or path.name.startswith("01-")  # the same code: one of each part will do
]
RUN_DEADLINE_MS = 120_000


def watch_requests(page: Page, home: str) -> list[str]:
    """Return a list that grows with every request to another host than our own server."""
    foreign: list[str] = []
    origin = home.partition("/lab")[0].partition("://")[2]
    hosts = {origin, origin.replace("localhost", "127.0.0.1"), origin.replace("127.0.0.1", "localhost")}

    def note(request: object) -> None:
        url = request.url  # type: ignore[attr-defined]
        if url.split(":", 1)[0] not in ("data", "blob") and url.partition("://")[2].split("/")[0] not in hosts:
            foreign.append(url)

    page.on("request", note)
    return foreign


def wait_idle(page: Page) -> None:
    """Wait for the kernel itself: the notebook's own indicator says "idle" before there is one."""
    expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=60_000)


def test_jupyterlab_opens_on_the_contents_page_rendered(jupyter: Served, page: Page, artefacts: Path) -> None:
    foreign = watch_requests(page, jupyter.url)
    page.goto(jupyter.url)
    expect(page.locator(".jp-MarkdownViewer h1")).to_contain_text("cloudlab", timeout=60_000)
    page.screenshot(path=artefacts / "contents.png")
    page.locator(".jp-MarkdownViewer a", has_text="A computer inside a computer").click()
    expect(page.locator(".jp-Notebook h1").first).to_contain_text("A computer inside a computer", timeout=60_000)
    assert foreign == []


@pytest.mark.timeout(400)
@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_runs_from_the_first_cell_to_the_last(
    jupyter: Served, page: Page, artefacts: Path, lesson: str
) -> None:
    foreign = watch_requests(page, jupyter.url)
    page.goto(jupyter.page(f"lab/tree/{lesson}"))
    wait_idle(page)
    for menu, item in (("Edit", "Clear Outputs of All Cells"), ("Run", "Run All Cells")):
        page.get_by_role("menuitem", name=menu, exact=True).click()
        page.get_by_role("menuitem", name=item, exact=True).click()
    name = Path(lesson).stem
    try:
        # a cell that has not run shows [*], and one that has, its number
        last = page.locator(".jp-CodeCell").last.locator(".jp-OutputArea-output")
        expect(last).to_contain_text(re.compile(r"stopped: \w"), timeout=RUN_DEADLINE_MS)
        expect(page.locator(".jp-InputPrompt", has_text="[*]")).to_have_count(0, timeout=RUN_DEADLINE_MS)
    finally:
        photograph(page, artefacts / f"{name}.png")
    errors = page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]').all_inner_texts()
    assert not [text for text in errors if "Error" in text], errors
    assert foreign == []


def photograph(page: Page, path: Path) -> None:
    """One picture for each screenful of the notebook."""
    panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-outer")
    step = int(panel.evaluate("e => e.clientHeight")) - 40
    for number, top in enumerate(range(0, 100 * step, step)):
        panel.evaluate("(e, top) => { e.scrollTop = top }", top)
        page.wait_for_function("() => !document.querySelector('.jp-Notebook .jp-mod-loading')")
        page.screenshot(path=path.with_stem(f"{path.stem}-{number:02d}"))
        # the height grows as cells come into sight
        if panel.evaluate("e => e.scrollTop + e.clientHeight > e.scrollHeight - 2"):
            return


def test_a_killed_kernel_takes_its_guests_with_it(
    jupyter: Served, page: Page, eventually: Callable[[Callable[[], bool], float], None]
) -> None:
    page.goto(jupyter.page(f"lab/tree/{LESSONS[0]}"))
    wait_idle(page)

    def guests() -> list[psutil.Process]:
        children = psutil.Process(jupyter.process.pid).children(recursive=True)
        return [process for process in psutil.process_iter(["name"]) if "qemu" in process.info["name"] and children]

    before = {process.pid for process in guests()}
    for _ in range(10):  # the cells up to the first guest
        page.keyboard.press("Shift+Enter")
    eventually(lambda: bool({process.pid for process in guests()} - before), 60)
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name="Shut Down Kernel", exact=True).click()
    eventually(lambda: not ({process.pid for process in guests()} - before), 20)
