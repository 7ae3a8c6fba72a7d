"""How a withdrawal through the hook ends: what Airflow may retry, and what it must not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from pacifica_provider.exceptions import (
    ConfigurationError,
    Throttled,
    Unreachable,
    Unresolved,
    WithdrawalRejected,
)
from pacifica_provider.hooks.pacifica import PacificaHook
from pacifica_provider.withdrawals.ledger import withdrawal_entry

if TYPE_CHECKING:
    from tests.support.task_context import TaskContext


def withdraw(task_context: TaskContext, amount: object = "1.50", symbol: object = "SOL", **kwargs: Any) -> Any:
    """Run one try through a new hook, as each try has."""
    return PacificaHook().withdraw_spot_asset(symbol, amount, context=task_context.context(), **kwargs)


@pytest.mark.parametrize(
    ("fault", "kind", "final"),
    [
        ({"kind": "status", "route": "pending", "status": 503, "count": None}, Unreachable, False),
        ({"kind": "status", "route": "pending", "status": 429, "headers": {"Retry-After": "600"}}, Throttled, False),
        ({"kind": "status", "route": "pending", "status": 404}, ConfigurationError, True),
        ({"kind": "no_date", "route": "pending", "count": None}, Unreachable, False),
        ({"kind": "status", "status": 422}, WithdrawalRejected, True),
        ({"kind": "status", "status": 401}, WithdrawalRejected, True),
    ],
)
def test_each_ending_is_retried_or_not(
    task_context: TaskContext, fault: dict[str, Any], kind: type[Exception], final: bool
) -> None:
    """An error that a retry cannot help is an ``AirflowFailException`` too, the others are not (F01, F24, F26, F27)."""
    task_context.fault(**fault)
    with pytest.raises(kind) as caught:
        withdraw(task_context)

    assert final == isinstance(caught.value, AirflowFailException)
    assert task_context.debits() == []


def test_a_ledger_that_is_down_stops_before_the_post(task_context: TaskContext) -> None:
    """Nothing leaves that is not on record first; what an earlier try sent is not known then (F44)."""
    task_context.store.error = BrokenPipeError("supervisor gone")
    for try_number in (1, 2):
        task_context.try_number = try_number
        with pytest.raises(Unresolved, match="BrokenPipeError"):
            withdraw(task_context)

    assert task_context.posts() == []


def test_a_corrupt_record_is_refused_and_left_alone(task_context: TaskContext) -> None:
    """What another version or a person wrote is not guessed at (F48, S28)."""
    name = withdrawal_entry(task_context.dag_id, task_context.run_id, task_context.task_id, None)
    task_context.store.values[name] = stored = '{"version": 99}'
    with pytest.raises(ConfigurationError, match="left as it is") as caught:
        withdraw(task_context)

    assert isinstance(caught.value, AirflowFailException)
    assert task_context.store.values == {name: stored}
    assert task_context.posts() == []
