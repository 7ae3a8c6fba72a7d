"""One event for each settled withdrawal of an account, whoever made it, across restarts."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow.triggers.shared_stream import SharedStreamManager

from pacifica_provider.triggers import assets, stream
from pacifica_provider.triggers.assets import SettledWithdrawalsTrigger
from tests.unit.triggers.bench import alone, hung_up, options, pay, requests, settle, start, trigger, until, watchers

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox

SOON = {"poll_interval": 0.1}


class Store:
    """An asset state store: JSON text in memory."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.down = False

    async def aget(self, key: str) -> Any:
        """Return an entry."""
        return json.loads(self.entries[key]) if key in self.entries else None

    async def aset(self, key: str, value: object) -> None:
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
        await until(lambda: len(self.payloads) >= count or self._task.done())
        await asyncio.sleep(0.3)
        return [payload["amount"] for payload in self.payloads]

    async def stop(self) -> None:
        """Kill it, as a triggerer that is shut down does."""
        self._task.cancel()
        await asyncio.wait([self._task])


async def looked(sandbox: Sandbox) -> None:
    """Wait until the history has been read, and what came of it is stored."""
    before = requests(sandbox)["history"]
    await until(lambda: requests(sandbox)["history"] > before)
    await asyncio.sleep(0.3)


def pay_and_settle(sandbox: Sandbox, *amounts: str, symbol: str = "SOL") -> None:
    """Make withdrawals that are on chain."""
    for amount in amounts:
        pay(sandbox, amount, symbol)
    settle(sandbox)


def test_the_first_start_announces_only_what_settles_from_then_on(sandbox: Sandbox) -> None:
    """The past is not replayed; each settled row then gives one event, with the account it belongs to."""
    pay_and_settle(sandbox, "1", "2")

    async def watch() -> list[dict[str, Any]]:
        running = Running(watching(Store()))
        await looked(sandbox)
        pay_and_settle(sandbox, "3", "4")
        await running.has(2)
        await running.stop()
        assert await alone()
        return running.payloads

    payloads = asyncio.run(watch())

    assert [payload["amount"] for payload in payloads] == ["2.999", "3.999"]
    assert set(payloads[0]) == {
        "symbol",
        "batch_nonce",
        "amount",
        "transaction_id",
        "created_at_ms",
        "account",
        "environment",
    }
    assert (payloads[0]["account"], payloads[0]["environment"]) == (sandbox.account, "custom")
    assert hung_up(sandbox)


def test_restarts_neither_repeat_nor_lose_a_row(sandbox: Sandbox) -> None:
    """What settled while no triggerer ran is announced by the next one; what was announced is not."""
    store = Store()

    async def watch(*, expect: int) -> list[str]:
        running = Running(watching(store))
        if not expect:
            await looked(sandbox)
        amounts = await running.has(expect)
        await running.stop()
        return amounts

    told = [asyncio.run(watch(expect=0))]
    for amounts in (["1"], ["2", "3"], []):
        pay_and_settle(sandbox, *amounts)
        told.append(asyncio.run(watch(expect=len(amounts))))

    assert told == [[], ["0.999"], ["1.999", "2.999"], []]


def test_equal_rows_are_announced_each(sandbox: Sandbox) -> None:
    """Two withdrawals of one amount in one batch are two events, also where the second settles after a restart."""
    store = Store()
    options(sandbox, shared_batches=True, history_time="settled")

    async def watch(count: int) -> list[str]:
        running = Running(watching(store, since=0))
        amounts = await running.has(count)
        await running.stop()
        return amounts

    pay_and_settle(sandbox, "1", "1")
    first = asyncio.run(watch(2))
    pay_and_settle(sandbox, "1")

    assert (first, asyncio.run(watch(1))) == (["0.999", "0.999"], ["0.999"])


def test_since_replays_the_past_once(sandbox: Sandbox) -> None:
    """What settled from the given time on is announced at the first start, and not at the second."""
    pay_and_settle(sandbox, "1")
    time.sleep(0.01)
    pay_and_settle(sandbox, "2")
    later = int(sandbox.exchange.book.rows[1].created_at)
    store = Store()

    async def watch(count: int) -> list[str]:
        running = Running(watching(store, since=later))
        if not count:
            await looked(sandbox)
        amounts = await running.has(count)
        await running.stop()
        return amounts

    assert (asyncio.run(watch(1)), asyncio.run(watch(0))) == (["1.999"], [])


def test_a_row_is_announced_when_its_transaction_id_comes(sandbox: Sandbox) -> None:
    """Listed without one it is not on chain; nothing counts it as past."""
    options(sandbox, transaction_id_delay_s=0.6)
    pay_and_settle(sandbox, "1")

    async def watch() -> list[dict[str, Any]]:
        running = Running(watching(Store()))
        await running.has(1)
        await running.stop()
        return running.payloads

    (payload,) = asyncio.run(watch())

    assert payload["transaction_id"]


def test_a_trigger_may_watch_one_symbol(sandbox: Sandbox) -> None:
    """Others are not announced, and their rows do not count."""

    async def watch() -> list[dict[str, Any]]:
        running = Running(watching(Store(), symbol="BTC", since=0))
        pay_and_settle(sandbox, "1")
        pay_and_settle(sandbox, "0.5", symbol="BTC")
        await running.has(1)
        await running.stop()
        return running.payloads

    assert [payload["symbol"] for payload in asyncio.run(watch())] == ["BTC"]


def test_without_a_store_a_start_looks_an_hour_back(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least once: rather again than never; what is older is not announced."""
    pay_and_settle(sandbox, "1")

    async def watch(count: int) -> list[str]:
        running = Running(watching(None))
        if not count:
            await looked(sandbox)
        amounts = await running.has(count)
        await running.stop()
        return amounts

    told = [asyncio.run(watch(1)), asyncio.run(watch(1))]
    monkeypatch.setattr(assets, "LOOK_BACK_MS", -1000)
    told.append(asyncio.run(watch(0)))

    assert told == [["0.999"], ["0.999"], []]


@pytest.mark.parametrize("stored", [7, {"version": 99}, {"version": 1, "floor_ms": 0, "seen": {"a": 1}}])
def test_a_store_entry_that_is_not_understood_begins_anew(sandbox: Sandbox, stored: object) -> None:
    """It is overwritten, with a warning; the trigger does not die of it."""
    pay_and_settle(sandbox, "1")

    class Odd(Store):
        async def aget(self, key: str) -> Any:
            return await super().aget(key) or stored

    async def watch() -> list[str]:
        running = Running(watching(Odd()))
        await looked(sandbox)
        pay_and_settle(sandbox, "2")
        amounts = await running.has(1)
        await running.stop()
        return amounts

    assert asyncio.run(watch()) == ["1.999"]


def test_what_could_not_be_stored_is_stored_with_the_next_news(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """A store that fails for a while costs no event and no trigger, and its error's text is not logged."""
    store = Store()

    async def watch() -> list[str]:
        running = Running(watching(store, since=0))
        await looked(sandbox)
        store.down = True
        pay_and_settle(sandbox, "1")
        amounts = await running.has(1)
        stale = dict(store.entries)
        store.down = False
        await until(lambda: store.entries != stale)
        await running.stop()
        return amounts

    assert asyncio.run(watch()) == ["0.999"]
    logged = capsys.readouterr().out
    assert "OSError" in logged
    assert "hush" not in logged


def test_tasks_and_asset_watchers_share_one_watcher(sandbox: Sandbox) -> None:
    """An account with both has one conversation with the exchange."""

    async def watch() -> tuple[int, list[str]]:
        running = Running(watching(Store(), since=0))
        (task,) = start(trigger(pay(sandbox)))
        await asyncio.sleep(0.5)
        count = len(watchers())
        settle(sandbox)
        await task
        amounts = await running.has(1)
        await running.stop()
        return count, amounts

    assert asyncio.run(watch()) == (1, ["0.999"])


class Triggerer:
    """Airflow's own manager of shared streams, and the little of the triggerer that drives it."""

    def __init__(self) -> None:
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


def test_triggers_on_one_account_share_airflows_stream(sandbox: Sandbox) -> None:
    """Two watchers of one account, one of them for a symbol, make one poll loop, and each gets its own events."""

    async def watch() -> list[tuple[int, str]]:
        triggerer = Triggerer()
        triggerer.run(1, watching(Store()))
        triggerer.run(2, watching(Store(), symbol="BTC"))
        await looked(sandbox)
        assert len(triggerer.manager._groups) == 1
        pay_and_settle(sandbox, "1")
        pay_and_settle(sandbox, "0.5", symbol="BTC")
        await until(lambda: len(triggerer.events) >= 3)
        await triggerer.stop()
        assert await alone()
        return sorted((number, payload["symbol"]) for number, payload in triggerer.events)

    assert asyncio.run(watch()) == [(1, "BTC"), (1, "SOL"), (2, "BTC")]


@pytest.mark.parametrize(("confirmed", "again"), [(True, 0), (False, 1)])
def test_a_row_counts_as_announced_once_airflow_has_stored_its_event(
    sandbox: Sandbox, *, confirmed: bool, again: int
) -> None:
    """A triggerer that dies before its event is in the database announces the row again; after that, never."""
    store = Store()

    async def watch(expect: int) -> int:
        triggerer = Triggerer()
        triggerer.run(1, watching(store))
        await until(lambda: requests(sandbox)["history"] > 0)
        await until(lambda: len(triggerer.events) >= expect)
        await asyncio.sleep(0.3)
        if confirmed:
            triggerer.confirm()
        await asyncio.sleep(0.3)
        await triggerer.stop()
        return len(triggerer.events)

    async def begin() -> None:
        triggerer = Triggerer()
        triggerer.run(1, watching(store))
        await looked(sandbox)
        await triggerer.stop()

    asyncio.run(begin())
    pay_and_settle(sandbox, "1")

    assert asyncio.run(watch(1)) == 1
    assert asyncio.run(watch(again)) == again


def test_an_unusable_connection_is_tried_again(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raising would have the triggerer start the trigger anew each second."""
    monkeypatch.setattr(stream, "PAUSE_S", 0.1)
    monkeypatch.setattr("pacifica_provider.triggers.lookup.FRESH_S", 0.0)
    monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", "{}")
    pay_and_settle(sandbox, "1")

    async def watch() -> list[str]:
        running = Running(watching(Store(), since=0))
        await asyncio.sleep(0.4)
        monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", sandbox.airflow_connection)
        amounts = await running.has(1)
        await running.stop()
        return amounts

    assert asyncio.run(watch()) == ["0.999"]


def test_what_is_stored_of_a_trigger_is_frozen() -> None:
    """Class path and plain JSON, no secret; its hash is what Airflow knows it by."""
    made = SettledWithdrawalsTrigger(pacifica_conn_id="treasury", symbol="SOL", since=5)

    assert made.serialize() == (
        "pacifica_provider.triggers.assets.SettledWithdrawalsTrigger",
        {"pacifica_conn_id": "treasury", "symbol": "SOL", "since": 5, "poll_interval": 60},
    )
    assert made.shared_stream_key() == ("pacifica_settled_withdrawals", "treasury", 60)
