"""A connection to the sandbox, and a watcher that is not patient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pacifica_provider.hooks import lookup
from pacifica_provider.triggers import push, rate_limit, schedule

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox


@pytest.fixture(autouse=True)
def connection(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the default connection at the sandbox, through Airflow's own look-up of environment variables."""
    monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", sandbox.airflow_connection)


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let intervals and pauses be shorter than a second."""
    monkeypatch.setattr(schedule, "LEAST_INTERVAL_S", 0.05)
    monkeypatch.setattr(schedule, "LONGEST_PAUSE_S", 0.4)
    monkeypatch.setattr(push, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(rate_limit, "IDLE_SHARE", 1000)
    monkeypatch.setattr(lookup, "RETRY_PAUSES_S", (0.01, 0.01))


@pytest.fixture
def no_push(sandbox: Sandbox) -> None:
    """Refuse WebSockets."""
    sandbox.control("POST", "/ws", {"action": "refuse"})
