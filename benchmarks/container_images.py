"""How fast images are built, and layers stored, pushed and pulled."""

from __future__ import annotations

import os
import tarfile
from functools import partial
from io import BytesIO
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.bench import Bench
from benchmarks.measure import OURS, Measure, Side, compared, interleave, timed
from cloudlab import Registry
from cloudlab.containers.layerstore import Layers
from cloudlab.containers.registry import Config, Store, pull, push
from cloudlab.lab.node import Node

_MB = 1e6
_CONTAINERFILE = """\
FROM busybox
ENV GREETING=hello
WORKDIR /srv
COPY index.html .
RUN echo "$GREETING, {number}" >> index.html
LABEL made.by=benchmark
CMD ["httpd", "-f"]
"""
_numbers = count(1)


def images(bench: Bench) -> list[Measure]:
    """An image built, anew and with all layers in the cache; a layer of random bytes into a guest, to a registry, and back."""
    size = (1 if bench.quick else 32) << 20
    machine = bench.lab.machine("n1")
    try:
        machine.containers.image("busybox")
        built = interleave({OURS: Side(partial(_build, machine), bench.runs)})
        moved = interleave({OURS: Side(partial(_move, machine, size), bench.runs)})
    finally:
        machine.close()
    what = f"a layer of {size >> 20} MiB"
    return [
        compared(built, "warm", "image build, all layers in the cache", "s", 1),
        compared(built, "cold", "image build, COPY and RUN anew", "s", None),
        compared(moved, "guest", f"{what} into a guest", "MB/s", None, more_is_better=True),
        compared(moved, "push", f"{what} pushed to a registry", "MB/s", None, more_is_better=True),
        compared(moved, "pull", f"{what} pulled from it", "MB/s", None, more_is_better=True),
    ]


def _build(machine: Node) -> dict[str, float]:
    with TemporaryDirectory(prefix="benchmark-") as place:
        Path(place, "index.html").write_text(os.urandom(8).hex())
        Path(place, "Containerfile").write_text(_CONTAINERFILE.format(number=next(_numbers)))
        cold = timed(lambda: machine.containers.build(place, "benchmark"))
        warm = timed(lambda: machine.containers.build(place, "benchmark"))
        return {"cold": cold, "warm": warm}


def _move(machine: Node, size: int) -> dict[str, float]:
    tar, name, layers = _archive(size), f"benchmark{next(_numbers)}", Layers(machine)
    added = timed(lambda: layers.add(name, tar))
    layers.remove(name)
    with TemporaryDirectory(prefix="benchmark-") as place, Registry(Store(Path(place, "registry"))) as registry:
        here, there = Store(Path(place, "here")), Store(Path(place, "there"))
        reference = f"{registry.address}/benchmark:1"
        with here.layer_writer() as out:
            out.write(tar)
            layer = out.commit()
        here.add_image(Config(diff_ids=(layer.diff_id,)), (layer.descriptor,), reference)
        pushed = timed(lambda: push(here, reference, progress=False))
        pulled = timed(lambda: pull(there, reference, progress=False))
        assert there.image(reference).digest == here.image(reference).digest
    return {what: size / _MB / took for what, took in (("guest", added), ("push", pushed), ("pull", pulled))}


def _archive(size: int) -> bytes:
    """Return a layer with one file, of bytes that no packing makes fewer."""
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size = size
        tar.addfile(member, BytesIO(os.urandom(size)))
    return out.getvalue()
