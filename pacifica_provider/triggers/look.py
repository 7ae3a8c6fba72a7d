"""One look at the lists: what is read, and what it means for those who wait."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

from pacifica_provider.api.client import run_async
from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.triggers.listening import Snapshot
from pacifica_provider.triggers.readings import read_pending
from pacifica_provider.triggers.search import Search, judged
from pacifica_provider.withdrawals.settlement import QUEUED, is_pending

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from decimal import Decimal

    from pacifica_provider.api.client import Endpoints, Listing
    from pacifica_provider.api.models import PendingWithdrawal
    from pacifica_provider.triggers.budget import MeteredTransport
    from pacifica_provider.triggers.readings import HistoryIndex, PendingIndex
    from pacifica_provider.triggers.waiters import Waiter
    from pacifica_provider.triggers.watcher import Watcher

log = logging.getLogger(__name__)

FEE_AGE_S = 600.0
# Clocks differ by seconds and lists lag by half a minute; ten minutes cost nothing where rows are few.
SLACK_MS = 10 * 60_000
LISTEN_SLACK_MS = 60 * 60_000
LISTEN_ALL_EVERY_S = 6 * 3600.0
LISTEN_PUSH_INTERVAL_S = 300.0
# For so long a pushed batch makes every look read the history, if that does not show it.
PUSH_AGE_S = 600.0
# So many waiters are judged in a row: some ten milliseconds.
BREATH = 1000


class Look:
    """Reads the lists for a watcher and judges its waiters; remembers fees and what was pending."""

    def __init__(self, watcher: Watcher, endpoints: Endpoints) -> None:
        self._watcher = watcher
        self._endpoints = endpoints
        self._fees: dict[str, tuple[float, Decimal | None]] = {}
        self._pending: Counter[PendingWithdrawal] = Counter()
        self._floor_ms: int | None = None
        self._listened_at = self._listened_all_at = float("-inf")

    async def run(self, waiters: Sequence[Waiter], transport: MeteredTransport) -> None:
        """
        Look once.

        :raises Retryable: if a list could not be read; nobody has been judged by it.
        :raises ConfigurationError: if the exchange refuses to show it.
        """
        pending, index = await read_pending(self._endpoints, transport)
        gone = await _gone(waiters, index)
        vanished = self._note_pending(pending)
        if not (self._history_due(gone) or (self._watcher.listeners and self._listening_due(vanished=vanished))):
            self._forget_pushes(())
            return
        since_ms, begun = self._since_ms(gone), time.monotonic()
        search = Search(gone, self._watcher.settle)
        enough = None if self._watcher.listeners else search.file_and_ask
        history = await run_async(self._endpoints.history(since_ms, enough), transport)
        self._watcher.pace.last_history = time.monotonic()
        for row in history.rows[search.filed :]:
            search.file_and_ask(row)
        for waiter in search.rest():
            fee = await self._fee(waiter, search.rows, transport)
            if (event := judged(waiter, search.rows, fee)) is not None:
                self._watcher.settle(waiter, event)
        missed = [waiter for waiter in gone if waiter in self._watcher.waiters]
        self._watcher.pace.unseen(_youngest(missed), self._watcher.pace.last_history - begun)
        self._tell_listeners(Snapshot(history.rows, since_ms, self._floor_ms or 0))
        self._forget_pushes({(row.symbol, row.batch_nonce) for row in history.rows if row.transaction_id})

    def _history_due(self, gone: Sequence[Waiter]) -> bool:
        if not gone:
            self._watcher.pace.unseen(None)
            return False
        new = any(waiter.waiting.missing_since_ms is None for waiter in gone)
        return new or self._watcher.pace.history_due(time.monotonic(), self._watcher.interval)

    def _since_ms(self, gone: Sequence[Waiter]) -> int | None:
        """
        Return how far back the history must be read.

        A row's time is that of the request or of the settlement, so it is not before the request. Where the time of
        that is not known for somebody, everything is read.
        """
        bounds = [None if waiter.since_ms is None else waiter.since_ms - SLACK_MS for waiter in gone]
        if self._watcher.listeners:
            now = time.monotonic()
            wants_all = any(listener.wants_all for listener in self._watcher.listeners)
            if wants_all or now - self._listened_all_at >= LISTEN_ALL_EVERY_S:
                bounds.append(None)
            else:
                bounds.append(self._floor_ms)
        return None if None in bounds else min((bound for bound in bounds if bound is not None), default=None)

    async def _fee(self, waiter: Waiter, rows: HistoryIndex, transport: MeteredTransport) -> Decimal | None:
        """Return a withdrawal's fee: its receipt's or pending row's, else the asset's present one where needed."""
        if waiter.fee is not None or not rows.needs_fee(waiter.awaited):
            return waiter.fee
        symbol, now = waiter.awaited.symbol, time.monotonic()
        read_at, fee = self._fees.get(symbol, (float("-inf"), None))
        if now - read_at > FEE_AGE_S:
            try:
                fee = (await run_async(self._endpoints.bridge_parameters(symbol), transport)).withdrawal_fee
            except ConfigurationError as error:  # no bridge any more: then the history must show the gross amount
                log.warning("The fee of %s is not known: %s", symbol, error)
                fee = None
            self._fees[symbol] = (now, fee)
        return fee

    def _note_pending(self, pending: Listing[PendingWithdrawal]) -> bool:
        """Remember what is pending, for the listeners alone; say whether something has left since the last look."""
        if not self._watcher.listeners:
            self._pending.clear()
            return False
        before, self._pending = self._pending, Counter(pending.rows)
        now_ms = pending.server_time_ms or time.time_ns() // 1_000_000
        open_ms = [row.created_at_ms for row in (*before, *self._pending)]
        self._floor_ms = min([now_ms, *open_ms]) - LISTEN_SLACK_MS
        return bool(before - self._pending)

    def _listening_due(self, *, vanished: bool) -> bool:
        listeners = self._watcher.listeners
        interval = min(listener.interval for listener in listeners)
        if self._watcher.push_is_healthy:
            interval = max(interval, LISTEN_PUSH_INTERVAL_S)
        pushed = bool(self._watcher.pushed)
        late = time.monotonic() - self._listened_at >= 0.9 * interval
        return vanished or pushed or late or any(listener.wants_all for listener in listeners)

    def _tell_listeners(self, snapshot: Snapshot) -> None:
        if self._watcher.listeners:
            self._listened_at = time.monotonic()
            if snapshot.since_ms is None:
                self._listened_all_at = self._listened_at
        for listener in self._watcher.listeners:
            listener.deliver(snapshot)

    def _forget_pushes(self, shown: Iterable[tuple[str, int]]) -> None:
        """Follow up only the pushed batches that somebody still waits for, or that the history does not show yet."""
        watcher, shown, now = self._watcher, set(shown), time.monotonic()
        watcher.pushed = {
            batch: pushed_at
            for batch, pushed_at in watcher.pushed.items()
            if now - pushed_at < PUSH_AGE_S
            and (
                watcher.pace.following
                if batch is None
                else watcher.waiters.awaits(batch) or (watcher.listeners and batch not in shown)
            )
        }
        if not watcher.pushed:
            watcher.pace.done_following()


async def _gone(waiters: Sequence[Waiter], pending: PendingIndex) -> list[Waiter]:
    """Return those whose withdrawal is not pending; the event loop has others to serve as well."""
    gone = []
    for number, waiter in enumerate(waiters, 1):
        if not _queued(waiter, pending):
            gone.append(waiter)
        if number % BREATH == 0:
            await asyncio.sleep(0)
    return gone


def _queued(waiter: Waiter, pending: PendingIndex) -> bool:
    """Say whether the pending list holds it; what that row shows is better evidence than anything read later."""
    rows = pending.of(waiter.awaited)
    if not rows or not is_pending(waiter.awaited, rows):
        return False
    waiter.waiting = QUEUED
    waiter.since_ms = min(row.created_at_ms for row in rows)
    waiter.twins = max(waiter.twins, len(rows))
    if waiter.fee is None and waiter.awaited.amount is not None:
        waiter.fee = rows[0].fee_amount
    return True


def _youngest(gone: Iterable[Waiter]) -> float | None:
    """Return for how long the latest of those still missed has been missed."""
    return min((missing_s for waiter in gone if (missing_s := waiter.missing_s()) is not None), default=None)
