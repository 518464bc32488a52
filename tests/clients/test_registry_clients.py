"""Tools of others against our store and our registry: skopeo and umoci read what we write, and we read what they write."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from cloudlab.containers.registry import Image, Registry, Store, build, check, overlay_form, pull, push
from cloudlab.containers.registry.stack import merged


def need(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        shutil.which(program) is None, reason=f"{program} is not installed: apt-get install {program}"
    )


skopeo_only, umoci_only = need("skopeo"), need("umoci")


def run(*words: str | Path) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stderr}"
    return done.stdout


def skopeo(*words: str | Path) -> str:
    return run("skopeo", "--insecure-policy", *words)


class Runner:
    """Pretends to run commands: this one has removed the file gone, emptied the directory old, and made a file."""

    def run(
        self,
        layers: Sequence[str],
        command: Sequence[str],
        environment: Mapping[str, str],
        working_directory: str,
        user: str,
    ) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            gone, old, made = tarfile.TarInfo("./gone"), tarfile.TarInfo("./old"), tarfile.TarInfo("./old/made")
            gone.type, old.type, old.mode = tarfile.CHRTYPE, tarfile.DIRTYPE, 0o755
            old.pax_headers = {"SCHILY.xattr.trusted.overlay.opaque": "y"}
            for header in (gone, old, made):
                archive.addfile(header)
        return out.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def image(store: Store, tmp_path: Path) -> Image:
    context = tmp_path / "context"
    (context / "old").mkdir(parents=True)
    for name in ("gone", "kept", "old/before"):
        (context / name).write_text(name)
    (context / ".containerignore").write_text("Containerfile\n.containerignore\n")
    (context / "Containerfile").write_text(
        'FROM scratch\nCOPY . /\nRUN something\nENV A=1\nLABEL of=us\nCMD ["/kept"]\n'
    )
    return build(store, context, Runner(), tag="web:1")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry") as registry:
        yield registry


@skopeo_only
def test_skopeo_inspects_our_layout(store: Store, image: Image) -> None:
    found = json.loads(skopeo("inspect", f"oci:{store.directory}:web:1"))
    assert found["Digest"] == image.digest
    assert found["Layers"] == [layer.digest for layer in image.layers]
    assert (found["Labels"], found["Env"], found["Architecture"]) == ({"of": "us"}, ["A=1"], "amd64")


@skopeo_only
def test_skopeo_copies_between_our_layout_our_registry_and_its_directory(
    store: Store, image: Image, registry: Registry, tmp_path: Path
) -> None:
    there = f"docker://{registry.address}/team/web:1"
    skopeo("copy", "--dest-tls-verify=false", f"oci:{store.directory}:web:1", there)
    assert pull(Store(tmp_path / "pulled"), f"{registry.address}/team/web:1").digest == image.digest
    skopeo("copy", "--src-tls-verify=false", there, f"dir:{tmp_path / 'dir'}")
    assert {path.name for path in (tmp_path / "dir").iterdir()} >= {each.digest[7:] for each in image.layers}
    skopeo("copy", f"dir:{tmp_path / 'dir'}", f"oci:{tmp_path / 'back'}:web:1")
    back = Store(tmp_path / "back")
    assert back.image("web:1").layers == image.layers
    assert back.config("web:1") == image.config


@skopeo_only
def test_skopeo_pulls_what_we_push_and_lists_it(store: Store, image: Image, registry: Registry, tmp_path: Path) -> None:
    push(store, f"{registry.address}/web:1")
    found = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{registry.address}/web:1"))
    assert (found["Digest"], found["RepoTags"]) == (image.digest, ["1"])
    skopeo(
        "copy", "--src-tls-verify=false", f"docker://{registry.address}/web@{image.digest}", f"oci:{tmp_path / 'o'}:x"
    )
    assert Store(tmp_path / "o").image("x").digest == image.digest


@skopeo_only
def test_skopeo_sends_nothing_twice_and_deletes(store: Store, image: Image, registry: Registry) -> None:
    for name, uploads in (("one", True), ("one", False), ("two", True)):
        registry.requests.clear()
        there = f"docker://{registry.address}/{name}:1"
        skopeo("copy", "--dest-tls-verify=false", f"oci:{store.directory}:web:1", there)
        assert any(line.startswith("PATCH") for line in registry.requests) is uploads
    skopeo("delete", "--tls-verify=false", f"docker://{registry.address}/two:1")
    assert {each.name.partition(":")[0] for each in registry.store.images()} == {"one"}


MEDIA_TYPES = {
    "v2s2 gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "oci gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "oci zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}


@skopeo_only
@pytest.mark.parametrize("written", MEDIA_TYPES)
def test_we_read_what_skopeo_writes(
    store: Store, image: Image, registry: Registry, tmp_path: Path, written: str
) -> None:
    form, pack = written.split()
    there, pulled = f"{registry.address}/web:1", Store(tmp_path / "pulled")
    options = ["--dest-tls-verify=false", "--dest-compress", "--dest-compress-format", pack, "--format", form]
    skopeo("copy", *options, f"oci:{store.directory}:web:1", f"docker://{there}")
    layers = pull(pulled, there).layers
    assert {layer.media_type for layer in layers} == {MEDIA_TYPES[written]}
    for layer, diff_id in zip(layers, image.config.diff_ids, strict=True):
        with pulled.open_blob(layer.digest) as file:
            assert check(file, digest=layer.digest, size=layer.size).diff_id == diff_id


@umoci_only
def test_umoci_unpacks_our_layout(store: Store, image: Image, tmp_path: Path) -> None:
    run("umoci", "unpack", "--rootless", "--image", f"{store.directory}:web:1", tmp_path / "bundle")
    root = tmp_path / "bundle" / "rootfs"
    assert {path.relative_to(root).as_posix() for path in root.rglob("*")} == {"kept", "old", "old/made"}
    assert json.loads((tmp_path / "bundle" / "config.json").read_text())["process"]["args"] == ["/kept"]


@umoci_only
def test_we_read_what_umoci_inserts_and_repacks(store: Store, image: Image, tmp_path: Path) -> None:
    (tmp_path / "extra").write_text("extra")
    layout = f"{store.directory}:web:1"
    run("umoci", "insert", "--rootless", "--image", layout, "--tag", "web:2", tmp_path / "extra", "/srv/extra")
    run("umoci", "insert", "--rootless", "--image", f"{store.directory}:web:2", "--whiteout", "/kept")
    image = store.image("web:2")
    assert set(merged(store, [layer.digest for layer in image.layers])) - {"srv"} == {"old", "old/made", "srv/extra"}
    bundle = tmp_path / "bundle"
    run("umoci", "unpack", "--rootless", "--image", f"{store.directory}:web:2", bundle)
    (bundle / "rootfs" / "old" / "made").unlink()
    (bundle / "rootfs" / "new").write_text("new")
    run("umoci", "repack", "--image", f"{store.directory}:web:3", bundle)
    assert {"new", "srv/extra"} <= set(merged(store, [layer.digest for layer in store.layers("web:3")]))
    assert "old/made" not in merged(store, [layer.digest for layer in store.layers("web:3")])


def test_gnu_tar_unpacks_the_form_for_overlayfs(store: Store, image: Image, tmp_path: Path) -> None:
    if shutil.which("tar") is None:
        pytest.skip("tar is not installed")
    with store.open_blob(image.layers[0].digest) as layer, (tmp_path / "layer.tar").open("wb") as out:
        overlay_form(layer, out, offset=0)
    (tmp_path / "lower").mkdir()
    run("tar", "--no-same-owner", "-xf", tmp_path / "layer.tar", "-C", tmp_path / "lower")
    assert (tmp_path / "lower" / "old" / "before").read_text() == "old/before"
