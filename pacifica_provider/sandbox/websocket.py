"""The WebSocket channel `account_transfers`."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, cast

from starlette.websockets import WebSocket, WebSocketDisconnect

from pacifica_provider.sandbox.accounts import padded
from pacifica_provider.sandbox.withdrawals import Withdrawal, shown_nonce, to_ms

if TYPE_CHECKING:
    from pacifica_provider.sandbox.exchange import Exchange
    from pacifica_provider.sandbox.responses import Wire

CHANNEL = "account_transfers"
LOOK_S = 0.05
# Documented: subscriptions to one channel on one connection, and connections from one address.
MOST_ACCOUNTS = 20
MOST_CONNECTIONS = 300
GOING_AWAY = 1001
Json = dict[str, object]


class Subscriber:
    """One socket: what it listens to, and what still has to be sent to it."""

    def __init__(self, wire: Wire, now_ms: int) -> None:
        self.wire = wire
        self.opened_at = self.heard_at = now_ms
        self.accounts: set[str] = set()
        self.outbox: asyncio.Queue[Json] = asyncio.Queue()


class Feed:
    """All open sockets."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._subscribers: set[Subscriber] = set()
        self.mode = "accept"  # or "refuse", or "silence"
        exchange.listeners.append(self.publish)

    @property
    def connections(self) -> int:
        """How many sockets are open."""
        return len(self._subscribers)

    def cut(self) -> int:
        """Reset every socket, and say how many there were."""
        for subscriber in self._subscribers:
            subscriber.wire.cut()
        return len(self._subscribers)

    def publish(self, kind: str, row: Withdrawal) -> None:
        """Send a transfer to whoever listens to the account."""
        event: Json = {"channel": CHANNEL, "data": self._data(kind, row)}
        for subscriber in self._subscribers:
            if row.account in subscriber.accounts:
                subscriber.outbox.put_nowait(event)

    def _data(self, kind: str, row: Withdrawal) -> Json:
        confirmed = kind == "withdrawal_confirmed"
        data: Json = {
            "u": row.account,
            "e": kind,
            "a": row.symbol,
            "am": padded(row.net),
            "t": self._exchange.now_ms() if confirmed else row.created_at,
            "bn": shown_nonce(row.batch_nonce, self._exchange.options),
            "ra": padded(row.amount),
            "f": padded(row.fee),
        }
        return {**data, "tx": row.transaction_id} if confirmed else data

    async def endpoint(self, socket: WebSocket) -> None:
        """Serve one socket until either side ends it."""
        if self.mode == "refuse" or len(self._subscribers) >= MOST_CONNECTIONS:
            await socket.close()
            return
        await socket.accept()
        subscriber = Subscriber(cast("Wire", socket.scope["state"]["wire"]), self._exchange.now_ms())
        self._subscribers.add(subscriber)
        jobs = [asyncio.ensure_future(job(socket, subscriber)) for job in (self._listen, self._speak)]
        try:
            await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._subscribers.discard(subscriber)
            for job in jobs:
                job.cancel()
            for job in jobs:
                with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, OSError):
                    await job

    async def _listen(self, socket: WebSocket, subscriber: Subscriber) -> None:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            subscriber.heard_at = self._exchange.now_ms()
            if self.mode != "silence":
                subscriber.outbox.put_nowait(_reply(message.get("text"), subscriber))

    async def _speak(self, socket: WebSocket, subscriber: Subscriber) -> None:
        while True:
            if self._expired(subscriber):
                await socket.close(GOING_AWAY)
                return
            with contextlib.suppress(asyncio.TimeoutError):
                message = await asyncio.wait_for(subscriber.outbox.get(), LOOK_S)
                if self.mode != "silence":
                    await socket.send_text(json.dumps(message, separators=(",", ":")))

    def _expired(self, subscriber: Subscriber) -> bool:
        now, options = self._exchange.now_ms(), self._exchange.options
        silent = now - subscriber.heard_at >= to_ms(options.ws_idle_timeout_s)
        return silent or now - subscriber.opened_at >= to_ms(options.ws_max_age_s)


def _reply(text: object, subscriber: Subscriber) -> Json:
    try:
        message = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        message = None
    content = message if isinstance(message, dict) else {}
    if content.get("method") == "ping":
        return {"channel": "pong"}
    params = content.get("params")
    source, account = (params.get("source"), params.get("account")) if isinstance(params, dict) else (None, None)
    if source != CHANNEL or not isinstance(account, str):
        return _error(f"expected a ping, or params with source {CHANNEL!r} and an account")
    if content.get("method") == "subscribe":
        if len(subscriber.accounts | {account}) > MOST_ACCOUNTS:
            return _error(f"at most {MOST_ACCOUNTS} subscriptions to a channel on one connection")
        subscriber.accounts.add(account)
    elif content.get("method") == "unsubscribe":
        subscriber.accounts.discard(account)
    else:
        return _error("unknown method")
    return {"channel": content["method"], "data": {"source": source, "account": account}}


def _error(text: str) -> Json:
    return {"channel": "error", "code": 400, "error": text}
