"""Which listed rows could be the withdrawal of a record: rows in, rows out."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from pacifica_provider.withdrawals.candidates import (
    Reading,
    candidates,
    history_since_ms,
    pending_rows,
)
from pacifica_provider.withdrawals.records import Record, Row
from tests.support.listed import NET, OLD, RECORD, SKEW, T0, before, pending, reading, settled

if TYPE_CHECKING:
    from pacifica_provider.api.models import PendingWithdrawal, SettledWithdrawal


def found(record: Record, *readings: Reading) -> list[int]:
    """Return the nonces of the candidates."""
    return [row.batch_nonce for row in candidates(record, readings, skew_ms=SKEW)]


@pytest.mark.parametrize(
    ("row", "counts"),
    [
        (pending(7), True),
        (pending(7, gross="1.50000000"), True),
        (settled(7), True),
        (settled(7, amount="1.5"), True),
        (settled(7, amount="1.500"), True),
        (settled(7, tx=None), True),
        (pending(7, symbol="BTC"), False),
        (pending(7, symbol="sol"), False),
        (pending(7, gross="1.499"), False),
        (pending(7, gross="1.50000001"), False),
        (pending(7, gross="1.501"), False),
        (settled(7, symbol="BTC"), False),
        (settled(7, amount="1.498"), False),
        (settled(7, amount="1.501"), False),
        (pending(7, at_ms=T0 - SKEW), True),
        (pending(7, at_ms=T0 - SKEW - 1), False),
        (settled(7, at_ms=T0 - SKEW), True),
        (settled(7, at_ms=T0 - SKEW - 1), False),
        (settled(7, at_ms=T0 + 10**9), True),
    ],
)
def test_a_row_counts_by_symbol_exact_amount_and_age(row: PendingWithdrawal | SettledWithdrawal, counts: bool) -> None:
    """Gross in the pending list, gross or net in the history, not older than the record less the skew."""
    assert ([7] if counts else []) == found(RECORD, reading(row))


@pytest.mark.parametrize(
    ("readings", "nonces"),
    [
        ([], []),
        ([reading()], []),
        ([reading(pending(7)), reading(pending(7))], [7]),
        ([reading(pending(7)), reading()], [7]),
        ([reading(), reading(pending(7))], [7]),
        ([reading(pending(7)), reading(settled(7))], [7]),
        ([reading(pending(7), settled(7))], [7]),
        ([reading(pending(7)), reading(pending(8))], [7, 8]),
        ([reading(pending(7), pending(7, T0 + 3_000))], [7, 7]),
        ([reading(pending(7), pending(7))], [7, 7]),
        ([reading(pending(7), pending(7, T0 + 3_000)), reading(settled(7))], [7, 7]),
        ([reading(pending(7)), reading(settled(7), settled(7, T0 + 3_000))], [7, 7]),
        ([reading(pending(9), pending(8), settled(7))], [7, 8, 9]),
    ],
    ids=[
        "not read",
        "nothing there",
        "seen twice",
        "gone in the second",
        "late in the second",
        "settled in between",
        "in both lists at once",
        "two batches in two sights",
        "two of one batch",
        "two of one batch at one time",
        "two, then one of them settled",
        "one, then two settled",
        "sorted by nonce",
    ],
)
def test_a_row_counts_once_for_each_time_it_is_there(readings: list[Reading], nonces: list[int]) -> None:
    """A row seen in any reading counts, equal rows as often as one reading shows them, a moved row once (F20)."""
    assert nonces == found(RECORD, *readings)


def test_a_settled_row_keeps_the_time_of_its_request() -> None:
    """Seen pending first and settled later, a row keeps its earlier time and gains its transaction id."""
    rows = candidates(RECORD, [reading(pending(7)), reading(settled(7, T0 + 60_000))], skew_ms=SKEW)

    assert rows == (Row(7, Decimal("1.5"), NET, T0 + 2_000, "5x"),)


@pytest.mark.parametrize(
    ("record", "read", "nonces"),
    [
        (before(OLD), reading(pending(7, OLD.created_at_ms)), []),
        (before(OLD), reading(settled(7, T0 + 2_000)), []),
        (before(OLD), reading(settled(7, T0 + 2_000, amount="1.5")), []),
        (before(OLD), reading(settled(7), pending(7, T0 + 3_000)), [7]),
        (before(OLD, OLD), reading(settled(7), settled(7)), []),
        (before(OLD, OLD), reading(settled(7), settled(7), pending(7, T0 + 3_000)), [7]),
        (before(OLD), reading(pending(8)), [8]),
        (before(replace(OLD, amount=Decimal(9), net_amount=Decimal("8.999"))), reading(pending(7)), [7]),
        (before(replace(OLD, amount=NET, net_amount=Decimal("1.498"))), reading(settled(7)), []),
    ],
    ids=[
        "still pending",
        "settled since, at a new time",
        "settled since, shown gross",
        "settled beside a new one",
        "two settled",
        "two settled beside a new one",
        "another batch",
        "another amount in the batch",
        "its gross amount is our net one",
    ],
)
def test_rows_that_were_there_before_do_not_count(record: Record, read: Reading, nonces: list[int]) -> None:
    """A withdrawal of the *before* picture is never ours, even once it has moved to the history with a new time."""
    assert nonces == found(record, read)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (RECORD, T0 - SKEW),
        (before(OLD), T0 - 60_000),
        (before(replace(OLD, created_at_ms=T0 + 1)), T0 - SKEW),
        (replace(RECORD, since_ms=10), 0),
    ],
)
def test_the_history_is_read_back_to_the_oldest_row_that_matters(record: Record, expected: int) -> None:
    """To the record's birth less the skew, and to every row of the *before* picture."""
    assert expected == history_since_ms(record, SKEW)


def test_the_before_picture_holds_every_row_of_the_symbol() -> None:
    """Whatever its amount: it may show up net of a fee later."""
    rows = pending_rows("SOL", [pending(7), pending(8, gross="9"), pending(9, symbol="BTC")])

    assert [row.batch_nonce for row in rows] == [7, 8]
    assert rows[0] == Row(7, Decimal("1.5"), NET, T0 + 2_000)
