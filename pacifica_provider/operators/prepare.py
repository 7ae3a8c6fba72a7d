"""The operator that prepares a withdrawal for approval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.operators.withdraw import REFERENCE, WithdrawSpotAssetOperator, with_ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from pacifica_provider.hooks.receipts import PreparedOrder


class PrepareWithdrawalOperator(BaseOperator):
    """
    Settle the order of a withdrawal, check it as a dry run does, and write it down, so that a person can approve it.

    What is written down never changes. The withdrawing task names the approvals (``approvals=…``) and withdraws exactly
    this, or nothing: an order that a template, a parameter or an edit made another one is refused.

    :param withdrawal: the task that withdraws; asset, amount, reference and connection are its own. In a mapped task
        group both are in the group.
    :return: what to show: ``text`` in a sentence, ``account, environment, symbol, requested_amount, fee_amount,
        net_amount, idempotency_key, prepared_at_ms``.
    """

    template_fields: Sequence[str] = ("symbol", "amount", "withdrawal_ref", "reserve", "minimum")
    ui_color = WithdrawSpotAssetOperator.ui_color

    def __init__(self, *, withdrawal: WithdrawSpotAssetOperator, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(withdrawal, WithdrawSpotAssetOperator):
            raise ConfigurationError(
                "withdrawal must be a WithdrawSpotAssetOperator, not mapped by itself: for several, put both into a "
                "mapped task group. Nothing was sent."
            )
        # To read and write the ledger; as an outlet, each order that is prepared would be an event of the asset.
        self.inlets = with_ledger(self.inlets)
        if self.map_index_template is None and withdrawal.withdrawal_ref is not None:
            self.map_index_template = REFERENCE
        self.withdraw_task_id = withdrawal.task_id
        self.symbol = withdrawal.symbol
        self.amount = withdrawal.amount
        self.withdrawal_ref = withdrawal.withdrawal_ref
        self.reserve = withdrawal.reserve
        self.minimum = withdrawal.minimum
        self.pacifica_conn_id = withdrawal.pacifica_conn_id
        self.allow_backfill = withdrawal.allow_backfill
        self.tag_amount = withdrawal.tag_amount

    def execute(self, context: Context) -> PreparedOrder:
        """Prepare it, or return what was prepared."""
        from pacifica_provider.hooks.pacifica import PacificaHook
        from pacifica_provider.hooks.requests import WithdrawalRequest

        request = WithdrawalRequest.of_task(self, preflight=True)
        hook = PacificaHook(self.pacifica_conn_id)
        return hook.prepare(request, context, withdraw_task_id=self.withdraw_task_id)
