"""A watcher with a Solana RPC: one question for everybody, a push asked for at once, and no RPC that stalls it."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.hooks import lookup
from pacifica_provider.triggers import watcher
from tests.support.patience import until_in_loop
from tests.unit.triggers.bench import (
    CONN_ID,
    alone,
    connected,
    event_of,
    options,
    pay,
    requests,
    settle,
    start,
    trigger,
    watchers,
)

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox

WITHOUT = "pacifica_without"


@pytest.fixture(autouse=True)
def chain(connection: None, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the sandbox's chain in the default connection, and have another connection without it."""
    fields = json.loads(sandbox.airflow_connection)
    monkeypatch.setenv(f"AIRFLOW_CONN_{WITHOUT.upper()}", json.dumps(fields))
    fields["extra"] |= {"solana_rpc_url": sandbox.solana_url, "timeout_s": 5}
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps(fields))


def asked(sandbox: Sandbox) -> int:
    """Return how often the chain was asked."""
    return requests(sandbox).get("solana", 0)


def fault(sandbox: Sandbox, **wish: object) -> None:
    """Let the chain fail until further notice."""
    sandbox.control("POST", "/faults", {"route": "solana", "count": None, **wish})


def transactions(sandbox: Sandbox) -> list[str]:
    """Return every transaction there is, in the order of the withdrawals."""
    return [str(debit["transaction_id"]) for debit in sandbox.control("GET", "/ledger")["debits"]]


@pytest.mark.usefixtures("no_push")
@pytest.mark.parametrize(("count", "questions"), [(1, 1), (200, 1), (300, 2)])
def test_many_are_asked_for_in_one_question(sandbox: Sandbox, count: int, questions: int) -> None:
    """Up to 256 transactions a call, however many triggers wait."""
    receipts = [pay(sandbox, f"0.{number:03}") for number in range(100, 100 + count)]
    settle(sandbox)

    async def wait() -> list[dict[str, Any]]:
        return await asyncio.gather(*start(*(trigger(receipt, poll_interval=1) for receipt in receipts)))

    events = asyncio.run(wait())

    assert [event["row"]["transaction_id"] for event in events] == transactions(sandbox)
    # Who joins while a poll is under way is looked for by the next.
    assert questions <= asked(sandbox) <= questions + 2


@pytest.mark.usefixtures("no_push")
def test_only_who_was_seen_is_asked_for(sandbox: Sandbox) -> None:
    """What is still queued costs no question, and neither does what has ended."""
    first, second = pay(sandbox), pay(sandbox, "2")
    settle(sandbox, batch_nonce=first["batch_nonce"])

    async def wait() -> int:
        tasks = start(*(trigger(receipt, poll_interval=0.05) for receipt in (first, second)))
        await tasks[0]
        before, polls = asked(sandbox), requests(sandbox)["pending"]
        await until_in_loop(lambda: requests(sandbox)["pending"] >= polls + 3)
        tasks[1].cancel()
        return asked(sandbox) - before

    assert asyncio.run(wait()) == 0


def test_a_push_is_asked_for_at_once_and_no_history_is_read(sandbox: Sandbox) -> None:
    """The transaction that it names is the one, and the next regular poll is a minute away."""
    receipt = pay(sandbox)

    async def wait() -> tuple[dict[str, Any], float]:
        (task,) = start(trigger(receipt, fee_amount="0.001", submitted_at_ms=receipt_ms))
        await connected()
        began = time.monotonic()
        settle(sandbox)
        return await task, time.monotonic() - began

    receipt_ms = time.time_ns() // 1_000_000
    event, took_s = asyncio.run(wait())

    assert [event["row"]["transaction_id"]] == transactions(sandbox)
    assert took_s < 20
    assert (asked(sandbox), requests(sandbox)["history"]) == (1, 0)


def test_a_pushed_transaction_is_asked_for_again_until_it_is_final(sandbox: Sandbox) -> None:
    """At the interval that was asked for, since finality is not pushed; still no history is read."""
    options(sandbox, finalized_after_s=None)
    receipt = pay(sandbox)

    async def wait() -> dict[str, Any]:
        (task,) = start(trigger(receipt, poll_interval=0.1, fee_amount="0.001", submitted_at_ms=1))
        await connected()
        settle(sandbox)
        await until_in_loop(lambda: asked(sandbox) >= 3)
        assert not task.done()
        options(sandbox, finalized_after_s=0)
        return await task

    assert asyncio.run(wait())["status"] == "settled"
    assert requests(sandbox)["history"] == 0


def test_a_pushed_transaction_that_failed_is_looked_for_in_the_history(sandbox: Sandbox) -> None:
    """Pacifica names another one there, without a push."""
    options(sandbox, chain="failed")
    receipt = pay(sandbox)

    async def wait() -> dict[str, Any]:
        (task,) = start(trigger(receipt, poll_interval=0.1, fee_amount="0.001", submitted_at_ms=1))
        await connected()
        settle(sandbox)
        await until_in_loop(lambda: asked(sandbox) >= 2)
        sandbox.control("POST", "/replace_transaction")
        options(sandbox, chain="landed")
        return await task

    assert [asyncio.run(wait())["row"]["transaction_id"]] == transactions(sandbox)


@pytest.mark.usefixtures("no_push")
@pytest.mark.parametrize("wish", [{"kind": "hang", "seconds": 600}, {"kind": "drip", "seconds": 0.05}])
def test_an_rpc_that_hangs_stalls_nobody(
    sandbox: Sandbox, wish: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop runs on, whose time is up ends in time, and a connection without an RPC is served by its own watcher."""
    monkeypatch.setattr(watcher, "LAST_LOOK_S", 0.2)
    fault(sandbox, **wish)
    receipt = pay(sandbox)
    settle(sandbox)

    async def wait() -> tuple[list[dict[str, Any]], float]:
        patient, hurried = start(trigger(receipt, poll_interval=1), trigger(receipt, lasts_s=1, poll_interval=0.05))
        await until_in_loop(lambda: asked(sandbox) >= 1)
        longest, stop = 0.0, time.monotonic() + 2

        async def tick() -> None:
            nonlocal longest
            while time.monotonic() < stop:
                before = time.monotonic()
                await asyncio.sleep(0.01)
                longest = max(longest, time.monotonic() - before)

        (without,) = start(trigger(receipt, pacifica_conn_id=WITHOUT))
        ticking = asyncio.ensure_future(tick())
        ended = [await without, await hurried]
        await ticking
        assert len(watchers()) == 1
        sandbox.control("DELETE", "/faults")
        return [*ended, await patient], longest

    (without, hurried, patient), longest = asyncio.run(wait())

    assert (without["status"], hurried["reason"], patient["status"]) == ("settled", "timeout", "settled")
    assert "but the Solana RPC gives no answer yet" in hurried["text"]
    assert longest < 2


@pytest.mark.usefixtures("no_push")
def test_what_the_chain_says_stands_in_each_trigger_s_log(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """Once for each, not at every look: as an error where the transaction failed."""
    options(sandbox, chain="failed")
    receipts = [pay(sandbox), pay(sandbox, "2")]
    settle(sandbox)

    async def wait() -> None:
        tasks = start(*(trigger(receipt, poll_interval=0.05) for receipt in receipts))
        await until_in_loop(lambda: asked(sandbox) >= 4)
        options(sandbox, chain="landed")
        await asyncio.gather(*tasks)

    asyncio.run(wait())
    told = [(record.levelname, record.getMessage()) for record in caplog.records if "FAILED" in record.getMessage()]

    assert [level for level, _ in told] == ["ERROR", "ERROR"]
    assert sorted(text.partition(":")[0] for _, text in told) == ["1 SOL in batch 42", "2 SOL in batch 43"]
    assert all("WAS accepted and is never posted again" in text for _, text in told)


@pytest.mark.usefixtures("no_push")
def test_pacifica_s_failures_do_not_keep_the_chain_from_being_asked(sandbox: Sandbox) -> None:
    """Once the transaction is known, its lists have nothing to say any more."""
    options(sandbox, finalized_after_s=None)
    receipt = pay(sandbox)
    settle(sandbox)

    async def wait() -> dict[str, Any]:
        (task,) = start(trigger(receipt, poll_interval=0.05))
        await until_in_loop(lambda: asked(sandbox) >= 1)
        sandbox.control("POST", "/faults", {"route": "pending", "kind": "status", "status": 503, "count": None})
        options(sandbox, finalized_after_s=0)
        return await task

    assert asyncio.run(wait())["status"] == "settled"


@pytest.mark.usefixtures("no_push")
def test_an_address_may_be_corrected_while_somebody_waits(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """After minutes without an answer the connection is read again, as it is where the exchange refuses it."""
    monkeypatch.setattr(watcher, "REFUSED_S", 0.3)
    monkeypatch.setattr(lookup, "FRESH_S", 0)
    right = os.environ[f"AIRFLOW_CONN_{CONN_ID.upper()}"]
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", right.replace("/solana", "/elsewhere"))
    receipt = pay(sandbox)
    settle(sandbox)

    async def wait() -> dict[str, Any]:
        (task,) = start(trigger(receipt, poll_interval=0.05))
        await until_in_loop(lambda: requests(sandbox).get("other", 0) >= 8)
        assert (task.done(), asked(sandbox)) == (False, 0)
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", right)
        return await task

    assert asyncio.run(wait())["status"] == "settled"
    assert asked(sandbox) == 1


@pytest.mark.usefixtures("no_push")
def test_equal_rows_must_all_be_final(sandbox: Sandbox) -> None:
    """Either may be the withdrawal, so one that failed keeps both waiting."""
    options(sandbox, shared_batches=True)
    receipt = pay(sandbox)
    settle(sandbox)
    row = {"symbol": "SOL", "amount": "0.999", "batch_nonce": int(receipt["batch_nonce"]), "created_at": 1}
    pay(sandbox, "5")
    settle(sandbox)
    (good, other) = transactions(sandbox)
    sandbox.control("POST", "/replace_transaction", {"batch_nonce": int(receipt["batch_nonce"]) + 1})
    page = [{**row, "transaction_id": good}, {**row, "transaction_id": other}]
    body = {"success": True, "data": page, "has_more": False}
    sandbox.control(
        "POST", "/faults", {"route": "history", "kind": "status", "status": 200, "body": body, "count": None}
    )

    event = asyncio.run(event_of(trigger(receipt, lasts_s=1, poll_interval=0.05)))

    assert event["status"] == "expired"
    assert f"transaction {other} FAILED" in event["text"]


def test_the_address_is_masked_before_anything_is_logged(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow masks extras by name, and this has none that it knows (S09)."""
    from airflow.providers.common.compat.sdk import redact

    fields = json.loads(sandbox.airflow_connection)
    fields["extra"]["solana_rpc_url"] = "http://127.0.0.1:9/v2/hush-0123456789?api-key=hush-9876543210"
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps(fields))
    asyncio.run(lookup.settings_of(CONN_ID))

    assert redact(f"at {fields['extra']['solana_rpc_url']}.") == "at ***."
    assert redact("POST /v2/hush-0123456789?api-key=hush-9876543210 HTTP/1.1") == "POST *** HTTP/1.1"
    assert redact("hush-0123456789 hush-9876543210") == "*** ***"


def test_nothing_is_left_open(sandbox: Sandbox) -> None:
    """Both clients are closed by the last that leaves, while the loop itself is ending too."""
    receipt = pay(sandbox)
    settle(sandbox)

    async def wait() -> bool:
        await event_of(trigger(receipt))
        return await alone()

    assert asyncio.run(wait())
    asyncio.run(event_of(trigger(receipt)))
    gc.collect()
