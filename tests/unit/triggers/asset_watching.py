"""Asset watchers on a sandbox: a store in memory, and the little of the triggerer that they need."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from pacifica_provider.triggers.assets import SettledWithdrawalsTrigger
from tests.support.patience import until_in_loop
from tests.unit.triggers.bench import pay, requests, settle

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox

SOON = {"poll_interval": 0.1}


class Store:
    """An asset state store: JSON text in memory."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.down = False

    def get(self, key: str) -> Any:
        """Return an entry."""
        return json.loads(self.entries[key]) if key in self.entries else None

    def set(self, key: str, value: object) -> None:
        """Write one."""
        if self.down:
            raise OSError("hush")
        self.entries[key] = json.dumps(value)


def watching(store: Store | None, **kwargs: Any) -> SettledWithdrawalsTrigger:
    """Return a trigger as the triggerer makes it."""
    made = SettledWithdrawalsTrigger(**{**SOON, **kwargs})
    made.asset_state_store = store  # type: ignore[assignment]  # as much of one as the trigger uses
    return made


class Running:
    """A trigger's events, collected in the background until it is stopped."""

    def __init__(self, watcher: SettledWithdrawalsTrigger) -> None:
        self.payloads: list[dict[str, Any]] = []
        self._task = asyncio.ensure_future(self._collect(watcher))

    async def _collect(self, watcher: SettledWithdrawalsTrigger) -> None:
        async for event in watcher.run():
            self.payloads.append(event.payload)

    async def has(self, count: int) -> list[str]:
        """Wait for so many events and a little longer, and return their amounts."""
        await until_in_loop(lambda: len(self.payloads) >= count or self._task.done())
        await asyncio.sleep(0.3)
        return [payload["amount"] for payload in self.payloads]

    async def stop(self) -> None:
        """Kill it, as a triggerer that is shut down does."""
        self._task.cancel()
        await asyncio.wait([self._task])


async def looked(sandbox: Sandbox, store: Store | None = None) -> None:
    """Wait until the history has been read, and a store that was empty has what came of it."""
    before = requests(sandbox)["history"]
    await until_in_loop(lambda: requests(sandbox)["history"] > before)
    await until_in_loop(lambda: store is None or store.entries)
    await asyncio.sleep(0.3)


def pay_and_settle(sandbox: Sandbox, *amounts: str, symbol: str = "SOL") -> None:
    """Make withdrawals that are on chain."""
    for amount in amounts:
        pay(sandbox, amount, symbol)
    settle(sandbox)


class Triggerer:
    """Airflow's own manager of shared streams, and the little of the triggerer that drives it."""

    def __init__(self) -> None:
        from airflow.triggers.shared_stream import SharedStreamManager  # Airflow 3.3 and later

        self.manager = SharedStreamManager()
        self.events: list[tuple[int, dict[str, Any]]] = []
        self.unconfirmed: list[int] = []
        self._tasks: list[asyncio.Task[None]] = []

    def run(self, number: int, watcher: SettledWithdrawalsTrigger) -> None:
        """Run a trigger as ``TriggerRunner.run_trigger`` does."""
        self._tasks.append(asyncio.ensure_future(self._run(number, watcher)))

    async def _run(self, number: int, watcher: SettledWithdrawalsTrigger) -> None:
        key = watcher.shared_stream_key()
        shared = self.manager.subscribe(trigger_id=number, trigger=watcher, key=key)
        async for event in watcher.filter_shared_stream(shared):
            self.events.append((number, event.payload))
            seq = self.manager.bind_pending_event(trigger_id=number, key=key)
            if seq is not None:
                self.unconfirmed.append(seq)

    def confirm(self) -> None:
        """Say that every event so far is in the database."""
        self.manager.confirm_persisted(self.unconfirmed)
        self.unconfirmed = []

    async def stop(self) -> None:
        """End everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self.manager.stop_all()
