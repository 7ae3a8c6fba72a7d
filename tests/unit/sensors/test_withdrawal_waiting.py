"""The sensor's ways of waiting: rescheduled, deferred, timed out, skipped; and what it says then."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.exceptions import AirflowRescheduleException
from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from pacifica_provider.exceptions import ConfigurationError, SettlementTimeout
from pacifica_provider.sensors.withdrawal import WithdrawalBatchSensor
from pacifica_provider.triggers.events import AlienEventError, NotListed
from pacifica_provider.triggers.withdrawal import WithdrawalBatchTrigger
from pacifica_provider.withdrawals import settlement
from tests.support.patience import PATIENCE_S

if TYPE_CHECKING:
    from tests.support.task_context import TaskContext

ROW = {"symbol": "SOL", "batch_nonce": 7, "amount": "1", "transaction_id": "5x", "created_at_ms": 1716200000000}


def sensor(nonce: Any, **changes: Any) -> WithdrawalBatchSensor:
    """Return a sensor that pokes often and not for long."""
    defaults = {"task_id": "wait", "symbol": "SOL", "batch_nonce": nonce, "amount": "1", "poke_interval": 0.05}
    return WithdrawalBatchSensor(**{**defaults, "timeout": PATIENCE_S, **changes})


def withdrawn(task_context: TaskContext, amount: str = "1") -> int:
    """Withdraw elsewhere and return the nonce."""
    return int(
        task_context.sandbox.control("POST", "/foreign_withdrawal", {"symbol": "SOL", "amount": amount})["batch_nonce"]
    )


def settle(task_context: TaskContext, **options: Any) -> None:
    """Settle what is pending."""
    task_context.sandbox.control("POST", "/options", options)
    task_context.sandbox.control("POST", "/settle")


def test_a_timeout_skips_with_soft_fail(task_context: TaskContext) -> None:
    """Airflow's option holds, and the reason says what was last seen (F78)."""
    nonce = withdrawn(task_context)
    with pytest.raises(AirflowSkipException, match="last seen: queued in Pacifica's pending list"):
        sensor(nonce, timeout=0.1, soft_fail=True).execute(task_context.context())


@pytest.mark.parametrize("soft_fail", [False, True])
def test_a_reschedule_frees_the_worker_until_the_timeout(task_context: TaskContext, soft_fail: bool) -> None:
    """Not done: come back after the interval. Too long ago: time out, with the last state seen (F78)."""
    nonce = withdrawn(task_context)
    waiting = sensor(nonce, mode="reschedule", poke_interval=30, timeout=60, soft_fail=soft_fail)
    now = datetime.now(UTC)
    with pytest.raises(AirflowRescheduleException) as again:
        waiting.execute(task_context.context())
    task_context.rescheduled_at = now - timedelta(seconds=61)
    with pytest.raises(AirflowSkipException if soft_fail else AirflowSensorTimeout, match="last seen: queued"):
        waiting.execute(task_context.context())

    assert timedelta(seconds=29) < again.value.reschedule_date - now < timedelta(seconds=60)


@pytest.mark.parametrize("soft_fail", [False, True])
def test_a_withdrawal_in_neither_list_for_too_long_fails(task_context: TaskContext, soft_fail: bool) -> None:
    """A nonce that the exchange does not know never settles, so it is not waited for a day, nor skipped (F75)."""
    task_context.monkeypatch.setattr(settlement, "NOT_SEEN_GRACE_MS", 100)
    with pytest.raises(NotListed, match="has been in neither of Pacifica's lists") as caught:
        sensor(10**6, soft_fail=soft_fail).execute(task_context.context())

    assert "Check symbol, batch_nonce and amount" in str(caught.value)
    assert (caught.value.symbol, caught.value.amount, caught.value.batch_nonces) == ("SOL", "1", (10**6,))


@pytest.mark.parametrize("soft_fail", [False, True])
def test_the_trigger_s_word_that_it_is_in_neither_list_fails(task_context: TaskContext, soft_fail: bool) -> None:
    """The same after a deferral: no timeout, so ``soft_fail`` does not skip it (F75)."""
    event = {"status": "expired", "reason": "not_seen", "text": "in neither list"}
    with pytest.raises(NotListed, match=r"in neither list Check symbol"):
        sensor(7, soft_fail=soft_fail).resume_execution("execute_complete", {"event": event}, task_context.context())


@pytest.mark.parametrize(
    ("nonce", "changes"), [("None", {}), (7, {"pacifica_conn_id": "nowhere"}), (7, {"amount": "1e3"})]
)
@pytest.mark.parametrize("deferrable", [False, True])
def test_what_is_wrong_from_the_start_fails_and_is_never_skipped(
    task_context: TaskContext, nonce: Any, changes: dict[str, Any], deferrable: bool
) -> None:
    """``soft_fail`` is for the timeout: a wrong connection or nonce would be skipped for ever."""
    with pytest.raises(ConfigurationError):
        sensor(nonce, soft_fail=True, deferrable=deferrable, **changes).execute(task_context.context())


def test_the_grace_begins_anew_once_it_was_seen(task_context: TaskContext) -> None:
    """Only the time that it is in neither list without a break counts (F75)."""
    task_context.monkeypatch.setattr(settlement, "NOT_SEEN_GRACE_MS", 300)
    task_context.sandbox.control("POST", "/options", {"settle_gap_s": 3600})
    nonce = withdrawn(task_context)
    waiting = sensor(nonce)
    for route in ("unknown", "queued", "unknown", "queued"):
        waiting.batch_nonce = nonce if route == "queued" else 10**6
        assert not waiting.poke(task_context.context()).is_done
        time.sleep(0.2)
    settle(task_context)
    assert not waiting.poke(task_context.context()).is_done
    time.sleep(0.35)
    with pytest.raises(NotListed, match="in neither"):
        waiting.poke(task_context.context())


def test_a_refused_connection_is_waited_for_and_read_again(task_context: TaskContext) -> None:
    """What Pacifica refuses can be corrected while the sensor waits, even if it gets worse first (F79)."""
    nonce = withdrawn(task_context)
    settle(task_context)
    waiting, seen = sensor(nonce), []
    for changes in ({"host": task_context.sandbox.base_url.replace("/api/v1", "/api/v9")}, {"host": ""}, {}):
        task_context.connect(**changes)
        found = waiting.poke(task_context.context())
        seen.append((found.is_done, waiting._waiting and waiting._waiting.last_seen))

    assert [done for done, _ in seen] == [False, False, True]
    assert "HTTP 404" in str(seen[0][1])
    assert "Host" in str(seen[1][1]) or "host" in str(seen[1][1])


def test_deferring_carries_what_the_triggerer_needs(task_context: TaskContext) -> None:
    """Connection id, symbol, nonce as integer, canonical amount and an absolute end; Airflow's timeout is behind it."""
    nonce = withdrawn(task_context)
    began = datetime.now(UTC).timestamp()
    with pytest.raises(TaskDeferred) as caught:
        sensor(str(nonce), amount="1.00", deferrable=True, timeout=3600, poke_interval=20).execute(
            task_context.context()
        )
    _, arguments = caught.value.trigger.serialize()

    assert isinstance(caught.value.trigger, WithdrawalBatchTrigger)
    assert (arguments["symbol"], arguments["batch_nonce"], arguments["amount"]) == ("SOL", nonce, "1")
    assert (arguments["pacifica_conn_id"], arguments["poll_interval"]) == ("pacifica_default", 20)
    assert 3595 < arguments["end_time"] - began < 3605
    assert caught.value.method_name == "execute_complete"
    assert timedelta(seconds=3600) < caught.value.timeout <= timedelta(seconds=3720)
    assert arguments == json.loads(json.dumps(arguments))


def test_deferring_without_an_amount_waits_for_any(task_context: TaskContext) -> None:
    """The amount is optional all the way."""
    nonce = withdrawn(task_context)
    with pytest.raises(TaskDeferred) as caught:
        sensor(nonce, amount=None, deferrable=True).execute(task_context.context())

    assert caught.value.trigger.serialize()[1]["amount"] is None


def test_the_event_finishes_the_sensor(task_context: TaskContext) -> None:
    """Its row is the result, whatever the templates have become meanwhile."""
    waiting = sensor(7, symbol="BTC")
    waiting.batch_nonce = "None"

    assert waiting.execute_complete(task_context.context(), {"status": "settled", "row": ROW}) == ROW


@pytest.mark.parametrize("event", [None, {}, {"status": "done", "row": ROW}, {"status": "settled", "row": {}}])
def test_an_event_that_is_not_understood_is_no_success(task_context: TaskContext, event: Any) -> None:
    """None, an unknown status, or settled without proof raises (F80)."""
    with pytest.raises(AlienEventError):
        sensor(7).execute_complete(task_context.context(), event)


@pytest.mark.parametrize("soft_fail", [False, True])
def test_a_timeout_of_the_trigger_is_a_sensor_s_timeout(task_context: TaskContext, soft_fail: bool) -> None:
    """Airflow never retries it, and skips where the sensor was told to (F78)."""
    event = {"status": "expired", "reason": "timeout", "text": "not on chain in time; last seen: queued"}
    waiting = sensor(7, soft_fail=soft_fail)
    with pytest.raises(AirflowSkipException if soft_fail else AirflowSensorTimeout):
        waiting.resume_execution("execute_complete", {"event": event}, task_context.context())
    with pytest.raises(SettlementTimeout, match="last seen: queued") as caught:
        waiting.execute_complete(task_context.context(), event)
    assert (caught.value.symbol, caught.value.amount, caught.value.batch_nonces) == ("SOL", "1", (7,))
    assert "Airflow does not retry a sensor's timeout" in str(caught.value)
