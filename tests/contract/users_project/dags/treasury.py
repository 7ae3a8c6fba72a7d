"""DAGs as a user has them, for ``test_treasury.py``."""

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG, task

from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator
from pacifica_provider.sensors.withdrawal import WithdrawalBatchSensor

ON_REQUEST: dict[str, Any] = {"schedule": None, "start_date": datetime(2026, 1, 1)}

with DAG("waits", **ON_REQUEST) as waits:
    WithdrawSpotAssetOperator(
        task_id="withdraw",
        symbol="SOL",
        amount="1.5",
        wait_for_settlement=True,
        deferrable=False,
        settlement_timeout=timedelta(hours=30),
    )

with DAG("defers", **ON_REQUEST) as defers:
    WithdrawSpotAssetOperator(
        task_id="withdraw",
        symbol="SOL",
        amount="1.5",
        wait_for_settlement=True,
        deferrable=True,
        settlement_timeout=timedelta(hours=30),
    )

for deferrable, name in ((False, "pokes"), (True, "defers_in_a_sensor")):
    with DAG(name, **ON_REQUEST) as one:
        withdraw = WithdrawSpotAssetOperator(task_id="withdraw", symbol="SOL", amount="1.5")
        WithdrawalBatchSensor(
            task_id="settled",
            symbol="SOL",
            batch_nonce=withdraw.output["batch_nonce"],
            amount=withdraw.output["requested_amount"],
            deferrable=deferrable,
            timeout=timedelta(hours=30).total_seconds(),
        )
    globals()[name] = one

with DAG("mapped", **ON_REQUEST) as mapped:
    WithdrawSpotAssetOperator.partial(task_id="withdraw").expand_kwargs(
        [
            {"symbol": "SOL", "amount": "1.5", "withdrawal_ref": "fees"},
            {"symbol": "BTC", "amount": "0.25", "withdrawal_ref": "payroll"},
        ]
    )

with DAG("elsewhere", **ON_REQUEST) as elsewhere:
    WithdrawSpotAssetOperator(task_id="withdraw", symbol="SOL", amount="1.5", pacifica_conn_id="pacifica_elsewhere")

with DAG("sleeps", **ON_REQUEST) as sleeps:

    @task
    def nap() -> None:
        """Sleep as a user's own code may."""
        import time

        time.sleep(3600)

    nap()
