"""
Withdraw three assets every week, one mapped task each.

**Unpausing this DAG makes its latest run at once, and so withdraws at once.** To withdraw once by hand, unpause it and
take the run that this makes. Triggering it while it is paused, with the tick that unpauses it, makes two runs, and so
withdraws twice.

Every mapped withdrawal needs a `withdrawal_ref` that is unique in the run. It names the payment, not its place in the
list: when the list is re-ordered or grows, nothing is paid twice.

The DAG needs the connection `pacifica_default` with a private key.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG

from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator

with DAG(
    "example_withdraw_mapped",
    schedule="@weekly",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["pacifica"],
    doc_md=__doc__,
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
