"""Whether an accepted withdrawal is on chain, from two lists: settled only on proof, expired only after the grace."""

from __future__ import annotations

import logging
from decimal import Decimal
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica_provider.api.models import PendingWithdrawal, SettledWithdrawal
from pacifica_provider.api.solana import ChainStatus, Word
from pacifica_provider.withdrawals.settlement import (
    NOT_SEEN_GRACE_MS,
    QUEUED,
    Awaited,
    Confirmation,
    Expired,
    Settled,
    Settlement,
    Waiting,
    confirmed,
    is_pending,
    log_level,
    looked,
    not_looked,
    on_chain,
    timed_out,
)

FEE = Decimal("0.001")
AWAITED = Awaited("SOL", 7, Decimal("1.5"))
ANY = Awaited("SOL", 7)
NOW = 1_000_000
MISSING = Waiting("in neither of Pacifica's lists", NOW)
NO_ID = Waiting("listed in the history, but without a transaction id yet", NOW)


def pending(nonce: int = 7, gross: str = "1.5", symbol: str = "SOL") -> PendingWithdrawal:
    """Return a pending row."""
    return PendingWithdrawal(symbol, Decimal(gross) - FEE, Decimal(gross), FEE, nonce, 1)


def settled(nonce: int = 7, amount: str = "1.499", symbol: str = "SOL", tx: str | None = "5x") -> SettledWithdrawal:
    """Return a row of the history, net by default."""
    return SettledWithdrawal(symbol, Decimal(amount), nonce, tx, 1)


def first(awaited: Awaited, rows: list[PendingWithdrawal | SettledWithdrawal]) -> Settlement:
    """Return what the first look says."""
    in_pending = [row for row in rows if isinstance(row, PendingWithdrawal)]
    in_history = [row for row in rows if isinstance(row, SettledWithdrawal)]
    assert is_pending(awaited, in_pending) == (looked(awaited, Waiting(), in_pending, [], FEE, now_ms=NOW) == QUEUED)
    return looked(awaited, Waiting(), in_pending, in_history, FEE, now_ms=NOW)


@pytest.mark.parametrize(
    ("awaited", "rows", "expected"),
    [
        (AWAITED, [], MISSING),
        (AWAITED, [pending()], QUEUED),
        (AWAITED, [settled()], Settled(settled())),
        (AWAITED, [settled(amount="1.5")], Settled(settled(amount="1.5"))),
        (AWAITED, [settled(amount="1.500")], Settled(settled(amount="1.5"))),
        (AWAITED, [settled(tx=None)], NO_ID),
        (AWAITED, [settled(tx="")], NO_ID),
        (AWAITED, [pending(), settled()], QUEUED),
        (AWAITED, [pending(gross="9"), settled()], Settled(settled())),
        (AWAITED, [settled(), settled(amount="9")], Settled(settled())),
        (AWAITED, [settled(), settled()], Settled(settled())),
        (AWAITED, [settled(), settled(tx=None)], NO_ID),
        (AWAITED, [settled(), settled(amount="9", tx=None)], Settled(settled())),
        (AWAITED, [settled(8)], MISSING),
        (AWAITED, [settled(symbol="BTC")], MISSING),
        (AWAITED, [settled(symbol="sol")], MISSING),
        (AWAITED, [settled(amount="1.498")], MISSING),
        (AWAITED, [settled(amount="1.501")], MISSING),
        (AWAITED, [pending(8)], MISSING),
        (AWAITED, [pending(symbol="BTC")], MISSING),
        (AWAITED, [pending(gross="1.499")], MISSING),
        (ANY, [pending(gross="9")], QUEUED),
        (ANY, [settled(amount="9")], Settled(settled(amount="9"))),
        (ANY, [settled(amount="9"), pending(gross="3")], QUEUED),
        (ANY, [settled(8, amount="9")], MISSING),
    ],
)
def test_a_withdrawal_is_settled_by_its_own_row_with_a_transaction_id(
    awaited: Awaited, rows: list[PendingWithdrawal | SettledWithdrawal], expected: Settlement
) -> None:
    """Symbol, nonce and amount match; absent from pending is not settled; equal rows all need an id (F75, F77, F82)."""
    assert expected == first(awaited, rows)


@pytest.mark.parametrize(("amount", "expected"), [("1.5", Settled(settled(amount="1.5"))), ("1.499", MISSING)])
def test_without_a_fee_only_the_gross_amount_matches(amount: str, expected: Settlement) -> None:
    """An unknown fee is no licence to guess the net amount."""
    assert expected == looked(AWAITED, Waiting(), [], [settled(amount=amount)], None, now_ms=NOW)


def test_in_neither_list_for_longer_than_the_grace_it_is_not_seen() -> None:
    """To the end of the grace it waits, then the wait is over (F75)."""
    at_the_end = looked(AWAITED, MISSING, [], [], FEE, now_ms=NOW + NOT_SEEN_GRACE_MS)
    after = looked(AWAITED, MISSING, [], [], FEE, now_ms=NOW + NOT_SEEN_GRACE_MS + 1)

    assert at_the_end == MISSING
    assert isinstance(after, Expired)
    assert after.reason == "not_seen"
    assert after.text == "1.5 SOL in batch 7 has been in neither of Pacifica's lists for 30 minutes."


@pytest.mark.parametrize("rows", [[pending()], [settled(tx=None)]])
def test_the_grace_begins_anew_once_it_was_in_a_list(rows: list[PendingWithdrawal | SettledWithdrawal]) -> None:
    """Only the time that it is in neither list without a break counts (F75)."""
    late = NOW + NOT_SEEN_GRACE_MS
    seen = first(AWAITED, rows)
    assert isinstance(seen, Waiting)

    assert looked(AWAITED, seen, [], [], FEE, now_ms=late) == Waiting(
        "in neither of Pacifica's lists", late if seen == QUEUED else NOW
    )


PUSH = Confirmation("SOL", 7, Decimal("1.50"), Decimal("1.499"), FEE, "5x")


def test_a_push_that_leaves_no_doubt_is_a_settlement() -> None:
    """The row it proves has the time at which the withdrawal was made."""
    assert confirmed(AWAITED, PUSH, fee=FEE, rivals=0, since_ms=5) == Settled(
        SettledWithdrawal("SOL", Decimal("1.499"), 7, "5x", 5)
    )


@pytest.mark.parametrize(
    ("awaited", "fee", "rivals", "since_ms"),
    [
        (ANY, FEE, 0, 5),
        (Awaited("SOL", 7, Decimal("1.499")), FEE, 0, 5),
        (Awaited("SOL", 8, Decimal("1.5")), FEE, 0, 5),
        (Awaited("BTC", 7, Decimal("1.5")), FEE, 0, 5),
        (AWAITED, FEE, 1, 5),
        (AWAITED, None, 0, 5),
        (AWAITED, Decimal("0.002"), 0, 5),
        (AWAITED, FEE, 0, None),
    ],
)
def test_a_push_that_leaves_a_doubt_proves_nothing(
    awaited: Awaited, fee: Decimal | None, rivals: int, since_ms: int | None
) -> None:
    """Another order, an equal one beside it, another fee, or nothing known of it: the history decides (F77)."""
    assert confirmed(awaited, PUSH, fee=fee, rivals=rivals, since_ms=since_ms) is None


@pytest.mark.parametrize("before", [Waiting(), QUEUED, MISSING])
def test_a_look_that_comes_to_nothing_ends_no_wait_and_stops_no_grace(before: Waiting) -> None:
    """Whatever the network or the exchange refused is what was last seen (F79)."""
    assert not_looked(before, "HTTP 401") == Waiting("HTTP 401", before.missing_since_ms)


def test_the_time_being_up_says_what_was_last_seen() -> None:
    """F78; whether it was accepted knows who holds a receipt, and says it."""
    expired = timed_out(AWAITED, QUEUED)

    assert expired.reason == "timeout"
    assert expired.text == (
        "1.5 SOL in batch 7 was not seen on chain in time; last seen: queued in Pacifica's pending list."
    )


@pytest.mark.parametrize(
    ("awaited", "text"),
    [(Awaited("SOL", 7, Decimal("1.50")), "1.5 SOL in batch 7"), (Awaited("SOL", 7), "SOL in batch 7")],
)
def test_what_is_awaited_says_so(awaited: Awaited, text: str) -> None:
    """Amount where known, symbol and batch."""
    assert text == str(awaited)


NONCE, AMOUNT = st.integers(6, 8), st.sampled_from(["1.5", "1.499", "9"])
PENDING = st.lists(st.builds(pending, NONCE, AMOUNT), max_size=3)
HISTORY = st.lists(st.builds(settled, NONCE, AMOUNT, st.just("SOL"), st.sampled_from([None, "5x"])), max_size=4)
BEFORE = st.sampled_from([Waiting(), QUEUED, MISSING, Waiting("HTTP 500", 0)])


@given(PENDING, HISTORY, BEFORE, st.sampled_from([FEE, None]), st.integers(0, 3 * NOT_SEEN_GRACE_MS))
def test_settled_is_never_said_without_proof(
    listed: list[PendingWithdrawal],
    history: list[SettledWithdrawal],
    before: Waiting,
    fee: Decimal | None,
    later_ms: int,
) -> None:
    """Whatever the lists hold: a settlement is a matching row with an id, and a wait ends only after the grace (I2)."""
    seen = looked(AWAITED, before, listed, history, fee, now_ms=NOW + later_ms)

    if isinstance(seen, Settled):
        assert (seen.row.transaction_id, seen.row.batch_nonce) == ("5x", 7)
        assert seen.row.amount in {Decimal("1.5"), Decimal("1.499")}
    if isinstance(seen, Expired):
        assert before.missing_since_ms is not None
        assert NOW + later_ms - before.missing_since_ms > NOT_SEEN_GRACE_MS


@given(st.dictionaries(st.sampled_from(["5x", "6y", "7z"]), st.sampled_from(get_args(Word)), min_size=1))
def test_the_chain_can_only_delay(words: dict[str, Word]) -> None:
    """What Pacifica shows is settled once every transaction that may be it is finalized, and in no other case."""
    first_id, *others = words
    shown = Settled(settled(tx=first_id), tuple(others))
    chain = {name: ChainStatus(word) for name, word in words.items()}
    seen = on_chain(shown, chain, now_ms=NOW)

    if set(words.values()) == {"finalized"}:
        assert seen == shown
    else:
        assert isinstance(seen, Waiting)
        assert (seen.chain in set(words.values()) - {"finalized"}, seen.missing_since_ms) == (True, NOW)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("confirmed", "failed", "not found"), "failed"),
        (("confirmed", "not found", "no answer"), "no answer"),
        (("processed", "confirmed"), "processed"),
        (("finalized", "confirmed"), "confirmed"),
    ],
)
def test_the_worst_is_told_first(words: tuple[Word, ...], told: Word) -> None:
    """Of several transactions, and a failure is told as an error: nobody may take it for a withdrawal that failed."""
    ids = [f"{number}x" for number in range(len(words))]
    chain = {name: ChainStatus(word, "why") for name, word in zip(ids, words, strict=True)}
    seen = on_chain(Settled(settled(tx=ids[0]), tuple(ids[1:])), chain, now_ms=NOW)

    assert isinstance(seen, Waiting)
    assert (seen.chain, seen.last_seen.endswith("(why)")) == (told, True)
    assert f"transaction {ids[words.index(told)]}" in seen.last_seen
    assert log_level(seen) == (logging.ERROR if told == "failed" else logging.INFO)
    assert ("the withdrawal WAS accepted and is never posted again" in seen.last_seen) == (told == "failed")
    assert timed_out(AWAITED, seen).text.startswith("1.5 SOL in batch 7 was not seen finalized on chain in time; last")


def test_equal_rows_name_each_transaction_once() -> None:
    """Every one that may be the withdrawal's."""
    seen = first(AWAITED, [settled(), settled(tx="6y"), settled(), settled(amount="9", tx="7z")])

    assert isinstance(seen, Settled)
    assert seen.transaction_ids == ("5x", "6y")
