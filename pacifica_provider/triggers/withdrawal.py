"""The trigger that waits until a withdrawal is on chain."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class WithdrawalBatchTrigger(BaseTrigger):
    """
    Wait until a withdrawal is on chain, or until ``end_time``; yield one event (``triggers/events.py``).

    It only reads, so it may be restarted, moved and run twice at once. All triggers on one account in a triggerer
    share one watcher, so a thousand cost what one costs. Its arguments lie in Airflow's database in plain text and
    hold no secret; the private key is never loaded in the triggerer. Killing the task ends the waiting, not the
    withdrawal.

    A failed look is no event: it looks again until ``end_time``, and the timeout says what was last seen. A
    withdrawal that is in neither list for 30 minutes ends the waiting; a restart begins the 30 minutes anew.

    :param pacifica_conn_id: the connection.
    :param symbol: spot asset.
    :param batch_nonce: the receipt's.
    :param amount: gross amount as decimal text, ``None`` for any.
    :param end_time: when to give up, Unix seconds.
    :param poll_interval: longest time between looks, in seconds; once a minute while push is healthy.
    :param fee_amount: the receipt's, decimal text, where there is one: it saves reading the asset's fee.
    :param submitted_at_ms: the receipt's, Unix milliseconds, where there is one: older history need not be read.
    :raises ConfigurationError: from ``run``, if the connection cannot be read or used at the start. One that Pacifica
        refuses is read again every five minutes.
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
        fee_amount: str | None = None,
        submitted_at_ms: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]  # Airflow's triggers have no annotations
        self.pacifica_conn_id = pacifica_conn_id
        self.symbol = symbol
        self.batch_nonce = batch_nonce
        self.amount = amount
        self.end_time = end_time
        self.poll_interval = poll_interval
        self.fee_amount = fee_amount
        self.submitted_at_ms = submitted_at_ms

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
                "fee_amount": self.fee_amount,
                "submitted_at_ms": self.submitted_at_ms,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait; yield one event."""
        from pacifica_provider.api.amounts import parse_wire_amount
        from pacifica_provider.exceptions import ConfigurationError
        from pacifica_provider.hooks.lookup import settings_of
        from pacifica_provider.triggers.watcher import Watcher
        from pacifica_provider.withdrawals.settlement import Awaited

        amount, fee = (None if text is None else parse_wire_amount(text) for text in (self.amount, self.fee_amount))
        awaited = Awaited(self.symbol, self.batch_nonce, amount)
        settings = await settings_of(self.pacifica_conn_id)
        event = None
        while event is None:
            event = await Watcher.of(settings).wait(
                awaited, end_time=self.end_time, interval=self.poll_interval, fee=fee, since_ms=self.submitted_at_ms
            )
            if event is None:  # the exchange refuses the connection as it was read: it may have been corrected
                with suppress(ConfigurationError):
                    settings = await settings_of(self.pacifica_conn_id)
        yield TriggerEvent(event)

    async def on_kill(self) -> None:
        """Say what has ended, and undo nothing. Airflow calls this as well when it moves the trigger elsewhere."""
        self.log.info(
            "This triggerer waits no longer for %s in batch %s: another one does, or the task has ended. The "
            "withdrawal was accepted and cannot be recalled.",
            self.symbol,
            self.batch_nonce,
        )
