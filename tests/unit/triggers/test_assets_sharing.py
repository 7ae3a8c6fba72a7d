"""What asset watchers share: a watcher with waiting tasks, and Airflow's stream with each other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.airflow_line import AIRFLOW
from tests.support.patience import until_in_loop
from tests.unit.triggers.asset_watching import Running, Store, Triggerer, looked, pay_and_settle, watching
from tests.unit.triggers.bench import alone, connected, pay, requests, settle, sockets, start, trigger

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox

needs_shared_streams = pytest.mark.skipif(AIRFLOW < (3, 3), reason="shared streams came with Airflow 3.3")


def test_tasks_and_asset_watchers_share_one_socket(sandbox: Sandbox) -> None:
    """An account with both is subscribed once, and has one conversation with the exchange by one quota."""

    async def watch() -> tuple[int, list[str]]:
        running = Running(watching(Store(), since=0))
        (task,) = start(trigger(pay(sandbox)))
        await connected()
        count = sockets(sandbox)
        settle(sandbox)
        await task
        amounts = await running.has(1)
        await running.stop()
        return count, amounts

    assert asyncio.run(watch()) == (1, ["0.999"])


@needs_shared_streams
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
        await until_in_loop(lambda: len(triggerer.events) >= 3)
        await triggerer.stop()
        assert await alone()
        return sorted((number, payload["symbol"]) for number, payload in triggerer.events)

    assert asyncio.run(watch()) == [(1, "BTC"), (1, "SOL"), (2, "BTC")]


@needs_shared_streams
@pytest.mark.parametrize(("confirmed", "again"), [(True, 0), (False, 1)])
def test_a_row_counts_as_announced_once_airflow_has_stored_its_event(
    sandbox: Sandbox, *, confirmed: bool, again: int
) -> None:
    """A triggerer that dies before its event is in the database announces the row again; after that, never."""
    store = Store()

    async def watch(expect: int) -> int:
        triggerer = Triggerer()
        triggerer.run(1, watching(store))
        await until_in_loop(lambda: requests(sandbox)["history"] > 0)
        await until_in_loop(lambda: len(triggerer.events) >= expect)
        await asyncio.sleep(0.3)
        before = dict(store.entries)
        if confirmed and expect:
            triggerer.confirm()
            await until_in_loop(lambda: store.entries != before)
        await triggerer.stop()
        return len(triggerer.events)

    async def begin() -> None:
        triggerer = Triggerer()
        triggerer.run(1, watching(store))
        await looked(sandbox, store)
        await triggerer.stop()

    asyncio.run(begin())
    pay_and_settle(sandbox, "1")

    assert asyncio.run(watch(1)) == 1
    assert asyncio.run(watch(again)) == again
