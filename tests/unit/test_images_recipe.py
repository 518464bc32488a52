"""A recipe is data, and one that is ill-formed says where and how."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudlab.errors import UsageError
from cloudlab.images import find_recipe, recipe_names

GOOD = """
title = "small"
modules = ["overlay"]
boot_modules = ["virtio_net", "?pvpanic"]
[kernel]
debian = "linux-image-cloud-amd64"
[take]
bash = ["bash"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLOUDLAB_RECIPES", str(tmp_path))
    place = tmp_path / "small"
    place.mkdir()
    (place / "recipe.toml").write_text(GOOD)
    return place


def test_the_recipes_of_this_project_are_well_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUDLAB_RECIPES", raising=False)
    assert "node" in recipe_names()
    for name in recipe_names():
        recipe = find_recipe(name)
        assert "agent" in [source.stem for source in recipe.sources] or name != "node"
        assert not recipe.bootable or {"debian", "ubuntu"} <= set(recipe.kernel)
        assert (recipe.directory / "README.md").is_file()


ROOT = """
title = "a root"
dependencies = []
[take]
busybox-static = ["busybox"]
[joined]
"etc/all" = ["usr/share/parts/*"]
"""


def test_a_recipe_without_a_kernel_is_of_a_root_for_containers(folder: Path) -> None:
    assert find_recipe("small").bootable
    (folder / "recipe.toml").write_text(ROOT)
    recipe = find_recipe("small")
    assert not recipe.bootable
    assert (recipe.modules, recipe.boot_modules, recipe.append) == ((), (), "")
    assert recipe.joined == {"etc/all": ("usr/share/parts/*",)}


@pytest.mark.parametrize("line", ['modules = ["overlay"]', "boot_modules = []", 'append = "quiet"'])
def test_what_only_a_kernel_understands_is_a_mistake_without_one(folder: Path, line: str) -> None:
    (folder / "recipe.toml").write_text(f"{line}\n{ROOT}")
    with pytest.raises(UsageError, match=rf"unknown key {line.split(maxsplit=1)[0]}, in a recipe without \[kernel\]"):
        find_recipe("small")


def test_a_recipe_says_what_to_take(folder: Path) -> None:
    recipe = find_recipe("small")
    assert recipe.take == {"bash": ("bash",)}
    assert recipe.boot_modules == ("virtio_net", "?pvpanic")
    assert (recipe.skip, recipe.links, recipe.append, recipe.dependencies) == ((), {}, "", ("*",))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("title = ", "Invalid value"),
        (GOOD.replace("title", "titel"), "KeyError: 'title'"),
        ('skpi = ["a"]\n' + GOOD, "unknown key skpi"),
        (GOOD.replace('["overlay"]', '"overlay"'), "'overlay' is not a list of words"),
        (GOOD.replace('bash = ["bash"]', "bash = [1]"), "not a list of words"),
        (GOOD.replace("[take]", "[[take]]"), "not a table"),
        (GOOD.replace('boot_modules = ["virtio_net", "?pvpanic"]', ""), "KeyError: 'boot_modules'"),
        (GOOD + '[joined]\n"etc/all" = "x"\n', "'x' is not a list of words"),
    ],
)
def test_an_ill_formed_recipe_names_its_file_and_what_is_wrong(folder: Path, text: str, complaint: str) -> None:
    (folder / "recipe.toml").write_text(text)
    with pytest.raises(UsageError, match=complaint) as caught:
        find_recipe("small")
    assert str(folder / "recipe.toml") in caught.value.problem


@pytest.mark.parametrize("name", ["nothing", "", ".", "../small", "small/"])
def test_an_unknown_recipe_says_which_there_are(folder: Path, name: str) -> None:
    with pytest.raises(UsageError, match="Allowed: small"):
        find_recipe(name)


def test_the_fingerprint_changes_with_anything_that_goes_into_the_image(folder: Path) -> None:
    seen = {find_recipe("small").fingerprint()}
    (folder / "files" / "etc").mkdir(parents=True)
    changes = {"agent.c": "int x;", "recipe.lock": "[debian-12]", "files/init": "#!", "files/etc/motd": "hello"}
    for name, text in changes.items():
        (folder / name).write_text(text)
        seen.add(find_recipe("small").fingerprint())
    (folder / "files/init").chmod(0o755)
    seen.add(find_recipe("small").fingerprint())
    assert len(seen) == 6


def test_the_fingerprint_depends_on_no_umask_and_no_remark(folder: Path) -> None:
    (folder / "files").mkdir()
    init = folder / "files" / "init"
    init.write_text("#!")
    init.chmod(0o755)
    before = find_recipe("small").fingerprint()
    init.chmod(0o700)
    (folder / "README.md").write_text("words")
    assert find_recipe("small").fingerprint() == before


@pytest.mark.parametrize(("table", "separator", "count"), [("passwd", ":", 7), ("group", ":", 4), ("fstab", None, 6)])
def test_each_line_of_the_nodes_tables_has_the_fields_of_its_manual_page(
    table: str, separator: str | None, count: int
) -> None:
    text = (find_recipe("node").directory / "files" / "etc" / table).read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert {len(line.split(separator)) for line in lines} == {count}
    names = [line.split(separator)[0] for line in lines]
    assert len(set(names)) == len(names)
