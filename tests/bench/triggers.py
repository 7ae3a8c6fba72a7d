"""In the child: an event loop full of waiting triggers, as in a triggerer."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

from tests.bench.exchange import SYMBOL, amount_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.triggers.base import BaseTrigger, TriggerEvent

    from pacifica_provider.triggers.watcher import Watcher

CONN_ID = "bench"
# What the first trigger would import; the bench counts what waiting costs, not what importing does.
IMPORTED_LATE = (
    "airflow.providers.common.compat.connection",
    "httpx",
    "pacifica_provider.hooks.lookup",
    "pacifica_provider.triggers.watcher",
)


def load(exchange: dict[str, Any], account: dict[str, Any], conn_id: str = CONN_ID) -> None:
    """Define the connection, and import what is imported late."""
    extra = {"environment": "custom"}
    if exchange.get("identified", True):
        extra["pf_api_key"] = account["api_config_key"]
    connection = {"conn_type": "pacifica", "login": account["account"], "host": exchange["base_url"], "extra": extra}
    os.environ[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(connection)
    for module in IMPORTED_LATE:
        importlib.import_module(module)


def maker(wish: dict[str, Any]) -> Callable[[int], BaseTrigger]:
    """Return what makes the n-th trigger of the kind that is asked for."""
    account, interval = wish["account"], wish["interval"]
    if wish["kind"] == "ours":
        return lambda number: ours(account, number, interval)
    return lambda number: peer(wish["exchange"], account, number, interval)


def ours(
    account: dict[str, Any],
    number: int,
    interval: float,
    conn_id: str = CONN_ID,
    submitted_at_ms: int | None = None,
) -> BaseTrigger:
    """Return the product's trigger for an account's n-th withdrawal, as the operator defers it."""
    from pacifica_provider.api.amounts import canonical_text
    from pacifica_provider.triggers.withdrawal import WithdrawalBatchTrigger

    return WithdrawalBatchTrigger(
        pacifica_conn_id=conn_id,
        symbol=SYMBOL,
        batch_nonce=account["nonces"][number],
        amount=canonical_text(amount_of(number)),
        end_time=time.time() + 86_400,
        poll_interval=interval,
        fee_amount="0.001",
        submitted_at_ms=submitted_at_ms,
    )


def peer(exchange: dict[str, Any], account: dict[str, Any], number: int, interval: float) -> BaseTrigger:
    """Return the one that polls for itself."""
    from tests.bench.one_poll_per_task import OnePollPerTaskTrigger

    return OnePollPerTaskTrigger(
        base_url=exchange["base_url"],
        account=account["account"],
        symbol=SYMBOL,
        batch_nonce=account["nonces"][number],
        amount=f"{amount_of(number):.8f}",
        poll_interval=interval,
        headers={"PF-API-KEY": account["api_config_key"]},
    )


def start(
    make: Callable[[int], BaseTrigger], count: int, heard: Callable[[int, TriggerEvent], None], spread_s: float = 0.0
) -> list[asyncio.Task[None]]:
    """Run so many triggers, one task each, begun within ``spread_s``."""

    async def run(number: int) -> None:
        if spread_s:
            await asyncio.sleep(spread_s * number / count)
        async for event in make(number).run():
            heard(number, event)

    return [asyncio.ensure_future(run(number)) for number in range(count)]


async def watcher(conn_id: str = CONN_ID) -> Watcher:
    """Return the one watcher that the triggers on a connection share."""
    from pacifica_provider.hooks.lookup import settings_of
    from pacifica_provider.triggers.watcher import Watcher

    return Watcher.of(await settings_of(conn_id))
