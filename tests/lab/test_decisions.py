"""The walk of docs/unknown.md: look with the command the error ends with, decide with it, clear."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.runs import Run, accident

if TYPE_CHECKING:
    import subprocess

    from tests.lab.cluster import TestCluster
    from tests.lab.runs import Payer

pytestmark = pytest.mark.side_by_side
COMMAND = re.compile(
    r"(?:airflow pacifica|python -m pacifica_provider\.cli) case "
    r"--dag-id \S+ --run-id \S+ --task-id [\w.]+(?: --withdrawal-ref [\w-]+)?"
)


def case(run: Run, *options: str, map_index: int = -1) -> subprocess.CompletedProcess[str]:
    """Run the command line that the task's error ends with, and what a person adds to it."""
    found = COMMAND.findall(run.log(map_index=map_index))
    assert found, run.log(map_index=map_index)
    return run.airflow.command(*shlex.split(found[-1]), *options)


def decided(run: Run, *options: str, map_index: int = -1) -> str:
    """Take a decision, clear the task, and return what becomes of it."""
    taken = case(run, "--decide", *options, "--by", "ana", "--why", "looked", map_index=map_index)
    assert taken.returncode == 0, taken.stdout + taken.stderr
    return run.again()


def audited(run: Run) -> list[dict[str, Any]]:
    """Return the decisions on this run that Airflow's audit log tells of."""
    log = run.airflow.rest("GET", "/eventLogs", dag_id=run.dag_id, event="cli_pacifica_decision", limit=100)
    ours = {each["event_log_id"]: each for each in log["event_logs"] if run.run_id in each["extra"]}
    return list(ours.values())  # Airflow 3.1 lists each of them many times


def unmoved_unknown(cluster: TestCluster, payer: Payer) -> Run:
    """Return a run that is unknown although nothing moved: its first request was lost, its second refused."""
    payer.fault("reset")
    payer.fault("status", status=422)
    run = cluster.run("pay", payer)
    assert run.wait() == "failed"
    assert run.record()["state"] == "unknown"
    assert (len(payer.posts()), payer.debits()) == (2, [])
    return run


@pytest.mark.feature("case and decision")
@pytest.mark.slow
def test_a_person_adopts_the_row_of_a_lost_record(cluster: TestCluster) -> None:
    """Record lost, cleared: unknown; the case shows the row; adopted and cleared again, it is the receipt (F54, I4)."""
    run = cluster.run("pay", cluster.payer())
    assert run.wait() == "success"
    first = run.receipt()
    run.lose_record()
    assert run.again() == "failed"

    shown = case(run)
    state = decided(run, "adopt", "--batch-nonce", str(first["batch_nonce"]))

    assert shown.returncode == 0
    assert f"--decide adopt --batch-nonce {first['batch_nonce']}" in shown.stdout
    assert state == "success"
    assert run.receipt()["adopted"] is True
    assert run.receipt()["batch_nonce"] == first["batch_nonce"] == run.only_debit()["batch_nonce"]
    assert len(run.payer.posts()) == 1
    assert run.decision() is None
    assert "adopt by ana: looked" in run.log()
    (entry,) = audited(run)
    assert (entry["dag_id"], entry["task_id"]) == (run.dag_id, run.task_id)
    assert all(word in entry["extra"] for word in ("--decide", "adopt", "--by", "ana", "--why", "looked"))


@pytest.mark.feature("case and decision")
@pytest.mark.slow
def test_a_person_has_it_posted_again_where_nothing_moved(cluster: TestCluster) -> None:
    """A repost is refused while it leaves a listed row unnamed; then it pays once, under the same key (I4)."""
    with cluster.own_exchange() as payer:
        run = unmoved_unknown(cluster, payer)
        foreign = payer.exchange.control(
            "POST", "/foreign_withdrawal", {"account": payer.account, "symbol": "SOL", "amount": "1.25"}
        )

        unnamed = case(run, "--decide", "repost", "--why", "nothing moved")
        state = decided(run, "repost", "--rows", str(foreign["batch_nonce"]))

        assert unnamed.returncode == 2
        assert len(audited(run)) == 1  # what was refused is no decision
        assert f"batch_nonce [{foreign['batch_nonce']}] is listed, which it does not name" in unnamed.stdout
        assert state == "success"
        (debit,) = [each for each in payer.debits() if each["idempotency_key"] == run.key()]
        assert run.receipt()["batch_nonce"] == debit["batch_nonce"] != foreign["batch_nonce"]
        assert len(payer.posts()) == 3


@pytest.mark.slow
def test_a_person_voids_it_and_it_never_posts_again(cluster: TestCluster) -> None:
    """Voided, it sends nothing when it is cleared, nor when its run is deleted and made again (F66, F88, I4, I5)."""
    with cluster.own_exchange() as payer:
        run = unmoved_unknown(cluster, payer)

        states = [decided(run, "void"), run.again()]
        payer.exchange.control("POST", "/forget_keys")
        cluster.airflow.rest("DELETE", f"/dags/pay/dagRuns/{run.run_id}")
        anew = cluster.run("pay", payer, run_id=run.run_id)
        states += [anew.wait(), anew.again()]

        assert states == ["failed"] * 4
        assert "voided this withdrawal" in anew.log()
        assert (len(payer.posts()), payer.debits()) == (2, [])


@pytest.mark.feature("decision through the REST API")
@pytest.mark.slow
def test_a_person_without_a_shell_decides_through_airflow_s_api(cluster: TestCluster) -> None:
    """The decision is an entry of the ledger: written through REST, the next try applies it (F98, I4)."""
    with cluster.own_exchange() as payer:
        run = unmoved_unknown(cluster, payer)
        record = run.record()
        attempts = len(record["attempts"])  # on a slow machine one more, written and too late to be sent
        bound = {"action": "repost", "fingerprint": record["fingerprint"], "attempts": attempts, "rows": []}
        stale = {**bound, "attempts": attempts - 1}
        said = {"key": record["key"], "by": "ana", "why": "the lists are empty"}

        run.decide({**said, **stale})
        states = [run.again()]
        dropped = run.log()
        run.decide({**said, **bound})
        states.append(run.again())

        assert f"dropped: it was taken after {attempts - 1} requests, now there are {attempts}" in dropped
        assert states == ["failed", "success"]
        assert run.receipt()["batch_nonce"] == run.only_debit()["batch_nonce"]
        assert (len(payer.posts()), run.decision()) == (3, None)


@pytest.mark.feature("case of a mapped task")
@pytest.mark.slow
def test_a_person_adopts_what_a_mapped_task_may_not(cluster: TestCluster) -> None:
    """A mapped task that lost its answer asks, even with one candidate (F03): adopted by hand, it is the receipt."""
    order = {"symbol": "SOL", "amount": "2.5", "withdrawal_ref": "only-one"}
    run = cluster.run(
        "pay_mapped", cluster.payer(), orders=[order], cleared_orders=[order], accident=accident("after_post")
    )
    assert run.wait() == "failed"
    assert "another withdrawal of the same task may be equal" in run.log(map_index=0)
    debit = run.only_debit()

    state = decided(run, "adopt", "--batch-nonce", str(debit["batch_nonce"]), map_index=0)

    assert state == "success"
    assert run.receipt(map_index=0)["batch_nonce"] == debit["batch_nonce"]
    assert run.receipt(map_index=0)["idempotency_key"] == run.key("only-one") == debit["idempotency_key"]
    assert len(run.payer.posts()) == 2


@pytest.mark.slow
def test_each_of_two_references_in_one_task_keeps_its_own_record(cluster: TestCluster) -> None:
    """The second one's answer is lost (F83, F91, F94): it asks, the first is recalled, and each has paid once."""
    with cluster.own_exchange() as payer:
        payer.fault("reset", when="after_commit", skip=1)
        run = cluster.run("pay_twice", payer)
        assert run.wait() == "failed"
        assert [run.record(name)["state"] for name in ("first", "second")] == ["accepted", "unknown"]
        assert "another withdrawal of the same task may be equal" in run.log()
        payer.exchange.control("POST", "/forget_keys")
        paid = {each["idempotency_key"]: each["batch_nonce"] for each in payer.debits()}

        state = decided(run, "adopt", "--batch-nonce", str(paid[run.key("second")]))

        assert state == "success"
        assert [(each["idempotency_key"], each["batch_nonce"], each["adopted"]) for each in run.receipt()] == [
            (run.key("first"), paid[run.key("first")], False),
            (run.key("second"), paid[run.key("second")], True),
        ]
        assert (len(payer.posts()), len(payer.debits())) == (3, 2)
