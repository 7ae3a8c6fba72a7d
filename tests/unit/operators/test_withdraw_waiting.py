"""The withdraw operator after its receipt: waiting in the task or in the triggerer, and what either may say."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from pacifica_provider.exceptions import PacificaError, SettlementTimeout, Unresolved
from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator
from pacifica_provider.triggers.events import AlienEventError
from pacifica_provider.triggers.withdrawal import WithdrawalBatchTrigger
from pacifica_provider.withdrawals import settlement
from tests.support.patience import PATIENCE_S

if TYPE_CHECKING:
    from tests.support.task_context import TaskContext

ROW = {
    "symbol": "SOL",
    "batch_nonce": 7,
    "amount": "0.999",
    "transaction_id": "5x",
    "created_at_ms": 1716200000000,
    "seen_settled_at_ms": 1716200009000,
}


def operator(**changes: Any) -> WithdrawSpotAssetOperator:
    """Return an operator that waits a second."""
    defaults: dict[str, Any] = {
        "task_id": "withdraw",
        "symbol": "SOL",
        "amount": "1",
        "wait_for_settlement": True,
        "deferrable": False,
        "poll_interval": 0.05,
        "settlement_timeout": timedelta(seconds=PATIENCE_S),
    }
    return WithdrawSpotAssetOperator(**{**defaults, **changes})


def deferred(task_context: TaskContext, **changes: Any) -> Any:
    """Run a deferrable operator and return what it defers with, a ``TaskDeferred``."""
    with pytest.raises(TaskDeferred) as caught:
        operator(deferrable=True, **changes).execute(task_context.context())
    return caught.value


@pytest.mark.parametrize("history_amount", ["net", "gross"])
def test_waiting_ends_with_the_transaction(task_context: TaskContext, history_amount: str) -> None:
    """The receipt gains transaction and time, whichever amount the history shows."""
    task_context.sandbox.control("POST", "/options", {"settle_after_s": 0.2, "history_amount": history_amount})
    receipt = operator(settlement_timeout=timedelta(seconds=PATIENCE_S)).execute(task_context.context())
    (debit,) = task_context.debits()

    assert (receipt["transaction_id"], receipt["batch_nonce"]) == (debit["transaction_id"], debit["batch_nonce"])
    assert receipt["seen_settled_at_ms"] >= receipt["submitted_at_ms"]
    assert receipt["requested_amount"] == "1"


def test_a_batch_that_never_settles_is_a_timeout_not_a_failure(task_context: TaskContext) -> None:
    """The error says accepted, which, and what was last seen; Airflow may retry, and nothing posts again (F78)."""
    with pytest.raises(SettlementTimeout, match="WAS accepted") as caught:
        operator(settlement_timeout=timedelta(seconds=0.2)).execute(task_context.context())
    (debit,) = task_context.debits()

    assert not isinstance(caught.value, AirflowFailException)
    assert "last seen: queued in Pacifica's pending list" in str(caught.value)
    assert caught.value.batch_nonces == (debit["batch_nonce"],)
    assert (caught.value.symbol, caught.value.amount) == ("SOL", "1")
    assert caught.value.idempotency_key == debit["idempotency_key"]


def test_a_retry_after_a_timeout_waits_on(task_context: TaskContext) -> None:
    """It recalls the receipt and waits again, without a request to withdraw (F78)."""
    with pytest.raises(SettlementTimeout):
        operator(settlement_timeout=timedelta(0)).execute(task_context.context())
    task_context.sandbox.control("POST", "/settle")
    task_context.try_number = 2
    receipt = operator().execute(task_context.context())

    assert receipt["transaction_id"]
    assert len(task_context.posts()) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_failing_looks_do_not_end_the_waiting(task_context: TaskContext, status: int) -> None:
    """A GET that fails is repeated until the time is up (F79)."""
    task_context.sandbox.control("POST", "/options", {"settle_after_s": 0})
    task_context.sandbox.control(
        "POST", "/faults", {"route": "pending", "kind": "status", "status": status, "count": 3, "skip": 1}
    )
    receipt = operator(settlement_timeout=timedelta(seconds=PATIENCE_S)).execute(task_context.context())

    assert receipt["transaction_id"]


@pytest.mark.parametrize("status", [401, 403, 404, 503])
def test_whatever_the_looks_come_to_the_withdrawal_is_said_to_be_accepted(
    task_context: TaskContext, status: int
) -> None:
    """After the receipt no error may read as if nothing had happened, not even one of the connection (F78, F79)."""
    task_context.sandbox.control(
        "POST", "/faults", {"route": "pending", "kind": "status", "status": status, "count": None, "skip": 1}
    )
    with pytest.raises(PacificaError, match="WAS accepted") as caught:
        operator(settlement_timeout=timedelta(seconds=0.2)).execute(task_context.context())

    assert caught.value.batch_nonces == (task_context.debits()[0]["batch_nonce"],)
    assert f"HTTP {status}" in str(caught.value)


def test_a_withdrawal_in_neither_list_for_too_long_ends_the_try(task_context: TaskContext) -> None:
    """The operator's own wait has the grace that the sensor and the trigger have, and names its withdrawal (F75)."""
    task_context.monkeypatch.setattr(settlement, "NOT_SEEN_GRACE_MS", 100)
    task_context.sandbox.control("POST", "/options", {"settle_after_s": 0, "settle_gap_s": 3600})
    with pytest.raises(SettlementTimeout, match="has been in neither of Pacifica's lists for") as caught:
        operator(settlement_timeout=timedelta(seconds=PATIENCE_S)).execute(task_context.context())

    assert not isinstance(caught.value, AirflowFailException)
    assert caught.value.batch_nonces == (task_context.debits()[0]["batch_nonce"],)


def test_a_row_without_a_transaction_is_not_settled(task_context: TaskContext) -> None:
    """In the history, but without an id yet: the timeout says so (F82)."""
    task_context.sandbox.control("POST", "/options", {"settle_after_s": 0, "transaction_id_delay_s": 3600})
    with pytest.raises(SettlementTimeout, match="without a transaction id yet"):
        operator(settlement_timeout=timedelta(seconds=0.2)).execute(task_context.context())


def test_the_deferral_carries_what_the_triggerer_needs_and_no_secret(task_context: TaskContext) -> None:
    """Connection id, symbol, nonce, gross amount and an absolute end; and it survives Airflow's database (F49, S06)."""
    before = time.time()
    task = deferred(task_context, settlement_timeout=timedelta(hours=2), poll_interval=20)
    (debit,) = task_context.debits()
    path, arguments = task.trigger.serialize()

    assert isinstance(task.trigger, WithdrawalBatchTrigger)
    assert path == "pacifica_provider.triggers.withdrawal.WithdrawalBatchTrigger"
    assert arguments == json.loads(json.dumps(arguments))
    assert arguments["pacifica_conn_id"] == "pacifica_default"
    assert (arguments["symbol"], arguments["batch_nonce"], arguments["amount"]) == ("SOL", debit["batch_nonce"], "1")
    assert 7195 < arguments["end_time"] - before < 7205
    assert arguments["poll_interval"] == 20
    assert task_context.sandbox.agent_private_key not in json.dumps(arguments)
    assert WithdrawalBatchTrigger(**arguments).serialize() == (path, arguments)


def test_the_deferral_resumes_with_the_receipt(task_context: TaskContext) -> None:
    """Method and receipt go along, and Airflow's own timeout is a back-stop behind the trigger's (F43)."""
    task = deferred(task_context, settlement_timeout=timedelta(hours=2), poll_interval=20)
    recalled = operator(wait_for_settlement=False).execute(task_context.context())

    assert task.method_name == "execute_complete"
    assert task.kwargs == {"receipt": recalled}
    assert task_context.pushed == {"return_value": recalled}
    assert timedelta(hours=2) < task.timeout <= timedelta(hours=2, minutes=2)


def test_a_task_that_does_not_wait_does_not_defer(task_context: TaskContext) -> None:
    """``deferrable`` alone means nothing."""
    receipt = operator(wait_for_settlement=False, deferrable=True).execute(task_context.context())

    assert "transaction_id" not in receipt


def test_the_event_and_the_receipt_finish_the_task(
    task_context: TaskContext, capsys: pytest.CaptureFixture[str]
) -> None:
    """The transaction, and when it was seen, join the receipt as it was; the log's last line says so."""
    receipt: Any = {
        "symbol": "SOL",
        "environment": "custom",
        "batch_nonce": 7,
        "requested_amount": "1",
        "submitted_at_ms": 1716199999000,
    }
    done = operator().execute_complete(task_context.context(), {"status": "settled", "row": ROW}, receipt=receipt)

    assert done == {**receipt, "transaction_id": "5x", "seen_settled_at_ms": 1716200009000}
    assert "1 SOL settled: transaction 5x, batch 7, seen on chain 10 s after" in capsys.readouterr().out


def test_templates_that_changed_while_deferred_change_nothing(task_context: TaskContext) -> None:
    """On resume everything is rendered anew; only the event and the receipt count, and nothing is looked up."""
    receipt = deferred(task_context).kwargs["receipt"]
    task_context.connect(host="http://127.0.0.1:1", password=None)
    other = operator(symbol="BTC", amount="99", withdrawal_ref="other", pacifica_conn_id="nowhere")
    done = other.execute_complete(task_context.context(), {"status": "settled", "row": ROW}, receipt=receipt)

    assert done == {**receipt, "transaction_id": "5x", "seen_settled_at_ms": 1716200009000}
    assert len(task_context.posts()) == 1


def test_a_lost_receipt_is_read_from_the_record(task_context: TaskContext) -> None:
    """``dag.test()`` loses what was deferred with: symbol and nonce of the event find it in the store."""
    receipt = deferred(task_context).kwargs["receipt"]
    row = {**ROW, "batch_nonce": receipt["batch_nonce"]}
    done = operator().execute_complete(task_context.context(), {"status": "settled", "row": row})

    assert done == {**receipt, "transaction_id": "5x", "seen_settled_at_ms": 1716200009000}
    with pytest.raises(Unresolved, match="Nothing was sent"):
        operator().execute_complete(task_context.context(), {"status": "settled", "row": {**row, "batch_nonce": 10**9}})


def test_a_timeout_of_the_trigger_is_no_failed_withdrawal(task_context: TaskContext) -> None:
    """The task fails in a way that a retry waits on from (F78)."""
    event = {"status": "expired", "reason": "timeout", "text": "1 SOL in batch 7 WAS accepted; last seen: queued"}
    receipt = deferred(task_context).kwargs["receipt"]
    errors = []
    for given in (receipt, None):
        with pytest.raises(SettlementTimeout, match="1 SOL in batch 7 WAS accepted; last seen: queued") as caught:
            operator().execute_complete(task_context.context(), event, receipt=given)
        errors.append(caught.value)

    assert not any(isinstance(error, AirflowFailException) for error in errors)
    assert (errors[0].idempotency_key, errors[0].amount) == (receipt["idempotency_key"], "1")
    assert errors[0].batch_nonces == (receipt["batch_nonce"],)
    assert errors[1].batch_nonces == ()


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        {"status": None},
        {"status": "success", "row": ROW},
        {"status": "error", "message": "boom"},
        {"status": "settled"},
        {"status": "settled", "row": None},
        {"status": "settled", "row": "5x"},
        {"status": "settled", "row": {**ROW, "transaction_id": None}},
        {"status": "settled", "row": {**ROW, "transaction_id": ""}},
        {"row": ROW},
        "settled",
        ["settled"],
    ],
)
def test_an_event_that_is_not_understood_is_no_success(task_context: TaskContext, event: Any) -> None:
    """None, an unknown status, or settled without proof raises (F80)."""
    receipt: Any = {"symbol": "SOL"}
    with pytest.raises(AlienEventError, match="does not show where the withdrawal stands"):
        operator().execute_complete(task_context.context(), event, receipt=receipt)
