"""Pictures of 300 nodes in a browser: Chromium, driven by Playwright, on an empty page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import networkx as nx

from benchmarks.bench import Bench
from benchmarks.measure import OURS, Measure, Side, compared, interleave, timed
from cloudlab import figure, live
from cloudlab.views.live import Live

_SWITCHES, _GUESTS = 12, 288
_DRAW = """async ([data, layout]) => {
  const began = performance.now();
  await Plotly.newPlot('it', data, layout);
  return performance.now() - began;
}"""
_SHOW = """async ([code, picture]) => {
  const view = (await import(URL.createObjectURL(new Blob([code], {type: 'text/javascript'})))).default;
  const model = {get: () => picture, on: (event, hear) => { window.hear = hear; }, off() {}, send() {}};
  view.render({model, el: document.getElementById('it')});
}"""
_CHANGE = """async (message) => {
  const began = performance.now();
  window.hear(message);
  document.getElementById('it').getBoundingClientRect();  // until it is laid out
  return performance.now() - began;
}"""


class Network:
    """300 nodes that are not there: this is about drawing them."""

    closed = False

    def __init__(self) -> None:
        self.topology: nx.Graph[str] = nx.Graph()
        for number in range(_SWITCHES):
            self.topology.add_node(f"s{number}", kind="switch", state="running")
            self.topology.add_edge(f"s{number}", f"s{(number + 1) % _SWITCHES}", state="up", octets=0)
        for number in range(_GUESTS):
            self.topology.add_node(
                f"n{number}", kind="machine", state="running", address=f"10.0.{number >> 8}.{number & 255}"
            )
            self.topology.add_edge(f"n{number}", f"s{number % _SWITCHES}", state="up", octets=0)

    def turn(self, state: str) -> None:
        for facts in self.topology.nodes.values():
            facts["state"] = state


def views(bench: Bench) -> list[Measure]:
    """A figure of 300 nodes, from the call to the picture; then a live view of them, when all change at once."""
    network = Network()
    with _page() as page:
        if page is None:
            return []
        drawn = interleave({OURS: Side(lambda: _draw(page, network), bench.runs)})
        followed = live(network)
        followed.stop()
        page.set_content("<div id='it'></div>")
        page.evaluate(_SHOW, [followed._esm, {**followed._present(), "serial": 0}])
        changes = iter(range(1, 10_000))
        changed = interleave({OURS: Side(lambda: _change(page, network, followed, next(changes)), bench.runs)})
    return [
        compared(drawn, "all", "figure of 300 nodes, drawn", "s", 1),
        compared(drawn, "python", "figure of 300 nodes: the part in Python", "s", None),
        compared(changed, "all", "live view: 300 nodes change at once", "ms", 50),
    ]


def _draw(page: Any, network: Network) -> dict[str, float]:
    page.evaluate("Plotly.purge('it')")
    spec: dict[str, Any] = {}
    python = timed(lambda: spec.update(json.loads(figure(network).plotly.to_json())))
    return {"python": python, "all": python + page.evaluate(_DRAW, [spec["data"], spec["layout"]]) / 1e3}


def _change(page: Any, network: Network, followed: Live, serial: int) -> dict[str, float]:
    network.turn("paused" if serial % 2 else "running")
    message: dict[str, Any] = {"serial": serial}
    python = timed(lambda: message.update(json.loads(json.dumps(followed._take(followed._look())))))
    assert len(message["nodes"]) == _SWITCHES + _GUESTS
    return {"all": python + page.evaluate(_CHANGE, message) / 1e3}


@contextmanager
def _page() -> Iterator[Any]:
    """An empty page with plotly.js in it, or None where no browser is installed."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("Playwright is not installed, and pictures are left out: scripts/setup test")
        yield None
        return
    from plotly.offline import get_plotlyjs

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.set_content("<div id='it'></div>")
        page.add_script_tag(content=get_plotlyjs())
        yield page
        browser.close()
