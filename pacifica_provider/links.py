"""What a task's page links to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey

EXPLORER = "https://explorer.solana.com/tx/"
# Pacifica's testnet runs on Solana's devnet; an exchange at another address has no chain that anybody knows.
CLUSTERS = {"mainnet": "", "testnet": "?cluster=devnet"}


class SolanaTransactionLink(BaseOperatorLink):
    """The transaction that put the withdrawal on chain, in Solana's explorer; none until it is known."""

    name = "Transaction on Solana"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """
        Return the address, empty where there is no transaction to show.

        Airflow asks in the task's own process, once it has ended.

        What is raised here it logs, and the task's end stands.

        :param operator: an operator or sensor of this package; ``returned`` is its receipt, or the settled row.
        """
        returned = operator.returned or {}
        if not returned.get("transaction_id"):
            return ""
        environment = returned.get("environment") or operator.hook.settings.environment  # no row names it
        if environment not in CLUSTERS:
            return ""
        return f"{EXPLORER}{returned['transaction_id']}{CLUSTERS[environment]}"
