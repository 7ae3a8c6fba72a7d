"""
The connection of a trigger, read once for all triggers on it.

Each look-up in the triggerer is a round trip to its supervisor, which ten thousand triggers need not make. The
private key is not read: settings have no field for it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.hooks.settings import ConnectionSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

log = logging.getLogger(__name__)

FRESH_S = 30.0
# Airflow says "isn't defined" as well where its API server did not answer, so that is asked again for a minute.
RETRY_PAUSES_S = (1.0, 3.0, 10.0, 30.0)
_LARGEST_CACHE = 1000


@dataclass(slots=True)
class _Fields:
    """A connection without its password, the extra already read."""

    login: str | None
    host: str | None
    port: int | None
    schema: str | None
    extra: str | None
    extra_dejson: Any


class _Entry:
    """One connection: the lock lets one trigger ask while the others wait for what it learns."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.read_at = float("-inf")
        self.settings: ConnectionSettings | None = None
        self.problem = ""


_entries: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Entry]] = WeakKeyDictionary()


async def settings_of(conn_id: str) -> ConnectionSettings:
    """
    Return the checked settings of a connection, at most half a minute old.

    :raises ConfigurationError: if it cannot be found or used, in words that are safe to store; what the look-up
        itself raised may quote anything, so only its type is named.
    """
    entries = _entries.setdefault(asyncio.get_running_loop(), {})
    if len(entries) > _LARGEST_CACHE:
        entries.clear()
    entry = entries.setdefault(conn_id, _Entry())
    async with entry.lock:
        if time.monotonic() - entry.read_at >= FRESH_S:
            entry.settings, entry.problem = None, ""
            try:
                entry.settings = ConnectionSettings.of_connection(await _fields(conn_id))
                if entry.settings.solana_rpc_url is not None:
                    await _mask(entry.settings.secrets)
            except ConfigurationError as error:
                entry.problem = str(error)
            entry.read_at = time.monotonic()
    if entry.settings is None:
        raise ConfigurationError(f"Connection {conn_id!r}: {entry.problem}")
    return entry.settings


async def _fields(conn_id: str) -> _Fields:
    from airflow.providers.common.compat import connection as compat

    connection = await _asking(conn_id, lambda: compat.get_async_connection(conn_id))
    # A dict by its annotation, whatever was typed by the form. What is returned gets masked, which must not hold the
    # loop up.
    extra: Any = await compat.get_async_extra_dejson(connection)
    return _Fields(connection.login, connection.host, connection.port, connection.schema, connection.extra, extra)


async def _mask(secrets: Iterable[str]) -> None:
    """Tell Airflow's masker what its own rules do not know: an address that may hold a token."""
    from airflow.sdk import log as airflow_log

    # From Airflow 3.3 on; before it the other masks here, and tells the supervisor where it can.
    mask = getattr(airflow_log, "amask_secret", None)
    for secret in secrets:
        if mask is None:
            airflow_log.mask_secret(secret)
        else:
            await mask(secret)


async def _asking(conn_id: str, ask: Callable[[], Awaitable[Any]]) -> Any:
    """Ask, and ask again for a while."""
    for pause_s in (*RETRY_PAUSES_S, None):
        try:
            return await ask()
        except Exception as error:  # noqa: BLE001 - a secrets backend may raise anything, and none of it may be stored
            problem = type(error).__name__
            if pause_s is None:
                break
            log.warning("Connection %r could not be read (%s); trying again.", conn_id, problem)
            await asyncio.sleep(pause_s * random.uniform(1, 1.25))  # noqa: S311 - jitter, not a secret
    raise ConfigurationError(
        f"it could not be read ({problem}). Is it defined, and may the triggerer read it? Nothing was sent."
    )
