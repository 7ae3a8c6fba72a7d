"""
Which listed withdrawals could be the one of a record. Pure: rows in, rows out.

Pacifica's lists do not echo the idempotency key, so all there is to match on is symbol, amount and time. The pending
list shows gross and net; whether the history's amount is net or gross is unknown, so it matches either way. This is
the only place that tells the two apart.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from pacifica_provider.api.amounts import difference
from pacifica_provider.withdrawals.record import Attempt, Record, Row, StoredReceipt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pacifica_provider.api.models import PendingWithdrawal, SettledWithdrawal
    from pacifica_provider.withdrawals.identity import Order

Fit = Literal["exact", "possible", "other"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    The pending list at one moment.

    ``server_ms`` is a lower bound of the exchange's clock then, ``began_ms`` the worker's clock just before, and
    ``behind_ms`` a lower bound of how far the worker's clock is behind the exchange's.
    """

    began_ms: int
    server_ms: int
    behind_ms: int
    pending: Sequence[PendingWithdrawal]


@dataclass(frozen=True, slots=True)
class Reading:
    """Both lists, pending read before history, and the asset's present fee; ``None`` if it cannot be had."""

    snapshot: Snapshot
    history: Sequence[SettledWithdrawal]
    fee: Decimal | None


@dataclass(frozen=True, slots=True)
class ListedRow:
    """
    A row of the record's symbol since the record began, and how well it fits.

    ``exact``: gross or net, by the fee as known, it is the order's amount. ``possible``: it is the order's amount if
    another fee was taken from it, or if the list shows fewer decimal places than were accepted (unknown of Pacifica).
    ``in_window``: made while a request of the record could be accepted.
    """

    row: Row
    fit: Fit
    in_window: bool

    def __str__(self) -> str:
        amount = {
            "exact": "amount fits",
            "possible": "amount fits with another fee, or rounded",
            "other": "other amount",
        }
        when = "made while a request of this run was valid" if self.in_window else "made at another time"
        return f"{self.row} ({amount[self.fit]}; {when})"


def pending_rows(symbol: str, pending: Iterable[PendingWithdrawal]) -> tuple[Row, ...]:
    """Return the pending rows of one symbol in the record's terms."""
    return tuple(
        Row(row.batch_nonce, row.amount_requested, row.amount, row.created_at_ms)
        for row in pending
        if row.symbol == symbol
    )


def look_alikes(order: Order, pending: Iterable[PendingWithdrawal]) -> tuple[Row, ...]:
    """Return the pending rows that either list may later show with the order's amount: the *before* picture."""
    return tuple(
        row
        for row in pending_rows(order.symbol, pending)
        if {row.amount, row.net_amount} & shown_amounts(order.amount, _fee(row))
    )


def history_since_ms(record: Record, tolerance_ms: int) -> int:
    """Return how far back the history must be read: to the record's birth and to every row of its *before* picture."""
    return max(0, min([record.since_ms - tolerance_ms, *(row.created_at_ms for row in record.before)]))


def listed_rows(record: Record, reading: Reading, *, tolerance_ms: int) -> tuple[ListedRow, ...]:
    """Return every row of the record's symbol since the record began, for a person; those that fit best first."""
    shown = [
        ListedRow(
            row,
            _fit(record.order, row, reading.fee),
            attempt_of(row, record.attempts, tolerance_ms=tolerance_ms) is not None,
        )
        for row in _rows(record.order.symbol, reading)
        if row.created_at_ms >= record.since_ms - tolerance_ms
    ]
    return tuple(sorted(shown, key=lambda each: (_RANK[each.fit], not each.in_window, each.row.created_at_ms)))


def candidates(record: Record, readings: Sequence[Reading], *, tolerance_ms: int) -> tuple[Row, ...]:
    """
    Return every row with the order's amount that could be this record's withdrawal, once for each time it is there.

    A row seen in any reading counts; equal rows of one batch count as often as one reading shows them; rows of the
    *before* picture that are seen again do not count, and neither does what is older than the record.
    """
    found: dict[int, list[Row]] = {}
    for reading in readings:
        by_nonce: dict[int, list[Row]] = {}
        for row in _rows(record.order.symbol, reading):
            if _fit(record.order, row, reading.fee) == "exact":
                by_nonce.setdefault(row.batch_nonce, []).append(row)
        for nonce, rows in by_nonce.items():
            found[nonce] = _merged(found.get(nonce, []), rows)
    # Those that show another amount now, as the history may that shows gross, are not among the rows found.
    known = _known_before(record, readings) - _shown_otherwise(record, readings)
    new = [
        row
        for nonce in sorted(found)
        for row in sorted(found[nonce], key=lambda row: row.created_at_ms)[known[nonce] :]
    ]
    return tuple(row for row in new if row.created_at_ms >= record.since_ms - tolerance_ms)


def adoptable(
    record: Record, rows: Sequence[Row], readings: Sequence[Reading], *, tolerance_ms: int, by_amount: bool = False
) -> Row | None:
    """
    Return the one row that a 409 may be attributed to, or ``None``.

    There must be one candidate in all, created while an unanswered attempt was valid, in a batch that held no equal
    row before the first attempt. ``by_amount``: the amount is this withdrawal's own (a tagged one), so when it was
    made does not matter.
    """
    if len(rows) != 1 or _known_before(record, readings)[rows[0].batch_nonce]:
        return None
    if by_amount:
        return rows[0]
    # Another fee may have been taken from ours, and the row that fits be somebody else's.
    if _in_windows(record, record.unanswered, readings, {"possible"}, tolerance_ms=tolerance_ms):
        return None
    since_ms = min((attempt.signed_ms for attempt in record.unanswered), default=0)
    if _settled_with_another_fee(record, readings, since_ms - tolerance_ms):
        return None
    return rows[0] if attempt_of(rows[0], record.unanswered, tolerance_ms=tolerance_ms) else None


def refused_rows(
    record: Record, attempts: Iterable[Attempt], readings: Sequence[Reading], *, tolerance_ms: int
) -> tuple[Row, ...]:
    """
    Return the rows that requests which were refused may have come to all the same, delivered twice.

    These were made while the request could be accepted; or, until the refusal has been concluded, they are on chain,
    have its amount, maybe less a changed fee, and were listed later, as the history may show when a withdrawal settled.
    """
    found = []
    for attempt in attempts:
        asked = (
            record if attempt.amount is None else replace(record, order=replace(record.order, amount=attempt.amount))
        )
        found += _in_windows(asked, [attempt], readings, {"exact", "possible"}, tolerance_ms=tolerance_ms)
        if attempt.outcome != "refused":
            found += [
                row
                for row in candidates(asked, readings, tolerance_ms=tolerance_ms)
                if row.transaction_id and row.created_at_ms >= attempt.signed_ms - tolerance_ms
            ]
            found += _settled_with_another_fee(asked, readings, attempt.signed_ms - tolerance_ms)
    return tuple(found)


def _in_windows(
    record: Record, attempts: Sequence[Attempt], readings: Sequence[Reading], fits: set[Fit], *, tolerance_ms: int
) -> list[Row]:
    """Return the rows of these fits that were made in the window of one of the attempts, but not before the record."""
    known = {(row.batch_nonce, row.created_at_ms) for row in record.before}
    return [
        row
        for reading in readings
        for row in _rows(record.order.symbol, reading)
        if _fit(record.order, row, reading.fee) in fits
        and (row.batch_nonce, row.created_at_ms) not in known
        and attempt_of(row, attempts, tolerance_ms=tolerance_ms)
    ]


def _settled_with_another_fee(record: Record, readings: Sequence[Reading], since_ms: int) -> list[Row]:
    """Return the rows on chain that may be ours, settled later as the history may show it, less a changed fee."""
    return [
        row
        for reading in readings
        for row in _rows(record.order.symbol, reading)
        if _fit(record.order, row, reading.fee) == "possible"
        and row.transaction_id
        and row.created_at_ms >= since_ms
        and (reading.fee is None or difference(record.order.amount, row.amount) <= reading.fee * _FEE_CHANGE)
    ]


def attempt_of(row: Row, attempts: Iterable[Attempt], *, tolerance_ms: int) -> Attempt | None:
    """Return the first attempt in whose window the row was created, clocks differing by at most ``tolerance_ms``."""
    for attempt in attempts:
        if attempt.signed_ms - tolerance_ms <= row.created_at_ms <= attempt.expires_ms + tolerance_ms:
            return attempt
    return None


def receipt_of(record: Record, row: Row, *, tolerance_ms: int) -> StoredReceipt:
    """Return the receipt of a withdrawal that was found in the lists instead of answered."""
    attempt = attempt_of(row, record.attempts, tolerance_ms=tolerance_ms)
    # A history that shows gross does not show the fee.
    net = row.amount if row.net_amount is None and row.amount < record.order.amount else row.net_amount
    return StoredReceipt(
        batch_nonce=row.batch_nonce,
        requested_amount=record.order.amount,
        fee_amount=None if net is None else difference(record.order.amount, net),
        submitted_at_ms=attempt.signed_ms if attempt else row.created_at_ms,
        adopted=True,
    )


# What a list that shows four decimal places, the fewest that are allowed for, may be off by.
_ROUNDED = Decimal("0.0001")
# How many times the present fee another one may have been.
_FEE_CHANGE = 10
_RANK: dict[Fit, int] = {"exact": 0, "possible": 1, "other": 2}


def _fit(order: Order, row: Row, fee: Decimal | None) -> Fit:
    pending = row.net_amount is not None  # a pending row shows the gross amount
    if row.amount in shown_amounts(order.amount, None if pending else fee):
        return "exact"
    above, most = difference(row.amount, order.amount), _rounding(row.amount)
    return "possible" if above < most and not (pending and above <= -most) else "other"


def _rounding(shown: Decimal) -> Decimal:
    """Return what a list may be off by that shows this amount: less than a unit of the last place that it shows."""
    return min(_ROUNDED, Decimal(1).scaleb(int(shown.normalize().as_tuple().exponent)))


def shown_amounts(gross: Decimal, fee: Decimal | None) -> set[Decimal]:
    """Return what a history row of a withdrawal of this gross amount may show; only gross where no fee is known."""
    return {gross} if fee is None else {gross, difference(gross, fee)}


def _fee(row: Row) -> Decimal | None:
    return None if row.net_amount is None else difference(row.amount, row.net_amount)


def _rows(symbol: str, reading: Reading) -> list[Row]:
    """Return the rows of both lists with our symbol; one that moved between the two reads only once."""
    settled = [
        Row(row.batch_nonce, row.amount, None, row.created_at_ms, row.transaction_id)
        for row in reading.history
        if row.symbol == symbol
    ]
    moved = {(row.batch_nonce, row.created_at_ms) for row in settled}
    pending = pending_rows(symbol, reading.snapshot.pending)
    return [*settled, *(row for row in pending if (row.batch_nonce, row.created_at_ms) not in moved)]


def _merged(seen: list[Row], rows: list[Row]) -> list[Row]:
    """Keep the longer of two sights of one batch; a row that has settled meanwhile keeps the time of its request."""
    longer, other = (rows, seen) if len(rows) > len(seen) else (seen, rows)
    transaction_id = next((row.transaction_id for row in other if row.transaction_id), None)
    return [row if row.transaction_id else replace(row, transaction_id=transaction_id) for row in longer]


def _known_before(record: Record, readings: Sequence[Reading]) -> Counter[int]:
    """Count, by batch, the rows of the *before* picture that can show up as one of our amount, in either list."""
    fees = {None, *(reading.fee for reading in readings)}
    wanted = {amount for fee in fees for amount in shown_amounts(record.order.amount, fee)}
    return Counter(row.batch_nonce for row in record.before if {row.amount, row.net_amount} & wanted)


def _shown_otherwise(record: Record, readings: Sequence[Reading]) -> Counter[int]:
    """Count, by batch, the rows that one reading shows with an amount of the *before* picture which is not ours."""
    before = {(row.batch_nonce, amount) for row in record.before for amount in (row.amount, row.net_amount)}
    seen: Counter[int] = Counter()
    for reading in readings:
        seen |= Counter(
            row.batch_nonce
            for row in _rows(record.order.symbol, reading)
            if (row.batch_nonce, row.amount) in before and _fit(record.order, row, reading.fee) != "exact"
        )
    return seen
