"""One watcher for each account: what it costs, whom it serves, and how it ends."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.triggers.watcher import Watcher, WatcherFailed
from tests.support.patience import PATIENCE_S, until_in_loop
from tests.unit.triggers.bench import (
    alone,
    connected,
    event_of,
    hung_up,
    options,
    pay,
    requests,
    settle,
    sockets,
    start,
    trigger,
    watchers,
)

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox


def test_two_hundred_triggers_cost_what_one_costs(sandbox: Sandbox) -> None:
    """Two hundred wait with three requests and one socket, and each is woken with its own row."""
    receipts = [pay(sandbox, f"0.{number:03}") for number in range(100, 300)]

    async def wait() -> list[dict[str, Any]]:
        # Those that join while the first poll runs are looked for after this interval; push needs no other.
        tasks = start(*(trigger(receipt, poll_interval=1) for receipt in receipts))
        await connected()
        await asyncio.sleep(0.5)
        assert (requests(sandbox)["pending"] <= 3, requests(sandbox)["history"], sockets(sandbox)) == (True, 0, 1)
        settle(sandbox)
        return await asyncio.gather(*tasks)

    events = asyncio.run(wait())

    assert [event["row"]["batch_nonce"] for event in events] == [receipt["batch_nonce"] for receipt in receipts]
    assert requests(sandbox)["history"] <= 4
    assert requests(sandbox)["pending"] <= 6
    assert requests(sandbox)["bridge_parameters"] <= 1


@pytest.mark.usefixtures("no_push")
def test_the_history_is_not_read_while_everybody_is_pending(sandbox: Sandbox) -> None:
    """A look costs one credit until a withdrawal leaves the pending list."""
    receipts = [pay(sandbox), pay(sandbox, "2")]

    async def wait() -> dict[str, int]:
        tasks = start(*(trigger(receipt, poll_interval=0.05) for receipt in receipts))
        await until_in_loop(lambda: requests(sandbox)["pending"] >= 5)
        while_pending = requests(sandbox)
        settle(sandbox)
        await asyncio.gather(*tasks)
        return while_pending

    assert asyncio.run(wait())["history"] == 0


@pytest.mark.usefixtures("no_push")
def test_the_shortest_interval_sets_the_pace_while_it_lasts(sandbox: Sandbox) -> None:
    """Somebody in a hurry makes everybody's watcher hurry, and it slows down again when they leave."""
    patient, hurried = pay(sandbox), pay(sandbox, "2")

    async def wait() -> tuple[int, int]:
        tasks = start(trigger(patient), trigger(hurried, poll_interval=0.05))
        await until_in_loop(lambda: requests(sandbox)["pending"] >= 5)
        tasks[1].cancel()
        await asyncio.sleep(0.2)
        begun = requests(sandbox)["pending"]
        await asyncio.sleep(0.5)
        slow = requests(sandbox)["pending"]
        tasks[0].cancel()
        return begun, slow

    begun, slow = asyncio.run(wait())

    assert slow <= begun + 1


def test_one_cancelled_trigger_leaves_the_others_waiting(sandbox: Sandbox) -> None:
    """Cancelling the trigger that came first, and whose look-up made the watcher, takes nothing from the rest."""
    receipts = [pay(sandbox), pay(sandbox, "2"), pay(sandbox, "3")]

    async def wait() -> list[dict[str, Any]]:
        first, *rest = start(*map(trigger, receipts))
        await connected()
        first.cancel()
        await asyncio.sleep(0.05)
        settle(sandbox)
        return await asyncio.gather(*rest)

    events = asyncio.run(wait())

    assert [event["status"] for event in events] == ["settled", "settled"]


@pytest.mark.parametrize("how", ["cancelled", "settled"])
def test_the_watcher_ends_with_its_last_trigger(sandbox: Sandbox, how: str) -> None:
    """It leaves no task and no socket behind, however the last trigger goes; the next trigger starts a new one."""
    receipt = pay(sandbox)

    async def wait() -> tuple[bool, bool]:
        (task,) = start(trigger(receipt))
        await connected()
        if how == "cancelled":
            task.cancel()
        else:
            settle(sandbox)
        await asyncio.wait([task])
        first = await alone()
        settle(sandbox)
        await event_of(trigger(receipt))
        return first, await alone()

    assert asyncio.run(wait()) == (True, True)
    assert hung_up(sandbox)


def test_two_accounts_have_two_watchers(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one account's list says is nothing to another's triggers."""
    other = sandbox.control("POST", "/accounts", {"balances": {"SOL": "100"}})
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", other["airflow_connection"])
    receipt = pay(sandbox)

    async def wait() -> int:
        tasks = start(trigger(receipt), trigger(receipt, pacifica_conn_id="other"))
        await until_in_loop(lambda: len(watchers()) == 2)
        settle(sandbox)
        mine = await tasks[0]
        await asyncio.sleep(0.3)
        assert (mine["status"], tasks[1].done()) == ("settled", False)
        tasks[1].cancel()
        return len(watchers())

    assert asyncio.run(wait()) == 1


def test_the_same_trigger_may_run_in_two_event_loops(sandbox: Sandbox) -> None:
    """F43: two triggerers that run the same trigger get the same event; it only reads."""
    receipt = pay(sandbox)
    events: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: events.append(asyncio.run(event_of(trigger(receipt))))) for _ in "ab"]
    for thread in threads:
        thread.start()
    settle(sandbox)
    for thread in threads:
        thread.join(PATIENCE_S)

    for event in events:
        event["row"].pop("seen_settled_at_ms")  # each saw it for itself
    assert len(events) == 2
    assert events[0] == events[1]


def test_many_triggers_may_wait_for_the_same_withdrawal(sandbox: Sandbox) -> None:
    """An operator and a sensor on one withdrawal are both woken."""
    receipt = pay(sandbox)

    async def wait() -> list[dict[str, Any]]:
        tasks = start(*(trigger(receipt) for _ in range(5)), trigger(receipt, amount=None))
        await connected()
        settle(sandbox)
        return await asyncio.gather(*tasks)

    assert {event["status"] for event in asyncio.run(wait())} == {"settled"}


def test_withdrawals_of_one_batch_are_told_apart_by_amount(sandbox: Sandbox) -> None:
    """F77: a nonce names a batch; each trigger is given the row of its own amount, equal ones one of theirs."""
    options(sandbox, shared_batches=True)
    receipts = [pay(sandbox, amount) for amount in ("1", "2", "2", "3")]

    async def wait() -> list[dict[str, Any]]:
        tasks = start(*map(trigger, receipts))
        await connected()
        settle(sandbox)
        return await asyncio.gather(*tasks)

    events = asyncio.run(wait())

    assert [event["row"]["amount"] for event in events] == ["0.999", "1.999", "1.999", "2.999"]


def test_a_defect_of_the_watcher_reaches_every_trigger(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody hangs, and what is stored of it names a type, never the text of an error that may quote a header."""

    async def broken(*_: object) -> None:
        raise RuntimeError("PF-API-KEY: hush")

    monkeypatch.setattr(Watcher, "_poll", broken)
    receipts = [pay(sandbox), pay(sandbox, "2")]

    async def wait() -> list[Any]:
        failures = await asyncio.gather(*start(*map(trigger, receipts)), return_exceptions=True)
        assert await alone()
        return failures

    failures = asyncio.run(wait())

    assert [type(failure) for failure in failures] == [WatcherFailed, WatcherFailed]
    assert "RuntimeError" in str(failures[0])
    assert "hush" not in str(failures[0])
    assert failures[0].__cause__ is None
    assert failures[0].__context__ is None
