"""A registry of one's own: a store served over HTTP, by a thread that ends when it is closed."""

from __future__ import annotations

import socket
import threading
from collections import deque
from pathlib import Path
from types import TracebackType

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloudlab.containers.registry.api import Api
from cloudlab.containers.registry.store import Store
from cloudlab.errors import MachineError, UsageError

_START_S, _STOP_S, _GRACE_S = 10.0, 10.0, 2


class _Server(uvicorn.Server):
    """uvicorn's, that tells when it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


class Registry:
    """Serves the images of a store (or of a directory, which becomes one) at `address`, until `close`.

    Whoever reaches the address may read and write: it listens on 127.0.0.1 unless `host` says otherwise; `port` 0 takes a free one.
    The image "web:1" of the store is "web:1" here; those that are called after another registry are not shown.
    """

    def __init__(self, store: Store | Path | str, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.store = store if isinstance(store, Store) else Store(store)
        self.requests: deque[str] = deque(maxlen=10_000)  # what was asked for, and the status of the answer
        self._api = Api(self.store)
        self._socket = _listening(host, port)
        self.address = "{}:{}".format(*self._socket.getsockname()[:2])
        options = uvicorn.Config(
            self._noting(self._api.app()),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        self._server = _Server(options)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name=f"registry {self.address}", daemon=True
        )
        self._thread.start()
        if not self._server.ready.wait(_START_S):
            self.close()
            raise MachineError(f"registry {self.address}", f"did not serve within {_START_S:g} s")

    def close(self) -> None:
        """Stop serving: requests under way have two seconds to end. Closing again does nothing."""
        self._server.should_exit = True
        self._thread.join(_STOP_S)
        self._socket.close()
        if self._thread.is_alive():
            raise MachineError(f"registry {self.address}", f"did not end within {_STOP_S:g} s")
        self._api.close()

    def _noting(self, app: ASGIApp) -> ASGIApp:
        async def noting(scope: Scope, receive: Receive, send: Send) -> None:
            async def noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self.requests.append(f"{scope['method']} {scope['path']} {message['status']}")
                await send(message)

            await app(scope, receive, noted)

        return noting

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Registry({self.address!r})"


def _listening(host: str, port: int) -> socket.socket:
    try:
        if not 0 <= port < 65536:
            raise OSError("ports are from 0 to 65535")
        return socket.create_server((host, port), backlog=128)
    except OSError as error:
        raise UsageError(
            f"A registry can't listen on {host}:{port}: {error}.",
            allowed="an address of this computer, and a port that is free, or 0 for any",
            example="Registry(store, port=0)",
        ) from error
