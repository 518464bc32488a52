"""The store: an OCI image layout in which everything has its digest as its name, whoever is killed while writing to it."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from cloudlab.containers.registry import Config, Descriptor, Store
from cloudlab.containers.registry.blobs import Layer
from cloudlab.containers.registry.image import CONFIG, INDEX, MANIFEST, encoded, read_manifest
from cloudlab.containers.registry.names import Reference, digest_of, parse_reference
from cloudlab.errors import UsageError

NOTHING = "sha256:" + "0" * 64


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def add_layer(store: Store, name: str, data: bytes) -> Layer:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        header = tarfile.TarInfo(name)
        header.size = len(data)
        archive.addfile(header, io.BytesIO(data))
    with store.layer_writer() as writer:
        writer.write(out.getvalue())
        return writer.commit()


def add_image(store: Store, reference: str, *names: str) -> None:
    layers = [add_layer(store, name, name.encode() * 100) for name in names]
    config = Config(diff_ids=tuple(layer.diff_id for layer in layers))
    store.add_image(config, tuple(layer.descriptor for layer in layers), reference)


def require_sound(store: Store) -> None:
    """Every blob is what its name says, and every name leads to an image that is all here."""
    for path in (store.directory / "blobs" / "sha256").iterdir():
        assert digest_of(path.read_bytes()) == f"sha256:{path.name}"
    for image in store.images():
        assert all(store.has(layer.digest) for layer in image.layers)


# --- names ---


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("web", Reference("web", "latest")),
        ("web:1", Reference("web", "1")),
        ("team/web:1", Reference("team/web", "1")),
        ("localhost/web", Reference("web", "latest", host="localhost")),
        ("registry:5000/web:1", Reference("web", "1", host="registry:5000")),
        (f"registry:5000/team/web@{NOTHING}", Reference("team/web", "", NOTHING, "registry:5000")),
        (f"web:1@{NOTHING}", Reference("web", "1", NOTHING)),
    ],
)
def test_a_name_is_a_registry_a_repository_and_a_tag_or_a_digest(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    ["", "Web", "web:", "web:a b", "web@", "web@sha256:12", "../web", "/web", "web/", "a//b", "web:1:2", "-x", "web\n"],
)
def test_what_is_no_name_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="Example: web:1"):
        parse_reference(text)


# --- blobs ---


def test_a_blob_is_called_by_its_digest_and_is_there_once(store: Store) -> None:
    digest = store.add_blob(b"hello")
    assert store.add_blob(io.BytesIO(b"hello")) == digest == digest_of(b"hello")
    with store.open_blob(digest) as file:
        assert file.read() == b"hello"
    assert store.size() == 5


def test_a_blob_that_is_not_what_was_announced_leaves_nothing(store: Store) -> None:
    with pytest.raises(UsageError, match=f"announced as {NOTHING}"):
        store.add_blob(b"hello", digest=NOTHING)
    with pytest.raises(UsageError, match="of 6 bytes"):
        store.add_blob(b"hello", size=6)
    assert store.size() == 0
    assert not list((store.directory / "tmp").iterdir())


def test_a_writer_that_is_not_committed_leaves_nothing(store: Store) -> None:
    with store.writer() as writer:
        writer.write(b"half")
    assert not list((store.directory / "tmp").iterdir())


def test_a_blob_that_is_not_here_is_a_wrong_call(store: Store) -> None:
    assert not store.has(NOTHING)
    with pytest.raises(UsageError, match="There is no blob"):
        store.open_blob(NOTHING)
    with pytest.raises(UsageError, match="is not a digest"):
        store.has("../../etc/passwd")


def test_the_same_tar_is_the_same_layer(store: Store) -> None:
    assert add_layer(store, "a", b"x") == add_layer(store, "a", b"x")


# --- images ---


def test_an_image_is_found_by_name_by_tag_and_by_digest(store: Store) -> None:
    add_image(store, "web", "a", "b")
    image = store.image("web")
    assert image.name == "web:latest"
    assert store.image("web:latest") == image
    assert store.image(f"web@{image.digest}").layers == image.layers
    assert (store.config("web").architecture, store.config("web").os) == ("amd64", "linux")
    assert [layer.digest for layer in store.layers("web")] == [layer.digest for layer in image.layers]


def test_an_unknown_name_is_answered_with_the_known_ones(store: Store) -> None:
    add_image(store, "web:1", "a")
    with pytest.raises(UsageError, match="Allowed: web:1"):
        store.image("db")


def test_the_layout_is_the_one_of_the_specification(store: Store) -> None:
    add_image(store, "web:1", "a")
    assert json.loads((store.directory / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((store.directory / "index.json").read_text())
    [manifest] = index["manifests"]
    assert (index["schemaVersion"], index["mediaType"]) == (2, INDEX)
    assert manifest["mediaType"] == MANIFEST
    assert manifest["annotations"] == {"org.opencontainers.image.ref.name": "web:1"}
    document = json.loads((store.directory / "blobs" / manifest["digest"].replace(":", "/")).read_text())
    assert document["config"]["mediaType"] == CONFIG


def test_a_tag_moves_and_goes(store: Store) -> None:
    add_image(store, "web:1", "a")
    add_image(store, "web:2", "b")
    store.tag("web:2", "web:1")
    assert store.image("web:1").digest == store.image("web:2").digest
    store.untag("web:2")
    assert [image.name for image in store.images()] == ["web:1"]
    with pytest.raises(UsageError, match="There is no image"):
        store.untag("web:2")


def test_images_of_docker_and_for_many_platforms_are_read(store: Store) -> None:
    add_image(store, "web:1", "a")
    document = json.loads(store.read_document(store.image("web:1").digest))
    document["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json"
    document["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    data = encoded(document)
    docker = Descriptor(
        document["mediaType"], store.add_blob(data), len(data), platform={"architecture": "amd64", "os": "linux"}
    )
    other = Descriptor(MANIFEST, NOTHING, 5, platform={"architecture": "arm64", "os": "linux"})
    index = encoded({"schemaVersion": 2, "mediaType": INDEX, "manifests": [other.to_json(), docker.to_json()]})
    store.tag(Descriptor(INDEX, store.add_blob(index), len(index)), "many:1")
    assert store.image("many:1").digest == docker.digest


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"config": 5}',
        b'{"config": {"digest": "md5:0", "size": 1}}',
        b'{"config": {"digest": "%s", "size": -1}}' % NOTHING.encode(),
        b'{"config": {"digest": "%s", "size": 1}, "layers": 7}' % NOTHING.encode(),
        b'{"mediaType": "text/plain", "config": {}}',
        b"[" * 100_000,
    ],
)
def test_a_manifest_that_is_none_is_refused(document: bytes) -> None:
    with pytest.raises(UsageError, match="OCI image specification"):
        read_manifest(document, "a manifest")


# --- garbage ---


def test_garbage_is_what_no_name_leads_to(store: Store) -> None:
    add_image(store, "one", "shared", "a")
    add_image(store, "two", "shared", "b")
    before = store.size()
    assert store.garbage_collect(spare_s=0) == 0
    store.untag("two")
    freed = store.garbage_collect(spare_s=0)
    assert freed > 0
    assert store.size() == before - freed
    require_sound(store)
    assert len(store.image("one").layers) == 2


def test_what_somebody_is_about_to_name_is_no_garbage_yet(store: Store) -> None:
    store.add_blob(b"in the middle of a pull")
    assert store.garbage_collect() == 0
    old = store.blob_path(store.add_blob(b"old"))
    os.utime(old, (0, 0))
    assert store.has(digest_of(b"old"))  # asked for: about to be used
    assert store.garbage_collect() == 0
    os.utime(old, (0, 0))
    assert store.garbage_collect() == 3


def test_a_step_of_a_build_is_remembered_as_long_as_its_layer_is_here(store: Store) -> None:
    layer = add_layer(store, "a", b"x")
    store.remember("key", layer)
    assert store.recall("key") == layer
    assert store.recall("other") is None
    store.garbage_collect(spare_s=0)
    assert store.recall("key") is None
    assert not list((store.directory / "cache").iterdir())


# --- many writers, and dead ones ---


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    def write(number: int) -> None:
        own = Store(tmp_path)
        for image in range(5):
            add_image(own, f"web{number}:{image}", "shared", f"own{number}")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Store(tmp_path).images()) == 20
    require_sound(Store(tmp_path))


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_containers_registry_store import Store, add_image
store = Store(sys.argv[1])
print("ready", flush=True)
for number in range(100000):
    add_image(store, f"web:{number % 7}", "shared" * 3000, f"own{number}")
    if number % 5 == 0:
        store.garbage_collect(spare_s=1)
"""


def test_writers_that_are_killed_leave_a_sound_store(tmp_path: Path) -> None:
    chance = random.Random(4)
    store = Store(tmp_path / "store")
    for _ in range(15):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(store.directory), str(Path(__file__).parent)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout
            assert writer.stdout.readline() == b"ready\n"
            until = time.monotonic() + chance.uniform(0.0, 0.1)
            while time.monotonic() < until:  # a random moment is what is wanted, not an event
                os.sched_yield()
            writer.kill()
        require_sound(store)
    add_image(store, "after:1", "x")
    assert store.image("after:1").layers
    store.garbage_collect(spare_s=0)
    assert not list((store.directory / "tmp").iterdir())
    require_sound(store)
