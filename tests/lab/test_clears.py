"""Clearing and retrying, with the record kept and without, with the same order and with another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.runs import accident
from tests.support.airflow_line import AIRFLOW

if TYPE_CHECKING:
    from tests.lab.cluster import TestCluster

pytestmark = pytest.mark.side_by_side
clears_task_state = pytest.mark.skipif(AIRFLOW < (3, 4), reason="a clear discards no task state before Airflow 3.4")


@pytest.mark.feature("green task cleared")
@pytest.mark.parametrize("options", [{}, pytest.param({"keep_task_state": True}, marks=clears_task_state)])
def test_a_task_cleared_after_its_receipt_posts_nothing(cluster: TestCluster, options: dict[str, bool]) -> None:
    """The same receipt comes back without a request of any kind, whatever becomes of the task's state (F53, I5)."""
    run = cluster.run("pay", cluster.payer())
    assert run.wait() == "success"
    first, seen = run.receipt(), run.payer.posts()

    assert run.again(None, **options) == "success"

    assert run.receipt() == first
    assert run.payer.posts() == seen
    assert f"already withdrawn in batch {first['batch_nonce']}; nothing is sent" in run.log()
    assert run.only_debit()["batch_nonce"] == first["batch_nonce"]


def test_a_lost_record_is_unknown_with_its_own_row(cluster: TestCluster) -> None:
    """What the lists show is told to a person, and nothing is posted (F47, F54)."""
    run = cluster.run("pay", cluster.payer())
    assert run.wait() == "success"
    seen = run.payer.posts()
    run.lose_record()

    assert run.again() == "failed"

    record = run.record()
    assert (record["state"], record["maybe_sent"]) == ("unknown", True)
    assert f"batch_nonce {run.only_debit()['batch_nonce']}, amount 1.25" in run.log()
    assert run.payer.posts() == seen
    assert run.key() in run.log()


def test_a_task_that_never_ran_in_a_cleared_run_pays(cluster: TestCluster) -> None:
    """Another task of the run failed and was cleared, which Airflow counts for the whole run (F96)."""
    run = cluster.run("pay_beside", cluster.payer())
    assert run.wait() == "failed"
    assert run.payer.posts() == []

    assert run.again(["first", "withdraw"]) == "success"

    assert run.only_debit()["idempotency_key"] == run.key()
    assert run.receipt()["adopted"] is False


def test_a_reference_that_drifts_between_tries_pays_once(cluster: TestCluster) -> None:
    """The first try is killed after its POST, the second renders another reference (F101): mismatch, nothing sent."""
    run = cluster.run("pay_drifting_ref", cluster.payer(), accident=accident("after_post"))

    assert run.wait() == "failed"

    assert "A task withdraws under one reference for ever" in run.log()
    assert (run.tries(), len(run.payer.posts()), len(run.payer.debits())) == (2, 1, 1)


def test_a_template_that_drifts_between_tries_is_refused(cluster: TestCluster) -> None:
    """The first try is killed after its POST, the second renders another amount (F51): mismatch, nothing sent."""
    run = cluster.run("pay_drifting", cluster.payer(), accident=accident("after_post"))

    assert run.wait() == "failed"

    log = run.log()
    recorded = run.record()["order"]["amount"]
    assert "ParameterMismatch" in log
    assert f"already recorded a withdrawal of {recorded} SOL" in log
    assert (run.tries(), len(run.payer.posts())) == (2, 1)
    assert run.only_debit()["amount"].startswith(recorded)


def test_a_dag_edited_after_its_receipt_and_cleared_is_a_mismatch(cluster: TestCluster) -> None:
    """The amount in the file is another one now (F56): nothing is sent, and the log says the first was accepted."""
    run = cluster.run("pay_edited", cluster.payer())
    assert run.wait() == "success"

    cluster.edit("3.25", "4.5")

    assert run.again() == "failed"
    assert "now the task asks for 4.5 SOL" in run.log()
    assert "The recorded one WAS accepted" in run.log()
    assert (run.only_debit()["amount"], len(run.payer.posts())) == ("3.25000000", 1)


def test_a_run_deleted_and_made_again_under_its_id_pays_nothing(cluster: TestCluster) -> None:
    """The ledger outlives the run (F66): the same receipt comes back, although the exchange has forgotten the key."""
    with cluster.own_exchange() as payer:
        run = cluster.run("pay", payer)
        assert run.wait() == "success"
        first = run.receipt()
        cluster.airflow.rest("DELETE", f"/dags/pay/dagRuns/{run.run_id}")
        payer.exchange.control("POST", "/forget_keys")

        again = cluster.run("pay", payer, run_id=run.run_id)

        assert again.wait() == "success"
        assert again.receipt() == first
        assert (len(payer.posts()), len(payer.debits())) == (1, 1)


def test_a_connection_that_points_to_another_account_at_the_retry_is_refused(cluster: TestCluster) -> None:
    """Killed after its POST, then the connection is re-pointed (F70): mismatch, and the other account pays nothing."""
    other = cluster.payer()
    run = cluster.run("pay_once", cluster.payer(), accident=accident("after_post"))
    assert run.wait() == "failed"

    cluster.repoint(run.payer.conn_id, other)

    assert run.again() == "failed"
    assert f"now the task asks for 1.25 SOL for account {other.account}" in run.log()
    assert other.posts() == []
    assert len(run.payer.posts()) == 1


def test_an_agent_rotated_between_two_tries_pays_under_the_same_key(cluster: TestCluster) -> None:
    """Killed before its POST, then the agent's key is replaced (F69): the account is the same, so the key is too."""
    run = cluster.run("pay_once", cluster.payer(), accident=accident("before_post"))
    assert run.wait() == "failed"

    cluster.rotate_agent(run.payer)

    assert run.again() == "success"
    assert run.only_debit()["idempotency_key"] == run.key()
    assert run.receipt()["adopted"] is False
