"""What each benchmark gets: a lab, an image, and how often to measure."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from benchmarks import peers
from cloudlab import Lab
from cloudlab.images import Image


@dataclass(frozen=True)
class Bench:
    """`runs` of what takes a second or less; what takes many has `few`."""

    lab: Lab
    image: Image
    accelerator: str
    runs: int
    quick: bool = False

    @property
    def idle_s(self) -> float:
        """How long a guest is left alone: to settle, and to be seen doing nothing."""
        return 2.0 if self.quick else 10.0

    @property
    def few(self) -> int:
        return min(self.runs, 3)

    def by_hand(self) -> AbstractContextManager[peers.Typist]:
        return peers.by_hand(self.image, self.accelerator)

    def sandbox(self) -> AbstractContextManager[peers.Sandbox | None]:
        """A guest of quick-sandbox's, or None where it is not installed."""
        return peers.quick_sandbox(self.accelerator) if peers.has_sandbox() else nullcontext()
