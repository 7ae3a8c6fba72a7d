"""Tries of a task through the hook, in a context like Airflow's, with the real client, connection and protocol."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pacifica_provider.hooks.pacifica import PacificaHook

if TYPE_CHECKING:
    from pacifica_provider.withdrawals.look import Surroundings
    from tests.support.rig import Rig


class StateStore:
    """Airflow 3.3's task state store of one task instance, as far as the provider uses it."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str, default: object = None) -> object:
        """Return a value."""
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: object, *, retention: object = None) -> None:
        """Keep a value."""
        self.values[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        """Forget a value."""
        self.values.pop(key, None)


class BenchHook(PacificaHook):
    """The hook itself, but for the bench's clock: waiting takes no time."""

    def __init__(self, rig: Rig, conn_id: str) -> None:
        super().__init__(conn_id)
        self._rig = rig

    def _surroundings(self) -> Surroundings:
        own = super()._surroundings()
        return replace(own, now_ms=self._rig.clock.now_ms, sleep_s=self._rig.clock.sleep_s)


@dataclass
class TaskBench:
    """One task instance as Airflow describes it; ``withdraw`` is one try of it."""

    rig: Rig
    dag_id: str = "pay"
    run_id: str = "scheduled__2026-11-23T00:00:00+00:00"
    task_id: str = "withdraw"
    map_index: int = -1
    run_type: str = "scheduled"
    try_number: int = 0
    clear_number: int = 0
    conn_id: str = "pacifica_default"
    store: StateStore = field(default_factory=StateStore)

    def context(self) -> Any:
        """Return the context of the next try."""
        self.try_number += 1
        now = datetime.fromtimestamp(self.rig.clock.now_ms() / 1000, timezone.utc)
        ids = {"dag_id": self.dag_id, "run_id": self.run_id, "task_id": self.task_id, "map_index": self.map_index}
        return {
            "ti": SimpleNamespace(**ids, try_number=self.try_number),
            "dag_run": SimpleNamespace(
                clear_number=self.clear_number,
                run_after=now - timedelta(minutes=1),
                run_type=SimpleNamespace(value=self.run_type),
            ),
            "task_state_store": self.store,
        }

    def withdraw(
        self, amount: object = "1", *, symbol: object = "SOL", ref: str | None = None, allow_backfill: bool = False
    ) -> dict[str, Any]:
        """Run one try through the hook, and return its receipt."""
        hook = BenchHook(self.rig, self.conn_id)
        return hook.withdraw_spot_asset(
            symbol, amount, context=self.context(), withdrawal_ref=ref, allow_backfill=allow_backfill
        )

    def clear(self, *, wipe: bool = False) -> TaskBench:
        """Clear the task as Airflow does; 3.4 wipes the store unless told not to."""
        self.clear_number += 1
        if wipe:
            self.store.values.clear()
        return self

    def other(self, **changes: Any) -> TaskBench:
        """Return another task instance, with a store of its own."""
        return replace(self, **{"store": StateStore(), "try_number": 0, "clear_number": 0, **changes})

    def debits(self) -> list[tuple[str, str]]:
        """Return every debit of the exchange: key and amount."""
        return [(debit["idempotency_key"], debit["amount"]) for debit in self.rig.ledger()["debits"]]

    def posts(self) -> int:
        """Return how many requests the exchange has seen."""
        return len(self.rig.ledger()["posts"])
