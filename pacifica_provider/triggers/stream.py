"""Every settled withdrawal of an account, as a stream that any number of triggers can share."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.triggers.listening import Listener, merged
from pacifica_provider.triggers.lookup import settings_of
from pacifica_provider.triggers.watcher import Watcher, WatcherFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from pacifica_provider.hooks.settings import ConnectionSettings
    from pacifica_provider.triggers.listening import Snapshot

log = logging.getLogger(__name__)

PAUSE_S = 60.0


@dataclass(frozen=True, slots=True)
class News:
    """What is settled as of now, and what to do once the events that came of it are safe in Airflow's database."""

    account: str
    environment: str
    base_url: str
    snapshot: Snapshot
    once_stored: list[Callable[[], Awaitable[None]]] = field(default_factory=list, repr=False)

    async def stored(self) -> None:
        """Do it: the events are safe."""
        for act in self.once_stored:
            await act()


async def news(conn_id: str, poll_interval: float) -> AsyncIterator[News]:
    """
    Yield the account's settled withdrawals whenever they have been read, and again every ``poll_interval``.

    The repetition costs no request; it lets a trigger that joins late begin. It never ends and never raises for
    anything that the exchange or the connection does: what cannot be used is tried again every minute.
    """
    while True:
        settings = await _usable_settings(conn_id)
        watcher, listener = Watcher.of(settings), Listener(poll_interval)
        watcher.listen(listener)
        snapshot: Snapshot | None = None
        try:
            while True:
                arrived = await _next_or_none(listener, None if snapshot is None else poll_interval)
                if arrived is not None:
                    snapshot = arrived if snapshot is None else merged(snapshot, arrived)
                if snapshot is not None:
                    yield News(settings.account, settings.environment, settings.base_url, snapshot)
        except ConfigurationError:
            continue  # refused for minutes, and logged: the connection may have been corrected
        except WatcherFailed as error:
            log.error("Watching for settled withdrawals begins anew in a minute: %s", error)  # noqa: TRY400 - the watcher logged the trace
            await asyncio.sleep(PAUSE_S)
        finally:
            watcher.unlisten(listener)


async def _usable_settings(conn_id: str) -> ConnectionSettings:
    told = ""
    while True:
        try:
            return await settings_of(conn_id)
        except ConfigurationError as error:
            # Raised, it would make the triggerer start the trigger anew each second.
            if str(error) != told:
                log.error("Cannot watch for settled withdrawals, will try again every minute: %s", error)  # noqa: TRY400 - no trace: it may quote anything
                told = str(error)
            await asyncio.sleep(PAUSE_S)


async def _next_or_none(listener: Listener, timeout_s: float | None) -> Snapshot | None:
    try:
        return await asyncio.wait_for(listener.next(), timeout_s)
    except asyncio.TimeoutError:
        return None
