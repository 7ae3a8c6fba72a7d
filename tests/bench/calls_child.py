"""
In the child: withdrawals as a task makes them, beside bare posts, one after the other.

Started with ``{"exchange", "account", "pairs"}``; it tells the milliseconds of each, and the store calls of ours.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from tests.bench.child import Parent
from tests.bench.exchange import SYMBOL

CONN_ID = "bench"


class CountedStore:
    """Stands in for ``context["asset_state_store"][WITHDRAWALS]``: in memory, JSON text, every call counted."""

    def __init__(self, calls: Counter[str]) -> None:
        self._calls = calls
        self._entries: dict[str, str] = {}

    def get(self, key: str) -> object | None:
        """Return the entry."""
        self._calls["get"] += 1
        return json.loads(self._entries[key]) if key in self._entries else None

    def set(self, key: str, value: object) -> None:
        """Write the entry."""
        self._calls["set"] += 1
        self._entries[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        """Remove the entry."""
        self._calls["delete"] += 1
        self._entries.pop(key, None)


def main() -> None:
    """Withdraw both ways in turn."""
    parent = Parent()
    exchange, account = parent.wish["exchange"], parent.wish["account"]
    os.environ[f"AIRFLOW_CONN_{CONN_ID.upper()}"] = json.dumps(
        {
            "conn_type": "pacifica",
            "login": account["account"],
            "password": account["agent_private_key"],
            "host": exchange["base_url"],
            "extra": {"environment": "custom"},
        }
    )
    calls: Counter[str] = Counter()
    post_once()
    store = CountedStore(calls)
    withdraw_once(store, "warm-up")  # whatever only the first pays, such as imports and the ledger's birth
    calls.clear()
    parent.say({"ready": True})
    spent: dict[str, list[float]] = {"post": [], "withdraw": []}
    for number in range(parent.wish["pairs"]):
        begun = time.perf_counter()
        post_once()
        middle = time.perf_counter()
        withdraw_once(store, f"run-{number}")
        spent["post"].append((middle - begun) * 1000)
        spent["withdraw"].append((time.perf_counter() - middle) * 1000)
    parent.say({**spent, "store_calls": dict(calls)})


def post_once() -> None:
    """Do what a task does that only posts: read the connection, load the key, sign, send."""
    from pacifica_provider.api.outcomes import Accepted
    from pacifica_provider.hooks.pacifica import PacificaHook

    hook = PacificaHook(CONN_ID)
    client: Any = hook._client(hook._signer())
    key = str(uuid.uuid4())
    outcome = client.withdraw_spot_asset(
        SYMBOL, Decimal(1), idempotency_key=key, timestamp_ms=time.time_ns() // 1_000_000
    )
    if not isinstance(outcome, Accepted):
        raise TypeError(f"a bare post was not accepted: {outcome}")


def withdraw_once(store: CountedStore, run_id: str) -> None:
    """Do what the operator does, in the context of a first try."""
    from pacifica_provider.assets import WITHDRAWALS
    from pacifica_provider.hooks.pacifica import PacificaHook
    from pacifica_provider.hooks.requests import WithdrawalRequest

    ti = SimpleNamespace(dag_id="bench", run_id=run_id, task_id="withdraw", map_index=-1, try_number=1)
    run = SimpleNamespace(clear_number=0, run_after=datetime.now(UTC), run_type="manual")
    context = {"ti": ti, "dag_run": run, "asset_state_store": {WITHDRAWALS: store}}
    PacificaHook(CONN_ID).withdraw_as_asked(WithdrawalRequest(SYMBOL, "1", one_reference=True), context)


if __name__ == "__main__":
    main()
