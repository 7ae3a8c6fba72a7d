"""Withdraw once a day, then wait until the withdrawal is on chain."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG

from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator
from pacifica_provider.sensors.withdrawal import WithdrawalBatchSensor

with DAG(
    "example_withdraw",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["pacifica"],
) as dag:
    withdraw = WithdrawSpotAssetOperator(task_id="withdraw", symbol="SOL", amount="1.00000000")

    WithdrawalBatchSensor(
        task_id="wait_until_settled",
        symbol=withdraw.output["symbol"],
        batch_nonce=withdraw.output["batch_nonce"],
        amount=withdraw.output["requested_amount"],
        mode="reschedule",
        poke_interval=30,
        timeout=timedelta(hours=24),
    )
