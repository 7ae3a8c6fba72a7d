"""What a user needs to reach the sandbox: addresses, keys, and an Airflow connection."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pacifica_provider.sandbox.accounts import Opened


@dataclass(frozen=True, slots=True)
class Urls:
    """Where a sandbox listens."""

    base_url: str
    ws_url: str
    control_url: str


def urls(host: str, port: int, *, tls: bool) -> Urls:
    """Return the addresses of a sandbox. With TLS the host is `localhost`, for the certificate's sake."""
    name = "localhost" if tls else f"[{host}]" if ":" in host else host
    secure = "s" if tls else ""
    root = f"http{secure}://{name}:{port}"
    return Urls(f"{root}/api/v1", f"ws{secure}://{name}:{port}/ws", f"{root}/control")


def connection_json(opened: Opened, base_url: str) -> str:
    """Return the text for AIRFLOW_CONN_PACIFICA_DEFAULT: the agent's key, never the owner's."""
    connection = {
        "conn_type": "pacifica",
        "login": opened.account,
        "password": opened.agent_private_key,
        "host": base_url,
        "extra": {"environment": "custom"},
    }
    return json.dumps(connection)


def ready_line(opened: Opened, where: Urls) -> str:
    """Return the one line that the command prints."""
    return json.dumps(
        {
            **asdict(where),
            "account": opened.account,
            "private_key": opened.private_key,
            "agent_private_key": opened.agent_private_key,
            "api_config_key": opened.api_config_key,
            "airflow_connection": connection_json(opened, where.base_url),
        }
    )
