"""
Withdraw 1 SOL and wait in the same task until it is on chain. While it waits it holds no worker slot.

Each run withdraws once. The DAG has no schedule: it runs when it is triggered. It needs a triggerer, and the connection
`pacifica_default` with a private key.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator

with DAG(
    "example_withdraw_deferrable",
    # For a withdrawal a day: schedule="@daily", a start_date and catchup=False. Unpausing then withdraws at once.
    schedule=None,
    max_active_runs=1,
    tags=["pacifica"],
    doc_md=__doc__,
) as dag:
    WithdrawSpotAssetOperator(
        task_id="withdraw_and_wait",
        symbol="SOL",
        amount="1.00000000",
        wait_for_settlement=True,
        deferrable=True,
        settlement_timeout=timedelta(hours=24),
    )
