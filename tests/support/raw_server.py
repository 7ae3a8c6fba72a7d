"""
A server of raw bytes on a loopback socket: it answers each connection with a script and remembers what it was sent.

For what an HTTP library on the server's side would never do: half a status line, a drip, a body shorter than announced.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.support.patience import PATIENCE_S

if TYPE_CHECKING:
    import ssl
    from types import TracebackType
    from typing import Self

# Takes the connection after a request has been read; says whether the connection stays open for another.
Script = Callable[[socket.socket], bool]


def answer(
    body: bytes = b'{"success":true,"data":[]}',
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    announced: int | None = None,
) -> Script:
    """Return a script that sends one whole answer; ``announced`` is a content-length other than the true one."""
    fields = {"Content-Length": str(len(body) if announced is None else announced), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return say(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body, keep_open=True)


def say(data: bytes, *, keep_open: bool = False) -> Script:
    """Return a script that sends these bytes as they are."""

    def script(connection: socket.socket) -> bool:
        connection.sendall(data)
        return keep_open

    return script


def reset(connection: socket.socket) -> bool:
    """Reset the connection instead of answering."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def drip(head: bytes, *, every_s: float, closed: threading.Event) -> Script:
    """Return a script that sends ``head``, then one byte at a time until the client goes, and then sets ``closed``."""

    def script(connection: socket.socket) -> bool:
        try:
            connection.sendall(head)
            for _ in range(int(PATIENCE_S / every_s)):
                time.sleep(every_s)
                connection.sendall(b"x")
        except OSError:
            closed.set()
        return False

    return script


class RawServer:
    """
    Listens on a free loopback port; ``requests`` holds the bytes of every request, ``connections`` their count.

    Each request meets the next of the scripts, the last one again and again. A ``greeting`` is sent before any request.
    """

    def __init__(
        self,
        *scripts: Script,
        context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        greeting: bytes = b"",
    ) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._scripts = list(scripts)
        self._context = context
        self._host = host
        self._greeting = greeting
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._lock = threading.Lock()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        """Its base URL, without a path."""
        return f"http{'s' if self._context else ''}://{self._host}:{self.port}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, raw: socket.socket) -> None:
        raw.settimeout(PATIENCE_S)
        with contextlib.suppress(OSError), raw, self._secured(raw) as connection:
            connection.sendall(self._greeting)
            while request := _read_request(connection):
                with self._lock:
                    self.requests.append(request)
                    script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
                if not script(connection) or b"connection: close" in request.lower():
                    return

    def _secured(self, raw: socket.socket) -> socket.socket:
        return self._context.wrap_socket(raw, server_side=True) if self._context else raw


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            return b""
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
