"""
The two lists as of one look, indexed so that ten thousand waiters are judged in one pass.

What a row means is decided by ``withdrawals/settlement.py`` alone: an index only hands it the rows that can match.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from pacifica_provider.api.outcomes import Answer
from pacifica_provider.withdrawals.matching import shown_amounts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from decimal import Decimal

    from pacifica_provider.api.client import Endpoints, Listing, Steps
    from pacifica_provider.api.models import PendingWithdrawal, SettledWithdrawal
    from pacifica_provider.api.outcomes import TransportFailure
    from pacifica_provider.api.transports import HttpxTransport
    from pacifica_provider.withdrawals.settlement import Awaited

Row = TypeVar("Row")
_LONG_BYTES = 64 * 1024
# Symbol, nonce and amount; None for the amount means every row of the batch.
Key = tuple[str, int, "Decimal | None"]


class PendingIndex:
    """The pending list by order."""

    def __init__(self, rows: Iterable[PendingWithdrawal]) -> None:
        self._rows: dict[Key, list[PendingWithdrawal]] = {}
        for row in rows:
            _file(self._rows, row.symbol, row.batch_nonce, row.amount_requested, row)

    def of(self, awaited: Awaited) -> Sequence[PendingWithdrawal]:
        """Return the rows that may be this withdrawal."""
        return self._rows.get((awaited.symbol, awaited.batch_nonce, awaited.amount), ())


class HistoryIndex:
    """The history by order, as far as it has been read."""

    def __init__(self) -> None:
        self._rows: dict[Key, list[SettledWithdrawal]] = {}

    def add(self, row: SettledWithdrawal) -> None:
        """File a row."""
        _file(self._rows, row.symbol, row.batch_nonce, row.amount, row)

    def count(self, key: Key) -> int:
        """Return how many rows there are of this batch and amount."""
        return len(self._rows.get(key, ()))

    def needs_fee(self, awaited: Awaited) -> bool:
        """Say whether only the fee can tell if the batch's rows hold this withdrawal: they may show net amounts."""
        batch = (awaited.symbol, awaited.batch_nonce)
        return (
            awaited.amount is not None and (*batch, None) in self._rows and (*batch, awaited.amount) not in self._rows
        )

    def of(self, awaited: Awaited, fee: Decimal | None) -> Sequence[SettledWithdrawal]:
        """Return the rows that may be this withdrawal: of the amount asked for, or of that less the fee."""
        batch, gross = (awaited.symbol, awaited.batch_nonce), awaited.amount
        amounts = {None} if gross is None else shown_amounts(gross, fee)
        return [row for amount in amounts for row in self._rows.get((*batch, amount), ())]


async def read_pending(
    endpoints: Endpoints, transport: HttpxTransport
) -> tuple[Listing[PendingWithdrawal], PendingIndex]:
    """
    Read the pending list and index it, a long one in a thread: ten thousand rows take half a second.

    :raises Retryable: if it cannot be read.
    :raises ConfigurationError: if the exchange refuses to show it.
    """
    steps = endpoints.pending()
    answer = await transport(next(steps))
    if isinstance(answer, Answer) and len(answer.body) > _LONG_BYTES:
        return await asyncio.to_thread(_indexed, steps, answer)
    return _indexed(steps, answer)


def _indexed(
    steps: Steps[Listing[PendingWithdrawal]], answer: Answer | TransportFailure
) -> tuple[Listing[PendingWithdrawal], PendingIndex]:
    try:
        steps.send(answer)
    except StopIteration as done:
        return done.value, PendingIndex(done.value.rows)
    raise RuntimeError("the pending list takes one request")


def _file(index: dict[Key, list[Row]], symbol: str, nonce: int, amount: Decimal, row: Row) -> None:
    index.setdefault((symbol, nonce, amount), []).append(row)
    index.setdefault((symbol, nonce, None), []).append(row)
