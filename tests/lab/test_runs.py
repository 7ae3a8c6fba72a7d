"""Which runs are one order and which are two: manual runs, equal ids, backfills."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.runs import WAIT_S, Run

if TYPE_CHECKING:
    from tests.lab.cluster import TestCluster
    from tests.lab.runs import Payer

pytestmark = pytest.mark.side_by_side


def test_two_manual_runs_pay_twice(cluster: TestCluster) -> None:
    """Each run is an order of its own (F60)."""
    payer = cluster.payer()
    runs = [cluster.run("pay", payer) for _ in range(2)]

    assert [run.wait() for run in runs] == ["success", "success"]

    assert {each["idempotency_key"] for each in payer.debits()} == {run.key() for run in runs}
    assert len(payer.debits()) == 2


def test_one_run_id_in_two_dags_pays_twice(cluster: TestCluster) -> None:
    """The DAG is part of the key (F63)."""
    payer = cluster.payer()
    runs = [cluster.run(dag_id, payer, run_id=f"same-{payer.conn_id}") for dag_id in ("pay", "pay_too")]

    assert [run.wait() for run in runs] == ["success", "success"]

    assert {each["idempotency_key"] for each in payer.debits()} == {run.key() for run in runs}
    assert [run.receipt()["batch_nonce"] for run in runs] == [
        debit["batch_nonce"] for run in runs for debit in payer.debits() if debit["idempotency_key"] == run.key()
    ]


def backfilled(
    cluster: TestCluster, dag_id: str, payer: Payer, days: tuple[str, str], amount: str = "1.25"
) -> list[Run]:
    """Backfill the days, completed runs too, and return the runs when they have ended."""
    conf = {"conn": payer.conn_id, "symbol": "SOL", "amount": amount}
    airflow = cluster.airflow
    body = {
        "dag_id": dag_id,
        "from_date": f"{days[0]}T00:00:00Z",
        "to_date": f"{days[1]}T00:00:00Z",
        "reprocess_behavior": "completed",
        "dag_run_conf": conf,
    }
    cluster.airflow.unpause(dag_id, WAIT_S)
    airflow.rest("POST", "/backfills", body)
    ended: list[str] = []

    def all_ended() -> bool:
        runs = airflow.rest("GET", f"/dags/{dag_id}/dagRuns")["dag_runs"]
        ended[:] = [
            r["dag_run_id"] for r in runs if r["run_type"] == "backfill" and r["state"] in ("success", "failed")
        ]
        return bool(runs) and len(ended) == len(runs)

    airflow.wait_until(all_ended, WAIT_S, f"the backfill of {dag_id}")
    return [Run(airflow, payer, dag_id, run_id, cluster.folder / run_id) for run_id in sorted(ended)]


@pytest.mark.parametrize(("dag_id", "amount", "state"), [("again", "1.25", "success"), ("changed", "9", "failed")])
def test_a_backfill_over_a_paid_run_pays_nothing(cluster: TestCluster, dag_id: str, amount: str, state: str) -> None:
    """It keeps the run's id (F57): the receipt comes back, or with another order in its conf a mismatch."""
    payer = cluster.payer()
    run = cluster.run(f"pay_daily_{dag_id}", payer, logical_date="2026-03-01T00:00:00Z")
    assert run.wait() == "success"
    first = run.receipt()

    (again,) = backfilled(cluster, run.dag_id, payer, ("2026-03-01", "2026-03-01"), amount)

    assert again.run_id == run.run_id
    assert again.wait() == state
    assert again.tries() == 2
    assert len(payer.posts()) == 1
    assert again.only_debit()["batch_nonce"] == first["batch_nonce"]
    assert (again.receipt() == first) if state == "success" else ("ParameterMismatch" in again.log())


def test_a_backfill_that_makes_new_runs_is_refused(cluster: TestCluster) -> None:
    """Nobody pays for a year of history by accident (F58, S18): each new run fails at once, nothing is sent."""
    payer = cluster.payer()

    runs = backfilled(cluster, "pay_daily_new", payer, ("2026-03-01", "2026-03-02"))

    assert [(run.wait(), run.tries()) for run in runs] == [("failed", 1)] * 2
    assert all("set allow_backfill=True" in run.log() for run in runs)
    assert payer.posts() == []


def test_a_backfill_that_is_allowed_pays_once_for_each_run(cluster: TestCluster) -> None:
    """With allow_backfill=True each date is an order (F58)."""
    payer = cluster.payer()

    runs = backfilled(cluster, "pay_daily_allowed", payer, ("2026-03-01", "2026-03-02"))

    assert [run.wait() for run in runs] == ["success"] * 2
    assert sorted(each["idempotency_key"] for each in payer.debits()) == sorted(run.key() for run in runs)
