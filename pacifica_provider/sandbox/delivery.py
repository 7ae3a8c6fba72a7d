"""How an answer travels: whole, or in one of the ways a network breaks it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import Response, StreamingResponse

from pacifica_provider.sandbox.answers import (
    BODILESS,
    HTML,
    PORTAL,
    TEXT,
    Answer,
    as_json,
    error_envelope,
)
from pacifica_provider.sandbox.wire import SETTLE_S, Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

    from pacifica_provider.sandbox.faults import Fault

CHUNK = 65_536


class Stopping(Exception):
    """The sandbox stops while a request is held."""


class Closing:
    """Tells everything that waits that the sandbox is stopping."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake them all."""
        self._event.set()

    async def pause(self, seconds: float) -> None:
        """Wait, or raise `Stopping` if the sandbox stops meanwhile."""
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except asyncio.TimeoutError:
            return
        raise Stopping


class Nothing(Response):
    """No answer at all: the connection is gone, and the server must not add anything of its own."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send nothing."""


def replaced(answer: Answer, fault: Fault) -> Answer:
    """Return the answer that a fault puts in place of the true one."""
    status = int(fault.number("status"))
    if fault.kind == "status":
        return _status(status, fault)
    if fault.kind == "html":
        return Answer(status or 200, PORTAL, HTML)
    if fault.kind == "redirect":
        location = str(fault.parameters["location"])
        return Answer(status or 307, b"", TEXT, {"location": location})
    return answer


def _status(status: int, fault: Fault) -> Answer:
    body = fault.parameters.get("body")
    if status in BODILESS:
        answer = Answer(status, b"", TEXT)
    elif isinstance(body, str):
        answer = Answer(status, body.encode("utf-8", "replace"), TEXT)
    elif body is not None:
        answer = as_json(status, body)
    else:
        answer = error_envelope(status, "Injected fault")
    headers = fault.parameters.get("headers")
    return answer.with_headers(headers) if isinstance(headers, dict) else answer


async def deliver(answer: Answer, fault: Fault | None, wire: Wire, closing: Closing) -> Response:
    """Send the answer as the fault wants it, or leave it to the server."""
    kind = None if fault is None else fault.kind
    if fault is not None and kind in ("reset", "close", "truncate", "drip"):
        await _break(answer, fault, wire, closing)
        return Nothing()
    if fault is not None and kind == "huge":
        return _huge(answer, int(fault.number("bytes")), wire)
    if kind == "no_date":
        answer = answer.with_headers()
        headers = {name: text for name, text in answer.all_headers.items() if name != "date"}
    else:
        headers = answer.all_headers
    return _response(answer, headers)


def _response(answer: Answer, headers: dict[str, str]) -> Response:
    return Response(answer.body, answer.status, headers)


async def _break(answer: Answer, fault: Fault, wire: Wire, closing: Closing) -> None:
    size = int(fault.number("bytes"))
    if fault.kind == "reset":
        wire.write(answer.raw[:size])
        await closing.pause(SETTLE_S if size else 0)
        await wire.reset()
    elif fault.kind == "close":
        await wire.close()
    elif fault.kind == "truncate":
        wire.write(answer.raw[: len(answer.raw) - max(0, len(answer.body) - size)])
        await wire.close()
    else:
        await _drip(answer.raw, fault.number("seconds"), wire, closing)


async def _drip(raw: bytes, seconds: float, wire: Wire, closing: Closing) -> None:
    for position in range(len(raw)):
        if wire.gone.is_set():
            return
        wire.write(raw[position : position + 1])
        await closing.pause(seconds)
    await wire.close()


def _huge(answer: Answer, size: int, wire: Wire) -> Response:
    """Pad the JSON answer to `size` bytes with one long text, in pieces, for as long as somebody reads it."""
    opening = answer.body[:-1] + b',"padding":"' if answer.body.endswith(b"}") else b'{"padding":"'
    ending = b'"}'
    filler = max(0, size - len(opening) - len(ending))

    async def pieces() -> AsyncIterator[bytes]:
        yield opening
        for start in range(0, filler, CHUNK):
            if wire.gone.is_set():
                return
            yield b"x" * min(CHUNK, filler - start)
            await asyncio.sleep(0)  # a piece that nobody reads any more is written at once: let others have their turn
        yield ending

    total = str(len(opening) + filler + len(ending))
    return StreamingResponse(pieces(), answer.status, {**answer.all_headers, "content-length": total})
