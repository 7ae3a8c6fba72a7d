"""
Withdraw every Friday what may be withdrawn of SOL, but for two and a half.

**Unpausing this DAG makes its latest run at once, and so withdraws at once.** To withdraw once by hand, unpause it and
take the run that this makes. Triggering it while it is paused, with the tick that unpauses it, makes two runs, and so
withdraws twice: the second one what has come in since the first.

What there is is read once. A retry withdraws the same amount, and where there is less than `minimum` the task is
skipped.

The DAG needs the connection `pacifica_default` with a private key.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG

from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator

with DAG(
    "example_sweep",
    schedule="0 17 * * 5",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["pacifica"],
    doc_md=__doc__,
) as dag:
    WithdrawSpotAssetOperator(
        task_id="withdraw",
        symbol="SOL",
        amount="all",
        reserve="2.5",
        minimum="10",
    )
