"""
Start a run when a withdrawal of the account is on chain, whoever made it, and print it.

It withdraws nothing. It needs a triggerer, and the connection `pacifica_default`; no private key is read.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from pacifica_provider.triggers.assets import SettledWithdrawalsTrigger

# One asset for each trigger: what was announced is remembered with the asset.
settled_withdrawals = Asset(
    "pacifica_settled_withdrawals",
    watchers=[AssetWatcher(name="settled_withdrawals", trigger=SettledWithdrawalsTrigger())],
)

with DAG(
    "example_withdrawal_events",
    schedule=[settled_withdrawals],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["pacifica"],
    doc_md=__doc__,
) as dag:

    @task
    def show_withdrawals(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """Print each withdrawal that led to this run: events that come close together start one run."""
        rows = [event.extra["payload"] for event in triggering_asset_events[settled_withdrawals]]
        for row in rows:
            print(f"{row['amount']} {row['symbol']} in batch {row['batch_nonce']}, transaction {row['transaction_id']}")  # noqa: T201 - an example's output is its task log
        return rows

    show_withdrawals()
