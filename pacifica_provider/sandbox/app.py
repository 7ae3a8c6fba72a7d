"""The web application: endpoints, control interface and WebSocket on one port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route, WebSocketRoute

from pacifica_provider.sandbox.accounts import Refused
from pacifica_provider.sandbox.control import Control
from pacifica_provider.sandbox.endpoints import READS, WITHDRAW, accepted, withdraw
from pacifica_provider.sandbox.faults import (
    Close,
    DuplicateInProgress,
    Echo,
    Fault,
    Faults,
    Hang,
    NoDate,
    Reset,
    ResetRequest,
)
from pacifica_provider.sandbox.requests import Order, read_json
from pacifica_provider.sandbox.responses import (
    Answer,
    NoResponse,
    Wire,
    as_json,
    cloudfront,
    deliver,
    error_envelope,
    pause,
    refusal,
    replaced,
)
from pacifica_provider.sandbox.solana import SOLANA
from pacifica_provider.sandbox.solana import answer as chain_answer
from pacifica_provider.sandbox.websocket import Feed

if TYPE_CHECKING:
    from starlette.responses import Response

    from pacifica_provider.sandbox.exchange import Exchange
    from pacifica_provider.sandbox.openapi import Operation

OUTCOMES = {409: "duplicate", 422: "rejected", 400: "refused"}
FORGED_NONCE = 999_999_999
Handler = Callable[[Request, bytes, "Fault | None"], Awaitable[Answer]]


class Application:
    """Everything that runs in the server's event loop. Set `closing` to send home whoever is held."""

    def __init__(self, exchange: Exchange, base_url: str) -> None:
        self.closing = asyncio.Event()
        faults, feed = Faults(), Feed(exchange)
        gateway = Gateway(exchange, faults, self.closing)
        self.control = Control(exchange, faults, feed, base_url)
        self.asgi = Starlette(
            routes=[*gateway.routes(), *self.control.routes(), WebSocketRoute("/ws", feed.endpoint)],
            exception_handlers={404: gateway.missing, 405: gateway.missing},
        )
        self.asgi.router.redirect_slashes = False


class Gateway:
    """The exchange's endpoints, and what every request passes: the CDN's rule, credits, faults, and the way back."""

    def __init__(self, exchange: Exchange, faults: Faults, closing: asyncio.Event) -> None:
        self._exchange = exchange
        self._faults = faults
        self._closing = closing
        # The (account, key) of each request that is held before its commit.
        self._held: dict[tuple[str, str], asyncio.Event] = {}

    def routes(self) -> list[Route]:
        """Return the routes."""
        reads = [Route(read.path, self._read(read), methods=[read.method]) for read in READS]
        posts = [(WITHDRAW, self._withdraw), (SOLANA, self._solana)]
        return [
            *(Route(each.path, self._endpoint(each.name, answer), methods=["POST"]) for each, answer in posts),
            *reads,
        ]

    async def missing(self, request: Request, problem: Exception) -> Response:
        """Answer what no endpoint answers: 404, or 405 for a wrong method."""
        status = int(getattr(problem, "status_code", 404))
        self._exchange.requests["other"] += 1
        answer = error_envelope(status, "Method not allowed" if status == 405 else "Not found")
        return answer.dated(self._exchange.now_ms()).response

    def _endpoint(self, route: str, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            wire = cast("Wire", request.scope["state"]["wire"])
            try:
                return await self._serve(route, handler, request, wire)
            except ClientDisconnect:  # it left while it was still sending; or the sandbox stops
                await wire.drop()
            return NoResponse()

        return endpoint

    async def _serve(self, route: str, handler: Handler, request: Request, wire: Wire) -> Response:
        self._exchange.requests[route] += 1
        if request.method == "GET" and _has_body(request):
            return cloudfront().dated(self._exchange.now_ms()).response
        client = request.client.host if request.client else ""
        credit_headers: Mapping[str, str] = {}
        if route != SOLANA.name:  # which is another's server
            status = self._exchange.charge(client, request.headers.get("pf-api-key"), route)
            credit_headers = status.headers
            if not status.allowed:
                answer = error_envelope(429, "Rate limit exceeded", error_id="rate_limited").with_headers(
                    status.headers
                )
                return answer.dated(self._exchange.now_ms()).response
        fault = self._faults.take(route)
        if isinstance(fault, ResetRequest):
            await _read_part(request, fault.bytes)
            await wire.reset()
            return NoResponse()
        answer = await handler(request, await request.body(), fault)
        dated = answer.with_headers(credit_headers, answer.headers).dated(self._exchange.now_ms())
        return await deliver(dated, fault, wire, self._closing)

    def _read(self, read: Operation) -> Callable[[Request], Awaitable[Response]]:
        async def handler(request: Request, _body: bytes, fault: Fault | None) -> Answer:
            """Answer a GET."""
            if isinstance(fault, Hang):
                await pause(self._closing, fault.seconds)
            try:
                answer = as_json(200, read.answers(self._exchange, {**request.query_params, **request.path_params}))
            except Refused as refused:
                answer = refusal(refused)
            return replaced(answer, fault)

        return self._endpoint(read.name, handler)

    async def _solana(self, _request: Request, body: bytes, fault: Fault | None) -> Answer:
        """Answer for the chain."""
        if isinstance(fault, Hang):
            await pause(self._closing, fault.seconds)
        return replaced(as_json(200, chain_answer(self._exchange, body)), fault)

    async def _withdraw(self, _request: Request, body: bytes, fault: Fault | None) -> Answer:
        """Process a withdraw POST, and write down what became of it."""
        post = self._exchange.open_post(body)
        try:
            post.outcome, answer = await self._process(body, fault, post.received_at)
            if not isinstance(fault, Reset | Close):  # of those nothing reaches the client as an HTTP status
                post.status = answer.status
        finally:
            if post.outcome == "in_progress":
                post.outcome = "abandoned"
            post.fault = None if fault is None else fault.label
        return answer

    async def _process(self, body: bytes, fault: Fault | None, received_at: int) -> tuple[str, Answer]:
        """Return what becomes of a POST, and its answer. Here is where in its course a fault strikes."""
        claim = self._claim(body, received_at)
        if claim in self._held and self._exchange.options.conflict_in_progress:
            return "duplicate", refusal(self._exchange.duplicate())
        while claim is not None and claim in self._held:
            await self._held[claim].wait()
        if isinstance(fault, Hang) and fault.before_commit:
            await self._hold(claim, fault.seconds)
            return self._answered(body, received_at)
        if fault is not None and fault.before_commit and not isinstance(fault, NoDate):
            return "not_executed", self._not_executed(body, fault, received_at)
        outcome, answer = self._answered(body, received_at)
        if isinstance(fault, Hang):
            await pause(self._closing, fault.seconds)
        return outcome, self._distorted(answer, fault)

    def _claim(self, body: bytes, received_at: int) -> tuple[str, str] | None:
        """Return what a held request keeps others from: nothing, unless it is in order and has a key."""
        order = self._authentic(body, received_at)
        return None if order is None or order.idempotency_key is None else (order.account, order.idempotency_key)

    def _authentic(self, body: bytes, received_at: int) -> Order | None:
        try:
            return self._exchange.authenticate(body, received_at=received_at)
        except Refused:
            return None

    async def _hold(self, claim: tuple[str, str] | None, seconds: float) -> None:
        if claim is None:
            return await pause(self._closing, seconds)
        done = self._held[claim] = asyncio.Event()
        try:
            await pause(self._closing, seconds)
        finally:
            del self._held[claim]
            done.set()

    def _answered(self, body: bytes, received_at: int) -> tuple[str, Answer]:
        try:
            return "accepted", as_json(200, withdraw(self._exchange, body, received_at))
        except Refused as refused:
            return OUTCOMES[refused.status], refusal(refused)

    def _not_executed(self, body: bytes, fault: Fault, received_at: int) -> Answer:
        """Return what the client sees of a request that the exchange never carried out."""
        if isinstance(fault, Echo):
            return _echo(_forged(body), fault)
        answer = self._distorted(error_envelope(503, "Service unavailable"), fault)
        order = self._authentic(body, received_at)
        if order is not None and (answer.status >= 500 or answer.status == 422):
            self._exchange.burn(order)
        return answer

    def _distorted(self, answer: Answer, fault: Fault | None) -> Answer:
        if isinstance(fault, DuplicateInProgress):
            return refusal(self._exchange.duplicate())
        return _echo(answer, fault) if isinstance(fault, Echo) else replaced(answer, fault)


def _forged(body: bytes) -> Answer:
    """Return a receipt for a withdrawal that never was."""
    try:
        seen = read_json(body)
    except Refused as refused:
        return refusal(refused)
    receipt = {"symbol": seen.get("symbol"), "requested_amount": seen.get("amount")}
    return as_json(200, accepted({**receipt, "batch_nonce": FORGED_NONCE, "fee_amount": "0.00100000"}))


def _echo(answer: Answer, fault: Echo) -> Answer:
    """Return a receipt for something else; a refusal has nothing to echo."""
    if answer.status != 200:
        return answer
    content = json.loads(answer.body)
    renamed = {
        "symbol": "symbol",
        "amount": "requested_amount",
        "fee_amount": "fee_amount",
        "batch_nonce": "batch_nonce",
    }
    told = {shown: getattr(fault, name) for name, shown in renamed.items() if name in fault.model_fields_set}
    content["data"].update(told)
    return replace(answer, body=as_json(200, content).body)


async def _read_part(request: Request, size: int) -> None:
    """Read until `size` bytes of the body have come in."""
    received = 0
    if size:
        async for piece in request.stream():
            received += len(piece)
            if received >= size:
                return


def _has_body(request: Request) -> bool:
    length = request.headers.get("content-length", "0")
    return length.strip() not in ("", "0") or "transfer-encoding" in request.headers
