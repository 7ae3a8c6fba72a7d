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
from tests.faults.checks import assert_paid_once, nonces, refused

if TYPE_CHECKING:
    from tests.support.harness import ProtocolHarness


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
def test_another_identity_is_another_order(harness: ProtocolHarness, difference: dict[str, str]) -> None:
    """F63, F64, F65, F67, F68: equal orders of two DAGs, groups, names or scopes are two orders, each paid once."""
    other = harness.sibling(**difference)

    receipts = [harness.try_once(), other.try_once()]
    assert_paid_once(harness, receipts[0], adopted=False)
    assert_paid_once(other, receipts[1], adopted=False)

    assert harness.key != other.key
    assert len(harness.ledger()["debits"]) == 2


@pytest.mark.parametrize("pair", [("a_b", "c", "a", "b_c"), ("a.b", "c", "a", "b.c"), ("a", "b\n", "a\nb", "c")])
def test_no_two_names_run_into_one_key(harness: ProtocolHarness, pair: tuple[str, str, str, str]) -> None:
    """F63, F64: fields are framed, so that a separator in a name makes no other pair of names."""
    one = harness.sibling(dag_id=pair[0], task_id=pair[1])
    two = harness.sibling(dag_id=pair[2], task_id=pair[3])

    assert one.key != two.key


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_recreated_run_returns_the_receipt_of_the_first(harness: ProtocolHarness, forgotten: bool) -> None:
    """F66: deleting a run leaves the ledger alone, so the run made anew with the same id has already withdrawn."""
    receipt = harness.try_once()
    if forgotten:
        harness.sandbox.control("POST", "/forget_keys")
    anew = harness.sibling(store=harness.store)

    again = anew.try_once()

    assert (again, len(harness.posts())) == (receipt, 1)


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_recreated_run_of_an_entry_that_was_deleted_is_a_new_order(harness: ProtocolHarness, forgotten: bool) -> None:
    """F66: the admitted edge: deleting entry and run says that nothing was sent: a 409, or once forgotten a payment."""
    receipt = harness.try_once()
    harness.store.lose("withdrawal", "task")
    anew = harness.sibling(store=harness.store)
    if forgotten:
        harness.sandbox.control("POST", "/forget_keys")
        anew.try_once()
    else:
        error = refused(anew, OutcomeUnknown)
        assert list(error.batch_nonces) == [receipt.batch_nonce]
        assert "at the first request" in str(error)

    assert len(harness.debits()) == 1 + forgotten


def test_two_deployments_on_one_account_pay_once(harness: ProtocolHarness) -> None:
    """F67: staging and production with the same ids share a key; the second meets 409 and adopts nothing."""
    production, staging = harness, harness.sibling()
    receipt = production.try_once()

    error = refused(staging, OutcomeUnknown)
    assert_paid_once(production, receipt, adopted=False)

    assert "another task or deployment used it" in str(error)


@pytest.mark.parametrize("in_time", [True, False], ids=["old-agent-still-bound", "old-agent-revoked"])
@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
def test_a_rotated_agent_key_keeps_the_idempotency_key(harness: ProtocolHarness, when: str, in_time: bool) -> None:
    """F69: rotated between two tries, the new agent signs under the same key, and the account is debited once."""
    key = harness.key
    harness.fault("reset", when=when)
    harness.fault("status", route="pending", status=503, skip=1, count=3)
    refused(harness, Unresolved)
    old = harness.private_key
    bound = harness.sandbox.control("POST", "/agents", {"account": harness.account})
    if not in_time:
        _unbind(harness, old)
    harness.private_key = bound["agent_private_key"]

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=when == "after_commit")

    assert harness.key == key


@pytest.mark.parametrize("maybe_sent", [False, True])
def test_an_agent_that_was_revoked_is_refused_as_any_signature(harness: ProtocolHarness, maybe_sent: bool) -> None:
    """F69, F26: a revoked agent's only request is Rejected; after a lost one it is unknown, with the row in view."""
    if maybe_sent:
        harness.fault("reset", when="after_commit")
        harness.fault("status", route="pending", status=503, skip=1, count=3)
        refused(harness, Unresolved)
    _unbind(harness, harness.private_key)

    if maybe_sent:
        error = refused(harness, OutcomeUnknown)
        assert list(error.batch_nonces) == nonces(harness) == [42]
    else:
        assert refused(harness, WithdrawalRejected).status == 400
        assert harness.debits() == []


@pytest.mark.parametrize("state", ["accepted", "lost"])
def test_a_connection_that_is_re_pointed_between_tries_is_a_mismatch(harness: ProtocolHarness, state: str) -> None:
    """F70: the record is of another account, so nothing is sent from this one."""
    first = harness.key
    if state == "accepted":
        harness.try_once()
    else:
        harness.fault("reset", when="after_commit")
        harness.fault("status", route="pending", status=503, skip=1, count=3)
        refused(harness, Unresolved)
    _re_point(harness)
    posts = len(harness.ledger()["posts"])

    with pytest.raises(ParameterMismatch) as caught:
        harness.try_once()
    moved = {"accepted": "WAS accepted", "lost": "may have moved money"}[state]

    assert (moved in str(caught.value), "this try sent nothing" in str(caught.value)) == (True, True)
    assert (caught.value.idempotency_key, len(harness.ledger()["posts"])) == (first, posts)


def test_a_scope_that_changes_between_tries_is_a_mismatch(harness: ProtocolHarness) -> None:
    """F70, F68: another scope is another key, but the ledger still knows the run, and names both scopes' difference."""
    harness.try_once()
    harness.scope = "staging"

    with pytest.raises(ParameterMismatch, match="WAS accepted") as caught:
        harness.try_once()

    assert "scope ''" in str(caught.value)
    assert len(harness.ledger()["posts"]) == 1


def test_a_connection_that_is_re_pointed_after_a_rejection_pays_once(harness: ProtocolHarness) -> None:
    """F70, F24: nothing had moved under the wrong account, so the mended connection pays, from its account alone."""
    harness.fault("status", status=422)
    refused(harness, WithdrawalRejected)
    first = harness.key
    _re_point(harness)

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=False)

    assert [debit["account"] for debit in harness.ledger()["debits"]] == [harness.account]
    assert first != harness.key


@pytest.mark.parametrize("state", ["accepted", "lost"])
def test_a_base_url_that_changes_between_tries_is_a_mismatch(harness: ProtocolHarness, state: str) -> None:
    """F71: testnet to mainnet is another order under the same key, and nothing is sent to either."""
    if state == "accepted":
        harness.try_once()
    else:
        harness.fault("reset", when="after_commit")
        harness.fault("status", route="pending", status=503, skip=1, count=3)
        refused(harness, Unresolved)
    before = harness.base_url
    harness.base_url = before.replace("127.0.0.1", "localhost")
    requests = harness.ledger()["requests"]

    error = refused(harness, ParameterMismatch)

    assert before in str(error)
    assert harness.base_url in str(error)
    assert harness.ledger()["requests"] == requests


CONTEXTS: list[Any] = [{}, {"ti": None}, {"ti": object(), "dag_run": object()}, {"dag_run": None, "ti": None}]


@pytest.fixture
def task(harness: ProtocolHarness, monkeypatch: pytest.MonkeyPatch) -> TaskBench:
    """Return a task instance whose connection is the sandbox's, with a scope."""
    connection = json.loads(harness.sandbox.airflow_connection)
    connection["extra"]["idempotency_scope"] = "staging"
    monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", json.dumps(connection))
    return TaskBench(harness)


@pytest.mark.parametrize("context", CONTEXTS)
def test_outside_a_run_nothing_is_withdrawn(task: TaskBench, context: dict[str, Any]) -> None:
    """F72: no run, no identity, no withdrawal; there is no random key to fall back on."""
    hook = BenchHook(task.harness, "pacifica_default")

    with pytest.raises(ConfigurationError, match="Nothing was sent"):
        hook.withdraw_spot_asset("SOL", "1", context=context)

    assert task.harness.ledger()["requests"] == {}


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

    assert all(
        part in first for part in ("custom", task.harness.account, "'staging'", receipt["idempotency_key"], "1 SOL")
    )


def _re_point(harness: ProtocolHarness) -> None:
    opened = harness.sandbox.control("POST", "/accounts", {"balances": {"SOL": "100"}})
    harness.account, harness.private_key = opened["account"], opened["agent_private_key"]


def _unbind(harness: ProtocolHarness, private_key: str) -> None:
    from pacifica_provider.api.signing import Signer

    wallet = Signer.from_base58(private_key).public_key
    harness.sandbox.control("POST", "/agents", {"account": harness.account, "agent_wallet": wallet, "bound": False})


def test_scopes_keep_two_deployments_apart_on_purpose(task: TaskBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """F67, F68: with a scope of its own each deployment pays, and its receipt and log show the key that says so."""
    staging = task.withdraw()
    monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", task.harness.sandbox.airflow_connection)
    production = task.other(ledger=AssetState()).withdraw()

    assert staging["idempotency_key"] != production["idempotency_key"]
    assert len(task.debits()) == 2
