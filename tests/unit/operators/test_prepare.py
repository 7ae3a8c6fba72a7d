"""Approval that binds: what was prepared is what is sent, or nothing is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG, task_group

from pacifica_provider.assets import WITHDRAWALS
from pacifica_provider.exceptions import ConfigurationError, ParameterMismatch, Unresolved, WithdrawalRejected
from pacifica_provider.operators.prepare import PrepareWithdrawalOperator
from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator

if TYPE_CHECKING:
    from pacifica_provider.hooks.receipts import Receipt
    from tests.support.task_context import TaskContext

LATER = timedelta(minutes=5)


def withdraw_task(**changes: Any) -> WithdrawSpotAssetOperator:
    """Return the task that withdraws what was approved."""
    given = {"task_id": "withdraw", "symbol": "SOL", "amount": "1.25", "approvals": "approve", **changes}
    return WithdrawSpotAssetOperator(**given)


def answer(by: str | None = "ana", option: str = "Approve", at: datetime | None = None) -> dict[str, Any]:
    """Return what an ``ApprovalOperator`` returns."""
    user = None if by is None else {"id": f"{by}-id", "name": by}
    at = at or datetime.now(UTC) + LATER
    return {"chosen_options": [option], "params_input": {}, "responded_by_user": user, "responded_at": at}


class Flow:
    """A run of prepare, approve and withdraw; ``answers`` are the XComs of the approvals."""

    def __init__(self, task_context: TaskContext) -> None:
        self.task_context = task_context
        self.answers: dict[str, Any] = {"approve": answer()}

    def context(self, task_id: str) -> Any:
        """Return a context of one of the run's tasks."""
        self.task_context.task_id = task_id
        context = self.task_context.context()
        context["ti"].xcom_pull = lambda task_ids, **_: self.answers.get(task_ids)
        return context

    def prepare(self, **changes: Any) -> dict[str, Any]:
        """Run the task that prepares."""
        task = PrepareWithdrawalOperator(task_id="prepare", withdrawal=withdraw_task(**changes))
        return dict(task.execute(self.context("prepare")))

    def withdraw(self, **changes: Any) -> Receipt:
        """Run the task that withdraws."""
        return withdraw_task(**changes).execute(self.context("withdraw"))


@pytest.fixture
def flow(task_context: TaskContext) -> Flow:
    """Return a run."""
    return Flow(task_context)


def test_what_was_prepared_is_withdrawn_once_and_the_receipt_names_who_approved(flow: Flow) -> None:
    """The text shows all that there is to approve; the withdrawal has the key that was shown."""
    shown = flow.prepare()
    receipt = flow.withdraw()
    again = flow.withdraw()

    account = flow.task_context.sandbox.account
    assert shown["text"] == (
        f"Withdraw 1.25 SOL (fee 0.001, so that 1.249 arrives) from account {account} on Pacifica custom, to its own "
        f"wallet. Idempotency key {shown['idempotency_key']}."
    )
    assert (shown["requested_amount"], shown["net_amount"]) == ("1.25", "1.249")
    assert receipt["idempotency_key"] == shown["idempotency_key"]
    assert receipt["approved_by"] == ["ana"]
    assert again == receipt
    assert len(flow.task_context.posts()) == 1


@pytest.mark.parametrize(
    "drift",
    [{"amount": "99"}, {"symbol": "BTC"}, {"tag_amount": True}, {"amount": "1.2500001"}],
    ids=str,
)
def test_another_order_than_the_approved_one_is_refused(flow: Flow, drift: dict[str, Any]) -> None:
    """Approved 1.25, asked 99: nothing is sent, and Airflow does not retry it."""
    flow.prepare()
    with pytest.raises(
        ParameterMismatch, match=r"Prepared for approval was 1.25 SOL .* This try sent nothing"
    ) as caught:
        flow.withdraw(**drift)

    assert isinstance(caught.value, AirflowFailException)
    assert flow.task_context.posts() == []
    assert flow.withdraw()["approved_by"] == ["ana"]


def test_another_account_than_the_approved_one_is_refused(flow: Flow) -> None:
    """The connection was pointed to another account in between."""
    flow.prepare()
    other = flow.task_context.sandbox.control("POST", "/accounts", {"balances": {"SOL": "10"}})
    flow.task_context.connect(login=other["account"], password=other["agent_private_key"])
    with pytest.raises(ParameterMismatch, match="or from another account or address"):
        flow.withdraw()

    assert flow.task_context.posts() == []


def test_what_was_prepared_cannot_be_prepared_otherwise(flow: Flow) -> None:
    """A cleared prepare returns the same; for another order it is refused, before and after the approval."""
    first = flow.prepare()
    with pytest.raises(ParameterMismatch, match="start a new run for another order"):
        flow.prepare(amount="99")

    assert flow.prepare() == first
    assert flow.withdraw()["requested_amount"] == "1.25"


@pytest.mark.parametrize(
    "said",
    [
        None,
        {},
        "Approve",
        answer(option="Reject"),
        answer(by=None),
        {**answer(), "responded_by_user": {"id": "", "name": ""}},
        {**answer(), "responded_at": "yesterday"},
        {**answer(), "responded_at": datetime(2100, 1, 1)},  # noqa: DTZ001 - a time that says not when
        {**answer(), "chosen_options": ["Approve", "Reject"]},
    ],
    ids=["nothing", "empty", "text", "rejected", "a default", "no name", "no time", "no time zone", "both"],
)
def test_without_a_person_s_yes_nothing_is_sent(flow: Flow, said: object) -> None:
    """A rejection, a default that a time-out chose, or nothing: whatever else lets the task run."""
    flow.prepare()
    flow.answers["approve"] = said
    with pytest.raises(ConfigurationError, match="No person approved this in the task 'approve'"):
        flow.withdraw()

    assert flow.task_context.posts() == []


def test_a_yes_from_before_it_was_prepared_is_none(flow: Flow) -> None:
    """An approval that does not wait for prepare has shown nobody this order."""
    flow.prepare()
    flow.answers["approve"] = answer(at=datetime.now(UTC) - LATER)
    with pytest.raises(ConfigurationError, match="answered before the order was prepared, so nobody has seen"):
        flow.withdraw()

    assert flow.task_context.posts() == []


def test_two_approvals_are_two_people(flow: Flow) -> None:
    """The same one twice is one; the receipt names both."""
    flow.prepare()
    flow.answers["approve_too"] = answer()
    with pytest.raises(ConfigurationError, match="ana approved more than once"):
        flow.withdraw(approvals=["approve", "approve_too"])
    flow.answers["approve_too"] = answer("ben")

    assert flow.withdraw(approvals=["approve", "approve_too"])["approved_by"] == ["ana", "ben"]


def test_more_approvals_asked_for_later_are_asked_for(flow: Flow) -> None:
    """Until the withdrawal is on record; what one person approved is not what two did."""
    flow.prepare()
    flow.task_context.connect(extra={"withdrawal_limits": '{"SOL": "1"}'})
    with pytest.raises(ConfigurationError, match="more than the connection's"):
        flow.withdraw()
    flow.task_context.connect()
    with pytest.raises(ConfigurationError, match="No person approved this in the task 'approve_too'"):
        flow.withdraw(approvals=["approve", "approve_too"])

    assert flow.task_context.posts() == []


def test_without_prepare_nothing_is_sent(flow: Flow) -> None:
    """There is nothing that anybody could have approved."""
    with pytest.raises(ConfigurationError, match="No order was prepared for this task"):
        flow.withdraw()

    assert flow.task_context.posts() == []


def test_a_retry_after_a_lost_answer_needs_no_second_approval(flow: Flow) -> None:
    """Who approved is on record before anything is sent."""
    flow.prepare()
    flow.task_context.fault("reset", when="after_commit")
    flow.task_context.fault("status", route="pending", status=503, skip=1, count=3)
    with pytest.raises(Unresolved):
        flow.withdraw()
    flow.answers.clear()
    flow.task_context.try_number = 2

    receipt = flow.withdraw()

    assert (receipt["approved_by"], receipt["adopted"]) == (["ana"], True)
    assert len(flow.task_context.debits()) == 1


def test_a_sweep_is_measured_when_it_is_prepared(flow: Flow) -> None:
    """A person approves an amount: what comes in or goes out until then changes nothing of it."""
    account = flow.task_context.sandbox.control("POST", "/accounts", {"balances": {"SOL": "10"}})
    flow.task_context.connect(login=account["account"], password=account["agent_private_key"])
    shown = flow.prepare(amount="all", reserve="2")
    foreign = {"symbol": "SOL", "amount": "1", "account": account["account"]}
    flow.task_context.sandbox.control("POST", "/foreign_withdrawal", foreign)

    receipt = flow.withdraw(amount="all", reserve="2")

    assert (shown["requested_amount"], receipt["requested_amount"]) == ("8", "8")


def test_what_would_be_refused_is_not_prepared(flow: Flow) -> None:
    """Balance, limit and key are looked at before a person is asked; nothing is written down."""
    with pytest.raises(WithdrawalRejected, match="may be withdrawn now"):
        flow.prepare(amount="2000000")
    flow.task_context.connect(extra={"withdrawal_limits": '{"SOL": "1"}'})
    with pytest.raises(ConfigurationError, match="more than the connection's"):
        flow.prepare()

    assert not [name for name in flow.task_context.store.values if name.startswith("prepared_")]


def test_an_entry_that_was_written_by_hand_is_refused(flow: Flow) -> None:
    """What does not read back as it was written is not what was shown."""
    flow.prepare()
    (name,) = [each for each in flow.task_context.store.values if each.startswith("prepared_")]
    stored: Any = flow.task_context.store.get(name)
    for change in ({"amount": "1.250"}, {"version": 2}, {"extra": 1}, {"prepared_at_ms": "x"}):
        flow.task_context.store.set(name, {**stored, **change})
        with pytest.raises(ConfigurationError, match="The order that was prepared cannot be read"):
            flow.withdraw()
    flow.task_context.store.set(name, {**stored, "amount": "99"})
    with pytest.raises(ParameterMismatch):
        flow.withdraw(amount="1.26")

    assert flow.task_context.posts() == []


@pytest.mark.parametrize("broken", ["prepare", "withdraw"])
def test_a_ledger_that_cannot_be_used_is_tried_again(flow: Flow, broken: str) -> None:
    """Nothing is sent, and nothing taken for approved."""
    if broken == "withdraw":
        flow.prepare()
    flow.task_context.store.error = EOFError()
    with pytest.raises(Unresolved, match="Airflow's ledger could not be used"):
        getattr(flow, broken)()

    assert flow.task_context.posts() == []


def test_it_takes_the_withdrawal_s_own_arguments() -> None:
    """Also in a mapped task group; a withdrawal that is mapped by itself has none of its own."""
    with DAG("pay", schedule=None):
        withdraw = withdraw_task(
            symbol="{{ params.symbol }}", withdrawal_ref="{{ params.ref }}", reserve="1", amount="all"
        )
        prepare = PrepareWithdrawalOperator(task_id="prepare", withdrawal=withdraw)

        @task_group
        def each(amount: str, ref: str) -> None:
            PrepareWithdrawalOperator(task_id="prepare", withdrawal=withdraw_task(amount=amount, withdrawal_ref=ref))

        each.expand_kwargs([{"amount": "1", "ref": "a"}])
        mapped = WithdrawSpotAssetOperator.partial(task_id="mapped", symbol="SOL").expand_kwargs(
            [{"amount": "1", "withdrawal_ref": "a"}]
        )
        with pytest.raises(ConfigurationError, match="put both into a mapped task group"):
            PrepareWithdrawalOperator(task_id="wrong", withdrawal=mapped)

    assert [getattr(prepare, name) for name in prepare.template_fields] == [
        getattr(withdraw, name) for name in withdraw.template_fields
    ]
    assert (WITHDRAWALS in prepare.inlets, WITHDRAWALS in prepare.outlets) == (True, False)


@pytest.mark.parametrize("wrong", [1, [""], [1], {"approve"}, "", "{{ x }}"], ids=repr)
def test_approvals_that_are_no_task_ids_are_refused(wrong: Any) -> None:
    """When the DAG is parsed: an approval that nobody reads would approve anything."""
    with pytest.raises(ConfigurationError, match="approvals must be the id of a task, or a list of them"):
        withdraw_task(approvals=wrong)
