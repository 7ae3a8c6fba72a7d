"""Those who want every settled withdrawal of an account, rather than one of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pacifica_provider.api.models import SettledWithdrawal


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    A reading of the history.

    ``since_ms``: older rows may be missing, ``None`` for none missing. ``floor_ms``: no row older than this can still
    appear.
    """

    rows: tuple[SettledWithdrawal, ...]
    since_ms: int | None
    floor_ms: int


class Listener:
    """
    A mailbox for readings of the history.

    :param interval: longest time between readings asked for, in seconds.
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.wants_all = True
        self._latest: Snapshot | None = None
        self._error: Exception | None = None
        self._arrived = asyncio.Event()

    def deliver(self, snapshot: Snapshot) -> None:
        """Take a reading in; it is merged with one that was not fetched yet."""
        self._latest = snapshot if self._latest is None else merged(self._latest, snapshot)
        self.wants_all = False
        self._arrived.set()

    def fail(self, error: Exception) -> None:
        """Take in that there will be no more."""
        self._error = error
        self._arrived.set()

    async def next(self) -> Snapshot:
        """Return the next reading, waiting for it."""
        await self._arrived.wait()
        self._arrived.clear()
        if self._error is not None:
            raise self._error
        latest, self._latest = self._latest, None
        if latest is None:  # not reached: whatever arrives is one or the other
            raise RuntimeError("nothing arrived")
        return latest


def merged(older: Snapshot, newer: Snapshot) -> Snapshot:
    """Return the newer reading, completed by the rows of the older one that are too old for it."""
    if newer.since_ms is None:
        return newer
    since = newer.since_ms
    kept = tuple(row for row in older.rows if row.created_at_ms < since)
    fresh = tuple(row for row in newer.rows if row.created_at_ms >= since)
    return Snapshot((*fresh, *kept), older.since_ms, newer.floor_ms)
