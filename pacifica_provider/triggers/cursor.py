"""
Which settled rows of an account have been announced; pure, and small enough for Airflow's asset state store.

Rows have no id. Equal rows (two withdrawals of one amount in one batch) are counted, so each is announced. A row
counts from the moment it has a transaction id, whenever that comes. The order of rows means nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from pacifica_provider.api.amounts import canonical_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pacifica_provider.api.models import SettledWithdrawal

_VERSION = 1
# A row is remembered for this long after which none that old can appear; then its age says that it was announced.
REMEMBERED_MS = 24 * 3600 * 1000


class Cursor:
    """
    What has been announced.

    :param floor_ms: every row older than this counts as announced.
    """

    def __init__(self, floor_ms: int) -> None:
        self.floor_ms = floor_ms
        self.changes = 0
        self._seen: dict[str, tuple[int, int]] = {}

    @classmethod
    def after(cls, rows: Iterable[SettledWithdrawal]) -> Cursor:
        """Return a cursor to which everything that is settled now is past."""
        cursor = cls(0)
        for row in cursor.fresh(rows):
            cursor.mark(row)
        return cursor

    @classmethod
    def from_json(cls, value: object) -> Cursor:
        """
        Read a stored cursor.

        :raises ValueError: if it is not one of this version.
        """
        if not isinstance(value, dict) or value.get("version") != _VERSION:
            raise ValueError("not a cursor of this version")
        floor, seen = value.get("floor_ms"), value.get("seen")
        if not isinstance(floor, int) or not isinstance(seen, dict):
            raise ValueError("not a cursor")
        cursor = cls(floor)
        for mark, entry in seen.items():
            if not isinstance(entry, list) or [type(part) for part in entry] != [int, int]:
                raise ValueError("not a cursor")
            cursor._seen[mark] = (entry[0], entry[1])
        return cursor

    def as_json(self) -> dict[str, Any]:
        """Return the cursor as plain JSON."""
        return {
            "version": _VERSION,
            "floor_ms": self.floor_ms,
            "seen": {mark: list(entry) for mark, entry in self._seen.items()},
        }

    def fresh(self, rows: Iterable[SettledWithdrawal]) -> Iterator[SettledWithdrawal]:
        """Yield the settled rows that have not been announced, oldest first; ``mark`` each as it is announced."""
        settled = [row for row in rows if row.transaction_id and row.created_at_ms >= self.floor_ms]
        settled.reverse()  # lists are newest first as far as anybody has seen; only of use where times are equal
        settled.sort(key=lambda row: row.created_at_ms)
        count: Counter[str] = Counter()
        for row in settled:
            mark = _mark(row)
            count[mark] += 1
            if count[mark] > self._seen.get(mark, (0, 0))[0]:
                yield row

    def mark(self, row: SettledWithdrawal) -> None:
        """Note that a row has been announced."""
        mark = _mark(row)
        self._seen[mark] = (self._seen.get(mark, (0, 0))[0] + 1, row.created_at_ms)
        self.changes += 1

    def compact(self, floor_ms: int) -> None:
        """Forget rows so old that none like them can still appear."""
        floor = floor_ms - REMEMBERED_MS
        old = [mark for mark, (_, created_at_ms) in self._seen.items() if created_at_ms < floor]
        if not old:
            return
        self.floor_ms = max(self.floor_ms, floor)
        for mark in old:
            del self._seen[mark]
        self.changes += 1


def _mark(row: SettledWithdrawal) -> str:
    """Name a row by what does not change; a transaction id may, when a transaction is replaced."""
    told = [row.symbol, row.batch_nonce, canonical_text(row.amount), row.created_at_ms]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
