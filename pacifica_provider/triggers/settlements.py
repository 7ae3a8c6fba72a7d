"""Every settled withdrawal of an account, as a stream that any number of triggers can share."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pacifica_provider.api.client import Endpoints, run_async
from pacifica_provider.exceptions import ConfigurationError, Retryable
from pacifica_provider.hooks.lookup import settings_of
from pacifica_provider.triggers.push import subscribe
from pacifica_provider.triggers.rate_limit import LIGHT_COST, shared_transport
from pacifica_provider.triggers.schedule import PollSchedule, sleep_until
from pacifica_provider.triggers.watcher import read_pending

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from pacifica_provider.api.client import Listing
    from pacifica_provider.api.models import PendingWithdrawal, SettledWithdrawal
    from pacifica_provider.hooks.settings import ConnectionSettings
    from pacifica_provider.triggers.poll import Batch
    from pacifica_provider.triggers.push import Subscription
    from pacifica_provider.triggers.rate_limit import MeteredTransport

log = logging.getLogger(__name__)

PAUSE_S = 60.0
PUSH_INTERVAL_S = 300.0
READ_ALL_EVERY_S = 6 * 3600.0
# Clocks differ and lists lag; an hour of rows read again costs little.
SLACK_MS = 60 * 60_000


@dataclass(frozen=True, slots=True)
class News:
    """
    What is settled as of now, and what to do once the events that came of it are safe in Airflow's database.

    ``floor_ms``: no row older than this can still appear.
    """

    account: str
    environment: str
    base_url: str
    rows: tuple[SettledWithdrawal, ...]
    floor_ms: int
    once_stored: list[Callable[[], Awaitable[None]]] = field(default_factory=list, repr=False)

    async def stored(self) -> None:
        """Do it: the events are safe."""
        for act in self.once_stored:
            await act()


async def news(conn_id: str, poll_interval: float) -> AsyncIterator[News]:
    """
    Yield the account's settled withdrawals whenever they have been read, and again every ``poll_interval``.

    The repetition costs no request; it lets a trigger that joins late begin. It never ends and never raises for
    anything that the exchange or the connection does: what cannot be used is tried again every minute.
    """
    while True:
        settings = await _usable_settings(conn_id)
        wake = asyncio.Event()
        push = subscribe(settings.ws_url, settings.account, wake)
        try:
            async with shared_transport(settings) as transport:
                stream = _Stream(settings, transport, push, poll_interval)
                while True:
                    wake.clear()
                    await stream.poll_if_due()
                    if stream.rows is not None:
                        yield News(
                            settings.account, settings.environment, settings.base_url, stream.rows, stream.floor_ms
                        )
                    await sleep_until(min(stream.due(), time.monotonic() + poll_interval), wake)
        except ConfigurationError:
            continue  # refused for minutes, and logged: the connection may have been corrected
        finally:
            push.close()


async def _usable_settings(conn_id: str) -> ConnectionSettings:
    told = ""
    while True:
        try:
            return await settings_of(conn_id)
        except ConfigurationError as error:
            # Raised, it would make the triggerer start the trigger anew each second.
            if str(error) != told:
                log.error("Cannot watch for settled withdrawals, will try again every minute: %s", error)  # noqa: TRY400 - no trace: it may quote anything
                told = str(error)
            await asyncio.sleep(PAUSE_S)


class _Stream:
    """Reads both lists when it is due; ``rows`` is ``None`` until they have been read."""

    def __init__(
        self, settings: ConnectionSettings, transport: MeteredTransport, push: Subscription, interval: float
    ) -> None:
        self.rows: tuple[SettledWithdrawal, ...] | None = None
        self.floor_ms = 0
        self._transport = transport
        self._push = push
        self._interval = interval
        self._endpoints = Endpoints(settings.base_url, settings.account, api_config_key=settings.api_config_key)
        self._schedule = PollSchedule(settings.account, PUSH_INTERVAL_S)
        self._schedule.want(time.monotonic())
        self._read_all_at = float("-inf")
        # What was pushed and is not in the history yet, None for a batch that was not named; and since when.
        self._pushed: dict[Batch | None, float] = {}

    def due(self) -> float:
        """Return when the next poll is due."""
        cost = LIGHT_COST + self._transport.heavy_cost
        return self._schedule.due(self._interval, self._transport.limiter, cost, push=self._push.healthy)

    async def poll_if_due(self) -> None:
        """
        Poll, if it is due.

        :raises ConfigurationError: if the exchange has refused the connection for minutes.
        """
        now = time.monotonic()
        heard, gap = self._push.take()
        for batch, _ in heard:
            self._pushed[batch] = now
            self._schedule.pushed(now)
        if gap:
            self._schedule.want(now)
        if self.due() > time.monotonic():
            return
        self._schedule.started(now)
        try:
            await self._read_lists()
        except (Retryable, ConfigurationError) as error:
            if self._schedule.failed(now, self._interval, error):
                raise
        else:
            self._schedule.succeeded()

    async def _read_lists(self) -> None:
        now = time.monotonic()
        read_all = now - self._read_all_at >= READ_ALL_EVERY_S
        floor_ms = await read_pending(self._endpoints, self._transport, _floor_ms)
        since_ms = 0 if read_all else self.floor_ms
        history = await run_async(self._endpoints.history(since_ms), self._transport)
        fresh = (row for row in history.rows if row.created_at_ms >= since_ms)
        self.rows = (*fresh, *(row for row in self.rows or () if row.created_at_ms < since_ms))
        self.floor_ms = floor_ms
        if read_all:
            self._read_all_at = now
        shown = {(row.symbol, row.batch_nonce) for row in history.rows if row.transaction_id}
        self._pushed = {
            batch: at
            for batch, at in self._pushed.items()
            if batch not in shown and (batch is not None or self._schedule.following)
        }
        if not self._pushed:
            self._schedule.done_following()
        self._schedule.unseen(None if not self._pushed else now - max(self._pushed.values()))


def _floor_ms(pending: Listing[PendingWithdrawal]) -> int:
    """Return a time so old that no row of it can still appear in the history."""
    now_ms = pending.server_time_ms or time.time_ns() // 1_000_000
    return min([now_ms, *(row.created_at_ms for row in pending.rows)]) - SLACK_MS
