"""Withdraw and wait in one task; while it waits it holds no worker slot."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG

from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator

with DAG(
    "example_withdraw_deferrable",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["pacifica"],
) as dag:
    WithdrawSpotAssetOperator(
        task_id="withdraw_and_wait",
        symbol="SOL",
        amount="1.00000000",
        wait_for_settlement=True,
        deferrable=True,
        settlement_timeout=timedelta(hours=24),
    )
