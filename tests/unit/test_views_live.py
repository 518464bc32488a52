"""The live view: what it tells a browser, and when its thread ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import networkx as nx
import pytest

from cloudlab import UsageError, live
from cloudlab.views.drawing import drawing
from cloudlab.views.layout import positions
from cloudlab.views.live import Live, Scene, describe, difference, octets, per_second, width
from cloudlab.views.widget import Watching

Eventually = Callable[[Callable[[], bool], float], None]


def star(machines: int = 4) -> nx.Graph[str]:
    graph: nx.Graph[str] = nx.Graph()
    graph.add_node("s1", kind="switch")
    for number in range(1, machines + 1):
        name = f"n{number}"
        graph.add_node(
            name, kind="machine", state="running", address=f"10.0.0.{number}", mac=f"52:54:00:00:00:{number:02x}"
        )
        graph.add_edge(name, "s1", state="up", octets=0, frames=0)
    return graph


def told(graph: nx.Graph[str]) -> dict[str, Any]:
    seen = drawing(graph, "", dict.fromkeys(graph, (0.5, 0.5)))
    return describe(seen, Scene("", seen.nodes, seen.links), {})


class Source:
    """What `live` needs of a lab."""

    def __init__(self, graph: nx.Graph[str]) -> None:
        self.topology, self.closed = graph, False


class Failing(Source):
    """One whose graph can't be read any more after the first time."""

    looked = 0

    @property
    def topology(self) -> nx.Graph[str]:
        self.looked += 1
        if self.looked > 2:
            raise RuntimeError("dictionary changed size during iteration")
        return star()

    @topology.setter
    def topology(self, graph: nx.Graph[str]) -> None:
        pass


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Live, "_period_s", 0.01)
    monkeypatch.setattr("cloudlab.views.widget._GRACE_S", 0.05)


@pytest.fixture
def source() -> Source:
    return Source(star())


@pytest.fixture
def view(source: Source, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    view = live(source)
    yield view
    view.close()


@pytest.fixture
def messages(view: Live, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the view says to the browser from now on."""
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(view, "send", sent.append)
    return sent


# --- the difference ---------------------------------------------------------------------------------------------------
def test_nothing_is_told_when_nothing_has_changed() -> None:
    assert difference(told(star()), told(star())) == {}


def test_of_a_crash_only_the_fields_that_change_are_told() -> None:
    graph = star()
    graph.nodes["n2"]["state"] = "crashed"
    change = difference(told(star()), told(graph))
    assert change["nodes"].keys() == {"n2"}
    assert change["nodes"]["n2"]["state"] == "crashed"
    assert {"kind", "path", "details", "x", "y"}.isdisjoint(change["nodes"]["n2"])
    assert change["text"] == "3 machines running; n2 is crashed"
    assert "links" not in change


def test_a_crash_is_told_by_more_than_colour() -> None:
    graph = star()
    graph.nodes["n2"]["state"] = "crashed"
    before, after = told(star())["nodes"]["n2"], told(graph)["nodes"]["n2"]
    assert (before["solid"], before["sign"]) != (after["solid"], after["sign"])


def test_a_new_node_comes_with_all_its_fields() -> None:
    change = difference(told(star(3)), told(star(4)))
    assert change["nodes"] == {"n4": told(star(4))["nodes"]["n4"]}
    assert change["links"].keys() == {"n4-s1"}


def test_what_is_gone_is_named() -> None:
    change = difference(told(star(4)), told(star(3)))
    assert change["gone"] == {"nodes": ["n4"], "links": ["n4-s1"]}


def test_a_cut_link_is_told() -> None:
    graph = star()
    graph.edges["n2", "s1"]["state"] = "down"
    change = difference(told(star()), told(graph))
    assert change["links"].keys() == {"n2-s1"}
    assert change["links"]["n2-s1"]["sign"]
    assert change["text"] == "4 machines running; n2-s1 is down"


def test_applying_a_difference_gives_the_new_picture() -> None:
    old, new = told(star(3)), told(star(4))
    new["nodes"]["n1"]["state"] = "paused"
    change = difference(old, new)
    for part in ("nodes", "links"):
        for name, fields in change.get(part, {}).items():
            old[part].setdefault(name, {}).update(fields)
    assert old["nodes"] == new["nodes"]
    assert old["links"] == new["links"]


# --- words ------------------------------------------------------------------------------------------------------------
def test_where_nothing_has_a_state_the_words_count_what_there_is() -> None:
    graph: nx.Graph[str] = nx.Graph()
    assert told(graph)["text"] == "nothing is running"
    graph.add_node("s1", kind="switch")
    assert told(graph)["text"] == "1 switch"


# --- traffic ----------------------------------------------------------------------------------------------------------
def test_links_that_count_nothing_have_no_traffic() -> None:
    graph = star(2)
    del graph.edges["n1", "s1"]["octets"]
    assert octets(drawing(graph), graph) == {"n2-s1": 0}


def test_traffic_is_the_difference_of_two_looks_at_the_counters() -> None:
    assert per_second({"a": 100, "b": 500, "c": 9}, {"a": 350, "b": 20, "d": 7}, 0.25) == {"a": 1000, "b": 0, "d": 0}


def test_a_link_gets_wider_by_the_same_for_each_tenfold_of_traffic() -> None:
    assert width(0, 2) == 2
    assert width(5e6, 2) - width(5e5, 2) == pytest.approx(width(5e5, 2) - width(5e4, 2), abs=0.11)


# --- the widget -------------------------------------------------------------------------------------------------------
def test_a_change_is_told_by_itself(
    view: Live, source: Source, messages: list[dict[str, Any]], eventually: Eventually
) -> None:
    source.topology.nodes["n2"]["state"] = "crashed"
    eventually(lambda: bool(messages), 2)
    assert messages[0]["nodes"]["n2"]["state"] == "crashed"
    assert view.text == "3 machines running; n2 is crashed"


def test_traffic_comes_and_goes(source: Source, messages: list[dict[str, Any]], eventually: Eventually) -> None:
    source.topology.edges["n2", "s1"]["octets"] = 100_000
    eventually(lambda: len(messages) >= 2, 2)
    flows = [message["links"]["n2-s1"]["flow"] for message in messages]
    assert flows[0].endswith("/s")
    assert flows[-1] == ""


def test_new_viewers_get_the_picture_as_it_is(view: Live, source: Source, eventually: Eventually) -> None:
    source.topology.nodes["n2"]["state"] = "crashed"
    eventually(lambda: view.text.endswith("crashed"), 2)
    assert view.get_state("picture")["picture"]["nodes"]["n2"]["state"] == "crashed"


def test_who_missed_a_change_gets_all(view: Live, messages: list[dict[str, Any]]) -> None:
    view._hear(view, {"here": -1}, [])
    assert messages[0]["picture"]["nodes"].keys() == {"s1", "n1", "n2", "n3", "n4"}
    view._hear(view, {"here": messages[0]["picture"]["serial"]}, [])
    assert len(messages) == 1


def test_places_are_found_anew_when_much_has_been_added(view: Live, source: Source, eventually: Eventually) -> None:
    source.topology = star(9)
    eventually(lambda: "n9" in view._shown["nodes"], 2)
    assert view._places == positions(star(9))


def test_places_stay_when_one_more_node_comes(view: Live, source: Source, eventually: Eventually) -> None:
    before = dict(view._places)
    source.topology.add_node("n5", kind="machine", state="running")
    eventually(lambda: "n5" in view._shown["nodes"], 2)
    assert {name: view._places[name] for name in before} == before


# --- the end of the thread --------------------------------------------------------------------------------------------
def test_the_thread_ends_when_the_view_is_closed(view: Live) -> None:
    thread = view._thread
    assert thread is not None
    assert thread.daemon
    view.close()
    assert not thread.is_alive()


def test_the_thread_ends_when_the_lab_is_closed(view: Live, source: Source, eventually: Eventually) -> None:
    with view._turn:
        source.topology.nodes["n2"]["state"] = "off"
        source.closed = True
    eventually(lambda: not view.following, 2)
    assert view.text == "3 machines running; n2 is off"
    assert view._whole()["ended"] == "this lab is closed"


def test_the_thread_ends_when_the_last_viewer_goes_and_comes_back_with_the_next(
    view: Live, messages: list[dict[str, Any]], eventually: Eventually
) -> None:
    view._hear(view, {"gone": True}, [])
    assert {"who": True} in messages
    eventually(lambda: not view.following, 2)
    view._hear(view, {"here": 0}, [])
    assert view.following


def test_the_thread_goes_on_while_another_viewer_is_there(view: Live, messages: list[dict[str, Any]]) -> None:
    view._hear(view, {"gone": True}, [])
    view._hear(view, {"here": 0}, [])
    assert not view._stopping.wait(0.2)
    assert view.following


def test_stop_is_for_good(view: Live) -> None:
    view.stop()
    view._hear(view, {"here": 0}, [])
    assert not view.following
    assert view._whole()["ended"] == "stopped"


def test_a_look_that_fails_again_and_again_ends_in_words_not_in_an_error(eventually: Eventually) -> None:
    raised = []
    threading.excepthook, before = raised.append, threading.excepthook
    try:
        view = live(Failing(star()))
        eventually(lambda: not view.following, 2)
        assert view._whole()["ended"] == "stopped, because looking failed: dictionary changed size during iteration"
    finally:
        threading.excepthook = before
    assert raised == []


def test_only_what_has_a_topology_can_be_followed() -> None:
    with pytest.raises(UsageError, match=r"live\(lab\)"):
        live(7)  # type: ignore[arg-type]


def test_without_a_kernel_there_is_a_picture_and_words(view: Live) -> None:
    data, _ = view._repr_mimebundle_()
    assert data["text/plain"] == repr(view) == "<live view of 4 machines, 1 switch, 4 links>"
    assert "<svg" in data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in data


def test_every_view_has_a_thread_of_its_own_and_leaves_none(source: Source) -> None:
    views = [live(source) for _ in range(3)]
    mine = {view._thread for view in views}
    assert len(mine) == 3
    for view in views:
        view.stop()
    assert not mine & set(threading.enumerate())
    assert all(isinstance(view, Watching) for view in views)


def test_a_line_into_a_machine_is_called_inside_and_no_link() -> None:
    graph: nx.Graph[str] = nx.Graph()
    graph.add_edge("n1", "n1/web", kind="inside")
    graph.add_edge("n1", "s1", state="up")
    seen = drawing(graph)
    told = describe(seen, seen, {})["links"]
    assert (told["n1-n1/web"]["kind"], told["n1-n1/web"]["state"]) == ("", "inside")
    assert (told["n1-s1"]["kind"], told["n1-s1"]["state"]) == ("link", "up")
