"""Defects, odd answers and big lists: each ends in a line of log and not in a hanging task."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.api.models import SettledWithdrawal
from pacifica_provider.triggers import condition, lookup, push, readings, stream
from pacifica_provider.triggers.listening import Snapshot, merged
from pacifica_provider.triggers.look import Look
from pacifica_provider.triggers.readings import PendingIndex
from pacifica_provider.triggers.stream import news
from tests.unit.triggers.bench import CONN_ID, event_of, pay, requests, settle, start, trigger, until

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox


whose = contextvars.ContextVar("whose", default="nobody's")


async def first_rows(count: int = 1) -> int:
    """Wait until the account's stream shows so many rows, and return how often it spoke."""
    spoken = 0
    async for item in news(CONN_ID, 0.1):
        spoken += 1
        if len(item.snapshot.rows) >= count:
            break
    return spoken


def test_a_long_list_is_read_in_a_thread(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand rows would hold the triggerer's event loop for half a second, and with it every other trigger."""
    threads: list[str] = []

    class Watched(PendingIndex):
        def __init__(self, rows: Any) -> None:
            threads.append(threading.current_thread().name)
            super().__init__(rows)

    monkeypatch.setattr(readings, "PendingIndex", Watched)
    monkeypatch.setattr(readings, "_LONG_BYTES", 100)
    settled = pay(sandbox)
    settle(sandbox)
    pay(sandbox, "2")

    assert asyncio.run(event_of(trigger(settled)))["status"] == "settled"
    assert "MainThread" not in threads


def test_a_push_that_has_a_defect_leaves_the_polling(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a line in the log, not a failed task for everybody who waits."""

    async def broken(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(push.Push, "run", broken)
    caplog.set_level(logging.ERROR)
    receipt = pay(sandbox)

    async def wait() -> str:
        (task,) = start(trigger(receipt, poll_interval=0.1))
        await until(lambda: requests(sandbox)["pending"] >= 2)
        settle(sandbox)
        return str((await task)["status"])

    assert asyncio.run(wait()) == "settled"
    assert "ZeroDivisionError" in caplog.text


def test_a_subscription_that_is_refused_counts_as_no_push() -> None:
    """The exchange may answer the subscription with an error; then the socket is worth nothing."""
    listening = push.Push("ws://x", "me", on_confirmed=print, on_connected=print, on_lost=print)

    with pytest.raises(push._SilentError):
        listening._hear(json.dumps({"channel": "error", "code": 400}))
    assert not listening.healthy


def test_an_asset_without_a_bridge_does_not_stop_the_looking(sandbox: Sandbox) -> None:
    """Where the fee cannot be read, only a gross row is a match; others are waited for, by everybody else as well."""
    lost, other = pay(sandbox), pay(sandbox, "2")
    settle(sandbox, symbol="SOL", batch_nonce=lost["batch_nonce"])
    sandbox.control("POST", "/assets", {"symbol": "SOL", "bridge": "missing"})

    async def wait() -> tuple[str, bool]:
        first, second = start(trigger(lost, poll_interval=0.1), trigger(other, poll_interval=0.1))
        await until(lambda: requests(sandbox)["bridge_parameters"] >= 1)
        settle(sandbox)
        status, done = str((await second)["status"]), first.done()
        first.cancel()
        return status, done

    assert asyncio.run(wait()) == ("settled", False)


@pytest.mark.parametrize("trouble", ["a defect", "a refusal"])
def test_the_account_stream_begins_anew(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    """After a defect, or a connection that was refused and then corrected, asset watchers go on by themselves."""
    monkeypatch.setattr(stream, "PAUSE_S", 0.05)
    monkeypatch.setattr(condition, "REFUSED_S", 0.05)
    monkeypatch.setattr(lookup, "FRESH_S", 0.0)
    pay(sandbox)
    settle(sandbox)
    failures = 2

    async def broken(*_: object) -> None:
        nonlocal failures
        failures -= 1
        if not failures:
            monkeypatch.setattr(Look, "run", right)
        raise ZeroDivisionError

    right = Look.run
    if trouble == "a defect":
        monkeypatch.setattr(Look, "run", broken)
    else:
        sandbox.control("POST", "/faults", {"route": "pending", "kind": "status", "status": 403, "count": 4})

    async def watch() -> int:
        return await asyncio.wait_for(first_rows(), 10)

    assert asyncio.run(watch()) == 1


def test_an_api_config_key_is_masked_and_sent(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one secret that the triggerer holds is registered with Airflow's masker before it is used."""
    masked: list[object] = []

    async def masking(secret: object, name: str | None = None) -> None:
        masked.append(secret)

    monkeypatch.setattr("airflow.sdk.log.amask_secret", masking)
    connection = json.loads(sandbox.airflow_connection)
    connection["extra"]["api_config_key"] = sandbox.api_config_key
    monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", json.dumps(connection))
    sandbox.control("POST", "/options", {"enforce_credits": True, "quota": 1})
    receipt = pay(sandbox)
    settle(sandbox)

    assert asyncio.run(event_of(trigger(receipt)))["status"] == "settled"
    assert sandbox.api_config_key in masked


def test_readings_that_were_not_fetched_are_merged() -> None:
    """A reading of the newest rows completes the one before; a whole one replaces it."""
    rows = [SettledWithdrawal("SOL", Decimal(1), nonce, "tx", nonce) for nonce in range(4)]
    whole, newest = Snapshot(tuple(rows[:3]), None, 0), Snapshot((rows[3], rows[2]), 2, 1)

    assert merged(whole, newest) == Snapshot((rows[3], rows[2], rows[0], rows[1]), None, 1)
    assert merged(newest, whole) == whole


def test_a_watcher_belongs_to_no_task(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it logs is not filed under the task whose trigger happened to come first."""
    seen: list[str] = []
    look = Look.run

    async def noting(self: Look, *args: Any) -> None:
        seen.append(whose.get())
        await look(self, *args)

    monkeypatch.setattr(Look, "run", noting)
    receipt = pay(sandbox)
    settle(sandbox)
    whose.set("the first task's")

    asyncio.run(event_of(trigger(receipt)))

    assert seen == ["nobody's"]
