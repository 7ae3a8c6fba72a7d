"""What a worker has: a connection in the environment, a task's context, and an asset state store like Airflow's."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.api.signing import Signer
from pacifica_provider.assets import WITHDRAWALS
from pacifica_provider.hooks import ledgers, task_context
from pacifica_provider.withdrawals.withdraw import Runtime
from tests.support.airflow_line import AIRFLOW
from tests.support.harness import BenchClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.providers.common.compat.sdk import Asset

    from pacifica_provider.sandbox import Sandbox

CONN_ENV = "AIRFLOW_CONN_PACIFICA_DEFAULT"


class FakeAssetState:
    """
    What ``context["asset_state_store"][WITHDRAWALS]`` is in Airflow 3.3, as far as it is used, holding JSON text.

    ``error`` is raised by every call, as the channel to the supervisor does when it breaks.
    """

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.error: BaseException | None = None

    def get(self, key: str, default: object = None) -> object:
        """Return a stored value."""
        self._fail()
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: object) -> None:
        """Store a value; ``None`` is refused."""
        self._fail()
        if value is None:
            raise ValueError("Cannot set value as None")
        self.values[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        """Remove a value; no matter if there is none."""
        self._fail()
        self.values.pop(key, None)

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


class FakeAssetStates:
    """What ``context["asset_state_store"]`` is: the state of each asset among a task's outlets, by the asset's name."""

    def __init__(self, stores: Mapping[str, FakeAssetState]) -> None:
        self._stores = stores

    def __getitem__(self, asset: Asset) -> FakeAssetState:
        return self._stores[asset.name]


@dataclass
class TaskContext:
    """
    One task instance with its connection; change the fields between tries to make the tries differ.

    The protocol's sleeping moves its clock and the sandbox's. ``outlets`` are the assets that the task names,
    ``pushed`` its XComs.
    """

    sandbox: Sandbox
    monkeypatch: pytest.MonkeyPatch
    dag_id: str = "pay"
    run_id: str = "scheduled__2026-11-23T00:00:00+00:00"
    task_id: str = "withdraw"
    map_index: int = -1
    try_number: int = 1
    clear_number: int = 0
    run_type: object = "scheduled"
    rescheduled_at: datetime | None = None
    run_after: datetime | None = None
    loop: object = None
    outlets: tuple[Asset, ...] = (WITHDRAWALS,)
    store: FakeAssetState = field(default_factory=FakeAssetState)
    pushed: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = BenchClock(self.sandbox)
        self.monkeypatch.setattr(task_context, "runtime", self._runtime)
        # Also on an Airflow that has none; there test_ledgers.py has the Variables.
        self.monkeypatch.setattr(ledgers, "keeps_asset_state", lambda: True)

    def connect(self, conn_env: str = CONN_ENV, *, extra: dict[str, Any] | str | None = None, **changes: Any) -> None:
        """Point a connection at the sandbox, with short-lived signatures; ``extra`` is merged, or replaces as text."""
        if isinstance(extra, str):
            if AIRFLOW < (3, 2):
                pytest.skip("a variable of the environment holds no such extra on Airflow 3.1")
        else:
            extra = {"environment": "custom", "expiry_window_ms": 1000, **(extra or {})}
        connection = {
            "conn_type": "pacifica",
            "login": self.sandbox.account,
            "password": self.sandbox.agent_private_key,
            "host": self.sandbox.base_url,
            **changes,
        }
        self.monkeypatch.setenv(conn_env, json.dumps({**connection, "extra": extra}))

    @property
    def agent_wallet(self) -> str:
        """The address of the sandbox's agent."""
        return Signer.from_base58(self.sandbox.agent_private_key).public_key

    def context(self) -> Any:
        """
        Return a context like the one that Airflow hands to ``execute``.

        Airflow runs each try in a process of its own, so what this process has withdrawn is forgotten.
        """
        self.monkeypatch.setattr(task_context, "_withdrawn", set())
        states = {asset.name: FakeAssetState() for asset in self.outlets}
        if WITHDRAWALS.name in states:
            states[WITHDRAWALS.name] = self.store
        context: dict[str, Any] = {
            "ti": SimpleNamespace(
                dag_id=self.dag_id,
                run_id=self.run_id,
                task_id=self.task_id,
                map_index=self.map_index,
                try_number=self.try_number,
                get_first_reschedule_date=lambda _: self.rescheduled_at,
                xcom_push=lambda key, value: self.pushed.update({key: value}),
            ),
            "dag_run": SimpleNamespace(
                clear_number=self.clear_number,
                run_after=self.run_after or datetime.now(UTC) - timedelta(seconds=1),
                run_type=self.run_type,
            ),
        }
        if states:  # Airflow builds it only for a task that has inlets or outlets
            context["asset_state_store"] = FakeAssetStates(states)
        if self.loop is not None:
            context["loop"] = self.loop
        return context

    def record(self) -> dict[str, Any]:
        """Return the one stored record."""
        (record,) = [json.loads(text) for name, text in self.store.values.items() if name.startswith("withdrawal_")]
        return dict(record)

    def fault(self, kind: str, *, route: str = "withdraw", when: str = "before_commit", **fields: Any) -> None:
        """Inject a fault into the next matching request."""
        self.sandbox.control("POST", "/faults", {"route": route, "when": when, "kind": kind, "count": 1, **fields})

    def debits(self) -> list[dict[str, Any]]:
        """Return every debit of the exchange."""
        return list(self.sandbox.control("GET", "/ledger")["debits"])

    def posts(self) -> list[dict[str, Any]]:
        """Return every withdraw request that the exchange saw."""
        return list(self.sandbox.control("GET", "/ledger")["posts"])

    def _runtime(self, log: Callable[[str], None]) -> Runtime:
        return Runtime(self.clock.now_ms, self.clock.sleep_s, lambda: uuid.uuid4().hex, lambda: 0.5, log)
