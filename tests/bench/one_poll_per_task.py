"""
The peer: a trigger that polls for itself, in the style of ``HttpSensor(deferrable=True)``.

Like that sensor's trigger it opens a session for each poll, looks whether its own withdrawal has left the pending list,
and sleeps. It is spared what the real one pays besides: the connection's look-up at each poll.
"""

from __future__ import annotations

import asyncio
import ssl
from functools import cache
from typing import TYPE_CHECKING, Any

import httpx
from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TIMEOUT_S = 60.0


class OnePollPerTaskTrigger(BaseTrigger):
    """
    Poll until the withdrawal is in the history.

    :param base_url: of the exchange.
    :param headers: of each request.
    """

    def __init__(
        self,
        *,
        base_url: str,
        account: str,
        symbol: str,
        batch_nonce: int,
        amount: str,
        poll_interval: float,
        headers: dict[str, str],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's triggers have no annotations
        self.base_url = base_url
        self.account = account
        self.symbol = symbol
        self.batch_nonce = batch_nonce
        self.amount = amount
        self.poll_interval = poll_interval
        self.headers = headers

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        names = ("base_url", "account", "symbol", "batch_nonce", "amount", "poll_interval", "headers")
        return f"{__name__}.OnePollPerTaskTrigger", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll; yield one event."""
        while await self._pending():  # noqa: ASYNC110 - polling is what it is here for
            await asyncio.sleep(self.poll_interval)
        for row in await self._rows("history", limit="100"):
            if (row["symbol"], row["batch_nonce"]) == (self.symbol, self.batch_nonce) and row["transaction_id"]:
                yield TriggerEvent({"status": "settled", "row": {**row, "created_at_ms": row["created_at"]}})
                return

    async def _pending(self) -> bool:
        return any(
            (row["symbol"], row["batch_nonce"], row["amount_requested"]) == (self.symbol, self.batch_nonce, self.amount)
            for row in await self._rows("pending")
        )

    async def _rows(self, which: str, **query: str) -> list[dict[str, Any]]:
        url = f"{self.base_url}/account/spot_asset/withdraw/{which}"
        async with httpx.AsyncClient(
            trust_env=False, verify=_tls(), headers=self.headers, timeout=TIMEOUT_S
        ) as session:
            answer = await session.get(url, params={"account": self.account, **query})
            rows: list[dict[str, Any]] = answer.raise_for_status().json()["data"]
            return rows


@cache
def _tls() -> ssl.SSLContext:
    """Make one for all: aiohttp does so too, and each costs milliseconds."""
    return ssl.create_default_context()
