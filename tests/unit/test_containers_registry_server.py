"""The registry and its client: what goes over the wire, what does not go twice, and what happens when one of them fails."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from cloudlab.containers.registry import Config, Registry, Store, pull, push
from cloudlab.containers.registry.client import _scheme
from cloudlab.containers.registry.image import INDEX, MANIFEST, encoded
from cloudlab.containers.registry.names import digest_of
from cloudlab.errors import MachineError, UsageError

NOTHING = "sha256:" + "0" * 64


def add_image(store: Store, reference: str, *contents: bytes) -> None:
    layers = []
    for number, data in enumerate(contents):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            header = tarfile.TarInfo(f"f{number}")
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
        with store.layer_writer() as writer:
            writer.write(out.getvalue())
            layers.append(writer.commit())
    config = Config(diff_ids=tuple(layer.diff_id for layer in layers), labels={"of": reference})
    store.add_image(config, tuple(layer.descriptor for layer in layers), reference)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "mine")
    add_image(store, "web:1", b"shared" * 1000, b"own" * 1000)
    return store


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry") as registry:
        yield registry


@pytest.fixture
def client(registry: Registry) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{registry.address}", trust_env=False) as client:
        yield client


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["errors"][0]["code"]


# --- push and pull ---


def test_what_is_pushed_can_be_pulled_by_tag_and_by_digest(store: Store, registry: Registry, tmp_path: Path) -> None:
    pushed = push(store, f"{registry.address}/web:1")
    assert pushed.digest == store.image("web:1").digest
    assert len(pushed.sent) == 3
    other = Store(tmp_path / "other")
    for reference in (f"{registry.address}/web:1", f"{registry.address}/web@{pushed.digest}"):
        image = pull(other, reference)
        assert (image.name, image.digest, image.config) == (reference, pushed.digest, store.config("web:1"))
        assert other.image(reference) == image


def test_what_is_there_is_not_sent_again(store: Store, registry: Registry) -> None:
    push(store, f"{registry.address}/web:1")
    registry.requests.clear()
    pushed = push(store, f"{registry.address}/web:1")
    assert (len(pushed.sent), len(pushed.there)) == (0, 3)
    assert not any(line.startswith(("POST", "PATCH")) for line in registry.requests)
    add_image(store, "web:2", b"shared" * 1000, b"new")
    assert len(push(store, f"{registry.address}/web:2").sent) == 2


def test_a_layer_of_another_repository_is_mounted(store: Store, registry: Registry) -> None:
    push(store, f"{registry.address}/web:1")
    store.tag("web:1", f"{registry.address}/web:1")
    store.tag("web:1", "team/copy:1")
    pushed = push(store, f"{registry.address}/team/copy:1")
    assert (len(pushed.sent), len(pushed.mounted)) == (1, 2)  # the configuration is small


def test_a_layer_that_is_here_is_not_fetched_again(store: Store, registry: Registry, tmp_path: Path) -> None:
    add_image(store, "web:2", b"shared" * 1000, b"new")
    push(store, f"{registry.address}/web:1")
    push(store, f"{registry.address}/web:2")
    other = Store(tmp_path / "other")
    pull(other, f"{registry.address}/web:1")
    registry.requests.clear()
    pull(other, f"{registry.address}/web:2")
    assert sum("/blobs/" in line for line in registry.requests) == 2  # the new layer, the configuration


def test_a_store_can_be_served_as_it_is(store: Store, tmp_path: Path) -> None:
    with Registry(store) as registry:
        assert pull(Store(tmp_path / "other"), f"{registry.address}/web:1").digest == store.image("web:1").digest


def test_a_name_that_the_registry_does_not_know(store: Store, registry: Registry, tmp_path: Path) -> None:
    push(store, f"{registry.address}/web:1")
    for name in ("db:1", "web:9", f"web@{NOTHING}"):
        with pytest.raises(UsageError, match=f"Registry {registry.address} has no image {name}"):
            pull(Store(tmp_path / "other"), f"{registry.address}/{name}")


def test_a_name_that_the_store_does_not_know(store: Store, registry: Registry) -> None:
    with pytest.raises(UsageError, match="There is no image 'db:1'"):
        push(store, f"{registry.address}/db:1")


def test_a_name_without_a_registry(store: Store) -> None:
    for verb in (push, pull):
        with pytest.raises(UsageError, match="names no registry"):
            verb(store, "web:1")


def test_a_registry_that_is_not_there(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(MachineError, match="can't be reached"):
        pull(store, f"127.0.0.1:{port}/web:1")
    with pytest.raises(MachineError, match="can't be reached"):
        push(store, f"127.0.0.1:{port}/web:1")


@pytest.mark.parametrize(
    ("host", "scheme"),
    [
        ("localhost:5000", "http"),
        ("127.0.0.1:5000", "http"),
        ("10.0.2.2:5000", "http"),
        ("[::1]:5000", "http"),
        ("11.0.0.1:5000", "https"),
        ("10.example:5000", "https"),
        ("localhost.example", "https"),
    ],
)
def test_without_tls_only_nearby(host: str, scheme: str) -> None:
    assert _scheme(host) == scheme


# --- a registry that lies, or breaks off ---


@contextmanager
def lying(answer: Callable[[str, str], tuple[int, bytes, int]]) -> Iterator[tuple[str, list[str]]]:
    """Serve what `answer` makes of path and range: status, body, and how many bytes of it are sent before the line is cut."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.path.rpartition('/')[2][:15]} {self.headers.get('Range', '')}".strip())
            status, body, sent = answer(self.path, self.headers.get("Range", ""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:sent])

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def document(store: Store, path: str) -> bytes:
    """What an honest registry answers."""
    digest = path.rpartition("/")[2]
    return store.blob_path(digest if ":" in digest else store.image("web:1").digest).read_bytes()


def test_a_blob_with_another_digest_is_not_taken(store: Store, tmp_path: Path) -> None:
    def answer(path: str, _: str) -> tuple[int, bytes, int]:
        data = document(store, path)
        return (200, data, 10**9) if "manifests" in path else (200, b"x" * len(data), 10**9)

    other = Store(tmp_path / "other")
    with lying(answer) as (address, _), pytest.raises(MachineError, match="something else than was asked for"):
        pull(other, f"{address}/web:1")
    assert (other.size(), other.images()) == (0, [])


def test_a_manifest_with_another_digest_is_not_taken(store: Store, tmp_path: Path) -> None:
    with lying(lambda path, _: (200, b"{}", 99)) as (address, _), pytest.raises(MachineError, match="whose digest is"):
        pull(Store(tmp_path / "other"), f"{address}/web@{NOTHING}")


def test_a_blob_larger_than_announced_is_not_read_to_its_end(store: Store, tmp_path: Path) -> None:
    def answer(path: str, _: str) -> tuple[int, bytes, int]:
        return (200, document(store, path) + (b"" if "manifests" in path else bytes(1 << 22)), 10**9)

    with lying(answer) as (address, _), pytest.raises(MachineError, match="gave more"):
        pull(Store(tmp_path / "other"), f"{address}/web:1")


@pytest.mark.parametrize("ranges", [True, False])
def test_a_pull_goes_on_where_the_line_was_cut(store: Store, tmp_path: Path, ranges: bool) -> None:
    cut: set[str] = set()

    def answer(path: str, span: str) -> tuple[int, bytes, int]:
        data = document(store, path)
        if "manifests" in path:
            return 200, data, 10**9
        if path not in cut:
            cut.add(path)
            return 200, data, 20
        start = int(span.removeprefix("bytes=").removesuffix("-")) if span and ranges else 0
        return (206 if start else 200), data[start:], 10**9

    other = Store(tmp_path / "other")
    with lying(answer) as (address, asked):
        assert pull(other, f"{address}/web:1").digest == store.image("web:1").digest
    assert sum("bytes=20-" in line for line in asked) == 3


def test_a_pull_gives_up_when_the_line_is_cut_each_time(store: Store, tmp_path: Path) -> None:
    def answer(path: str, _: str) -> tuple[int, bytes, int]:
        return 200, document(store, path), 10**9 if "manifests" in path else 0

    other = Store(tmp_path / "other")
    with lying(answer) as (address, asked), pytest.raises(MachineError, match=r"broke off .* at byte 0, 3 times"):
        pull(other, f"{address}/web:1")
    assert len(asked) == 4
    assert not list((other.directory / "tmp").iterdir())


@pytest.mark.parametrize(("status", "kind"), [(401, UsageError), (404, UsageError), (500, MachineError)])
def test_what_the_registry_refuses(store: Store, status: int, kind: type[Exception]) -> None:
    with lying(lambda path, _: (status, b"because", 99)) as (address, _), pytest.raises(kind):
        pull(store, f"{address}/web:1")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"schemaVersion": 1}', b'{"manifests": []}', b"x" * (5 << 20)])
def test_a_manifest_that_is_none(store: Store, body: bytes) -> None:
    with lying(lambda path, _: (200, body, 10**9)) as (address, _), pytest.raises((UsageError, MachineError)):
        pull(store, f"{address}/web:1")


PULLER = """
import sys
from cloudlab.containers.registry import Store, pull
print("ready", flush=True)
pull(Store(sys.argv[1]), sys.argv[2], progress=False)
"""


def test_a_pull_that_is_killed_leaves_the_store_sound_and_the_next_one_goes_on(tmp_path: Path) -> None:
    store, other = Store(tmp_path / "mine"), Store(tmp_path / "other")
    add_image(store, "big:1", *(os.urandom(1 << 20) for _ in range(4)))
    began, go_on, first = threading.Event(), threading.Event(), []

    def answer(path: str, _: str) -> tuple[int, bytes, int]:
        digest = path.rpartition("/")[2]
        data = store.blob_path(digest if ":" in digest else store.image("big:1").digest).read_bytes()
        if "blobs" in path:
            first.append(digest)
            if len(first) == 4:  # two layers are there, of the third there will be a half
                began.set()
                go_on.wait(30)
                return 200, data, len(data) // 2
        return 200, data, 10**9

    with lying(answer) as (address, _):
        command = [sys.executable, "-c", PULLER, str(other.directory), f"{address}/big:1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as puller:
            assert began.wait(30)
            puller.send_signal(signal.SIGKILL)
        go_on.set()
        assert other.images() == []
        blobs = list((other.directory / "blobs" / "sha256").iterdir())
        assert len(blobs) == 3
        assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in blobs)
        first.clear()
        first += ["", "", "", ""]
        pull(other, f"{address}/big:1")
        assert len(first) == 6  # the two that were missing
    other.garbage_collect(spare_s=0)
    assert not list((other.directory / "tmp").iterdir())


# --- the API ---


def upload(client: httpx.Client, data: bytes, name: str = "web") -> str:
    digest = digest_of(data)
    assert client.post(f"/v2/{name}/blobs/uploads/", params={"digest": digest}, content=data).status_code == 201
    return digest


def manifest(client: httpx.Client, reference: str = "1", name: str = "web", **more: object) -> str:
    config = upload(client, b"{}", name)
    body = encoded(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
            "layers": [],
            **more,
        }
    )
    reference = reference or digest_of(body)
    answer = client.put(f"/v2/{name}/manifests/{reference}", content=body, headers={"Content-Type": MANIFEST})
    assert answer.status_code == 201, answer.text
    return answer.headers["Docker-Content-Digest"]


def test_this_is_a_registry(client: httpx.Client) -> None:
    answer = client.get("/v2/")
    assert answer.status_code == 200
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


def test_a_blob_in_pieces(client: httpx.Client) -> None:
    place = client.post("/v2/team/web/blobs/uploads/")
    assert place.status_code == 202
    where = place.headers["Location"]
    assert client.patch(where, content=b"hello ", headers={"Content-Range": "0-5"}).headers["Range"] == "0-5"
    wrong = client.patch(where, content=b"x", headers={"Content-Range": "3-3"})
    assert (error(wrong), wrong.headers["Range"]) == ((416, "BLOB_UPLOAD_INVALID"), "0-5")
    status = client.get(where)
    assert (status.status_code, status.headers["Range"]) == (204, "0-5")
    assert client.patch(where, content=b"wor").status_code == 202
    digest = digest_of(b"hello world")
    answer = client.put(where, params={"digest": digest}, content=b"ld")
    assert (answer.status_code, answer.headers["Location"]) == (201, f"/v2/team/web/blobs/{digest}")
    assert client.get(f"/v2/team/web/blobs/{digest}").content == b"hello world"
    assert error(client.get(where)) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_a_part_of_a_blob(client: httpx.Client) -> None:
    digest = upload(client, b"hello world")
    head = client.head(f"/v2/web/blobs/{digest}")
    assert (head.status_code, head.headers["Content-Length"], head.headers["Docker-Content-Digest"]) == (
        200,
        "11",
        digest,
    )
    part = client.get(f"/v2/web/blobs/{digest}", headers={"Range": "bytes=6-"})
    assert (part.status_code, part.content, part.headers["Content-Range"]) == (206, b"world", "bytes 6-10/11")
    assert client.get(f"/v2/web/blobs/{digest}", headers={"Range": "bytes=99-"}).status_code == 416


def test_an_upload_that_is_not_what_was_announced(client: httpx.Client, registry: Registry) -> None:
    for path in ("/v2/web/blobs/uploads/", client.post("/v2/web/blobs/uploads/").headers["Location"]):
        verb = client.post if path.endswith("/") else client.put
        assert error(verb(path, params={"digest": NOTHING}, content=b"hello")) == (400, "DIGEST_INVALID")
    assert registry.store.size() == 0
    assert not list((registry.store.directory / "tmp").iterdir())


def test_an_upload_that_is_cancelled_or_forgotten_leaves_nothing(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry, httpx.Client(base_url=f"http://{registry.address}", trust_env=False) as client:
        one, _ = (client.post("/v2/web/blobs/uploads/").headers["Location"] for _ in range(2))
        assert len(list((tmp_path / "tmp").iterdir())) == 2
        assert client.delete(one).status_code == 204
        assert len(list((tmp_path / "tmp").iterdir())) == 1
    assert not list((tmp_path / "tmp").iterdir())


def test_a_blob_belongs_to_the_repositories_that_have_it(client: httpx.Client) -> None:
    digest = upload(client, b"hello")
    assert error(client.get(f"/v2/other/blobs/{digest}")) == (404, "BLOB_UNKNOWN")
    mounted = client.post("/v2/other/blobs/uploads/", params={"mount": digest, "from": "web"})
    assert (mounted.status_code, mounted.headers["Location"]) == (201, f"/v2/other/blobs/{digest}")
    assert client.get(f"/v2/other/blobs/{digest}").content == b"hello"
    assert client.post("/v2/third/blobs/uploads/", params={"mount": NOTHING, "from": "web"}).status_code == 202


def test_a_manifest_by_tag_and_by_digest(client: httpx.Client) -> None:
    digest = manifest(client)
    for reference in ("1", digest):
        for verb in (client.get, client.head):
            answer = verb(f"/v2/web/manifests/{reference}")
            assert (answer.status_code, answer.headers["Content-Type"]) == (200, MANIFEST)
            assert answer.headers["Docker-Content-Digest"] == digest


def test_a_tag_that_moves_leaves_the_manifest_to_those_who_know_its_digest(client: httpx.Client) -> None:
    before = manifest(client)
    after = manifest(client, annotations={"a": "b"})
    assert before != after
    assert client.get(f"/v2/web/manifests/{before}").status_code == 200
    assert client.delete("/v2/web/manifests/1").status_code == 202
    assert error(client.get("/v2/web/manifests/1")) == (404, "MANIFEST_UNKNOWN")
    assert client.get(f"/v2/web/manifests/{after}").status_code == 200
    assert client.delete(f"/v2/web/manifests/{after}").status_code == 202
    assert error(client.get(f"/v2/web/manifests/{after}")) == (404, "MANIFEST_UNKNOWN")


def test_a_manifest_needs_its_parts_first(client: httpx.Client) -> None:
    body = {"schemaVersion": 2, "config": {"mediaType": "x", "digest": NOTHING, "size": 1}, "layers": []}
    answer = client.put("/v2/web/manifests/1", content=encoded(body), headers={"Content-Type": MANIFEST})
    assert error(answer) == (400, "MANIFEST_BLOB_UNKNOWN")
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{"mediaType": MANIFEST, "digest": NOTHING, "size": 1}],
    }
    assert error(client.put("/v2/web/manifests/1", content=encoded(index))) == (400, "MANIFEST_BLOB_UNKNOWN")


def test_tags_and_repositories_in_pages(client: httpx.Client) -> None:
    for tag in ("c", "a", "b"):
        manifest(client, tag)
    manifest(client, name="team/app")
    assert client.get("/v2/web/tags/list").json() == {"name": "web", "tags": ["a", "b", "c"]}
    page = client.get("/v2/web/tags/list", params={"n": 2})
    assert page.json()["tags"] == ["a", "b"]
    assert page.links["next"]["url"] == "/v2/web/tags/list?n=2&last=b"
    rest = client.get(page.links["next"]["url"])
    assert (rest.json()["tags"], rest.links) == (["c"], {})
    assert client.get("/v2/web/tags/list", params={"n": 0}).json()["tags"] == []
    assert client.get("/v2/_catalog").json() == {"repositories": ["team/app", "web"]}
    assert client.get("/v2/_catalog", params={"n": 1, "last": "team/app"}).json() == {"repositories": ["web"]}


def test_what_refers_to_a_manifest(client: httpx.Client) -> None:
    subject = manifest(client)
    about = {"mediaType": MANIFEST, "digest": subject, "size": 5}
    signature = manifest(client, "", subject=about, artifactType="application/signature")
    manifest(client, "", subject=about, artifactType="application/other")
    found = client.get(f"/v2/web/referrers/{subject}")
    assert (found.headers["Content-Type"], len(found.json()["manifests"])) == (INDEX, 2)
    some = client.get(f"/v2/web/referrers/{subject}", params={"artifactType": "application/signature"})
    assert [each["digest"] for each in some.json()["manifests"]] == [signature]
    assert some.headers["OCI-Filters-Applied"] == "artifactType"
    assert client.get(f"/v2/web/referrers/{NOTHING}").json()["manifests"] == []


@pytest.mark.parametrize(
    ("verb", "path", "expected"),
    [
        ("GET", "/v2/web/manifests/1", (404, "NAME_UNKNOWN")),
        ("GET", "/v2/web/tags/list", (404, "NAME_UNKNOWN")),
        ("GET", "/v2/Web/tags/list", (400, "NAME_INVALID")),
        ("GET", "/v2/a/../../etc/tags/list", (400, "NAME_INVALID")),
        ("GET", f"/v2/web/blobs/{NOTHING}", (404, "BLOB_UNKNOWN")),
        ("GET", "/v2/web/blobs/sha256:1", (400, "DIGEST_INVALID")),
        ("DELETE", f"/v2/web/blobs/{NOTHING}", (405, "UNSUPPORTED")),
        ("PATCH", "/v2/web/blobs/uploads/none", (404, "BLOB_UPLOAD_UNKNOWN")),
        ("PUT", "/v2/web/blobs/uploads/none", (400, "DIGEST_INVALID")),
        ("PUT", "/v2/web/manifests/1", (400, "MANIFEST_INVALID")),
        ("GET", "/v2/_catalog?n=x", (400, "PAGINATION_NUMBER_INVALID")),
        ("GET", "/elsewhere", (404, "NAME_UNKNOWN")),
    ],
)
def test_what_is_wrong_is_answered_as_the_specification_has_it(
    registry: Registry, verb: str, path: str, expected: tuple[int, str]
) -> None:
    host, port = registry.address.split(":")
    with socket.create_connection((host, int(port))) as line:  # a client that does not tidy up the path
        line.sendall(f"{verb} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: line.recv(65536), b"")).partition(b"\r\n\r\n")
    assert (int(head.split()[1]), json.loads(body)["errors"][0]["code"]) == expected


# --- its life ---


def test_a_registry_that_is_closed_leaves_nothing(store: Store) -> None:
    before = set(threading.enumerate())
    registry = Registry(store)
    pull(store, f"{registry.address}/web:1")
    host, port = registry.address.split(":")
    with socket.create_connection((host, int(port))) as idle:
        idle.sendall(b"POST /v2/web/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        registry.close()
    registry.close()
    late = {thread for thread in threading.enumerate() if "tqdm" not in repr(thread).lower()} - before
    for thread in late:  # a worker that was told to end, and has not got round to it
        thread.join(5)
    assert not [thread for thread in late if thread.is_alive()]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
    assert not list((store.directory / "tmp").iterdir())


def test_a_port_that_is_taken_is_a_wrong_call(registry: Registry, tmp_path: Path) -> None:
    port = int(registry.address.split(":")[1])
    with pytest.raises(UsageError, match=f"can't listen on 127.0.0.1:{port}"):
        Registry(tmp_path / "second", port=port)
    with pytest.raises(UsageError, match="can't listen"):
        Registry(tmp_path / "second", port=70_000)


def test_many_clients_at_once(registry: Registry, tmp_path: Path) -> None:
    failures: list[Exception] = []

    def both_ways(number: int) -> None:
        try:
            mine = Store(tmp_path / f"mine{number}")
            add_image(mine, f"web:{number}", b"shared" * 1000, b"%d" % number)
            push(mine, f"{registry.address}/web:{number}", progress=False)
            pull(Store(tmp_path / f"other{number}"), f"{registry.address}/web:{number}", progress=False)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=both_ways, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(registry.store.images()) == 6
