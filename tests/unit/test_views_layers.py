"""The layer stack: which paths are shown, what is said of each, and that names can't break the page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from cloudlab import UsageError
from cloudlab.containers.stack import Kind, Listing
from cloudlab.views.layers import LayerStack

FILE, DIRECTORY, LINK, WHITEOUT, OPAQUE = Kind.FILE, Kind.DIRECTORY, Kind.LINK, Kind.WHITEOUT, Kind.OPAQUE
BASE: Listing = {
    "/etc": DIRECTORY,
    "/etc/motd": FILE,
    "/etc/passwd": FILE,
    "/usr": DIRECTORY,
    "/usr/bin": DIRECTORY,
    "/usr/bin/vi": FILE,
    "/usr/bin/ls": FILE,
    "/bin": LINK,
    "/var": DIRECTORY,
    "/var/log": DIRECTORY,
    "/var/log/old": FILE,
}
INIT: Listing = {"/etc": DIRECTORY, "/etc/hosts": FILE}
UPPER: Listing = {
    "/etc": DIRECTORY,
    "/etc/motd": FILE,
    "/etc/new": FILE,
    "/usr": DIRECTORY,
    "/usr/bin": DIRECTORY,
    "/usr/bin/vi": WHITEOUT,
    "/var": DIRECTORY,
    "/var/log": OPAQUE,
}
LAYERS = {"upper": UPPER, "init": INIT, "base": BASE}


def stack(directory: str = "/", path: str | None = None) -> LayerStack:
    return LayerStack("web", LAYERS, directory, path)


def test_entries_of_the_directory_and_what_differs_below_it_are_shown() -> None:
    assert str(stack()).splitlines() == [
        "layers of web: 3 layers, 14 paths; in upper 1 added, 6 changed, 2 deleted",
        "  upper          read-write: 8 paths, 7 seen, 2 of them hide what is below",
        "  init           read-only: 2 paths, 2 seen",
        "  base           read-only: 11 paths, 7 seen",
        "   PATH          upper             init       base         ANSWERS",
        "   /bin                                       link         base",
        "C  /etc          directory         directory  directory    upper",
        "C  /etc/motd     file                         (file)       upper",
        "A  /etc/new      file                                      upper",
        "C  /usr          directory                    directory    upper",
        "C  /usr/bin      directory                    directory    upper",
        "D  /usr/bin/vi   whiteout                     (file)       nobody",
        "C  /var          directory                    directory    upper",
        "C  /var/log      opaque directory             (directory)  upper",
        "D  /var/log/old                               (file)       nobody",
        "... and 3 more paths further down, of one layer or merged",
    ]


def test_a_directory_shows_all_its_own_entries() -> None:
    rows = [row.path for row in stack("etc/").rows]
    assert rows == ["/etc", "/etc/hosts", "/etc/motd", "/etc/new", "/etc/passwd"]
    assert stack("/etc").hidden == 0


def test_a_path_that_is_asked_for_is_shown_marked_and_explained() -> None:
    shown = stack("/etc", "/usr/bin/ls")
    assert str(shown.answer) == "/usr/bin/ls: base answers: base is the highest layer that has it"
    assert str(shown).endswith(str(shown.answer))
    marked = re.search(r"<tr class=.cl-marked. aria-current=.true.>.*?</tr>", shown.html)
    assert marked is not None
    assert "/usr/bin/ls" in marked[0]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/usr/bin/vi", "nobody answers: upper has a whiteout: it was deleted there"),
        ("/nowhere/at/all", "nobody answers: no layer has it"),
        ("/bin/ls", "nobody answers: /bin is a symbolic link, which is followed before layers are asked"),
    ],
)
def test_why_nobody_answers(path: str, why: str) -> None:
    assert str(stack("/", path).answer) == f"{path}: {why}"


def test_what_nothing_covers_and_nobody_changed_says_so() -> None:
    assert LayerStack("c1", {"upper": {}, "base": BASE}).alt == "2 layers, 12 paths; nothing changed"


def test_a_directory_that_no_layer_has_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"No layer has /nowhere"):
        stack("/nowhere")


def test_the_table_is_one_and_names_are_escaped() -> None:
    html = LayerStack("<i>", {"upper": {}, "<b>": {"/<script>": FILE, "/a & b": FILE}}).html
    assert "<script>" not in html
    assert "<b>&lt;b&gt;</b>" in html
    table = ElementTree.fromstring(re.search(r"<table>.*</table>", html)[0])  # type: ignore[index]
    assert [row.text for row in table.findall("./tbody/tr/th")] == ["/<script>", "/a & b"]


def test_what_is_covered_is_struck_out_and_has_no_colour() -> None:
    row = re.search(r"<tr><td>C changed</td><th[^>]*>/etc/motd</th>.*?</tr>", stack().html)
    assert row is not None
    assert "<s>file</s>" in row[0]
    assert row[0].count("background:") == 1
