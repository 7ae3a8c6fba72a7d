"""F82 with a Solana RPC: Pacifica's word ends a wait only with the chain's, and nothing that the RPC does ends one."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from pacifica_provider.exceptions import SettlementTimeout
from pacifica_provider.triggers import rate_limit, schedule
from tests.faults.waiting import NO_CONTEXT, first_event, operator, paid_once, sensor, settle
from tests.support.patience import PATIENCE_S, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.airflow_bench import TaskBench

    Waiter = Callable[[TaskBench, float], dict[str, Any]]

# Shorter than this a look that hangs is not over.
SHORT_S = 1.5


def by_operator(paid: TaskBench, within_s: float) -> dict[str, Any]:
    """Wait in the withdrawing task; a retry recalls its receipt."""
    return dict(operator(settlement_timeout=timedelta(seconds=within_s)).execute(paid.context()))


def by_deferred_operator(paid: TaskBench, within_s: float) -> dict[str, Any]:
    """Wait for it in the triggerer."""
    waiting = operator(settlement_timeout=timedelta(seconds=within_s), deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        waiting.execute(paid.context())
    event = asyncio.run(first_event(deferred.value.trigger))
    return dict(waiting.execute_complete(paid.context(), event, **(deferred.value.kwargs or {})))


def by_sensor(_paid: TaskBench, within_s: float) -> dict[str, Any]:
    """Wait in a task of its own."""
    return dict(sensor(timeout=within_s).execute(NO_CONTEXT))


def by_deferred_sensor(_paid: TaskBench, within_s: float) -> dict[str, Any]:
    """Wait for that in the triggerer."""
    waiting = sensor(timeout=within_s, deferrable=True)
    try:
        return dict(waiting.execute(NO_CONTEXT))
    except TaskDeferred as deferred:
        event = asyncio.run(first_event(deferred.trigger))
    return waiting.execute_complete(NO_CONTEXT, event)


WAITERS: dict[str, Waiter] = {
    "operator": by_operator,
    "deferred operator": by_deferred_operator,
    "sensor": by_sensor,
    "deferred sensor": by_deferred_sensor,
}
EACH_WAITER = pytest.mark.parametrize("wait", WAITERS.values(), ids=WAITERS)
ANSWER = {"jsonrpc": "2.0", "id": 1, "result": {"context": {"slot": 1}, "value": [{"confirmationStatus": "finalized"}]}}
# What the chain or the RPC does, as options or a fault of the sandbox, and what is said of it.
DOUBTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "confirmed": ({"finalized_after_s": None}, {}, "is confirmed on chain, but not finalized yet"),
    "failed": ({"chain": "failed"}, {}, "FAILED on chain"),
    "unknown": ({"chain": "unknown"}, {}, "the Solana RPC does not find it"),
    "hanging": ({}, {"kind": "hang", "seconds": 600}, "gives no answer ("),
    "dripping": ({}, {"kind": "drip", "seconds": 0.5}, "gives no answer ("),
    "reset": ({}, {"kind": "reset"}, "gives no answer ("),
    "throttled": ({}, {"kind": "status", "status": 429}, "gives no answer (HTTP 429)"),
    "unauthorized": ({}, {"kind": "status", "status": 401}, "gives no answer (HTTP 401)"),
    "portal": ({}, {"kind": "html"}, "gives no answer (its answer is not JSON)"),
    "redirect": ({}, {"kind": "redirect", "location": "/solana"}, "gives no answer (HTTP 307)"),
    "huge": ({}, {"kind": "huge", "bytes": 9_000_000}, "gives no answer (the body is too large)"),
    "lying": ({}, {"kind": "status", "status": 200, "body": ANSWER}, "its answer is not that of a Solana node"),
}


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the triggerer look more often than once a second."""
    monkeypatch.setattr(schedule, "LEAST_INTERVAL_S", 0.05)
    monkeypatch.setattr(rate_limit, "IDLE_SHARE", 1000)


@pytest.fixture
def watched(paid: TaskBench, monkeypatch: pytest.MonkeyPatch) -> TaskBench:
    """Return a task that has withdrawn 1 SOL in batch 42, and whose connection names the sandbox's chain."""
    ask(paid, monkeypatch, paid.harness.sandbox.solana_url)
    return paid


def ask(paid: TaskBench, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Name a Solana RPC in the connection."""
    connection = json.loads(paid.harness.sandbox.airflow_connection)
    connection["extra"] |= {"solana_rpc_url": url, "timeout_s": 1}
    monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", json.dumps(connection))


def asked(paid: TaskBench) -> int:
    """Return how often the chain was asked."""
    return int(paid.harness.ledger()["requests"].get("solana", 0))


@EACH_WAITER
def test_a_finalized_transaction_ends_the_wait(watched: TaskBench, wait: Waiter) -> None:
    """F82: both have said it: the row and the receipt are what they are without an RPC."""
    transaction_id = settle(watched)
    row = wait(watched, PATIENCE_S)

    assert row["transaction_id"] == transaction_id
    assert row["seen_settled_at_ms"]
    assert asked(watched) == 1
    assert paid_once(watched)


@EACH_WAITER
def test_without_the_address_nobody_is_asked(paid: TaskBench, wait: Waiter) -> None:
    """F82: the chain may say what it likes."""
    paid.harness.options(chain="failed")
    transaction_id = settle(paid)

    assert wait(paid, PATIENCE_S)["transaction_id"] == transaction_id
    assert asked(paid) == 0


@EACH_WAITER
@pytest.mark.parametrize("doubt", DOUBTS)
def test_a_doubt_is_waited_out(
    watched: TaskBench,
    wait: Waiter,
    doubt: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """F82: it does not end before the time is up, and says why; cleared, it waits on, and nothing is posted."""
    options, fault, reason = DOUBTS[doubt]
    watched.harness.options(**options)
    if fault:
        watched.harness.sandbox.control("POST", "/faults", {"route": "solana", "count": None, **fault})
    transaction_id = settle(watched)
    caplog.set_level(logging.INFO)
    for within_s in (SHORT_S, 10 * SHORT_S, PATIENCE_S):  # until the chain was asked, which a busy machine delays
        with pytest.raises(SettlementTimeout) as caught:
            wait(watched, within_s)
        if reason in str(caught.value):
            break
    # Airflow's own loggers print.
    lines = [
        *(f"[{record.levelname.lower()} {record.getMessage()}" for record in caplog.records),
        capsys.readouterr().out,
    ]
    levels = {line.partition("[")[2].split()[0] for text in lines for line in text.splitlines() if reason in line}
    watched.harness.options(chain="landed", finalized_after_s=0)
    watched.harness.sandbox.control("DELETE", "/faults")

    said = str(caught.value)
    assert "was not seen finalized on chain in time; last seen: " in said
    assert reason in said
    assert transaction_id in said
    assert "accepted" in said
    assert levels == {"error" if doubt == "failed" else "info"}
    assert wait(watched, PATIENCE_S)["transaction_id"] == transaction_id
    assert paid_once(watched)


@EACH_WAITER
def test_a_transaction_that_failed_may_be_replaced(watched: TaskBench, wait: Waiter) -> None:
    """F82: it waits on, and ends with the transaction that Pacifica names in its place."""
    settle(watched)
    watched.harness.options(chain="failed")
    sandbox, replaced = watched.harness.sandbox, []

    def replace() -> None:
        until(lambda: asked(watched) >= 2)
        replaced.extend(sandbox.control("POST", "/replace_transaction")["replaced"])
        sandbox.control("POST", "/options", {"chain": "landed"})

    helper = threading.Thread(target=replace)
    helper.start()
    row = wait(watched, PATIENCE_S)
    helper.join()

    assert [each["transaction_id"] for each in replaced] == [row["transaction_id"]]
    assert paid_once(watched)


@EACH_WAITER
def test_a_transaction_is_waited_for_until_it_is_final(watched: TaskBench, wait: Waiter) -> None:
    """F82: it is confirmed for a while, as on Solana for thirteen seconds."""
    watched.harness.options(finalized_after_s=3600)
    transaction_id = settle(watched)

    def finalize() -> None:
        until(lambda: asked(watched) >= 2)
        watched.harness.sandbox.control("POST", "/options", {"finalized_after_s": 0})

    helper = threading.Thread(target=finalize)
    helper.start()
    row = wait(watched, PATIENCE_S)
    helper.join()

    assert row["transaction_id"] == transaction_id


@pytest.fixture(params=["http://127.0.0.1:9/v2/hush-0123456789?api-key=hush-9876543210", "https://rpc.invalid/hush-x"])
def nowhere(request: pytest.FixtureRequest, paid: TaskBench, monkeypatch: pytest.MonkeyPatch) -> TaskBench:
    """Return a task as ``watched``, whose connection names an RPC that is not there."""
    ask(paid, monkeypatch, request.param)
    return paid


@EACH_WAITER
def test_an_rpc_that_is_not_there_is_not_named(
    nowhere: TaskBench, wait: Waiter, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """F82: neither the log nor the error repeats an address that may hold a token."""
    settle(nowhere)
    caplog.set_level(logging.INFO)
    with pytest.raises(SettlementTimeout, match="the Solana RPC gives no answer") as caught:
        wait(nowhere, 2 * SHORT_S)

    assert "hush" not in f"{caught.value!r} {caplog.text} {capsys.readouterr()}"
    assert paid_once(nowhere)


@EACH_WAITER
def test_the_chain_alone_ends_nothing(watched: TaskBench, wait: Waiter) -> None:
    """F82: while Pacifica's lists say queued, the RPC is not even asked."""
    with pytest.raises(SettlementTimeout, match="queued in Pacifica's pending list"):
        wait(watched, 0.3)

    assert asked(watched) == 0
