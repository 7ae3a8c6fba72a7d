"""
Withdraw 1 SOL, then wait in a second task until the withdrawal is on chain.

Each run withdraws once. The DAG has no schedule: it runs when it is triggered. It needs the connection
`pacifica_default` with a private key.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator
from pacifica_provider.sensors.withdrawal import WithdrawalBatchSensor

with DAG(
    "example_withdraw",
    # For a withdrawal a day: schedule="@daily", a start_date and catchup=False. Unpausing then withdraws at once.
    schedule=None,
    max_active_runs=1,
    tags=["pacifica"],
    doc_md=__doc__,
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
