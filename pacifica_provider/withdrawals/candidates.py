"""
Which listed withdrawals could be the one of a record. Pure: rows in, rows out.

Pacifica's lists do not echo the idempotency key, so all there is to match on is symbol, amount and time. The pending
list shows gross and net; whether the history's amount is net or gross is unknown, so it matches either way.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from pacifica_provider.api.amounts import difference
from pacifica_provider.withdrawals.records import Attempt, Record, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pacifica_provider.api.models import PendingWithdrawal, SettledWithdrawal
    from pacifica_provider.withdrawals.identity import Order


@dataclass(frozen=True, slots=True)
class Reading:
    """The lists as read at one time, pending before history, and the asset's withdrawal fee if history was read."""

    pending: Sequence[PendingWithdrawal]
    history: Sequence[SettledWithdrawal] = ()
    fee: Decimal = Decimal(0)


def pending_rows(symbol: str, pending: Iterable[PendingWithdrawal]) -> tuple[Row, ...]:
    """Return the pending rows of one symbol in the record's terms."""
    return tuple(
        Row(row.batch_nonce, row.amount_requested, row.amount, row.created_at_ms)
        for row in pending
        if row.symbol == symbol
    )


def history_since_ms(record: Record, skew_ms: int) -> int:
    """Return how far back the history must be read: to the record's birth and to every row of its *before* picture."""
    return max(0, min([record.since_ms - skew_ms, *(row.created_at_ms for row in record.before)]))


def candidates(record: Record, readings: Sequence[Reading], *, skew_ms: int) -> tuple[Row, ...]:
    """
    Return every row that could be this record's withdrawal, once for each time it is there.

    A row seen in any reading counts; equal rows of one batch count as often as one reading shows them; rows of the
    *before* picture that are seen again do not count, and neither does what is older than the record.
    """
    found: dict[int, list[Row]] = {}
    for reading in readings:
        by_nonce: dict[int, list[Row]] = {}
        for row in _matching(record.order, reading):
            by_nonce.setdefault(row.batch_nonce, []).append(row)
        for nonce, rows in by_nonce.items():
            found[nonce] = _merged(found.get(nonce, []), rows)
    known = _known_before(record, readings)
    new = [
        row
        for nonce in sorted(found)
        for row in sorted(found[nonce], key=lambda row: row.created_at_ms)[known[nonce] :]
    ]
    return tuple(row for row in new if row.created_at_ms >= record.since_ms - skew_ms)


def adoptable(record: Record, rows: Sequence[Row], readings: Sequence[Reading], *, skew_ms: int) -> Row | None:
    """
    Return the one row that a 409 may be attributed to, or ``None``.

    There must be one candidate in all, created while an unanswered attempt was valid, in a batch that held no equal
    row before the first attempt.
    """
    if len(rows) != 1 or _known_before(record, readings)[rows[0].batch_nonce]:
        return None
    return rows[0] if attempt_of(rows[0], record.unanswered, skew_ms=skew_ms) else None


def other_amounts(record: Record, reading: Reading, *, skew_ms: int) -> tuple[Row, ...]:
    """Return the rows of our symbol, since the record's birth, whose amount is not ours; history amounts as listed."""
    settled = [
        Row(row.batch_nonce, row.amount, None, row.created_at_ms, row.transaction_id)
        for row in reading.history
        if row.symbol == record.order.symbol
    ]
    ours = {(row.batch_nonce, row.created_at_ms) for row in _matching(record.order, reading)}
    return tuple(
        row
        for row in (*pending_rows(record.order.symbol, reading.pending), *settled)
        if row.created_at_ms >= record.since_ms - skew_ms and (row.batch_nonce, row.created_at_ms) not in ours
    )


def attempt_of(row: Row, attempts: Iterable[Attempt], *, skew_ms: int) -> Attempt | None:
    """Return the first attempt in whose window the row was created, clocks differing by at most ``skew_ms``."""
    for attempt in attempts:
        if attempt.signed_ms - skew_ms <= row.created_at_ms <= attempt.expires_ms + skew_ms:
            return attempt
    return None


def _matching(order: Order, reading: Reading) -> list[Row]:
    """Return the rows of both lists with our symbol and amount; one that moved between the two reads only once."""
    pending = [row for row in pending_rows(order.symbol, reading.pending) if row.amount == order.amount]
    net = difference(order.amount, reading.fee)
    settled = [
        Row(
            row.batch_nonce,
            order.amount,
            net if row.amount == net else None,
            row.created_at_ms,
            row.transaction_id,
        )
        for row in reading.history
        if row.symbol == order.symbol and row.amount in {order.amount, net}
    ]
    moved = {(row.batch_nonce, row.created_at_ms) for row in settled}
    return [*settled, *(row for row in pending if (row.batch_nonce, row.created_at_ms) not in moved)]


def _merged(seen: list[Row], rows: list[Row]) -> list[Row]:
    """Keep the longer of two sights of one batch; a row that has settled meanwhile keeps the time of its request."""
    if not seen:
        return rows
    longer, other = (rows, seen) if len(rows) > len(seen) else (seen, rows)
    transaction_id = next((row.transaction_id for row in other if row.transaction_id), None)
    return [row if row.transaction_id else replace(row, transaction_id=transaction_id) for row in longer]


def _known_before(record: Record, readings: Sequence[Reading]) -> Counter[int]:
    """Count, by batch, the rows of the *before* picture that can show up as one of our amount, in either list."""
    amount = record.order.amount
    wanted = {amount, *(difference(amount, reading.fee) for reading in readings)}
    return Counter(row.batch_nonce for row in record.before if {row.amount, row.net_amount} & wanted)
