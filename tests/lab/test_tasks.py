"""The other ways to withdraw and to wait: mapped, by the hook, by the sensor, deferred."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from tests.lab.airflow_rest import KEEPS_ASSET_STATE
from tests.lab.runs import WAIT_S, accident
from tests.support.airflow_line import AIRFLOW

if TYPE_CHECKING:
    from tests.lab.cluster import TestCluster

pytestmark = pytest.mark.side_by_side


def order(reference: str, amount: str) -> dict[str, str]:
    """Return one mapped task's arguments."""
    return {"symbol": "SOL", "amount": amount, "withdrawal_ref": reference}


@pytest.mark.slow
def test_a_mapping_re_ordered_and_appended_to_pays_only_what_is_new(cluster: TestCluster) -> None:
    """After a clear, with every key forgotten, the references have other indices (F61, F62, F85)."""
    with cluster.own_exchange() as payer:
        a, b, c, d = (order(name, f"{number}.5") for number, name in enumerate("abcd", 1))
        run = cluster.run("pay_mapped", payer, orders=[a, b, c], cleared_orders=[c, b, a, d])
        assert run.wait() == "success"
        paid = {run.receipt(map_index=index)["idempotency_key"]: index for index in range(3)}
        payer.exchange.control("POST", "/forget_keys")

        assert run.again(["orders", "withdraw"]) == "success"

        receipts = [run.receipt(map_index=index) for index in range(4)]
        assert [each["idempotency_key"] for each in receipts] == [run.key(name) for name in "cbad"]
        assert set(paid) == {run.key(name) for name in "abc"}
        assert sorted(each["idempotency_key"] for each in payer.debits()) == sorted(run.key(name) for name in "abcd")


@pytest.mark.slow
def test_a_new_reference_at_an_index_that_has_paid_is_refused(cluster: TestCluster) -> None:
    """The list grew at its head (F85, F101): the new one is refused, and says to append; the others keep theirs."""
    with cluster.own_exchange() as payer:
        a, b, new = order("a", "1.5"), order("b", "2.5"), order("new", "3.5")
        run = cluster.run("pay_mapped", payer, orders=[a, b], cleared_orders=[new, a, b])
        assert run.wait() == "success"

        assert run.again(["orders", "withdraw"]) == "failed"

        tasks = cluster.airflow.task_instances(run.dag_id, run.run_id)
        states = {each["map_index"]: each["state"] for each in tasks if each["task_id"] == "withdraw"}
        assert states == {0: "failed", 1: "success", 2: "success"}
        assert "append to it" in run.log(map_index=0)
        assert len(payer.debits()) == 2


@pytest.mark.skipif(not KEEPS_ASSET_STATE, reason="Variables need no outlet")
def test_a_task_without_the_ledger_s_outlet_sends_nothing(cluster: TestCluster) -> None:
    """In a ``@task`` the outlet is the author's to write: refused at once, with the line to add."""
    run = cluster.run("pay_without_outlet", cluster.payer())

    assert run.wait() == "failed"

    assert "@task(outlets=[WITHDRAWALS])" in run.log()
    assert (run.tries(), run.payer.posts()) == (1, [])


def test_a_mapped_task_without_a_reference_sends_nothing(cluster: TestCluster) -> None:
    """The map index is no identity (F61): ConfigurationError, at once."""
    run = cluster.run("pay_mapped", cluster.payer(), orders=[{"symbol": "SOL", "amount": "1"}])

    assert run.wait() == "failed"

    assert "A mapped withdrawal needs a withdrawal_ref" in run.log(map_index=0)
    assert run.tries(map_index=0) == 1
    assert run.payer.posts() == []


@pytest.mark.feature("sweep")
def test_a_killed_sweep_is_retried_with_the_amount_that_it_read(cluster: TestCluster) -> None:
    """By the retry the withdrawal is out of the balance: the first amount is adopted, and nothing more is taken."""
    run = cluster.run("pay_everything", cluster.payer(), accident=accident("after_post"))

    assert run.wait() == "success"

    receipt, debit = run.receipt(), run.only_debit()
    assert (receipt["requested_amount"], receipt["adopted"]) == ("99997.5", True)
    assert (Decimal(debit["amount"]), run.tries()) == (Decimal("99997.5"), 2)


@pytest.mark.feature("hook in a @task")
def test_the_hook_in_a_task_pays_once_too(cluster: TestCluster) -> None:
    """By the context handed over, killed after its receipt (F38), and by get_current_context, twice with references."""
    run = cluster.run("pay_by_hook", cluster.payer(), task_id="by_context", accident=accident("after_receipt"))

    assert run.wait() == "success"

    one, two = run.receipt("by_context"), run.receipt("by_current_context")
    debits = {each["batch_nonce"]: each["idempotency_key"] for each in run.payer.debits() if each["symbol"] == "SOL"}
    assert debits == {one["batch_nonce"]: run.key()}
    assert [each["symbol"] for each in two] == ["BTC", "BTC"]
    assert len({each["batch_nonce"] for each in two}) == 2
    assert len(run.payer.posts()) == len(run.payer.debits()) == 3


@pytest.mark.feature("sensor")
def test_the_sensor_pokes_and_defers_until_the_batch_is_on_chain(cluster: TestCluster) -> None:
    """Both return the row of the history, which names the transaction of the one debit (F75)."""
    run = cluster.run("pay_and_wait", cluster.payer())
    run.wait_task("success")
    cluster.airflow.wait_task_state(run.dag_id, run.run_id, "deferred", ["deferred"])
    cluster.airflow.wait_task_state(run.dag_id, run.run_id, "poke", ["running"])

    run.payer.settle()

    assert run.wait() == "success"
    expected = (run.receipt()["batch_nonce"], run.only_debit()["transaction_id"])
    assert [(row["batch_nonce"], row["transaction_id"]) for row in (run.receipt("poke"), run.receipt("deferred"))] == [
        expected,
        expected,
    ]


@pytest.mark.feature("deferral")
def test_a_deferred_task_resumes_with_the_order_it_was_deferred_with(cluster: TestCluster) -> None:
    """Its amount is templated from now(), which renders to another text on resume: the receipt is the record's."""
    run = cluster.run("pay_drifting", cluster.payer())
    run.wait_deferred()
    deferred = run.record()["order"]["amount"]

    run.payer.settle()

    assert run.wait() == "success"
    debit, receipt = run.only_debit(), run.receipt()
    assert cluster.rendered(run)["amount"] != deferred
    assert receipt["requested_amount"] == deferred
    assert receipt["batch_nonce"] == debit["batch_nonce"]
    assert receipt["transaction_id"] == debit["transaction_id"]
    assert (run.tries(), len(run.payer.posts())) == (1, 1)


@pytest.mark.feature("links")
def test_each_of_a_mapped_group_waits_for_its_own_withdrawal(cluster: TestCluster) -> None:
    """The receipt's fields cross from task to task by name (F61), and Airflow's page shows each by its reference."""
    payer = cluster.payer()
    run = cluster.run(
        "pay_grouped", payer, task_id="each.withdraw", orders=[order("inv-1", "1.01"), order("inv-2", "1.02")]
    )
    cluster.airflow.wait_until(lambda: len(payer.debits()) == 2, WAIT_S, "two withdrawals")
    payer.settle()

    assert run.wait() == "success"

    tasks = cluster.airflow.task_instances(run.dag_id, run.run_id)
    paid = [run.receipt(map_index=index) for index in range(2)]
    rows = [run.receipt("each.settled", index) for index in range(2)]
    assert [each["rendered_map_index"] for each in tasks if each["task_id"] == run.task_id] == ["inv-1", "inv-2"]
    assert [each["requested_amount"] for each in paid] == ["1.01", "1.02"]
    assert [each["batch_nonce"] for each in rows] == [each["batch_nonce"] for each in paid]
    assert {each["transaction_id"] for each in rows} == {each["transaction_id"] for each in payer.debits()}
    # Airflow asks for the links; the sandbox's transactions are on no chain, so there is none to follow.
    path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/each.settled/links"
    assert cluster.airflow.rest("GET", path, map_index=0)["extra_links"] == {
        "Transaction on Solana": None,
        "Pacifica portfolio": None,
    }


@pytest.mark.slow
def test_a_quota_for_three_a_minute_burns_no_try_of_five(cluster: TestCluster) -> None:
    """
    Mapped tasks on one account and quota wait out each 429 within their first try (F61, F95): all pay, once each.

    Each makes two requests. Whatever their order, one of six gets through with five first looks, two at least each
    minute after that: the last is done before its try has waited for three minutes.
    """
    cluster.airflow.rest("POST", "/pools", {"name": "throttled", "slots": 5})
    with cluster.own_exchange(expiry_window_ms=10_000) as payer:
        payer.exchange.control("POST", "/options", {"enforce_credits": True, "quota": 6})
        orders = [order(f"ref-{number}", f"1.{number:02}") for number in range(5)]
        run = cluster.run("pay_throttled", payer, orders=orders)

        assert run.wait() == "success"

        tasks = [t for t in cluster.airflow.task_instances(run.dag_id, run.run_id) if t["task_id"] == run.task_id]
        receipts = [run.receipt(map_index=index) for index in range(5)]
        assert {each["try_number"] for each in tasks} == {1}
        assert {each["idempotency_key"]: each["batch_nonce"] for each in receipts} == {
            each["idempotency_key"]: each["batch_nonce"] for each in payer.debits()
        }
        assert len(receipts) == len(payer.debits()) == 5
        assert any(re.search(r"waiting \S+ s: .*429", run.log(map_index=index)) for index in range(5))


@pytest.mark.slow
def test_a_settlement_timeout_is_retried_without_a_post(cluster: TestCluster) -> None:
    """Not on chain in time (F78): SettlementTimeout, then a retry recalls the receipt and waits on."""
    run = cluster.run("pay_impatient", cluster.payer())
    told = "The withdrawal WAS accepted and must not be made again"
    cluster.airflow.wait_until(lambda: any(told in log for log in run.logs()), WAIT_S, "a try whose time was up")

    run.payer.settle()

    assert run.wait() == "success"
    assert run.receipt()["transaction_id"] == run.only_debit()["transaction_id"]
    assert len(run.payer.posts()) == 1


@pytest.mark.feature("lost answer adopted")
def test_a_lost_answer_is_adopted_by_the_same_try(cluster: TestCluster) -> None:
    """Accepted, and the connection is cut before the answer (F03): asked again under its key, it is found."""
    with cluster.own_exchange() as payer:
        payer.fault("reset", when="after_commit")
        run = cluster.run("pay", payer)

        assert run.wait() == "success"

        debit, receipt = run.only_debit(), run.receipt()
        assert (debit["idempotency_key"], debit["batch_nonce"]) == (run.key(), receipt["batch_nonce"])
        assert (receipt["adopted"], len(payer.posts())) == (True, 2)


@pytest.mark.feature("loop")
@pytest.mark.skipif(AIRFLOW < (3, 4), reason="task loops came with Airflow 3.4")
@pytest.mark.parametrize("struck", [None, "before_post", "after_post"])
def test_each_iteration_of_a_loop_pays_once(cluster: TestCluster, struck: str | None) -> None:
    """Two iterations under a reference each, the first try of all killed or not (F100): two keys, two debits."""
    planned = None if struck is None else accident(struck)
    run = cluster.run("pay_looped", cluster.payer(), task_id="rounds.withdraw", accident=planned)

    state = run.wait()
    # A killed iteration is not adopted by itself, as in a mapped task.
    assert state == ("failed" if struck == "after_post" else "success")
    debits = {each["idempotency_key"] for each in run.payer.debits()}
    expected = [run.key(f"round-{index}") for index in range(1 if struck == "after_post" else 2)]
    assert debits == set(expected)
    assert len(run.payer.debits()) == len(expected)


@pytest.mark.feature("loop")
@pytest.mark.skipif(AIRFLOW < (3, 4), reason="task loops came with Airflow 3.4")
def test_a_loop_without_a_reference_sends_nothing(cluster: TestCluster) -> None:
    """Iterations share every name (F100): refused at once."""
    run = cluster.run("pay_looped_unnamed", cluster.payer(), task_id="rounds.withdraw")

    assert run.wait() == "failed"
    (refused,) = [each for each in run.airflow.task_instances(run.dag_id, run.run_id) if each["state"] == "failed"]
    assert (refused["task_id"], refused["try_number"], run.payer.posts()) == ("rounds.withdraw", 1, [])
