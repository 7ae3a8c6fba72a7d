"""Who is withdrawing: F63 to F72 and F74. The key says so, and it is the only thing that keeps two orders apart."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from pacifica_provider.exceptions import (
    ConfigurationError,
    OutcomeUnknown,
    ParameterMismatch,
    Unresolved,
    WithdrawalRejected,
)
from tests.faults.airflow_bench import AssetState, BenchHook, TaskBench
from tests.faults.judge import assert_paid_once, nonces, refused

if TYPE_CHECKING:
    from tests.support.rig import Rig


@pytest.mark.parametrize(
    "difference",
    [
        pytest.param({"dag_id": "pay_too"}, id="F63-another-dag"),
        pytest.param({"task_id": "left.withdraw"}, id="F64-another-task-group"),
        pytest.param({"task_id": "withdraw_renamed"}, id="F65-a-renamed-task"),
        pytest.param({"dag_id": "pay_renamed"}, id="F65-a-renamed-dag"),
        pytest.param({"run_id": "manual__1"}, id="another-run"),
        pytest.param({"withdrawal_ref": "invoice-7"}, id="another-reference"),
        pytest.param({"scope": "staging"}, id="F67-F68-another-scope"),
    ],
)
def test_another_identity_is_another_order(rig: Rig, difference: dict[str, str]) -> None:
    """F63, F64, F65, F67, F68: equal orders of two DAGs, groups, names or scopes are two orders, each paid once."""
    other = rig.sibling(**difference)

    receipts = [rig.try_once(), other.try_once()]
    assert_paid_once(rig, receipts[0], adopted=False)
    assert_paid_once(other, receipts[1], adopted=False)

    assert rig.key != other.key
    assert len(rig.ledger()["debits"]) == 2


@pytest.mark.parametrize("pair", [("a_b", "c", "a", "b_c"), ("a.b", "c", "a", "b.c"), ("a", "b\n", "a\nb", "c")])
def test_no_two_names_run_into_one_key(rig: Rig, pair: tuple[str, str, str, str]) -> None:
    """F63, F64: fields are framed, so that a separator in a name makes no other pair of names."""
    one = rig.sibling(dag_id=pair[0], task_id=pair[1])
    two = rig.sibling(dag_id=pair[2], task_id=pair[3])

    assert one.key != two.key


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_recreated_run_returns_the_receipt_of_the_first(rig: Rig, forgotten: bool) -> None:
    """F66: deleting a run leaves the ledger alone, so the run made anew with the same id has already withdrawn."""
    receipt = rig.try_once()
    if forgotten:
        rig.sandbox.control("POST", "/forget_keys")
    anew = rig.sibling(store=rig.store)

    again = anew.try_once()

    assert (again, len(rig.posts())) == (receipt, 1)


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_recreated_run_of_an_entry_that_was_deleted_is_a_new_order(rig: Rig, forgotten: bool) -> None:
    """F66: the admitted edge: deleting entry and run says that nothing was sent: a 409, or once forgotten a payment."""
    receipt = rig.try_once()
    rig.store.lose("withdrawal", "task")
    anew = rig.sibling(store=rig.store)
    if forgotten:
        rig.sandbox.control("POST", "/forget_keys")
        anew.try_once()
    else:
        error = refused(anew, OutcomeUnknown)
        assert list(error.batch_nonces) == [receipt.batch_nonce]
        assert "at the first request" in str(error)

    assert len(rig.debits()) == 1 + forgotten


def test_two_deployments_on_one_account_pay_once(rig: Rig) -> None:
    """F67: staging and production with the same ids share a key; the second meets 409 and adopts nothing."""
    production, staging = rig, rig.sibling()
    receipt = production.try_once()

    error = refused(staging, OutcomeUnknown)
    assert_paid_once(production, receipt, adopted=False)

    assert "another task or deployment used it" in str(error)


@pytest.mark.parametrize("in_time", [True, False], ids=["old-agent-still-bound", "old-agent-revoked"])
@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
def test_a_rotated_agent_key_keeps_the_idempotency_key(rig: Rig, when: str, in_time: bool) -> None:
    """F69: rotated between two tries, the new agent signs under the same key, and the account is debited once."""
    key = rig.key
    rig.fault("reset", when=when)
    rig.fault("status", route="pending", status=503, skip=1, count=3)
    refused(rig, Unresolved)
    old = rig.private_key
    bound = rig.sandbox.control("POST", "/agents", {"account": rig.account})
    if not in_time:
        _unbind(rig, old)
    rig.private_key = bound["agent_private_key"]

    receipt = rig.try_once()
    assert_paid_once(rig, receipt, adopted=when == "after_commit")

    assert rig.key == key


@pytest.mark.parametrize("maybe_sent", [False, True])
def test_an_agent_that_was_revoked_is_refused_as_any_signature(rig: Rig, maybe_sent: bool) -> None:
    """F69, F26: a revoked agent's only request is Rejected; after a lost one it is unknown, with the row in view."""
    if maybe_sent:
        rig.fault("reset", when="after_commit")
        rig.fault("status", route="pending", status=503, skip=1, count=3)
        refused(rig, Unresolved)
    _unbind(rig, rig.private_key)

    if maybe_sent:
        error = refused(rig, OutcomeUnknown)
        assert list(error.batch_nonces) == nonces(rig) == [42]
    else:
        assert refused(rig, WithdrawalRejected).status == 400
        assert rig.debits() == []


@pytest.mark.parametrize("state", ["accepted", "lost"])
def test_a_connection_that_is_re_pointed_between_tries_is_a_mismatch(rig: Rig, state: str) -> None:
    """F70: the record is of another account, so nothing is sent from this one."""
    first = rig.key
    if state == "accepted":
        rig.try_once()
    else:
        rig.fault("reset", when="after_commit")
        rig.fault("status", route="pending", status=503, skip=1, count=3)
        refused(rig, Unresolved)
    _re_point(rig)
    posts = len(rig.ledger()["posts"])

    with pytest.raises(ParameterMismatch) as caught:
        rig.try_once()
    moved = {"accepted": "WAS accepted", "lost": "may have moved money"}[state]

    assert (moved in str(caught.value), "this try sent nothing" in str(caught.value)) == (True, True)
    assert (caught.value.idempotency_key, len(rig.ledger()["posts"])) == (first, posts)


def test_a_scope_that_changes_between_tries_is_a_mismatch(rig: Rig) -> None:
    """F70, F68: another scope is another key, but the ledger still knows the run, and names both scopes' difference."""
    rig.try_once()
    rig.scope = "staging"

    with pytest.raises(ParameterMismatch, match="WAS accepted") as caught:
        rig.try_once()

    assert "scope ''" in str(caught.value)
    assert len(rig.ledger()["posts"]) == 1


def test_a_connection_that_is_re_pointed_after_a_rejection_pays_once(rig: Rig) -> None:
    """F70, F24: nothing had moved under the wrong account, so the mended connection pays, from its account alone."""
    rig.fault("status", status=422)
    refused(rig, WithdrawalRejected)
    first = rig.key
    _re_point(rig)

    receipt = rig.try_once()
    assert_paid_once(rig, receipt, adopted=False)

    assert [debit["account"] for debit in rig.ledger()["debits"]] == [rig.account]
    assert first != rig.key


@pytest.mark.parametrize("state", ["accepted", "lost"])
def test_a_base_url_that_changes_between_tries_is_a_mismatch(rig: Rig, state: str) -> None:
    """F71: testnet to mainnet is another order under the same key, and nothing is sent to either."""
    if state == "accepted":
        rig.try_once()
    else:
        rig.fault("reset", when="after_commit")
        rig.fault("status", route="pending", status=503, skip=1, count=3)
        refused(rig, Unresolved)
    before = rig.base_url
    rig.base_url = before.replace("127.0.0.1", "localhost")
    requests = rig.ledger()["requests"]

    error = refused(rig, ParameterMismatch)

    assert before in str(error)
    assert rig.base_url in str(error)
    assert rig.ledger()["requests"] == requests


CONTEXTS: list[Any] = [{}, {"ti": None}, {"ti": object(), "dag_run": object()}, {"dag_run": None, "ti": None}]


@pytest.fixture
def task(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> TaskBench:
    """Return a task instance whose connection is the sandbox's, with a scope."""
    connection = json.loads(rig.sandbox.airflow_connection)
    connection["extra"]["idempotency_scope"] = "staging"
    monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", json.dumps(connection))
    return TaskBench(rig)


@pytest.mark.parametrize("context", CONTEXTS)
def test_outside_a_run_nothing_is_withdrawn(task: TaskBench, context: dict[str, Any]) -> None:
    """F72: no run, no identity, no withdrawal; there is no random key to fall back on."""
    hook = BenchHook(task.rig, "pacifica_default")

    with pytest.raises(ConfigurationError, match="Nothing was sent"):
        hook.withdraw_spot_asset("SOL", "1", context=context)

    assert task.rig.ledger()["requests"] == {}


@pytest.mark.parametrize("missing", ["dag_id", "run_id", "task_id"])
def test_a_run_without_a_name_is_refused(task: TaskBench, missing: str) -> None:
    """F72: an empty part of the identity is as good as none."""
    nameless = task.other(**{missing: ""})

    with pytest.raises(ConfigurationError, match=f"needs a {missing}"):
        nameless.withdraw()

    assert task.posts() == 0


def test_the_first_log_line_names_environment_account_scope_and_key(task: TaskBench) -> None:
    """F68, F74, S21: before anything is sent, the log says whose money it is and where, and under which key."""
    with capture_logs() as logs:
        receipt = task.withdraw()
    first = logs[0]["event"] % tuple(logs[0].get("positional_args", ()))

    assert all(part in first for part in ("custom", task.rig.account, "'staging'", receipt["idempotency_key"], "1 SOL"))


def _re_point(rig: Rig) -> None:
    opened = rig.sandbox.control("POST", "/accounts", {"balances": {"SOL": "100"}})
    rig.account, rig.private_key = opened["account"], opened["agent_private_key"]


def _unbind(rig: Rig, private_key: str) -> None:
    from pacifica_provider.api.signing import Signer

    wallet = Signer.from_base58(private_key).public_key
    rig.sandbox.control("POST", "/agents", {"account": rig.account, "agent_wallet": wallet, "bound": False})


def test_scopes_keep_two_deployments_apart_on_purpose(task: TaskBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """F67, F68: with a scope of its own each deployment pays, and its receipt and log show the key that says so."""
    staging = task.withdraw()
    monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", task.rig.sandbox.airflow_connection)
    production = task.other(ledger=AssetState()).withdraw()

    assert staging["idempotency_key"] != production["idempotency_key"]
    assert len(task.debits()) == 2
