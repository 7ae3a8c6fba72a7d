"""
News from Pacifica's WebSocket: that a withdrawal of an account was confirmed.

A push that says everything can prove a settlement (``withdrawals/settlement.py``), any other is a hint to look, and a
missing one means nothing: whoever waits looks for himself, seldom while the socket is healthy. No key is sent here.
Twenty accounts share a connection, as many as Pacifica allows.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import logging
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from pacifica_provider.api.amounts import parse_wire_amount
from pacifica_provider.api.models import parse_batch_nonce
from pacifica_provider.triggers.schedule import sleep_until
from pacifica_provider.withdrawals.matching import shown_amounts
from pacifica_provider.withdrawals.settlement import Confirmation

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

CHANNEL = "account_transfers"
# Documented: subscriptions to one channel on one connection.
MOST_ACCOUNTS = 20
PING_EVERY_S = 15.0
SILENCE_S = 30.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 600.0
_LARGEST_MESSAGE = 64 * 1024
_OPEN_TIMEOUT_S = 10.0
_PING = '{"method":"ping"}'


class Heard(NamedTuple):
    """
    That a withdrawal was confirmed.

    ``batch`` is ``None`` where the message does not name it, ``confirmation`` where it does not say all of it.
    """

    batch: tuple[str, int] | None
    confirmation: Confirmation | None


class Subscription:
    """
    An account's news, from ``subscribe`` until ``close``.

    ``wake`` is set whenever there is something to take. ``gap``: it has begun to stand; what happened before was not
    heard.
    """

    def __init__(self, socket: _Socket, account: str, wake: asyncio.Event) -> None:
        self._socket = socket
        self._heard: list[Heard] = []
        self.account = account
        self.wake = wake
        self.gap = False

    @property
    def healthy(self) -> bool:
        """Whether a confirmation would be heard: it stands, and the other side was heard within half a minute."""
        return self._socket.hears(self.account)

    def take(self) -> tuple[list[Heard], bool]:
        """Return what was heard since, and whether something before it may have been missed."""
        heard, gap = self._heard, self.gap
        self._heard, self.gap = [], False
        return heard, gap

    def tell(self, heard: Heard) -> None:
        """Take something in."""
        self._heard.append(heard)
        self.wake.set()

    def close(self) -> None:
        """Listen no more; the last one closes the connection."""
        self._socket.remove(self)


_sockets: WeakKeyDictionary[asyncio.AbstractEventLoop, list[_Socket]] = WeakKeyDictionary()


def subscribe(url: str, account: str, wake: asyncio.Event) -> Subscription:
    """Listen to the transfers of an account, on a connection that has room, and again after whatever ends it."""
    sockets = _sockets.setdefault(asyncio.get_running_loop(), [])
    socket = next((each for each in sockets if each.url == url and each.has_room_for(account)), None)
    if socket is None:
        socket = _Socket(url)
        sockets.append(socket)
    return socket.add(account, wake)


class _SilentError(Exception):
    """The socket is open, but nothing answers."""


# What ends a connection; the last two are a message that nests too deeply, and a certificate, an address or a message
# that cannot be right: they are tried again as seldom as the rest.
_LOST = (_SilentError, WebSocketException, OSError, asyncio.TimeoutError, RecursionError, ValueError)


class _Socket:
    """One connection, kept up for as long as anybody listens on it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._listeners: dict[str, list[Subscription]] = {}
        self._changed = asyncio.Event()
        self._heard_at = float("-inf")
        # Of this connection: the accounts subscribed to, those whose subscription stands, those that were refused.
        self._subscribed: set[str] = set()
        self._standing: set[str] = set()
        self._refused: set[str] = set()
        # What each ping that is not answered yet asks for: an account's subscription, or None for a sign of life.
        self._asked: deque[str | None] = deque()
        self._failures = 0
        self._told = False
        # In a context of its own: what it logs belongs to no single task, least of all to the one that came first.
        self._loop = asyncio.get_running_loop()
        self._task = contextvars.Context().run(self._loop.create_task, self._run())
        self._task.add_done_callback(self._ended)

    def hears(self, account: str) -> bool:
        """Say whether this account's subscription stands, and the other side was heard within the last half minute."""
        return account in self._standing and time.monotonic() - self._heard_at < SILENCE_S

    def has_room_for(self, account: str) -> bool:
        """Say whether one more may listen here."""
        return account in self._listeners or len(self._listeners) < MOST_ACCOUNTS

    def add(self, account: str, wake: asyncio.Event) -> Subscription:
        """Take one in."""
        subscription = Subscription(self, account, wake)
        self._listeners.setdefault(account, []).append(subscription)
        self._changed.set()
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Let one go."""
        equal = self._listeners.get(subscription.account, [])
        if subscription in equal:
            equal.remove(subscription)
        if not equal:
            self._listeners.pop(subscription.account, None)
        self._changed.set()
        if not self._listeners:
            self._task.cancel()
            self._leave()

    def _leave(self) -> None:
        sockets = _sockets.get(self._loop, [])
        if self in sockets:
            sockets.remove(self)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Without push everybody polls on; a defect here is worth a line, not ten thousand failed tasks."""
        self._leave()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("Pacifica's push ended (%s); polling goes on without it.", type(error).__name__)

    async def _run(self) -> None:
        """Connect, subscribe, listen, and start again after whatever ends it; it only ends by being cancelled."""
        while True:
            try:
                socket = await connect(self.url, **_options())
                try:
                    await self._serve(socket)
                finally:
                    # Not a polite closing: that takes time, which a loop that is shutting down does not give.
                    socket.transport.abort()
            except _LOST as error:
                self._say_lost(error)
            finally:
                self._forget()
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._failures, 20))
            self._failures += 1
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret

    def _forget(self) -> None:
        """Nothing stands any more."""
        self._heard_at = float("-inf")
        for known in (self._subscribed, self._standing, self._refused, self._asked):
            known.clear()
        for subscription in self._everybody():
            subscription.wake.set()

    async def _serve(self, socket: ClientConnection) -> None:
        jobs = [asyncio.ensure_future(job(socket)) for job in (self._speak, self._listen)]
        try:
            done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
            for job in done:
                job.result()
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.wait(jobs)

    async def _speak(self, socket: ClientConnection) -> None:
        """Subscribe to who is new, each with a ping whose answer says that it stands; unsubscribe who has left."""
        next_ping = time.monotonic()
        while True:
            self._changed.clear()
            for account in self._subscribed - set(self._listeners):
                self._subscribed.discard(account)
                self._standing.discard(account)
                await socket.send(_message("unsubscribe", account))
            for account in [account for account in self._listeners if account not in self._subscribed]:
                self._subscribed.add(account)
                self._asked.append(account)
                await socket.send(_message("subscribe", account))
                await socket.send(_PING)
            if time.monotonic() >= next_ping:
                next_ping = time.monotonic() + PING_EVERY_S
                self._asked.append(None)
                await socket.send(_PING)
            await sleep_until(next_ping, self._changed)

    async def _listen(self, socket: ClientConnection) -> None:
        while True:
            message = asyncio.ensure_future(socket.recv())
            try:
                # wait_for would do as well, but before Python 3.12 it can lose a cancellation.
                await asyncio.wait([message], timeout=SILENCE_S)
                if not message.done():
                    raise _SilentError
                self._heard_at = time.monotonic()
                self._hear(message.result())
            finally:
                message.cancel()

    def _hear(self, text: str | bytes) -> None:
        message = json.loads(text)
        channel = message.get("channel") if isinstance(message, dict) else None
        if channel == "error":
            # Answers come in order: it is about what the next pong asks for.
            if not self._asked or self._asked[0] is None:
                raise _SilentError
            self._refused.add(self._asked[0])
        elif channel == "pong" and self._asked:
            self._stands(self._asked.popleft())
        elif channel == CHANNEL:
            data = message.get("data")
            for transfer in data if isinstance(data, list) else [data]:
                self._transfer(transfer)

    def _stands(self, account: str | None) -> None:
        self._failures, self._told = 0, False
        if account in self._listeners and account not in self._refused:
            log.debug("Pacifica's push for account %s is connected.", account)
            self._standing.add(account)
            for subscription in self._listeners[account]:
                subscription.gap = True
                subscription.wake.set()

    def _transfer(self, data: Any) -> None:
        if not isinstance(data, dict) or data.get("e") != "withdrawal_confirmed":
            return
        heard, whose = _read(data), data.get("u")
        # Without an account, or with an odd one, it may be anybody's.
        listeners = self._listeners.get(whose, ()) if isinstance(whose, str) else list(self._everybody())
        for subscription in listeners:
            subscription.tell(heard)

    def _everybody(self) -> Iterator[Subscription]:
        for equal in self._listeners.values():
            yield from equal

    def _say_lost(self, error: Exception) -> None:
        """Say once that there is no push; a reconnection says nothing, and the next loss speaks again."""
        if not self._told and self._failures:
            self._told = True
            log.info("Pacifica's push cannot be reached (%s); polling goes on without it.", type(error).__name__)


def _message(method: str, account: str) -> str:
    return json.dumps({"method": method, "params": {"source": CHANNEL, "account": account}})


def _read(data: dict[str, Any]) -> Heard:
    """Read a confirmation as far as it can be: a field may be missing or odd, or the amounts may not add up."""
    try:
        batch = (str(data["a"]), parse_batch_nonce(data.get("bn")))
    except (KeyError, ValueError):  # the documentation calls the nonce optional
        return Heard(None, None)
    transaction_id = data.get("tx")
    if not isinstance(data.get("u"), str) or not isinstance(transaction_id, str) or not transaction_id:
        return Heard(batch, None)
    try:
        requested, amount, fee = (parse_wire_amount(data.get(name)) for name in ("ra", "am", "f"))
    except ValueError:
        return Heard(batch, None)
    whole = amount in shown_amounts(requested, fee)
    return Heard(batch, Confirmation(*batch, requested, amount, fee, transaction_id) if whole else None)


def _options() -> dict[str, Any]:
    options: dict[str, Any] = {
        "compression": None,
        "ping_interval": None,  # the exchange counts its own pings, not the protocol's
        "open_timeout": _OPEN_TIMEOUT_S,
        "close_timeout": 1,
        "max_size": _LARGEST_MESSAGE,
    }
    # From websockets 15 on; before it no proxy was ever used.
    if "proxy" in inspect.signature(connect.__init__).parameters:
        options["proxy"] = None
    return options
