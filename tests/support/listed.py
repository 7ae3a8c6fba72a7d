"""Rows as the exchange lists them, and the record of a withdrawal of 1.5 SOL that looks for its own."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from pacifica_provider.api.models import PendingWithdrawal, SettledWithdrawal
from pacifica_provider.withdrawals.identity import Order, RunIdentity, fingerprint
from pacifica_provider.withdrawals.matching import Reading, Snapshot
from pacifica_provider.withdrawals.record import Attempt, Record, Row

IDENTITY = RunIdentity("acc", "pay", "run", "withdraw")
ORDER = Order("SOL", Decimal("1.5"))
T0, SKEW, WINDOW = 1_000_000, 5_000, 10_000
FEE, NET = Decimal("0.001"), Decimal("1.499")
LOST = Attempt(T0 + 1_000, WINDOW)
RECORD = Record(
    IDENTITY,
    ORDER,
    "https://x",
    fingerprint(IDENTITY, "https://x", ORDER),
    maybe_sent=False,
    since_ms=T0,
    attempts=(LOST,),
)


def pending(nonce: int, at_ms: int = T0 + 2_000, gross: str = "1.5", symbol: str = "SOL") -> PendingWithdrawal:
    """Return a pending row."""
    return PendingWithdrawal(symbol, Decimal(gross) - FEE, Decimal(gross), FEE, nonce, at_ms)


def settled(
    nonce: int, at_ms: int = T0 + 2_000, amount: str = "1.499", symbol: str = "SOL", tx: str | None = "5x"
) -> SettledWithdrawal:
    """Return a row of the history, net by default."""
    return SettledWithdrawal(symbol, Decimal(amount), nonce, tx, at_ms)


def reading(*rows: PendingWithdrawal | SettledWithdrawal) -> Reading:
    """Return both lists as read at one time."""
    return Reading(
        Snapshot(T0, T0, 0, [row for row in rows if isinstance(row, PendingWithdrawal)]),
        [row for row in rows if isinstance(row, SettledWithdrawal)],
        FEE,
    )


OLD = Row(7, Decimal("1.5"), NET, T0 - 60_000)


def before(*rows: Row) -> Record:
    """Return the record with a *before* picture."""
    return replace(RECORD, before=rows)
