"""Tries of a task through the hook, in a context like Airflow's, with the real client, connection and protocol."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pacifica_provider.assets import WITHDRAWALS
from pacifica_provider.hooks import task_context
from pacifica_provider.hooks.pacifica import PacificaHook
from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator
from pacifica_provider.withdrawals.ledger import LedgerState, decision_entry, withdrawal_entry
from tests.support.harness import bound_decision

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Asset

    from pacifica_provider.hooks.receipts import Receipt
    from pacifica_provider.withdrawals.withdraw import Runtime
    from tests.support.harness import ProtocolHarness

MINUTE_MS = 60_000


class AssetState:
    """
    The state of an asset in Airflow 3.3, as far as the provider uses it: ``context["asset_state_store"][asset]``.

    All tasks of a deployment share it, and no clear empties it.
    """

    fenced = True

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str, default: object = None, /) -> object:
        """Return a value."""
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: object, /) -> None:
        """Keep a value."""
        self.values[key] = json.dumps(value)

    def delete(self, key: str, /) -> None:
        """Forget a value."""
        self.values.pop(key, None)

    def be_born(self, at_ms: int) -> None:
        """Let the ledger be complete since this time."""
        LedgerState(at_ms).write(self)


class AssetStates:
    """``context["asset_state_store"]`` of a task whose outlets name one asset: for any other there is a KeyError."""

    def __init__(self, asset: Asset, state: AssetState) -> None:
        self._asset = asset
        self._state = state

    def __getitem__(self, asset: Asset) -> AssetState:
        if asset != self._asset:
            raise KeyError(asset)
        return self._state


class BenchHook(PacificaHook):
    """The hook itself, but for the bench's clock: waiting takes no time."""

    def __init__(self, harness: ProtocolHarness, conn_id: str) -> None:
        super().__init__(conn_id)
        self._rig = harness

    def _runtime(self) -> Runtime:
        own = super()._runtime()
        return replace(own, now_ms=self._rig.clock.now_ms, sleep_s=self._rig.clock.sleep_s)


@dataclass
class TaskBench:
    """
    One task instance as Airflow describes it; ``withdraw`` is one try of it.

    Its ledger is an hour older than its run, unless it is given another one.
    """

    harness: ProtocolHarness
    dag_id: str = "pay"
    run_id: str = "scheduled__2026-11-23T00:00:00+00:00"
    task_id: str = "withdraw"
    map_index: int = -1
    loop_index: int | None = None
    run_type: str = "scheduled"
    try_number: int = 0
    clear_number: int = 0
    conn_id: str = "pacifica_default"
    outlet: Asset = WITHDRAWALS
    run_after_ms: int = 0
    ledger: AssetState = field(default_factory=AssetState)

    def __post_init__(self) -> None:
        self.run_after_ms = self.run_after_ms or self.harness.clock.now_ms() - MINUTE_MS
        if not self.ledger.values:
            self.ledger.be_born(self.run_after_ms - 60 * MINUTE_MS)

    def context(self) -> Any:
        """Return the context of the next try, which Airflow runs in a process of its own."""
        self.try_number += 1
        task_context._withdrawn.clear()
        ids = {"dag_id": self.dag_id, "run_id": self.run_id, "task_id": self.task_id, "map_index": self.map_index}
        context = {
            "ti": SimpleNamespace(**ids, try_number=self.try_number, xcom_push=lambda key, value: None),
            "dag_run": SimpleNamespace(
                clear_number=self.clear_number,
                run_after=datetime.fromtimestamp(self.run_after_ms / 1000, UTC),
                run_type=SimpleNamespace(value=self.run_type),
            ),
            "asset_state_store": AssetStates(self.outlet, self.ledger),
        }
        return context if self.loop_index is None else {**context, "loop": SimpleNamespace(index=self.loop_index)}

    def withdraw(
        self,
        amount: object = "1",
        *,
        symbol: object = "SOL",
        ref: str | None = None,
        allow_backfill: bool = False,
        context: Any = None,
    ) -> Receipt:
        """Run one try through the hook, as a ``@task`` does; ``context`` is that of a try under way."""
        hook = BenchHook(self.harness, self.conn_id)
        return hook.withdraw_spot_asset(
            symbol, amount, context=context or self.context(), withdrawal_ref=ref, allow_backfill=allow_backfill
        )

    def operate(self, amount: str = "1", *, ref: str | None = None) -> Receipt:
        """Run one try through the operator, its templates rendered to this, and return its receipt."""
        operator = WithdrawSpotAssetOperator(task_id="withdraw", symbol="SOL", amount=amount, withdrawal_ref=ref)
        operator.pacifica_conn_id = self.conn_id
        operator._hook = BenchHook(self.harness, self.conn_id)
        return operator.execute(self.context())

    def clear(self) -> TaskBench:
        """Clear the task as Airflow does, 3.4 with its task state; the ledger stays."""
        self.clear_number += 1
        return self

    def lose(self, *prefixes: str) -> TaskBench:
        """Lose the entries of the ledger that begin so, or all of them with the word since when it is complete."""
        for name in [name for name in self.ledger.values if name.startswith(prefixes or "")]:
            del self.ledger.values[name]
        return self

    def decide(self, action: str, ref: str | None = None, /, **fields: Any) -> None:
        """Leave a person's decision on this task's withdrawal, bound to the record as it stands."""
        names = (self.dag_id, self.run_id, self.task_id, ref)
        stored = self.ledger.get(withdrawal_entry(*names))
        assert isinstance(stored, dict)
        self.ledger.set(decision_entry(*names), bound_decision(stored, action, **fields))

    def other(self, **changes: Any) -> TaskBench:
        """Return another task instance of the same deployment, unless it is given a ledger of its own."""
        return replace(self, **{"try_number": 0, "clear_number": 0, **changes})

    def debits(self) -> list[tuple[str, str]]:
        """Return every debit of the exchange: key and amount."""
        return [(debit["idempotency_key"], debit["amount"]) for debit in self.harness.ledger()["debits"]]

    def posts(self) -> int:
        """Return how many requests the exchange has seen."""
        return len(self.harness.ledger()["posts"])
