"""From accepted to settled: F75 to F82, and the trigger's F43 and F49, through the hook, the sensor and the trigger."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout

from pacifica_provider.exceptions import SettlementTimeout
from pacifica_provider.hooks.pacifica import PacificaHook
from pacifica_provider.withdrawals import settlement
from pacifica_provider.withdrawals.settlement import QUEUED, Awaited, Settled, Waiting
from tests.faults.waiting import (
    NO_CONTEXT,
    first_event,
    operator,
    paid_once,
    poke,
    sensor,
    settle,
    trigger,
)

if TYPE_CHECKING:
    from tests.faults.airflow_bench import TaskBench

SOL_1 = Awaited("SOL", 42, Decimal(1))


def test_a_withdrawal_in_neither_list_is_not_done(paid: TaskBench) -> None:
    """F75: gone from pending and not yet in history is not seen, never settled; once it is listed, it is."""
    paid.harness.options(settle_gap_s=60)
    queued = PacificaHook().settlement(SOL_1, Waiting())
    transaction_id = settle(paid)
    between = PacificaHook().settlement(SOL_1, Waiting())
    poked = poke(sensor())
    paid.harness.clock.sleep_s(61)

    found = poke(sensor())

    assert isinstance(between, Waiting)
    assert (queued, between.last_seen, poked) == (QUEUED, "in neither of Pacifica's lists", None)
    assert found["transaction_id"] == transaction_id


def test_a_withdrawal_that_stays_unseen_fails_after_the_grace(paid: TaskBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """F75: a nonce that Pacifica does not know never settles, so the grace ends the wait and says "not seen"."""
    monkeypatch.setattr(settlement, "NOT_SEEN_GRACE_MS", 0)
    waiting = sensor(batch_nonce=4711)

    first = poke(waiting)
    time.sleep(0.002)
    with pytest.raises(SettlementTimeout, match="in neither of Pacifica's lists") as caught:
        poke(waiting)

    assert (first, "Nothing was sent" in str(caught.value)) == (None, True)
    assert paid_once(paid)


@pytest.mark.parametrize("page", [1, 2, 3])
@pytest.mark.parametrize("history_amount", ["net", "gross"])
def test_a_row_on_a_later_page_is_found(paid: TaskBench, page: int, history_amount: str) -> None:
    """F76: history is read page by page until the row is there, net or gross."""
    paid.harness.options(history_page_size=page, history_amount=history_amount)
    transaction_id = settle(paid)
    for _ in range(4):
        paid.harness.foreign("3")
        paid.harness.sandbox.control("POST", "/settle")

    found = poke(sensor())

    assert found["transaction_id"] == transaction_id


def test_paging_ends_at_rows_older_than_what_is_asked_for(paid: TaskBench) -> None:
    """F76: rows newest first and older than the intent end the paging, however long the history is."""
    paid.harness.options(history_page_size=1)
    for _ in range(6):
        paid.harness.foreign("3")
    paid.harness.sandbox.control("POST", "/settle")
    paid.harness.clock.sleep_s(60)
    since_ms = paid.harness.clock.now_ms() - 5_000
    paid.harness.foreign("4")
    paid.harness.sandbox.control("POST", "/settle")

    rows = paid.harness.client().withdrawal_history(since_ms).rows

    assert rows[0].amount == Decimal("3.999")
    assert paid.harness.ledger()["requests"]["history"] <= 3


def test_a_cursor_that_comes_twice_ends_the_read_but_not_the_wait(paid: TaskBench) -> None:
    """F76: a history that repeats its pages cannot be read to the end; the sensor keeps on looking."""
    settle(paid)
    page = {"success": True, "data": [], "next_cursor": "again", "has_more": True}
    paid.harness.fault("status", route="history", status=200, body=page, count=2)
    waiting = sensor()

    looks = [poke(waiting) is not None for _ in range(2)]

    assert looks == [False, True]


@pytest.mark.parametrize("nonce_scope", ["asset", "global"])
def test_rows_of_one_batch_are_told_apart(paid: TaskBench, nonce_scope: str) -> None:
    """F77: a batch holds several withdrawals of one account; symbol, nonce and amount together name the row."""
    paid.harness.options(shared_batches=True, nonce_scope=nonce_scope)
    shared = paid.harness.foreign("2")["batch_nonce"]
    paid.harness.sandbox.control("POST", "/foreign_withdrawal", {"symbol": "BTC", "amount": "1"})
    paid.harness.sandbox.control("POST", "/settle")
    hook = PacificaHook()

    seen = {amount: hook.settlement(Awaited("SOL", 42, Decimal(amount)), Waiting()) for amount in ("1", "2", "3")}

    assert shared == 42
    assert {amount: each.row.amount if isinstance(each, Settled) else None for amount, each in seen.items()} == {
        "1": Decimal("0.999"),
        "2": Decimal("1.999"),
        "3": None,
    }


def test_an_equal_row_still_pending_keeps_both_waiting(paid: TaskBench) -> None:
    """F77: of two equal rows of one batch, one settled and one pending, either may be ours, so it is queued."""
    pending = {"symbol": "SOL", "amount": "0.999", "amount_requested": "1", "fee_amount": "0.001", "batch_nonce": 42}
    settle(paid)
    paid.harness.fault(
        "status", route="pending", status=200, body={"success": True, "data": [{**pending, "created_at": 1}]}
    )

    first, second = (PacificaHook().settlement(SOL_1, Waiting()) for _ in range(2))

    assert (first, type(second)) == (QUEUED, Settled)


def test_a_batch_that_never_settles_times_out_and_is_not_made_again(paid: TaskBench) -> None:
    """F78: the sensor's and the operator's time is up, in every mode, and nothing posts: a retry waits on."""
    with pytest.raises(AirflowSensorTimeout) as sensed:
        sensor(timeout=0.2).execute(NO_CONTEXT)
    event = asyncio.run(first_event(trigger(end_time=time.time() + 0.2)))
    with pytest.raises(SettlementTimeout, match="was not seen on chain in time"):
        sensor(deferrable=True).execute_complete(NO_CONTEXT, event)
    waiting = operator(settlement_timeout=timedelta(seconds=0.2), poll_interval=0.05)
    with pytest.raises(SettlementTimeout, match="WAS accepted") as waited:
        waiting.execute(paid.context())
    transaction_id = settle(paid)

    settled = waiting.execute(paid.context())

    assert isinstance(sensed.value, SettlementTimeout)
    assert (event["reason"], settled["transaction_id"]) == ("timeout", transaction_id)
    assert (waited.value.batch_nonces, waited.value.amount) == ((42,), "1")
    assert paid_once(paid)


def test_a_row_without_a_transaction_id_is_not_settled(paid: TaskBench) -> None:
    """F82: listed in the history is not enough; done only once there is an id, and it is the id of that moment."""
    paid.harness.options(transaction_id_delay_s=30)
    transaction_id = settle(paid)
    seen = PacificaHook().settlement(SOL_1, Waiting())
    early = poke(sensor())
    paid.harness.clock.sleep_s(31)

    found = poke(sensor())

    assert isinstance(seen, Waiting)
    assert (seen.last_seen, early) == ("listed in the history, but without a transaction id yet", None)
    assert found["transaction_id"] == transaction_id


@pytest.mark.parametrize("ids", [[None, "second"], ["", "second"], ["second"]])
def test_a_replaced_transaction_is_reported_by_its_last_id(paid: TaskBench, ids: list[str | None]) -> None:
    """F82: while the id is gone it waits; what it reports is the id last seen."""
    row = {"symbol": "SOL", "amount": "0.999", "batch_nonce": 42, "created_at": 1}
    settle(paid)
    for shown in ids:
        body = {"success": True, "data": [{**row, "transaction_id": shown}], "has_more": False}
        paid.harness.fault("status", route="history", status=200, body=body)

    waiting = sensor()

    pokes = [poke(waiting) for _ in ids]

    assert [row and row["transaction_id"] for row in pokes] == [shown or None for shown in ids]
