"""
The ledger's care, as docs/exactly-once.md tells a person to paste it: ``ledger prune`` and ``ledger restored``.

Both make every older run ask, so no other test may run beside these, and none that withdraws comes after them.
"""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.withdrawals.ledger import BIRTH_ENTRY, withdrawal_entry
from pacifica_provider.withdrawals.record import VERSION
from tests.lab.runs import WAIT_S, Run
from tests.lab.test_decisions import case, decided, unmoved_unknown
from tests.support.airflow_line import AIRFLOW

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.cluster import TestCluster
    from tests.lab.runs import Payer

pytestmark = pytest.mark.timeout(700)  # the first of a restored ledger waits for all that comes before
PRUNED, OLD, LEDGER_S_AGE = timedelta(days=31), timedelta(days=40), timedelta(days=400)
# The second ones may start only once the ledger has been told.
COMMANDS = "airflow pacifica" if AIRFLOW >= (3, 2) else "python -m pacifica_provider.cli"
FIRST, THEN = ("api-server", "execution-api", "dag-processor"), ("scheduler", "triggerer")


def pasted(cluster: TestCluster, line: str) -> subprocess.CompletedProcess[str]:
    """Run a command line of the documentation."""
    done = cluster.airflow.command(*shlex.split(line))
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def old_run(cluster: TestCluster, payer: Payer, dag_id: str, task_id: str, amount: str) -> Run:
    """Start a run that was due forty days ago."""
    cluster.airflow.unpause(dag_id, WAIT_S)
    run_id = f"old-{task_id}-{amount}"
    due = (datetime.now(UTC) - OLD).isoformat()
    conf = {"conn": payer.conn_id, "symbol": "SOL", "amount": amount}
    body = {"dag_run_id": run_id, "logical_date": None, "run_after": due, "conf": conf}
    cluster.airflow.rest("POST", f"/dags/{dag_id}/dagRuns", body)
    return Run(cluster.airflow, payer, dag_id, run_id, cluster.folder / run_id, task_id)


def let_age(run: Run) -> None:
    """Let the run's record be forty days older."""
    record, by_ms = run.record(), OLD // timedelta(milliseconds=1)
    attempts = [{**each, "signed_ms": each["signed_ms"] - by_ms} for each in record["attempts"]]
    aged = {**record, "since_ms": record["since_ms"] - by_ms, "attempts": attempts}
    run.airflow.put_entry(withdrawal_entry(*run.task, None), aged)


def check_asks(run: Run, posts: int) -> None:
    """Check that the run's last try asked a person, and sent nothing."""
    assert "OutcomeUnknown" in run.log()
    assert "an earlier record of this withdrawal may be lost" in run.log() or "was refused, yet" in run.log()
    assert run.record()["state"] == "unknown"
    assert len(run.payer.posts()) == posts


def check_adopted(run: Run, debit: dict[str, Any]) -> None:
    """Check that a person can adopt the debit, and that it is the run's receipt from then on."""
    posts = len(run.payer.posts())

    assert decided(run, "adopt", "--batch-nonce", str(debit["batch_nonce"])) == "success"
    assert (run.receipt()["batch_nonce"], run.receipt()["adopted"]) == (debit["batch_nonce"], True)
    assert len(run.payer.posts()) == posts


@dataclass(frozen=True)
class Pruned:
    """A ledger of more than a year, pruned at 31 days; runs of 40 days ago had paid, and one of today."""

    said: str
    old: dict[str, Run]
    young: Run


@pytest.fixture(scope="module")
def pruned(cluster: TestCluster) -> Iterator[Pruned]:
    """Yield what a prune leaves behind, when the exchange has forgotten every key."""
    with cluster.own_exchange() as payer:
        born_ms = int((datetime.now(UTC) - LEDGER_S_AGE).timestamp() * 1000)
        state = {"version": VERSION, "complete_since_ms": born_ms, "raised": False, "restores": 0}
        old = {
            task_id: old_run(cluster, payer, dag_id, task_id, amount)
            for dag_id, task_id, amount in (("pay", "withdraw", "1.5"), ("pay_by_hook", "by_context", "2.5"))
        }
        young = cluster.run("pay", payer, "3.5")
        assert [run.wait() for run in (*old.values(), young)] == ["success"] * 3
        cluster.airflow.put_entry(BIRTH_ENTRY, state)
        for run in old.values():
            let_age(run)
        payer.exchange.control("POST", "/forget_keys")

        before = (datetime.now(UTC) - PRUNED).date()
        yield Pruned(pasted(cluster, f"{COMMANDS} ledger prune --before {before}").stdout, old, young)


def test_a_prune_forgets_only_what_ended_before(pruned: Pruned) -> None:
    """The records that ended before the time are gone from Airflow, a younger one stays (5.2)."""
    assert "Withdrawals forgotten: 2." in pruned.said
    assert [run.record() for run in pruned.old.values()] == [None, None]
    assert pruned.young.record()["state"] == "accepted"


@pytest.mark.parametrize("task_id", ["withdraw", "by_context"])
def test_a_run_whose_record_was_pruned_asks_and_can_be_adopted(pruned: Pruned, task_id: str) -> None:
    """Cleared, the operator and the hook post nothing, although a post would pay again; a person adopts (F87, I4)."""
    run = pruned.old[task_id]
    posts = len(run.payer.posts())
    (debit,) = [each for each in run.payer.debits() if each["idempotency_key"] == run.key()]

    assert run.again() == "failed"

    check_asks(run, posts)
    check_adopted(run, debit)


def test_a_run_from_before_a_prune_asks_at_its_first_try_too(cluster: TestCluster, pruned: Pruned) -> None:
    """Made only now, as by a backfill, it may have been made again (5.2): it asks; told to post, it pays once."""
    payer = pruned.young.payer
    posts = len(payer.posts())
    run = old_run(cluster, payer, "pay", "withdraw", "4.5")
    assert run.wait() == "failed"
    check_asks(run, posts)

    assert decided(run, "repost") == "success"

    (debit,) = [each for each in payer.debits() if each["idempotency_key"] == run.key()]
    assert run.receipt()["batch_nonce"] == debit["batch_nonce"]
    assert len(payer.posts()) == posts + 1


def test_a_run_younger_than_a_prune_pays(cluster: TestCluster, pruned: Pruned) -> None:
    """The prune is not felt by what comes after its time (5.2)."""
    run = cluster.run("pay", cluster.payer())

    assert run.wait() == "success"
    assert run.only_debit()["idempotency_key"] == run.key()
    assert (run.receipt()["adopted"], len(run.payer.posts())) == (False, 1)


def restore_database(cluster: TestCluster, backup: Path) -> subprocess.CompletedProcess[str]:
    """Stop Airflow, put its database back, say so, and start Airflow again; return what the command said."""
    for component in (*THEN, *FIRST):
        cluster.airflow.kill(component, tree=True)
    cluster.airflow.database.restore(backup)
    for component in FIRST:
        cluster.airflow.start(component)
    done = pasted(cluster, f"{COMMANDS} ledger restored")
    for component in THEN:
        cluster.airflow.start(component)
    cluster.airflow.wait_execution_api()
    cluster.airflow.wait_healthy()
    return done


@dataclass(frozen=True)
class Restored:
    """Four runs, each of which had paid once when Airflow's database came back from a backup."""

    said: str
    paid: Run  # before the backup
    untried: Run  # after it; in the backup it has no try yet
    refused: Run  # after it, when cleared; in the backup the exchange had refused it
    undecided: Run  # after it, by a decision to post again that still waits in the backup


@pytest.fixture(scope="module")
def restored(cluster: TestCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restored]:
    """Yield what a real backup gives back, when the exchanges have forgotten every key."""
    backup = tmp_path_factory.mktemp("backup") / "airflow.dump"
    with ExitStack() as stack:
        payers = [stack.enter_context(cluster.own_exchange()) for _ in range(3)]
        paid = cluster.run("pay", payers[0], "1.5")
        payers[1].fault("status", status=422)
        refused = cluster.run("pay", payers[1])
        undecided = unmoved_unknown(cluster, payers[2])
        assert case(undecided, "--decide", "repost", "--why", "nothing moved").returncode == 0
        assert (paid.wait(), refused.wait()) == ("success", "failed")
        assert refused.record()["state"] == "rejected"
        cluster.airflow.kill("scheduler", tree=True)
        untried = cluster.run("pay", payers[0], "2.5")
        cluster.airflow.database.save(backup)
        cluster.airflow.start("scheduler")
        cluster.airflow.wait_healthy()
        assert [untried.wait(), refused.again(), undecided.again()] == ["success"] * 3
        for payer in payers:
            payer.exchange.control("POST", "/forget_keys")

        yield Restored(restore_database(cluster, backup).stdout, paid, untried, refused, undecided)


def debit_of(run: Run) -> dict[str, Any]:
    """Return the one debit under the run's key."""
    (debit,) = [each for each in run.payer.debits() if each["idempotency_key"] == run.key()]
    return debit


def test_what_has_ended_on_record_is_returned_after_a_restore(restored: Restored) -> None:
    """The backup holds its receipt: cleared, it returns it and posts nothing (F53, 5.2)."""
    run, posts = restored.paid, len(restored.paid.payer.posts())

    assert run.again() == "success"

    assert "Noted." in restored.said
    assert run.receipt()["batch_nonce"] == debit_of(run)["batch_nonce"]
    assert len(run.payer.posts()) == posts


def test_a_run_that_the_backup_holds_untried_asks_and_can_be_adopted(restored: Restored) -> None:
    """The scheduler tries it by itself, as if for the first time (A3, 5.2): it posts nothing, and a person adopts."""
    run = restored.untried

    assert run.wait() == "failed"

    check_asks(run, posts=2)  # its own, and the one of the paid run
    check_adopted(run, debit_of(run))


def test_a_refusal_that_the_backup_holds_asks_and_can_be_adopted(restored: Restored) -> None:
    """It was cleared and paid after the backup (F90, 5.2): cleared once more it posts nothing, and a person adopts."""
    run = restored.refused

    assert run.again() == "failed"

    check_asks(run, posts=2)
    check_adopted(run, debit_of(run))


def test_a_decision_that_waited_in_the_backup_is_not_applied_again(restored: Restored) -> None:
    """It was applied after the backup (F98, 5.2): it is gone, the cleared task asks, and posts nothing."""
    run = restored.undecided
    assert run.decision() is None

    assert run.again() == "failed"

    assert run.record()["state"] == "unknown"
    assert len(run.payer.posts()) == 3
    check_adopted(run, debit_of(run))


def test_a_run_younger_than_a_restore_pays(cluster: TestCluster, restored: Restored) -> None:
    """What is due after the command has nothing to ask (5.2)."""
    run = cluster.run("pay", cluster.payer())

    assert run.wait() == "success"
    assert run.only_debit()["idempotency_key"] == run.key()
    assert (run.receipt()["adopted"], len(run.payer.posts())) == (False, 1)
