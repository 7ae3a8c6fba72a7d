"""Many deferred tasks on one account share one watcher, whatever happens to triggerer, push and quota."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.lab.runs import WAIT_S, Run

if TYPE_CHECKING:
    from tests.lab.cluster import TestCluster
    from tests.lab.runs import Payer

pytestmark = [pytest.mark.side_by_side, pytest.mark.slow]
MANY = 24
FEW = 6
ACCOUNTS = 22  # one connection takes twenty
SOCKETS = 2
POLL_S = 2
# How long they wait in peace before, and after, what befalls them.
PEACE_S = 6.0
READS = ("pending", "history", "bridge_parameters")
ARGUMENTS = {
    "pacifica_conn_id", "symbol", "batch_nonce", "amount", "end_time", "poll_interval", "fee_amount", "submitted_at_ms"
}  # fmt: skip


def waiting(cluster: TestCluster, payer: Payer, count: int, conns: dict[str, str] | None = None) -> Run:
    """Return a run of so many mapped withdrawals, all accepted and deferred."""
    orders = [{"symbol": "SOL", "amount": f"1.{n:04}", "withdrawal_ref": f"ref-{n}"} for n in range(1, count + 1)]
    run = cluster.run("pay_many", payer, orders=orders, conns=conns or {})
    path = f"/dags/pay_many/dagRuns/{run.run_id}/taskInstances"
    cluster.airflow.wait_until(
        lambda: cluster.airflow.rest("GET", path, state="deferred", limit=1)["total_entries"] == count,
        2 * WAIT_S,
        f"{count} tasks to be deferred",
    )
    run.wait_scheduler_knows()
    return run


def reads(payer: Payer) -> int:
    """Return how many requests only look."""
    requests = payer.ledger()["requests"]
    return sum(requests.get(route, 0) for route in READS)


def check_all_settled(run: Run, count: int) -> None:
    """Check that every task ended at its first try with the receipt of its own debit, now on chain."""
    assert run.airflow.wait_run(run.dag_id, run.run_id, 2 * WAIT_S) == "success"
    ledger = run.payer.ledger()
    debits = {each["idempotency_key"]: each for each in ledger["debits"]}
    tasks = [t for t in run.airflow.task_instances(run.dag_id, run.run_id) if t["task_id"] == run.task_id]
    receipts = [run.receipt(map_index=each["map_index"]) for each in tasks]
    assert len(debits) == len(ledger["debits"]) == len(ledger["posts"]) == count
    assert {each["try_number"] for each in tasks} == {1}
    assert {each["idempotency_key"]: each["transaction_id"] for each in receipts} == {
        key: debit["transaction_id"] for key, debit in debits.items()
    }


@pytest.mark.timeout(700)
def test_many_deferred_tasks_outlive_their_triggerer_and_share_every_look(cluster: TestCluster) -> None:
    """The triggerer is killed while all wait (F43): each ends with its own settled receipt, at a few looks in all."""
    with cluster.own_exchange() as payer:
        run = waiting(cluster, payer, MANY)
        arguments = cluster.trigger_arguments(payer.conn_id)
        before = reads(payer)

        time.sleep(PEACE_S)
        cluster.airflow.kill("triggerer", tree=True)
        cluster.airflow.start("triggerer")
        cluster.airflow.wait_healthy()
        time.sleep(PEACE_S)
        payer.exchange.control("POST", "/settle")
        check_all_settled(run, MANY)

        assert len(arguments) == MANY
        assert all(set(each) == ARGUMENTS for each in arguments)
        assert reads(payer) - before < MANY / 2


def test_waiting_goes_on_where_the_socket_is_cut(cluster: TestCluster) -> None:
    """Cut, and refused from then on: polling alone finds it; what was accepted can be read all the while."""
    with cluster.own_exchange() as payer:
        run = waiting(cluster, payer, FEW)
        accepted = [run.receipt(map_index=index) for index in range(FEW)]
        assert {each["idempotency_key"] for each in accepted} == {each["idempotency_key"] for each in payer.debits()}
        assert not any("transaction_id" in each for each in accepted)
        payer.exchange.control("POST", "/ws", {"action": "refuse"})
        payer.exchange.control("POST", "/ws", {"action": "cut"})
        before = reads(payer)

        payer.exchange.control("POST", "/settle")
        check_all_settled(run, FEW)

        assert sockets(payer) == 0
        assert reads(payer) > before


@pytest.mark.timeout(700)
def test_many_accounts_share_two_sockets_and_a_cut_loses_nobodys_event(cluster: TestCluster) -> None:
    """
    Behind one address, without an API config key and on the documented quota.

    Ten settle while both sockets stand, five while they are away, the rest after they are back.
    """
    with cluster.own_exchange() as payer:
        payers = [payer, *(cluster.payer(payer.exchange) for _ in range(ACCOUNTS - 1))]
        payer.exchange.control("POST", "/options", {"enforce_credits": True})
        run = waiting(cluster, payer, ACCOUNTS, conns={f"ref-{n}": each.conn_id for n, each in enumerate(payers, 1)})
        cluster.airflow.wait_until(lambda: sockets(payer) == SOCKETS, WAIT_S, "all to be subscribed")
        time.sleep(PEACE_S)

        for each in payers[:10]:
            each.settle()
        payer.exchange.control("POST", "/ws", {"action": "refuse"})
        payer.exchange.control("POST", "/ws", {"action": "cut"})
        for each in payers[10:15]:
            each.settle()
        time.sleep(PEACE_S)
        payer.exchange.control("POST", "/ws", {"action": "accept"})
        # One, if the few on the second have all settled.
        cluster.airflow.wait_until(lambda: sockets(payer) > 0, WAIT_S, "the sockets to be back")
        time.sleep(PEACE_S)
        for each in payers[15:]:
            each.settle()
        check_all_settled(run, ACCOUNTS)

        assert {each["account"] for each in payer.ledger()["debits"]} == {each.account for each in payers}


def sockets(payer: Payer) -> int:
    """Return how many WebSockets the exchange holds."""
    return int(payer.exchange.control("GET", "/ws")["connections"])


def test_a_used_up_quota_only_delays_the_end(cluster: TestCluster) -> None:
    """Every read is answered 429 for a while (F79): no task fails, none sends anything, and all see the end."""
    with cluster.own_exchange() as payer:
        run = waiting(cluster, payer, FEW)
        payer.exchange.control("POST", "/ws", {"action": "refuse"})
        payer.exchange.control("POST", "/ws", {"action": "cut"})
        payer.exchange.control("POST", "/faults", {"route": "*", "kind": "status", "status": 429, "count": None})

        payer.exchange.control("POST", "/settle")
        cluster.airflow.wait_until(lambda: hits(payer) > 0, WAIT_S, "a look to be refused")
        time.sleep(PEACE_S)
        refused = hits(payer)
        payer.exchange.control("DELETE", "/faults")
        check_all_settled(run, FEW)

        assert 0 < refused <= PEACE_S + 2


def hits(payer: Payer) -> int:
    """Return how many requests have met the fault."""
    (fault,) = payer.exchange.control("GET", "/faults")["faults"]
    return int(fault["hits"])
