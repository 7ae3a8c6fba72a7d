"""One event for each settled withdrawal of an account, whoever made it, across restarts."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.triggers import assets, settlements
from pacifica_provider.triggers.assets import SettledWithdrawalsTrigger
from tests.support.patience import until_in_loop
from tests.unit.triggers.asset_watching import Running, Store, looked, pay_and_settle, watching
from tests.unit.triggers.bench import alone, hung_up, options

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox


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
        def get(self, key: str) -> Any:
            return super().get(key) or stored

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
        await until_in_loop(lambda: store.entries != stale)
        await running.stop()
        return amounts

    assert asyncio.run(watch()) == ["0.999"]
    logged = capsys.readouterr().out
    assert "OSError" in logged
    assert "hush" not in logged


def test_an_unusable_connection_is_tried_again(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raising would have the triggerer start the trigger anew each second."""
    monkeypatch.setattr(settlements, "PAUSE_S", 0.1)
    monkeypatch.setattr("pacifica_provider.hooks.lookup.FRESH_S", 0.0)
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
