"""Where an accepted withdrawal stands, from two lists: settled only on proof."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica_provider.api.models import PendingWithdrawal, SettledWithdrawal
from pacifica_provider.withdrawals.tracking import Sighting, Tracked, is_pending, sight

FEE = Decimal("0.001")
TRACKED = Tracked("SOL", 7, Decimal("1.5"))
ANY = Tracked("SOL", 7)


def pending(nonce: int = 7, gross: str = "1.5", symbol: str = "SOL") -> PendingWithdrawal:
    """Return a pending row."""
    return PendingWithdrawal(symbol, Decimal(gross) - FEE, Decimal(gross), FEE, nonce, 1)


def settled(nonce: int = 7, amount: str = "1.499", symbol: str = "SOL", tx: str | None = "5x") -> SettledWithdrawal:
    """Return a row of the history, net by default."""
    return SettledWithdrawal(symbol, Decimal(amount), nonce, tx, 1)


@pytest.mark.parametrize(
    ("tracked", "rows", "expected"),
    [
        (TRACKED, [], "NOT_SEEN"),
        (TRACKED, [pending()], "QUEUED"),
        (TRACKED, [settled()], "SETTLED"),
        (TRACKED, [settled(amount="1.5")], "SETTLED"),
        (TRACKED, [settled(amount="1.500")], "SETTLED"),
        (TRACKED, [settled(tx=None)], "NOT_SEEN"),
        (TRACKED, [pending(), settled()], "QUEUED"),
        (TRACKED, [pending(gross="9"), settled()], "SETTLED"),
        (TRACKED, [settled(), settled(amount="9")], "SETTLED"),
        (TRACKED, [settled(), settled()], "SETTLED"),
        (TRACKED, [settled(), settled(tx=None)], "NOT_SEEN"),
        (TRACKED, [settled(), settled(amount="9", tx=None)], "SETTLED"),
        (TRACKED, [settled(8)], "NOT_SEEN"),
        (TRACKED, [settled(symbol="BTC")], "NOT_SEEN"),
        (TRACKED, [settled(symbol="sol")], "NOT_SEEN"),
        (TRACKED, [settled(amount="1.498")], "NOT_SEEN"),
        (TRACKED, [settled(amount="1.501")], "NOT_SEEN"),
        (TRACKED, [pending(8)], "NOT_SEEN"),
        (TRACKED, [pending(symbol="BTC")], "NOT_SEEN"),
        (TRACKED, [pending(gross="1.499")], "NOT_SEEN"),
        (ANY, [pending(gross="9")], "QUEUED"),
        (ANY, [settled(amount="9")], "SETTLED"),
        (ANY, [settled(amount="9"), pending(gross="3")], "QUEUED"),
        (ANY, [settled(8, amount="9")], "NOT_SEEN"),
    ],
)
def test_a_withdrawal_is_settled_by_its_own_row_with_a_transaction_id(
    tracked: Tracked, rows: list[PendingWithdrawal | SettledWithdrawal], expected: str
) -> None:
    """Symbol, nonce and amount match; absent from pending is not settled; equal rows all need an id (F75, F77)."""
    in_pending = [row for row in rows if isinstance(row, PendingWithdrawal)]
    in_history = [row for row in rows if isinstance(row, SettledWithdrawal)]

    assert expected == sight(tracked, in_pending, in_history, FEE).state
    assert (expected == "QUEUED") == is_pending(tracked, in_pending)


@pytest.mark.parametrize(("amount", "expected"), [("1.5", "SETTLED"), ("1.499", "NOT_SEEN")])
def test_without_a_fee_only_the_gross_amount_matches(amount: str, expected: str) -> None:
    """An unknown fee is no licence to guess the net amount."""
    assert expected == sight(TRACKED, [], [settled(amount=amount)], None).state


@pytest.mark.parametrize(
    ("sighting", "text"),
    [
        (Sighting("QUEUED"), "queued in Pacifica's pending list"),
        (Sighting("NOT_SEEN"), "in neither of Pacifica's lists"),
        (Sighting("NOT_SEEN", unproven=True), "listed in the history, but without a transaction id yet"),
        (Sighting("SETTLED", settled()), "settled in transaction 5x"),
    ],
)
def test_a_sighting_says_what_was_seen(sighting: Sighting, text: str) -> None:
    """The last sighting is what a timeout quotes (F78)."""
    assert text == str(sighting)


@pytest.mark.parametrize(
    ("tracked", "text"),
    [(Tracked("SOL", 7, Decimal("1.50")), "1.5 SOL in batch 7"), (Tracked("SOL", 7), "SOL in batch 7")],
)
def test_what_is_tracked_says_so(tracked: Tracked, text: str) -> None:
    """Amount where known, symbol and batch."""
    assert text == str(tracked)


NONCE, AMOUNT = st.integers(6, 8), st.sampled_from(["1.5", "1.499", "9"])
PENDING = st.lists(st.builds(pending, NONCE, AMOUNT), max_size=3)
HISTORY = st.lists(st.builds(settled, NONCE, AMOUNT, st.just("SOL"), st.sampled_from([None, "5x"])), max_size=4)


@given(PENDING, HISTORY)
def test_settled_is_never_said_without_proof(listed: list[PendingWithdrawal], history: list[SettledWithdrawal]) -> None:
    """Whatever the lists hold: SETTLED comes with a matching row that has a transaction id, and only then (I2)."""
    sighting = sight(TRACKED, listed, history, FEE)

    assert (sighting.state == "SETTLED") == (sighting.row is not None)
    assert sighting.row is None or (sighting.row.transaction_id, sighting.row.batch_nonce) == ("5x", 7)
    assert not (sighting.unproven and sighting.state != "NOT_SEEN")
