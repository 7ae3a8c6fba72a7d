"""
Withdraw what a person has approved, and exactly that.

`prepare` settles the order and writes it down. `approve` shows it and waits, on Airflow's page under "Required
actions", for a day. `withdraw` withdraws what was prepared, or nothing: an amount that changes in between, by a
template or an edit, is refused. Its receipt names who approved.

Say who may approve with `assigned_users` of the `ApprovalOperator`. For two people, put a second one behind the first
and name both: `approvals=["approve", "approve_too"]`; they have to be two people then.

The DAG needs the connection `pacifica_default` with a private key.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG

from pacifica_provider.operators.prepare import PrepareWithdrawalOperator
from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator

with DAG(
    "example_approval",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    params={"amount": "1.25"},
    tags=["pacifica"],
    doc_md=__doc__,
) as dag:
    withdraw = WithdrawSpotAssetOperator(
        task_id="withdraw",
        symbol="SOL",
        amount="{{ params.amount }}",
        approvals="approve",
    )
    prepare = PrepareWithdrawalOperator(task_id="prepare", withdrawal=withdraw)
    approve = ApprovalOperator(
        task_id="approve",
        subject="Withdraw from Pacifica?",
        body="{{ ti.xcom_pull(task_ids='prepare')['text'] }}",
        response_timeout=timedelta(days=1),
    )
    prepare >> approve >> withdraw
