"""The hook against the sandbox: reading, with and without a key, and what its connection test says."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ConnectionResult, ErrorResponse, GetConnection

from pacifica_provider.exceptions import ConfigurationError, Throttled, Unreachable, Unresolved
from pacifica_provider.hooks.pacifica import PacificaHook
from pacifica_provider.withdrawals.settlement import QUEUED, Awaited, Settled, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.task_context import TaskContext

OTHER = "8S9vx1PxFeCw1QTQpKcYSSWYtLDAEiBBHU7wo4P72pXx"
ELSEWHERE = "3XFMYUVYxi8Hy3dCa4uJz4CVmPUovmGoyANGWjYwpesCmjqrf6DpWKDJzTJDu1XCNJVFC5VHDAKzounsdPW7VjsC"
READS: dict[str, Callable[[PacificaHook], Any]] = {
    "pending": lambda hook: hook.pending_withdrawals(),
    "history": lambda hook: hook.withdrawal_history(),
    "account": lambda hook: hook.spot_balances(),
    "settlement": lambda hook: hook.settlement(Awaited("SOL", 7, Decimal(1)), Waiting()),
}
READ = pytest.mark.parametrize("read", READS.values(), ids=READS)


def test_the_reads_return_what_the_exchange_lists(task_context: TaskContext) -> None:
    """Pending, history and balances come as records with exact amounts."""
    task_context.sandbox.control("POST", "/foreign_withdrawal", {"symbol": "SOL", "amount": "2"})
    hook = PacificaHook()
    pending = hook.pending_withdrawals()
    task_context.sandbox.control("POST", "/settle")
    history = hook.withdrawal_history(since_ms=0)

    assert [(row.symbol, row.amount_requested) for row in pending] == [("SOL", Decimal(2))]
    assert [row.batch_nonce for row in history] == [pending[0].batch_nonce]
    assert Decimal(999_998) in {row.amount for row in hook.spot_balances() if row.symbol == "SOL"}


def test_another_connection_is_read_by_its_id(task_context: TaskContext) -> None:
    """The hook takes the id by position, or as ``pacifica_conn_id`` as Airflow's ``get_hook`` gives it."""
    task_context.connect(extra="{}")
    task_context.connect("AIRFLOW_CONN_OTHER")

    assert PacificaHook("other").spot_balances() == PacificaHook(pacifica_conn_id="other").spot_balances()
    with pytest.raises(ConfigurationError):
        PacificaHook().spot_balances()


@pytest.mark.parametrize("password", [None, "", "not a key at all"])
@READ
def test_reading_never_loads_the_key(
    task_context: TaskContext, read: Callable[[PacificaHook], Any], password: str | None
) -> None:
    """A connection without a key, or with a broken one, reads all the same (S06)."""
    task_context.connect(password=password)

    assert read(PacificaHook()) is not None


def test_a_client_of_the_hook_only_reads(task_context: TaskContext) -> None:
    """``get_conn`` hands out a client without a key: there is no way past the protocol."""
    client = PacificaHook().get_conn()

    assert client.pending_withdrawals().rows == ()
    with pytest.raises(ConfigurationError, match="holds no private key"):
        client.withdraw_spot_asset("SOL", Decimal(1), idempotency_key="k", timestamp_ms=1)


@READ
def test_a_connection_that_is_not_defined_is_the_owner_s_to_mend(read: Callable[[PacificaHook], Any]) -> None:
    """Airflow's own error would be retried for minutes, and says neither what to do nor that nothing was sent."""
    with pytest.raises(ConfigurationError, match=r"knows no connection 'nowhere'.*Nothing was sent") as caught:
        read(PacificaHook("nowhere"))

    assert isinstance(caught.value, AirflowFailException)
    assert caught.value.__cause__ is None


class Supervisor:
    """A task's supervisor that is asked for a connection, and gives these answers in turn, the last one for ever."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)

    def send(self, message: object) -> object:
        """Answer, or raise."""
        assert message == GetConnection(conn_id="nowhere")
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


NOT_DEFINED = ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND, detail={"conn_id": "nowhere"})
THERE = ConnectionResult.model_construct(conn_id="nowhere", conn_type="pacifica")
API_DOWN = ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"message": "Connection refused"})


@READ
def test_a_connection_that_airflow_s_api_does_not_know_is_not_defined(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[PacificaHook], Any]
) -> None:
    """In a task Airflow's own word for it is believed."""
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(NOT_DEFINED), raising=False)

    with pytest.raises(ConfigurationError, match="knows no connection 'nowhere'"):
        read(PacificaHook("nowhere"))


@READ
@pytest.mark.parametrize(
    ("answers", "what"),
    [
        ([AirflowRuntimeError(API_DOWN)], "AirflowRuntimeError"),
        ([API_DOWN], "API_SERVER_ERROR"),
        ([EOFError("the supervisor is gone")], "EOFError"),
        ([API_DOWN, THERE], "it answers now"),
    ],
)
def test_a_connection_that_airflow_did_not_hand_over_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[PacificaHook], Any], answers: list[object], what: str
) -> None:
    """Airflow says "isn't defined" as well where its API does not answer; a retry, which Airflow makes, finds it."""
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(*answers), raising=False)

    with pytest.raises(Unresolved, match=rf"did not hand over.*'nowhere' \({what}\)\. Nothing was sent by") as caught:
        read(PacificaHook("nowhere"))

    assert not isinstance(caught.value, AirflowFailException)


@READ
def test_only_errors_that_may_pass_are_retried(task_context: TaskContext, read: Callable[[PacificaHook], Any]) -> None:
    """What only the owner can mend fails the task at once; the rest is left to Airflow's retries (F79)."""
    task_context.connect(extra={"environment": "nowhere"})
    with pytest.raises(ConfigurationError) as refused:
        read(PacificaHook())
    task_context.connect()
    task_context.fault("status", route="*", status=503)
    with pytest.raises(Unreachable) as transient:
        read(PacificaHook())
    task_context.fault("status", route="*", status=429, headers={"Retry-After": "3"})
    with pytest.raises(Throttled) as throttled:
        read(PacificaHook())

    assert isinstance(refused.value, AirflowFailException)
    assert not isinstance(transient.value, AirflowFailException)
    assert not isinstance(throttled.value, AirflowFailException)
    assert throttled.value.retry_after_s == 3


def test_the_history_is_read_only_once_the_row_has_left_pending(task_context: TaskContext) -> None:
    """While it is queued one cheap request is enough: a fault on the history is not even met."""
    nonce = task_context.sandbox.control("POST", "/foreign_withdrawal", {"symbol": "SOL", "amount": "2"})["batch_nonce"]
    awaited = Awaited("SOL", int(nonce), Decimal(2))
    task_context.fault("status", route="history", status=500)
    queued = PacificaHook().settlement(awaited, Waiting())
    task_context.sandbox.control("POST", "/settle")
    with pytest.raises(Unreachable):
        PacificaHook().settlement(awaited, Waiting())

    assert queued == QUEUED
    assert isinstance(PacificaHook().settlement(awaited, Waiting()), Settled)


def test_a_fee_that_is_known_is_not_read_again(task_context: TaskContext) -> None:
    """The receipt's fee serves; without one the asset's present fee is read (F77)."""
    nonce = task_context.sandbox.control("POST", "/foreign_withdrawal", {"symbol": "SOL", "amount": "2"})["batch_nonce"]
    task_context.sandbox.control("POST", "/settle")
    task_context.sandbox.control("POST", "/assets", {"symbol": "SOL", "fee": "0.5"})
    awaited = Awaited("SOL", int(nonce), Decimal(2))

    assert isinstance(PacificaHook().settlement(awaited, Waiting(), Decimal("0.001")), Settled)
    assert isinstance(PacificaHook().settlement(awaited, Waiting()), Waiting)


@pytest.mark.parametrize(("history_amount", "seen"), [("gross", Settled), ("net", Waiting)])
def test_an_asset_whose_bridge_is_gone_is_still_looked_for(
    task_context: TaskContext, history_amount: str, seen: type
) -> None:
    """Its fee cannot be read: then only a gross row is a match, in the worker as in the triggerer."""
    task_context.sandbox.control("POST", "/options", {"history_amount": history_amount})
    nonce = task_context.sandbox.control("POST", "/foreign_withdrawal", {"symbol": "SOL", "amount": "2"})["batch_nonce"]
    task_context.sandbox.control("POST", "/settle")
    task_context.sandbox.control("POST", "/assets", {"symbol": "SOL", "bridge": "missing"})

    assert isinstance(PacificaHook().settlement(Awaited("SOL", int(nonce), Decimal(2)), Waiting()), seen)


def test_the_connection_test_moves_nothing(task_context: TaskContext) -> None:
    """It reads one account: no withdraw request, no signature."""
    good, sentence = PacificaHook().test_connection()

    assert good
    assert (
        f"(custom, {task_context.sandbox.base_url}) knows account {task_context.sandbox.account} and shows its "
        in sentence
    )
    assert sentence.endswith("There are no withdrawal limits. Its clock and this machine's agree.")
    assert task_context.posts() == []


@pytest.mark.parametrize(
    ("hours", "says"), [(2, "clock is 7200 s behind Pacifica's"), (-1, "clock is 3600 s ahead of Pacifica's")]
)
def test_the_connection_test_tells_limits_and_clock(task_context: TaskContext, hours: int, says: str) -> None:
    """What a withdrawal would be refused for is said before one is tried."""
    task_context.connect(extra={"withdrawal_limits": {"SOL": "10", "BTC": "0.50"}})
    task_context.sandbox.control("POST", "/clock", {"offset_ms": hours * 3_600_000})
    good, sentence = PacificaHook().test_connection()

    assert good
    assert "At most 10 SOL, 0.50 BTC in one withdrawal, and nothing else." in sentence
    assert says in sentence


def test_the_connection_test_needs_a_date(task_context: TaskContext) -> None:
    """Without it nothing would be withdrawn, so it is said."""
    task_context.sandbox.control("POST", "/faults", {"route": "pending", "kind": "no_date", "when": "after_commit"})

    assert "Its answers carry no Date" in PacificaHook().test_connection()[1]


@pytest.mark.parametrize(
    ("key", "pin", "says"),
    [
        (
            "agent",
            None,
            "The private key is that of agent {agent}. Whether it is bound to the account shows at the first",
        ),
        ("agent", "agent", "The private key is that of agent {agent}."),
        ("owner", None, "The private key is the account's own; an agent key would risk less."),
        ("owner", "owner", "The private key is the account's own; an agent key would risk less."),
        (None, None, "There is no private key: this connection can read, but not withdraw."),
        ("", None, "There is no private key: this connection can read, but not withdraw."),
        (None, "agent", "There is no private key: this connection can read, but not withdraw."),
    ],
)
def test_a_good_connection_says_whose_key_it_holds(
    task_context: TaskContext, key: str | None, pin: str | None, says: str
) -> None:
    """Agent, owner or nobody: the sentence says what the connection can do (S09)."""
    keys = {"agent": task_context.sandbox.agent_private_key, "owner": task_context.sandbox.private_key}
    addresses = {"agent": task_context.agent_wallet, "owner": task_context.sandbox.account}
    task_context.connect(
        password=None if key is None else keys.get(key, key),
        extra={} if pin is None else {"agent_wallet": addresses[pin]},
    )
    good, sentence = PacificaHook().test_connection()

    assert good
    assert f" knows account {task_context.sandbox.account} " in sentence
    assert says.format(**addresses) in sentence


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"login": "x"}, "Account (login) is not a Solana address"),
        ({"login": OTHER}, "HTTP 404 Account not found"),
        ({"extra": {"environment": ""}}, "(extra 'environment') must be"),
        ({"extra": {"environment": "mainnet"}}, "is only for Environment custom"),
        ({"password": "broken key"}, "private key cannot be used"),
        ({"extra": {"agent_wallet": OTHER}}, "pins another agent wallet than that of its private key"),
        ({"host": "http://127.0.0.1:1"}, "connection refused"),
        ({"host": "http://exchange.example"}, "must begin with https://"),
        ({"extra": {"private_key": ELSEWHERE}}, "unknown extra private_key"),
        ({"extra": "[]"}, "extra is not a JSON object"),
    ],
)
def test_a_bad_connection_says_what_to_mend(task_context: TaskContext, changes: dict[str, Any], says: str) -> None:
    """Every failure is a sentence of this package, without a key in it (S09)."""
    task_context.connect(**changes)
    good, sentence = PacificaHook().test_connection()

    assert (good, says in sentence) == (False, True), sentence
    assert ELSEWHERE[:12] not in sentence
    assert task_context.sandbox.agent_private_key[:12] not in sentence
