"""Figures as a learner has them: interactive in JupyterLab, light and dark; static on a page without a kernel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Page, expect

from .conftest import Served
from .notebooks import Notebook, notebook

__all__ = ["notebook"]
pytestmark = pytest.mark.browser
SHOWN_MS = 30_000
NETWORK = """
import networkx as nx
from cloudlab import Span, figure, timeline
STATES = ["running"] * 6 + ["off", "running", "paused", "running", "starting", "running", "crashed", "running"]
def network(guests, switches=1):
    graph = nx.Graph()
    for s in range(1, switches + 1):
        graph.add_node(f"s{s}", kind="switch")
        if switches > 1:
            graph.add_edge(f"s{s}", "core", state="up")
            graph.nodes["core"]["kind"] = "router"
    for n in range(1, guests + 1):
        facts = {"address": f"10.0.{n >> 8}.{n & 255}", "mac": f"52:54:00:00:{n >> 8:02x}:{n & 255:02x}"}
        graph.add_node(f"n{n}", kind="machine", state=STATES[n % len(STATES)], **facts)
        link = "down" if n % 11 == 3 else "up"
        graph.add_edge(f"n{n}", f"s{n % switches + 1}", state=link, delay_s=0.005, frames=100 * n)
    return graph
"""
SHOW = "figure(network({guests}, {switches}), '{guests} guests')"
TRACE = """
timeline([
    Span("POST /servers", 0, .182, "client"), Span("authenticate", .004, .021, "keystone", "token valid 1 h"),
    Span("create instance", .024, .06, "nova-api"), Span("accepted", .06, .06, "nova-api", "202"),
    Span("filter", .065, .071, "scheduler"), Span("chosen: n2", .074, .074, "scheduler"),
    Span("fetch image", .08, .11, "compute"), Span("plug port", .085, .1, "compute"), Span("boot guest", .11, .17, "compute"),
], "Life of an instance")
"""
SIZES = [(3, 1), (20, 1), (300, 12)]
# of each text in the picture: what it says, and whether its box is inside the picture
OUTSIDE = """cell => {
  const all = cell.querySelector('.js-plotly-plot').getBoundingClientRect();
  return [...cell.querySelectorAll('.js-plotly-plot .main-svg text')].filter(text => {
    const box = text.getBoundingClientRect();
    const across = box.left < all.left - 1 || box.right > all.right + 1;
    return box.width && (across || box.top < all.top - 1 || box.bottom > all.bottom + 1);
  }).map(text => text.textContent);
}"""


def use_theme(notebook: Notebook, theme: str) -> None:
    """Change to a theme, whatever the one before: settings outlive a test."""
    notebook.menu("Settings")
    for name in ("Theme", f"JupyterLab {theme.capitalize()}"):
        notebook.page.locator(".lm-Menu-itemLabel").get_by_text(name, exact=True).click()
    expect(notebook.page.locator(f"body[data-jp-theme-light={str(theme == 'light').lower()}]")).to_be_attached()


def shown(notebook: Notebook, number: int, artefacts: Path, name: str) -> None:
    """Wait until a cell shows a picture, and photograph the cell."""
    plot = notebook.cell(number).locator(".js-plotly-plot .main-svg").first
    expect(plot).to_be_visible(timeout=SHOWN_MS)
    output = notebook.cell(number).locator(".jp-OutputArea-output").first
    output.scroll_into_view_if_needed()
    assert notebook.cell(number).evaluate(OUTSIDE) == []
    output.screenshot(path=artefacts / f"figure-{name}.png")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figures_are_interactive_and_legible_in_jupyterlab(notebook: Notebook, artefacts: Path, theme: str) -> None:
    shows = [SHOW.format(guests=guests, switches=switches) for guests, switches in SIZES]
    notebook.open(f"figures-{theme}", NETWORK, *shows, TRACE, "figure(nx.Graph(), 'Before the first machine')")
    use_theme(notebook, theme)
    notebook.run(0)
    for number, name in enumerate(["3", "20", "300", "timeline", "empty"], 1):
        assert notebook.run(number) == ""
        shown(notebook, number, artefacts, f"{name}-{theme}")
    assert notebook.foreign == []
    assert notebook.complaints == []


def test_the_mouse_shows_details(notebook: Notebook, artefacts: Path) -> None:
    notebook.open("hover", NETWORK, SHOW.format(guests=4, switches=1))
    notebook.run(0)
    notebook.run(1)
    shown(notebook, 1, artefacts, "4")
    guest = notebook.cell(1).locator(".points path.point[style*='rgb(0, 114, 178)']").first.bounding_box()
    assert guest is not None
    notebook.page.mouse.move(guest["x"] + guest["width"] / 2, guest["y"] + guest["height"] / 2)
    expect(notebook.cell(1).locator(".hoverlayer")).to_contain_text("address: 10.0.0.1", timeout=SHOWN_MS)
    notebook.page.screenshot(path=artefacts / "figure-hover.png")


def test_a_thousand_nodes_are_drawn(notebook: Notebook, artefacts: Path) -> None:
    notebook.open("thousand", NETWORK, SHOW.format(guests=970, switches=29))
    notebook.run(0)
    notebook.run(1)
    shown(notebook, 1, artefacts, "1000")
    assert notebook.cell(1).locator(".scatterlayer path.point").count() >= 1000
    assert notebook.foreign == []
    assert notebook.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_without_a_kernel_shows_the_static_picture(
    page: Page, artefacts: Path, tmp_path: Path, scheme: str
) -> None:
    cells = [nbformat.v4.new_code_cell(text) for text in (NETWORK, SHOW.format(guests=20, switches=1), TRACE)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "page.ipynb")
    convert = [
        sys.executable,
        "-m",
        "nbconvert",
        "--to",
        "html",
        "--execute",
        f"--HTMLExporter.theme={scheme}",
        "page.ipynb",
    ]
    subprocess.run(convert, cwd=tmp_path, check=True, capture_output=True)
    page.route("**/*", lambda route: route.continue_() if route.request.url.startswith("file:") else route.abort())
    page.goto((tmp_path / "page.html").as_uri())
    picture = page.get_by_role("img", name="20 guests").first
    expect(picture).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_have_count(0)
    page.get_by_text("The same as a table").first.click()
    expect(page.get_by_role("cell", name="n3-s1")).to_be_visible()
    page.screenshot(path=artefacts / f"figure-nbconvert-{scheme}.png", full_page=True)


def test_a_saved_page_needs_no_network(page: Page, artefacts: Path, tmp_path: Path) -> None:
    code = NETWORK + SHOW.format(guests=20, switches=1) + ".save_html('page.html')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.emulate_media(color_scheme="dark")
    page.goto((tmp_path / "page.html").as_uri())
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible(timeout=SHOWN_MS)
    page.screenshot(path=artefacts / "figure-saved.png")
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_a_committed_notebook_shows_its_figures_before_any_cell_is_run(
    notebook: Notebook, jupyter: Served, lessons_copy: Path, artefacts: Path
) -> None:
    cells = [nbformat.v4.new_code_cell(text) for text in (NETWORK, SHOW.format(guests=20, switches=1))]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), lessons_copy / "committed.ipynb")
    convert = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", "committed.ipynb"]
    subprocess.run(convert, cwd=lessons_copy, check=True, capture_output=True)
    notebook.page.goto(jupyter.page("lab/tree/committed.ipynb"))
    shown(notebook, 1, artefacts, "committed")
    assert notebook.foreign == []
    assert notebook.complaints == []


def test_a_figure_as_png(artefacts: Path, tmp_path: Path) -> None:
    pytest.importorskip("kaleido", reason="figures as PNG need the extra cloudlab[export]")
    code = NETWORK + SHOW.format(guests=20, switches=1) + ".save_png('a.png')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    png = (tmp_path / "a.png").read_bytes()
    (artefacts / "figure-20.png").write_bytes(png)
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20], "big") == 1920
