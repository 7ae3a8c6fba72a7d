"""Whoever else withdraws from the account of a world: people who type an amount, and deployments that tag theirs."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_CEILING
from typing import TYPE_CHECKING

from pacifica_provider.withdrawals.identity import Order, tagged

if TYPE_CHECKING:
    from decimal import Decimal
    from random import Random

    from tests.simulator.exchange import Request, Row, SimulatedExchange


@dataclass(slots=True)
class Elsewhere:
    """
    Makes withdrawals that look like ours.

    ``tagging`` is luck of its own, so that it changes no other draw: with it, half of these withdrawals are made by a
    deployment that tags amounts too, by keys of its own. Without it nobody else tags. ``equal_tags``: its keys lead to
    the very tags that ours do, which happens once in 9,999 times by chance.
    """

    exchange: SimulatedExchange
    tagging: Random | None = None
    equal_tags: bool = False
    _made: int = field(default=0)

    def withdraw(self, symbol: str, amount: Decimal, our_key: str) -> Row:
        """Withdraw this amount, tagged or not."""
        self._made += 1
        if self.tagging is not None and self.tagging.random() < 0.5:
            self.exchange.seen["foreign withdrawal, tagged"] += 1
            key = our_key if self.equal_tags else f"elsewhere {self.tagging.random()} {self._made}"
            amount = tagged(Order(symbol, amount), key).amount
        return self.exchange.withdraw_elsewhere(symbol, amount)

    def withdraw_like(self, request: Request) -> Row:
        """Withdraw what this request of ours withdraws, or what its tagged amount was made from."""
        return self.withdraw(request.symbol, request.amount.to_integral_value(ROUND_CEILING), request.key)
