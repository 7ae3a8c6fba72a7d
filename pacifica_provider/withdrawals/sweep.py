"""
How much a sweep withdraws, and what the exchange would refuse. Pure: what was read goes in, an order comes out.

Pacifica computes what may be withdrawn from balance, margin, debt and open orders, so it is read, never computed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from typing import TYPE_CHECKING

from pacifica_provider.api.amounts import canonical_text, difference, parse_amount
from pacifica_provider.withdrawals.identity import Order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacifica_provider.api.models import BridgeParameters, SpotAsset, SpotBalance

ALL = "all"
# How many places Pacifica takes is not known: those of the asset on chain, or eight.
_PLACES = 8


@dataclass(frozen=True, slots=True)
class Available:
    """What an account may withdraw and at what price; ``bridge`` is ``None`` for an asset without an active one."""

    balances: Sequence[SpotBalance]
    assets: Sequence[SpotAsset]
    bridge: BridgeParameters | None

    def of(self, symbol: str) -> Decimal | None:
        """Return what may be withdrawn of an asset; ``None`` if the account lists none of it."""
        return next((row.available_to_withdraw for row in self.balances if row.symbol == symbol), None)


@dataclass(frozen=True, slots=True)
class Sweep:
    """Everything that may be withdrawn of an asset, but for ``reserve``; nothing if that is less than ``minimum``."""

    symbol: str
    reserve: Decimal = Decimal(0)
    minimum: Decimal = Decimal(0)

    @classmethod
    def parse(cls, symbol: object, reserve: object, minimum: object) -> Sweep:
        """
        Read it from what templates rendered to.

        :raises ConfigurationError: naming the argument that is no amount.
        """
        return cls(Order.parse(symbol, "1").symbol, parse_part("reserve", reserve), parse_part("minimum", minimum))

    def order(self, available: Available) -> Order | None:
        """Return the order, rounded down to what the asset can have; ``None`` if there is too little to withdraw."""
        there = available.of(self.symbol) or Decimal(0)
        places = _PLACES if available.bridge is None else min(_PLACES, available.bridge.decimals)
        rest = difference(there, self.reserve)
        amount = rest.quantize(Decimal(1).scaleb(-places), rounding=ROUND_DOWN) if rest > 0 else Decimal(0)
        fee = Decimal(0) if available.bridge is None else available.bridge.withdrawal_fee
        return None if amount <= fee or amount < self.minimum else Order(self.symbol, amount)

    def __str__(self) -> str:
        reserve = f" but for {canonical_text(self.reserve)}" if self.reserve else ""
        minimum = f", at least {canonical_text(self.minimum)}" if self.minimum else ""
        return f"all {self.symbol}{reserve}{minimum}"


def parse_part(name: str, value: object) -> Decimal:
    """
    Read ``reserve`` or ``minimum``: an amount, zero, or ``None`` for zero.

    :raises ConfigurationError: naming the argument.
    """
    return parse_amount(0 if value is None else value, name, zero=True)


def refusal(order: Order, available: Available) -> str | None:
    """
    Say why the exchange would refuse an order; ``None`` where nothing is certain.

    What exceeds Pacifica's daily limit may be queued instead, so that is no reason.
    """
    there = available.of(order.symbol)
    if any(asset.symbol == order.symbol and not asset.active for asset in available.assets):
        return f"{order.symbol} is not active"
    if available.bridge is None:
        return f"{order.symbol} has no active bridge"
    if order.amount <= available.bridge.withdrawal_fee:
        return f"the fee is {canonical_text(available.bridge.withdrawal_fee)} {order.symbol}"
    if there is not None and order.amount > there:
        return f"only {canonical_text(there)} {order.symbol} may be withdrawn now"
    return None
