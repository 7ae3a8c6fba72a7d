"""What the fixture promises (docs/testing.md), run by tests/contract/test_pages.py in a project of its own."""

import json
import time
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG
from dags import treasury

from pacifica_provider.sandbox.pytest_plugin import REFUSALS, PacificaExchange

WAITING = [getattr(treasury, name) for name in ("waits", "defers", "pokes", "defers_in_a_sensor")]
DAY_S = 86_400


def states(dag: DAG) -> list[str]:
    """Run the DAG and return its run's state and then its tasks', in the order that they stand in it."""
    run = dag.test()
    ended = {each.task_id: str(each.state) for each in run.get_task_instances()}
    return [str(run.state), *(ended[each] for each in dag.task_ids)]


@pytest.fixture(autouse=True, scope="module")
def loaded() -> None:
    """Load Airflow before any time is taken: the first run of a process takes some seconds."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AIRFLOW_CONN_PACIFICA_ELSEWHERE", json.dumps({"conn_type": "pacifica"}))
        assert states(treasury.elsewhere) == ["failed", "failed"]


def test_the_fixture_s_times_are_real_ones(pacifica_exchange: PacificaExchange) -> None:
    """A lost answer takes a second, a wait of a day too; a machine may be busy, but not for a minute."""
    began = time.perf_counter()
    pacifica_exchange.lost_answer()
    assert states(treasury.waits) == ["success", "success"]
    pacifica_exchange.held_until_tomorrow()
    assert states(treasury.waits) == ["success", "success"]

    assert time.perf_counter() - began < 60


@pytest.mark.parametrize("dag", WAITING[:2], ids=lambda dag: dag.dag_id)
def test_a_settlement_is_waited_for_a_minute(pacifica_exchange: PacificaExchange, dag: DAG) -> None:
    """Nothing is held: it settles after a minute, and is seen soon after by the clock of the test."""
    began = pacifica_exchange.now

    assert states(dag)[0] == "success"

    pacifica_exchange.assert_paid_once("1.5", "SOL")
    assert timedelta(seconds=60) <= pacifica_exchange.now - began < timedelta(minutes=5)


@pytest.mark.parametrize("dag", WAITING, ids=lambda dag: dag.dag_id)
def test_a_day_passes_at_once(pacifica_exchange: PacificaExchange, dag: DAG) -> None:
    """What is held until tomorrow is waited for, with few looks, and no longer than until it settles."""
    pacifica_exchange.held_until_tomorrow()
    began = pacifica_exchange.now

    assert states(dag)[0] == "success"

    midnight = (began + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    assert midnight <= pacifica_exchange.now < midnight + timedelta(minutes=5)
    assert sum(pacifica_exchange.sandbox.control("GET", "/ledger")["requests"].values()) < 60
    pacifica_exchange.assert_paid_once("1.5", "SOL")


@pytest.mark.parametrize("dag", WAITING, ids=lambda dag: dag.dag_id)
def test_the_chain_is_waited_for_where_it_is_asked(pacifica_exchange: PacificaExchange, dag: DAG) -> None:
    """Nobody asks it unless the test names it; then an hour until finality passes at once."""
    pacifica_exchange.sandbox.control("POST", "/options", {"finalized_after_s": 3600})
    assert states(dag)[0] == "success"
    assert "solana" not in pacifica_exchange.sandbox.control("GET", "/ledger")["requests"]

    pacifica_exchange.connect(solana_rpc_url=pacifica_exchange.sandbox.solana_url)
    began = pacifica_exchange.now

    assert states(dag)[0] == "success"

    assert timedelta(minutes=61) <= pacifica_exchange.now - began < timedelta(minutes=70)
    assert sum(pacifica_exchange.sandbox.control("GET", "/ledger")["requests"].values()) < 60
    assert [post["outcome"] for post in pacifica_exchange.posts] == ["accepted"] * 2


@pytest.mark.parametrize("dag", WAITING, ids=lambda dag: dag.dag_id)
def test_a_timeout_is_not_jumped_over(pacifica_exchange: PacificaExchange, dag: DAG) -> None:
    """A settlement that comes an hour after the time is up saves no sensor, and the operator only in its next try."""
    pacifica_exchange.sandbox.control("POST", "/options", {"settle_after_s": 31 * 3600})
    began = pacifica_exchange.now

    run = dag.test()

    tries = {task.task_id: (str(task.state), task.try_number) for task in run.get_task_instances()}
    assert tries in ({"withdraw": ("success", 2)}, {"withdraw": ("success", 1), "settled": ("failed", 1)})
    pacifica_exchange.assert_paid_once("1.5", "SOL")
    assert pacifica_exchange.now - began >= timedelta(hours=30)


def test_what_never_settles_ends_by_its_timeout(pacifica_exchange: PacificaExchange) -> None:
    """It fails, and is not paid again by the tries that wait on."""
    pacifica_exchange.never_settled()

    assert states(treasury.waits) == ["failed", "failed"]

    pacifica_exchange.assert_paid_once("1.5", "SOL")


def test_each_mapped_withdrawal_is_paid_once(pacifica_exchange: PacificaExchange) -> None:
    """Several are told apart by amount and asset."""
    pacifica_exchange.lost_request()

    assert states(treasury.mapped)[0] == "success"
    pacifica_exchange.assert_paid(("0.25", "BTC"), ("1.50", "SOL"))


def test_a_retry_is_not_waited_for(pacifica_exchange: PacificaExchange) -> None:
    """More failures than one try bears: Airflow's retry comes at once, and asks with the same key."""
    pacifica_exchange.unavailable(times=3)

    assert states(treasury.waits) == ["success", "success"]
    pacifica_exchange.assert_paid_once("1.5", "SOL")
    assert len({post["key"] for post in pacifica_exchange.posts}) == 1
    assert len(pacifica_exchange.posts) == 4


def test_a_throttled_request_is_made_again(pacifica_exchange: PacificaExchange) -> None:
    """A 429 costs time, not a try."""
    pacifica_exchange.throttled(times=2)

    assert states(treasury.waits) == ["success", "success"]
    pacifica_exchange.assert_paid_once("1.5", "SOL")


def test_a_refusal_is_final(pacifica_exchange: PacificaExchange, capfd: pytest.CaptureFixture[str]) -> None:
    """One request, no debit, no retry; the log has Pacifica's code and words."""
    pacifica_exchange.refused("daily limit")

    assert states(treasury.waits) == ["failed", "failed"]
    pacifica_exchange.assert_nothing_paid()
    assert len(pacifica_exchange.posts) == 1
    code, words = REFUSALS["daily limit"]
    printed = capfd.readouterr().out
    assert words in printed
    assert str(code) in printed


def test_an_unknown_refusal_is_named(pacifica_exchange: PacificaExchange) -> None:
    """A word that Pacifica does not use is the test's mistake."""
    with pytest.raises(ValueError, match="no refusal 'because', only insufficient balance, "):
        pacifica_exchange.refused("because")


def test_a_connection_may_have_an_account_and_limits_of_its_own(
    pacifica_exchange: PacificaExchange, capfd: pytest.CaptureFixture[str]
) -> None:
    """``connect`` opens an account; a limit of the connection refuses what is above it."""
    account = pacifica_exchange.connect("pacifica_elsewhere", {"SOL": "10"})
    assert states(treasury.elsewhere) == ["success", "success"]
    pacifica_exchange.assert_paid_once("1.5", "SOL")
    assert pacifica_exchange.debits[0]["account"] == account != pacifica_exchange.sandbox.account

    pacifica_exchange.connect("pacifica_elsewhere", withdrawal_limits='{"SOL": "1"}')
    assert states(treasury.elsewhere) == ["failed", "failed"]
    pacifica_exchange.assert_paid_once("1.5", "SOL")
    assert "limit" in capfd.readouterr().out


def test_no_test_reaches_a_real_exchange(
    pacifica_exchange: PacificaExchange, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A connection that Airflow has from elsewhere is refused before anything is sent."""
    real = json.loads(pacifica_exchange.sandbox.airflow_connection)
    real |= {"host": None, "extra": {"environment": "mainnet"}}
    monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_ELSEWHERE", json.dumps(real))

    assert states(treasury.elsewhere) == ["failed", "failed"]
    assert "and not to the test's exchange" in capfd.readouterr().out
    pacifica_exchange.assert_nothing_paid()


def test_the_user_s_own_sleep_is_skipped(pacifica_exchange: PacificaExchange) -> None:
    """An hour of it passes, by every clock that a DAG may read."""
    before = pacifica_exchange.now, time.time(), time.monotonic(), time.monotonic_ns() / 1e9
    began = time.perf_counter()

    assert states(treasury.sleeps) == ["success", "success"]

    after = pacifica_exchange.now, time.time(), time.monotonic(), time.monotonic_ns() / 1e9
    assert (after[0] - before[0]).total_seconds() > 3600
    assert [now - then > 3600 for then, now in zip(before[1:], after[1:], strict=True)] == [True] * 3
    assert time.perf_counter() - began < 3600


def test_the_assertions_say_what_was_paid_instead(pacifica_exchange: PacificaExchange) -> None:
    """Each can fail, and its text tells what happened."""
    exchange, wrong = pacifica_exchange, []

    def fails(check: Any, *what: Any) -> None:
        with pytest.raises(AssertionError) as failure:
            check(*what)
        wrong.append(str(failure.value))

    fails(exchange.assert_paid_once)
    states(treasury.waits)
    exchange.assert_paid_once()
    exchange.assert_paid_once(symbol="SOL")
    fails(exchange.assert_nothing_paid)
    fails(exchange.assert_paid_once, "1.6")
    fails(exchange.assert_paid_once, "1.5", "BTC")
    exchange.sandbox.control("POST", "/foreign_withdrawal", {"symbol": "SOL", "amount": "99"})
    fails(exchange.assert_paid_once, "1.5", "SOL")
    fails(exchange.assert_paid, ("1.5", "SOL"))
    exchange.assert_paid(("99", "SOL"), ("1.5", "SOL"))

    assert wrong == [
        "Pacifica paid nothing, not once; it was asked never",
        "Pacifica paid 1.5 SOL, not nothing; it was asked once (accepted)",
        "Pacifica paid 1.5 SOL, not 1.6 SOL; it was asked once (accepted)",
        "Pacifica paid 1.5 SOL, not 1.5 BTC; it was asked once (accepted)",
        "Pacifica paid 1.5 SOL and 99 SOL, not once; it was asked once (accepted)",
        "Pacifica paid 1.5 SOL and 99 SOL, not 1.5 SOL; it was asked once (accepted)",
    ]


def test_what_is_pending_can_be_settled_by_hand(pacifica_exchange: PacificaExchange) -> None:
    """``settle`` ends what ``never_settled`` began, and ``skip`` takes a span or seconds."""
    exchange = pacifica_exchange
    exchange.never_settled()
    exchange.sandbox.control("POST", "/foreign_withdrawal", {"symbol": "SOL", "amount": "1"})
    exchange.skip(timedelta(hours=1))
    exchange.skip(60)
    assert exchange.debits[0]["transaction_id"] is None

    exchange.settle()

    assert exchange.debits[0]["transaction_id"] is not None
    assert exchange.sandbox.exchange.now_ms() - exchange.debits[0]["created_at"] >= 3_660_000
