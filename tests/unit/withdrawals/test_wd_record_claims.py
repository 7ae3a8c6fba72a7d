"""What a record allows to be said: each property speaks of the whole record, not of its last attempt."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from pacifica_provider.withdrawals.identity import Order, RunIdentity, fingerprint
from pacifica_provider.withdrawals.records import Attempt, Record, Row, StoredReceipt

IDENTITY = RunIdentity("acc", "pay", "run", "withdraw")
ORDER = Order("SOL", Decimal("1.5"))
OPEN = Record(IDENTITY, ORDER, "https://x", fingerprint(IDENTITY, "https://x", ORDER), maybe_sent=False, since_ms=1)
RECEIPT = StoredReceipt(7, Decimal("1.5"), None, 1, adopted=True)
LOST = Attempt(1, 10)
UNSENT = Attempt(1, 10, "unsent")
OVERRULED = Attempt(1, 10, "overruled")
OK = Attempt(1, 10, "answered", 200)


def answered(status: int) -> Attempt:
    """Return an attempt that was answered with this status."""
    return Attempt(1, 10, "answered", status)


@pytest.mark.parametrize(
    ("record", "moved"),
    [
        (OPEN, False),
        (replace(OPEN, attempts=(UNSENT,)), False),
        (replace(OPEN, attempts=(answered(422),)), False),
        (replace(OPEN, attempts=(answered(429), UNSENT)), False),
        (replace(OPEN, attempts=(answered(400),), state="rejected"), False),
        (replace(OPEN, maybe_sent=True), True),
        (replace(OPEN, attempts=(LOST,)), True),
        (replace(OPEN, attempts=(LOST, answered(422))), True),
        (replace(OPEN, attempts=(OVERRULED,)), True),
        (replace(OPEN, attempts=(answered(409),)), True),
        (replace(OPEN, state="unknown"), True),
        (replace(OPEN, state="void"), True),
        (replace(OPEN, attempts=(OK,), state="accepted", receipt=RECEIPT), True),
    ],
)
def test_money_may_have_moved_by_anything_on_record(record: Record, moved: bool) -> None:
    """One attempt in doubt is enough, whatever the others were answered (I3, F25)."""
    assert moved == record.may_have_moved


@pytest.mark.parametrize(
    ("attempts", "maybe_sent", "refused"),
    [
        ((answered(422),), False, True),
        ((answered(400),), False, True),
        ((UNSENT, answered(401)), False, True),
        ((), False, False),
        ((UNSENT,), False, False),
        ((LOST,), False, False),
        ((answered(409),), False, False),
        ((answered(429),), False, False),
        ((answered(422),), True, False),
        ((LOST, answered(422)), False, False),
        ((answered(429), answered(422)), False, False),
        ((OVERRULED, answered(422)), False, False),
        ((answered(422), answered(422)), False, False),
    ],
)
def test_a_refusal_counts_only_alone(attempts: tuple[Attempt, ...], maybe_sent: bool, refused: bool) -> None:
    """Rejected is said of the only attempt of a record of which nothing else was maybe sent (F24, F25, F26)."""
    record = replace(OPEN, attempts=attempts, maybe_sent=maybe_sent)

    assert refused == (record.refused is not None)
    assert record.refused in {None, attempts[-1] if attempts else None}


def test_unsent_attempts_are_not_sent_and_answered_ones_are_not_open() -> None:
    """What was proven never to have left is not counted; only what nobody answered is unanswered."""
    record = replace(OPEN, attempts=(UNSENT, LOST, answered(409), OVERRULED))

    assert record.sent_attempts == (LOST, answered(409), OVERRULED)
    assert record.unanswered == (LOST,)


def test_an_attempt_lives_until_its_window_ends() -> None:
    """The last moment is the signing time plus the window (F30)."""
    assert Attempt(1_000, 10_000).expires_ms == 11_000


def test_only_the_last_attempt_is_replaced() -> None:
    """What became of an attempt is noted in its own place."""
    record = replace(OPEN, attempts=(UNSENT, LOST))

    assert record.with_attempt(answered(409)).attempts == (UNSENT, answered(409))


def test_a_row_prints_what_a_person_needs() -> None:
    """Nonce, amount, time and where it stands."""
    pending = Row(7, Decimal("1.50"), None, 1716200000000)
    settled = replace(pending, transaction_id="5x")

    assert str(pending) == "batch_nonce 7, amount 1.5, created_at 1716200000000, pending"
    assert str(settled) == "batch_nonce 7, amount 1.5, created_at 1716200000000, on chain as 5x"
