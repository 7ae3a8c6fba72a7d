"""The hook's one way to withdraw: its receipt, its identity, and its guards."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from pacifica_provider.exceptions import (
    ConfigurationError,
    OutcomeUnknown,
    ParameterMismatch,
    Unresolved,
)
from pacifica_provider.hooks.pacifica import PacificaHook
from pacifica_provider.hooks.run import TaskRun
from pacifica_provider.withdrawals.identity import RunIdentity

if TYPE_CHECKING:
    from tests.support.desk import Desk


def withdraw(desk: Desk, amount: object = "1.50", symbol: object = "SOL", **kwargs: Any) -> dict[str, Any]:
    """Run one try through a new hook, as each try has."""
    return PacificaHook().withdraw_spot_asset(symbol, amount, context=desk.context(), **kwargs)


def test_the_receipt_is_plain_json_with_exact_text(desk: Desk) -> None:
    """Exactly the documented fields, amounts as decimal text, nothing of the request (S07)."""
    receipt = withdraw(desk)
    (debit,) = desk.debits()
    identity = RunIdentity(desk.sandbox.account, desk.dag_id, desk.run_id, desk.task_id)

    assert receipt == {
        "account": desk.sandbox.account,
        "environment": "custom",
        "symbol": "SOL",
        "batch_nonce": debit["batch_nonce"],
        "requested_amount": "1.5",
        "fee_amount": "0.001",
        "net_amount": "1.499",
        "idempotency_key": identity.idempotency_key(),
        "submitted_at_ms": desk.posts()[0]["timestamp"],
        "adopted": False,
    }
    assert receipt == json.loads(json.dumps(receipt))


def test_the_scope_of_the_connection_is_in_the_key(desk: Desk) -> None:
    """Two deployments on one account pay separately only where a scope says so (F67)."""
    first = withdraw(desk)
    desk.connect(extra={"idempotency_scope": "staging"})
    desk.store.values.clear()
    second = withdraw(desk)

    assert first["idempotency_key"] != second["idempotency_key"]
    assert len(desk.debits()) == 2


def test_a_second_deployment_without_a_scope_stops(desk: Desk) -> None:
    """Same account and ids, another store: the exchange knows the key, and a person decides (F16, F67)."""
    withdraw(desk)
    desk.store.values.clear()
    with pytest.raises(OutcomeUnknown, match="another task or deployment") as caught:
        withdraw(desk)

    assert isinstance(caught.value, AirflowFailException)
    assert len(desk.debits()) == 1
    with pytest.raises(OutcomeUnknown):
        withdraw(desk)
    assert len(desk.posts()) == 2


@pytest.mark.parametrize("changes", [{"try_number": 2}, {"clear_number": 1, "try_number": 5}, {"run_type": "backfill"}])
def test_another_try_returns_the_first_receipt(desk: Desk, changes: dict[str, Any]) -> None:
    """Retry, clear and backfill of one run recall the withdrawal and send nothing (F38, F53, F57)."""
    first = withdraw(desk)
    for name, value in changes.items():
        setattr(desk, name, value)

    assert first == withdraw(desk)
    assert len(desk.posts()) == 1


@pytest.mark.parametrize(("amount", "symbol"), [("1.51", "SOL"), ("1.50", "BTC")])
def test_another_order_in_the_same_run_is_a_mismatch(desk: Desk, amount: str, symbol: str) -> None:
    """Drift between tries is refused; the message shows both orders and that the first was accepted (F51, F56)."""
    withdraw(desk)
    desk.try_number = 2
    with pytest.raises(
        ParameterMismatch, match=rf"withdrawal of 1\.5 SOL.*asks for {amount.rstrip('0')} {symbol}"
    ) as caught:
        withdraw(desk, amount, symbol)

    assert isinstance(caught.value, AirflowFailException)
    assert "WAS accepted" in str(caught.value)
    assert len(desk.posts()) == 1


def test_a_backfill_is_refused_unless_allowed(desk: Desk) -> None:
    """A backfill pays once for every date it creates, so it must be asked for (F58, S18)."""
    desk.run_type = "backfill"
    with pytest.raises(ConfigurationError, match="belongs to a backfill") as caught:
        withdraw(desk)
    refused = len(desk.posts())
    withdraw(desk, allow_backfill=True)

    assert isinstance(caught.value, AirflowFailException)
    assert (refused, len(desk.debits())) == (0, 1)


def test_a_backfill_is_recognised_as_airflow_gives_it(desk: Desk) -> None:
    """Airflow hands the run type as an enumeration, not as text (F58)."""
    from airflow.utils.types import DagRunType

    desk.run_type = DagRunType.BACKFILL_JOB

    assert TaskRun.from_context(desk.context()).run_type == "backfill"


@pytest.mark.parametrize("missing", ["ti", "dag_run", "both"])
def test_outside_a_run_nothing_is_withdrawn(desk: Desk, missing: str) -> None:
    """No context, no identity, no withdrawal, and no random fallback (F72)."""
    context = {name: value for name, value in desk.context().items() if missing not in {name, "both"}}
    with pytest.raises(ConfigurationError, match="needs the context of a running task") as caught:
        PacificaHook().withdraw_spot_asset("SOL", "1", context=context)

    assert isinstance(caught.value, AirflowFailException)
    assert desk.posts() == []


@pytest.mark.parametrize("name", ["dag_id", "run_id", "task_id"])
def test_a_context_with_an_empty_name_is_refused(desk: Desk, name: str) -> None:
    """Every part of the identity must be there (F72)."""
    setattr(desk, name, "")
    with pytest.raises(ConfigurationError, match=f"needs a {name}"):
        withdraw(desk)

    assert desk.posts() == []


@pytest.mark.parametrize("index", [0, 7])
def test_a_mapped_task_needs_a_reference(desk: Desk, index: int) -> None:
    """The map index is no identity: without a reference nothing is sent, with one it goes (F61, F62)."""
    desk.map_index = index
    with pytest.raises(ConfigurationError, match="mapped withdrawal needs a withdrawal_ref"):
        withdraw(desk)
    refused = len(desk.posts())
    receipt = withdraw(desk, withdrawal_ref="sweep-SOL")

    assert refused == 0
    assert receipt["idempotency_key"] == desk.debits()[0]["idempotency_key"]


def test_the_map_index_is_not_in_the_key(desk: Desk) -> None:
    """A re-ordered list moves the reference to another index, and it is the same withdrawal (F62)."""
    runs = []
    for index in (0, 1):
        desk.map_index = index
        run = TaskRun.from_context(desk.context())
        runs.append(run.identity("acc", "", "ref").idempotency_key())

    assert len(set(runs)) == 1


def test_several_withdrawals_of_one_task_need_a_reference_each(desk: Desk) -> None:
    """Each reference is a withdrawal of its own, and recalled as such."""
    first, second = withdraw(desk, withdrawal_ref="a"), withdraw(desk, withdrawal_ref="b")

    assert first["idempotency_key"] != second["idempotency_key"]
    assert first == withdraw(desk, withdrawal_ref="a")
    assert len(desk.debits()) == 2


def test_a_recorded_receipt_is_read_without_the_exchange(desk: Desk) -> None:
    """After a deferral that lost its arguments, symbol and nonce find the receipt on record."""
    receipt = withdraw(desk)
    desk.connect(host="http://127.0.0.1:1")
    nonce = receipt["batch_nonce"]

    assert receipt == PacificaHook().recorded_receipt(desk.context(), "SOL", nonce)
    with pytest.raises(Unresolved, match="cannot be read"):
        PacificaHook().recorded_receipt(desk.context(), "SOL", nonce + 1)
    desk.store.error = EOFError()
    with pytest.raises(Unresolved, match="a retry recalls it"):
        PacificaHook().recorded_receipt(desk.context(), "SOL", nonce)


def test_the_hook_has_one_withdrawing_method() -> None:
    """It takes the context by name, and there is no argument for a key, a time or a way past the protocol."""
    methods = [name for name in vars(PacificaHook) if "withdraw" in name and not name.startswith("_")]
    parameters = inspect.signature(PacificaHook.withdraw_spot_asset).parameters

    assert methods == ["pending_withdrawals", "withdrawal_history", "withdraw_spot_asset"]
    assert list(parameters) == ["self", "symbol", "amount", "context", "withdrawal_ref", "allow_backfill"]
    assert parameters["context"].default is inspect.Parameter.empty
    assert parameters["context"].kind is inspect.Parameter.KEYWORD_ONLY


def test_the_first_log_line_names_environment_account_and_key(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Enough to reconstruct a case, and never a signature (F68, F74, S14, S26)."""
    receipt = withdraw(desk)
    lines = [line for line in capsys.readouterr().out.splitlines() if receipt["idempotency_key"] in line]

    assert f"Pacifica custom, account {desk.sandbox.account}, scope '': 1.5 SOL" in lines[0]
    assert any("posting, attempt 1" in line for line in lines)
    assert any(f"accepted, batch_nonce {receipt['batch_nonce']}" in line for line in lines)
    assert "signature" not in "".join(lines).lower().replace("signed at", "")
