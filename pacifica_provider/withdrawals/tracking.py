"""
Where an accepted withdrawal stands: queued, settled, or not seen. Pure, total, and settled only on proof.

``batch_nonce`` names a batch, not a withdrawal, and is probably counted per asset: a row is matched on symbol, nonce
and, where it is known, amount. Absent from pending is not settled; only a history row with a transaction id is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pacifica_provider.api.amounts import canonical_text, difference

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from pacifica_provider.api.models import PendingWithdrawal, SettledWithdrawal


@dataclass(frozen=True, slots=True)
class Tracked:
    """What is waited for. ``amount`` is the gross amount asked for; ``None`` matches any amount."""

    symbol: str
    batch_nonce: int
    amount: Decimal | None = None

    def __str__(self) -> str:
        amount = "" if self.amount is None else f"{canonical_text(self.amount)} "
        return f"{amount}{self.symbol} in batch {self.batch_nonce}"


@dataclass(frozen=True, slots=True)
class Sighting:
    """
    Where the withdrawal was seen, and for a settled one the row that proves it.

    ``unproven`` says that a history row was there, but without a transaction id.
    """

    state: Literal["QUEUED", "SETTLED", "NOT_SEEN"]
    row: SettledWithdrawal | None = None
    unproven: bool = False

    def __str__(self) -> str:
        if self.state == "SETTLED" and self.row is not None:
            return f"settled in transaction {self.row.transaction_id}"
        if self.unproven:
            return "listed in the history, but without a transaction id yet"
        return "queued in Pacifica's pending list" if self.state == "QUEUED" else "in neither of Pacifica's lists"


def is_pending(tracked: Tracked, pending: Sequence[PendingWithdrawal]) -> bool:
    """Say whether the pending list holds it; history need not be read then."""
    return any(
        row.symbol == tracked.symbol
        and row.batch_nonce == tracked.batch_nonce
        and tracked.amount in {None, row.amount_requested}
        for row in pending
    )


def sight(
    tracked: Tracked,
    pending: Sequence[PendingWithdrawal],
    history: Sequence[SettledWithdrawal],
    fee: Decimal | None,
) -> Sighting:
    """
    Say where the withdrawal stands.

    An equal withdrawal of the same batch that is still pending may be this one, so it counts as queued; several equal
    history rows must all have a transaction id. ``fee`` is what the exchange deducts, since the history may show net.
    """
    if is_pending(tracked, pending):
        return Sighting("QUEUED")
    rows = [row for row in history if matches(tracked, row, fee)]
    if not rows:
        return Sighting("NOT_SEEN")
    if not all(row.transaction_id for row in rows):
        return Sighting("NOT_SEEN", unproven=True)
    return Sighting("SETTLED", rows[0])


def matches(tracked: Tracked, row: SettledWithdrawal, fee: Decimal | None) -> bool:
    """Say whether a history row can be the withdrawal, its amount read as gross or as net of the fee."""
    if (row.symbol, row.batch_nonce) != (tracked.symbol, tracked.batch_nonce):
        return False
    if tracked.amount is None or row.amount == tracked.amount:
        return True
    return fee is not None and row.amount == difference(tracked.amount, fee)
