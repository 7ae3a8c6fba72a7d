"""
Whether an accepted withdrawal is on chain, still waited for, or waited for long enough. Pure and total.

Operator, sensor and watcher all ask here, so that waiting is one thing with one grace and one set of sentences.
``batch_nonce`` names a batch, not a withdrawal, and is probably counted per asset: a row is matched on symbol, nonce
and, where it is known, amount. Absent from pending is not settled; only a history row with a transaction id is, or a
push that says all of it. Where a Solana RPC is asked as well, that settlement counts once the RPC calls its transaction
finalized: the RPC can only delay an end, never make one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pacifica_provider.api.amounts import canonical_text
from pacifica_provider.api.models import SettledWithdrawal
from pacifica_provider.api.outcomes import safe_text
from pacifica_provider.withdrawals.matching import shown_amounts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from pacifica_provider.api.models import PendingWithdrawal
    from pacifica_provider.api.solana import ChainStatus, Word

# Longer than a batch in transit can explain; a nonce that Pacifica does not know never settles.
NOT_SEEN_GRACE_MS = 30 * 60_000


@dataclass(frozen=True, slots=True)
class Awaited:
    """What is waited for. ``amount`` is the gross amount asked for; ``None`` matches any amount."""

    symbol: str
    batch_nonce: int
    amount: Decimal | None = None

    def __str__(self) -> str:
        amount = "" if self.amount is None else f"{canonical_text(self.amount)} "
        return f"{amount}{self.symbol} in batch {self.batch_nonce}"


@dataclass(frozen=True, slots=True)
class Settled:
    """
    It is on chain, and this row of the history proves it, or a push that says the same.

    ``others``: the transactions of other rows of the history that may be this withdrawal as well.
    """

    row: SettledWithdrawal
    others: tuple[str, ...] = ()

    @property
    def transaction_ids(self) -> tuple[str, ...]:
        """Every transaction that may be this withdrawal's."""
        return (str(self.row.transaction_id), *self.others)


@dataclass(frozen=True, slots=True)
class Waiting:
    """
    It is not on chain, as far as was seen.

    ``missing_since_ms``: since when it has been in neither list, on any clock that does not step; ``None`` while it is
    in one. ``chain``: what a Solana RPC says, where that alone is waited for.
    """

    last_seen: str = "not looked yet"
    missing_since_ms: int | None = None
    chain: Word | None = None


@dataclass(frozen=True, slots=True)
class Expired:
    """The wait is over without a settlement; ``text`` says why, and what it does not mean."""

    reason: Literal["timeout", "not_seen"]
    text: str


@dataclass(frozen=True, slots=True)
class Confirmation:
    """
    A push that says everything of one withdrawal: asset, batch, gross amount, what arrives, fee and transaction.

    It comes from the same exchange over the same TLS as the history.
    """

    symbol: str
    batch_nonce: int
    requested_amount: Decimal
    amount: Decimal
    fee_amount: Decimal
    transaction_id: str

    @property
    def awaited(self) -> Awaited:
        """What somebody who waits for it waits for."""
        return Awaited(self.symbol, self.batch_nonce, self.requested_amount)


Settlement = Settled | Waiting | Expired
QUEUED = Waiting("queued in Pacifica's pending list")


def is_pending(awaited: Awaited, pending: Sequence[PendingWithdrawal]) -> bool:
    """Say whether the pending list holds it; history need not be read then."""
    return any(
        row.symbol == awaited.symbol
        and row.batch_nonce == awaited.batch_nonce
        and awaited.amount in {None, row.amount_requested}
        for row in pending
    )


def matches(awaited: Awaited, row: SettledWithdrawal, fee: Decimal | None) -> bool:
    """Say whether a history row can be the withdrawal, its amount read as gross or as net of the fee."""
    if (row.symbol, row.batch_nonce) != (awaited.symbol, awaited.batch_nonce):
        return False
    return awaited.amount is None or row.amount in shown_amounts(awaited.amount, fee)


def looked(
    awaited: Awaited,
    before: Waiting,
    pending: Sequence[PendingWithdrawal],
    history: Sequence[SettledWithdrawal],
    fee: Decimal | None,
    *,
    now_ms: int,
) -> Settlement:
    """
    Say where the withdrawal stands after a look at both lists.

    An equal withdrawal of the same batch that is still pending may be this one, so it counts as queued; several equal
    history rows must all have a transaction id. ``fee`` is what the exchange deducts, since the history may show net.
    """
    if is_pending(awaited, pending):
        return QUEUED
    rows = [row for row in history if matches(awaited, row, fee)]
    transactions = dict.fromkeys(row.transaction_id for row in rows if row.transaction_id)
    if rows and all(row.transaction_id for row in rows):
        return Settled(rows[0], tuple(transactions)[1:])
    if rows:
        return Waiting("listed in the history, but without a transaction id yet", now_ms)
    since_ms = now_ms if before.missing_since_ms is None else before.missing_since_ms
    if now_ms - since_ms > NOT_SEEN_GRACE_MS:
        return Expired(
            "not_seen",
            f"{awaited} has been in neither of Pacifica's lists for {NOT_SEEN_GRACE_MS // 60_000} minutes.",
        )
    return Waiting("in neither of Pacifica's lists", since_ms)


def confirmed(
    awaited: Awaited, push: Confirmation, *, fee: Decimal | None, rivals: int, since_ms: int | None
) -> Settled | None:
    """
    Return the settlement that a push proves by itself, ``None`` where the history has to decide.

    Without doubt means: it is the very amount; what is known of its fee, by its receipt or the pending list, is what
    the push tells; and no other withdrawal may be meant (``rivals``), as far as the pending list has shown, and else as
    far as anybody waits. ``since_ms``: when it was made.
    """
    if awaited != push.awaited or rivals or fee != push.fee_amount or since_ms is None:
        return None
    return Settled(SettledWithdrawal(push.symbol, push.amount, push.batch_nonce, push.transaction_id, since_ms))


def on_chain(settled: Settled, chain: Mapping[str, ChainStatus], *, now_ms: int) -> Settled | Waiting:
    """
    Say what a settlement comes to, a Solana RPC having been asked for its transactions.

    It counts once every transaction that may be its own is finalized. What the RPC says otherwise, or its silence, is
    waited out: Pacifica may send the withdrawal in another transaction, under another id.
    """
    open_ones = [(each, chain[each]) for each in settled.transaction_ids if chain[each].word != "finalized"]
    if not open_ones:
        return settled
    transaction, status = min(open_ones, key=lambda each: _TOLD_FIRST.index(each[1].word))
    text = _CHAIN_TEXTS[status.word].format(f"transaction {safe_text(transaction)}")
    return Waiting(f"{text} ({status.why})" if status.why else text, now_ms, status.word)


def not_asked_yet(settled: Settled, *, now_ms: int) -> Waiting:
    """Say what is waited for until a Solana RPC has answered for the first time."""
    transaction = f"transaction {safe_text(settled.transaction_ids[0])}"
    return Waiting(f"{_CHAIN_TEXTS['no answer'].format(transaction)} yet", now_ms, "no answer")


_CHAIN_TEXTS: dict[Word, str] = {
    "failed": (
        "its {} FAILED on chain, by the word of the Solana RPC; the withdrawal WAS accepted and is never posted again, "
        "and Pacifica may send it in another transaction"
    ),
    "no answer": "Pacifica names its {}, but the Solana RPC gives no answer",
    "not found": "Pacifica names its {}, but the Solana RPC does not find it",
    "processed": "its {} is processed on chain, but neither confirmed nor finalized yet",
    "confirmed": "its {} is confirmed on chain, but not finalized yet",
}
_TOLD_FIRST = tuple(_CHAIN_TEXTS)


def log_level(waiting: Waiting) -> int:
    """Return how loudly to say what is waited for: a transaction that failed on chain is an error in the log."""
    return logging.ERROR if waiting.chain == "failed" else logging.INFO


def not_looked(before: Waiting, why: str) -> Waiting:
    """Say that a look came to nothing: the wait goes on, whatever the network or the exchange refused."""
    return Waiting(why, before.missing_since_ms)


def timed_out(awaited: Awaited, last: Waiting) -> Expired:
    """Say that the time is up; whether it was accepted knows who holds a receipt."""
    where = "on chain" if last.chain is None else "finalized on chain"
    return Expired("timeout", f"{awaited} was not seen {where} in time; last seen: {last.last_seen.rstrip('.')}.")
