"""What has been announced, as a small value: counted, order-blind, compact."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica_provider.api.models import SettledWithdrawal
from pacifica_provider.triggers.cursor import REMEMBERED_MS, Cursor

if TYPE_CHECKING:
    from collections.abc import Iterable

rows_of_any_kind = st.builds(
    SettledWithdrawal,
    st.sampled_from(["SOL", "BTC"]),
    st.sampled_from([Decimal(1), Decimal("1.0"), Decimal(2)]),
    st.integers(0, 2),
    st.sampled_from([None, "tx"]),
    st.integers(0, 3),
)


def announce(cursor: Cursor, rows: Iterable[SettledWithdrawal]) -> list[SettledWithdrawal]:
    """Announce whatever is fresh."""
    fresh = list(cursor.fresh(rows))
    for row in fresh:
        cursor.mark(row)
    return fresh


def told_apart(row: SettledWithdrawal) -> tuple[object, ...]:
    """Return all that tells rows apart."""
    return row.symbol, row.amount, row.batch_nonce, row.created_at_ms


@given(st.lists(rows_of_any_kind, max_size=12), st.data())
def test_every_settled_row_is_announced_exactly_once(rows: list[SettledWithdrawal], data: st.DataObject) -> None:
    """However rows appear, gain their transaction, are listed and whenever the cursor is stored and read back."""
    cursor, told = Cursor(0), Counter[tuple[object, ...]]()
    shown: list[SettledWithdrawal] = []
    for row in [*rows, None, None]:
        if row is not None:
            shown.append(row)
        else:
            shown = [replace(each, transaction_id=each.transaction_id or "late") for each in shown]
        listed = data.draw(st.permutations(shown))
        told.update(map(told_apart, announce(cursor, listed)))
        cursor = Cursor.from_json(json.loads(json.dumps(cursor.as_json())))

    assert told == Counter(map(told_apart, rows))


@pytest.mark.parametrize(
    "stored",
    [
        None,
        [],
        {"version": 2},
        {"version": 1, "floor_ms": "0", "seen": {}},
        {"version": 1, "floor_ms": 0, "seen": {"a": 1}},
    ],
)
def test_what_is_no_cursor_is_refused(stored: object) -> None:
    """Nothing is guessed from a value that somebody edited or a later release wrote."""
    with pytest.raises(ValueError, match="not a cursor"):
        Cursor.from_json(stored)


def test_a_replaced_transaction_is_not_announced_again() -> None:
    """F82: the row is the same withdrawal."""
    row = SettledWithdrawal("SOL", Decimal(1), 42, "tx", 5)
    cursor = Cursor(0)

    assert announce(cursor, [row]) == [row]
    assert announce(cursor, [replace(row, transaction_id="other")]) == []


def test_old_rows_are_forgotten_and_still_not_announced_again() -> None:
    """The stored value stays small: a day's rows, and a time before which everything was announced."""
    rows = [SettledWithdrawal("SOL", Decimal(1), nonce, "tx", nonce) for nonce in range(1000)]
    cursor = Cursor(0)
    announce(cursor, rows)
    cursor.compact(REMEMBERED_MS + 990)
    stored = cursor.as_json()

    assert len(stored["seen"]) == 10
    assert announce(Cursor.from_json(stored), rows) == []


def test_a_first_start_counts_only_settled_rows_as_past() -> None:
    """What is listed without a transaction settles later, and is announced then."""
    listed = [SettledWithdrawal("SOL", Decimal(1), 1, "tx", 1), SettledWithdrawal("SOL", Decimal(1), 2, None, 1)]
    cursor = Cursor.after(listed)

    assert announce(cursor, [replace(row, transaction_id="tx") for row in listed]) == [
        replace(listed[1], transaction_id="tx")
    ]
