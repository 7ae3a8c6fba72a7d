"""The search of the history for withdrawals that have left the pending list."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pacifica_provider.triggers.events import expired_event, settled_event
from pacifica_provider.triggers.readings import HistoryIndex
from pacifica_provider.withdrawals.matching import shown_amounts
from pacifica_provider.withdrawals.settlement import Expired, Settled, Settlement, looked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from decimal import Decimal

    from pacifica_provider.api.models import SettledWithdrawal
    from pacifica_provider.triggers.readings import Key
    from pacifica_provider.triggers.waiters import Waiter


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
        seen = _seen(waiter, self.rows, waiter.fee)
        if isinstance(seen, Settled) and waiter in self._missing:
            del self._missing[waiter]
            self._settle(waiter, settled_event(seen.row))


def judged(waiter: Waiter, history: HistoryIndex, fee: Decimal | None) -> dict[str, Any] | None:
    """Return an event if the wait is over by what the history shows; remember what was seen if not."""
    seen = _seen(waiter, history, fee)
    if isinstance(seen, Settled):
        return settled_event(seen.row)
    if isinstance(seen, Expired):
        return expired_event(seen)
    waiter.waiting = seen
    return None


def _seen(waiter: Waiter, history: HistoryIndex, fee: Decimal | None) -> Settlement:
    rows, now_ms = history.of(waiter.awaited, fee), time.monotonic_ns() // 1_000_000
    return looked(waiter.awaited, waiter.waiting, (), rows, fee, now_ms=now_ms)


def _keys(waiter: Waiter) -> Iterator[Key]:
    """Yield what rows of a withdrawal look like, for one that was seen pending: gross or net, its fee is known."""
    amount = waiter.awaited.amount
    if waiter.twins:
        amounts = {None} if amount is None else shown_amounts(amount, waiter.fee)
        yield from ((*waiter.batch, shown) for shown in amounts)
