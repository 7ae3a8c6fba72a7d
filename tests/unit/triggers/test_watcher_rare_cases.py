"""Defects, odd answers and big lists: each ends in a line of log and not in a hanging task."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.hooks import lookup
from pacifica_provider.triggers import poll, push, schedule, settlements, watcher
from pacifica_provider.triggers.settlements import news
from pacifica_provider.triggers.watcher import Watcher
from tests.support.airflow_line import AIRFLOW
from tests.support.patience import until_in_loop
from tests.unit.triggers.bench import CONN_ID, event_of, options, pay, requests, settle, start, trigger

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox


whose = contextvars.ContextVar("whose", default="nobody's")


async def first_rows(count: int = 1) -> int:
    """Wait until the account's stream shows so many rows, and return how often it spoke."""
    spoken = 0
    async for item in news(CONN_ID, 0.1):
        spoken += 1
        if len(item.rows) >= count:
            break
    return spoken


def test_a_long_list_is_read_in_a_thread(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand rows would hold the triggerer's event loop for half a second, and with it every other trigger."""
    threads: list[str] = []

    def watched(rows: Any) -> Any:
        threads.append(threading.current_thread().name)
        return filed(rows)

    filed = poll.filed
    monkeypatch.setattr(watcher, "filed", watched)
    monkeypatch.setattr(watcher, "_LONG_BYTES", 100)
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

    monkeypatch.setattr(push._Socket, "_run", broken)
    caplog.set_level(logging.ERROR)
    receipt = pay(sandbox)

    async def wait() -> str:
        (task,) = start(trigger(receipt, poll_interval=0.1))
        await until_in_loop(lambda: requests(sandbox)["pending"] >= 2)
        settle(sandbox)
        return str((await task)["status"])

    assert asyncio.run(wait()) == "settled"
    assert "ZeroDivisionError" in caplog.text


def test_an_asset_without_a_bridge_does_not_stop_the_looking(sandbox: Sandbox) -> None:
    """Where the fee cannot be read, only a gross row is a match; others are waited for, by everybody else as well."""
    lost, other = pay(sandbox), pay(sandbox, "2")
    settle(sandbox, symbol="SOL", batch_nonce=lost["batch_nonce"])
    sandbox.control("POST", "/assets", {"symbol": "SOL", "bridge": "missing"})

    async def wait() -> tuple[str, bool]:
        first, second = start(trigger(lost, poll_interval=0.1), trigger(other, poll_interval=0.1))
        await until_in_loop(lambda: requests(sandbox)["bridge_parameters"] >= 1)
        settle(sandbox)
        status, done = str((await second)["status"]), first.done()
        first.cancel()
        return status, done

    assert asyncio.run(wait()) == ("settled", False)


def test_the_account_stream_begins_anew(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a connection that was refused and then corrected, asset watchers go on by themselves."""
    monkeypatch.setattr(schedule, "REFUSED_S", 0.05)
    monkeypatch.setattr(lookup, "FRESH_S", 0.0)
    pay(sandbox)
    settle(sandbox)
    sandbox.control("POST", "/faults", {"route": "pending", "kind": "status", "status": 403, "count": 4})

    async def watch() -> int:
        return await first_rows()

    assert asyncio.run(watch()) == 1


@pytest.mark.skipif(AIRFLOW < (3, 2), reason="there a connection of the environment masks for the server's processes")
def test_an_api_config_key_is_masked_and_sent(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one secret that the triggerer holds: Airflow masks it by its name as it hands the connection over (S09)."""
    from airflow.providers.common.compat.sdk import redact

    connection = json.loads(sandbox.airflow_connection)
    connection["extra"]["pf_api_key"] = sandbox.api_config_key
    monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", json.dumps(connection))
    sandbox.control("POST", "/options", {"enforce_credits": True, "quota": 1})
    receipt = pay(sandbox)
    settle(sandbox)

    assert asyncio.run(event_of(trigger(receipt)))["status"] == "settled"
    assert redact(f"PF-API-KEY: {sandbox.api_config_key}") == "PF-API-KEY: ***"


def test_a_later_reading_completes_the_one_before(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what can still have appeared is read again; a row that is too old for that is kept, and none is twice."""
    monkeypatch.setattr(settlements, "SLACK_MS", 0)
    options(sandbox, history_page_size=2)
    for _ in range(5):
        pay(sandbox)
    settle(sandbox)

    async def watch() -> tuple[list[int], int]:
        counts, before = [], 0
        async for item in news(CONN_ID, 0.1):
            counts.append(len(item.rows))
            if len(counts) == 1:
                before = requests(sandbox)["history"]
                pay(sandbox, "2")
                settle(sandbox)
            if counts[-1] > counts[0]:
                break
        return [counts[0], counts[-1]], requests(sandbox)["history"] - before

    (first, last), pages = asyncio.run(watch())

    assert (first, last) == (5, 6)
    assert pages <= 3


def test_a_watcher_belongs_to_no_task(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it logs is not filed under the task whose trigger happened to come first."""
    seen: list[str] = []
    poll = Watcher._poll

    async def noting(self: Watcher, *args: Any) -> None:
        seen.append(whose.get())
        await poll(self, *args)

    monkeypatch.setattr(Watcher, "_poll", noting)
    receipt = pay(sandbox)
    settle(sandbox)
    whose.set("the first task's")

    asyncio.run(event_of(trigger(receipt)))

    assert seen == ["nobody's"]
