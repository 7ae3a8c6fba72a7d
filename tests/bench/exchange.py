"""
The sandbox in a process of its own, so that its CPU is not counted, with withdrawals that wait.

Started with ``{"rows": [1, 10], "push": true, "frozen": true, "options": {...}}`` it opens an account for each number,
gives it so many pending withdrawals, and prints where it listens. Each line it is sent makes it print how many requests
it has answered, by account and route. Where nothing will settle, ``frozen`` lets it render each pending list once: it
answers thousands of polls then, and it is not what is measured.

Two lines ask for something else: ``"meter"`` for the sockets that are open and what was charged and refused so far, and
``{"settle_s": 60}`` for settling everything, one by one at random moments of so many seconds. For that ``indexed``
makes it find a batch among ten thousand at once.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter, defaultdict
from dataclasses import replace
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

from pacifica_provider.sandbox import Sandbox
from pacifica_provider.sandbox.accounts import KeyMaker
from pacifica_provider.sandbox.exchange import HISTORY_COST, Credits
from pacifica_provider.sandbox.withdrawals import Withdrawals, shows_transaction
from tests.bench.child import Parent

if TYPE_CHECKING:
    from pacifica_provider.sandbox.exchange import Client, Exchange, RateLimitStatus
    from pacifica_provider.sandbox.options import Options
    from pacifica_provider.sandbox.withdrawals import Withdrawal

SYMBOL = "SOL"
STEP = Decimal("0.001")
SEED = 20


class Tally(Credits):
    """Counts every request, whoever pays for it, what it is charged, and how many are refused."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.paid: dict[str, float] = defaultdict(float)
        self.refused = 0

    def charge(self, client: Client, route: str, *, now_ms: int, options: Options) -> RateLimitStatus:
        """Count it, then charge it."""
        self.counts[client.name][route] += 1
        status = super().charge(client, route, now_ms=now_ms, options=options)
        if status.allowed:
            self.paid[client.name] += HISTORY_COST[client.kind] if route == "history" else 1.0
        else:
            self.refused += 1
        return status


class IndexedWithdrawals(Withdrawals):
    """Looks only at the rows that it is asked for; each is a batch of its own."""

    def __init__(self) -> None:
        super().__init__(KeyMaker(SEED).transaction_id)
        self._sequences: dict[int, int] = {}
        self._fresh: list[int] = []

    def add(self, *args: Any, **kwargs: Any) -> Withdrawal:
        """Accept a withdrawal into a batch of its own."""
        row = super().add(*args, **kwargs)
        self._sequences[row.batch_nonce] = row.sequence
        return row

    def settle(self, *, now_ms: int, symbol: str | None = None, batch_nonce: int | None = None) -> list[Withdrawal]:
        """Settle the one batch; all of them are of one asset."""
        if batch_nonce is None or symbol != SYMBOL:
            raise ValueError("name the batch")
        row = self.rows[self._sequences[batch_nonce]]
        done = replace(row, settled_at=now_ms, transaction_id=self._transaction_id())
        self.rows[row.sequence] = done
        self._fresh.append(row.sequence)
        return [done]

    def announce_confirmed(self, *, now_ms: int, options: Options) -> list[Withdrawal]:
        """Return what was settled since the last call."""
        ready = [self.rows[sequence] for sequence in self._fresh]
        self._fresh = [row.sequence for row in ready if not shows_transaction(row, now_ms, options)]
        shown = [replace(row, announced=True) for row in ready if row.sequence not in self._fresh]
        self.rows.update({row.sequence: row for row in shown})
        return shown


def amount_of(number: int) -> Decimal:
    """Return the amount of an account's n-th withdrawal; no two are equal, as a batch may hold several."""
    return 1 + STEP * number


def main() -> None:
    """Serve until the input ends."""
    parent = Parent()
    wish: dict[str, Any] = parent.wish
    sandbox = Sandbox()
    tally = sandbox.exchange.credits = Tally()
    if wish.get("indexed"):
        sandbox.exchange.book = IndexedWithdrawals()
    sandbox.exchange.set_options({"history_time": "settled", **wish.get("options", {})})
    accounts = [_open(sandbox.exchange, rows) for rows in wish["rows"]]
    if wish.get("frozen"):
        sandbox.exchange.pending = cache(sandbox.exchange.pending)  # type: ignore[method-assign]  # for this instance
    with sandbox:
        if not wish.get("push", True):
            sandbox.control("POST", "/ws", {"action": "refuse"})
        parent.say({"base_url": sandbox.base_url, "control_url": sandbox.control_url, "accounts": accounts})
        for line in sys.stdin:
            parent.say(_answer(sandbox, tally, json.loads(line)))


def _answer(sandbox: Sandbox, tally: Tally, asked: Any) -> dict[str, Any]:
    if isinstance(asked, dict):
        return _settle(sandbox, asked["settle_s"])
    if asked == "meter":
        sockets = sandbox.control("GET", "/ws")["connections"]
        requests = sum(routes.total() for routes in tally.counts.values())
        return {"sockets": sockets, "paid": dict(tally.paid), "refused": tally.refused, "requests": requests}
    return {name: dict(routes) for name, routes in tally.counts.items()}


def _settle(sandbox: Sandbox, seconds: float) -> dict[str, Any]:
    """Settle all at random moments, and return when the exchange did, by nonce, and how late it was at most."""
    dice = random.Random(SEED)  # noqa: S311 - the same moments in every run, nothing secret
    nonces = [row.batch_nonce for row in sandbox.exchange.book.rows.values()]
    dice.shuffle(nonces)
    begun, behind_s = time.monotonic(), 0.0
    for moment, nonce in zip(sorted(dice.uniform(0, seconds) for _ in nonces), nonces, strict=True):
        time.sleep(max(0.0, begun + moment - time.monotonic()))
        sandbox.control("POST", "/settle", {"symbol": SYMBOL, "batch_nonce": nonce})
        behind_s = max(behind_s, time.monotonic() - begun - moment)
    settled = {row.batch_nonce: row.settled_at for row in sandbox.exchange.book.rows.values()}
    return {"settled_ms": settled, "behind_s": behind_s}


def _open(exchange: Exchange, rows: int) -> dict[str, Any]:
    """Open an account; its withdrawals' nonces follow one another, or are one, if batches are shared."""
    opened, opened_at_ms = exchange.accounts.open({SYMBOL: Decimal(10**9)}), exchange.now_ms()
    nonces = [exchange.accept(opened.account, SYMBOL, amount_of(n), key=None)["batch_nonce"] for n in range(rows)]
    return {
        "account": opened.account,
        "agent_private_key": opened.agent_private_key,
        "api_config_key": opened.api_config_key,
        "opened_at_ms": opened_at_ms,
        "nonces": nonces,
    }


if __name__ == "__main__":
    main()
