"""What a task's page links to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink, conf

from pacifica_provider.assets import WITHDRAWALS
from pacifica_provider.exceptions import PacificaError

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey

EXPLORER = "https://explorer.solana.com/tx/"
# Where Pacifica's users look at balances and withdrawals themselves. Not documented: seen in public sources, testnet's
# page inferred from mainnet's.
PORTFOLIOS = {"mainnet": "https://app.pacifica.fi/portfolio", "testnet": "https://test-app.pacifica.fi/portfolio"}
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
        returned = _returned(operator)
        if not returned.get("transaction_id"):
            return ""
        environment = returned.get("environment") or _environment(operator)  # no row names it
        if environment not in CLUSTERS:
            return ""
        return f"{EXPLORER}{returned['transaction_id']}{CLUSTERS[environment]}"


class PortfolioLink(BaseOperatorLink):
    """Pacifica's own page of the account; none for an exchange at another address."""

    name = "Pacifica portfolio"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """Return the address by the environment, empty where there is none."""
        environment = _returned(operator).get("environment") or _environment(operator)
        return PORTFOLIOS.get(environment, "")


class RecordsLink(BaseOperatorLink):
    """Airflow's page of the ledger, where an unknown withdrawal is decided without a shell (docs/unknown.md)."""

    name = "Withdrawals on record"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """Return the address of the asset whose state is the ledger, before Airflow 3.3 of the Variables."""
        from pacifica_provider.hooks.ledgers import keeps_asset_state

        where = f"assets?name_pattern={WITHDRAWALS.name}" if keeps_asset_state() else "variables"
        return _airflow_page(where)


class RunbookLink(BaseOperatorLink):
    """What to do where an outcome is unknown: a page of this package that Airflow's web server shows."""

    name = "Runbook"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """Return the address."""
        from pacifica_provider.plugin import PREFIX, RUNBOOK

        return _airflow_page(f"{PREFIX}/{RUNBOOK}")


def _airflow_page(path: str) -> str:
    return f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/{path.lstrip('/')}"


def _returned(operator: Any) -> Any:
    """Return what the task returned; nothing if it ended before Airflow had made the operator of a mapped one."""
    return getattr(operator, "returned", None) or {}


def _environment(operator: Any) -> str:
    """Return the connection's environment, none where it cannot be used: the task's own error says why."""
    try:
        hook = getattr(operator, "hook", None)
        return "" if hook is None else str(hook.settings.environment)
    except PacificaError:
        return ""
