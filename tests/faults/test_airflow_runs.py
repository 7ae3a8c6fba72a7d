"""Runs beside runs, and tasks beside tasks: F58 to F62."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from pacifica_provider.exceptions import ConfigurationError, OutcomeUnknown, ParameterMismatch

if TYPE_CHECKING:
    from tests.faults.airflow_bench import TaskBench


@pytest.mark.parametrize("run_id", ["backfill__2026-11-01T00:00:00+00:00", "scheduled__2026-11-23__partition_2"])
def test_a_run_that_a_backfill_creates_pays_only_if_told_to(task: TaskBench, run_id: str) -> None:
    """F58, F59, S18: a new run, beside an old one or not, is a new order, and a backfill's is refused by default."""
    task.withdraw()
    missing = task.other(run_id=run_id, run_type="backfill")

    with pytest.raises(ConfigurationError, match="allow_backfill=True"):
        missing.withdraw()
    refused_posts = task.posts()
    missing.withdraw(allow_backfill=True)

    assert (refused_posts, len(task.debits())) == (1, 2)
    assert len({key for key, _ in task.debits()}) == 2


def test_a_guard_s_refusal_says_first_what_may_have_moved(task: TaskBench) -> None:
    """F57: a backfill over a run with an unanswered attempt is refused, but not as if nothing had happened."""
    task.harness.fault("reset", when="after_commit")
    task.harness.fault("status", route="pending", status=503, skip=1, count=3)
    with pytest.raises(Exception, match="MAY have moved money"):
        task.withdraw()
    task.clear().run_type = "backfill"

    with pytest.raises(ConfigurationError) as caught:
        task.withdraw()

    assert str(caught.value).startswith("The withdrawal of 1 SOL MAY have moved money")


def test_a_second_manual_run_of_a_date_is_a_new_order(task: TaskBench) -> None:
    """F60: each run pays for itself; a key that ignores the run is not to be had by accident."""
    first, second = task.other(run_id="manual__2026-11-23"), task.other(run_id="manual__2026-11-23__1")

    receipts = [first.withdraw(), second.withdraw()]

    assert len({receipt["idempotency_key"] for receipt in receipts}) == len(task.debits()) == 2


def test_a_mapped_task_needs_a_reference(task: TaskBench) -> None:
    """F61: the map index is no identity, so without a reference nothing is sent, and with one each pays once."""
    payees = [task.other(map_index=index) for index in range(3)]
    with pytest.raises(ConfigurationError, match="needs a withdrawal_ref"):
        payees[0].withdraw()
    unsent = task.posts()

    receipts = [payee.withdraw("1", ref=f"invoice-{index}") for index, payee in enumerate(payees)]

    assert (unsent, len({receipt["idempotency_key"] for receipt in receipts}), len(task.debits())) == (0, 3, 3)


AMOUNTS = {"a": "1", "b": "2", "c": "3"}


def _run_mapped(task: TaskBench, refs: list[str], *, lose: bool) -> list[str]:
    """Expand the operator over two references, then clear all and expand it over others; return what came of those."""
    instances = [task.other(map_index=index) for index in range(3)]
    for instance, ref in zip(instances, ["a", "b"], strict=False):
        instance.operate(AMOUNTS[ref], ref=ref)
    if lose:
        task.lose()
    outcomes = []
    for instance, ref in zip(instances, refs, strict=False):
        try:
            instance.clear().operate(AMOUNTS[ref], ref=ref)
        except (OutcomeUnknown, ParameterMismatch) as error:
            outcomes.append(type(error).__name__)
        else:
            outcomes.append("receipt")
    return outcomes


@pytest.mark.parametrize(
    ("after", "outcomes"),
    [
        pytest.param(["b", "a"], ["receipt", "receipt"], id="re-ordered"),
        pytest.param(["a", "b", "c"], ["receipt", "receipt", "receipt"], id="appended"),
        pytest.param(["b"], ["receipt"], id="shrunk"),
        pytest.param(["c", "a", "b"], ["ParameterMismatch", "receipt", "receipt"], id="put-in-front"),
    ],
)
def test_a_mapping_that_changes_on_clear_pays_nobody_twice(
    task: TaskBench, after: list[str], outcomes: list[str]
) -> None:
    """F62, F85: the record follows its reference; only a new reference at an index that has paid another is refused."""
    came = _run_mapped(task, after, lose=False)
    paid = sorted(amount for _, amount in task.debits())

    assert came == outcomes
    assert paid == [f"{Decimal(AMOUNTS[ref]):.8f}" for ref in ("abc" if after[-1] == "c" else "ab")]


@pytest.mark.parametrize("after", [["b", "a"], ["c", "a", "b"]], ids=["re-ordered", "grown"])
def test_a_mapping_that_changes_on_clear_pays_nobody_twice_by_a_lost_ledger(task: TaskBench, after: list[str]) -> None:
    """F62: with the ledger lost, whoever has a row that fits is left to a person, and the one who has none is paid."""
    came = _run_mapped(task, after, lose=True)
    paid = sorted(amount for _, amount in task.debits())

    assert came == [{"c": "receipt"}.get(ref, "OutcomeUnknown") for ref in after]
    assert paid == [f"{Decimal(AMOUNTS[ref]):.8f}" for ref in sorted({"a", "b", *after})]
