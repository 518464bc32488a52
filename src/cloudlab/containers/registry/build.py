"""Builds an image from a Containerfile, as docker does: a layer for each RUN and COPY, made only if it was not made before.

The cache's key of a step is a hash of the key before it, of the instruction, and of the files that COPY takes: the first step
that changes, and all behind it, are made anew.
"""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from cloudlab.containers.registry import stack
from cloudlab.containers.registry.blobs import Layer, LayerWriter
from cloudlab.containers.registry.containerfile import Instruction, expand, parse_containerfile
from cloudlab.containers.registry.context import Context, Found, Source, opened
from cloudlab.containers.registry.entries import Entry, Kind
from cloudlab.containers.registry.image import Config, Image
from cloudlab.containers.registry.layers import oci_form, write_layer
from cloudlab.containers.registry.names import Readable
from cloudlab.containers.registry.store import Store
from cloudlab.errors import UsageError

FILES = ("Containerfile", "Dockerfile")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # what docker gives an image that says nothing


class Runner(Protocol):
    """What runs the command of a RUN in a container."""

    def run(
        self,
        layers: Sequence[str],
        command: Sequence[str],
        environment: Mapping[str, str],
        working_directory: str,
        user: str,
    ) -> bytes:
        """Run a command to its end on layers (digests, from the lowest); returns the tar of what it changed.

        The tar is that of the overlay's upper directory: GNU tar --xattrs -C upper -c . The working directory is made if it is not
        there. A command that fails is a `MachineError`.
        """


@dataclass(frozen=True)
class Step:
    """One instruction of a build, done: `cached` if its layer was there already; `layer` is None where none is needed."""

    number: int
    total: int
    instruction: Instruction
    cached: bool
    layer: Layer | None
    took_s: float


def build(
    store: Store,
    directory: Path | str,
    runner: Runner,
    *,
    tag: str,
    on_step: Callable[[Step], None] = lambda _: None,
    arguments: Mapping[str, str] | None = None,
    offset: int = 0,
    clamp_s: int = 0,
) -> Image:
    """Build the image that the Containerfile in `directory` describes, name it `tag`, and return it.

    `arguments` are for ARG; `offset` is what was added to users in the runner's tars. The same input gives the same digest: no time
    in the image is later than `clamp_s` (seconds since 1970). Raises `UsageError` with the line of the Containerfile.
    """
    context = Context(directory)
    instructions = parse_containerfile(_text(context.root))
    _require_declared(instructions, arguments or {})
    building = _Build(store, context, runner, given=dict(arguments or {}), offset=offset, clamp_s=clamp_s)
    for number, instruction in enumerate(instructions, start=1):
        began = time.monotonic()
        cached, layer = building.do(instruction)
        on_step(Step(number, len(instructions), instruction, cached, layer, time.monotonic() - began))
    return store.add_image(building.config, tuple(layer.descriptor for layer in building.layers), tag)


def _text(root: Path) -> str:
    for name in FILES:
        if (root / name).is_file():
            return (root / name).read_text(encoding="utf-8", errors="surrogateescape")
    raise UsageError(
        f"There is no Containerfile in {root}.", allowed=" or ".join(FILES), example="FROM scratch\nCOPY . /"
    )


def _require_declared(instructions: Sequence[Instruction], arguments: Mapping[str, str]) -> None:
    declared = {name for each in instructions if each.name == "ARG" for name, _ in each.pairs}
    if unknown := sorted(set(arguments) - declared):
        raise UsageError(f"The Containerfile has no ARG {unknown[0]}.", allowed=", ".join(sorted(declared)) or "none")


class _Build:
    """The state of a build between two instructions."""

    def __init__(
        self, store: Store, context: Context, runner: Runner, *, given: dict[str, str], offset: int, clamp_s: int
    ) -> None:
        self._store, self._context, self._runner = store, context, runner
        self._given, self._offset, self._clamp_s = given, offset, clamp_s
        self._arguments: dict[str, str] = {}
        self._own_cmd = False
        self._key = str(clamp_s)
        self.config, self.layers = Config(), list[Layer]()

    def do(self, instruction: Instruction) -> tuple[bool, Layer | None]:
        """Carry out one instruction; returns if it was done before, and its layer."""
        try:
            made = self._do(instruction)
        except UsageError as error:
            problem = f"Containerfile, line {instruction.line}: {error.problem}"
            raise UsageError(problem, allowed=error.allowed, example=error.example) from error
        if instruction.name != "FROM":
            self._note(instruction, empty=made is None)
        if made is None:
            return False, None
        cached, layer = made
        self.layers.append(layer)
        self.config = replace(self.config, diff_ids=(*self.config.diff_ids, layer.diff_id))
        return cached, layer

    def _do(self, instruction: Instruction) -> tuple[bool, Layer] | None:
        if instruction.name == "RUN":
            return self._run(instruction)
        if instruction.name == "COPY":
            return self._copy(instruction)
        self._lengthen_key(
            str(instruction), json.dumps(self._given.get(instruction.pairs[0][0]) if instruction.pairs else None)
        )
        if instruction.name == "FROM":
            self._begin(self._expanded(instruction.words[0]))
        elif instruction.name == "ARG":
            self._declare(*instruction.pairs[0])
        else:
            self.config = self._configured(instruction)
        return None

    def _begin(self, reference: str) -> None:
        if reference == "scratch":
            return
        image = self._store.image(reference)
        if len(image.layers) != len(image.config.diff_ids):
            raise UsageError(f"{reference!r} has {len(image.layers)} layers and {len(image.config.diff_ids)} diff_ids.")
        self._lengthen_key(image.digest)
        self.layers = list(map(Layer, image.layers, image.config.diff_ids))
        self.config = replace(
            image.config, created=datetime.fromtimestamp(self._clamp_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        )

    def _declare(self, name: str, default: str | None) -> None:
        value = self._given.get(name, self._arguments.get(name) if default is None else self._expanded(default))
        if value is not None:
            self._arguments[name] = value

    def _configured(self, instruction: Instruction) -> Config:
        config, words = self.config, tuple(map(self._expanded, instruction.words))
        pairs = {self._expanded(name): self._expanded(value or "") for name, value in instruction.pairs}
        match instruction.name:
            case "ENV":
                return replace(
                    config, env=tuple(f"{name}={value}" for name, value in (config.environment | pairs).items())
                )
            case "LABEL":
                return replace(config, labels={**config.labels, **pairs})
            case "WORKDIR":
                return replace(
                    config, working_dir=posixpath.normpath(posixpath.join("/", config.working_dir, words[0]))
                )
            case "USER":
                return replace(config, user=words[0])
            case "EXPOSE":
                ports = {word if "/" in word else f"{word}/tcp" for word in words}
                return replace(config, exposed_ports=tuple(sorted({*config.exposed_ports, *ports})))
            case "CMD":
                self._own_cmd = True
                return replace(config, cmd=instruction.words)
            case _:  # ENTRYPOINT; the image below meant its CMD for its own
                return replace(config, entrypoint=instruction.words, cmd=config.cmd if self._own_cmd else ())

    # --- steps that make a layer ---

    def _run(self, instruction: Instruction) -> tuple[bool, Layer]:
        def write(out: LayerWriter) -> None:
            environment = {"PATH": PATH, **self._arguments, **self.config.environment}
            directory, digests = self.config.working_dir or "/", [layer.descriptor.digest for layer in self.layers]
            upper = self._runner.run(digests, instruction.words, environment, directory, self.config.user)
            oci_form(io.BytesIO(upper), out, offset=self._offset, clamp_s=self._clamp_s)

        return self._layer(write, str(instruction))

    def _copy(self, instruction: Instruction) -> tuple[bool, Layer]:
        *patterns, destination = map(self._expanded, instruction.words)
        sources = [source for pattern in patterns for source in self._context.sources(pattern)]
        if len(sources) > 1 and not destination.endswith("/"):
            raise UsageError(
                f"COPY of {len(sources)} sources to {destination!r}.", allowed="a directory, with / at its end"
            )
        content = [[source.name, *map(_fingerprint, source.found)] for source in sources]

        def write(out: LayerWriter) -> None:
            taken = self._placed(sources, destination)
            write_layer(out, [entry for entry, _ in taken.values()], lambda entry: _contents(taken[entry.path][1]))

        return self._layer(write, str(instruction), json.dumps(content))

    def _layer(self, write: Callable[[LayerWriter], None], *inputs: str) -> tuple[bool, Layer]:
        """Return the layer that was made of the same before, or make it."""
        self._lengthen_key(*inputs)
        if layer := self._store.recall(self._key):
            return True, layer
        with self._store.layer_writer() as out:
            write(out)
            layer = out.commit()
        self._store.remember(self._key, layer)
        return False, layer

    def _placed(self, sources: Sequence[Source], destination: str) -> dict[str, tuple[Entry, Found | None]]:
        """Return what a COPY makes, by path, with the directories that it is in."""
        shown = stack.merged(self._store, [layer.descriptor.digest for layer in self.layers])
        base = stack.resolve(shown, posixpath.join("/", self.config.working_dir, destination))
        there = shown.get(base)
        into = (
            destination.endswith(("/", "/."))
            or destination in (".", "..")
            or bool(there and there.kind is Kind.DIRECTORY)
        )
        placed: dict[str, tuple[Entry, Found | None]] = {}
        for source in sources:
            top = base if source.is_directory or not into else posixpath.join(base, source.name)
            for each in source.found:
                self._place(placed, shown, posixpath.join(top, each.inner).strip("/"), each)
        return {entry.path: (entry, None) for entry in stack.parents(shown, placed)} | placed

    def _place(
        self, placed: dict[str, tuple[Entry, Found | None]], shown: Mapping[str, Entry], path: str, found: Found
    ) -> None:
        below = shown.get(path)
        if below and Kind.DIRECTORY in (below.kind, found.kind) and below.kind is not found.kind:
            raise UsageError(f"COPY: {found.file} is a {found.kind}, and /{path} in the image a {below.kind}.")
        if path and not (below and found.kind is Kind.DIRECTORY):
            placed[path] = found.entry(path, self._clamp_s), found
        elif path and below:
            placed[path] = below, None  # a directory that is there stays as it is

    # --- small change ---

    def _expanded(self, text: str) -> str:
        return expand(text, self._arguments | self.config.environment)

    def _lengthen_key(self, *inputs: str) -> None:
        self._key = hashlib.sha256(json.dumps([self._key, *inputs]).encode()).hexdigest()

    def _note(self, instruction: Instruction, *, empty: bool) -> None:
        line = {"created": self.config.created, "created_by": str(instruction)} | (
            {"empty_layer": True} if empty else {}
        )
        self.config = replace(self.config, history=(*self.config.history, line))


def _fingerprint(found: Found) -> list[str | int]:
    return [found.inner, found.kind, found.mode, found.target or found.sha256]


def _contents(found: Found | None) -> AbstractContextManager[Readable]:
    return opened(found) if found and found.kind is Kind.FILE else nullcontext(io.BytesIO())
