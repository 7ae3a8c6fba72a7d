"""The bench's DAGs: a hundred mapped tasks that withdraw, a hundred that only post, a hundred that do nothing."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, BaseOperator

from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

TASKS = 100
DAY_ONE = datetime(2026, 1, 1, tzinfo=UTC)


class Nothing(BaseOperator):
    """
    Do nothing, but as a task of its own: the scheduler never runs an ``EmptyOperator``.

    :param number: which of them it is.
    """

    def __init__(self, *, number: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = number

    def execute(self, context: Context) -> None:
        """Do nothing."""


class PostOnly(BaseOperator):
    """
    Post once with a new key, and forget about it: what a withdrawal costs without the protocol.

    :param amount: how much.
    """

    template_fields: Sequence[str] = ("amount",)

    def __init__(self, *, amount: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.amount = amount

    def execute(self, context: Context) -> dict[str, Any]:
        """Post with the operator's own client."""
        from pacifica_provider.api.amounts import parse_amount
        from pacifica_provider.api.outcomes import Accepted
        from pacifica_provider.hooks.pacifica import PacificaHook

        hook = PacificaHook()
        client: Any = hook._client(hook._signer())
        key, now_ms = str(uuid.uuid4()), time.time_ns() // 1_000_000
        outcome = client.withdraw_spot_asset("SOL", parse_amount(self.amount), idempotency_key=key, timestamp_ms=now_ms)
        if not isinstance(outcome, Accepted):
            raise TypeError(f"not accepted: {outcome}")
        return {"batch_nonce": outcome.receipt.batch_nonce}


def amount_of(number: int) -> str:
    """Return a task's amount; no two are equal."""
    return f"1.{number:03d}"


with DAG("bench_warm_up", schedule=None, start_date=DAY_ONE):
    Nothing.partial(task_id="task").expand(number=list(range(8)))

with DAG("bench_empty", schedule=None, start_date=DAY_ONE):
    Nothing.partial(task_id="task").expand(number=list(range(TASKS)))

with DAG("bench_post_only", schedule=None, start_date=DAY_ONE):
    PostOnly.partial(task_id="task").expand(amount=[amount_of(number) for number in range(TASKS)])

with DAG("bench_withdraw", schedule=None, start_date=DAY_ONE):
    WithdrawSpotAssetOperator.partial(task_id="task", symbol="SOL").expand_kwargs(
        [{"amount": amount_of(number), "withdrawal_ref": f"payment-{number}"} for number in range(TASKS)]
    )
