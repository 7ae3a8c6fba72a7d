"""The trigger that waits until a withdrawal is on chain."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from pacifica_provider.api.amounts import parse_wire_amount
from pacifica_provider.api.client import Endpoints, run_async
from pacifica_provider.api.transports import HttpxTransport
from pacifica_provider.exceptions import ConfigurationError, Retryable
from pacifica_provider.hooks.settings import ConnectionSettings
from pacifica_provider.triggers.events import settled_event, timeout_event
from pacifica_provider.withdrawals.tracking import Tracked, sight

log = logging.getLogger(__name__)


class WithdrawalBatchTrigger(BaseTrigger):
    """
    Wait until a withdrawal is on chain, or until ``end_time``; yield one event (``triggers/events.py``).

    It only reads, so it may be restarted, moved and run twice at once. Its arguments lie in Airflow's database in plain text
    and hold no secret; the private key is never loaded in the triggerer.

    :param pacifica_conn_id: the connection.
    :param symbol: spot asset.
    :param batch_nonce: the receipt's.
    :param amount: gross amount as decimal text, ``None`` for any.
    :param end_time: when to give up, Unix seconds.
    :param poll_interval: seconds between looks.
    """

    def __init__(
        self,
        *,
        pacifica_conn_id: str,
        symbol: str,
        batch_nonce: int,
        amount: str | None,
        end_time: float,
        poll_interval: float = 30,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pacifica_conn_id = pacifica_conn_id
        self.symbol = symbol
        self.batch_nonce = batch_nonce
        self.amount = amount
        self.end_time = end_time
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and plain JSON arguments."""
        return (
            "pacifica_provider.triggers.withdrawal.WithdrawalBatchTrigger",
            {
                "pacifica_conn_id": self.pacifica_conn_id,
                "symbol": self.symbol,
                "batch_nonce": self.batch_nonce,
                "amount": self.amount,
                "end_time": self.end_time,
                "poll_interval": self.poll_interval,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it is settled or the time is up."""
        from airflow.providers.common.compat.connection import get_async_connection

        settings = ConnectionSettings.of_connection(await get_async_connection(self.pacifica_conn_id))
        endpoints = Endpoints(settings.base_url, settings.account, api_config_key=settings.api_config_key)
        amount = None if self.amount is None else parse_wire_amount(self.amount)
        tracked = Tracked(self.symbol, self.batch_nonce, amount)
        seen = "not looked yet"
        async with HttpxTransport(timeout_s=settings.timeout_s) as transport:
            while True:
                try:
                    pending = await run_async(endpoints.pending(), transport)
                    history = await run_async(endpoints.history(), transport)
                    fee = await run_async(endpoints.bridge_parameters(self.symbol), transport)
                    sighting = sight(tracked, pending.rows, history.rows, fee.withdrawal_fee)
                    if sighting.row is not None:
                        yield TriggerEvent(settled_event(sighting.row))
                        return
                    seen = str(sighting)
                except (Retryable, ConfigurationError) as error:
                    seen = str(error)
                log.info("%s: %s", tracked, seen)
                if time.time() >= self.end_time:
                    yield TriggerEvent(timeout_event(tracked, seen))
                    return
                await asyncio.sleep(self.poll_interval)
