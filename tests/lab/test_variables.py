"""Airflow 3.1 and 3.2 keep the record in a Variable, which has no fence: ``make test-3.1`` runs this file there."""

from __future__ import annotations

import re
import shlex
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from pacifica_provider.hooks.ledgers import VARIABLE_PREFIX
from pacifica_provider.withdrawals.ledger import withdrawal_entry
from tests.lab.runs import Run, accident

if TYPE_CHECKING:
    from tests.lab.cluster import TestCluster

pytestmark = [
    pytest.mark.side_by_side,
    pytest.mark.skipif(
        metadata.version("apache-airflow-core") >= "3.3", reason="from 3.3 on the ledger is the state of an asset"
    ),
]
COMMAND = re.compile(r"python -m pacifica_provider\.cli case --dag-id \S+ --run-id \S+ --task-id \w+")


def variable(run: Run) -> str:
    """Return the path of the Variable that holds the run's record."""
    return f"/variables/{VARIABLE_PREFIX}{withdrawal_entry(*run.task, None)}"


def check_paid_once(run: Run, *, adopted: bool, posts: int) -> None:
    """Check that the ledger holds one debit of the run, that its receipt names it, and how it came about."""
    debit, receipt = run.only_debit(), run.receipt()

    assert debit["idempotency_key"] == run.key() == receipt["idempotency_key"]
    assert (debit["batch_nonce"], adopted) == (receipt["batch_nonce"], receipt["adopted"])
    assert len(run.payer.posts()) == posts


def test_the_record_is_in_a_variable_and_a_clear_posts_nothing(cluster: TestCluster) -> None:
    """Withdraw, then clear: the receipt comes from the Variable (F53, I5)."""
    run = cluster.run("pay", cluster.payer())
    assert run.wait() == "success"
    first = run.receipt()

    assert run.again() == "success"

    assert run.key() in cluster.airflow.rest("GET", variable(run))["value"]
    assert run.receipt() == first
    check_paid_once(run, adopted=False, posts=1)


@pytest.mark.parametrize(
    ("point", "adopted", "posts"), [("before_post", False, 1), ("after_post", True, 2), ("after_receipt", False, 1)]
)
def test_a_killed_task_pays_once(cluster: TestCluster, point: str, adopted: bool, posts: int) -> None:
    """SIGKILL of the task (F36 to F38): the second try finds what the first one left in the Variable."""
    run = cluster.run("pay", cluster.payer(), accident=accident(point))

    assert run.wait() == "success"
    assert run.tries() == 2
    check_paid_once(run, adopted=adopted, posts=posts)


@pytest.mark.parametrize(("point", "adopted", "posts"), [("before_post", False, 1), ("after_post", True, 2)])
def test_a_zombie_without_a_fence_sends_nothing_either(
    cluster: TestCluster, point: str, adopted: bool, posts: int
) -> None:
    """Frozen at a POST, it thaws beside its successor (F41): its time is over, and its record is another's now."""
    run = cluster.run("pay", cluster.payer(), accident=accident(point, "freeze"))
    run.wait_struck()
    cluster.airflow.task_processes(*run.task).supervisor.kill()
    run.wait_next_try()
    zombie = cluster.process_of(run)

    run.thaw()
    zombie.wait(timeout=60)

    assert run.wait() == "success"
    check_paid_once(run, adopted=adopted, posts=posts)


def test_a_deleted_variable_is_unknown_until_a_person_adopts(cluster: TestCluster) -> None:
    """The walk of docs/unknown.md with the module's own command line (F54, I4)."""
    run = cluster.run("pay", cluster.payer())
    assert run.wait() == "success"
    first = run.receipt()
    cluster.airflow.rest("DELETE", variable(run))

    assert run.again() == "failed"
    command = shlex.split(COMMAND.findall(run.log())[-1])
    nonce = str(first["batch_nonce"])
    taken = cluster.airflow.command(*command, "--decide", "adopt", "--batch-nonce", nonce, "--why", "looked")

    assert taken.returncode == 0, taken.stdout + taken.stderr
    assert run.again() == "success"
    check_paid_once(run, adopted=True, posts=1)
