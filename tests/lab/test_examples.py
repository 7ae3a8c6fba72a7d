"""The examples run as they are, and the exchange's ledger agrees with what they say."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.airflow_rest import KEEPS_ASSET_STATE, LEDGER_ASSET
from tests.lab.runs import WAIT_S, Run

if TYPE_CHECKING:
    from tests.lab.cluster import TestCluster

pytestmark = pytest.mark.side_by_side
EVENT_S = 5.0


def example(cluster: TestCluster, dag_id: str, task_id: str = "withdraw") -> Run:
    """Start an example, which pays from ``pacifica_default``."""
    run_id = cluster.airflow.trigger(dag_id)
    return Run(cluster.airflow, cluster.default, dag_id, run_id, cluster.folder / run_id, task_id)


def debit_of(run: Run, receipt: dict[str, Any]) -> dict[str, Any]:
    """Return the one debit under the receipt's key."""
    (debit,) = [each for each in run.payer.debits() if each["idempotency_key"] == receipt["idempotency_key"]]
    return debit


def settled_receipt(run: Run) -> dict[str, Any]:
    """Wait for the withdrawal, settle it, and return the receipt."""
    run.payer.wait_debit(run.key(), run.airflow)
    run.payer.settle()
    assert run.wait() == "success"
    return dict(run.receipt())


@pytest.mark.feature("examples")
@pytest.mark.slow
def test_example_withdraw_withdraws_and_waits_for_its_batch(cluster: TestCluster) -> None:
    """The receipt names the one debit, and the sensor returns its transaction."""
    run = example(cluster, "example_withdraw")

    receipt = settled_receipt(run)

    debit, row = debit_of(run, receipt), run.receipt("wait_until_settled")
    assert (receipt["batch_nonce"], receipt["idempotency_key"]) == (debit["batch_nonce"], run.key())
    assert (row["batch_nonce"], row["transaction_id"]) == (debit["batch_nonce"], debit["transaction_id"])


@pytest.mark.feature("examples")
@pytest.mark.slow
def test_example_withdraw_deferrable_returns_the_settled_receipt(cluster: TestCluster) -> None:
    """One task withdraws, waits in the triggerer, and returns receipt and transaction."""
    run = example(cluster, "example_withdraw_deferrable", "withdraw_and_wait")

    receipt = settled_receipt(run)

    debit = debit_of(run, receipt)
    assert receipt["batch_nonce"] == debit["batch_nonce"]
    assert receipt["transaction_id"] == debit["transaction_id"]
    assert (receipt["requested_amount"], receipt["net_amount"]) == ("1", "0.999")
    # Airflow's page shows beside the rendered templates what was withdrawn from.
    shown = {"account": receipt["account"], "environment": "custom", "withdrawal_limit": "none"}
    assert cluster.rendered(run)["connection"] == shown


@pytest.mark.feature("approval")
@pytest.mark.slow
def test_example_approval_withdraws_what_was_approved(cluster: TestCluster) -> None:
    """The text that a person is shown names the order; the receipt names the person."""
    run = example(cluster, "example_approval")
    cluster.airflow.wait_task_state(run.dag_id, run.run_id, "approve", ["awaiting_input", "deferred"])  # from 3.3 on
    run.wait_scheduler_knows()
    path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/approve/-1/hitlDetails"
    shown = cluster.airflow.rest("GET", path)["body"]
    before = run.payer.debits()

    said = cluster.airflow.rest("PATCH", path, {"chosen_options": ["Approve"], "params_input": {}})

    assert run.wait() == "success"
    receipt = run.receipt()
    assert not [each for each in before if each["idempotency_key"] == receipt["idempotency_key"]]
    assert shown.startswith(f"Withdraw 1.25 SOL (fee 0.001, so that 1.249 arrives) from account {receipt['account']}")
    assert receipt["idempotency_key"] in shown
    assert receipt["approved_by"] == [said["responded_by"]["name"]]
    assert debit_of(run, receipt)["batch_nonce"] == receipt["batch_nonce"]


@pytest.mark.feature("examples")
@pytest.mark.slow
def test_example_withdraw_mapped_withdraws_each_asset_once(cluster: TestCluster) -> None:
    """Three mapped tasks, three keys, three debits (F61)."""
    run = example(cluster, "example_withdraw_mapped")

    assert run.wait() == "success"

    receipts = [run.receipt(map_index=index) for index in range(3)]
    assert [each["symbol"] for each in receipts] == ["SOL", "BTC", "kBONK"]
    assert [each["idempotency_key"] for each in receipts] == [
        run.key(f"sweep-{symbol}") for symbol in ("SOL", "BTC", "kBONK")
    ]
    assert [each["batch_nonce"] for each in receipts] == [debit_of(run, each)["batch_nonce"] for each in receipts]
    shown = {cluster.rendered(run, index)["connection"]["account"] for index in range(3)}
    assert shown == {receipts[0]["account"]}


@pytest.mark.feature("examples")
@pytest.mark.slow
def test_example_withdrawal_outlets_hands_its_receipt_to_the_asset_s_event(cluster: TestCluster) -> None:
    """One debit; the event of the author's asset and that of the ledger's carry the settled receipt."""
    run = example(cluster, "example_withdrawal_outlets", "withdraw_and_wait")

    receipt = settled_receipt(run)

    assert receipt["transaction_id"] == debit_of(run, receipt)["transaction_id"]
    told = [each["extra"] for asset in ("pacifica_withdrawn", LEDGER_ASSET) for each in events_of(cluster, asset, run)]
    assert [{name: extra[name] for name in receipt} for extra in told] == [receipt] * 2


@pytest.mark.feature("events")
@pytest.mark.slow
def test_example_withdrawal_events_gives_one_event_for_each_settled_withdrawal(cluster: TestCluster) -> None:
    """Whoever made it: what settles after the watcher's start is told, and where Airflow has asset state, once only."""
    payer = cluster.default
    cluster.airflow.unpause("example_withdrawal_events")
    made: list[int] = []
    (watched,) = cluster.airflow.rest("GET", "/assets", name_pattern="pacifica_settled_withdrawals")["assets"]

    def told() -> list[int]:
        listed = cluster.airflow.rest("GET", "/assets/events", asset_id=watched["id"], limit=100, order_by="-timestamp")
        payloads = [each["extra"]["payload"] for each in listed["asset_events"]]
        nonces = [payload["batch_nonce"] for payload in payloads if payload["symbol"] == "SOL"]  # BTC counts its own
        return [nonce for nonce in nonces if nonce in made]

    def another() -> bool:
        # The first start announces nothing that had settled before, and when it looks shows only by its events.
        order = {"account": payer.account, "symbol": "SOL", "amount": f"1.{len(made) + 1:05}"}
        made.append(payer.exchange.control("POST", "/foreign_withdrawal", order)["batch_nonce"])
        payer.settle()
        time.sleep(EVENT_S)
        return bool(told())

    cluster.airflow.wait_until(another, WAIT_S, "an event of a settled withdrawal")
    made_since = made[made.index(min(told())) :]
    another()
    cluster.airflow.wait_until(lambda: made[-1] in told(), WAIT_S, "an event of the last withdrawal")
    time.sleep(EVENT_S)

    assert sorted(told() if KEEPS_ASSET_STATE else set(told())) == [*made_since, made[-1]]


def events_of(cluster: TestCluster, asset: str, run: Run) -> list[dict[str, Any]]:
    """Return the events of an asset that the run made."""
    events = cluster.airflow.rest("GET", "/assets/events", source_run_id=run.run_id)["asset_events"]
    return [each for each in events if (each["name"], each["source_dag_id"]) == (asset, run.dag_id)]
