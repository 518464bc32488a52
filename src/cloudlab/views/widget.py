"""What the live views share: one thread that looks again and again, and a browser that is told only what has changed."""

from __future__ import annotations

import atexit
import html
import threading
import time
from pathlib import Path
from typing import Any

import anywidget
import traitlets

Message = dict[str, Any]
_STATIC = Path(__file__).with_name("static")
_GRACE_S = 2.0  # how long a picture without a viewer is kept up: one that moved to another place comes back at once
_PATIENCE = 8  # looks in a row that may fail: what is looked at changes meanwhile


def static(name: str) -> str:
    """Return a file of `static/` behind the one that all views share: two files, no build step, nothing to import."""
    return "\n".join((_STATIC / file).read_text() for file in (f"watching{Path(name).suffix}", name))


def is_closed(source: object) -> bool:
    """Has the lab behind this ended? It says so itself (`closed`), or its directory is gone (see `Lab.path`)."""
    closed = getattr(source, "closed", None)
    if closed is not None:
        return bool(closed)
    path = getattr(source, "path", None)
    return callable(path) and not path("").exists()


class Watching(anywidget.AnyWidget):
    """A picture in the notebook that follows something, by one thread in the kernel.

    The thread looks every `_period_s` seconds and sends the difference. It ends with `stop()`, with the lab, with the
    kernel, and when no browser shows the picture any more; a browser that shows it again starts it again. Messages:
    the browser says `{"here": serial}` when a picture appears and `{"gone": true}` when it goes; the kernel sends
    changes numbered by `serial`, asks `{"who": true}` when one has gone, and sends the whole `{"picture": …}` to
    those who missed a change.
    """

    _period_s = 0.25
    _role = "img"  # what the picture without a kernel is to a screen reader; "group" where it has parts to be read
    # what a new viewer starts from is made when it is asked for: setting it at each look would send all of it each time
    picture = traitlets.Dict().tag(sync=True, to_json=lambda _value, widget: widget._whole())

    def __init__(self) -> None:
        self._turn = threading.RLock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._deserted_since: float | None = None
        self._serial, self._ended = 0, ""
        super().__init__()
        self.on_msg(self._hear)
        self.start()

    def _look(self) -> Any:
        """Look once (in the thread, without a lock)."""
        raise NotImplementedError

    def _take(self, seen: Any) -> Message:
        """Take over what was seen; return what has changed, nothing if nothing has."""
        raise NotImplementedError

    def _present(self) -> Message:
        """Return all that a browser needs to draw the picture as it is now."""
        raise NotImplementedError

    def _still(self) -> str:
        """Return the picture as HTML for where there is no kernel."""
        raise NotImplementedError

    def _is_over(self) -> bool:
        """Has what we look at ended for good?"""
        raise NotImplementedError

    def start(self) -> None:
        """Start to follow, unless it does already."""
        with self._turn:
            self._deserted_since = None
            if self._thread is None and not self._ended:
                self._stopping = threading.Event()
                name = f"cloudlab-{type(self).__name__.lower()}"
                self._thread = threading.Thread(target=self._run, args=(self._stopping,), name=name, daemon=True)
                self._thread.start()
                atexit.register(self._halt)

    def stop(self) -> None:
        """Stop to follow for good; the last picture stays."""
        self._end("stopped")
        self._halt()

    def close(self) -> None:
        """Stop, and remove the picture from the notebook."""
        self._halt()
        super().close()

    @property
    def following(self) -> bool:
        """Does its thread run?"""
        return self._thread is not None

    def _halt(self) -> None:
        with self._turn:
            thread, self._thread = self._thread, None
            self._stopping.set()
            atexit.unregister(self._halt)
        if thread is not None and thread is not threading.current_thread():
            thread.join(_GRACE_S)

    def _end(self, why: str) -> None:
        with self._turn:
            if not self._ended:
                self._ended = why
                self._tell({"ended": why})

    def _run(self, stopping: threading.Event) -> None:
        failed = 0
        while not stopping.wait(self._period_s) and not self._deserted(stopping):
            try:
                self._follow(stopping)
                failed = 0
            except Exception as error:  # a thread has no cell to raise in: the picture says it
                failed += 1
                if failed == _PATIENCE:
                    self._end(f"stopped, because looking failed: {str(error).partition(chr(10))[0]}")
            if self._ended:
                self._halt()

    def _follow(self, stopping: threading.Event) -> None:
        over = self._is_over()  # asked first: the last picture is one of after the end
        try:
            seen = self._look()
            with self._turn:
                if not stopping.is_set() and (change := self._take(seen)):
                    self._tell(change)
        finally:
            if over:
                self._end("this lab is closed")

    def _tell(self, change: Message) -> None:
        self._serial += 1
        self.send({**change, "serial": self._serial})

    def _whole(self) -> Message:
        with self._turn:
            return {**self._present(), "ended": self._ended, "serial": self._serial}

    def _hear(self, _widget: object, content: Message, _buffers: object) -> None:
        """Called when the browser says something."""
        if "here" in content:
            self.start()
            with self._turn:
                if content["here"] != self._serial:
                    self.send({"picture": self._whole()})
        elif "gone" in content:
            self._deserted_since = time.monotonic()
            self.send({"who": True})

    def _deserted(self, stopping: threading.Event) -> bool:
        """Under the lock, so that a viewer who comes back now finds either a thread that stays or none."""
        with self._turn:
            if self._deserted_since is None or time.monotonic() - self._deserted_since < _GRACE_S:
                return False
            if not stopping.is_set():
                self._halt()
            return True

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[Message, Message]:
        bundle = super()._repr_mimebundle_(**kwargs)
        assert bundle is not None  # it is for a widget without a view
        data, metadata = bundle
        still = f'<div role="{self._role}" aria-label="{html.escape(repr(self))}">{self._still()}</div>'
        return {**data, "text/plain": repr(self), "text/html": still}, metadata
