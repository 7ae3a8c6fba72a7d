"""uvicorn around the application, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from pacifica_provider.sandbox.app import Application
from pacifica_provider.sandbox.responses import Wire

if TYPE_CHECKING:
    from pacifica_provider.sandbox.control import Reply
    from pacifica_provider.sandbox.exchange import Exchange

PathLike = str | os.PathLike[str]
# How often the exchange looks at its clock by itself, so that settlements are announced unasked.
TICK_S = 0.05
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
KEEP_ALIVE_S = 65
# How long a stopping sandbox waits for connections to close before it drops them.
GOODBYE_S = 0.25
ACCEPT_S = 0.005
LAST_PORT = 65_535


def urls(host: str, port: int, *, tls: bool) -> dict[str, str]:
    """Return the addresses of a sandbox. With TLS the host is `localhost`, for the certificate's sake."""
    name = "localhost" if tls else f"[{host}]" if ":" in host else host
    secure, root = "s" if tls else "", f"//{name}:{port}"
    return {
        "base_url": f"http{secure}:{root}/api/v1",
        "ws_url": f"ws{secure}:{root}/ws",
        "control_url": f"http{secure}:{root}/control",
        "solana_url": f"http{secure}:{root}/solana",
    }


class WireProtocol(H11Protocol):
    """uvicorn's h11 protocol, which also puts the connection into `scope["state"]["wire"]`."""

    wire: Wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Put the connection where requests find it."""
        stream = cast("asyncio.Transport", transport)
        # asyncio sets this only on sockets made with an explicit protocol number; without it, head and body wait 40 ms.
        stream.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.wire = Wire(stream)
        self.app_state = {**self.app_state, "wire": self.wire}
        super().connection_made(stream)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake what waits for the connection to be gone."""
        super().connection_lost(exc)
        self.wire.gone.set()

    def shutdown(self) -> None:
        """Drop a request that is still held: stopping must not wait for a hang to end."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request
        if cycle is not None and not cycle.response_complete:
            self.transport.abort()
        else:
            super().shutdown()


class _Uvicorn(uvicorn.Server):
    """uvicorn that starts and stops at once: its own loop looks ten times a second whether it should exit."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.exit = asyncio.Event()

    async def main_loop(self) -> None:
        """Wait for the end."""
        await self.exit.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, say goodbye, and drop whoever does not leave."""
        await self._finish_accepting(sockets or [])
        for listener in self.servers:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._empty(GOODBYE_S)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await self._empty(GOODBYE_S)

    async def _finish_accepting(self, sockets: list[socket.socket]) -> None:
        """Accept nothing more and let asyncio finish: closing under a half accepted connection leaks it."""
        with contextlib.suppress(NotImplementedError):  # Windows
            for each in sockets:
                asyncio.get_running_loop().remove_reader(each.fileno())
        await asyncio.sleep(ACCEPT_S)

    async def _empty(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.server_state.connections or self.server_state.tasks:
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.002)


class Server:
    """A sandbox's web server. It listens as soon as it is made, and answers from `start()` on."""

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
        self.where = urls(host, self._socket.getsockname()[1], tls=certfile is not None)
        self._application = Application(exchange, self.where["base_url"])
        try:
            self._uvicorn = _Uvicorn(_config(self._application, certfile, keyfile))
        except (OSError, ValueError):  # the certificate cannot be used
            self._socket.close()
            raise
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="pacifica-sandbox", daemon=True)

    def start(self) -> None:
        """Return once requests are answered."""
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._uvicorn.started:
            if time.monotonic() > deadline:
                self.stop()
                raise RuntimeError("the sandbox did not start")
            time.sleep(0.002)

    def stop(self) -> None:
        """
        Drop every connection and stop. Held requests never commit.

        :raises RuntimeError: if it does not end.
        """
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._application.closing.set)
            self._loop.call_soon_threadsafe(self._uvicorn.exit.set)
        self._thread.join(STOP_TIMEOUT_S)
        self._socket.close()
        if self._thread.is_alive():
            raise RuntimeError("the sandbox did not stop")

    def control(self, method: str, path: str, body: object) -> Reply:
        """Carry out a control call in the server's thread."""

        async def call() -> Reply:
            """Run in the loop."""
            return self._application.control.dispatch(method, path, body)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(STOP_TIMEOUT_S)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        ticking = asyncio.ensure_future(self._tick())
        try:
            await self._uvicorn.serve(sockets=[self._socket])
        finally:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(ticking, *left, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            self._exchange.advance()
            await asyncio.sleep(TICK_S)


def _config(application: Application, certfile: PathLike | None, keyfile: PathLike | None) -> uvicorn.Config:
    config = uvicorn.Config(
        application.asgi,
        http=WireProtocol,
        ws="websockets-sansio",
        ws_ping_interval=None,  # the exchange's own idle rule is what is being tested
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        date_header=False,  # the exchange's clock may be shifted
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        ssl_certfile=certfile,
        ssl_keyfile=keyfile,
    )
    config.load()  # here rather than in the thread, so that a bad certificate is the caller's exception
    return config


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= LAST_PORT:
        raise ValueError(f"there is no port {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)
