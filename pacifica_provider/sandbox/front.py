"""What every request passes: the CDN's rule, credits, faults, the exchange, and the way back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from pacifica_provider.sandbox.answers import Answer, cloudfront, date_header, error_envelope, refusal
from pacifica_provider.sandbox.delivery import Closing, Nothing, Stopping, deliver, replaced
from pacifica_provider.sandbox.errors import Refused
from pacifica_provider.sandbox.faults import Fault, Faults
from pacifica_provider.sandbox.withdrawing import Withdrawing

if TYPE_CHECKING:
    from pacifica_provider.sandbox.exchange import Exchange
    from pacifica_provider.sandbox.reading import Reader
    from pacifica_provider.sandbox.wire import Wire

Endpoint = Callable[[Request], Awaitable[Response]]
Handler = Callable[[Request, bytes, Fault | None], Awaitable[Answer]]
WITHDRAW = "withdraw"


def wire_of(request: Request) -> Wire:
    """Return the connection under a request."""
    return cast("Wire", request.scope["state"]["wire"])


class Front:
    """Makes endpoints of handlers."""

    def __init__(self, exchange: Exchange, faults: Faults, closing: Closing) -> None:
        self._exchange = exchange
        self._faults = faults
        self._closing = closing
        self._withdrawing = Withdrawing(exchange, closing)

    def withdraw(self) -> Endpoint:
        """Return the endpoint of the withdraw POST."""

        async def handler(_request: Request, body: bytes, fault: Fault | None) -> Answer:
            """Answer a POST."""
            return await self._withdrawing.answer(body, fault)

        return self._endpoint(WITHDRAW, handler)

    def read(self, route: str, reader: Reader) -> Endpoint:
        """Return the endpoint of a GET."""

        async def handler(request: Request, _body: bytes, fault: Fault | None) -> Answer:
            """Answer a GET."""
            if fault is not None and fault.kind == "hang":
                await self._closing.pause(fault.number("seconds"))
            try:
                answer = reader(self._exchange, {**request.query_params, **request.path_params})
            except Refused as refused:
                answer = refusal(refused)
            return answer if fault is None else replaced(answer, fault)

        return self._endpoint(route, handler)

    async def missing(self, request: Request, problem: Exception) -> Response:
        """Answer what no endpoint answers: 404, or 405 for a wrong method."""
        status = int(getattr(problem, "status_code", 404))
        self._exchange.ledger.requests["other"] += 1
        answer = error_envelope(status, "Method not allowed" if status == 405 else "Not found")
        return await self._send(answer, None, wire_of(request))

    def _endpoint(self, route: str, handler: Handler) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            wire = wire_of(request)
            try:
                return await self._serve(route, handler, request, wire)
            except Stopping:
                wire.transport.abort()
                await wire.gone.wait()
            except ClientDisconnect:  # it left while still sending: there was no request
                pass
            return Nothing()

        return endpoint

    async def _serve(self, route: str, handler: Handler, request: Request, wire: Wire) -> Response:
        self._exchange.ledger.requests[route] += 1
        if request.method == "GET" and _has_body(request):
            return await self._send(cloudfront(), None, wire)
        client = request.client.host if request.client else ""
        standing = self._exchange.charge(client, request.headers.get("pf-api-key"), route)
        if not standing.allowed:
            answer = error_envelope(429, "Rate limit exceeded", error_id="rate_limited")
            return await self._send(answer.with_headers(standing.headers), None, wire)
        fault = self._faults.take(route)
        if fault is not None and fault.kind == "reset_request":
            return await _reset_while_reading(request, wire, int(fault.number("bytes")))
        answer = await handler(request, await request.body(), fault)
        return await self._send(answer.with_headers(standing.headers, answer.headers), fault, wire)

    async def _send(self, answer: Answer, fault: Fault | None, wire: Wire) -> Response:
        dated = answer.with_headers(date_header(self._exchange.now_ms()), answer.headers)
        return await deliver(dated, fault, wire, self._closing)


async def _reset_while_reading(request: Request, wire: Wire, size: int) -> Response:
    """Send RST as soon as `size` bytes of the body have come in: nothing of it reaches the exchange."""
    received = 0
    if size:
        async for piece in request.stream():
            received += len(piece)
            if received >= size:
                break
    await wire.reset()
    return Nothing()


def _has_body(request: Request) -> bool:
    length = request.headers.get("content-length", "0")
    return length.strip() not in ("", "0") or "transfer-encoding" in request.headers
