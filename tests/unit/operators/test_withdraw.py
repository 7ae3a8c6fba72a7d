"""The withdraw operator: what is templated, what it returns, and how its errors reach Airflow."""

from __future__ import annotations

import inspect
import re
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, Asset, AssetAlias
from airflow.sdk import DAG, task_group

from pacifica_provider.assets import WITHDRAWALS
from pacifica_provider.exceptions import (
    ConfigurationError,
    OutcomeUnknown,
    ParameterMismatch,
    Unreachable,
    WithdrawalRejected,
)
from pacifica_provider.hooks.receipts import Receipt
from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator
from pacifica_provider.withdrawals.identity import RunIdentity

if TYPE_CHECKING:
    from tests.support.task_context import TaskContext


def operator(**changes: Any) -> WithdrawSpotAssetOperator:
    """Return an operator of one SOL."""
    return WithdrawSpotAssetOperator(**{"task_id": "withdraw", "symbol": "SOL", "amount": "1.00000000", **changes})


def test_only_the_order_is_templated() -> None:
    """Connection, waiting and backfill are not for a DAG run to choose (S08)."""
    assert WithdrawSpotAssetOperator.template_fields == ("symbol", "amount", "withdrawal_ref", "reserve", "minimum")


def test_the_defaults_are_the_documented_ones() -> None:
    """Each parameter has the default of the documentation, and all are keyword-only."""
    parameters = inspect.signature(WithdrawSpotAssetOperator.__init__).parameters
    own = {name: value for name, value in parameters.items() if name not in {"self", "kwargs"}}

    assert {name: value.default for name, value in own.items()} == {
        "symbol": inspect.Parameter.empty,
        "amount": inspect.Parameter.empty,
        "withdrawal_ref": None,
        "pacifica_conn_id": "pacifica_default",
        "wait_for_settlement": False,
        "deferrable": False,
        "poll_interval": 30,
        "settlement_timeout": timedelta(hours=72),
        "allow_backfill": False,
        "reserve": None,
        "minimum": None,
        "approvals": (),
        "preflight": False,
        "dry_run": False,
        "tag_amount": False,
        "retries": 3,
        "retry_delay": timedelta(minutes=1),
    }
    assert {value.kind for value in own.values()} == {inspect.Parameter.KEYWORD_ONLY}


def test_making_an_operator_reaches_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DAG file is parsed over and over: no connection is read and nothing is random, so equal ones are equal."""
    monkeypatch.delenv("AIRFLOW_CONN_PACIFICA_DEFAULT", raising=False)
    made = [
        {name: getattr(operator(), name) for name in ("symbol", "amount", "withdrawal_ref", "pacifica_conn_id")}
        for _ in range(2)
    ]

    assert made[0] == made[1]
    assert "hook" not in vars(operator())


def test_a_run_withdraws_once_and_returns_the_receipt(task_context: TaskContext) -> None:
    """The first try posts, every later one returns the same receipt without a request (F38, F53)."""
    receipt = operator().execute(task_context.context())
    task_context.try_number = 2
    again = operator().execute(task_context.context())
    key = RunIdentity(
        task_context.sandbox.account, task_context.dag_id, task_context.run_id, "withdraw"
    ).idempotency_key()

    assert receipt == again
    assert receipt["idempotency_key"] == key
    assert [debit["batch_nonce"] for debit in task_context.debits()] == [receipt["batch_nonce"]]
    assert len(task_context.posts()) == 1


def test_another_connection_is_used_where_it_is_named(task_context: TaskContext) -> None:
    """``pacifica_conn_id`` names the connection."""
    account = task_context.sandbox.control("POST", "/accounts", {"balances": {"SOL": "5"}})
    task_context.connect("AIRFLOW_CONN_OTHER", login=account["account"], password=account["agent_private_key"])
    receipt = operator(pacifica_conn_id="other").execute(task_context.context())

    assert receipt["account"] == account["account"]


def test_each_reference_of_a_run_is_a_withdrawal(task_context: TaskContext) -> None:
    """Mapped tasks tell theirs apart by reference, not by index (F61)."""
    receipts = []
    for index, reference in enumerate(["sweep-SOL", "sweep-rest"]):
        task_context.map_index = index
        receipts.append(operator(withdrawal_ref=reference).execute(task_context.context()))

    assert len({receipt["idempotency_key"] for receipt in receipts}) == 2
    assert len(task_context.debits()) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": "0"},
        {"amount": "-1"},
        {"amount": "1e3"},
        {"amount": "NaN"},
        {"amount": 1.5},
        {"amount": "1 "},
        {"amount": "1.1234567890123456789"},
        {"amount": None},
        {"amount": "{{ params.amount }}"},
        {"symbol": ""},
        {"symbol": "S L"},
        {"symbol": "SÖL"},
        {"symbol": None},
        {"withdrawal_ref": ""},
        {"withdrawal_ref": "é"},
        {"withdrawal_ref": "None"},
        {"withdrawal_ref": 7},
    ],
)
@pytest.mark.parametrize("deferrable", [True, False])
def test_bad_input_fails_before_anything_is_sent(
    task_context: TaskContext, changes: dict[str, Any], deferrable: bool
) -> None:
    """Whatever can fail locally, the waiting included, fails before the POST and without retry (F49, F52, S17)."""
    with pytest.raises(ConfigurationError, match=r"[Nn]othing was sent") as caught:
        operator(deferrable=deferrable, **changes).execute(task_context.context())

    assert isinstance(caught.value, AirflowFailException)
    assert task_context.posts() == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"poll_interval": 0}, "poll_interval must be a positive number of seconds, not 0"),
        ({"poll_interval": -1}, "poll_interval must be a positive number of seconds, not -1"),
        ({"poll_interval": "30"}, "poll_interval must be a positive number of seconds, not '30'"),
        ({"poll_interval": float("nan")}, "poll_interval must be a positive number of seconds, not nan"),
        ({"poll_interval": float("inf")}, "poll_interval must be a positive number of seconds, not inf"),
        ({"poll_interval": True}, "poll_interval must be a positive number of seconds, not True"),
        ({"poll_interval": 1e300}, "poll_interval must be a positive number of seconds"),
        ({"settlement_timeout": 3600}, "settlement_timeout must be a timedelta of at most 366 days, not 3600"),
        ({"settlement_timeout": None}, "settlement_timeout must be a timedelta of at most 366 days, not None"),
        ({"settlement_timeout": timedelta.max}, "settlement_timeout must be a timedelta of at most 366 days"),
        ({"settlement_timeout": timedelta(-1)}, "settlement_timeout must be a timedelta of at most 366 days"),
        ({"allow_backfill": "false"}, "allow_backfill must be True or False, not 'false'"),
        ({"wait_for_settlement": 1}, "wait_for_settlement must be True or False, not 1"),
        ({"deferrable": None}, "deferrable must be True or False, not None"),
        ({"tag_amount": "no"}, "tag_amount must be True or False, not 'no'"),
        ({"pacifica_conn_id": ""}, "pacifica_conn_id must be the id of a connection, not ''"),
        ({"pacifica_conn_id": None}, "pacifica_conn_id must be the id of a connection, not None"),
        ({"symbol": "S L"}, "symbol must be 1 to 32 ASCII letters"),
        ({"symbol": "S L", "amount": "{{ params.amount }}"}, "symbol must be 1 to 32 ASCII letters"),
        ({"amount": 1.5}, "amount must be a number in quotes such as '1.5', not the float 1.5"),
        ({"amount": "1e3"}, "amount must be a number in plain digits"),
        ({"amount": "0", "symbol": "{{ params.symbol }}"}, "amount must be greater than zero"),
    ],
)
def test_what_is_known_to_be_wrong_is_refused_when_the_dag_is_parsed(changes: dict[str, Any], says: str) -> None:
    """Each argument by its name; in a mapped task, which is made as it runs, without a retry (F49, S17)."""
    with pytest.raises(ConfigurationError, match=re.escape(says)) as caught:
        operator(**changes)

    assert isinstance(caught.value, AirflowFailException)
    assert str(caught.value).endswith("Nothing was sent by this try.")


@pytest.mark.parametrize("amount", ["1.5", 2, Decimal("1.50"), "{{ params.amount }}", "{% if x %}1{% endif %}"])
def test_an_amount_may_be_text_a_whole_number_a_decimal_or_a_template(amount: Any) -> None:
    """What is not known yet is not judged yet."""
    assert operator(amount=amount).amount == amount


def test_the_result_of_another_task_is_not_judged_before_it_is_there() -> None:
    """Each argument may come from a task before."""
    with DAG("pay", schedule=None):
        before = WithdrawSpotAssetOperator(task_id="before", symbol="SOL", amount="1")
        after = operator(symbol=before.output["symbol"], amount=before.output["net_amount"])

    assert after.upstream_task_ids == {"before"}


def test_a_field_of_the_receipt_is_taken_from_what_the_task_returned() -> None:
    """No XCom of its own is needed; the whole receipt, a list of them, and no receipt are what they are."""
    with DAG("pay", schedule=None):
        output = WithdrawSpotAssetOperator(task_id="a", symbol="SOL", amount="1").output

    def resolved(argument: Any, returned: object) -> Any:
        ti = SimpleNamespace(dag_id="pay", task=output.operator, xcom_pull=lambda **_: returned)
        return argument.resolve({"ti": ti})

    receipt = {"symbol": "SOL", "batch_nonce": 42}
    assert resolved(output["batch_nonce"], receipt) == 42
    assert resolved(output["transaction_id"], receipt) is None
    assert resolved(output["batch_nonce"], [receipt, {**receipt, "batch_nonce": 43}]) == [42, 43]
    assert resolved(output["batch_nonce"], None) is None
    assert resolved(output, receipt) == receipt
    assert f"{output['batch_nonce']}" == (
        "{{ task_instance.xcom_pull(task_ids='a', dag_id='pay', key='return_value')['batch_nonce'] }}"
    )
    with pytest.raises(ConfigurationError, match="has no field 'nonce', only account, environment, symbol"):
        output["nonce"]


def test_the_fields_are_those_of_the_receipt() -> None:
    """What may be asked for is what can be there."""
    output = operator().output

    assert [str(output[field]).count(f"['{field}']") for field in Receipt.__annotations__] == [1] * 13


def test_a_mapped_task_is_shown_by_its_reference() -> None:
    """Its place in the list says nothing of the payment; an author's own template stays."""
    with DAG("pay", schedule=None):
        mapped = WithdrawSpotAssetOperator.partial(task_id="a", symbol="SOL").expand_kwargs([])
        named = WithdrawSpotAssetOperator.partial(task_id="b", symbol="SOL", map_index_template="x").expand_kwargs([])
        plain, alone = operator(task_id="c", withdrawal_ref="inv-1"), operator(task_id="d")

        with_default: Any = {"default_args": {"map_index_template": "y"}}
        other = WithdrawSpotAssetOperator.partial(task_id="e", symbol="SOL", **with_default).expand_kwargs([])
        another = operator(task_id="f", withdrawal_ref="inv-1", **with_default)

    assert mapped.map_index_template == plain.map_index_template == "{{ task.withdrawal_ref }}"
    assert (named.map_index_template, alone.map_index_template) == ("x", None)
    assert other.map_index_template == another.map_index_template == "y"


@pytest.mark.parametrize("symbol", ["sol", "NOSUCH", "KBONK"])
def test_a_symbol_that_the_exchange_does_not_know_is_its_to_refuse(task_context: TaskContext, symbol: str) -> None:
    """Lower case is passed through as it is: the exchange is case sensitive and says no, and nothing moved (F24)."""
    with pytest.raises(WithdrawalRejected, match=f"HTTP 422, code 55: Asset not found: {symbol}") as caught:
        operator(symbol=symbol).execute(task_context.context())

    assert isinstance(caught.value, AirflowFailException)
    assert task_context.debits() == []


def test_an_agent_that_is_not_bound_is_named_beside_its_account(task_context: TaskContext) -> None:
    """Pacifica's own words name neither, and one of them is wrong in the connection (F27)."""
    wish = {"account": task_context.sandbox.account, "agent_wallet": task_context.agent_wallet, "bound": False}
    task_context.sandbox.control("POST", "/agents", wish)
    with pytest.raises(WithdrawalRejected, match="Agent not authorized") as caught:
        operator().execute(task_context.context())

    assert str(caught.value).endswith(
        f" The account is {task_context.sandbox.account}, and agent wallet {task_context.agent_wallet} signed for it."
    )
    assert isinstance(caught.value, AirflowFailException)


def test_an_owner_s_key_that_is_refused_is_said_to_have_signed(task_context: TaskContext) -> None:
    """There is no agent to look for then."""
    task_context.connect(password=task_context.sandbox.private_key)
    with pytest.raises(WithdrawalRejected) as caught:
        operator(symbol="NOSUCH").execute(task_context.context())

    assert str(caught.value).endswith(f" The account is {task_context.sandbox.account}, and it signed itself.")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"kind": "status", "status": 400}, WithdrawalRejected),
        ({"kind": "duplicate_in_progress"}, OutcomeUnknown),
        ({"kind": "status", "route": "pending", "status": 401}, ConfigurationError),
    ],
)
def test_an_ending_that_a_retry_cannot_help_fails_at_once(
    task_context: TaskContext, fault: dict[str, Any], kind: type[Exception]
) -> None:
    """A refusal, a 409 on the first request and a refused account are final for Airflow (F16, F24, F27)."""
    task_context.fault(**fault)
    with pytest.raises(AirflowFailException) as caught:
        operator().execute(task_context.context())

    assert isinstance(caught.value, kind)


def test_a_409_on_the_first_post_is_unknown_for_ever(task_context: TaskContext) -> None:
    """The error carries key, order and time; later tries repeat it and send nothing (F16, I4)."""
    task_context.fault("duplicate_in_progress")
    errors = []
    for _ in range(3):
        with pytest.raises(OutcomeUnknown, match="UNKNOWN whether 1 SOL was withdrawn") as caught:
            operator().execute(task_context.context())
        errors.append(caught.value)
        task_context.try_number += 1
    (post,) = task_context.posts()

    assert {error.idempotency_key for error in errors} == {post["key"]}
    assert {(error.symbol, error.amount) for error in errors} == {("SOL", "1")}
    assert {error.submitted_at_ms for error in errors} == {(post["timestamp"],)}
    assert "has decided: void because it was settled elsewhere" in str(errors[-1])


def test_an_unreachable_exchange_is_left_to_airflow_s_retries(task_context: TaskContext) -> None:
    """Nothing was sent, so the next try may send (F01)."""
    task_context.connect(host="http://127.0.0.1:1")
    with pytest.raises(Unreachable, match="Nothing was sent") as caught:
        operator().execute(task_context.context())
    task_context.connect()
    task_context.try_number = 2

    assert not isinstance(caught.value, AirflowFailException)


def test_drift_between_two_tries_is_a_mismatch(task_context: TaskContext) -> None:
    """A template that rendered to something else sends nothing; the error speaks of the recorded order (F51)."""
    operator(amount="1").execute(task_context.context())
    task_context.try_number = 2
    with pytest.raises(ParameterMismatch) as caught:
        operator(amount="1.01").execute(task_context.context())

    assert isinstance(caught.value, AirflowFailException)
    assert caught.value.amount == "1"
    assert len(task_context.posts()) == 1


def test_a_backfill_pays_only_where_it_is_allowed(task_context: TaskContext) -> None:
    """``allow_backfill`` is off by default (F58)."""
    task_context.run_type = "backfill"
    with pytest.raises(ConfigurationError, match="allow_backfill=True"):
        operator().execute(task_context.context())
    receipt = operator(allow_backfill=True).execute(task_context.context())

    assert [debit["batch_nonce"] for debit in task_context.debits()] == [receipt["batch_nonce"]]


def test_on_kill_only_says_why_it_does_nothing(task_context: TaskContext, capsys: pytest.CaptureFixture[str]) -> None:
    """A withdrawal cannot be recalled: no request, no write, one line (F39)."""
    task = operator()
    receipt = task.execute(task_context.context())
    stored, posts = dict(task_context.store.values), task_context.posts()
    capsys.readouterr()
    task.on_kill()

    assert "cannot be recalled" in capsys.readouterr().out
    assert (stored, posts) == (task_context.store.values, task_context.posts())
    assert receipt == operator().execute(task_context.context())


def test_a_reference_that_drifts_between_tries_is_a_mismatch(task_context: TaskContext) -> None:
    """A task instance withdraws under one reference for ever: a template with a time in it pays once (F101)."""
    receipt = operator(withdrawal_ref="daily-09:00").execute(task_context.context())
    task_context.try_number = 2
    with pytest.raises(ParameterMismatch, match="must render to the same text at every try"):
        operator(withdrawal_ref="daily-09:05").execute(task_context.context())

    assert [debit["batch_nonce"] for debit in task_context.debits()] == [receipt["batch_nonce"]]


def test_each_iteration_of_a_loop_has_a_reference_of_its_own(task_context: TaskContext) -> None:
    """Iterations share every id but their index: with references each pays once, also after a clear (F100)."""
    receipts = []
    for try_number in (1, 2):
        task_context.try_number = try_number
        for index in (0, 1):
            task_context.loop = SimpleNamespace(index=index)
            receipts.append(operator(withdrawal_ref=f"round-{index}").execute(task_context.context()))

    assert receipts[:2] == receipts[2:]
    assert len(task_context.debits()) == 2


def test_a_re_ordered_list_pays_nobody_twice(task_context: TaskContext) -> None:
    """Cleared with its references at other indices, each gets its own receipt; a new one is refused (F62)."""
    paid = []
    for references in (["a", "b"], ["b", "a"]):
        for index, reference in enumerate(references):
            task_context.map_index = index
            paid.append(operator(withdrawal_ref=reference).execute(task_context.context())["batch_nonce"])
        task_context.clear_number = 1
    task_context.map_index = 0
    with pytest.raises(ParameterMismatch, match="append to it, or start a new run"):
        operator(withdrawal_ref="c").execute(task_context.context())

    assert paid[:2] == paid[:1:-1]
    assert len(task_context.debits()) == 2


def test_a_tagged_amount_is_asked_for_by_name(task_context: TaskContext) -> None:
    """``tag_amount`` takes a little off, the same at every try (5.3)."""
    receipt = operator(tag_amount=True).execute(task_context.context())
    task_context.try_number = 2

    assert Decimal("0.9999") < Decimal(receipt["requested_amount"]) < 1
    assert receipt == operator(tag_amount=True).execute(task_context.context())


# -- what the operator adds: the ledger's asset, and retries that come while the key is known

MINE = Asset("mine")


def names(task: Any) -> list[str]:
    """Return the names of a task's outlets."""
    return [outlet.name for outlet in task.outlets]


@pytest.mark.parametrize(
    ("outlets", "expected"),
    [
        ({}, ["pacifica_withdrawals"]),
        ({"outlets": []}, ["pacifica_withdrawals"]),
        ({"outlets": [MINE]}, ["mine", "pacifica_withdrawals"]),
        ({"outlets": MINE}, ["mine", "pacifica_withdrawals"]),
        ({"outlets": [WITHDRAWALS, MINE]}, ["pacifica_withdrawals", "mine"]),
        ({"outlets": [AssetAlias("alias")]}, ["alias", "pacifica_withdrawals"]),
    ],
)
@pytest.mark.parametrize("given_by", ["argument", "default_args"])
@pytest.mark.parametrize("mapped", [False, True], ids=["plain", "mapped"])
def test_the_ledger_s_asset_is_an_outlet_of_every_withdrawal(
    outlets: dict[str, Any], expected: list[str], given_by: str, mapped: bool
) -> None:
    """Airflow hands a task the state of its outlets only; the author need not think of it, and keeps his own (5.2)."""
    words = outlets if given_by == "argument" else {}
    with DAG("pay", schedule=None, default_args=outlets if given_by == "default_args" else {}):
        if mapped:
            task: Any = WithdrawSpotAssetOperator.partial(
                **{"task_id": "w", "symbol": "SOL", "withdrawal_ref": "{{ task.amount }}", **words}
            ).expand(amount=["1", "2"])
            unmapped = task.unmap({"amount": "1"})
        else:
            task = unmapped = operator(**words)

    assert names(task) == names(unmapped) == expected


def test_a_task_in_a_mapped_group_has_the_outlet_too() -> None:
    """There the task is made as a plain one, by its arguments."""
    with DAG("pay", schedule=None) as dag:

        @task_group
        def each(amount: str) -> None:
            operator(amount=amount, withdrawal_ref=amount)

        each.expand(amount=["1", "2"])

    assert names(dag.get_task("each.withdraw")) == ["pacifica_withdrawals"]


def test_a_subclass_keeps_what_the_operator_adds() -> None:
    """Mapped or not, and its own ``partial`` is the operator's."""

    class Mine(WithdrawSpotAssetOperator):
        pass

    with DAG("pay", schedule=None):
        mapped = Mine.partial(task_id="m", symbol="SOL").expand(amount=["1"], withdrawal_ref=["a"])
        plain = Mine(task_id="p", symbol="SOL", amount="1")

    assert names(mapped) == names(plain) == ["pacifica_withdrawals"]
    assert (mapped.retries, plain.retries) == (3, 3)
    with pytest.raises(TypeError, match="partial can only be called on Operator classes"):
        plain.partial(task_id="q")


@pytest.mark.parametrize(
    ("words", "default_args", "expected"),
    [
        ({}, {}, (3, timedelta(minutes=1))),
        ({"retries": 0}, {}, (0, timedelta(minutes=1))),
        ({"retries": 7, "retry_delay": timedelta(seconds=5)}, {}, (7, timedelta(seconds=5))),
        ({}, {"retries": 5, "retry_delay": timedelta(minutes=2)}, (5, timedelta(minutes=2))),
        ({}, {"retry_delay": timedelta(minutes=4)}, (3, timedelta(minutes=4))),
        ({"retries": 1}, {"retries": 5}, (1, timedelta(minutes=1))),
    ],
)
@pytest.mark.parametrize("mapped", [False, True], ids=["plain", "mapped"])
def test_a_retry_comes_while_the_key_is_known(
    words: dict[str, Any], default_args: dict[str, Any], expected: tuple[int, timedelta], mapped: bool
) -> None:
    """Three retries a minute apart, unless arguments or default_args say otherwise (F97)."""
    with DAG("pay", schedule=None, default_args=default_args):
        task: Any = (
            WithdrawSpotAssetOperator.partial(
                **{"task_id": "w", "symbol": "SOL", "withdrawal_ref": "{{ task.amount }}", **words}
            ).expand(amount=["1", "2"])
            if mapped
            else operator(**words)
        )

    assert expected == (task.retries, task.retry_delay)


class Events:
    """What ``context["outlet_events"]`` is: an event for each asset that is asked for, here by its name."""

    def __init__(self) -> None:
        self.by_name: dict[str, Any] = {}

    def __getitem__(self, asset: Asset) -> Any:
        return self.by_name.setdefault(asset.name, SimpleNamespace(extra={}))


def test_the_receipt_goes_into_the_events_of_its_assets(task_context: TaskContext) -> None:
    """Airflow's page of the asset is the book of withdrawals, and so are the author's own assets; an alias has none."""
    context: Any = {**task_context.context(), "outlet_events": Events()}
    receipt = operator(outlets=[MINE, AssetAlias("alias")]).execute(context)

    assert {name: event.extra for name, event in context["outlet_events"].by_name.items()} == {
        "mine": receipt,
        "pacifica_withdrawals": receipt,
    }


def test_the_event_of_a_task_that_waited_tells_the_transaction(task_context: TaskContext) -> None:
    """What is published after the deferral is the receipt with its proof."""
    context: Any = {**task_context.context(), "outlet_events": Events()}
    row = {"symbol": "SOL", "batch_nonce": 7, "transaction_id": "5x", "seen_settled_at_ms": 1716200000000}
    receipt: Any = {
        "symbol": "SOL",
        "environment": "custom",
        "batch_nonce": 7,
        "requested_amount": "1",
        "submitted_at_ms": 1716100000000,
    }
    done = operator().execute_complete(context, {"status": "settled", "row": row}, receipt=receipt)

    assert context["outlet_events"][WITHDRAWALS].extra == done
    assert done["transaction_id"] == "5x"
