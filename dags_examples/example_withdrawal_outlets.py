"""Withdraw and wait in one task, and hand the receipt to the DAGs that are scheduled on the asset."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.sdk import DAG, Asset, task

from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator

withdrawn = Asset("pacifica_withdrawn")

with DAG(
    "example_withdrawal_outlets",
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
        outlets=[withdrawn],
    )

with DAG(
    "example_withdrawal_outlets_reader",
    schedule=[withdrawn],
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["pacifica"],
) as reader:

    @task
    def show_receipt(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """Print the receipt of each withdrawal that led to this run."""
        receipts = [event.extra for event in triggering_asset_events[withdrawn]]
        for receipt in receipts:
            print(f"{receipt['requested_amount']} {receipt['symbol']} in {receipt['transaction_id']}")  # noqa: T201 - an example's output is its task log
        return receipts

    show_receipt()
