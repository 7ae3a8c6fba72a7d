"""The trigger that starts a DAG for each settled withdrawal of an account."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable, Sequence

    from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

    from pacifica_provider.api.models import SettledWithdrawal
    from pacifica_provider.triggers.cursor import Cursor
    from pacifica_provider.triggers.settlements import News

# Without a store a start looks back this far: a restart must not lose what settled while nobody looked.
LOOK_BACK_MS = 3600 * 1000


class SettledWithdrawalsTrigger(BaseEventTrigger):
    """
    For an ``AssetWatcher``: yield one event for each withdrawal of the account that is on chain, whoever made it.

    The payload is the row of Pacifica's history (``symbol, batch_nonce, amount, transaction_id, created_at_ms``; the
    amount as the history shows it) with ``account`` and ``environment``. A row without a transaction id waits until
    it has one. The first start announces nothing that had settled before, unless ``since`` says from when on.

    **How often.** From Airflow 3.3 on, what was announced is remembered in the watched asset's state store, after
    Airflow has stored the event: each row gives exactly one event, however often the triggerer restarts. Only if it
    dies in the second or two between the two does a row give its event twice, never none. Give the trigger one asset:
    the store of a trigger that several assets share cannot be told apart. Without the store (Airflow 3.1 and 3.2) it
    is at least once: a start announces again what settled in the hour before, and misses what settled earlier than
    that unless ``since`` is given. A DAG that must not act twice keys what it does on ``symbol``, ``batch_nonce`` and
    ``transaction_id``.

    From Airflow 3.3 on all such triggers on one connection that ask as often share one stream.

    :param pacifica_conn_id: the connection; no private key is needed or read.
    :param symbol: only this spot asset; ``None`` for all.
    :param since: Unix milliseconds: announce what settled from then on as well, when nothing is remembered.
    :param poll_interval: longest time between looks, in seconds; while push is healthy the history is read every five
        minutes and at each confirmation.
    :raises ConfigurationError: for an argument that is wrong, when the DAG is parsed.
    """

    def __init__(
        self,
        *,
        pacifica_conn_id: str = "pacifica_default",
        symbol: str | None = None,
        since: int | None = None,
        poll_interval: float = 60,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]  # Airflow's triggers have no annotations
        self.pacifica_conn_id = pacifica_conn_id
        self.symbol = symbol
        self.since = since
        self.poll_interval = poll_interval
        # By store entry: the cursor's count of changes when it was last stored.
        self._stored: dict[str, int] = {}
        self._refuse_wrong()

    def _refuse_wrong(self) -> None:
        from pacifica_provider.hooks.arguments import refuse_wrong

        optional = {"symbol": self.symbol, "since": self.since}
        given = {
            "pacifica_conn_id": self.pacifica_conn_id,
            "poll_interval": self.poll_interval,
            **{name: value for name, value in optional.items() if value is not None},
        }
        refuse_wrong(type(self).__name__, given, rendered=True)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and plain JSON arguments."""
        return (
            "pacifica_provider.triggers.assets.SettledWithdrawalsTrigger",
            {
                "pacifica_conn_id": self.pacifica_conn_id,
                "symbol": self.symbol,
                "since": self.since,
                "poll_interval": self.poll_interval,
            },
        )

    def shared_stream_key(self) -> Hashable | None:
        """Share the stream with every trigger on the connection that asks as often."""
        return ("pacifica_settled_withdrawals", self.pacifica_conn_id, self.poll_interval)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[News]:
        """Yield what is settled; what came of one piece of news counts as stored when the next is asked for."""
        from pacifica_provider.triggers.settlements import news

        async for item in news(kwargs["pacifica_conn_id"], kwargs["poll_interval"]):
            yield item
            await item.stored()

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """Return the stream for Airflow 3.3, which says when an event is safe in its database."""
        from airflow.triggers.shared_stream import SharedStreamProducer

        from pacifica_provider.triggers.settlements import news

        class Producer(SharedStreamProducer):
            async def open_stream(self) -> AsyncIterator[tuple[News, News]]:
                async for item in news(kwargs["pacifica_conn_id"], kwargs["poll_interval"]):
                    yield item, item

            async def advance(self, batch: Sequence[AdvanceItem]) -> None:
                # Where any trigger failed nobody remembers: they note it with the next piece of news, which comes soon.
                for item in batch:
                    if not item.outcome.failed:
                        await item.broker_payload.stored()

        return Producer()

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the events from a stream of its own: how Airflow 3.1 and 3.2 run it."""
        async for event in self.filter_shared_stream(self.open_shared_stream(self.serialize()[1])):
            yield event

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each row of the stream that was not announced yet."""
        cursors: dict[str, Cursor] = {}
        async for item in shared_stream:
            key, rows = self._key(item), self._rows(item)
            if key not in cursors:
                cursors[key] = await self._recall(key, item)
            cursor = cursors[key]
            for row in list(cursor.fresh(rows)):
                yield TriggerEvent(_payload(row, item))
                cursor.mark(row)
            cursor.compact(item.floor_ms)
            if self._stored.get(key) != cursor.changes:
                item.once_stored.append(partial(self._remember, key, cursor.as_json(), cursor.changes))

    def _key(self, item: News) -> str:
        """Name this trigger's entry in the store, which belongs to the asset and may serve others."""
        told = json.dumps([item.base_url, item.account, self.symbol])
        return f"pacifica_settled_{hashlib.sha256(told.encode()).hexdigest()[:16]}"

    def _rows(self, item: News) -> list[SettledWithdrawal]:
        return [row for row in item.rows if self.symbol in {None, row.symbol}]

    async def _recall(self, key: str, item: News) -> Cursor:
        """
        Return what was announced before, or where to begin.

        The store is asked in a thread: 3.3.0 and 3.3.1 have no ``aget`` and ``aset``, and a call holds the loop up.
        """
        from pacifica_provider.triggers.cursor import Cursor

        store = getattr(self, "asset_state_store", None)
        if store is not None:
            try:
                if (stored := await asyncio.to_thread(store.get, key)) is not None:
                    cursor = Cursor.from_json(stored)
                    self._stored[key] = cursor.changes
                    return cursor
            except ValueError as error:
                self.log.warning("What was announced before cannot be read (%s); beginning anew.", error)
        if self.since is not None:
            return Cursor(self.since)
        if store is None:
            return Cursor(time.time_ns() // 1_000_000 - LOOK_BACK_MS)
        return Cursor.after(self._rows(item))

    async def _remember(self, key: str, value: dict[str, Any], changes: int) -> None:
        """Store a cursor; what could not be stored is stored with the next piece of news."""
        store = getattr(self, "asset_state_store", None)
        try:
            if store is not None:
                await asyncio.to_thread(store.set, key, value)
            self._stored[key] = changes
        except Exception as error:  # noqa: BLE001 - a state store may raise anything; the worst that follows is a repetition
            self.log.warning(
                "What was announced could not be stored (%s): a restart now would announce it again.",
                type(error).__name__,
            )


def _payload(row: SettledWithdrawal, item: News) -> dict[str, Any]:
    from pacifica_provider.triggers.events import row_json

    return {**row_json(row), "account": item.account, "environment": item.environment}
