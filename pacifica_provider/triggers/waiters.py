"""Who waits for what in one watcher; cheap at ten thousand."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from pacifica_provider.withdrawals.settlement import Waiting

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from decimal import Decimal

    from pacifica_provider.withdrawals.settlement import Awaited

Batch = tuple[str, int]


class Waiter:
    """
    One trigger's place in a watcher.

    :param awaited: what is waited for.
    :param interval: longest time between looks that the trigger asks for, in seconds.
    :param fee: what was deducted, where a receipt says it.
    :param since_ms: a time before the withdrawal was made, where one is known; bounds the reading of the history.
    """

    __slots__ = (
        "awaited",
        "fee",
        "future",
        "interval",
        "joined_at",
        "overdue",
        "since_ms",
        "twins",
        "waiting",
    )

    def __init__(
        self,
        awaited: Awaited,
        *,
        interval: float,
        fee: Decimal | None = None,
        since_ms: int | None = None,
    ) -> None:
        self.awaited = awaited
        self.interval = interval
        self.fee = fee
        self.since_ms = since_ms
        self.joined_at = 0.0
        # Its time is up: the next look is its last.
        self.overdue = False
        # How many rows like this one were seen pending at once; 0 if none ever was.
        self.twins = 0
        self.waiting = Waiting()
        # The trigger's event, or None: read the connection again and come back.
        self.future: asyncio.Future[dict[str, Any] | None] | None = None

    @property
    def batch(self) -> Batch:
        """Symbol and nonce."""
        return self.awaited.symbol, self.awaited.batch_nonce

    def missing_s(self) -> float | None:
        """For how long it has been in neither list, ``None`` while it is in one."""
        since_ms = self.waiting.missing_since_ms
        return None if since_ms is None else time.monotonic() - since_ms / 1000

    def settle(self, event: dict[str, Any] | None) -> None:
        """Wake the trigger, once."""
        if self.future is not None and not self.future.done():
            self.future.set_result(event)

    def fail(self, error: Exception) -> None:
        """Wake the trigger with an error, once."""
        if self.future is not None and not self.future.done():
            self.future.set_exception(error)


class Waiters:
    """The waiters of one watcher; joining, leaving and every question are cheap."""

    def __init__(self) -> None:
        self._waiters: dict[Waiter, None] = {}
        self._intervals: Counter[float] = Counter()
        self._batches: Counter[Batch] = Counter()
        self._by_awaited: dict[Awaited, dict[Waiter, None]] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(list(self._waiters))

    def __contains__(self, waiter: object) -> bool:
        return waiter in self._waiters

    def add(self, waiter: Waiter) -> None:
        """Take one in."""
        self._waiters[waiter] = None
        self._intervals[waiter.interval] += 1
        self._batches[waiter.batch] += 1
        self._by_awaited.setdefault(waiter.awaited, {})[waiter] = None

    def discard(self, waiter: Waiter) -> None:
        """Let one go, if it is here."""
        if self._waiters.pop(waiter, waiter) is waiter:
            return
        _less(self._intervals, waiter.interval)
        _less(self._batches, waiter.batch)
        equal = self._by_awaited[waiter.awaited]
        del equal[waiter]
        if not equal:
            del self._by_awaited[waiter.awaited]

    def of(self, awaited: Awaited) -> list[Waiter]:
        """Return those who wait for exactly this."""
        return list(self._by_awaited.get(awaited, ()))

    def awaits(self, batch: Batch) -> bool:
        """Say whether somebody waits for this batch."""
        return batch in self._batches

    @property
    def shortest_interval(self) -> float | None:
        """The shortest interval that anybody asks for."""
        return min(self._intervals, default=None)


def _less(counter: Counter[Any], key: object) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
