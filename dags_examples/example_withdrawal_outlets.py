"""
Withdraw 1 SOL, wait until it is on chain, and hand the receipt to a second DAG.

`example_withdrawal_outlets` withdraws once each run. It has no schedule: it runs when it is triggered. It needs a
triggerer, and the connection `pacifica_default` with a private key.

`example_withdrawal_outlets_reader` starts when that withdrawal is on chain, and prints it. It withdraws nothing.
Unpause it first: while it is paused, nothing is kept for it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Asset, task

from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator

withdrawn = Asset("pacifica_withdrawn")

with DAG(
    "example_withdrawal_outlets",
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
        outlets=[withdrawn],
    )

with DAG(
    "example_withdrawal_outlets_reader",
    schedule=[withdrawn],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["pacifica"],
    doc_md=__doc__,
) as reader:

    @task
    def show_withdrawals(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """Print each withdrawal that led to this run: events that come close together start one run."""
        rows = [event.extra for event in triggering_asset_events[withdrawn]]
        for row in rows:
            amount = row["requested_amount"]
            print(f"{amount} {row['symbol']} in batch {row['batch_nonce']}, transaction {row['transaction_id']}")  # noqa: T201 - an example's output is its task log
        return rows

    show_withdrawals()
