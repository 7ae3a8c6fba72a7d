"""What the ledger is for, through hook and operator: F83, F86, F88, F94, F96, F97 and F100 to F103."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, Asset, conf

from pacifica_provider.exceptions import ConfigurationError, OutcomeUnknown, ParameterMismatch, Unresolved
from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator
from pacifica_provider.withdrawals.protocol import Policy

if TYPE_CHECKING:
    from tests.faults.airflow_bench import TaskBench

TEN_MINUTES_S = 600


def pay_each(task: TaskBench, refs: list[str | None]) -> list[Any]:
    """Run one try of a ``@task`` that withdraws 1 SOL under each reference."""
    context = task.context()
    return [task.withdraw(ref=ref, context=context) for ref in refs]


def outlive_the_key(task: TaskBench) -> None:
    """Let ten minutes pass, and the exchange forget every key."""
    task.harness.clock.sleep_s(TEN_MINUTES_S)
    task.harness.sandbox.control("POST", "/forget_keys")


def lose_the_answer(task: TaskBench, *, skip: int = 0, when: str = "after_commit") -> None:
    """Lose the answer of a request, and let the reads that follow fail, so that the try ends without an outcome."""
    task.harness.fault("reset", when=when, skip=skip)
    task.harness.fault("status", route="pending", status=503, skip=skip + 1, count=3)


def test_two_references_of_a_cleared_task_are_both_recalled(task: TaskBench) -> None:
    """F83: each reference has an entry of its own, which a clear keeps: two receipts, and no request at all."""
    receipts = pay_each(task, ["a", "b"])
    outlive_the_key(task)

    again = pay_each(task.clear(), ["a", "b"])

    assert (again, task.posts()) == (receipts, 2)


def test_two_references_whose_entries_were_lost_are_each_left_to_a_person(task: TaskBench) -> None:
    """F83: the record that a person's adoption makes of the first proves nothing of the second, which is not paid."""
    first, second = pay_each(task, ["a", "b"])
    outlive_the_key(task)
    task.clear().lose()
    with pytest.raises(OutcomeUnknown):
        pay_each(task, ["a", "b"])
    task.decide("adopt", "a", **task.harness.named(first["batch_nonce"]))

    with pytest.raises(OutcomeUnknown) as caught:
        pay_each(task.clear(), ["a", "b"])

    assert caught.value.idempotency_key == second["idempotency_key"]
    assert second["batch_nonce"] in caught.value.batch_nonces
    assert (task.posts(), len(task.debits())) == (2, 2)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AIRFLOW__WORKERS__STATE_STORE_BACKEND", "airflow.providers.common.io.state.ObjectStateBackend"),
        ("AIRFLOW__STATE_STORE__BACKEND", "somewhere.else.Backend"),
    ],
)
def test_a_store_without_a_fence_is_refused(
    task: TaskBench, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """F86: state kept outside of Airflow's database could be overwritten by a replaced try, so nothing is sent."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(ConfigurationError, match=r"state_store.*Nothing was sent") as caught:
        task.withdraw()
    monkeypatch.delenv(variable)
    refused_posts = task.posts()
    task.withdraw()

    assert isinstance(caught.value, AirflowFailException)
    assert (refused_posts, task.posts()) == (0, 1)


def test_a_task_whose_outlets_do_not_name_the_ledger_is_told_the_line_to_add(task: TaskBench) -> None:
    """F86: without the asset among its outlets a task has no ledger, so nothing is sent."""
    with pytest.raises(ConfigurationError, match=r"@task\(outlets=\[WITHDRAWALS\]\)"):
        task.other(outlet=Asset("something_else")).withdraw()

    assert task.posts() == 0


def test_a_void_survives_every_clear(task: TaskBench) -> None:
    """F88: a run that a person voided and paid by hand is never paid, however late and often it is cleared."""
    lose_the_answer(task, when="before_commit")
    with pytest.raises(Unresolved):
        task.withdraw()
    task.decide("void", why="paid by hand")
    with pytest.raises(OutcomeUnknown, match=r"voided this withdrawal .* paid by hand"):
        task.clear().withdraw()
    outlive_the_key(task)

    for _ in range(2):
        with pytest.raises(OutcomeUnknown, match="A person voided"):
            task.clear().withdraw()

    assert (task.posts(), task.debits()) == (1, [])


def _burn_and_pay_an_equal_one(task: TaskBench) -> None:
    """Let the next request use up its key and come to nothing; an equal withdrawal is made in its window."""
    task.harness.options(burn_keys=True)
    task.harness.fault("status", status=503)
    sleep_s = task.harness.clock.sleep_s

    def wait(seconds: float) -> None:
        if not task.debits():
            task.harness.foreign()
        sleep_s(seconds)

    task.harness.clock.sleep_s = wait  # type: ignore[method-assign]  # the bench's own clock


def test_an_equal_row_is_never_adopted_where_a_reference_is_given(task: TaskBench) -> None:
    """F94: the row in the window may be that of the task's other reference, so a person has to say whose it is."""
    _burn_and_pay_an_equal_one(task)

    with pytest.raises(OutcomeUnknown, match="another withdrawal of the same task may be equal") as caught:
        task.withdraw(ref="a")

    assert list(caught.value.batch_nonces) == [42]


def test_an_equal_row_in_the_window_of_a_burned_key_is_the_admitted_edge(task: TaskBench) -> None:
    """F94: without a reference it is adopted, though another's: the edge that the documentation admits."""
    _burn_and_pay_an_equal_one(task)

    receipt = task.withdraw()

    assert (receipt["batch_nonce"], receipt["adopted"]) == (42, True)


@pytest.mark.parametrize("stopped_by", ["a clear of another task", "a bad connection", "a dead worker"])
def test_a_task_that_never_ran_pays_though_its_run_was_cleared(
    task: TaskBench, monkeypatch: pytest.MonkeyPatch, stopped_by: str
) -> None:
    """F96: no entry in a ledger that is older than the run means that nothing was sent, whatever the counters say."""
    if stopped_by == "a clear of another task":
        task.clear()
    elif stopped_by == "a bad connection":
        monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", '{"conn_type": "pacifica"}')
        with pytest.raises(ConfigurationError):
            task.withdraw()
        monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", task.harness.sandbox.airflow_connection)
    else:
        task.context()
    task.harness.foreign()
    task.harness.clock.sleep_s(86_400)

    receipt = task.withdraw()

    assert receipt["adopted"] is False
    assert [key for key, _ in task.debits()] == [None, receipt["idempotency_key"]]


def test_a_bad_connection_at_the_very_first_try_of_a_deployment_costs_no_question(
    task: TaskBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F96: the refused try has let the ledger begin, so that a run that is due after it pays once mended."""
    fresh = task.lose()
    fresh.run_after_ms = fresh.harness.clock.now_ms() + 1000
    monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", '{"conn_type": "pacifica"}')
    with pytest.raises(ConfigurationError):
        fresh.withdraw()
    monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", task.harness.sandbox.airflow_connection)
    fresh.harness.clock.sleep_s(86_400)

    receipt = fresh.withdraw()

    assert (receipt["adopted"], len(fresh.debits())) == (False, 1)


@pytest.mark.parametrize("how", ["plain", "mapped"])
def test_a_dead_worker_s_retry_comes_while_the_key_is_known(task: TaskBench, how: str) -> None:
    """F97: missed after Airflow's default of five minutes and retried after the operator's, it settles itself."""
    with DAG("pay", schedule=None):
        if how == "plain":
            operator: Any = WithdrawSpotAssetOperator(task_id="withdraw", symbol="SOL", amount="1")
        else:
            operator = WithdrawSpotAssetOperator.partial(task_id="withdraw", symbol="SOL").expand_kwargs(
                [{"amount": "1", "withdrawal_ref": "a"}]
            )
    retries, delay = operator.retries, operator.retry_delay
    lose_the_answer(task)
    with pytest.raises(Unresolved):
        task.operate()
    heartbeat_s = conf.getint("scheduler", "task_instance_heartbeat_timeout")
    task.harness.clock.sleep_s(heartbeat_s + delay.total_seconds())

    receipt = task.operate()

    assert (receipt["adopted"], len(task.debits()), retries) == (True, 1, 3)
    assert heartbeat_s + 2 * delay.total_seconds() < Policy().key_trust_ms / 1000


def test_an_iteration_of_a_loop_needs_a_reference(task: TaskBench) -> None:
    """F100: iterations share every name but the loop's index, so without a reference nothing is sent."""
    iterations = [task.other(loop_index=index) for index in range(2)]
    with pytest.raises(ConfigurationError, match="withdrawal in a loop needs a withdrawal_ref"):
        iterations[0].operate()
    unsent = task.posts()

    receipts = [each.operate(ref=f"round-{each.loop_index}") for each in iterations]
    outlive_the_key(task)
    again = [each.clear().operate(ref=f"round-{each.loop_index}") for each in iterations]

    assert (unsent, again, task.posts()) == (0, receipts, 2)
    assert len({key for key, _ in task.debits()}) == 2


def test_an_iteration_of_a_loop_never_adopts_by_itself(task: TaskBench) -> None:
    """F100, F94: an equal withdrawal of another iteration may stand beside it."""
    task.harness.fault("reset", when="after_commit")

    with pytest.raises(OutcomeUnknown, match="another withdrawal of the same task may be equal"):
        task.other(loop_index=0).operate(ref="round-0")

    assert len(task.debits()) == 1


@pytest.mark.parametrize("first", ["accepted", "lost", "lost before the commit"])
def test_a_reference_that_drifts_between_tries_is_a_mismatch(task: TaskBench, first: str) -> None:
    """F101: a task has one reference for ever, so a template that renders to another at a retry pays nobody again."""
    if first == "accepted":
        task.operate(ref="daily-09:00:01")
    else:
        lose_the_answer(task, when="after_commit" if first == "lost" else "before_commit")
        with pytest.raises(Unresolved):
            task.operate(ref="daily-09:00:01")
    posts, debits = task.posts(), task.debits()

    for late in ("daily-09:05:17", "daily-09:11:40"):
        with pytest.raises(ParameterMismatch, match="'daily-09:00:01'") as caught:
            task.operate(ref=late)
        assert "This try sent nothing" in str(caught.value)

    assert (task.posts(), task.debits()) == (posts, debits)


def test_a_reference_may_change_once_nothing_of_it_can_have_moved(task: TaskBench) -> None:
    """F101: after a rejection another reference is no second payment."""
    task.harness.fault("status", status=422)
    with pytest.raises(AirflowFailException, match="No money moved"):
        task.operate(ref="daily-1")

    task.clear().operate(ref="daily-2")

    assert len(task.debits()) == 1


@pytest.mark.parametrize("first", ["rejected", "throttled"])
def test_a_reference_that_drifts_there_and_back_is_a_mismatch(task: TaskBench, first: str) -> None:
    """F101: that the ledger knows the first reference, of which nothing moved, does not let it pay after the second."""
    headers = {"retry-after": "3600"} if first == "throttled" else {}
    task.harness.fault("status", status=429 if headers else 422, headers=headers)
    with pytest.raises(Exception, match="No money moved"):
        task.operate(ref="am")
    task.operate(ref="pm")

    with pytest.raises(ParameterMismatch, match="'pm'"):
        task.operate(ref="am")

    assert len(task.debits()) == 1


def test_a_run_that_changes_its_reference_after_a_clear_is_a_mismatch_too(task: TaskBench) -> None:
    """F101: nor does the clear of a DAG whose author has edited the reference pay again; the old one is recalled."""
    receipt = task.operate(ref="invoice-7")
    with pytest.raises(ParameterMismatch):
        task.clear().operate(ref="invoice-8")

    assert task.clear().operate(ref="invoice-7") == receipt
    assert task.posts() == 1


@pytest.mark.parametrize("ref", ["None", " None ", "", " ", "\t", "é", "x" * 129])
@pytest.mark.parametrize("through", ["hook", "operator"])
def test_a_reference_that_is_no_name_is_refused(task: TaskBench, through: str, ref: str) -> None:
    """F102: a missing XCom renders to the text None, which would pay under that name; nothing is sent."""
    with pytest.raises(ConfigurationError, match="withdrawal_ref must be"):
        task.withdraw(ref=ref) if through == "hook" else task.operate(ref=ref)

    assert (task.posts(), list(task.ledger.values)) == (0, ["ledger"])


@pytest.mark.parametrize("ref", [None, "a"])
def test_a_second_call_under_one_reference_in_one_try_is_refused(task: TaskBench, ref: str | None) -> None:
    """F103: it would get the first one's receipt and pay nobody, so it is an error; a retry says the same again."""
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="This call sent nothing; what the earlier one sent stands"):
            pay_each(task, [ref, ref, ref])

    assert (task.posts(), len(task.debits())) == (1, 1)


def test_calls_under_references_of_their_own_are_each_paid(task: TaskBench) -> None:
    """F103: with a reference each, equal amounts in one try are three payments, and a retry recalls all of them."""
    receipts = pay_each(task, ["a", "b", "c"])

    again = pay_each(task, ["a", "b", "c"])

    assert (again, len({receipt["batch_nonce"] for receipt in receipts}), len(task.debits())) == (receipts, 3, 3)
