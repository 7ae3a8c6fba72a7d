"""The trigger itself: what is stored of it, what it reads, and how it ends."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.api.signing import Signer
from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.triggers.events import AlienEventError, settled_row
from pacifica_provider.triggers.withdrawal import WithdrawalBatchTrigger
from tests.support.patience import until_in_loop
from tests.unit.triggers.bench import event_of, options, pass_time, pay, requests, settle, start, trigger

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox

ARGUMENTS: dict[str, Any] = {
    "pacifica_conn_id": "pacifica_default",
    "symbol": "SOL",
    "batch_nonce": 42,
    "amount": "1",
    "end_time": 1_800_000_000.5,
    "poll_interval": 30,
    "fee_amount": "0.001",
    "submitted_at_ms": 1_795_000_000_000,
}


def test_what_is_stored_of_a_trigger_is_frozen() -> None:
    """S06: class path and plain JSON, no secret: this lies readable in Airflow's database, also across upgrades."""
    stored = WithdrawalBatchTrigger(**ARGUMENTS).serialize()

    assert stored == ("pacifica_provider.triggers.withdrawal.WithdrawalBatchTrigger", ARGUMENTS)
    assert json.loads(json.dumps(stored[1])) == ARGUMENTS
    assert WithdrawalBatchTrigger(**stored[1]).serialize() == stored


def test_a_trigger_stored_by_an_older_release_still_starts() -> None:
    """What was added later has defaults."""
    old = {name: value for name, value in ARGUMENTS.items() if name not in {"fee_amount", "submitted_at_ms"}}

    assert WithdrawalBatchTrigger(**old).serialize()[1] == {**old, "fee_amount": None, "submitted_at_ms": None}


def test_what_a_later_airflow_passes_reaches_airflow() -> None:
    """Airflow 3.4 hands more arguments to the base class."""
    assert WithdrawalBatchTrigger(**ARGUMENTS, queue="q").serialize()[1] == ARGUMENTS


def test_the_private_key_is_never_loaded(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password that is no key at all does not disturb the triggerer, which only reads."""
    connection = {**json.loads(sandbox.airflow_connection), "password": "not a key"}
    monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", json.dumps(connection))
    monkeypatch.setattr(Signer, "from_base58", None)
    receipt = pay(sandbox)
    settle(sandbox)

    assert asyncio.run(event_of(trigger(receipt)))["status"] == "settled"


def test_the_connection_is_read_once_for_all(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred triggers on one connection make one round trip to Airflow, not a hundred."""
    from airflow.providers.common.compat import connection

    asked: list[str] = []
    ask = connection.get_async_connection

    async def counting(conn_id: str) -> Any:
        asked.append(conn_id)
        return await ask(conn_id)

    monkeypatch.setattr(connection, "get_async_connection", counting)
    receipt = pay(sandbox)
    settle(sandbox)

    async def wait() -> list[dict[str, Any]]:
        return await asyncio.gather(*start(*(trigger(receipt) for _ in range(100))))

    assert len(asyncio.run(wait())) == 100
    assert asked == ["pacifica_default"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "may the triggerer read it"),
        ({"conn_type": "pacifica", "password": "hush"}, "environment"),
        ({"conn_type": "pacifica", "password": "hush", "extra": {"seed": "hush"}}, "unknown extra seed"),
    ],
)
def test_a_connection_that_cannot_be_used_fails_in_safe_words(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any] | None, says: str
) -> None:
    """S05: the error is stored with its trace, so it quotes nothing and drags no other error along."""
    monkeypatch.delenv("AIRFLOW_CONN_PACIFICA_DEFAULT")
    if given is not None:
        monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", json.dumps(given))

    with pytest.raises(ConfigurationError, match=says) as caught:
        asyncio.run(event_of(WithdrawalBatchTrigger(**{**ARGUMENTS, "end_time": time.time() + 9})))

    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize("history_amount", ["net", "gross"])
@pytest.mark.parametrize("fee_amount", ["0.001", None])
def test_net_and_gross_history_is_understood(sandbox: Sandbox, history_amount: str, fee_amount: str | None) -> None:
    """A row is found whichever it shows; the asset's fee is read only where nothing else tells it, and once for all."""
    options(sandbox, history_amount=history_amount)
    receipts = [pay(sandbox), pay(sandbox, "2"), pay(sandbox, "3")]
    settle(sandbox)

    async def wait() -> list[dict[str, Any]]:
        return await asyncio.gather(*start(*(trigger(receipt, fee_amount=fee_amount) for receipt in receipts)))

    assert {event["status"] for event in asyncio.run(wait())} == {"settled"}
    needed = history_amount == "net" and fee_amount is None
    assert requests(sandbox)["bridge_parameters"] == int(needed)


def row_that_comes_later(sandbox: Sandbox, receipt: dict[str, Any]) -> dict[str, Any]:
    """Wait for what the history shows an hour later only, after two looks that do not settle it."""

    async def wait() -> dict[str, Any]:
        (task,) = start(trigger(receipt, poll_interval=0.1))
        await until_in_loop(lambda: requests(sandbox)["history"] >= 2)
        assert not task.done()
        pass_time(sandbox, 3601)
        return dict((await task)["row"])

    return asyncio.run(wait())


@pytest.mark.usefixtures("no_push")
def test_a_row_without_a_transaction_id_is_waited_for(sandbox: Sandbox) -> None:
    """F82: in the history is not on chain."""
    options(sandbox, transaction_id_delay_s=3600)
    receipt = pay(sandbox)
    settle(sandbox)

    assert row_that_comes_later(sandbox, receipt)["transaction_id"]


@pytest.mark.usefixtures("no_push")
def test_a_row_between_the_lists_is_waited_for(sandbox: Sandbox) -> None:
    """F75: gone from pending is not settled."""
    options(sandbox, settle_gap_s=3600)
    receipt = pay(sandbox)
    settle(sandbox)

    assert row_that_comes_later(sandbox, receipt)["amount"] == "0.999"


@pytest.mark.parametrize("event", [None, {}, {"status": "done"}, {"status": "settled", "row": {"symbol": "SOL"}}])
def test_an_event_that_is_not_understood_raises(event: dict[str, Any] | None) -> None:
    """F80: nothing is concluded from it."""
    with pytest.raises(AlienEventError):
        settled_row(event)


def test_killing_only_logs(capsys: pytest.CaptureFixture[str]) -> None:
    """F39: a withdrawal cannot be recalled, so nothing is sent and nothing raised."""
    asyncio.run(WithdrawalBatchTrigger(**ARGUMENTS).on_kill())

    assert "cannot be recalled" in capsys.readouterr().out


def test_it_wakes_nobody_before_the_withdrawal_is_settled(sandbox: Sandbox) -> None:
    """However often it looks."""
    receipt = pay(sandbox)

    async def wait() -> bool:
        (task,) = start(trigger(receipt, poll_interval=0.05))
        await until_in_loop(lambda: requests(sandbox)["pending"] >= 1)
        await asyncio.sleep(0.3)
        done = task.done()
        task.cancel()
        return done

    assert not asyncio.run(wait())
