"""What the exchange remembers. Frozen: a change is a new record in the old one's place."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PLACES = Decimal("1.00000000")


def padded(amount: Decimal) -> str:
    """Amounts of withdrawals have eight places, or more where eight would not be exact."""
    plain = amount.normalize()
    exponent = plain.as_tuple().exponent
    return format(plain if isinstance(exponent, int) and exponent < -8 else plain.quantize(PLACES), "f")


def plain(amount: Decimal) -> str:
    """Balances are not padded: "5", "0", "250000"."""
    return format(amount.normalize(), "f") if amount else "0"


@dataclass(frozen=True, slots=True)
class Asset:
    """A spot asset and its bridge ("active", "inactive" or "missing")."""

    symbol: str
    decimals: int
    fee: Decimal
    price_usd: Decimal
    mint: str | None
    program: str
    active: bool = True
    bridge: str = "active"
    minimum: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Account:
    """An account: its balances, the agents bound to it, and its main account if it is a subaccount."""

    address: str
    balances: Mapping[str, Decimal]
    agents: frozenset[str] = frozenset()
    parent: str | None = None
    api_key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """An accepted withdrawal: the debit, and the row of the lists. It settles after `held_until`, if that is set."""

    sequence: int
    account: str
    symbol: str
    amount: Decimal
    fee: Decimal
    idempotency_key: str | None
    batch_nonce: int
    created_at: int
    held_until: int | None = None
    settled_at: int | None = None
    transaction_id: str | None = None
    announced: bool = False

    @property
    def free_at(self) -> int:
        """When it may settle at the earliest."""
        return self.created_at if self.held_until is None else self.held_until

    @property
    def net(self) -> Decimal:
        """What arrives on chain."""
        return self.amount - self.fee


@dataclass(frozen=True, slots=True)
class Post:
    """One POST as the exchange saw it. `status` is None where no answer was sent."""

    key: object
    timestamp: object
    account: object
    symbol: object
    amount: object
    received_at: int
    outcome: str = "in_progress"
    status: int | None = None
    fault: str | None = None
