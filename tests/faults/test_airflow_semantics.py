"""What Airflow does to a task, through the hook with a context like Airflow's: F51 to F62, F73."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from structlog.testing import capture_logs

from pacifica_provider.exceptions import ConfigurationError, OutcomeUnknown, ParameterMismatch

if TYPE_CHECKING:
    from tests.faults.airflow_bench import TaskBench


@pytest.mark.parametrize("first", ["accepted", "lost", "never made"])
def test_an_amount_that_drifts_between_tries_is_a_mismatch(task: TaskBench, first: str) -> None:
    """F51, I3: the second amount is not sent, and the message shows both orders and what may have moved."""
    if first == "accepted":
        task.withdraw("1")
    else:
        when = "after_commit" if first == "lost" else "before_commit"
        task.harness.fault("reset", when=when)
        task.harness.fault("status", route="pending", status=503, skip=1, count=3)
        with pytest.raises(Exception, match="MAY have moved money"):
            task.withdraw("1")
    posts, debits = task.posts(), task.debits()

    with pytest.raises(ParameterMismatch) as caught:
        task.withdraw("1.02")
    says = str(caught.value)
    moved = "The recorded one WAS accepted" if first == "accepted" else "The recorded one may have moved money"

    assert isinstance(caught.value, AirflowFailException)
    assert all(part in says for part in ("1 SOL", "1.02 SOL", moved, "this try sent nothing"))
    assert (task.posts(), task.debits()) == (posts, debits)
    assert (caught.value.symbol, caught.value.amount) == ("SOL", "1")


def test_an_equal_amount_written_otherwise_is_no_drift(task: TaskBench) -> None:
    """F51: `1.0`, `1` and Decimal("1.00") are one order."""
    receipts = [task.withdraw(amount) for amount in ("1.0", "1", 1, Decimal("1.00"), "1.000000000000000000")]

    assert receipts == [receipts[0]] * 5
    assert (len(task.debits()), task.posts()) == (1, 1)


@pytest.mark.parametrize(
    "amount",
    [
        1.5,
        1e-7,
        float("nan"),
        "1e-7",
        "1E+2",
        "+1",
        "-1",
        " 1",
        "1 ",
        "1,5",
        "0x1",
        "",
        "0",
        None,
        True,
        [1],
        "1." + "1" * 19,
    ],
)
def test_an_amount_whose_exact_value_is_not_in_plain_sight_is_refused_at_once(task: TaskBench, amount: object) -> None:
    """F52: floats and exponents are refused, never rounded, before anything is recorded or sent."""
    with pytest.raises(ConfigurationError) as caught:
        task.withdraw(amount)

    assert isinstance(caught.value, AirflowFailException)
    assert (task.posts(), task.debits(), list(task.ledger.values)) == (0, [], ["ledger"])


@pytest.mark.parametrize(("amount", "paid"), [(Decimal("1e-7"), "0.00000010"), (Decimal("1.5E+1"), "15.00000000")])
def test_an_exact_exponent_is_written_out(task: TaskBench, amount: Decimal, paid: str) -> None:
    """F52: a Decimal is exact whatever its exponent, so it is paid as it is or refused by the exchange."""
    if amount < Decimal("0.001"):
        with pytest.raises(Exception, match="No money moved"):
            task.withdraw(amount)
        (post,) = task.harness.ledger()["posts"]
        assert Decimal(post["amount"]) == Decimal(paid)
    else:
        task.withdraw(amount)
        assert [debit for _, debit in task.debits()] == [paid]


@pytest.mark.parametrize("run_type", ["scheduled", "backfill"], ids=["F53-clear", "F57-backfill"])
def test_a_cleared_task_returns_its_receipt_and_sends_nothing(task: TaskBench, run_type: str) -> None:
    """F53, F57: cleared, even by a backfill that rewrites the run's type, it says "already withdrawn" and pays once."""
    receipt = task.withdraw()
    requests = task.harness.ledger()["requests"]
    task.clear().run_type = run_type

    with capture_logs() as logs:
        again = task.withdraw()

    assert (again, task.harness.ledger()["requests"]) == (receipt, requests)
    assert any(f"already withdrawn in batch {receipt['batch_nonce']}" in line["event"] for line in logs)


@pytest.mark.parametrize("run_type", ["scheduled", "backfill"], ids=["F56-clear", "F57-backfill"])
def test_a_cleared_task_with_another_amount_is_a_mismatch(task: TaskBench, run_type: str) -> None:
    """F56, F57: the DAG's amount edited, or replaced by a backfill's conf, is another order for the same run."""
    task.withdraw("1")
    task.clear().run_type = run_type

    with pytest.raises(ParameterMismatch, match="WAS accepted"):
        task.withdraw("2")

    assert task.posts() == 1


@pytest.mark.parametrize("settled", [False, True])
def test_a_cleared_task_whose_record_was_lost_stops_with_its_row_one_step_from_adoption(
    task: TaskBench, settled: bool
) -> None:
    """F54: with the ledger lost, the row that is there makes it unknown, and a decision adopts it."""
    receipt = task.withdraw()
    if settled:
        task.harness.sandbox.control("POST", "/settle")
    task.clear().lose()

    with pytest.raises(OutcomeUnknown, match="an earlier record of this withdrawal may be lost") as caught:
        task.withdraw()
    task.decide("adopt", **task.harness.named(caught.value.batch_nonces[0]))
    again = task.withdraw()

    assert (again["batch_nonce"], again["adopted"], task.posts()) == (receipt["batch_nonce"], True, 1)


def test_a_cleared_task_whose_record_was_lost_and_whose_row_is_not_listed_meets_409(task: TaskBench) -> None:
    """F54: the lists lag and show nothing, so it posts; the key is known, and the record stays unknown. One debit."""
    task.withdraw()
    task.harness.options(list_lag_s=300)
    task.clear().lose()

    with pytest.raises(OutcomeUnknown, match="yet lists no such withdrawal"):
        task.withdraw()

    assert len(task.debits()) == 1


def test_a_cleared_task_that_had_sent_nothing_pays_even_by_a_ledger_younger_than_its_run(task: TaskBench) -> None:
    """F54: nothing listed since the run was due, and the key unknown: the cleared task pays, once."""
    task.clear().lose()

    receipt = task.withdraw()

    assert (receipt["adopted"], len(task.debits()), task.posts()) == (False, 1, 1)


def test_a_clear_that_discards_the_task_s_state_keeps_the_ledger(task: TaskBench) -> None:
    """F54, F53: Airflow 3.4's clear wipes the task state, where no record lies, so the receipt is returned."""
    receipt = task.withdraw()

    again = task.clear().withdraw()

    assert (again, task.posts()) == (receipt, 1)
    assert "task_state_store" not in task.context()


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
def test_a_task_cleared_days_later_asks_a_person(task: TaskBench, when: str) -> None:
    """F55, F73: an unanswered attempt, days and a forgotten key later: nothing is posted, the rows are shown."""
    task.harness.fault("reset", when=when)
    task.harness.fault("status", route="pending", status=503, skip=1, count=3)
    with pytest.raises(Exception, match="MAY have moved money"):
        task.withdraw()
    task.harness.clock.sleep_s(3 * 86_400)
    task.harness.sandbox.control("POST", "/forget_keys")
    task.clear()

    with pytest.raises(OutcomeUnknown, match="may have forgotten its idempotency key") as caught:
        task.withdraw()

    assert list(caught.value.batch_nonces) == ([42] if when == "after_commit" else [])
    assert (task.posts(), len(task.debits())) == (1, when == "after_commit")


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
def test_a_task_without_retries_settles_itself_when_cleared_in_time(task: TaskBench, when: str) -> None:
    """F73: with no retries left the message says to clear, and a clear within the key trust settles it."""
    task.harness.fault("reset", when=when)
    task.harness.fault("status", route="pending", status=503, skip=1, count=3)
    with pytest.raises(Exception, match="With no retries left, clear the task"):
        task.withdraw()

    receipt = task.clear().withdraw()

    assert (receipt["adopted"], len(task.debits())) == (when == "after_commit", 1)
