"""Figures of a topology: the same told by the interactive picture, the static one, the table and in words."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import networkx as nx
import pytest

from cloudlab.errors import UsageError
from cloudlab.views import style
from cloudlab.views.drawing import drawing, legend_places
from cloudlab.views.figure import Figure, figure
from cloudlab.views.picture import PLOTLY
from cloudlab.views.svg import svg
from cloudlab.views.words import format_rate

NS = "{http://www.w3.org/2000/svg}"


def network(guests: int = 4) -> nx.Graph[str]:
    """A star of which n2 has crashed, n3 is off, and the link of n2 is cut."""
    graph = nx.Graph()
    graph.add_node("s1", kind="switch")
    for n in range(1, guests + 1):
        state = {2: "crashed", 3: "off"}.get(n, "running")
        graph.add_node(f"n{n}", kind="machine", state=state, mac=f"52:54:00:00:00:{n:02x}", address=f"10.0.0.{n}")
        graph.add_edge(
            f"n{n}",
            "s1",
            state="down" if n == 2 else "up",
            delay_s=0.005,
            loss=0.01,
            rate=1e7,
            frames=1234,
            octets=2048,
        )
    return graph


@pytest.fixture
def shown() -> Figure:
    return figure(network(), "Four machines")


def traces(shown: Figure) -> list[dict[str, Any]]:
    return list(shown._repr_mimebundle_()[PLOTLY]["data"])


def hovers(shown: Figure) -> list[str]:
    return [text for trace in traces(shown) if "hovertext" in trace for text in trace["hovertext"]]


# --- words and table --------------------------------------------------------------------------------------------------
def test_a_figure_in_one_line(shown: Figure) -> None:
    assert repr(shown) == "figure: 4 machines, 1 switch, 4 links; n2 is crashed; n3 is off; n2-s1 is down"


def test_the_alternative_text_counts_and_names_what_is_down(shown: Figure) -> None:
    assert (
        shown.alt
        == "Four machines: A network of 4 machines, 1 switch, 4 links. n2 is crashed. n3 is off. n2-s1 is down."
    )


def test_many_troubles_are_not_all_named() -> None:
    graph = network(30)
    nx.set_node_attributes(graph, {f"n{n}": "off" for n in range(1, 31)}, "state")
    assert "n1, n2, n3 and 27 more are off." in figure(graph).alt


def test_when_all_is_well_the_alternative_text_says_so() -> None:
    graph = nx.Graph()
    graph.add_node("n1", kind="machine", state="running")
    assert figure(graph).alt == "A network of 1 machine. Everything is running."


def test_the_table_has_a_row_for_each_node_and_link(shown: Figure) -> None:
    assert [row["name"] for row in shown.table] == ["n1", "n2", "n3", "n4", "s1", "n1-s1", "n2-s1", "n3-s1", "n4-s1"]
    assert shown.table[1] == {
        "name": "n2",
        "kind": "machine",
        "state": "crashed",
        "details": "address 10.0.0.2, mac 52:54:00:00:00:02",
    }
    assert shown.table[6]["state"] == "down"
    assert shown.table[6]["details"] == "delay 5 ms, loss 1 %, rate 10 Mbit/s, frames 1,234, octets 2 KiB"


def test_other_attributes_are_shown_in_their_order() -> None:
    graph = nx.Graph()
    graph.add_node("web", kind="pod", zone="b", image="nginx", address="10.1.0.1", nothing=None)
    assert figure(graph).table[0]["details"] == "address 10.1.0.1, zone b, image nginx"


def test_options_and_conditions_of_a_topology_are_told_one_by_one() -> None:
    graph = nx.Graph()
    graph.add_node("n1", kind="machine", options={"memory": "64M", "disks": [1, 2]})
    graph.add_node("s1", kind="switch", options={})
    graph.add_edge("n1", "s1", number=3, ends=("n1", "s1"), conditions={"delay": "5ms", "loss": 0.1, "rate": "1Mbit"})
    assert [row["details"] for row in figure(graph).table] == ["memory 64M", "", "loss 10 %, rate 1Mbit, delay 5ms"]


def test_rates_are_counted_in_thousands() -> None:
    assert [format_rate(bits) for bits in (56, 64_000, 1e7, 2.5e9)] == [
        "56 bit/s",
        "64 kbit/s",
        "10 Mbit/s",
        "2.5 Gbit/s",
    ]


def test_a_long_legend_stands_in_columns() -> None:
    places = legend_places([f"machine, thinking about {n}" for n in range(8)])
    assert len({x for x, _ in places.values()}) < 8
    assert max(row for _, row in places.values()) >= 1


# --- the interactive picture ------------------------------------------------------------------------------------------
def test_the_legend_has_each_look_that_occurs_once(shown: Figure) -> None:
    legend = [trace["name"] for trace in traces(shown) if "name" in trace and trace.get("showlegend", True)]
    nodes = ["machine, running", "machine, crashed (×)", "machine, off", "switch"]
    assert sorted(legend) == sorted([*nodes, "link, up", "link, down (×)"])


def test_a_cut_link_is_dashed_and_has_a_sign(shown: Figure) -> None:
    (cut,) = [trace for trace in traces(shown) if trace.get("name", "").startswith("link, down")]
    assert cut["line"]["dash"] == "dash"
    assert [trace for trace in traces(shown) if trace.get("text") == "×" and "n2-s1" in trace["hovertext"][0]]


def test_the_mouse_tells_what_the_table_tells(shown: Figure) -> None:
    assert "<b>n2</b><br>machine, crashed<br>address: 10.0.0.2<br>mac: 52:54:00:00:00:02" in hovers(shown)
    assert any(text.startswith("<b>n2-s1</b><br>link, down<br>delay: 5 ms<br>loss: 1 %") for text in hovers(shown))
    assert len(hovers(shown)) == len(shown.table)


def test_each_kind_is_drawn_as_its_style_says() -> None:
    graph = nx.Graph()
    for name in style.KINDS:
        graph.add_node(name, kind=name, state="running")
    drawn = {
        trace["marker"]["symbol"]: trace["marker"]["color"]
        for trace in traces(figure(graph))
        if "symbol" in trace.get("marker", {})
    }
    assert drawn == {kind.symbol: kind.colour for kind in style.KINDS.values()}


def test_the_background_is_left_to_the_page(shown: Figure) -> None:
    layout = shown._repr_mimebundle_()[PLOTLY]["layout"]
    assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"
    assert layout["font"]["color"] == style.TEXT
    assert layout["meta"]["alt"] == shown.alt


def test_no_button_sends_the_picture_elsewhere(shown: Figure) -> None:
    config = figure(network(100))._repr_mimebundle_()[PLOTLY]["config"]
    assert not config["displaylogo"]
    assert "sendDataToCloud" not in json.dumps(config["modeBarButtons"])


def test_the_plotly_figure_can_be_changed(shown: Figure) -> None:
    shown.plotly.update_layout(height=777)
    assert shown._repr_mimebundle_()[PLOTLY]["layout"]["height"] == 777


def test_names_are_not_markup() -> None:
    graph = nx.Graph()
    graph.add_node("<b>n&1", kind="machine", state="running", note="<script>alert(1)</script>")
    bundle = figure(graph, "<i>title")._repr_mimebundle_()
    bundle[PLOTLY]["layout"].pop("meta")  # plain text, which is never drawn
    drawn = json.dumps(bundle[PLOTLY])
    assert "<script" not in drawn + bundle["text/html"]
    assert "<b>n&1" not in drawn + bundle["text/html"]
    assert "<i>" not in drawn + bundle["text/html"]
    assert "&lt;b&gt;n&amp;1" in bundle["text/html"]


# --- the static picture -----------------------------------------------------------------------------------------------
def test_the_static_picture_is_well_formed_and_says_what_it_shows(shown: Figure) -> None:
    root = ElementTree.fromstring(shown.svg())
    title, description = root.find(f"{NS}title"), root.find(f"{NS}desc")
    assert title is not None
    assert description is not None
    assert (title.text, description.text, root.get("role")) == ("Four machines", shown.alt, "img")
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"


def test_a_cut_link_is_told_in_the_static_picture_too(shown: Figure) -> None:
    drawn = shown.svg()
    assert f'stroke="{style.ALARM}" stroke-width="2" stroke-dasharray="6 5"' in drawn
    assert "<title>n2-s1: down</title>" in drawn


def test_the_html_has_the_picture_and_the_table(shown: Figure) -> None:
    page = shown._repr_mimebundle_()["text/html"]
    assert page.count('role="img"') == 1
    assert page.count("<tr>") == 1 + len(shown.table)
    assert "<td>n2-s1</td><td>link</td><td>down</td>" in page


def test_the_static_picture_follows_the_page_unless_told() -> None:
    assert "--jp-content-font-color1" in svg(network())
    assert "color:#e6e6e6" in svg(network(), dark=True)
    assert "background:#ffffff" in svg(network(), dark=False)


def test_places_may_be_given() -> None:
    graph = nx.Graph([("a", "b")])
    assert "translate(732,34)" in svg(graph, positions={"a": (1, 1), "b": (0, 0)})
    assert svg(graph, positions={"a": (1, 1)})  # b is new


@pytest.mark.parametrize("guests", [1, 3, 20, 60, 300])
def test_no_label_is_outside_the_picture_or_on_another(guests: int) -> None:
    drawn = drawing(network(guests), "title")
    labels, size = drawn.labels
    assert size >= 8
    for label in labels:
        left, top, right, bottom = label.box
        assert 0 <= left < right <= drawn.width
        assert 30 <= top < bottom <= drawn.height
    for number, one in enumerate(labels):
        for other in labels[:number]:
            apart = one.box[0] >= other.box[2] or other.box[0] >= one.box[2]
            assert apart or one.box[1] >= other.box[3] or other.box[1] >= one.box[3], (one.name, other.name)


@pytest.mark.parametrize("guests", [1, 3, 20, 60])
def test_all_names_are_shown_where_there_is_room(guests: int) -> None:
    assert len(drawing(network(guests)).labels[0]) == guests + 1


def test_sizes_shrink_in_a_crowd() -> None:
    few, many, crowd = (drawing(network(guests)) for guests in (3, 60, 300))
    assert few.marker > many.marker > crowd.marker >= 4
    assert few.labels[1] > crowd.labels[1] >= 8
    assert few.line > crowd.line


def test_links_end_at_the_outline_of_hollow_nodes() -> None:
    drawn = drawing(network())
    off = next(link for link in drawn.links if link.a.name == "n3")
    running = next(link for link in drawn.links if link.a.name == "n1")
    assert drawn.ends(off)[0] != (off.a.x, off.a.y)
    assert drawn.ends(running)[0] == (running.a.x, running.a.y)


# --- what can be drawn ------------------------------------------------------------------------------------------------
def test_an_empty_topology_says_that_nothing_is_running() -> None:
    empty = figure(nx.Graph(), "Before")
    assert repr(empty) == "figure: nothing is running"
    assert empty.alt == "Before: Nothing is running."
    assert "nothing is running" in empty.svg()
    assert empty._repr_mimebundle_()[PLOTLY]["layout"]["annotations"][0]["text"] == "nothing is running"
    assert empty.table == []


def test_a_lab_a_network_and_a_topology_have_a_graph() -> None:
    graph = network()
    lab, topology = SimpleNamespace(topology=graph), SimpleNamespace(graph=graph)
    for source in (lab, topology, SimpleNamespace(topology=topology)):
        assert repr(figure(source)) == repr(figure(graph))


def test_anything_else_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Example: figure\(lab\)"):
        figure(42)


def test_names_need_not_be_text_and_links_may_have_a_direction() -> None:
    assert repr(figure(nx.DiGraph([(1, 2), (2, 1)]))) == "figure: 2 nodes, 1 link"


# --- the same again, quickly, on disk ---------------------------------------------------------------------------------
def test_each_run_gives_the_same_bytes(shown: Figure) -> None:
    assert json.dumps(shown._repr_mimebundle_()) == json.dumps(figure(network(), "Four machines")._repr_mimebundle_())


def test_300_nodes_are_drawn_in_a_moment() -> None:
    graph = network(300)
    figure(network(1))._repr_mimebundle_()  # plotly is loaded once
    before = time.process_time()
    json.dumps(figure(graph)._repr_mimebundle_())
    assert time.process_time() - before < 0.3  # 0.06 s on an idle computer


def test_a_figure_on_disk(shown: Figure, tmp_path: Path) -> None:
    assert ElementTree.parse(shown.save_svg(tmp_path / "a.svg")).getroot().tag == f"{NS}svg"
    page = shown.save_html(str(tmp_path / "a.html")).read_text()
    assert len(page) > 4_000_000
    assert "cdn.plot.ly" not in page.partition("</script>")[0][-2000:]
    assert shown.alt in page


def test_a_png_needs_kaleido_and_says_how_to_get_it(
    shown: Figure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ValueError("Image export using the kaleido engine requires the Kaleido package")

    monkeypatch.setattr("plotly.graph_objects.Figure.write_image", missing)
    with pytest.raises(UsageError, match=r'pip install "cloudlab\[export\]"'):
        shown.save_png(tmp_path / "a.png")


def test_a_figure_needs_neither_numpy_nor_scipy() -> None:
    code = "import sys, networkx as nx\nfrom cloudlab import figure\nfigure(nx.petersen_graph())._repr_mimebundle_()\n"
    code += "print([name for name in ('numpy', 'scipy', 'pandas') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_figure_of_what_lives_has_no_counters() -> None:
    class Lab:
        topology = nx.Graph()

    Lab.topology.add_node("s1", kind="switch", state="running", learned=3)
    Lab.topology.add_edge("n1", "s1", state="up", frames=7, octets=420, loss=0.5)
    assert [row["details"] for row in figure(Lab()).table] == ["", "", "loss 50 %"]
    assert Lab.topology.edges["n1", "s1"]["frames"] == 7


# --- containers in their machines -------------------------------------------------------------------------------------
@pytest.fixture
def contained() -> nx.Graph[str]:
    graph: nx.Graph[str] = nx.Graph()
    graph.add_node("n1", kind="machine", state="running")
    graph.add_node("s1", kind="switch", state="running")
    graph.add_edge("n1", "s1", state="up")
    for name, state in (("n1/web", "running"), ("n1/db", "paused")):
        graph.add_node(name, kind="container", state=state, image="busybox", address="")
        graph.add_edge("n1", name, kind="inside")
    return graph


def test_a_container_hangs_on_its_machine_by_a_line_that_is_no_link(contained: nx.Graph[str]) -> None:
    shown = figure(contained)
    assert repr(shown) == "figure: 1 machine, 2 containers, 1 switch, 1 link; n1/db is paused"
    assert shown.alt == "A network of 1 machine, 2 containers, 1 switch, 1 link. n1/db is paused."
    assert {"name": "n1-n1/web", "kind": "inside", "state": "", "details": ""} in shown.table
    lines = {trace["name"]: trace for trace in shown._spec()["data"] if trace["mode"] == "lines"}
    assert set(lines) == {"inside", "link, up"}
    assert lines["inside"]["line"]["dash"] == "dot"


def test_when_all_containers_run_all_is_well(contained: nx.Graph[str]) -> None:
    contained.nodes["n1/db"]["state"] = "running"
    assert figure(contained).alt.endswith("Everything is running.")
