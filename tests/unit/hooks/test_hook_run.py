"""What a context says of a try: its identity, and what it knows of itself."""

from __future__ import annotations

import shlex
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.hooks.run import TaskRun
from pacifica_provider.withdrawals.identity import RunIdentity

RUN_AFTER = datetime(2026, 11, 23, 6, 0, tzinfo=timezone.utc)


def context(**changes: Any) -> dict[str, Any]:
    """Return a context with some of it changed."""
    ti = {"dag_id": "pay", "run_id": "r 1", "task_id": "group.withdraw", "map_index": -1, "try_number": 1}
    run = {"clear_number": 0, "run_after": RUN_AFTER, "run_type": "scheduled"}
    return {
        "ti": SimpleNamespace(**{name: changes.get(name, value) for name, value in ti.items()}),
        "dag_run": SimpleNamespace(**{name: changes.get(name, value) for name, value in run.items()}),
    }


def test_the_identity_is_the_run_s() -> None:
    """Account and scope of the connection, DAG, run and full task id of the run, and the reference (F63, F64)."""
    identity = TaskRun.from_context(context()).identity("acc", "staging", "ref")

    assert identity == RunIdentity("acc", "pay", "r 1", "group.withdraw", "ref", "staging")


@pytest.mark.parametrize(
    "changes",
    [
        {"try_number": 9},
        {"clear_number": 3},
        {"run_type": "backfill"},
        {"run_after": RUN_AFTER + timedelta(days=9)},
        {"map_index": 4},
    ],
)
def test_nothing_of_the_try_is_in_the_identity(changes: dict[str, Any]) -> None:
    """Try, clear, backfill, time and map index change no key (F53, F57, F62)."""
    keys = {
        TaskRun.from_context(context(**each)).identity("acc", "", "ref").idempotency_key() for each in ({}, changes)
    }

    assert len(keys) == 1


@pytest.mark.parametrize(
    ("changes", "never_ran_before"),
    [
        ({}, True),
        ({"try_number": 0}, True),
        ({"try_number": 2}, False),
        ({"clear_number": 1}, False),
        ({"clear_number": None}, True),
        ({"try_number": 2, "clear_number": 1}, False),
    ],
)
def test_only_the_first_try_of_a_run_never_cleared_proves_anything(
    changes: dict[str, Any], never_ran_before: bool
) -> None:
    """Every other try that finds no record must think it wiped (F47, F54)."""
    facts = TaskRun.from_context(context(**changes)).facts(None)

    assert never_ran_before == facts.never_ran_before


def test_an_airflow_without_clear_numbers_counts_as_never_cleared() -> None:
    """Airflow 3.1 does not tell; the try number still does, since clearing raises it there."""
    bare = context()
    del bare["dag_run"].clear_number

    assert TaskRun.from_context(bare).clear_number == 0


@pytest.mark.parametrize(("map_index", "mapped"), [(-1, False), (None, False), (0, True), (12, True)])
def test_a_mapped_task_is_known_by_its_index(map_index: int | None, mapped: bool) -> None:
    """Index 0 is mapped too (F61)."""
    run = TaskRun.from_context(context(map_index=map_index))

    assert mapped == run.facts("ref").mapped


def test_run_after_is_in_unix_milliseconds() -> None:
    """No withdrawal of this run can be older."""
    assert TaskRun.from_context(context()).facts(None).run_after_ms == 1_795_413_600_000


def test_the_case_command_can_be_pasted() -> None:
    """Names with spaces and quotes arrive whole in a shell, and so do map index and reference."""
    run = TaskRun.from_context(context(run_id="manual__2026 'x'; rm -rf $HOME", map_index=3))
    words = shlex.split(run.facts("a b").case_command)

    assert words[words.index("--run-id") + 1] == "manual__2026 'x'; rm -rf $HOME"
    assert words[words.index("--task-id") + 1] == "group.withdraw"
    assert words[words.index("--map-index") + 1] == "3"
    assert words[words.index("--withdrawal-ref") + 1] == "a b"


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"ti": None, "dag_run": None},
        {"ti": context()["ti"]},
        {"dag_run": context()["dag_run"]},
        {**context(), "ti": SimpleNamespace(dag_id="pay")},
        {**context(), "dag_run": SimpleNamespace(run_type="manual")},
        context(run_after=None),
        context(try_number="first"),
        context(map_index="x"),
    ],
)
def test_a_context_that_is_no_task_s_is_refused(broken: dict[str, Any]) -> None:
    """There is no identity outside a run, and no fallback (F72)."""
    with pytest.raises(ConfigurationError, match=r"needs the context of a running task.*Nothing was sent"):
        TaskRun.from_context(broken)
