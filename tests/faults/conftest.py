"""Fixtures of the fault matrix."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.faults.airflow_bench import TaskBench
from tests.faults.processes import Task
from tests.faults.wiretap import Wiretap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pacifica_provider.sandbox import Sandbox
    from tests.support.harness import ProtocolHarness


@pytest.fixture
def task(harness: ProtocolHarness, monkeypatch: pytest.MonkeyPatch) -> TaskBench:
    """Return a task instance whose connection is the sandbox's."""
    monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", harness.sandbox.airflow_connection)
    return TaskBench(harness)


@pytest.fixture
def paid(task: TaskBench) -> TaskBench:
    """Return a task instance that has withdrawn 1 SOL in batch 42."""
    task.withdraw()
    return task


@pytest.fixture(params=[True, False], ids=["fenced", "unfenced"])
def processes(request: pytest.FixtureRequest, sandbox: Sandbox, tmp_path: Path) -> Iterator[Task]:
    """Yield a task instance whose tries are processes, on a store with Airflow 3.3's fence and on one without."""
    task = Task(sandbox, tmp_path, fenced=request.param)
    yield task
    task.end()


@pytest.fixture
def tap(harness: ProtocolHarness) -> Iterator[Wiretap]:
    """Yield a tap on the way to the sandbox: it knows every signature that was sent."""
    with Wiretap(harness.sandbox.base_url) as tap:
        yield tap


@pytest.fixture
def connect(harness: ProtocolHarness, tap: Wiretap, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a way to set fields and extras of the connection, which leads through the tap."""

    def change(*, extra: dict[str, object] | str | None = None, **fields: object) -> None:
        connection = json.loads(harness.sandbox.airflow_connection)
        connection["host"] = tap.base_url
        if isinstance(extra, str):
            connection["extra"] = extra
        else:
            connection["extra"].update(extra or {})
        monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", json.dumps({**connection, **fields}))

    change()
    return change
