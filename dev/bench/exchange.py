"""
The sandbox in a process of its own, so that its CPU is not counted, with withdrawals that wait.

Started with ``{"rows": [1, 10], "push": true, "frozen": true, "options": {...}}`` it opens an account for each number,
gives it so many pending withdrawals, and prints where it listens. Each line it is sent makes it print how many requests
it has answered, by account and route. Where nothing will settle, ``frozen`` lets it render each pending list once: it
answers thousands of polls then, and it is not what is measured.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

from dev.bench.child import Parent
from pacifica_provider.sandbox import Sandbox
from pacifica_provider.sandbox.credits import Credits

if TYPE_CHECKING:
    from pacifica_provider.sandbox.credits import Client, Standing
    from pacifica_provider.sandbox.exchange import Exchange
    from pacifica_provider.sandbox.options import Options

SYMBOL = "SOL"
STEP = Decimal("0.001")


class Tally(Credits):
    """Counts every request, whoever pays for it."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)

    def charge(self, client: Client, route: str, *, now_ms: int, options: Options) -> Standing:
        """Count it, then charge it."""
        self.counts[client.name][route] += 1
        return super().charge(client, route, now_ms=now_ms, options=options)


def amount_of(number: int) -> Decimal:
    """Return the amount of an account's n-th withdrawal; no two are equal, as a batch may hold several."""
    return 1 + STEP * number


def main() -> None:
    """Serve until the input ends."""
    parent = Parent()
    wish: dict[str, Any] = parent.wish
    sandbox = Sandbox()
    tally = sandbox.exchange.credits = Tally()
    sandbox.exchange.set_options({"history_time": "settled", **wish.get("options", {})})
    accounts = [_open(sandbox.exchange, rows) for rows in wish["rows"]]
    if wish.get("frozen"):
        sandbox.exchange.pending = cache(sandbox.exchange.pending)  # type: ignore[method-assign]  # for this instance
    with sandbox:
        if not wish.get("push", True):
            sandbox.control("POST", "/ws", {"action": "refuse"})
        parent.say({"base_url": sandbox.base_url, "control_url": sandbox.control_url, "accounts": accounts})
        for _ in sys.stdin:
            parent.say({name: dict(routes) for name, routes in tally.counts.items()})


def _open(exchange: Exchange, rows: int) -> dict[str, Any]:
    """Open an account; its withdrawals' nonces follow one another, or are one, if batches are shared."""
    opened = exchange.accounts.open({SYMBOL: Decimal(10**9)})
    nonces = [exchange.accept(opened.account, SYMBOL, amount_of(n), key=None)["batch_nonce"] for n in range(rows)]
    return {
        "account": opened.account,
        "agent_private_key": opened.agent_private_key,
        "api_config_key": opened.api_config_key,
        "nonces": nonces,
    }


if __name__ == "__main__":
    main()
