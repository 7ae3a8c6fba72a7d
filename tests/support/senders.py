"""Both transports behind one call, so that each claim is made of both under one test name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pacifica_provider.api.outcomes import Answer, TransportFailure
from pacifica_provider.api.transports import HttpRequest, HttpxTransport, RequestsTransport, base_headers
from tests.support.patience import PATIENCE_S

Sender = Callable[..., Answer | TransportFailure]


def by_requests(
    request: HttpRequest, *, timeout_s: float = PATIENCE_S, ca_file: str | None = None
) -> Answer | TransportFailure:
    """Send with the workers' transport."""
    return RequestsTransport(timeout_s=timeout_s, ca_file=ca_file)(request)


def by_httpx(
    request: HttpRequest, *, timeout_s: float = PATIENCE_S, ca_file: str | None = None
) -> Answer | TransportFailure:
    """Send with the triggerer's transport, in an event loop of its own."""

    async def send() -> Answer | TransportFailure:
        """Send within the loop."""
        async with HttpxTransport(timeout_s=timeout_s, ca_file=ca_file) as transport:
            return await transport(request)

    return asyncio.run(send())


SENDERS = {"requests": by_requests, "httpx": by_httpx}


def get(url: str) -> HttpRequest:
    """Return a GET as the client makes it."""
    return HttpRequest("GET", url, base_headers())


def post(url: str, body: bytes = b'{"a":1}') -> HttpRequest:
    """Return a POST as the client makes it."""
    return HttpRequest("POST", url, {**base_headers(), "Content-Type": "application/json"}, body)
