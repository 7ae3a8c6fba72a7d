"""
Withdraw several assets in one run, one mapped task each.

Every mapped withdrawal needs a ``withdrawal_ref`` that is unique in the run and means the payment, not its place in the
list: when the list is re-ordered or grows, nothing is paid twice.
"""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.sdk import DAG

from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator

with DAG(
    "example_withdraw_mapped",
    schedule="@weekly",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["pacifica"],
) as dag:
    WithdrawSpotAssetOperator.partial(
        task_id="withdraw",
        max_active_tis_per_dag=1,
    ).expand_kwargs(
        [
            {"symbol": "SOL", "amount": "1", "withdrawal_ref": "sweep-SOL"},
            {"symbol": "BTC", "amount": "0.01", "withdrawal_ref": "sweep-BTC"},
            {"symbol": "kBONK", "amount": "25000", "withdrawal_ref": "sweep-kBONK"},
        ]
    )
