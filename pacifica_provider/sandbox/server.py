"""uvicorn around the application, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time

import uvicorn

from pacifica_provider.sandbox.application import Application
from pacifica_provider.sandbox.control import Reply
from pacifica_provider.sandbox.exchange import Exchange
from pacifica_provider.sandbox.ready import Urls, urls
from pacifica_provider.sandbox.wire import WireProtocol

PathLike = str | os.PathLike[str]
# How often the exchange looks at its clock by itself, so that settlements are announced unasked.
TICK_S = 0.05
START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0
KEEP_ALIVE_S = 65


class Server:
    """A running sandbox. It listens as soon as it is made."""

    def __init__(
        self,
        exchange: Exchange,
        host: str,
        port: int,
        certfile: PathLike | None = None,
        keyfile: PathLike | None = None,
    ) -> None:
        self._exchange = exchange
        self._socket = _listen(host, port)
        self.where: Urls = urls(host, self._socket.getsockname()[1], tls=certfile is not None)
        self._application = Application(exchange, self.where.base_url)
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                self._application.asgi,
                http=WireProtocol,
                ws="websockets-sansio",
                ws_ping_interval=None,  # the exchange's own idle rule is what is being tested
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                date_header=False,  # the exchange's clock may be shifted
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=1,
                ssl_certfile=certfile,
                ssl_keyfile=keyfile,
            )
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="pacifica-sandbox", daemon=True)

    def start(self) -> None:
        """Return once requests are answered."""
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._uvicorn.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError("the sandbox did not start")
            time.sleep(0.002)

    def stop(self) -> None:
        """Drop every connection and stop. Held requests never commit."""
        self._uvicorn.should_exit = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed by itself
                self._loop.call_soon_threadsafe(self._application.closing.set)
        if self._thread.ident is not None:
            self._thread.join(STOP_TIMEOUT_S)
        self._socket.close()

    def control(self, method: str, path: str, wish: object) -> Reply:
        """Carry out a control call in the server's thread."""
        if self._loop is None:
            raise RuntimeError("the sandbox is not running")

        async def call() -> Reply:
            return self._application.control.dispatch(method, path, wish)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(STOP_TIMEOUT_S)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        ticking = asyncio.ensure_future(self._tick())
        try:
            await self._uvicorn.serve(sockets=[self._socket])
        finally:
            self._drop_connections()
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)

    def _drop_connections(self) -> None:
        for connection in list(self._uvicorn.server_state.connections):
            connection.transport.abort()

    async def _tick(self) -> None:
        while True:
            self._exchange.advance()
            await asyncio.sleep(TICK_S)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)
