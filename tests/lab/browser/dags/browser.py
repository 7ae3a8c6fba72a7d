"""DAGs whose pages a browser looks at; each is started by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG

from pacifica_provider.operators.prepare import PrepareWithdrawalOperator
from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pacifica_provider.hooks.receipts import Receipt


class Linked(WithdrawSpotAssetOperator):
    """A withdrawal that says it was made on testnet: a sandbox has no chain whose explorer could be linked."""

    def execute(self, context: Context) -> Receipt:
        """Withdraw, and change where it was."""
        receipt = super().execute(context)
        receipt["environment"] = "testnet"
        return receipt


with DAG("browser_capped", schedule=None):
    WithdrawSpotAssetOperator(task_id="withdraw", symbol="SOL", amount="5", pacifica_conn_id="capped")

with DAG("browser_unknown", schedule=None):
    WithdrawSpotAssetOperator(task_id="withdraw", symbol="SOL", amount="1")

with DAG("browser_linked", schedule=None):
    Linked(task_id="withdraw", symbol="SOL", amount="1", wait_for_settlement=True, deferrable=False, poll_interval=1)

with DAG("browser_drifting", schedule=None):
    drifting = WithdrawSpotAssetOperator(
        task_id="withdraw", symbol="SOL", amount="1.1{{ macros.datetime.now().strftime('%f') }}1", approvals="approve"
    )
    (
        PrepareWithdrawalOperator(task_id="prepare", withdrawal=drifting)
        >> ApprovalOperator(
            task_id="approve",
            subject="Withdraw from Pacifica?",
            body="{{ ti.xcom_pull(task_ids='prepare')['text'] }}",
        )
        >> drifting
    )
