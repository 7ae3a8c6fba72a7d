"""A task and its supervisor are killed, frozen and stopped at every named point; each run pays once, and knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pacifica_provider.withdrawals.failpoints import POINTS
from tests.lab.runs import Run, accident

if TYPE_CHECKING:
    from tests.lab.cluster import TestCluster

pytestmark = pytest.mark.side_by_side
# Whether an answer was lost, so that the next try meets 409 and adopts; how many requests the exchange saw then.
TASK_KILLED = {
    "before_record": (False, 1),
    "after_attempt": (False, 1),
    "before_post": (False, 1),
    "after_post": (True, 2),
    "after_receipt": (False, 1),
}
ROOMY_MS = 20_000
# An orphan goes on: behind the fence it still posts, before it its next write fails.
SUPERVISOR_KILLED = {**TASK_KILLED, "before_post": (True, 2)}


def check_paid_once(run: Run, *, adopted: bool, posts: int) -> None:
    """Check that the ledger holds one debit of the run, that its receipt names it, and how it came about."""
    debit, receipt = run.only_debit(), run.receipt()

    assert debit["idempotency_key"] == run.key() == receipt["idempotency_key"]
    assert debit["batch_nonce"] == receipt["batch_nonce"]
    assert receipt["adopted"] is adopted
    assert len(run.payer.posts()) == posts


@pytest.mark.feature("SIGKILL of the task")
@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_task_killed_at_any_point_pays_once(cluster: TestCluster, point: str) -> None:
    """SIGKILL of the task at each crash point (F34 to F38): the second try ends with the one withdrawal's receipt."""
    adopted, posts = TASK_KILLED[point]

    run = cluster.run("pay", cluster.payer(), accident=accident(point))

    assert run.wait() == "success"
    assert run.tries() == 2
    check_paid_once(run, adopted=adopted, posts=posts)


@pytest.mark.feature("SIGKILL of the supervisor")
@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_task_whose_supervisor_is_killed_at_any_point_pays_once(cluster: TestCluster, point: str) -> None:
    """The orphan goes on by itself until Airflow misses it and tries again (F34 to F38, F46): still one debit."""
    adopted, posts = SUPERVISOR_KILLED[point]

    # Airflow misses it after 30 s at least. A long window lets the orphan still send what it is about to send.
    run = cluster.run("pay", cluster.payer(expiry_window_ms=ROOMY_MS), accident=accident(point, "supervisor"))

    assert run.wait() == "success"
    assert run.tries() == 2
    check_paid_once(run, adopted=adopted, posts=posts)


@pytest.mark.feature("replaced try")
@pytest.mark.slow
@pytest.mark.parametrize(("point", "adopted", "posts"), [("before_post", False, 1), ("after_post", True, 2)])
def test_a_zombie_that_thaws_beside_the_next_try_sends_nothing(
    cluster: TestCluster, point: str, adopted: bool, posts: int
) -> None:
    """A try frozen at a POST wakes up while its successor runs (F41): it posts no more, and what it did is found."""
    run = cluster.run("pay", cluster.payer(), accident=accident(point, "freeze"))
    run.wait_struck()
    cluster.airflow.task_processes(*run.task).supervisor.kill()
    run.wait_next_try()
    zombie = cluster.process_of(run)

    run.thaw()
    zombie.wait(timeout=60)

    assert run.wait() == "success"
    check_paid_once(run, adopted=adopted, posts=posts)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
def test_an_execution_timeout_in_the_middle_of_a_post_is_settled_by_the_next_try(
    cluster: TestCluster, when: str
) -> None:
    """The exchange holds the request for longer than the task may run, and accepts it (F04, F05, F40): one debit."""
    with cluster.own_exchange(timeout_s=30, expiry_window_ms=30_000) as payer:
        payer.fault("hang", when=when, seconds=20)

        # However slow the machine is: the time is up two seconds after the request was ready to leave.
        run = cluster.run("pay", payer, first_try_s=300, accident=accident("before_post", "timeout"))

        assert run.wait() == "success"
        assert run.tries() == 2
        assert "AirflowTaskTimeout" in run.logs()[0]
        check_paid_once(run, adopted=True, posts=2)


def test_a_sigterm_to_the_task_stops_nothing_and_says_so(cluster: TestCluster) -> None:
    """SIGTERM between answer and receipt (F39): the operator's on_kill only logs, and the same try ends well."""
    run = cluster.run("pay", cluster.payer(), accident=accident("after_post", "term"))

    assert run.wait() == "success"
    assert "A withdrawal that was sent cannot be recalled" in run.log()
    assert run.tries() == 1
    check_paid_once(run, adopted=False, posts=1)


@pytest.mark.slow
def test_a_task_marked_failed_in_the_middle_of_a_post_is_settled_when_cleared(cluster: TestCluster) -> None:
    """A person marks it failed after the answer, before the receipt (F39, I5): cleared, it finds its own withdrawal."""
    run = cluster.run("pay", cluster.payer(), accident=accident("after_post", "freeze"))
    run.wait_struck()
    frozen = cluster.process_of(run)
    cluster.airflow.set_state(*run.task, "failed")
    assert run.wait() == "failed"
    frozen.wait(timeout=60)

    assert run.again() == "success"
    check_paid_once(run, adopted=True, posts=2)


@pytest.mark.slow
def test_an_unanswered_request_of_a_task_without_retries_is_settled_when_cleared(cluster: TestCluster) -> None:
    """With retries=0 the run fails (F73); cleared soon, it settles by itself."""
    run = cluster.run("pay_once", cluster.payer(), accident=accident("after_post"))
    assert run.wait() == "failed"

    assert run.again() == "success"
    check_paid_once(run, adopted=True, posts=2)
