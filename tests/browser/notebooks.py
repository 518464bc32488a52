"""A notebook written by a test, opened in JupyterLab: its cells, its outputs, and what the page complained about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import ConsoleMessage, Locator, Page, expect

from .conftest import Served
from .test_lesson import wait_idle, watch_requests

CELL_DEADLINE_MS = 60_000
QUIRKS = ("favicon", "Failed to load resource: the server responded with a status of 404")  # of JupyterLab itself


class Notebook:
    """A notebook in JupyterLab; `foreign` and `complaints` grow with requests elsewhere and errors in the console."""

    def __init__(self, page: Page, served: Served, folder: Path) -> None:
        self.page, self._served, self._folder = page, served, folder
        self.complaints: list[str] = []
        self.foreign = watch_requests(page, served.url)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not any(quirk in message.text + message.location["url"] for quirk in QUIRKS):
            self.complaints.append(message.text)

    def open(self, name: str, *cells: str) -> None:
        """Write a notebook and open it; its kernel is up when this returns."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)"}
        nbformat.write(notebook, self._folder / f"{name}.ipynb")
        self.page.goto(self._served.page(f"lab/tree/{name}.ipynb"))
        wait_idle(self.page)

    def menu(self, *names: str) -> None:
        for name in names:
            self.page.get_by_role("menuitem", name=name, exact=True).click()

    def cell(self, number: int) -> Locator:
        return self.page.locator(".jp-CodeCell").nth(number)

    def start(self, number: int) -> None:
        """Run a cell and do not wait for its end."""
        self.cell(number).locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")

    def run(self, number: int) -> str:
        """Run a cell to its end; returns the text that it printed."""
        prompt = self.cell(number).locator(".jp-InputPrompt")
        before = prompt.inner_text()
        self.start(number)
        expect(prompt).not_to_have_text(before, timeout=CELL_DEADLINE_MS)
        expect(prompt).not_to_have_text("[*]:", timeout=CELL_DEADLINE_MS)
        return self.printed(number)

    def printed(self, number: int) -> str:
        return "\n".join(self.cell(number).locator(".jp-OutputArea-output pre").all_inner_texts()).strip()

    def reload(self) -> None:
        """Save the notebook and load the page anew, with the same kernel."""
        self.page.keyboard.press("Control+s")
        expect(self.page.locator(".jp-mod-dirty")).to_have_count(0, timeout=CELL_DEADLINE_MS)
        self.page.reload()
        wait_idle(self.page)

    @property
    def is_dark(self) -> bool:
        return self.page.locator("body[data-jp-theme-light=false]").count() > 0

    def dark(self) -> None:
        """Change to JupyterLab's dark theme; `end` changes back."""
        self._theme("JupyterLab Dark")

    def _theme(self, name: str) -> None:
        self.menu("Settings")
        for label in ("Theme", name):
            self.page.locator(".lm-Menu-itemLabel").get_by_text(label, exact=True).click()
        expect(self.page.locator(f"body[data-jp-theme-name='{name}']")).to_be_attached()
        expect(self.page.locator("#jupyterlab-splash")).to_have_count(0)

    def end(self) -> None:
        """End the kernels of all notebooks, and what they run; leave JupyterLab light, as it was."""
        if self.is_dark:
            self._theme("JupyterLab Light")
        base, _, query = self._served.url.partition("/lab")
        token = {"Authorization": "token " + query.partition("token=")[2]}
        for session in self.page.request.get(f"{base}/api/sessions", headers=token).json():
            self.page.request.delete(f"{base}/api/sessions/{session['id']}", headers=token)


@pytest.fixture
def notebook(jupyter: Served, page: Page, lessons_copy: Path) -> Iterator[Notebook]:
    opened = Notebook(page, jupyter, lessons_copy)
    yield opened
    opened.end()
