"""The search of the history for withdrawals that have left the pending list."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pacifica_provider.api.amounts import difference
from pacifica_provider.triggers.events import not_seen_event, settled_event
from pacifica_provider.triggers.readings import HistoryIndex
from pacifica_provider.withdrawals.tracking import sight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from decimal import Decimal

    from pacifica_provider.api.models import SettledWithdrawal
    from pacifica_provider.triggers.readings import Key
    from pacifica_provider.triggers.waiters import Waiter

# As long as the sensor's, whose module imports Airflow.
NOT_SEEN_GRACE_S = 30 * 60


class Search:
    """
    Wakes waiters while the history is still being read, as far as nothing in the rest of it can matter to them.

    That is so for a withdrawal that was seen pending, once the history shows as many settled rows like it as were
    pending at once. The others wait for the whole reading (``rest``). ``filed`` counts the rows taken in.
    """

    def __init__(self, waiters: Iterable[Waiter], settle: Callable[[Waiter, dict[str, Any]], None]) -> None:
        self.rows = HistoryIndex()
        self.filed = 0
        self._settle = settle
        self._missing = dict.fromkeys(waiters)
        self._wanted: dict[Key, list[Waiter]] = {}
        for waiter in self._missing:
            for key in _keys(waiter):
                self._wanted.setdefault(key, []).append(waiter)

    def file_and_ask(self, row: SettledWithdrawal) -> bool:
        """Take in a row; say whether everybody has been found."""
        self.rows.add(row)
        self.filed += 1
        for key in ((row.symbol, row.batch_nonce, row.amount), (row.symbol, row.batch_nonce, None)):
            wanted = self._wanted.get(key, ())
            if wanted and self.rows.count(key) >= max(waiter.twins for waiter in wanted):
                del self._wanted[key]
                for waiter in wanted:
                    self._settle_if_proven(waiter)
        return not self._missing

    def rest(self) -> list[Waiter]:
        """Return those who have not been found."""
        return list(self._missing)

    def _settle_if_proven(self, waiter: Waiter) -> None:
        sighting = sight(waiter.tracked, (), self.rows.of(waiter.tracked, waiter.fee), waiter.fee)
        if sighting.row is not None and waiter in self._missing:
            del self._missing[waiter]
            self._settle(waiter, settled_event(sighting.row))


def judged(waiter: Waiter, history: HistoryIndex, fee: Decimal | None) -> dict[str, Any] | None:
    """Return an event if the history proves the withdrawal, or if it has been in neither list for too long."""
    sighting = sight(waiter.tracked, (), history.of(waiter.tracked, fee), fee)
    waiter.last_seen = str(sighting)
    now = time.monotonic()
    if sighting.row is not None:
        return settled_event(sighting.row)
    if sighting.unproven or waiter.unseen_since is None:
        waiter.unseen_since = now
    elif now - waiter.unseen_since > NOT_SEEN_GRACE_S:
        return not_seen_event(waiter.tracked, NOT_SEEN_GRACE_S)
    return None


def _keys(waiter: Waiter) -> Iterator[Key]:
    """Yield what rows of a withdrawal look like, for one that was seen pending: gross or net, its fee is known."""
    if not waiter.twins:
        return
    amount, fee = waiter.tracked.amount, waiter.fee
    yield (*waiter.batch, amount)
    if amount is not None and fee:
        yield (*waiter.batch, difference(amount, fee))
