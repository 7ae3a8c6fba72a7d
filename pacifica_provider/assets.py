"""The asset whose state is the ledger of all withdrawals, and each withdrawal an event of it."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import Asset

# One for every connection: a DAG that names another connection must meet its record too. Airflow normalises the URI
# to "pacifica://withdrawals/", so whoever looks the asset up takes the URI from here.
WITHDRAWALS = Asset(name="pacifica_withdrawals", uri="pacifica://withdrawals")
"""The ledger: the outlet of a ``@task`` that withdraws."""
