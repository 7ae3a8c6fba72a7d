"""The web application: endpoints, control interface and WebSocket on one port."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

from pacifica_provider.sandbox.answers import as_json, date_header
from pacifica_provider.sandbox.control import Control
from pacifica_provider.sandbox.delivery import Closing, Nothing
from pacifica_provider.sandbox.errors import BadControl
from pacifica_provider.sandbox.faults import Faults
from pacifica_provider.sandbox.feed import Feed
from pacifica_provider.sandbox.front import Front
from pacifica_provider.sandbox.reading import READERS

if TYPE_CHECKING:
    from pacifica_provider.sandbox.exchange import Exchange

API = "/api/v1"
WITHDRAW_PATH = f"{API}/account/spot_asset/withdraw"
METHODS = ["GET", "POST", "DELETE", "PUT", "PATCH"]


class Application:
    """Everything that runs in the server's event loop."""

    def __init__(self, exchange: Exchange, base_url: str) -> None:
        self.closing = Closing()
        self._exchange = exchange
        faults, feed = Faults(), Feed(exchange)
        self.control = Control(exchange, faults, feed, base_url)
        front = Front(exchange, faults, self.closing)
        reads = [
            Route(API + path, front.read(name, reader), methods=["GET"]) for name, (path, reader) in READERS.items()
        ]
        self.asgi = Starlette(
            routes=[
                Route(WITHDRAW_PATH, front.withdraw(), methods=["POST"]),
                *reads,
                Route("/control{path:path}", self._control, methods=METHODS),
                WebSocketRoute("/ws", feed.endpoint),
            ],
            exception_handlers={404: front.missing, 405: front.missing},
        )
        self.asgi.router.redirect_slashes = False

    async def _control(self, request: Request) -> Response:
        try:
            body = await request.body()
        except ClientDisconnect:
            return Nothing()
        try:
            wish = json.loads(body) if body else {}
            answer = as_json(200, self.control.dispatch(request.method, request.path_params["path"], wish))
        except BadControl as problem:
            answer = as_json(400, {"error": str(problem)})
        except (ValueError, RecursionError):
            answer = as_json(400, {"error": "the body is not JSON"})
        dated = answer.with_headers(date_header(self._exchange.now_ms()))
        return Response(dated.body, dated.status, dated.all_headers)
