"""How waiting ends other than by the settlement: the time is up, or Pacifica does not know the withdrawal."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.api.models import SettledWithdrawal
from pacifica_provider.exceptions import SettlementTimeout
from pacifica_provider.triggers import watcher
from pacifica_provider.triggers.events import settled_row
from pacifica_provider.withdrawals import settlement
from tests.support.patience import until_in_loop
from tests.unit.triggers.bench import connected, event_of, options, pass_time, pay, requests, settle, start, trigger

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox


@pytest.mark.usefixtures("no_push")
def test_the_time_being_up_says_what_was_last_seen(sandbox: Sandbox) -> None:
    """F78: the end is by the clock, and the event is no failure of the withdrawal."""
    receipt = pay(sandbox)

    event = asyncio.run(event_of(trigger(receipt, lasts_s=0.4)))

    assert (event["status"], event["reason"]) == ("expired", "timeout")
    assert "1 SOL in batch 42 was not seen on chain in time" in event["text"]
    assert "last seen: queued in Pacifica's pending list" in event["text"]
    with pytest.raises(SettlementTimeout, match="was not seen on chain in time"):
        settled_row(event)


@pytest.mark.usefixtures("no_push")
def test_the_time_is_up_even_while_the_exchange_is_away(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trigger that cannot look still ends, before Airflow's own limit ends it without a word."""
    monkeypatch.setattr("pacifica_provider.triggers.watcher.LAST_LOOK_S", 0.3)
    sandbox.control("POST", "/faults", {"route": "*", "kind": "hang", "seconds": 3600, "count": None})

    async def wait() -> dict[str, Any]:
        return await event_of(trigger({**pay(sandbox)}, lasts_s=0.2))

    assert asyncio.run(wait())["reason"] == "timeout"


def test_a_trigger_that_starts_after_its_end_looks_once(sandbox: Sandbox) -> None:
    """A triggerer that was down over the end does not call a settled withdrawal overdue."""
    settled, pending = pay(sandbox), pay(sandbox, "2")
    settle(sandbox, symbol="SOL", batch_nonce=settled["batch_nonce"])

    async def wait() -> list[dict[str, Any]]:
        return await asyncio.gather(*start(trigger(settled, lasts_s=-3600), trigger(pending, lasts_s=-3600)))

    assert [event["status"] for event in asyncio.run(wait())] == ["settled", "expired"]


@pytest.mark.usefixtures("no_push")
def test_a_withdrawal_in_neither_list_for_too_long_is_said_to_be_unknown(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F75: a nonce that Pacifica does not know never settles; what is only pending waits on."""
    monkeypatch.setattr(settlement, "NOT_SEEN_GRACE_MS", 300)
    receipt = pay(sandbox)

    async def wait() -> dict[str, Any]:
        unknown, known = start(trigger({**receipt, "batch_nonce": 4711}, poll_interval=0.1), trigger(receipt))
        event = await unknown
        assert not known.done()
        known.cancel()
        return event

    event = asyncio.run(wait())

    assert event["reason"] == "not_seen"
    assert event["text"].startswith("1 SOL in batch 4711 has been")
    with pytest.raises(SettlementTimeout, match="neither of Pacifica's lists"):
        settled_row(event)


@pytest.mark.usefixtures("no_push")
def test_time_in_neither_list_counts_only_without_a_break(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pending list may show a withdrawal late, and the history later still; each absence counts for itself."""
    monkeypatch.setattr(settlement, "NOT_SEEN_GRACE_MS", 700)
    options(sandbox, list_lag_s=0.4, settle_gap_s=0.4)
    receipt = pay(sandbox)

    async def wait() -> str:
        (task,) = start(trigger(receipt, poll_interval=0.05))
        await asyncio.sleep(1)
        settle(sandbox)
        return str((await task)["status"])

    assert asyncio.run(wait()) == "settled"


def test_a_last_look_is_owed_to_whoever_comes_after_its_end(sandbox: Sandbox) -> None:
    """Also where the watcher has just looked: that was before the trigger came."""
    patient = pay(sandbox)

    async def wait() -> str:
        (task,) = start(trigger(patient))
        await connected()
        late = pay(sandbox, "2")
        settle(sandbox, symbol="SOL", batch_nonce=late["batch_nonce"])
        event = await event_of(trigger(late, lasts_s=-3600))
        task.cancel()
        return str(event["status"])

    assert asyncio.run(wait()) == "settled"


@pytest.mark.usefixtures("no_push")
def test_the_last_look_reads_the_history_again(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that has been between the lists for long is looked for seldom, but once more when the time is up."""
    monkeypatch.setattr("pacifica_provider.triggers.schedule.HISTORY_SHARE", 1e6)
    receipt = pay(sandbox)
    options(sandbox, settle_gap_s=3600)
    settle(sandbox)

    async def wait() -> tuple[int, str]:
        (task,) = start(trigger(receipt, lasts_s=3, poll_interval=0.1))
        await until_in_loop(lambda: requests(sandbox)["history"] >= 1)
        pass_time(sandbox, 3601)
        status = str((await task)["status"])
        return requests(sandbox)["history"], status

    assert asyncio.run(wait()) == (2, "settled")


def test_a_settlement_in_the_moment_in_which_the_time_is_up_is_not_lost(sandbox: Sandbox) -> None:
    """The clock is checked now and then; what ends the wait right after that, before the trigger runs on, counts."""
    receipt = pay(sandbox)

    async def wait() -> dict[str, Any]:
        (task,) = start(trigger(receipt))
        one = await connected()
        (case,) = one._cases
        (future,) = case.waits
        future.set_result(watcher._TIME_UP)
        one._settle(case, settlement.Settled(SettledWithdrawal("SOL", Decimal(1), 42, "5x", 0)))
        return await task

    assert asyncio.run(wait())["row"]["transaction_id"] == "5x"
