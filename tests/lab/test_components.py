"""Parts of Airflow die or stand still while money is on its way; each withdrawal is made once all the same."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.lab.runs import WAIT_S, Run, accident

if TYPE_CHECKING:
    from tests.lab.cluster import TestCluster

# Long enough for a request of the task's to the API server to have failed, short of a given-up heartbeat.
OUTAGE_S = 5.0
ROOMY_MS = 20_000


@pytest.fixture(scope="module")
def outage(cluster: TestCluster) -> dict[str, tuple[Run, int]]:
    """Return two runs that lost the execution API at a point each, and the debits there were while it was away."""
    runs = {
        point: cluster.run("pay", cluster.payer(expiry_window_ms=ROOMY_MS), accident=accident(point, "freeze"))
        for point in ("before_record", "after_post")
    }
    for run in runs.values():
        run.wait_struck()
    cluster.airflow.kill("execution-api")
    for run in runs.values():
        run.thaw()
    time.sleep(OUTAGE_S)
    debits = {point: len(run.payer.debits()) for point, run in runs.items()}
    cluster.airflow.start("execution-api")
    cluster.airflow.wait_execution_api()
    return {point: (run, debits[point]) for point, run in runs.items()}


def check_paid_once(run: Run) -> None:
    """Check that the run ended well, with one debit that its receipt names."""
    assert run.wait() == "success"
    assert run.only_debit()["idempotency_key"] == run.key()
    assert run.receipt()["batch_nonce"] == run.only_debit()["batch_nonce"]


def test_a_store_that_is_down_before_the_attempt_stops_the_post(outage: dict[str, tuple[Run, int]]) -> None:
    """While the execution API was away nothing was sent (F44); once it is back, the withdrawal is made, once."""
    run, meanwhile = outage["before_record"]

    check_paid_once(run)
    assert meanwhile == 0


def test_a_store_that_is_down_after_a_200_loses_nothing(outage: dict[str, tuple[Run, int]]) -> None:
    """The receipt could not be written at first (F45, F46); what is returned in the end is the one debit."""
    run, meanwhile = outage["after_post"]

    check_paid_once(run)
    assert meanwhile == 1


def test_a_killed_scheduler_takes_nothing_with_it(cluster: TestCluster) -> None:
    """One task is between record and POST, one run is only queued, when the scheduler dies (F42): both pay once."""
    frozen = cluster.run("pay", cluster.payer(expiry_window_ms=ROOMY_MS), accident=accident("before_post", "freeze"))
    frozen.wait_struck()

    cluster.airflow.kill("scheduler")
    queued = cluster.run("pay", cluster.payer())
    frozen.thaw()
    cluster.airflow.start("scheduler")
    cluster.airflow.wait_healthy()

    check_paid_once(frozen)
    check_paid_once(queued)


def test_a_trigger_that_ran_in_two_triggerers_ends_its_task_once(cluster: TestCluster) -> None:
    """One triggerer stands still and is replaced (F43); when it goes on, its stale event changes nothing."""
    with cluster.own_exchange() as payer:
        run = cluster.run("pay_drifting", payer)
        run.wait_deferred()
        cluster.airflow.wait_until(lambda: sockets(run) == 1, WAIT_S, "the trigger to listen")
        standing = [psutil.Process(pid) for pid in cluster.airflow.pids("triggerer")]
        try:
            for process in standing:
                process.send_signal(signal.SIGSTOP)
            cluster.airflow.start("triggerer-2")
            cluster.airflow.wait_until(
                lambda: sockets(run) == 2, WAIT_S, "the second triggerer to take the trigger over"
            )
            payer.settle()
            check_paid_once(run)
            first = run.receipt()
        finally:
            for process in standing:
                process.send_signal(signal.SIGCONT)
        cluster.airflow.wait_until(lambda: sockets(run) == 0, WAIT_S, "both triggerers to have done with it")
        cluster.airflow.kill("triggerer-2", signal.SIGTERM, tree=True)

        assert run.airflow.wait_run(run.dag_id, run.run_id) == "success"
        assert run.receipt() == first
        assert (run.tries(), len(payer.posts())) == (1, 1)


def sockets(run: Run) -> int:
    """Return how many triggerers listen to the run's exchange."""
    return int(run.payer.exchange.control("GET", "/ws")["connections"])
