"""Sweeps, preflight and dry runs through the operator, against a sandbox."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.sdk import DAG

from pacifica_provider.assets import WITHDRAWALS
from pacifica_provider.exceptions import (
    ConfigurationError,
    OutcomeUnknown,
    ParameterMismatch,
    Unresolved,
    WithdrawalRejected,
)
from pacifica_provider.hooks.ledgers import AssetStateLedger
from pacifica_provider.hooks.pacifica import PacificaHook
from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator
from pacifica_provider.withdrawals.ledger import LedgerState

if TYPE_CHECKING:
    from pacifica_provider.hooks.receipts import Receipt
    from tests.support.task_context import TaskContext


@pytest.fixture(autouse=True)
def account(task_context: TaskContext) -> dict[str, Any]:
    """Have an account with ten SOL, and return its keys."""
    made: dict[str, Any] = task_context.sandbox.control("POST", "/accounts", {"balances": {"SOL": "10"}})
    task_context.connect(login=made["account"], password=made["agent_private_key"])
    return made


def operator(**changes: Any) -> WithdrawSpotAssetOperator:
    """Return an operator that sweeps SOL."""
    return WithdrawSpotAssetOperator(**{"task_id": "withdraw", "symbol": "SOL", "amount": "all", **changes})


def run(task_context: TaskContext, **changes: Any) -> Receipt:
    """Run one try."""
    return operator(**changes).execute(task_context.context())


def spend(task_context: TaskContext, account: dict[str, Any], amount: str) -> None:
    """Let something else withdraw from the account."""
    body = {"symbol": "SOL", "amount": amount, "account": account["account"]}
    task_context.sandbox.control("POST", "/foreign_withdrawal", body)


def nothing_was_done(task_context: TaskContext) -> bool:
    """Say that no request to withdraw was sent, and no record begun."""
    return not task_context.posts() and not [n for n in task_context.store.values if n.startswith("withdrawal_")]


def test_it_takes_all_but_the_reserve_and_a_cleared_task_takes_no_more(
    task_context: TaskContext, account: dict[str, Any]
) -> None:
    """The second try returns the first one's receipt, whatever there is by then."""
    receipt = run(task_context, reserve="2.5")
    spend(task_context, account, "1")
    task_context.try_number = 2

    again = run(task_context, reserve="2.5")

    assert (receipt["requested_amount"], receipt["net_amount"]) == ("7.5", "7.499")
    assert again == receipt
    assert len(task_context.posts()) == 1


def test_a_retry_after_a_lost_answer_sweeps_the_first_amount(task_context: TaskContext) -> None:
    """The withdrawal is out of the balance by then, and the retry asks for the same."""
    task_context.fault("reset", when="after_commit")
    task_context.fault("status", route="pending", status=503, skip=1, count=3)
    with pytest.raises(Unresolved):
        run(task_context)
    task_context.try_number = 2

    receipt = run(task_context)

    assert (receipt["requested_amount"], receipt["adopted"]) == ("10", True)
    assert {post["amount"] for post in task_context.posts()} == {"10"}
    assert len(task_context.debits()) == 1


def test_an_answer_lost_on_the_way_out_is_retried_with_the_first_amount(
    task_context: TaskContext, account: dict[str, Any]
) -> None:
    """Nothing was accepted; what else was withdrawn meanwhile makes it too much, and Pacifica says so."""
    task_context.fault("reset", when="before_commit")
    task_context.fault("status", route="pending", status=503, skip=1, count=3)
    with pytest.raises(Unresolved):
        run(task_context)
    spend(task_context, account, "1")
    task_context.try_number = 2

    with pytest.raises(OutcomeUnknown, match="UNKNOWN whether 10 SOL was withdrawn"):
        run(task_context)

    assert {post["amount"] for post in task_context.posts()} == {"10"}


def test_a_refused_sweep_is_measured_anew(task_context: TaskContext, account: dict[str, Any]) -> None:
    """Nothing moved, so the cleared task takes what there is then."""
    task_context.fault("status", status=422)
    with pytest.raises(WithdrawalRejected):
        run(task_context)
    spend(task_context, account, "4")
    task_context.clear_number = 1

    assert run(task_context)["requested_amount"] == "6"


@pytest.mark.parametrize("changes", [{"minimum": "10.1"}, {"reserve": "10"}, {"reserve": "9.9995"}], ids=str)
def test_too_little_skips_the_task(task_context: TaskContext, changes: dict[str, Any]) -> None:
    """Nothing is sent or begun, and the text says what there was."""
    with pytest.raises(AirflowSkipException, match=r"10 SOL may be withdrawn now, which is too little. Nothing was"):
        run(task_context, **changes)

    assert nothing_was_done(task_context)


def test_an_asset_that_the_account_has_none_of_is_skipped(task_context: TaskContext) -> None:
    """As one with a balance of zero is."""
    with pytest.raises(AirflowSkipException, match=r"Of all BTC: (nothing|0 BTC) may be withdrawn now"):
        run(task_context, symbol="BTC")


@pytest.mark.parametrize(
    "kind", [{"kind": "status", "status": 503}, {"kind": "reset"}, {"kind": "truncate", "bytes": 9}]
)
def test_what_cannot_be_read_is_read_again_by_the_next_try(task_context: TaskContext, kind: dict[str, Any]) -> None:
    """Some times within the try first; of earlier tries nothing is claimed."""
    task_context.fault(**kind, route="account", count=2)
    receipt = run(task_context)
    task_context.run_id = "another"
    task_context.fault(**kind, route="account", count=9)
    with pytest.raises(Unresolved, match=r"How much there is to withdraw could not be read: .* This try sent nothing"):
        run(task_context)

    assert receipt["requested_amount"] == "10"
    assert len(task_context.posts()) == 1


def test_a_throttled_reading_is_waited_for(task_context: TaskContext) -> None:
    """A 429 burns no try."""
    task_context.fault("status", route="account", status=429, count=2)

    assert run(task_context)["requested_amount"] == "10"


def test_a_sweep_over_the_connection_s_limit_is_refused(task_context: TaskContext, account: dict[str, Any]) -> None:
    """Whole: what a cap lets through of it is not for the package to choose."""
    task_context.connect(
        login=account["account"], password=account["agent_private_key"], extra={"withdrawal_limits": '{"SOL": "9"}'}
    )
    with pytest.raises(ConfigurationError, match=r"10 SOL is more than .* Nothing was sent\."):
        run(task_context)

    assert not task_context.posts()


@pytest.mark.parametrize("listed", ["3", None])
def test_a_sweep_whose_record_may_be_lost_asks_a_person_where_anything_is_listed(
    task_context: TaskContext, account: dict[str, Any], listed: str | None
) -> None:
    """What the lost try withdrew may have been another amount; where nothing is listed, nothing was withdrawn."""
    LedgerState(2**43, raised=True).write(AssetStateLedger(task_context.store))  # as `ledger restored` leaves it
    if listed is not None:
        spend(task_context, account, listed)
        with pytest.raises(OutcomeUnknown, match="an earlier record of this withdrawal may be lost"):
            run(task_context)

        assert not task_context.posts()
    else:
        assert run(task_context)["requested_amount"] == "10"


def test_a_task_that_becomes_a_sweep_keeps_its_order(task_context: TaskContext) -> None:
    """And one that stops being one is another order, unless it asks for what was swept."""
    first = run(task_context, amount="4")
    swept = run(task_context)
    with pytest.raises(ParameterMismatch):
        run(task_context, amount="6")

    assert swept == first
    assert run(task_context, amount="4.0") == first


def test_the_hook_sweeps_too(task_context: TaskContext) -> None:
    """With the same words."""
    receipt = PacificaHook().withdraw_spot_asset("SOL", "all", context=task_context.context(), reserve="1", minimum="9")

    assert receipt["requested_amount"] == "9"


@pytest.mark.parametrize("given", [{"reserve": "1"}, {"minimum": "1"}, {"reserve": "1", "minimum": "1"}], ids=str)
def test_parts_of_a_sweep_without_one_are_refused(task_context: TaskContext, given: dict[str, Any]) -> None:
    """When the DAG is parsed if the amount is known then, else when it is."""
    with pytest.raises(ConfigurationError, match=r"can only be given with amount='all'. Nothing was sent by this try"):
        operator(amount="1", **given)
    late = operator(amount="{{ 1 }}", **given)
    late.amount = "1"
    with pytest.raises(ConfigurationError, match=r"can only be given with amount='all'. Nothing was sent"):
        late.execute(task_context.context())

    assert nothing_was_done(task_context)


@pytest.mark.parametrize(
    ("change", "amount", "why"),
    [
        ({}, "10.5", "only 10 SOL may be withdrawn now"),
        ({}, "0.001", "the fee is 0.001 SOL"),
        ({"active": False}, "1", "SOL is not active"),
        ({"bridge": "inactive"}, "1", "SOL has no active bridge"),
        ({"bridge": "missing"}, "1", "SOL has no active bridge"),
    ],
)
def test_a_preflight_refuses_what_pacifica_would(
    task_context: TaskContext, change: dict[str, Any], amount: str, why: str
) -> None:
    """Before anything is on record, so that the key is not used up; Airflow does not retry it."""
    if change:
        task_context.sandbox.control("POST", "/assets", {"symbol": "SOL", **change})
    with pytest.raises(WithdrawalRejected, match=f"{why}. Nothing was sent by this try") as refused:
        run(task_context, amount=amount, preflight=True)

    assert isinstance(refused.value, AirflowFailException)
    assert nothing_was_done(task_context)


@pytest.mark.parametrize("route", ["account", "spot_assets", "bridge_parameters"])
@pytest.mark.parametrize("status", [400, 429, 503])
def test_a_preflight_s_doubt_refuses_nothing(task_context: TaskContext, route: str, status: int) -> None:
    """What could not be read is for Pacifica to say."""
    task_context.fault("status", route=route, status=status, count=None)

    assert run(task_context, amount="1", preflight=True)["requested_amount"] == "1"


def test_a_preflight_does_not_stand_in_the_way_of_a_retry(task_context: TaskContext) -> None:
    """The lost withdrawal is out of the balance, so a second look would find too little."""
    task_context.fault("reset", when="after_commit")
    task_context.fault("status", route="pending", status=503, skip=1, count=3)
    with pytest.raises(Unresolved):
        run(task_context, amount="9", preflight=True)
    task_context.try_number = 2

    assert run(task_context, amount="9", preflight=True)["adopted"]


@pytest.mark.parametrize("amount", ["all", "4"])
def test_a_dry_run_does_nothing_and_says_what_would_be(
    task_context: TaskContext, account: dict[str, Any], amount: str
) -> None:
    """The receipt as it would be, and no event of the asset; a real run after it withdraws."""
    dry = operator(amount=amount, dry_run=True)
    said: dict[str, Any] = dict(dry.execute(task_context.context()))
    would_be = "10" if amount == "all" else amount

    assert nothing_was_done(task_context)
    assert dry.outlets == []
    assert json.loads(json.dumps(said)) == {
        "account": account["account"],
        "environment": "custom",
        "symbol": "SOL",
        "batch_nonce": None,
        "requested_amount": would_be,
        "fee_amount": "0.001",
        "net_amount": "9.999" if amount == "all" else "3.999",
        "idempotency_key": said["idempotency_key"],
        "dry_run": True,
        "recorded": "none",
    }
    receipt = run(task_context, amount=amount)
    assert (receipt["requested_amount"], receipt["idempotency_key"]) == (would_be, said["idempotency_key"])


def test_a_dry_run_of_a_run_that_has_paid_says_so(task_context: TaskContext) -> None:
    """It is the order on record."""
    run(task_context, amount="4")

    said: dict[str, Any] = dict(run(task_context, dry_run=True))

    assert (said["requested_amount"], said["recorded"]) == ("4", "accepted")


@pytest.mark.parametrize(
    ("changes", "extra", "why"),
    [
        ({"amount": "11"}, {}, "only 10 SOL may be withdrawn now"),
        ({"amount": "4"}, {"withdrawal_limits": '{"SOL": "3"}'}, "4 SOL is more than the connection's"),
        ({"amount": "4"}, {"agent_wallet": "11111111111111111111111111111111"}, "pins another agent wallet"),
    ],
    ids=["balance", "limit", "key"],
)
def test_a_dry_run_fails_where_a_withdrawal_would(
    task_context: TaskContext, account: dict[str, Any], changes: dict[str, Any], extra: dict[str, Any], why: str
) -> None:
    """With the same words, and nothing done."""
    task_context.connect(login=account["account"], password=account["agent_private_key"], extra=extra)
    with pytest.raises((ConfigurationError, WithdrawalRejected), match=why):
        run(task_context, dry_run=True, **changes)

    assert nothing_was_done(task_context)


def test_a_mapped_task_sweeps_each_asset() -> None:
    """``partial`` takes the parts of a sweep, and refuses a wrong one."""
    with DAG("sweep", schedule=None):
        made = WithdrawSpotAssetOperator.partial(task_id="a", amount="all", reserve="1").expand_kwargs(
            [{"symbol": "SOL", "withdrawal_ref": "SOL"}, {"symbol": "BTC", "withdrawal_ref": "BTC"}]
        )
        with pytest.raises(ConfigurationError, match="reserve must be a number"):
            WithdrawSpotAssetOperator.partial(task_id="b", amount="all", reserve="-1")

    assert WITHDRAWALS in made.partial_kwargs["outlets"]
