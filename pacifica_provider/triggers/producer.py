"""The account's stream for Airflow 3.3 and later, whose triggerer says when an event has reached its database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.triggers.shared_stream import SharedStreamProducer

from pacifica_provider.triggers.stream import news

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from airflow.triggers.shared_stream import AdvanceItem

    from pacifica_provider.triggers.stream import News


class NewsProducer(SharedStreamProducer):
    """Hands out the news, and lets each trigger remember what it announced once that is stored."""

    def __init__(self, conn_id: str, poll_interval: float) -> None:
        self._conn_id = conn_id
        self._poll_interval = poll_interval

    async def open_stream(self) -> AsyncIterator[tuple[News, News]]:
        """Yield each piece of news, and itself as what to come back with."""
        async for item in news(self._conn_id, self._poll_interval):
            yield item, item

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """
        Let the triggers of a batch remember; a trigger that failed left nothing behind to run.

        Where any failed nobody remembers: the others note it with the next piece of news, which comes soon.
        """
        for item in batch:
            if not item.outcome.failed:
                await item.broker_payload.stored()
