"""The live views as a learner has them: real guests, a notebook in JupyterLab, a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from .notebooks import Notebook, notebook

__all__ = ["notebook"]
pytestmark = [pytest.mark.browser, pytest.mark.guest]
START = "from cloudlab import Lab, live, meters\nlab = Lab()\nmachines = [lab.machine(f'n{i}') for i in (1, 2, 3, 4)]"
SHOW = "view = live(lab, 'Four machines'); view"
CRASH = "import time\nbefore = time.time()\nlab['n2'].crash()\nprint(before)"
THREADS = "import threading\nprint(sum(t.name == 'cloudlab-live' for t in threading.enumerate()), 'threads')"
SHOWN_MS = 30_000

NOTE_WHEN_CRASHED = """() => {
  const seen = () => {
    if (document.querySelector('.cl-node[data-name=n2] .cl-state')?.textContent !== 'crashed') return;
    window.crashedAt ??= Date.now() / 1000;
  };
  new MutationObserver(seen).observe(document.querySelector('.cl-live svg'), {subtree: true, childList: true, characterData: true});
}"""
WATCH_STALLS = """() => {
  window.stalls = [];
  new PerformanceObserver((list) => window.stalls.push(...list.getEntries().map((e) => e.duration))).observe({type: 'longtask'});
  window.works = [];
  const frame = document.querySelector('.cl-live');
  new MutationObserver(() => window.works.push(Number(frame.dataset.workMs))).observe(frame, {attributeFilter: ['data-work-ms']});
}"""
FAKE = """
import time, networkx as nx
from cloudlab import live
class Fake:
    closed = False
    def __init__(self, count):
        self.graph = nx.Graph()
        for s in range(count // 25):
            self.graph.add_node(f's{s}', kind='switch')
            self.graph.add_edge(f's{s}', f's{(s + 1) % (count // 25)}', state='up', octets=0)
        for n in range(count - count // 25):
            self.graph.add_node(f'n{n}', kind='machine', state='running', address=f'10.0.{n // 250}.{n % 250}')
            self.graph.add_edge(f'n{n}', f's{n % (count // 25)}', state='up', octets=0)
    @property
    def topology(self):
        return self.graph
    def turn(self, state):
        for name, facts in self.graph.nodes.items():
            facts['state'] = state
fake = Fake(300)
"""


def say(artefacts: Path, **numbers: object) -> None:
    """Keep what was measured beside the screenshots."""
    with (artefacts / "live-numbers.jsonl").open("a") as file:
        file.write(json.dumps(numbers) + "\n")


def test_a_crash_is_seen_within_a_second_and_survives_a_reload(notebook: Notebook, artefacts: Path) -> None:
    page = notebook.page
    notebook.open("live", START, SHOW, CRASH, THREADS, "lab.close()")
    notebook.run(0)
    notebook.run(1)
    n2 = page.locator(".cl-node[data-name=n2]")
    expect(n2).to_have_attribute("aria-label", re.compile("n2, machine, running"), timeout=SHOWN_MS)
    expect(page.locator(".cl-said")).to_have_text("4 machines running")
    page.locator(".cl-live").screenshot(path=artefacts / "live-light.png")
    page.evaluate(NOTE_WHEN_CRASHED)
    before = float(notebook.run(2))
    expect(page.locator(".cl-said")).to_have_text("3 machines running; n2 is crashed", timeout=SHOWN_MS)
    latency_s = page.evaluate("window.crashedAt") - before
    say(artefacts, crash_to_dom_s=round(latency_s, 3))
    assert 0 < latency_s < 1
    expect(page.locator(".cl-live [role=status]").first).to_have_text("3 machines running; n2 is crashed")
    n2.locator(".cl-shape").hover()
    expect(page.locator(".cl-about")).to_contain_text("10.0.0.2")
    page.locator(".cl-live").screenshot(path=artefacts / "live-crashed.png")

    notebook.reload()
    expect(page.locator(".cl-node[data-name=n2] .cl-state")).to_have_text("crashed", timeout=SHOWN_MS)
    assert notebook.run(3) == "1 threads"
    notebook.dark()
    page.locator(".cl-live summary").click()
    page.locator(".cl-live").screenshot(path=artefacts / "live-dark.png")
    notebook.run(4)
    expect(page.locator(".cl-live .cl-ended")).to_have_text("this lab is closed", timeout=SHOWN_MS)
    expect(page.locator(".cl-said")).to_contain_text("n1, n2, n3 and n4 are off")
    assert notebook.run(3) == "0 threads"
    page.locator(".cl-live").screenshot(path=artefacts / "live-closed.png")
    assert notebook.foreign == []
    assert notebook.complaints == []


def test_the_thread_ends_with_the_output_that_shows_it(notebook: Notebook) -> None:
    count = THREADS.replace("print", "time.sleep(3)\nprint")  # the grace for a view that only moves is 2 s
    notebook.open("ends", FAKE, "live(fake)", count)
    notebook.run(0)
    for _ in range(3):
        notebook.run(1)
        expect(notebook.page.locator(".cl-node")).to_have_count(300, timeout=SHOWN_MS)
    assert notebook.run(2) == "1 threads"
    notebook.cell(1).locator(".cm-content").click()
    notebook.menu("Edit", "Clear Cell Output")
    assert notebook.run(2) == "0 threads"
    notebook.run(1)
    expect(notebook.page.locator(".cl-node")).to_have_count(300, timeout=SHOWN_MS)
    assert notebook.run(2) == "1 threads"
    notebook.cell(1).locator(".cm-content").click()
    notebook.page.keyboard.press("Escape")
    notebook.page.keyboard.press("d")
    notebook.page.keyboard.press("d")
    assert notebook.run(1) == "0 threads"  # what was cell 2
    assert notebook.complaints == []


def test_three_hundred_changes_do_not_stall_the_page(notebook: Notebook, artefacts: Path) -> None:
    turn = "for state in ('crashed', 'running', 'paused', 'starting') * 3:\n    fake.turn(state)\n    time.sleep(0.6)"
    work = """
fake.turn('crashed')
began = time.perf_counter()
change = view._take(view._look())
fake.turn('running')
print(len(change['nodes']), 1000 * (time.perf_counter() - began))
"""
    notebook.open("many", FAKE, "view = live(fake); view", turn, "view.stop()\n" + work)
    page = notebook.page
    notebook.run(0)
    notebook.run(1)
    expect(page.locator(".cl-node")).to_have_count(300, timeout=SHOWN_MS)
    page.evaluate(WATCH_STALLS)
    notebook.start(2)
    page.wait_for_function("() => window.works.length >= 3", timeout=SHOWN_MS)  # while the cell runs
    expect(notebook.cell(2).locator(".jp-InputPrompt")).to_have_text("[*]:")
    page.wait_for_function("() => window.works.length >= 12", timeout=SHOWN_MS)
    stalls, works = page.evaluate("[window.stalls, window.works]")
    page.locator(".cl-live").screenshot(path=artefacts / "live-300.png")
    nodes, python_ms = map(float, notebook.run(3).split())
    say(artefacts, longest_stall_ms=max(stalls, default=0), stalls=stalls, js_ms=works, python_ms=python_ms)
    assert nodes == 300
    assert max(stalls, default=0) <= 250
    assert sorted(works)[len(works) // 2] <= 50
    assert notebook.foreign == []
    assert notebook.complaints == []


NETWORK = """
import time, networkx as nx
from cloudlab import live
class Net:
    closed = False
    def __init__(self):
        self.topology = nx.Graph()
        for s in ('s1', 's2'):
            self.topology.add_node(s, kind='switch')
        self.topology.add_node('r1', kind='router', state='running', address='10.0.0.254')
        self.topology.add_edge('s1', 'r1', state='up', octets=0, frames=0)
        self.topology.add_edge('s2', 'r1', state='up', octets=0, frames=0)
        for n in range(1, 9):
            self.topology.add_node(f'n{n}', kind='machine', state='running', address=f'10.0.0.{n}', mac=f'52:54:00:00:00:0{n}')
            self.topology.add_edge(f'n{n}', 's1' if n < 5 else 's2', state='up', octets=0, frames=0, delay_s=0.02)
net = Net()
"""
EVENTS = """
net.topology.nodes['n3']['state'] = 'crashed'
net.topology.nodes['n6']['state'] = 'paused'
net.topology.nodes['n7']['state'] = 'starting'
net.topology.edges['n2', 's1']['state'] = 'down'
net.topology.remove_node('n8')
net.topology.add_node('n9', kind='machine', state='running')
net.topology.add_edge('n9', 's2', state='up', octets=0)
while True:
    for ends, octets in {('n1', 's1'): 300, ('s1', 'r1'): 50_000, ('r1', 's2'): 50_000, ('n5', 's2'): 900_000}.items():
        net.topology.edges[ends]['octets'] += octets
        net.topology.edges[ends]['frames'] += 10
    time.sleep(0.1)
"""


def test_links_cut_traffic_and_new_nodes_are_seen_while_a_cell_runs(notebook: Notebook, artefacts: Path) -> None:
    page = notebook.page
    page.emulate_media(reduced_motion="reduce")
    notebook.open("network", NETWORK, "live(net, 'Two switches and a router')", EVENTS)
    notebook.run(0)
    notebook.run(1)
    expect(page.locator(".cl-node")).to_have_count(11, timeout=SHOWN_MS)
    page.locator(".cl-live").screenshot(path=artefacts / "live-network-before.png")
    notebook.start(2)
    expect(page.locator(".cl-node[data-name=n9]")).to_be_attached(timeout=SHOWN_MS)
    expect(page.locator(".cl-node[data-name=n8]")).to_have_count(0)
    expect(page.locator(".cl-link[data-name=n2-s1] .cl-sign")).to_have_text("×")
    expect(page.locator(".cl-link[data-name=n5-s2] .cl-flow")).to_contain_text("MiB/s", timeout=SHOWN_MS)
    page.locator(".cl-live").screenshot(path=artefacts / "live-network.png")
    page.locator(".cl-link[data-name=n4-s1] .cl-touch").hover()
    expect(page.locator(".cl-about")).to_contain_text("delay 20 ms")
    assert page.locator(".cl-line").first.evaluate("e => getComputedStyle(e).transitionDuration") == "0s"
    page.locator(".cl-node[tabindex='0']").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".cl-about")).to_be_visible()
    page.locator(".cl-live").screenshot(path=artefacts / "live-network-focus.png")
    notebook.dark()
    page.locator(".cl-live").screenshot(path=artefacts / "live-network-dark.png")
    assert notebook.foreign == []
    assert notebook.complaints == []


LOAD = """
import time
machines[0].run("timeout 8 sh -c 'while :; do :; done' &")
machines[1].succeed("dd if=/dev/zero of=/dev/vda bs=1M count=40 conv=fsync 2>/dev/null || true")
time.sleep(6)
"""


def test_meters_show_what_guests_use(notebook: Notebook, artefacts: Path) -> None:
    page = notebook.page
    show = "watch = meters(machines[:3], source=lab, seconds=20); watch"
    after = "watch.stop()\nprint(max(one.cpu for one in watch.samples if one.machine == 'n1') > 50)"
    wrote = "print(machines[1].stats.disk_written >= 40 << 20)"
    notebook.open("meters", START + "\nmachines[1].plug(disk='64M')", show, LOAD, wrote, after)
    notebook.run(0)
    notebook.run(1)
    expect(page.locator(".cl-meters li")).to_have_count(3, timeout=SHOWN_MS)
    notebook.run(2)
    page.locator(".cl-meters").screenshot(path=artefacts / "meters-light.png")
    assert notebook.run(3) == "True"
    notebook.dark()
    page.locator(".cl-meters").screenshot(path=artefacts / "meters-dark.png")
    assert notebook.run(4) == "True"
    expect(page.locator(".cl-meters .cl-ended")).to_have_text("stopped")
    assert notebook.foreign == []
    assert notebook.complaints == []
