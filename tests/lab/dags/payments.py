"""Withdrawals as their runs' conf orders them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG, get_current_context, task, task_group

from pacifica_provider.assets import WITHDRAWALS
from pacifica_provider.hooks.pacifica import PacificaHook
from tests.lab.dags import accidents
from tests.lab.dags.parts import ORDER, RETRYING, Pay, Wait, receipt_of
from tests.support.airflow_line import AIRFLOW

ANY = datetime(2026, 1, 1, tzinfo=UTC)
MANY: dict[str, Any] = {"max_active_runs": 64, "default_args": RETRYING}

with DAG("pay", schedule=None, **MANY):
    Pay(task_id="withdraw", **ORDER)

with DAG("pay_everything", schedule=None, **MANY):
    Pay(task_id="withdraw", **{**ORDER, "amount": "all", "reserve": "2.5"})

with DAG("pay_too", schedule=None, **MANY):
    Pay(task_id="withdraw", **ORDER)

with DAG("pay_once", schedule=None, **{**MANY, "default_args": {"retries": 0}}):
    Pay(task_id="withdraw", **ORDER)

with DAG("pay_drifting", schedule=None, **MANY):
    # Rendered anew at every try, and once more when a deferred task resumes.
    Pay(
        task_id="withdraw",
        symbol="SOL",
        amount="1.{{ macros.datetime.now().strftime('%H%M%S') }}1",
        wait_for_settlement=True,
        deferrable=True,
        poll_interval=2,
    )

with DAG("pay_impatient", schedule=None, **{**MANY, "default_args": {**RETRYING, "retries": 20}}):
    Pay(
        task_id="withdraw",
        wait_for_settlement=True,
        deferrable=True,
        poll_interval=1,
        settlement_timeout=timedelta(seconds=4),
        **ORDER,
    )

with DAG("pay_and_wait", schedule=None, **MANY):
    pay = Pay(task_id="withdraw", **ORDER)
    Wait(task_id="poke", poke_interval=1, timeout=120, **receipt_of(pay))
    Wait(task_id="deferred", deferrable=True, poke_interval=2, timeout=120, **receipt_of(pay))


@task
def orders(dag_run: Any = None) -> list[dict[str, str]]:
    """Return the orders; after a clear, those of ``cleared_orders``."""
    return list(dag_run.conf["cleared_orders" if dag_run.clear_number else "orders"])


with DAG("pay_mapped", schedule=None, **MANY):
    Pay.partial(task_id="withdraw").expand_kwargs(orders())

with DAG("pay_grouped", schedule=None, **MANY):

    @task_group
    def each(symbol: str, amount: str, withdrawal_ref: str) -> None:
        """Withdraw one order and wait for it."""
        paid = Pay(task_id="withdraw", symbol=symbol, amount=amount, withdrawal_ref=withdrawal_ref)
        Wait(task_id="settled", poke_interval=1, timeout=120, **receipt_of(paid))

    each.expand_kwargs(orders())

with DAG("pay_many", schedule=None, **MANY):
    # A few at a time, so that others find a free worker.
    Pay.partial(
        task_id="withdraw", pool="many", wait_for_settlement=True, deferrable=True, poll_interval=2
    ).expand_kwargs(orders())

with DAG("pay_throttled", schedule=None, **MANY):
    # Whoever waits for the quota holds a worker, so it has a small pool of its own.
    Pay.partial(task_id="withdraw", pool="throttled").expand_kwargs(orders())

with DAG("pay_by_hook", schedule=None, **MANY):

    @task(outlets=[WITHDRAWALS])
    def by_context(**context: Any) -> dict[str, Any]:
        """Withdraw with the context that Airflow hands over."""
        accidents.plan(context)
        conf = context["dag_run"].conf
        return dict(PacificaHook(conf["conn"]).withdraw_spot_asset("SOL", conf["amount"], context=context))

    @task(outlets=[WITHDRAWALS])
    def by_current_context(dag_run: Any = None) -> list[Any]:
        """Withdraw twice in one task, told apart by reference."""
        hook = PacificaHook(dag_run.conf["conn"])
        return [
            hook.withdraw_spot_asset(
                "BTC", dag_run.conf["amount"], context=dict(get_current_context()), withdrawal_ref=reference
            )
            for reference in ("first", "second")
        ]

    by_context()
    by_current_context()

with DAG("pay_twice", schedule=None, **MANY):
    by_current_context.override(task_id="withdraw")()

with DAG("pay_drifting_ref", schedule=None, **MANY):
    Pay(task_id="withdraw", withdrawal_ref="daily-{{ macros.datetime.now().isoformat() }}", **ORDER)

with DAG("pay_beside", schedule=None, **MANY):
    # Another task of the run fails, is cleared, and only then may the withdrawal begin.
    @task
    def first(ti: Any = None) -> None:
        """Fail until cleared."""
        if ti.try_number == 1:
            raise AirflowFailException

    first() >> Pay(task_id="withdraw", **ORDER)

with DAG("pay_without_outlet", schedule=None, **MANY):

    @task
    def withdraw(**context: Any) -> dict[str, Any]:
        """Withdraw without the outlet that keeps the ledger."""
        conf = context["dag_run"].conf
        return dict(PacificaHook(conf["conn"]).withdraw_spot_asset("SOL", conf["amount"], context=context))

    withdraw()

for name in ("again", "changed", "new", "allowed"):  # a DAG each, as Airflow runs one backfill of a DAG at a time
    with DAG(f"pay_daily_{name}", schedule="@daily", start_date=ANY, catchup=False, default_args=RETRYING):
        Pay(task_id="withdraw", allow_backfill=name == "allowed", **ORDER)


if AIRFLOW >= (3, 4):
    for dag_id, reference in (("pay_looped", "round-{{ loop.index }}"), ("pay_looped_unnamed", None)):
        with DAG(dag_id, schedule=None, **MANY):

            @task_group
            def rounds(withdrawal_ref: str | None = reference) -> None:
                """Withdraw one order."""
                Pay(task_id="withdraw", withdrawal_ref=withdrawal_ref, **ORDER)

            rounds.loop(max_iterations=2)  # type: ignore[attr-defined]  # from 3.4 on
