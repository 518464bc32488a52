"""The namespace matrix: which process is of which container, what is said of it, and that names can't break the page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cloudlab import UsageError, namespace_matrix
from cloudlab.containers.namespaces import KINDS, Namespace, ProcessInfo, matrix_of
from cloudlab.machines.result import Result
from cloudlab.views import namespaces
from cloudlab.views.namespaces import NamespaceMatrix, owners_of

HOST = 4026531836


def process(
    pid: int, command: str, *, ppid: int = 1, space: int = 0, inside: tuple[int, ...] = (), **more: int
) -> ProcessInfo:
    """A process in the namespaces of number `space`: 0 is the guest's own, and `more` are single kinds."""
    spaces = {kind: Namespace(kind, HOST + more.get(kind, space)) for kind in KINDS}
    return ProcessInfo(pid, ppid, (pid, *inside), command.split(maxsplit=1)[0], command, 0, "S", spaces, ())


INIT = process(1, "init", ppid=0)
MONITOR = process(20, "monitor", mnt=5)
WEB = process(21, "httpd -f", ppid=20, space=1, inside=(1,))
CHILD = process(22, "cgi", ppid=21, space=1, inside=(2,))
NESTED = process(23, "unshared", ppid=22, space=2, inside=(3, 1))
EXECUTED = process(30, "sh", ppid=9, space=1, inside=(9,))
DB = process(40, "db", ppid=39, space=3, inside=(1,))
ALL = [INIT, MONITOR, WEB, CHILD, NESTED, EXECUTED, DB]


class Guest:
    """What `namespace_matrix` needs of a guest: here it only says which containers there are."""

    name = "n1"

    def run(self, command: object, *, input: bytes = b"", timeout_s: float = 60) -> Result:
        return Result("", 0, b"21 web\n40 db\n", b"", 0.0)


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Guest:
    kernel = ProcessInfo(2, 0, (2,), "kthreadd", "[kthreadd]", 0, "S", INIT.namespaces, (), kernel=True)
    zombie = ProcessInfo(50, 1, (50,), "dead", "[dead]", 0, "Z", {}, ())
    monkeypatch.setattr(namespaces, "processes", lambda _: [*ALL, kernel, zombie])
    return Guest()


def matrix(found: list[ProcessInfo], owners: Mapping[int, str]) -> NamespaceMatrix:
    return NamespaceMatrix("n1", matrix_of(found), owners)


def test_a_process_is_of_the_container_whose_pid_namespace_it_is_in_wherever_it_was_born() -> None:
    owners = owners_of(ALL, {21: "web", 40: "db"})
    assert owners == {21: "web", 22: "web", 23: "web", 30: "web", 40: "db"}


def test_a_container_that_shares_the_guests_pid_namespace_has_only_its_own_children() -> None:
    sharing, child = process(60, "tool", mnt=7), process(61, "child", ppid=60, mnt=7)
    assert owners_of([INIT, MONITOR, sharing, child], {60: "tools"}) == {60: "tools", 61: "tools"}


def test_all_processes_are_shown_but_the_kernels_and_the_dead_and_containers_stand_together(guest: Guest) -> None:
    text = str(namespace_matrix(guest))
    assert text.splitlines() == [
        "namespaces of n1: 7 processes, 2 containers in 5 mnt, 4 uts, 4 ipc, 4 pid, 4 net, 4 user, 4 cgroup, 4 time",
        "CONTAINER  PROCESS   mnt  uts  ipc  pid  net  user  cgroup  time",
        "-          init      a    a    a    a    a    a     a       a",
        "-          monitor   b    a    a    a    a    a     a       a",
        "db         db        c    b    b    b    b    b     b       b",
        "web        httpd -f  d    c    c    c    c    c     c       c",
        "web        cgi       d    c    c    c    c    c     c       c",
        "web        unshared  e    d    d    d    d    d     d       d",
        "web        sh        d    c    c    c    c    c     c       c",
    ]


def test_numbers_and_containers_choose_what_is_shown(guest: Guest) -> None:
    class Db:
        name = "db"

    shown = namespace_matrix(guest, [1, Db()])  # type: ignore[list-item]
    assert [row.pid for row in shown.matrix.processes] == [1, 40]
    assert shown.matrix.cells[0][0] == "a"


def test_who_is_not_there_is_named(guest: Guest) -> None:
    class Gone:
        name = "gone"

    with pytest.raises(UsageError, match=r"no process of 99, gone"):
        namespace_matrix(guest, [99, Gone()])  # type: ignore[list-item]


def test_same_letter_same_colour_and_the_first_is_grey() -> None:
    html = matrix([INIT, WEB, DB, EXECUTED], {21: "web", 30: "web", 40: "db"}).html
    looks = re.findall(r'<td style="background:(#\w{6})\w\w[^"]*" title="net:\[(\d+)]">(\w+)<', html)
    assert [letter for *_, letter in looks] == ["a", "b", "c", "b"]
    assert len(set(looks)) == 3
    assert looks[0][0] == "#8A8A8A"


def test_sixty_processes_in_as_many_namespaces_have_letters_of_their_own() -> None:
    found = [process(number, f"p{number}", space=number) for number in range(1, 61)]
    shown = matrix(found, {})
    assert len({cells[3] for cells in shown.matrix.cells}) == 60
    assert shown.matrix.cells[-1][3] == "bh"
    assert shown.html.count("<tr>") == 61


def test_the_table_can_be_walked_through_and_names_are_escaped() -> None:
    evil = process(70, '<script>alert("x")</script> & more', space=4, inside=(1,))
    html = matrix([INIT, evil], {70: "<b>"}).html
    table = ElementTree.fromstring(re.search(r"<table>.*</table>", html)[0])  # type: ignore[index]
    assert "<script>" not in html
    assert [head.text for head in table.iter("th")][:3] == ["container", "process", "PID"]
    assert [row.attrib["scope"] for row in table.findall("./tbody/tr/th")] == ["row", "row"]
    assert table.findtext("caption", "").startswith("namespaces of n1: 2 processes")
    assert all(head.attrib["scope"] == "col" for head in table.findall("./thead/tr/th"))


def test_a_page_of_its_own_needs_nothing(tmp_path: Path) -> None:
    page = matrix([INIT], {}).save_html(tmp_path / "m.html").read_text()
    assert "<script" not in page
    assert "color-scheme" in page


def test_it_is_one_line_in_a_list_and_the_same_each_time() -> None:
    one, other = matrix(ALL, {21: "web"}), matrix(ALL, {21: "web"})
    assert repr(one) == f"<namespaces of n1: {one.alt}>"
    assert one._repr_mimebundle_() == other._repr_mimebundle_()


def test_no_processes_are_no_error() -> None:
    assert str(matrix([], {})).startswith("namespaces of n1: no processes")
