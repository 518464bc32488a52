"""A guest's terminal in a notebook, with real keys, in a real browser."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Locator, expect

from cloudlab.views.screen import picture

from .conftest import Served
from .notebooks import Notebook
from .notebooks import notebook as notebook  # noqa: PLC0414 - a fixture

pytestmark = [pytest.mark.browser, pytest.mark.guest]
START = 'from cloudlab import Lab, terminal\nlab = Lab()\nn1 = lab.machine("n1")'
SHOW = "terminal(n1)"
SHOWN_MS = 30_000


class Shown:
    """One terminal on the page."""

    def __init__(self, notebook: Notebook, number: int = 0) -> None:
        self.page, self._notebook = notebook.page, notebook
        self.element = self.page.locator(".cloudlab-terminal").nth(number)

    @property
    def rows(self) -> Locator:
        return self.element.locator(".xterm-rows")

    def type(self, text: str) -> None:
        self.element.locator(".xterm-screen").click()
        self.page.keyboard.type(text)

    def shows(self, text: str, within_ms: int = SHOWN_MS) -> None:
        expect(self.rows).to_contain_text(text, timeout=within_ms)

    def says(self, text: str) -> None:
        expect(self.element.locator(".cloudlab-terminal-state")).to_contain_text(text, timeout=SHOWN_MS)

    def login(self) -> None:
        self.says("is running")
        self.type("\n")
        self.shows("root@n1")


def show(notebook: Notebook, *more: str) -> Shown:
    """Open a notebook with a terminal in its second cell, and bring up the prompt."""
    notebook.open("terminal", START, SHOW, *more)
    notebook.run(0)
    notebook.start(1)
    shown = Shown(notebook)
    shown.login()
    return shown


def test_a_command_goes_to_the_guest_and_its_answer_comes_back(notebook: Notebook, artefacts: Path) -> None:
    shown = show(notebook)
    shown.type("echo $((6*7))\n")
    shown.shows("42")
    notebook.page.screenshot(path=artefacts / "terminal.png")
    assert notebook.foreign == []
    assert notebook.complaints == []


def test_vi_fills_the_screen_and_leaves(notebook: Notebook, artefacts: Path) -> None:
    shown = show(notebook)
    shown.type("vi /tmp/note\n")
    shown.shows("~")
    notebook.page.keyboard.type("iwritten in vi")
    notebook.page.keyboard.press("Escape")
    shown.shows("written in vi")
    rows = shown.rows.locator("> div").all_inner_texts()
    assert len([row for row in rows if row.strip() == "~"]) == 22, rows  # 24 less the text and the line of state
    notebook.page.screenshot(path=artefacts / "terminal-vi.png")
    notebook.page.keyboard.type(":q!\n")
    shown.type("echo $((6*7))\n")
    shown.shows("42")
    expect(notebook.cell(1)).to_be_visible()  # Escape and the letters have done nothing to the notebook
    assert notebook.complaints == []


def test_a_program_in_the_guest_is_told_a_new_width(notebook: Notebook, artefacts: Path) -> None:
    shown = show(notebook)
    shown.type("trap 'clear; echo told: $(stty size)' WINCH; clear; echo re''ady\n")
    shown.shows("ready")
    widths = []
    for width in (900, 1280):
        notebook.page.set_viewport_size({"width": width, "height": 1000})
        shown.shows("told: 24 ")
        widths.append(int(shown.rows.inner_text().partition("told: 24 ")[2].split()[0]))
        notebook.page.screenshot(path=artefacts / f"terminal-{width}.png")
        shown.type("clear\n")
        expect(shown.rows).not_to_contain_text("told")
    assert 40 < widths[0] < 100 < widths[1] < 160, widths
    assert notebook.complaints == []


def test_chinese_is_typed_and_shown(notebook: Notebook, artefacts: Path) -> None:
    shown = show(notebook)
    keyboard = notebook.page.context.new_cdp_session(notebook.page)
    shown.type("cat\n")
    for letters in ("xu", "xu'ni", "虚拟机"):  # as an input method has it: letters, more letters, the choice
        place = {"selectionStart": len(letters), "selectionEnd": len(letters)}
        keyboard.send("Input.imeSetComposition", {"text": letters, **place})
    keyboard.send("Input.insertText", {"text": "虚拟机"})
    shown.shows("cat虚拟机")
    notebook.page.keyboard.insert_text("与云计算")  # as a table of symbols has it: no key at all
    shown.shows("cat虚拟机与云计算")
    notebook.page.keyboard.press("Enter")
    shown.shows("cat虚拟机与云计算虚拟机与云计算")
    notebook.page.keyboard.press("Control+d")
    notebook.page.screenshot(path=artefacts / "terminal-chinese.png")
    assert notebook.complaints == []


def test_what_is_copied_can_be_pasted(notebook: Notebook) -> None:
    notebook.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    shown = show(notebook)
    shown.type("clear; echo copy-$((41+1))\n")
    shown.shows("copy-42")
    box = shown.rows.locator("> div", has_text="copy-42").first.bounding_box()
    assert box is not None
    notebook.page.mouse.dblclick(box["x"] + 12, box["y"] + box["height"] / 2)
    notebook.page.keyboard.press("Control+c")
    assert notebook.page.evaluate("navigator.clipboard.readText()").strip() == "copy-42"
    notebook.page.evaluate("navigator.clipboard.writeText('echo pasted-$((6*8))')")
    notebook.page.keyboard.press("Control+v")
    notebook.page.keyboard.press("Enter")
    shown.shows("pasted-48")
    shown.type("sleep 1000\n")
    notebook.page.keyboard.press("Control+c")  # nothing is selected: it is the guest's
    shown.shows("^C")
    assert notebook.complaints == []


def test_keys_arrive_while_a_cell_is_busy(notebook: Notebook) -> None:
    busy = "import time\ntime.sleep(10)\nprint('the cell has ' + 'ended')"
    notebook.open("terminal", START, SHOW, busy)
    notebook.menu("Run", "Run All Cells")
    shown = Shown(notebook)
    expect(notebook.cell(2).locator(".jp-InputPrompt")).to_have_text("[*]:", timeout=SHOWN_MS)
    shown.login()
    shown.type("echo $((6*7))\n")
    shown.shows("42", within_ms=5_000)
    assert "the cell has ended" not in notebook.cell(2).inner_text()
    expect(notebook.cell(2)).to_contain_text("the cell has ended", timeout=SHOWN_MS)
    for number in (1, 2):  # and once more, with everything warm: what comes by itself, too
        notebook.start(2)
        expect(notebook.cell(2).locator(".jp-InputPrompt")).to_have_text("[*]:", timeout=SHOWN_MS)
        shown.type(f"for i in 1 2 3; do echo {number}$((6*8))-$i; sleep 0.2; done\n")
        shown.shows(f"{number}48-3", within_ms=5_000)
        assert "the cell has ended" not in notebook.cell(2).inner_text()
        expect(notebook.cell(2)).to_contain_text("the cell has ended", timeout=SHOWN_MS)
    assert notebook.complaints == []


def test_two_views_show_the_same(notebook: Notebook, artefacts: Path) -> None:
    first, second = show(notebook, SHOW), Shown(notebook, 1)
    first.type("echo $((6*7))\n")
    first.shows("42")
    notebook.start(2)
    second.shows("42")
    first.type("echo $((6*8))\n")
    second.shows("48")
    second.type("echo $((6*9))\n")
    first.shows("54")
    notebook.page.screenshot(path=artefacts / "terminal-two.png")
    assert notebook.complaints == []


def test_a_reloaded_page_shows_the_screen_as_it_was(notebook: Notebook, artefacts: Path) -> None:
    shown = show(notebook)
    shown.type("echo $((6*7))\n")
    shown.shows("42")
    notebook.cell(0).locator(".cm-content").click()
    notebook.reload()
    shown.shows("42")
    for sum_, answer in (("6*8", "48"), ("6*9", "54"), ("7*9", "63")):  # the page that is gone holds nothing up
        shown.type(f"echo $(({sum_}))\n")
        shown.shows(answer, within_ms=3_000)
    notebook.page.screenshot(path=artefacts / "terminal-reloaded.png")
    assert notebook.complaints == []


def test_a_guest_that_ends_is_shown_in_words_and_comes_back(notebook: Notebook, artefacts: Path) -> None:
    shown = show(notebook, "n1.pause()", "n1.resume()", "n1.crash()", "n1.start();")
    shown.type("echo $((6*7))\n")
    shown.shows("42")
    notebook.run(2)
    shown.says("n1 is paused, and keys wait: n1.resume() lets it go on.")
    shown.type("echo $((6*8))\n")
    notebook.run(3)
    shown.says("n1 is running.")
    shown.shows("48")
    notebook.run(4)
    shown.says("n1 has crashed: the plug was pulled. n1.start() starts it again.")
    shown.type("echo $((6*9))\n")
    notebook.page.screenshot(path=artefacts / "terminal-crashed.png")
    notebook.run(5)
    shown.says("n1 is running.")
    shown.type("\necho $((7*7))\n")
    shown.shows("49")
    expect(shown.rows).not_to_contain_text("54")
    assert notebook.complaints == []


def test_a_restored_guest_is_connected_again(notebook: Notebook) -> None:
    shown = show(notebook, "n1.save()", "n1.restore()")
    notebook.run(2)
    notebook.run(3)
    shown.says("n1 is running.")
    shown.type("echo $((6*7))\n")
    shown.shows("42")
    assert notebook.complaints == []


def test_a_flood_ends_on_the_newest_line(notebook: Notebook) -> None:
    shown = show(notebook)
    shown.type("seq 40000; echo do''ne\n")
    shown.shows("40000done", within_ms=60_000)
    assert notebook.complaints == []


def test_it_follows_the_theme(notebook: Notebook, artefacts: Path) -> None:
    shown = show(notebook)
    notebook.dark()
    page = "getComputedStyle(document.querySelector('.cloudlab-terminal-screen')).backgroundColor"
    assert notebook.page.evaluate(page) == "rgb(17, 17, 17)"
    shown.type("echo $((6*7))\n")
    shown.shows("42")
    letters = shown.rows.evaluate("e => getComputedStyle(e).color")
    assert letters not in ("rgb(0, 0, 0)", "rgba(0, 0, 0, 0.87)"), letters
    notebook.page.screenshot(path=artefacts / "terminal-dark.png")
    assert notebook.complaints == []


def test_no_thread_is_left_when_nobody_looks(notebook: Notebook) -> None:
    count = "import threading\nprint('threads', [t.name for t in threading.enumerate() if 'terminal' in t.name])"
    shown = show(notebook, count)
    for _ in range(3):
        notebook.run(1)
        shown.shows("root@n1")
    assert notebook.run(2) == "threads ['terminal-n1']"
    notebook.cell(1).locator(".cm-content").click()
    notebook.cell(1).get_by_title("Delete the cell").click()
    notebook.page.get_by_role("button", name="Delete", exact=True).click()
    expect(notebook.page.locator(".cloudlab-terminal")).to_have_count(0)
    assert notebook.run(1) == "threads []"


def test_the_kernels_end_is_said(notebook: Notebook) -> None:
    shown = show(notebook)
    notebook.menu("Kernel", "Shut Down Kernel")
    shown.says("the kernel has ended, and the guest with it")


def test_a_notebook_that_has_not_run_here_shows_a_picture(
    notebook: Notebook, jupyter: Served, lessons_copy: Path, artefacts: Path
) -> None:
    view = {"version_major": 2, "version_minor": 1, "model_id": "1234"}
    data = {
        "text/plain": "<terminal of n1>",
        "text/html": picture("n1", "root@n1:~# echo '<42>'\n<42>"),
        "application/vnd.jupyter.widget-view+json": view,
    }
    cell = nbformat.v4.new_code_cell(SHOW, outputs=[nbformat.v4.new_output("execute_result", data, execution_count=1)])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), lessons_copy / "still.ipynb")
    notebook.page.goto(jupyter.page("lab/tree/still.ipynb"))
    expect(notebook.cell(0)).to_contain_text("<42>", timeout=SHOWN_MS)
    notebook.page.screenshot(path=artefacts / "terminal-still.png")
