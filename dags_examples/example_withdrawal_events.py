"""Start a DAG for each withdrawal of the account that is on chain, whoever made it."""

from __future__ import annotations

from datetime import datetime, timezone
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
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["pacifica"],
) as dag:

    @task
    def show_settled_rows(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """Print what settled; events that come close together start one run, so there may be several rows."""
        rows = [event.extra["payload"] for event in triggering_asset_events[settled_withdrawals]]
        for row in rows:
            print(f"{row['amount']} {row['symbol']} of batch {row['batch_nonce']} in {row['transaction_id']}")  # noqa: T201 - an example's output is its task log
        return rows

    show_settled_rows()
