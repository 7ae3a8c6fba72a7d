"""Looks that fail, quotas that are nearly spent, connections that are refused: nobody gives up, nobody hammers."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.hooks import lookup
from pacifica_provider.triggers import schedule, watcher
from pacifica_provider.triggers.rate_limit import RateLimiter
from tests.support.patience import until_in_loop
from tests.unit.triggers.bench import event_of, options, pay, requests, settle, start, trigger

if TYPE_CHECKING:
    from pacifica_provider.api.outcomes import Credits
    from pacifica_provider.sandbox import Sandbox

WEATHER: dict[str, dict[str, Any]] = {
    "429": {"kind": "status", "status": 429, "headers": {"retry-after": "0.1"}},
    "503": {"kind": "status", "status": 503},
    "html": {"kind": "html"},
    "malformed": {"kind": "status", "status": 200, "body": {"success": True, "data": [{"symbol": "SOL"}]}},
    "reset": {"kind": "reset"},
    "truncated": {"kind": "truncate", "bytes": 9},
}


def fault(sandbox: Sandbox, **wish: object) -> None:
    """Arm a fault that leaves the exchange's own state as it is."""
    sandbox.control("POST", "/faults", {"when": "after_commit", **wish})


@pytest.mark.usefixtures("no_push")
@pytest.mark.parametrize("route", ["pending", "history"])
@pytest.mark.parametrize("kind", WEATHER)
def test_failing_looks_are_no_event(sandbox: Sandbox, kind: str, route: str) -> None:
    """F79: for as long as the exchange is throttled, broken or unreadable every trigger waits on; then it is woken."""
    receipts = [pay(sandbox), pay(sandbox, "2")]
    fault(sandbox, route=route, count=None, **WEATHER[kind])
    settle(sandbox)

    async def wait() -> list[dict[str, Any]]:
        tasks = start(*(trigger(receipt, poll_interval=0.05) for receipt in receipts))
        await until_in_loop(lambda: requests(sandbox)[route] >= 3)
        assert not any(task.done() for task in tasks)
        sandbox.control("DELETE", "/faults")
        return await asyncio.gather(*tasks)

    assert [event["status"] for event in asyncio.run(wait())] == ["settled", "settled"]


@pytest.mark.usefixtures("no_push")
def test_failing_looks_become_rarer(sandbox: Sandbox) -> None:
    """Each failure doubles the pause, up to a limit, and a success ends it."""
    receipt = pay(sandbox)
    fault(sandbox, route="pending", count=None, kind="status", status=503)

    async def wait() -> int:
        (task,) = start(trigger(receipt, poll_interval=0.05))
        await asyncio.sleep(1.5)
        failed = requests(sandbox)["pending"]
        task.cancel()
        return failed

    # At 0.05, 0.1, 0.2 and then 0.4 s, with jitter on top: at most seven; without backing off, thirty.
    assert asyncio.run(wait()) <= 8


@pytest.mark.usefixtures("no_push")
def test_trouble_is_logged_once_for_all(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """Fifty waiting triggers log one warning when looking begins to fail, and one line when it works again."""
    receipts = [pay(sandbox, f"0.1{number:02}") for number in range(50)]
    fault(sandbox, route="pending", count=4, kind="status", status=503)
    caplog.set_level(logging.INFO, schedule.__name__)

    async def wait() -> None:
        tasks = start(*(trigger(receipt, poll_interval=0.05) for receipt in receipts))
        await until_in_loop(lambda: requests(sandbox)["pending"] >= 7)
        for task in tasks:
            task.cancel()

    asyncio.run(wait())

    told = [record.levelname for record in caplog.records if record.name == schedule.__name__]
    assert told == ["WARNING", "INFO"]
    assert "HTTP 503" in caplog.text


@pytest.mark.usefixtures("no_push")
def test_the_last_third_of_the_credits_is_left_to_others(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """However short the interval and however many want the history, a third of the quota stays unspent."""
    seen: list[float] = []
    note = RateLimiter.note

    def noting(self: RateLimiter, cost: float, credits_left: Credits | None) -> None:
        note(self, cost, credits_left)
        if credits_left is not None:
            seen.append(credits_left.remaining)

    monkeypatch.setattr(RateLimiter, "note", noting)
    options(sandbox, enforce_credits=True, quota=30, settle_gap_s=60)
    receipt = pay(sandbox)
    settle(sandbox)

    async def wait() -> None:
        (task,) = start(trigger(receipt, poll_interval=0.05))
        await until_in_loop(lambda: len(seen) >= 2)
        await asyncio.sleep(2)
        task.cancel()

    asyncio.run(wait())

    assert len(seen) >= 2
    assert min(seen) >= 10


@pytest.mark.usefixtures("no_push")
def test_a_quota_spent_by_others_slows_the_watcher_down(sandbox: Sandbox) -> None:
    """It looks once, sees how little is left, and waits for the time that the headers name."""
    options(sandbox, enforce_credits=True, quota=30)
    receipt = pay(sandbox)
    for _ in range(21):
        sandbox.exchange.charge("127.0.0.1", None, "account")

    async def wait() -> int:
        (task,) = start(trigger(receipt, poll_interval=0.05))
        await until_in_loop(lambda: requests(sandbox)["pending"] >= 1)
        await asyncio.sleep(1)
        task.cancel()
        return requests(sandbox)["pending"]

    assert asyncio.run(wait()) == 1


@pytest.mark.usefixtures("no_push")
@pytest.mark.parametrize("kind", ["429", "503", "reset"])
def test_a_failing_page_is_fetched_again_instead_of_the_whole_history(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A long history is read to its end even where one page in three fails."""
    options(sandbox, history_page_size=5)
    receipts = [pay(sandbox) for _ in range(30)]
    settle(sandbox)
    fault(sandbox, route="history", skip=3, count=2, **WEATHER[kind])
    monkeypatch.setattr("pacifica_provider.triggers.rate_limit._PAGE_PAUSE_S", 0.01)

    event = asyncio.run(event_of(trigger(receipts[0])))

    assert event["status"] == "settled"
    assert requests(sandbox)["history"] == 6 + 2
    assert requests(sandbox)["pending"] == 1


@pytest.mark.usefixtures("no_push")
def test_the_receipt_bounds_how_much_history_is_read(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trigger that never saw its withdrawal pending reads back to the receipt's time, not to the beginning."""
    monkeypatch.setattr(watcher, "SLACK_MS", 0)
    options(sandbox, history_page_size=5)
    for _ in range(30):
        pay(sandbox)
    time.sleep(0.01)
    submitted_at_ms = time.time_ns() // 1_000_000
    receipt = pay(sandbox, "2")
    settle(sandbox)

    event = asyncio.run(event_of(trigger(receipt, submitted_at_ms=submitted_at_ms)))

    assert event["row"]["amount"] == "1.999"
    assert requests(sandbox)["history"] <= 2


@pytest.mark.usefixtures("no_push")
def test_reading_ends_once_everybody_has_been_found(sandbox: Sandbox) -> None:
    """A withdrawal that was seen pending and stands on the first page costs one page of a long history."""
    options(sandbox, history_page_size=5)
    for _ in range(30):
        pay(sandbox)
    settle(sandbox)
    receipt = pay(sandbox, "2")

    async def wait() -> None:
        (task,) = start(trigger(receipt, poll_interval=0.05))
        await until_in_loop(lambda: requests(sandbox)["pending"] >= 2)
        settle(sandbox)
        await task

    asyncio.run(wait())

    assert requests(sandbox)["history"] == 1


@pytest.mark.usefixtures("no_push")
def test_a_corrected_connection_is_picked_up_while_tasks_wait(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused for minutes, the triggers read their connection again; a wrong host need not cost a restart."""
    monkeypatch.setattr(schedule, "REFUSED_S", 0.2)
    monkeypatch.setattr(lookup, "FRESH_S", 0.0)
    right = json.loads(sandbox.airflow_connection)
    wrong = {**right, "host": right["host"].replace("/api/v1", "/api/v9")}
    monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", json.dumps(wrong))
    receipt = pay(sandbox)
    settle(sandbox)

    async def wait() -> dict[str, Any]:
        (task,) = start(trigger(receipt, poll_interval=0.05))
        await until_in_loop(lambda: requests(sandbox).get("other", 0) >= 2)
        monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", json.dumps(right))
        return await task

    assert asyncio.run(wait())["status"] == "settled"


@pytest.mark.usefixtures("no_push")
def test_a_connection_that_is_gone_while_tasks_wait_ends_no_wait(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, and unusable when it is read again: the trigger goes on with what it had until its time is up."""
    monkeypatch.setattr(schedule, "REFUSED_S", 0.1)
    monkeypatch.setattr(lookup, "FRESH_S", 0.0)
    receipt = pay(sandbox)
    fault(sandbox, route="pending", kind="status", status=403, count=None)

    async def wait() -> dict[str, Any]:
        (task,) = start(trigger(receipt, poll_interval=0.05, lasts_s=2))
        await until_in_loop(lambda: requests(sandbox)["pending"] >= 1)
        monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", json.dumps({"conn_type": "pacifica"}))
        return await task

    event = asyncio.run(wait())

    assert event["reason"] == "timeout"
    assert "HTTP 403" in event["text"]
