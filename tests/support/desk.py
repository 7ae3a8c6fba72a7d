"""A worker's desk: a connection in the environment, a task's context, and a task state store like Airflow's."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pacifica_provider.api.signing import Signer

if TYPE_CHECKING:
    import pytest

    from pacifica_provider.sandbox import Sandbox

CONN_ENV = "AIRFLOW_CONN_PACIFICA_DEFAULT"


class FakeTaskState:
    """
    What ``context["task_state_store"]`` is in Airflow 3.3, as far as it is used, holding JSON text.

    ``error`` is raised by every call, as the channel to the supervisor does when it breaks.
    """

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.retention: dict[str, object] = {}
        self.error: BaseException | None = None

    def get(self, key: str, default: object = None) -> object:
        """Return a stored value."""
        self._fail()
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: object, *, retention: object = None) -> None:
        """Store a value; ``None`` is refused."""
        self._fail()
        if value is None:
            raise ValueError("Cannot set value as None")
        self.values[key] = json.dumps(value)
        self.retention[key] = retention

    def delete(self, key: str) -> None:
        """Remove a value; no matter if there is none."""
        self._fail()
        self.values.pop(key, None)

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


@dataclass
class Desk:
    """One task instance with its connection; change the fields between tries to make the tries differ."""

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
    store: FakeTaskState = field(default_factory=FakeTaskState)

    def connect(self, conn_env: str = CONN_ENV, *, extra: dict[str, Any] | str | None = None, **changes: Any) -> None:
        """Point a connection at the sandbox, with short-lived signatures; ``extra`` is merged, or replaces as text."""
        if not isinstance(extra, str):
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
        """Return a context like the one that Airflow hands to ``execute``."""
        return {
            "ti": SimpleNamespace(
                dag_id=self.dag_id,
                run_id=self.run_id,
                task_id=self.task_id,
                map_index=self.map_index,
                try_number=self.try_number,
                get_first_reschedule_date=lambda _: self.rescheduled_at,
            ),
            "dag_run": SimpleNamespace(
                clear_number=self.clear_number,
                run_after=datetime.now(timezone.utc) - timedelta(seconds=1),
                run_type=self.run_type,
            ),
            "task_state_store": self.store,
        }

    def fault(self, kind: str, *, route: str = "withdraw", when: str = "before_commit", **fields: Any) -> None:
        """Inject a fault into the next matching request."""
        self.sandbox.control("POST", "/faults", {"route": route, "when": when, "kind": kind, "count": 1, **fields})

    def debits(self) -> list[dict[str, Any]]:
        """Return every debit of the exchange."""
        return list(self.sandbox.control("GET", "/ledger")["debits"])

    def posts(self) -> list[dict[str, Any]]:
        """Return every withdraw request that the exchange saw."""
        return list(self.sandbox.control("GET", "/ledger")["posts"])
