"""Views of containers as a learner has them: tables in a notebook, light and dark, and a tree that follows while a cell runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from .notebooks import Notebook, notebook

__all__ = ["notebook"]
pytestmark = [pytest.mark.browser, pytest.mark.guest]
SHOWN_MS = 30_000
START = """
import time
from cloudlab import Cgroup, Lab, cgroup_tree, layer_stack, live, meters, namespace_matrix
lab = Lab()
n1 = lab.machine('n1')
busy = "echo hello > /etc/motd; rm /usr/bin/vi; echo x >> /etc/passwd; while :; do :; done"
web = n1.container('web', command=['/bin/sh', '-c', busy], network='none', writable=True, memory='32M', cpus=0.5, pids=20)
db = n1.container('db', command=['/bin/sleep', '600'], network='none', memory='64M')
"""
VIEWS = ["namespace_matrix(n1)", "layer_stack(web, path='/usr/bin/vi')"]
BUSY = """
db.limit(cpus=0.1)
Cgroup(n1, '/new & <b>').create(memory='8M')
time.sleep(4)
print('done')
"""


def test_tables_of_a_container_read_on_light_and_dark(notebook: Notebook, artefacts: Path) -> None:
    notebook.open("containers", START, *VIEWS, "lab.close()")
    notebook.run(0)
    notebook.run(1)
    notebook.run(2)
    matrix, stack = (notebook.cell(number).locator(".cl-sheet") for number in (1, 2))
    expect(matrix.locator("caption")).to_contain_text("2 containers", timeout=SHOWN_MS)
    row = matrix.get_by_role("row").filter(has=notebook.page.get_by_role("rowheader", name="/bin/sleep 600"))
    expect(row.get_by_role("cell").first).to_have_text("db")
    assert matrix.get_by_role("columnheader").all_inner_texts()[3:5] == ["mnt", "uts"]
    marked = stack.locator("tr[aria-current]")
    expect(marked).to_contain_text("whiteout")
    expect(stack.locator("s")).not_to_have_count(0)
    assert marked.evaluate("e => e.children[1].textContent") == "/usr/bin/vi"
    for theme in ("light", "dark"):
        if theme == "dark":
            notebook.dark()
        matrix.screenshot(path=artefacts / f"namespaces-{theme}.png")
        stack.screenshot(path=artefacts / f"layers-{theme}.png")
    notebook.run(3)
    assert notebook.foreign == []
    assert notebook.complaints == []


def test_the_tree_of_groups_follows_while_a_cell_runs(notebook: Notebook, artefacts: Path) -> None:
    page = notebook.page
    notebook.open("groups", START, "tree = cgroup_tree(n1); tree", BUSY, "print(tree)", "lab.close()")
    notebook.run(0)
    notebook.run(1)
    tree = page.locator(".cl-groups")
    words = tree.locator("[data-part='cpu words /cloudlab/web']")
    expect(words).to_have_text(re.compile(r"^0\.[45]\d* of 0\.5"), timeout=SHOWN_MS)
    tree.screenshot(path=artefacts / "groups-light.png")
    notebook.start(2)
    expect(tree.locator("code", has_text="new & <b>")).to_be_visible(timeout=SHOWN_MS)
    expect(tree.locator("[data-part='cpu words /cloudlab/db']")).to_have_text("0 of 0.1", timeout=SHOWN_MS)
    expect(notebook.cell(2).locator(".jp-InputPrompt")).to_have_text("[*]:")
    bar = tree.locator("rect[data-part='cpu bar /cloudlab/web']")
    page.wait_for_function("bar => Number(bar.getAttribute('width')) > 60", arg=bar.element_handle(), timeout=SHOWN_MS)
    expect(notebook.cell(2).locator(".jp-InputPrompt")).not_to_have_text("[*]:", timeout=SHOWN_MS)
    assert "web  (cpu 0.5, memory 32 MiB, pids 20)" in notebook.run(3)
    notebook.dark()
    tree.screenshot(path=artefacts / "groups-dark.png")
    notebook.run(4)
    expect(tree.locator(".cl-ended")).to_have_text("this lab is closed", timeout=SHOWN_MS)
    assert notebook.foreign == []
    assert notebook.complaints == []


def test_containers_are_measured_and_drawn_in_their_machine(notebook: Notebook, artefacts: Path) -> None:
    page = notebook.page
    notebook.open(
        "measured",
        START + "n2 = lab.machine('n2'); lab.switch('s1'); lab.link('n1', 's1'); lab.link('n2', 's1')",
        "live(lab, 'Containers in their machines')",
        "meters([web, db], seconds=20)",
        "web.pause(); time.sleep(5)",
        "lab.close()",
    )
    for cell in (0, 1, 2):
        notebook.run(cell)
    expect(page.locator(".cl-node[data-name='n1/web']")).to_have_attribute(
        "aria-label", re.compile("n1/web, container, running"), timeout=SHOWN_MS
    )
    expect(page.locator(".cl-link[data-name='n1-n1/web']")).to_have_attribute("aria-label", "n1-n1/web, inside")
    expect(page.locator(".cl-meters li").first).to_contain_text(
        re.compile(r"n1/web: CPU [45]\d %.*1 process"), timeout=SHOWN_MS
    )
    notebook.run(3)
    expect(page.locator(".cl-said")).to_contain_text("n1/web is paused", timeout=SHOWN_MS)
    for theme in ("light", "dark"):
        if theme == "dark":
            notebook.dark()
        page.locator(".cl-live").screenshot(path=artefacts / f"containers-live-{theme}.png")
        page.locator(".cl-meters").screenshot(path=artefacts / f"containers-meters-{theme}.png")
    notebook.run(4)
    assert notebook.foreign == []
    assert notebook.complaints == []
