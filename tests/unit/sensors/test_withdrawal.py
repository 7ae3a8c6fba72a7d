"""The sensor: done only on proof, patient with the network, and clear about what it last saw."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
)

from pacifica_provider.exceptions import ConfigurationError, SettlementTimeout
from pacifica_provider.sensors.withdrawal import WithdrawalBatchSensor
from tests.support.patience import PATIENCE_S

if TYPE_CHECKING:
    from tests.support.task_context import TaskContext

MODES = pytest.mark.parametrize("mode", [{}, {"mode": "reschedule"}, {"deferrable": True}], ids=["poke", "re", "defer"])


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


def test_only_what_is_tracked_is_templated() -> None:
    """The connection is not for a DAG run to choose (S08)."""
    assert WithdrawalBatchSensor.template_fields == ("symbol", "batch_nonce", "amount")


def test_the_defaults_are_the_documented_ones() -> None:
    """Amount optional, the default connection, and Airflow's default for deferring."""
    parameters = inspect.signature(WithdrawalBatchSensor.__init__).parameters
    own = {name: value.default for name, value in parameters.items() if name not in {"self", "kwargs"}}

    assert own == {
        "symbol": inspect.Parameter.empty,
        "batch_nonce": inspect.Parameter.empty,
        "amount": None,
        "pacifica_conn_id": "pacifica_default",
        "deferrable": False,
    }


@MODES
@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("shown", ["net", "gross"])
def test_a_settled_withdrawal_is_done_at_once(
    task_context: TaskContext, mode: dict[str, Any], as_text: bool, shown: str
) -> None:
    """In every mode the first look finds it, and the row is returned as plain JSON; no key is needed."""
    task_context.connect(password=None)
    nonce = withdrawn(task_context)
    settle(task_context, history_amount=shown)
    row = sensor(str(nonce) if as_text else nonce, **mode).execute(task_context.context())
    (debit,) = task_context.debits()

    assert row == json.loads(json.dumps(row))
    assert row == {
        "symbol": "SOL",
        "batch_nonce": nonce,
        "amount": "1" if shown == "gross" else "0.999",
        "transaction_id": debit["transaction_id"],
        "created_at_ms": row["created_at_ms"],
        "seen_settled_at_ms": row["seen_settled_at_ms"],
    }
    assert row["seen_settled_at_ms"] >= row["created_at_ms"]


def test_poking_waits_until_it_is_on_chain(task_context: TaskContext) -> None:
    """Queued, then settled: the sensor ends with the settlement and not before."""
    task_context.sandbox.control("POST", "/options", {"settle_after_s": 0.2})
    row = sensor(withdrawn(task_context)).execute(task_context.context())

    assert row["transaction_id"] == task_context.debits()[0]["transaction_id"]


@pytest.mark.parametrize(
    ("options", "settled", "says"),
    [
        ({}, False, "queued in Pacifica's pending list"),
        ({"settle_gap_s": 3600}, True, "in neither of Pacifica's lists"),
        ({"transaction_id_delay_s": 3600}, True, "listed in the history, but without a transaction id yet"),
    ],
    ids=["queued", "between the lists", "without an id"],
)
def test_what_is_not_on_chain_is_not_done(
    task_context: TaskContext, options: dict[str, Any], settled: bool, says: str
) -> None:
    """Absent from pending is not done, nor is a row without a transaction; the timeout says which (F75, F78, F82)."""
    task_context.sandbox.control("POST", "/options", options)
    nonce = withdrawn(task_context)
    if settled:
        settle(task_context)
    with pytest.raises(AirflowSensorTimeout, match=f"last seen: {says}") as caught:
        sensor(nonce, timeout=0.1).execute(task_context.context())

    assert isinstance(caught.value, SettlementTimeout)
    assert "a withdrawal that was accepted has not failed: do not make it again" in str(caught.value)


@pytest.mark.parametrize("asked", [{"nonce": 10**6}, {"symbol": "BTC"}, {"amount": "2"}, {"amount": "1.001"}])
def test_another_withdrawal_s_row_is_not_taken(task_context: TaskContext, asked: dict[str, Any]) -> None:
    """Nonce, symbol and gross amount must all match (F77)."""
    nonce = withdrawn(task_context)
    settle(task_context)
    with pytest.raises(AirflowSensorTimeout, match="last seen: in neither of Pacifica's lists"):
        sensor(**{"nonce": nonce, "timeout": 0.1, **asked}).execute(task_context.context())


def test_withdrawals_that_share_a_batch_are_told_apart_by_amount(task_context: TaskContext) -> None:
    """A batch holds several: each sensor waits for its own row, one without an amount for all of them (F77)."""
    task_context.sandbox.control("POST", "/options", {"shared_batches": True})
    nonces = {withdrawn(task_context, amount) for amount in ("1", "2")}
    (nonce,) = nonces
    settle(task_context, history_amount="gross")
    rows = [sensor(nonce, amount=amount).execute(task_context.context()) for amount in ("1", "2")]

    assert [row["amount"] for row in rows] == ["1", "2"]
    assert sensor(nonce, amount=None).execute(task_context.context())["batch_nonce"] == nonce


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 503},
        {"kind": "status", "status": 429},
        {"kind": "html"},
        {"kind": "reset"},
        {"kind": "truncate", "bytes": 9},
    ],
    ids=lambda fault: str(fault.get("status", fault["kind"])),
)
@pytest.mark.parametrize("route", ["pending", "history"])
def test_a_failing_look_is_no_failing_sensor(task_context: TaskContext, fault: dict[str, Any], route: str) -> None:
    """It looks again at the next interval, and is done as soon as a look succeeds (F79)."""
    nonce = withdrawn(task_context)
    settle(task_context)
    task_context.sandbox.control("POST", "/faults", {"route": route, "count": 3, **fault})
    row = sensor(nonce).execute(task_context.context())

    assert row["batch_nonce"] == nonce


def test_a_timeout_after_failing_looks_says_what_failed(task_context: TaskContext) -> None:
    """The last state seen may be that nothing could be seen (F79)."""
    task_context.sandbox.control(
        "POST", "/faults", {"route": "pending", "kind": "status", "status": 503, "count": None}
    )
    with pytest.raises(AirflowSensorTimeout, match=r"last seen: GET .* was answered HTTP 503"):
        sensor(7, timeout=0.1).execute(task_context.context())


@MODES
def test_a_connection_that_cannot_be_right_fails_at_once(task_context: TaskContext, mode: dict[str, Any]) -> None:
    """No retry and no patience for what only the owner can mend."""
    task_context.connect(extra={"environment": "nowhere"})
    with pytest.raises(ConfigurationError) as caught:
        sensor(7, **mode).execute(task_context.context())

    assert isinstance(caught.value, AirflowFailException)


@MODES
@pytest.mark.parametrize("nonce", [None, "None", "", "x", "-1", -1, True, 1.0, "1.0", " 7", [7], "{{ nonce }}", 2**64])
def test_a_nonce_that_is_none_is_refused_before_looking(
    task_context: TaskContext, mode: dict[str, Any], nonce: Any
) -> None:
    """A template that rendered to nothing is said to be one, and no request is made (F81)."""
    task_context.connect(host="http://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="batch_nonce must be the receipt's non-negative integer") as caught:
        sensor(nonce, **mode).execute(task_context.context())

    assert isinstance(caught.value, AirflowFailException)
    assert "the withdrawing task returned no receipt" in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"amount": 1.5}, {"amount": "1e3"}, {"amount": "None"}, {"symbol": ""}, {"symbol": None}]
)
def test_an_order_that_is_none_is_refused_before_looking(task_context: TaskContext, changes: dict[str, Any]) -> None:
    """Amount and symbol are as strict as the operator's (F52)."""
    with pytest.raises(ConfigurationError) as caught:
        sensor(7, **changes).execute(task_context.context())

    assert isinstance(caught.value, AirflowFailException)
