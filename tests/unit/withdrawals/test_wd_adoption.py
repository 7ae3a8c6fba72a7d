"""Which listed row a 409 may be attributed to: one that nothing else could be meant by, or none."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica_provider.withdrawals.candidates import (
    Reading,
    adoptable,
    attempt_of,
    candidates,
)
from pacifica_provider.withdrawals.records import Attempt, Record, Row
from tests.support.listed import LOST, OLD, RECORD, SKEW, T0, WINDOW, before, pending, reading, settled

if TYPE_CHECKING:
    from pacifica_provider.api.models import PendingWithdrawal


def found(record: Record, *readings: Reading) -> list[int]:
    """Return the nonces of the candidates."""
    return [row.batch_nonce for row in candidates(record, readings, skew_ms=SKEW)]


def adopted(record: Record, *readings: Reading) -> int | None:
    """Return the nonce of the row that would be adopted."""
    rows = candidates(record, readings, skew_ms=SKEW)
    row = adoptable(record, rows, readings, skew_ms=SKEW)
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
    attempt = attempt_of(Row(7, Decimal(1), None, at_ms), attempts, skew_ms=SKEW)

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
