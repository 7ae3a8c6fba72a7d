"""The hook's one way to withdraw: its receipt, its identity, and its guards."""

from __future__ import annotations

import inspect
import json
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, Asset

from pacifica_provider.exceptions import (
    ConfigurationError,
    OutcomeUnknown,
    ParameterMismatch,
    Unresolved,
)
from pacifica_provider.hooks.pacifica import PacificaHook
from pacifica_provider.hooks.requests import WithdrawalRequest
from pacifica_provider.hooks.task_context import TaskRun
from pacifica_provider.withdrawals.identity import RunIdentity

if TYPE_CHECKING:
    from tests.support.task_context import TaskContext


def withdraw(task_context: TaskContext, amount: object = "1.50", symbol: object = "SOL", **kwargs: Any) -> Any:
    """Run one try through a new hook, as each try has."""
    return PacificaHook().withdraw_spot_asset(symbol, amount, context=task_context.context(), **kwargs)


def test_the_receipt_is_plain_json_with_exact_text(task_context: TaskContext) -> None:
    """Exactly the documented fields, amounts as decimal text, nothing of the request (S07)."""
    receipt = withdraw(task_context)
    (debit,) = task_context.debits()
    identity = RunIdentity(task_context.sandbox.account, task_context.dag_id, task_context.run_id, task_context.task_id)

    assert receipt == {
        "account": task_context.sandbox.account,
        "environment": "custom",
        "symbol": "SOL",
        "batch_nonce": debit["batch_nonce"],
        "requested_amount": "1.5",
        "fee_amount": "0.001",
        "net_amount": "1.499",
        "idempotency_key": identity.idempotency_key(),
        "submitted_at_ms": task_context.posts()[0]["timestamp"],
        "adopted": False,
    }
    assert receipt == json.loads(json.dumps(receipt))


def test_the_scope_of_the_connection_is_in_the_key(task_context: TaskContext) -> None:
    """Two deployments on one account pay separately only where a scope says so (F67)."""
    first = withdraw(task_context)
    task_context.connect(extra={"idempotency_scope": "staging"})
    task_context.store.values.clear()
    second = withdraw(task_context)

    assert first["idempotency_key"] != second["idempotency_key"]
    assert len(task_context.debits()) == 2


def test_a_second_deployment_without_a_scope_stops(task_context: TaskContext) -> None:
    """Same account and ids, another store: the exchange knows the key, and a person decides (F16, F67)."""
    withdraw(task_context)
    task_context.store.values.clear()
    with pytest.raises(OutcomeUnknown, match="another task or deployment") as caught:
        withdraw(task_context)

    assert isinstance(caught.value, AirflowFailException)
    assert len(task_context.debits()) == 1
    with pytest.raises(OutcomeUnknown):
        withdraw(task_context)
    assert len(task_context.posts()) == 2


@pytest.mark.parametrize("changes", [{"try_number": 2}, {"clear_number": 1, "try_number": 5}, {"run_type": "backfill"}])
def test_another_try_returns_the_first_receipt(task_context: TaskContext, changes: dict[str, Any]) -> None:
    """Retry, clear and backfill of one run recall the withdrawal and send nothing (F38, F53, F57)."""
    first = withdraw(task_context)
    for name, value in changes.items():
        setattr(task_context, name, value)

    assert first == withdraw(task_context)
    assert len(task_context.posts()) == 1


@pytest.mark.parametrize(("amount", "symbol"), [("1.51", "SOL"), ("1.50", "BTC")])
def test_another_order_in_the_same_run_is_a_mismatch(task_context: TaskContext, amount: str, symbol: str) -> None:
    """Drift between tries is refused; the message shows both orders and that the first was accepted (F51, F56)."""
    withdraw(task_context)
    task_context.try_number = 2
    with pytest.raises(
        ParameterMismatch, match=rf"withdrawal of 1\.5 SOL.*asks for {amount.rstrip('0')} {symbol}"
    ) as caught:
        withdraw(task_context, amount, symbol)

    assert isinstance(caught.value, AirflowFailException)
    assert "WAS accepted" in str(caught.value)
    assert len(task_context.posts()) == 1


def test_a_backfill_is_refused_unless_allowed(task_context: TaskContext) -> None:
    """A backfill pays once for every date it creates, so it must be asked for (F58, S18)."""
    task_context.run_type = "backfill"
    with pytest.raises(ConfigurationError, match="belongs to a backfill") as caught:
        withdraw(task_context)
    refused = len(task_context.posts())
    withdraw(task_context, allow_backfill=True)

    assert isinstance(caught.value, AirflowFailException)
    assert (refused, len(task_context.debits())) == (0, 1)


def test_a_backfill_is_recognised_as_airflow_gives_it(task_context: TaskContext) -> None:
    """Airflow hands the run type as an enumeration, not as text (F58)."""
    from airflow.utils.types import DagRunType

    task_context.run_type = DagRunType.BACKFILL_JOB

    assert TaskRun.from_context(task_context.context()).run_type == "backfill"


@pytest.mark.parametrize("missing", ["ti", "dag_run", "both"])
def test_outside_a_run_nothing_is_withdrawn(task_context: TaskContext, missing: str) -> None:
    """No context, no identity, no withdrawal, and no random fallback (F72)."""
    context = {name: value for name, value in task_context.context().items() if missing not in {name, "both"}}
    with pytest.raises(ConfigurationError, match="needs the context of a running task") as caught:
        PacificaHook().withdraw_spot_asset("SOL", "1", context=context)

    assert isinstance(caught.value, AirflowFailException)
    assert task_context.posts() == []


@pytest.mark.parametrize("name", ["dag_id", "run_id", "task_id"])
def test_a_context_with_an_empty_name_is_refused(task_context: TaskContext, name: str) -> None:
    """Every part of the identity must be there (F72)."""
    setattr(task_context, name, "")
    with pytest.raises(ConfigurationError, match=f"needs a {name}"):
        withdraw(task_context)

    assert task_context.posts() == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"map_index": 0}, "mapped withdrawal needs a withdrawal_ref"),
        ({"map_index": 7}, "mapped withdrawal needs a withdrawal_ref"),
        ({"loop": SimpleNamespace(index=0)}, "withdrawal in a loop needs a withdrawal_ref"),
    ],
)
def test_a_repeated_task_needs_a_reference(task_context: TaskContext, changes: dict[str, Any], says: str) -> None:
    """Neither map index nor iteration is an identity: without a reference nothing is sent (F61, F62, F100)."""
    for name, value in changes.items():
        setattr(task_context, name, value)
    with pytest.raises(ConfigurationError, match=says):
        withdraw(task_context)
    refused = len(task_context.posts())
    receipt = withdraw(task_context, withdrawal_ref="sweep-SOL")

    assert refused == 0
    assert receipt["idempotency_key"] == task_context.debits()[0]["idempotency_key"]


@pytest.mark.parametrize("reference", ["", " ", "None"])
def test_a_reference_from_a_value_that_is_not_there_is_refused(task_context: TaskContext, reference: str) -> None:
    """A template renders a missing XCom to "None" (F102)."""
    with pytest.raises(ConfigurationError, match="not blank and not 'None'"):
        withdraw(task_context, withdrawal_ref=reference)

    assert task_context.posts() == []


def test_without_the_outlet_nothing_is_sent(task_context: TaskContext) -> None:
    """The error says which line to add to the ``@task``, and no retry helps (5.2)."""
    for outlets in ((), (Asset("other"),)):
        task_context.outlets = outlets
        with pytest.raises(ConfigurationError, match=r"Write @task\(outlets=\[WITHDRAWALS\]\)") as caught:
            withdraw(task_context)
        assert isinstance(caught.value, AirflowFailException)
        assert "from pacifica_provider.assets import WITHDRAWALS" in str(caught.value)

    assert task_context.posts() == []


@pytest.mark.parametrize("broken", ["connection", "amount", "reference", "backfill"])
def test_a_run_whose_first_try_was_refused_pays_at_the_next(task_context: TaskContext, broken: str) -> None:
    """The ledger is born with the first try of all, however it ends: else the next one would have to ask (F96)."""
    words: dict[str, Any] = {}
    if broken == "connection":
        task_context.connect(extra={"environment": "nowhere"})
    elif broken == "backfill":
        task_context.run_type = "backfill"
    else:
        words = {"amount": "{{ amount }}"} if broken == "amount" else {"withdrawal_ref": "None"}
    task_context.run_after = datetime.now(UTC)
    with pytest.raises(ConfigurationError):
        withdraw(task_context, **words)
    born = list(task_context.store.values)
    task_context.connect()
    task_context.try_number, task_context.clear_number, task_context.run_type = 2, 1, "scheduled"
    receipt = withdraw(task_context)

    assert born == ["ledger"]
    assert [debit["batch_nonce"] for debit in task_context.debits()] == [receipt["batch_nonce"]]


def test_a_second_call_in_one_try_needs_a_reference_of_its_own(task_context: TaskContext) -> None:
    """It would get the first one's receipt, and one payment would be missing (F103)."""
    context = task_context.context()
    hook = PacificaHook()
    first = hook.withdraw_spot_asset("SOL", "1", context=context)
    with pytest.raises(
        ConfigurationError, match=r"already withdrawn under the withdrawal_ref None.*This call sent"
    ) as caught:
        hook.withdraw_spot_asset("SOL", "1", context=context)
    second = hook.withdraw_spot_asset("SOL", "1", context=context, withdrawal_ref="second")
    with pytest.raises(ConfigurationError, match="withdrawal_ref 'second'"):
        PacificaHook().withdraw_spot_asset("SOL", "1", context=context, withdrawal_ref="second")

    assert isinstance(caught.value, AirflowFailException)
    assert first["batch_nonce"] != second["batch_nonce"]
    assert len(task_context.debits()) == 2


def test_a_call_that_failed_may_be_made_again_in_the_same_try(task_context: TaskContext) -> None:
    """Nothing was withdrawn under its reference: a task may handle the error itself."""
    context = task_context.context()
    task_context.fault("status", route="pending", status=404)
    with pytest.raises(ConfigurationError):
        PacificaHook().withdraw_spot_asset("SOL", "1", context=context)

    assert PacificaHook().withdraw_spot_asset("SOL", "1", context=context)["batch_nonce"]


def test_a_lost_answer_under_a_reference_is_a_person_s_to_settle(task_context: TaskContext) -> None:
    """An equal withdrawal of the same ``@task`` may be the row in view; without a reference there is none (F94)."""
    task_context.fault("reset", when="after_commit")
    adopted = withdraw(task_context)
    task_context.fault("reset", when="after_commit")
    with pytest.raises(OutcomeUnknown, match="another withdrawal of the same task may be equal"):
        withdraw(task_context, amount="2", withdrawal_ref="a")

    assert adopted["adopted"]


def test_the_operator_s_task_has_one_reference_for_ever(task_context: TaskContext) -> None:
    """Through the hook a task may withdraw under several; through the operator it may not (F101)."""
    hook = PacificaHook()
    first, second = (WithdrawalRequest("SOL", "1", ref, one_reference=True) for ref in ("daily-1", "daily-2"))
    hook.withdraw_as_asked(first, task_context.context())
    with pytest.raises(ParameterMismatch, match="under the withdrawal_ref 'daily-1'") as caught:
        hook.withdraw_as_asked(second, task_context.context())

    assert isinstance(caught.value, AirflowFailException)
    assert len(task_context.posts()) == 1


def test_a_tagged_amount_is_a_little_less_and_settles_itself(task_context: TaskContext) -> None:
    """Its answer lost, under a reference: it is recognised by its amount alone (5.3)."""
    task_context.fault("reset", when="after_commit")
    task_context.map_index = 0
    request = WithdrawalRequest("SOL", "1", "a", tag_amount=True, one_reference=True)
    receipt = PacificaHook().withdraw_as_asked(request, task_context.context())

    assert receipt["adopted"]
    assert Decimal("0.9999") < Decimal(receipt["requested_amount"]) < 1
    assert [debit["batch_nonce"] for debit in task_context.debits()] == [receipt["batch_nonce"]]


def test_two_mapped_tasks_with_one_reference_are_told(
    task_context: TaskContext, capsys: pytest.CaptureFixture[str]
) -> None:
    """One is paid, and the other says that it has withdrawn nothing; its own retry says nothing of the kind (F62)."""
    request = WithdrawalRequest("SOL", "1", "inv-1", one_reference=True)
    told = []
    for index in (0, 1, 0):
        task_context.map_index = index
        PacificaHook().withdraw_as_asked(request, task_context.context())
        told.append("another instance of this task has withdrawn it" in capsys.readouterr().out)

    assert told == [False, True, False]
    assert len(task_context.debits()) == 1


def test_the_map_index_is_not_in_the_key(task_context: TaskContext) -> None:
    """A re-ordered list moves the reference to another index, and it is the same withdrawal (F62)."""
    runs = []
    for index in (0, 1):
        task_context.map_index = index
        run = TaskRun.from_context(task_context.context())
        runs.append(run.identity("acc", "", "ref").idempotency_key())

    assert len(set(runs)) == 1


def test_several_withdrawals_of_one_task_need_a_reference_each(task_context: TaskContext) -> None:
    """Each reference is a withdrawal of its own, and recalled as such."""
    first, second = withdraw(task_context, withdrawal_ref="a"), withdraw(task_context, withdrawal_ref="b")

    assert first["idempotency_key"] != second["idempotency_key"]
    assert first == withdraw(task_context, withdrawal_ref="a")
    assert len(task_context.debits()) == 2


def test_a_recorded_receipt_is_read_without_the_exchange(task_context: TaskContext) -> None:
    """After a deferral that lost its arguments, symbol and nonce find the receipt on record."""
    receipt = withdraw(task_context)
    task_context.connect(host="http://127.0.0.1:1")
    nonce = receipt["batch_nonce"]

    assert receipt == PacificaHook().recorded_receipt(task_context.context(), None, "SOL", nonce)
    for reference, symbol, other in ((None, "SOL", nonce + 1), (None, "BTC", nonce), ("ref", "SOL", nonce)):
        with pytest.raises(Unresolved, match="cannot be read"):
            PacificaHook().recorded_receipt(task_context.context(), reference, symbol, other)
    task_context.store.error = EOFError()
    with pytest.raises(Unresolved, match="a retry recalls it"):
        PacificaHook().recorded_receipt(task_context.context(), None, "SOL", nonce)


def test_the_hook_has_one_withdrawing_method() -> None:
    """It takes the context by name, and there is no argument for a key, a time or a way past the protocol."""
    methods = [name for name in vars(PacificaHook) if "withdraw" in name and not name.startswith("_")]
    parameters = inspect.signature(PacificaHook.withdraw_spot_asset).parameters

    assert methods == ["pending_withdrawals", "withdrawal_history", "withdraw_spot_asset", "withdraw_as_asked"]
    assert list(parameters) == [
        "self",
        "symbol",
        "amount",
        "context",
        "withdrawal_ref",
        "reserve",
        "minimum",
        "allow_backfill",
    ]
    assert parameters["context"].default is inspect.Parameter.empty
    assert parameters["context"].kind is inspect.Parameter.KEYWORD_ONLY


def test_the_first_log_line_names_environment_account_and_key(
    task_context: TaskContext, capsys: pytest.CaptureFixture[str]
) -> None:
    """Enough to reconstruct a case, and never a signature (F68, F74, S14, S26)."""
    receipt = withdraw(task_context)
    lines = [line for line in capsys.readouterr().out.splitlines() if receipt["idempotency_key"] in line]

    assert (
        f"1.5 SOL from account {task_context.sandbox.account} on Pacifica custom (reference None, scope ''" in lines[0]
    )
    assert any("posting, attempt 1" in line for line in lines)
    assert any(f"accepted in batch {receipt['batch_nonce']}" in line for line in lines)
    assert "signature" not in "".join(lines).lower().replace("signed at", "")


@pytest.mark.parametrize(("equal", "longest"), [(0, 1_000), (100, 14_000), (200, 27_000)])
def test_the_record_grows_only_with_what_looks_like_it(task_context: TaskContext, equal: int, longest: int) -> None:
    """Of 200 withdrawals that others have pending, only those of its amount are kept; Airflow warns from 65,535 on."""
    for number in range(200):
        order = {"symbol": "SOL", "amount": "1.5" if number < equal else "2.5"}
        task_context.sandbox.control("POST", "/foreign_withdrawal", order)
    sizes: list[int] = []
    store = task_context.store.set

    def noting(key: str, value: object) -> None:
        store(key, value)
        sizes.append(len(task_context.store.values[key]))

    task_context.store.set = noting  # type: ignore[method-assign]  # the store, watched
    withdraw(task_context)

    assert max(sizes) < longest
