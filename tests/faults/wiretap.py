"""A TCP path between client and exchange that records what the client sends, and breaks where it is told to."""

from __future__ import annotations

import json
import re
import select
import socket
import socketserver
import struct
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.support.patience import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: closing sends RST


class Wiretap:
    """
    Forwards every connection to ``url``; use it as a context manager and give ``base_url`` to the client.

    ``cut_post_at`` resets the next POST after so many of its bytes have been passed on. ``hold_posts`` keeps POSTs
    back. ``repeat_posts`` delivers each POST twice, and the client gets the second answer. ``route`` and ``alter`` say
    where a connection goes and what becomes of the answer's bytes.
    """

    def __init__(self, url: str, *, port: int = 0) -> None:
        parts = urlsplit(url)
        self.upstream = (parts.hostname or "", parts.port or 0)
        self.connections: list[bytearray] = []
        self.cut_post_at: int | None = None
        self.cuts = 0
        self.hold_posts = False
        self.repeat_posts = False
        self.route: Callable[[int], tuple[str, int]] = lambda _number: self.upstream
        self.alter: Callable[[bytes], bytes] = lambda data: data
        self._server = _Server(("127.0.0.1", port), _Carrier)
        self._server.tap = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        host = "localhost" if parts.scheme == "https" else "127.0.0.1"
        self.base_url = f"{parts.scheme}://{host}:{self._server.server_address[1]}{parts.path}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def posts(self) -> list[bytes]:
        """Every POST as the client sent it, headers and all."""
        return [bytes(sent) for sent in self.connections if sent.startswith(b"POST ")]

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The JSON body of every POST."""
        return [json.loads(post.partition(b"\r\n\r\n")[2]) for post in self.posts]

    def replay(self, request: bytes) -> bytes:
        """Send captured bytes to the exchange, once more or at last, and return what it answers."""
        with socket.create_connection(self.upstream, timeout=PATIENCE_S) as upstream:
            upstream.sendall(request)
            answer = bytearray()
            while data := upstream.recv(65536):
                answer += data
        return bytes(answer)

    def carry(self, client: socket.socket) -> None:
        """Carry one connection until either side ends it."""
        sent = bytearray()
        self.connections.append(sent)
        with socket.create_connection(self.route(len(self.connections)), timeout=PATIENCE_S) as upstream:
            while True:
                ready, _, _ = select.select([client, upstream], [], [], PATIENCE_S)
                if not ready:
                    return
                if client in ready:
                    data = client.recv(65536)
                    if not data:
                        return
                    sent += data
                    if not self._pass_on(client, upstream, sent, data):
                        return
                if upstream in ready:
                    data = upstream.recv(65536)
                    if not data:
                        return
                    client.sendall(self.alter(data))

    def _pass_on(self, client: socket.socket, upstream: socket.socket, sent: bytearray, data: bytes) -> bool:
        """Pass the client's bytes on, and say whether the connection lives."""
        if not sent.startswith(b"POST "):
            upstream.sendall(data)
            return True
        if self.hold_posts:
            return True
        if self.cut_post_at is not None and len(sent) >= self.cut_post_at:
            upstream.sendall(data[: len(data) - (len(sent) - self.cut_post_at)])
            self.cut_post_at = None
            self.cuts += 1
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            return False
        if self.repeat_posts and _is_whole(sent):
            self.replay(bytes(sent))
        upstream.sendall(data)
        return True


def _is_whole(sent: bytearray) -> bool:
    head, _, body = bytes(sent).partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    return length is not None and len(body) == int(length[1])


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    tap: Wiretap


class _Carrier(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        try:
            self.server.tap.carry(self.request)
        except OSError:  # one side has gone; that is what this is for
            return
        finally:
            self.request.close()


def unused_port() -> int:
    """Return a port of the loopback address on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
