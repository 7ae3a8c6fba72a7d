"""The socket under a request, for faults that HTTP has no words for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

# l_onoff = 1, l_linger = 0: closing sends RST instead of FIN.
LINGER_ZERO = struct.pack("ii", 1, 0)
# Long enough for bytes on loopback to be read before the RST that follows them.
SETTLE_S = 0.02


class Wire:
    """One TCP connection."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.gone = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Send bytes past HTTP."""
        self.transport.write(data)

    async def reset(self) -> None:
        """Send RST."""
        self.cut()
        await self.gone.wait()

    async def close(self) -> None:
        """Send FIN after what has been written."""
        self.transport.close()
        await self.gone.wait()

    def cut(self) -> None:
        """Send RST without waiting for it."""
        sock = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):  # it is closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        self.transport.abort()


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
