"""Which listed rows could be the withdrawal of a record, and which one a 409 may be attributed to."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica_provider.withdrawals.identity import Order
from pacifica_provider.withdrawals.matching import (
    Reading,
    adoptable,
    attempt_of,
    candidates,
    history_since_ms,
    listed_rows,
    look_alikes,
    pending_rows,
    receipt_of,
    refused_rows,
)
from pacifica_provider.withdrawals.record import Attempt, Record, Row, StoredReceipt
from tests.support.listed import FEE, LOST, NET, OLD, ORDER, RECORD, SKEW, T0, WINDOW, before, pending, reading, settled

if TYPE_CHECKING:
    from pacifica_provider.api.models import PendingWithdrawal, SettledWithdrawal


def found(record: Record, *readings: Reading) -> list[int]:
    """Return the nonces of the candidates."""
    return [row.batch_nonce for row in candidates(record, readings, tolerance_ms=SKEW)]


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
    rows = candidates(RECORD, [reading(pending(7)), reading(settled(7, T0 + 60_000))], tolerance_ms=SKEW)

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
        (before(replace(OLD, amount=Decimal("1.501"), net_amount=ORDER.amount)), reading(settled(7, amount="1.5")), []),
        (
            before(replace(OLD, amount=Decimal("1.501"), net_amount=ORDER.amount)),
            reading(settled(7, amount="1.5"), settled(7, amount="1.501")),
            [7],
        ),
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
        "its net amount is our gross one",
        "the same, but the history shows it gross, beside ours",
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


def test_only_rows_of_the_symbol_are_looked_at() -> None:
    """A pending row in the record's terms: gross, net, time, and no transaction."""
    rows = pending_rows("SOL", [pending(7), pending(8, gross="9"), pending(9, symbol="BTC")])

    assert [row.batch_nonce for row in rows] == [7, 8]
    assert rows[0] == Row(7, Decimal("1.5"), NET, T0 + 2_000)


@pytest.mark.parametrize(
    ("row", "counts"),
    [
        (pending(7), True),
        (pending(7, gross="1.499"), True),
        (pending(7, gross="1.501"), True),
        (pending(7, gross="1.502"), False),
        (pending(7, gross="1.498"), False),
        (pending(7, gross="9"), False),
        (pending(7, symbol="BTC"), False),
    ],
    ids=["equal", "gross is our net", "net is our gross", "two fees more", "two fees less", "another", "other symbol"],
)
def test_the_before_picture_holds_what_may_look_like_ours_later(row: PendingWithdrawal, counts: bool) -> None:
    """Gross or net, by the row's own fee, in either list; everything else would only make the record long (F20)."""
    assert ([7] if counts else []) == [each.batch_nonce for each in look_alikes(ORDER, [row])]


def adopted(record: Record, *readings: Reading) -> int | None:
    """Return the nonce of the row that would be adopted."""
    rows = candidates(record, readings, tolerance_ms=SKEW)
    row = adoptable(record, rows, readings, tolerance_ms=SKEW)
    return None if row is None else row.batch_nonce


@pytest.mark.parametrize(
    ("readings", "attempts", "expected"),
    [
        ([reading(pending(7))], (LOST,), 7),
        ([reading(settled(7))], (LOST,), 7),
        ([reading(pending(7, T0 + 1_000 - SKEW))], (LOST,), 7),
        ([reading(pending(7, T0 + 1_000 + WINDOW + SKEW))], (LOST,), 7),
        ([reading(pending(7, T0 + 1_000 + WINDOW + SKEW + 1))], (LOST,), None),
        ([reading(pending(7, T0 - SKEW))], (replace(LOST, signed_ms=T0 + 1),), None),
        ([reading()], (LOST,), None),
        ([reading(pending(7), pending(8))], (LOST,), None),
        ([reading(pending(7), pending(7))], (LOST,), None),
        ([reading(pending(7)), reading(pending(8))], (LOST,), None),
        ([reading(pending(7))], (), None),
        ([reading(pending(7))], (replace(LOST, outcome="unsent"),), None),
        ([reading(pending(7))], (replace(LOST, outcome="answered", status=409),), None),
        ([reading(pending(7))], (replace(LOST, outcome="overruled"),), None),
        ([reading(pending(7, T0 + 50_000))], (LOST, replace(LOST, signed_ms=T0 + 45_000)), 7),
    ],
)
def test_a_row_is_adopted_only_if_nothing_else_could_be_meant(
    readings: list[Reading], attempts: tuple[Attempt, ...], expected: int | None
) -> None:
    """One candidate in all, made while an unanswered attempt was valid (F03, F15, F20)."""
    assert expected == adopted(replace(RECORD, attempts=attempts), *readings)


def test_a_row_in_a_batch_that_held_an_equal_one_is_not_adopted() -> None:
    """Old and new of one batch cannot be told apart once one of them has settled, so neither is taken (F20)."""
    read = reading(settled(7), pending(7, T0 + 3_000))

    assert found(before(OLD), read) == [7]
    assert adopted(before(OLD), read) is None


@pytest.mark.parametrize(
    ("at_ms", "expected"),
    [(T0, 0), (T0 + WINDOW + SKEW, 0), (T0 + WINDOW + SKEW + 1, 1), (T0 - SKEW - 1, None), (T0 + 99_999, None)],
)
def test_a_row_belongs_to_the_first_attempt_it_fits(at_ms: int, expected: int | None) -> None:
    """Windows, widened by the skew, may overlap: the earlier attempt is named."""
    attempts = (Attempt(T0, WINDOW), Attempt(T0 + 20_000, WINDOW))
    attempt = attempt_of(Row(7, Decimal(1), None, at_ms), attempts, tolerance_ms=SKEW)

    assert attempt == (None if expected is None else attempts[expected])


LISTED = st.lists(
    st.one_of(
        st.builds(pending, st.integers(1, 3), st.integers(T0 - 9_000, T0 + 30_000), st.sampled_from(["1.5", "2"])),
        st.builds(settled, st.integers(1, 3), st.integers(T0 - 9_000, T0 + 30_000), st.sampled_from(["1.5", "1.499"])),
    ),
    max_size=5,
)


@given(LISTED, LISTED)
def test_what_is_adopted_was_listed_and_alone(first: list[PendingWithdrawal], second: list[PendingWithdrawal]) -> None:
    """Whatever the lists: an adopted row is the only candidate, and of our amount (I2)."""
    readings = [reading(*first), reading(*second)]
    nonce = adopted(RECORD, *readings)

    assert nonce is None or [nonce] == found(RECORD, *readings)
    assert nonce is None or any(row.batch_nonce == nonce for row in [*first, *second])


def test_until_a_refusal_is_concluded_a_row_that_settled_later_counts() -> None:
    """The history may show when a withdrawal settled, instead of when it was asked for (F90)."""
    later = [reading(settled(7, T0 + 99_999)), reading(pending(7, T0 + 99_999)), reading(settled(7, T0 - SKEW))]
    refused = replace(LOST, outcome="answered", status=422)
    counted = [bool(refused_rows(RECORD, [refused], [each], tolerance_ms=SKEW)) for each in later]

    assert counted == [True, False, False]


@pytest.mark.parametrize(("fee", "amount", "counts"), [(FEE, "1.4", False), (FEE, "1.495", True), (None, "1.4", True)])
def test_until_a_refusal_is_concluded_a_row_that_settled_later_counts_by_a_changed_fee(
    fee: Decimal | None, amount: str, *, counts: bool
) -> None:
    """The refused request may have paid, delivered twice, and settled less another fee (F90, F93)."""
    later = replace(reading(settled(7, T0 + 99_999, amount=amount)), fee=fee)
    refused = replace(LOST, outcome="answered", status=422)
    concluded = replace(refused, outcome="refused")

    assert bool(refused_rows(RECORD, [refused], [later], tolerance_ms=SKEW)) == counts
    assert not refused_rows(RECORD, [concluded], [later], tolerance_ms=SKEW)


def test_nothing_is_adopted_beside_a_row_that_another_fee_would_make_ours() -> None:
    """The fee may have changed: then that row is ours, and the one that fits is somebody else's (F93)."""
    beside = settled(8, amount="1.4")

    assert adopted(RECORD, reading(pending(7))) == 7
    assert adopted(RECORD, reading(pending(7), beside)) is None


@pytest.mark.parametrize(("fee", "amount", "adopts"), [(FEE, "1.4", True), (FEE, "1.495", False), (None, "1.4", False)])
def test_nothing_is_adopted_where_ours_may_have_settled_later_with_another_fee(
    fee: Decimal | None, amount: str, *, adopts: bool
) -> None:
    """The history may show when it settled, less a fee that was up to ten times today's, or is not known (F93)."""
    later = settled(8, T0 + 99_999, amount=amount)

    assert adopted(RECORD, replace(reading(pending(7), later), fee=fee)) == (7 if adopts else None)
    assert adopted(RECORD, replace(reading(pending(7), replace(later, transaction_id=None)), fee=fee)) == 7
    assert adopted(RECORD, replace(reading(pending(7), replace(later, created_at_ms=T0 - SKEW - 1)), fee=fee)) == 7


def test_a_tagged_amount_is_recognised_at_any_time() -> None:
    """No other withdrawal has its amount, so when it was made does not matter; that it stands alone does (5.3)."""
    late = reading(pending(7, T0 + 99_999))
    both = reading(pending(7, T0 + 99_999), pending(8))
    found_rows = [
        adoptable(RECORD, candidates(RECORD, [read], tolerance_ms=SKEW), [read], tolerance_ms=SKEW, by_amount=True)
        for read in (late, both)
    ]

    assert [row and row.batch_nonce for row in found_rows] == [7, None]
    assert adopted(RECORD, late) is None


@pytest.mark.parametrize(
    ("row", "fee", "fit"),
    [
        (pending(7), Decimal("0.001"), "exact"),
        (pending(7), None, "exact"),
        (pending(7, gross="1.499"), Decimal("0.001"), "other"),
        (pending(7, gross="1.501"), Decimal("0.001"), "other"),
        (settled(7, amount="1.5001"), None, "other"),
        (settled(7), Decimal("0.001"), "exact"),
        (settled(7, amount="1.5"), Decimal("0.002"), "exact"),
        (settled(7), Decimal("0.002"), "possible"),
        (settled(7), None, "possible"),
        (settled(7, amount="0.00000001"), Decimal("0.001"), "possible"),
        (settled(7, amount="1.501"), Decimal("0.001"), "other"),
        (settled(7, amount="1.501"), None, "other"),
    ],
)
def test_every_row_of_the_symbol_is_shown_with_its_fit(
    row: PendingWithdrawal | SettledWithdrawal, fee: Decimal | None, fit: str
) -> None:
    """A changed fee, or one that cannot be had, makes a row possible at the least, and never hides it (F93)."""
    (listed,) = listed_rows(RECORD, replace(reading(row), fee=fee), tolerance_ms=SKEW)

    assert (listed.fit, listed.in_window) == (fit, True)


@pytest.mark.parametrize(
    ("asked", "shown", "fit"),
    [
        ("1.23456789", "1.234567", "possible"),
        ("1.23456789", "1.234568", "possible"),
        ("1.23456789", "1.2345", "possible"),
        ("1.23456789", "1.2346", "possible"),
        ("1.00009999", "1", "possible"),
        ("1.0001", "1", "other"),
        ("1.23456789", "1.234569", "other"),
        ("1.23456789", "1.234566", "other"),
        ("1.23456789", "1.23456788", "other"),
        ("1.23456789", "1.2347", "other"),
    ],
)
def test_an_amount_that_a_list_shows_rounded_is_possible(asked: str, shown: str, fit: str) -> None:
    """Whether the lists show every place is not known; off by less than a unit of the last one it may be ours."""
    record = replace(RECORD, order=Order("SOL", Decimal(asked)))
    (listed,) = listed_rows(record, reading(pending(7, gross=shown)), tolerance_ms=SKEW)

    assert listed.fit == fit


def test_the_rows_that_fit_best_are_shown_first() -> None:
    """By fit, then those made while a request was valid, then by time; nothing older than the record (F93)."""
    read = reading(
        *(pending(1, gross="9"), settled(2, amount="1.2"), settled(3, T0 + 99_999), pending(4, T0 + 3_000)),
        *(pending(5, T0 + 2_000), pending(6, T0 - SKEW - 1), pending(7, symbol="BTC")),
    )

    assert [each.row.batch_nonce for each in listed_rows(RECORD, read, tolerance_ms=SKEW)] == [5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (pending(7), "pending (amount fits; made while a request of this run was valid)"),
        (settled(7, amount="1.2"), "on chain as 5x (amount fits with another fee, or rounded; made while a request"),
        (pending(7, T0 + 99_999, gross="9"), "pending (other amount; made at another time)"),
    ],
)
def test_a_listed_row_prints_how_well_it_fits(row: PendingWithdrawal | SettledWithdrawal, says: str) -> None:
    """A person reads both reasons to take it for ours, amount and time (F93)."""
    (listed,) = listed_rows(RECORD, reading(row), tolerance_ms=SKEW)

    assert says in str(listed)


@pytest.mark.parametrize(
    ("record", "row", "counts"),
    [
        (RECORD, pending(7), False),
        (replace(RECORD, attempts=(replace(LOST, outcome="refused", amount=Decimal("1.5")),)), pending(7), True),
        (replace(RECORD, attempts=(replace(LOST, outcome="refused", amount=Decimal(9)),)), pending(7), False),
        (replace(RECORD, attempts=(replace(LOST, outcome="refused", amount=Decimal(9)),)), pending(7, gross="9"), True),
        (replace(RECORD, attempts=(replace(LOST, outcome="refused", amount=Decimal("1.5")),)), settled(7), True),
        (
            replace(RECORD, attempts=(replace(LOST, outcome="refused", amount=Decimal("1.5")),)),
            pending(7, T0 + 1_000 + WINDOW + SKEW + 1),
            False,
        ),
        (
            replace(before(OLD), attempts=(replace(LOST, outcome="refused", amount=Decimal("1.5")),)),
            pending(7, OLD.created_at_ms),
            False,
        ),
        (
            replace(RECORD, attempts=(replace(LOST, outcome="refused", amount=Decimal("1.5")),)),
            settled(7, T0 + 99_999),
            False,
        ),
        (
            replace(RECORD, attempts=(replace(LOST, outcome="refused", amount=Decimal("1.5")),)),
            settled(7, amount="1.4"),
            True,
        ),
        (
            replace(RECORD, attempts=(replace(LOST, outcome="refused", amount=Decimal("1.5")),)),
            settled(7, T0 + 99_999, amount="1.4"),
            False,
        ),
    ],
    ids=[
        *("unanswered", "refused", "other amount", "its own amount", "settled", "after its window", "there before"),
        *("settled later", "of another fee", "of another fee and later"),
    ],
)
def test_a_refused_request_may_have_come_to_a_row_of_its_own_amount(
    record: Record, row: PendingWithdrawal | SettledWithdrawal, counts: bool
) -> None:
    """Made in its window, of the amount it asked for then, by any fee, and not there before it (F90, F93)."""
    found_rows = refused_rows(record, record.refusals, [reading(row)], tolerance_ms=SKEW)

    assert ({7} if counts else set()) == {each.batch_nonce for each in found_rows}


@pytest.mark.parametrize(
    ("row", "receipt"),
    [
        (Row(7, Decimal("1.5"), NET, T0 + 2_000), (Decimal("0.001"), LOST.signed_ms)),
        (Row(7, NET, None, T0 + 2_000), (Decimal("0.001"), LOST.signed_ms)),
        (Row(7, Decimal("1.5"), None, T0 + 2_000), (None, LOST.signed_ms)),
        (Row(7, Decimal("1.5"), NET, T0 + 99_999), (Decimal("0.001"), T0 + 99_999)),
    ],
    ids=["pending", "history shows net", "history shows gross", "made outside of every window"],
)
def test_a_found_withdrawal_becomes_a_receipt(row: Row, receipt: tuple[Decimal | None, int]) -> None:
    """The order's amount, the fee where the row shows it, and the time of the request it fits, else the row's own."""
    fee, at_ms = receipt

    assert receipt_of(RECORD, row, tolerance_ms=SKEW) == StoredReceipt(7, Decimal("1.5"), fee, at_ms, adopted=True)
