"""What Airflow reads to find this provider. Imports nothing: Airflow calls it at every start."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """
    Return the dictionary of Airflow's ``provider_info.schema.json``; the one source of the connection form.

    ``how-to-guide`` and ``logo`` are paths in the source tree, as in Airflow's own providers. The same files are below
    ``share/doc/airflow-provider-pacifica`` once installed, and below ``/pacifica`` in Airflow's web server.
    """
    return {
        "package-name": "airflow-provider-pacifica",
        "name": "Pacifica",
        "description": "Scheduled spot withdrawals from the Pacifica exchange that never pay twice.",
        "integrations": [
            {
                "integration-name": "Pacifica",
                "external-doc-url": "https://docs.pacifica.fi",
                "how-to-guide": [
                    "/docs/howto.md",
                    "/docs/approval.md",
                    "/docs/sweeps.md",
                    "/docs/testing.md",
                    "/docs/unknown.md",
                ],
                "logo": "/docs/images/logo.svg",
                "tags": ["service"],
            }
        ],
        "hooks": [{"integration-name": "Pacifica", "python-modules": ["pacifica_provider.hooks.pacifica"]}],
        "operators": [
            {
                "integration-name": "Pacifica",
                "python-modules": ["pacifica_provider.operators.withdraw", "pacifica_provider.operators.prepare"],
            }
        ],
        "sensors": [{"integration-name": "Pacifica", "python-modules": ["pacifica_provider.sensors.withdrawal"]}],
        "triggers": [{"integration-name": "Pacifica", "python-modules": ["pacifica_provider.triggers.withdrawal"]}],
        "extra-links": [
            "pacifica_provider.links.SolanaTransactionLink",
            "pacifica_provider.links.PortfolioLink",
            "pacifica_provider.links.RecordsLink",
            "pacifica_provider.links.RunbookLink",
        ],
        "cli": ["pacifica_provider.cli.get_pacifica_cli_commands"],
        "connection-types": [
            {
                "connection-type": "pacifica",
                "hook-class-name": "pacifica_provider.hooks.pacifica.PacificaHook",
                "hook-name": "Pacifica",
                "ui-field-behaviour": _field_behaviour(),
                "conn-fields": _extra_fields(),
            }
        ],
    }


def _field_behaviour() -> dict[str, Any]:
    """Return which standard fields the connection form shows, and what it calls them."""
    return {
        # Not the port, although nothing reads it: the page of Airflow 3.3 tests with port 0 what has none, and refuses
        # its own request because that differs from what is stored ("Bad Request", seen on 3.3.2).
        "hidden-fields": ["schema", "extra"],
        "relabeling": {"login": "Account", "password": "Private key", "host": "Base URL"},
        "placeholders": {
            "login": "owner's address, base58",
            "password": "base58; an agent key is recommended",
            "host": "only with Environment custom",
            "port": "0, or this page's Test button answers Bad Request (Airflow 3.3); not used",
        },
    }


def _extra_fields() -> dict[str, Any]:
    """Return the connection's extra fields; ``hooks/settings.py`` says what each value may be."""
    return {
        "environment": _field(
            "Environment",
            "Required, so that nothing reaches mainnet by omission. custom uses Base URL.",
            {"type": "string", "enum": ["testnet", "mainnet", "custom"]},
        ),
        "agent_wallet": _field("Agent wallet", "Optional pin: must equal the private key's public half.", _TEXT),
        # Airflow masks an extra by its name: one with api_key in it.
        "pf_api_key": _field(
            "API config key",
            "Optional: sent as PF-API-KEY for a larger request quota.",
            {"type": ["string", "null"], "format": "password"},
        ),
        "expiry_window_ms": _field(
            "Signature window (ms)",
            "Default 10000. Short, because a second request waits for it to pass.",
            {"type": ["integer", "null"], "minimum": 1000, "maximum": 30000},
        ),
        "timeout_s": _field(
            "Request timeout (s)",
            "Default 10: deadline of one whole request.",
            {"type": ["number", "null"], "minimum": 1, "maximum": 60},
        ),
        "withdrawal_limits": _field(
            "Withdrawal limits",
            'Largest amount of one withdrawal by symbol, e.g. {"SOL": "10"}. When set, other symbols are refused.',
            {"type": ["string", "null"], "format": "multiline"},
        ),
        "idempotency_scope": _field(
            "Idempotency scope",
            "Leave empty, unless two deployments on one account are meant to pay separately.",
            _TEXT,
        ),
        "key_trust_minutes": _field(
            "Key trust (minutes)",
            "Default 9: how long Pacifica is trusted to remember an idempotency key.",
            {"type": ["number", "null"], "minimum": 1, "maximum": 1440},
        ),
        # Airflow masks an extra by its name, and this has no word that it knows: docs/connection.md says what to do.
        "solana_rpc_url": _field(
            "Solana RPC",
            "Optional: a wait for settlement ends only when the transaction is finalized there. It may hold a token.",
            {"type": ["string", "null"], "format": "password"},
        ),
    }


_TEXT = {"type": ["string", "null"]}


def _field(label: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": schema}
