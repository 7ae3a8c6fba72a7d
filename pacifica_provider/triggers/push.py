"""
News from Pacifica's WebSocket: that a withdrawal of the account was confirmed.

A push that says everything can prove a settlement (``withdrawals/settlement.py``), any other is a hint to look, and a
missing one means nothing: the watcher looks for itself, seldom while the socket is healthy. No key is sent here.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import random
import time
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from pacifica_provider.api.amounts import parse_wire_amount
from pacifica_provider.api.models import parse_batch_nonce
from pacifica_provider.withdrawals.matching import shown_amounts
from pacifica_provider.withdrawals.settlement import Confirmation

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacifica_provider.triggers.waiters import Batch

log = logging.getLogger(__name__)

CHANNEL = "account_transfers"
PING_EVERY_S = 15.0
SILENCE_S = 30.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 600.0
_LARGEST_MESSAGE = 64 * 1024
_OPEN_TIMEOUT_S = 10.0


class _SilentError(Exception):
    """The socket is open, but nothing answers."""


class Push:
    """
    One subscription to the transfers of an account, kept up for as long as ``run`` runs.

    :param url: the WebSocket's address.
    :param account: whose transfers.
    :param on_confirmed: called with the batch of each confirmed withdrawal, ``None`` where the message does not name
        it, and with the confirmation, ``None`` where the message does not say all of it.
    :param on_connected: called when the subscription stands; what happened before it was not heard.
    :param on_lost: called when it no longer does.
    """

    def __init__(
        self,
        url: str,
        account: str,
        *,
        on_confirmed: Callable[[Batch | None, Confirmation | None], None],
        on_connected: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._url = url
        self._account = account
        self._on_confirmed = on_confirmed
        self._on_connected = on_connected
        self._on_lost = on_lost
        self._heard_at: float | None = None
        self._failures = 0
        self._told = False

    @property
    def healthy(self) -> bool:
        """Whether the subscription stands and the other side was heard within the last half minute."""
        return self._heard_at is not None and time.monotonic() - self._heard_at < SILENCE_S

    async def run(self) -> None:
        """Subscribe, listen, and start again after whatever ends it; it only ends by being cancelled."""
        while True:
            try:
                socket = await connect(self._url, **_options())
                try:
                    await self._listen(socket)
                finally:
                    # Not a polite closing: that takes time, which a loop that is shutting down does not give.
                    socket.transport.abort()
            # The last is a certificate, or an address, that cannot be right; it is retried as seldom as the rest.
            except (_SilentError, WebSocketException, OSError, asyncio.TimeoutError, ValueError) as error:
                self._lost(error)
            finally:
                self._heard_at = None
                self._on_lost()
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._failures, 20))
            self._failures += 1
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret

    async def _listen(self, socket: ClientConnection) -> None:
        params = {"source": CHANNEL, "account": self._account}
        await socket.send(json.dumps({"method": "subscribe", "params": params}))
        last_heard = next_ping = time.monotonic()
        message = asyncio.ensure_future(socket.recv())
        try:
            while (now := time.monotonic()) - last_heard <= SILENCE_S:
                if now >= next_ping:
                    await socket.send('{"method":"ping"}')
                    next_ping = now + PING_EVERY_S
                # wait_for would do as well, but before Python 3.12 it can lose a cancellation.
                await asyncio.wait([message], timeout=next_ping - now)
                if message.done():
                    last_heard = time.monotonic()
                    self._hear(message.result())
                    message = asyncio.ensure_future(socket.recv())
        finally:
            message.cancel()
        raise _SilentError

    def _hear(self, text: str | bytes) -> None:
        message = json.loads(text)
        channel = message.get("channel") if isinstance(message, dict) else None
        if channel == "error":
            raise _SilentError
        connected = self._heard_at is not None
        # Answers come in order: a pong after the subscription says that it stands.
        if connected or channel == "pong":
            self._heard_at = time.monotonic()
        if not connected and channel == "pong":
            self._failures, self._told = 0, False
            log.debug("Pacifica's push is connected.")
            self._on_connected()
        if channel == CHANNEL:
            data = message.get("data")
            for transfer in data if isinstance(data, list) else [data]:
                self._transfer(transfer)

    def _transfer(self, data: Any) -> None:
        if not isinstance(data, dict) or data.get("e") != "withdrawal_confirmed":
            return
        if data.get("u") not in {None, self._account}:
            return
        try:
            batch = (str(data["a"]), parse_batch_nonce(data.get("bn")))
        except (KeyError, ValueError):  # the documentation calls the nonce optional
            batch = None
        self._on_confirmed(batch, None if batch is None else self._confirmation(data, batch))

    def _confirmation(self, data: dict[str, Any], batch: Batch) -> Confirmation | None:
        """Read a whole confirmation; ``None`` if a field is missing or odd, or the amounts do not add up."""
        transaction_id = data.get("tx")
        if data.get("u") != self._account or not isinstance(transaction_id, str) or not transaction_id:
            return None
        try:
            requested, amount, fee = (parse_wire_amount(data.get(name)) for name in ("ra", "am", "f"))
        except ValueError:
            return None
        if amount not in shown_amounts(requested, fee):
            return None
        return Confirmation(*batch, requested, amount, fee, transaction_id)

    def _lost(self, error: Exception) -> None:
        """Say once that there is no push; a reconnection says nothing, and the next loss speaks again."""
        if not self._told and self._failures:
            self._told = True
            log.info("Pacifica's push cannot be reached (%s); polling goes on without it.", type(error).__name__)


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
