"""The WebSocket: it makes waiting quick and cheap, proves only what leaves no doubt, and is never needed."""

from __future__ import annotations

import asyncio
import logging
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.triggers import push, watcher
from pacifica_provider.withdrawals.settlement import Confirmation
from tests.support.patience import until_in_loop
from tests.unit.triggers.bench import (
    PACE_S,
    alone,
    connected,
    options,
    pass_time,
    pay,
    requests,
    settle,
    sockets,
    start,
    trigger,
    watchers,
    web_socket,
)

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox


def test_a_push_wakes_and_slows_the_polling(sandbox: Sandbox) -> None:
    """With a healthy socket a short interval is not used up, and no poll a minute later is waited for."""
    receipt = pay(sandbox)

    async def wait() -> tuple[int, float]:
        (task,) = start(trigger(receipt, poll_interval=0.05))
        await connected()
        before = requests(sandbox)["pending"]
        await asyncio.sleep(1)
        polls = requests(sandbox)["pending"] - before
        settled_at = time.monotonic()
        settle(sandbox)
        await task
        return polls, time.monotonic() - settled_at

    polls, took_s = asyncio.run(wait())

    assert polls == 0
    assert took_s < watcher.PUSH_INTERVAL_S / 2


def test_a_push_that_says_everything_settles_without_a_look(sandbox: Sandbox) -> None:
    """Everybody who waits for that one row is told, and no list is read for it."""
    receipt = pay(sandbox)

    async def wait() -> tuple[list[dict[str, Any]], int]:
        tasks = start(trigger(receipt), trigger(receipt, fee_amount="0.001"))
        await connected()
        before = requests(sandbox)["pending"]
        settle(sandbox)
        return [await task for task in tasks], requests(sandbox)["pending"] - before

    events, looks = asyncio.run(wait())
    (debit,) = sandbox.control("GET", "/ledger")["debits"]

    assert [event["row"] for event in events] == [
        {
            "symbol": "SOL",
            "batch_nonce": receipt["batch_nonce"],
            "amount": "0.999",
            "transaction_id": debit["transaction_id"],
            "created_at_ms": events[0]["row"]["created_at_ms"],
            "seen_settled_at_ms": seen_ms,
        }
        for seen_ms in [event["row"]["seen_settled_at_ms"] for event in events]
    ]
    assert (looks, requests(sandbox)["history"]) == (0, 0)


@pytest.mark.parametrize("doubt", ["another amount is awaited", "an equal row", "another fee", "any amount"])
def test_a_push_that_leaves_a_doubt_lets_the_history_decide(sandbox: Sandbox, doubt: str) -> None:
    """An equal row of the batch, another fee, or no amount to compare: then only the history proves it (F77)."""
    options(sandbox, shared_batches=True)
    receipt = pay(sandbox)
    if doubt == "an equal row":
        pay(sandbox)
    asked: dict[str, dict[str, Any]] = {
        "another amount is awaited": {"requested_amount": "2"},
        "any amount": {"requested_amount": None},
    }
    fee: dict[str, Any] = {"fee_amount": "0.002"} if doubt == "another fee" else {}

    settles = doubt in {"an equal row", "any amount"}

    async def wait() -> bool:
        (task,) = start(trigger({**receipt, **asked.get(doubt, {})}, **fee))
        await connected()
        settle(sandbox)
        await until_in_loop(lambda: requests(sandbox)["history"] >= 1)
        await asyncio.wait([task], timeout=None if settles else 1)
        done = task.done() and task.result()["status"] == "settled"
        task.cancel()
        return done

    assert asyncio.run(wait()) == settles


WHOLE = {
    "u": "me",
    "e": "withdrawal_confirmed",
    "a": "SOL",
    "am": "0.999",
    "bn": 7,
    "ra": "1",
    "f": "0.001",
    "tx": "5x",
}


@pytest.mark.parametrize("changes", [{}, {"bn": "7"}, {"am": "1"}])
def test_a_whole_confirmation_is_read(changes: dict[str, Any]) -> None:
    """What arrives may be told gross or net, the nonce as digits."""
    told = {**WHOLE, **changes}

    assert push._read(told) == (
        ("SOL", 7),
        Confirmation("SOL", 7, Decimal(1), Decimal(told["am"]), Decimal("0.001"), "5x"),
    )


@pytest.mark.parametrize(
    "changes",
    [
        *({name: None} for name in ("u", "am", "ra", "f", "tx")),
        *({"u": odd} for odd in (5, ["me"], {"u": "me"})),
        *({"tx": odd} for odd in ("", 5, ["5x"])),
        *({"ra": odd} for odd in (1, 1.0, "1e0", "-1")),
        *({"am": odd} for odd in ("0.998", "1.001", "0", 0.999)),
    ],
)
def test_a_confirmation_that_lacks_something_is_a_hint_only(changes: dict[str, Any]) -> None:
    """A field is missing, odd, or the amounts do not add up: the batch is looked at, nothing is concluded."""
    assert push._read({**WHOLE, **changes}) == (("SOL", 7), None)


@pytest.mark.parametrize("whose", [None, 5, ["me"]])
def test_a_push_of_an_odd_account_makes_everybody_look(sandbox: Sandbox, whose: Any) -> None:
    """It may be about any of the twenty accounts of the connection."""
    receipt = pay(sandbox)

    async def wait() -> int:
        (task,) = start(trigger(receipt))
        one = await connected()
        before = requests(sandbox)["pending"]
        one._push._socket._transfer({**WHOLE, "u": whose, "bn": receipt["batch_nonce"]})
        await until_in_loop(lambda: requests(sandbox)["pending"] > before)
        task.cancel()
        return before

    assert asyncio.run(wait()) >= 1


def test_a_push_without_a_history_row_is_no_proof(sandbox: Sandbox) -> None:
    """Told only that its batch is confirmed, the watcher looks, sees it pending, and waits on."""
    receipt = pay(sandbox)

    async def wait() -> bool:
        (task,) = start(trigger(receipt))
        one = await connected()
        before = requests(sandbox)["pending"]
        one._push.tell(push.Heard(("SOL", receipt["batch_nonce"]), None))
        await until_in_loop(lambda: requests(sandbox)["pending"] > before)
        await asyncio.sleep(0.4)
        done = task.done()
        settle(sandbox)
        await task
        return done

    assert not asyncio.run(wait())


def test_a_history_that_lags_behind_the_push_is_looked_at_again_soon(sandbox: Sandbox) -> None:
    """The lists may be late; seconds of looks follow a push, not one look and a minute of waiting."""
    receipt = pay(sandbox)
    options(sandbox, settle_gap_s=3600)

    async def wait() -> tuple[float, str]:
        (task,) = start(trigger(receipt))
        one = await connected()
        web_socket(sandbox, "silence")
        settle(sandbox)
        begun = time.monotonic()
        one._push.tell(push.Heard(("SOL", receipt["batch_nonce"]), None))
        await until_in_loop(lambda: requests(sandbox)["history"] >= 3)
        took_s = time.monotonic() - begun
        pass_time(sandbox, 3601)
        return took_s, (await task)["status"]

    took_s, status = asyncio.run(wait())

    assert (took_s < watcher.PUSH_INTERVAL_S / 2, status) == (True, "settled")


def test_a_push_of_somebody_elses_batch_costs_nothing(sandbox: Sandbox) -> None:
    """Other withdrawals of a busy account do not make the watcher look."""
    receipt, other = pay(sandbox), pay(sandbox, "2")

    async def wait() -> int:
        (task,) = start(trigger(receipt))
        await connected()
        before = requests(sandbox)["pending"]
        settle(sandbox, symbol="SOL", batch_nonce=other["batch_nonce"])
        await asyncio.sleep(0.5)
        task.cancel()
        return requests(sandbox)["pending"] - before

    assert asyncio.run(wait()) == 0


@pytest.mark.parametrize("data", [{}, {"a": "SOL", "bn": None}])
def test_a_push_that_names_no_batch_may_mean_any(data: dict[str, Any]) -> None:
    """The nonce is documented as optional."""
    assert push._read({"u": "me", "e": "withdrawal_confirmed", **data}) == (None, None)


@pytest.mark.parametrize("end", ["cut", "24 h"])
def test_a_socket_that_ends_is_opened_again_and_the_gap_is_looked_into(sandbox: Sandbox, end: str) -> None:
    """What was confirmed while nobody listened is found by the look that follows the reconnection."""
    receipt = pay(sandbox)

    async def wait() -> float:
        (task,) = start(trigger(receipt))
        await connected()
        web_socket(sandbox, "refuse")
        if end == "cut":
            web_socket(sandbox, "cut")
        else:
            options(sandbox, ws_max_age_s=0)
        await until_in_loop(lambda: sockets(sandbox) == 0)
        settle(sandbox)
        await asyncio.sleep(0.2)
        options(sandbox, ws_max_age_s=86_400)
        web_socket(sandbox, "accept")
        begun = time.monotonic()
        assert not task.done()
        await task
        return time.monotonic() - begun

    assert asyncio.run(wait()) < PACE_S / 2


def test_a_silent_socket_is_not_trusted(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that answers no ping counts as none: the polling takes up its own pace, and finds the settlement."""
    monkeypatch.setattr(push, "SILENCE_S", 0.3)
    monkeypatch.setattr(push, "PING_EVERY_S", 0.1)
    receipt = pay(sandbox)

    async def wait() -> str:
        (task,) = start(trigger(receipt, poll_interval=0.2))
        await connected()
        web_socket(sandbox, "silence")
        await until_in_loop(lambda: not watchers()[0].push_is_healthy)
        settle(sandbox)
        return str((await asyncio.wait_for(task, watcher.PUSH_INTERVAL_S / 2))["status"])

    assert asyncio.run(wait()) == "settled"


@pytest.mark.usefixtures("no_push")
def test_without_a_web_socket_polling_does_it_all(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """Where it cannot be reached that is said once, at INFO, and tried again ever less often."""
    caplog.set_level(logging.INFO, "pacifica_provider.triggers.push")
    receipt = pay(sandbox)

    async def wait() -> str:
        (task,) = start(trigger(receipt, poll_interval=0.1))
        await until_in_loop(lambda: caplog.records)
        await asyncio.sleep(1)
        settle(sandbox)
        return str((await task)["status"])

    assert asyncio.run(wait()) == "settled"
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "polling goes on" in caplog.text


def test_no_proxy_of_the_environment_is_used(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """F12: neither list nor socket goes through a proxy that the environment names."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "wss_proxy", "ws_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    receipt = pay(sandbox)

    async def wait() -> str:
        (task,) = start(trigger(receipt))
        await connected()
        settle(sandbox)
        return str((await task)["status"])

    assert asyncio.run(wait()) == "settled"


def accounts(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, count: int) -> list[tuple[str, dict[str, Any]]]:
    """Make so many accounts, each with a connection and a withdrawal; return connection id and receipt of each."""
    made = []
    for number in range(count):
        account = sandbox.control("POST", "/accounts", {"balances": {"SOL": "100"}})
        monkeypatch.setenv(f"AIRFLOW_CONN_ACCOUNT_{number}", account["airflow_connection"])
        wish = {"symbol": "SOL", "amount": "1", "account": account["account"]}
        receipt = sandbox.control("POST", "/foreign_withdrawal", wish)
        made.append((f"account_{number}", {**receipt, "account": account["account"]}))
    return made


def waiting_for(made: list[tuple[str, dict[str, Any]]], **kwargs: Any) -> list[asyncio.Task[dict[str, Any]]]:
    """Let each account's trigger wait, as the operator defers it."""
    known: dict[str, Any] = {"fee_amount": "0.001", "submitted_at_ms": 1}
    return start(*(trigger(receipt, pacifica_conn_id=conn_id, **known, **kwargs) for conn_id, receipt in made))


async def standing(count: int) -> None:
    """Wait until so many subscriptions stand."""
    await until_in_loop(lambda: sum(each.push_is_healthy for each in watchers()) == count)


def test_twenty_accounts_share_a_socket(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty-five accounts have three; each is told of its own withdrawal, and those that leave make room."""
    made = accounts(sandbox, monkeypatch, 65)

    async def wait() -> tuple[list[int], list[str]]:
        tasks = waiting_for(made[:45])
        await standing(45)
        counts = [sockets(sandbox)]
        for task in tasks[5:]:
            task.cancel()
        await asyncio.wait(tasks[5:])
        tasks = [*tasks[:5], *waiting_for(made[45:])]
        await standing(25)
        counts.append(sockets(sandbox))
        settle(sandbox)
        events = await asyncio.gather(*tasks)
        assert await alone()
        return counts, [event["status"] for event in events]

    (before, after), statuses = asyncio.run(wait())

    assert (before, statuses) == (3, ["settled"] * 25)
    assert after <= 3


def test_a_cut_socket_loses_nobodys_event(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """What settles while it is away is found by the poll that follows, for each account that was on it."""
    made = accounts(sandbox, monkeypatch, 6)

    async def wait() -> list[str]:
        tasks = waiting_for(made)
        await standing(6)
        web_socket(sandbox, "refuse")
        web_socket(sandbox, "cut")
        await standing(0)
        for _, receipt in made[:3]:
            settle(sandbox, symbol="SOL", batch_nonce=receipt["batch_nonce"])
        web_socket(sandbox, "accept")
        events = await asyncio.wait_for(asyncio.gather(*tasks[:3]), PACE_S / 2)
        await standing(3)
        settle(sandbox)
        events += await asyncio.wait_for(asyncio.gather(*tasks[3:]), PACE_S / 2)
        assert await alone()
        return [event["status"] for event in events]

    assert asyncio.run(wait()) == ["settled"] * 6


def test_an_account_whose_subscription_is_refused_polls_and_the_others_do_not(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exchange allows fewer than we thought: those beyond are without push, and nobody else."""
    monkeypatch.setattr(push, "MOST_ACCOUNTS", 23)
    made = accounts(sandbox, monkeypatch, 23)

    async def wait() -> tuple[int, list[str]]:
        tasks = waiting_for(made, poll_interval=0.2)
        await standing(20)
        count = sockets(sandbox)
        settle(sandbox)
        events = await asyncio.gather(*tasks)
        assert await alone()
        return count, [event["status"] for event in events]

    assert asyncio.run(wait()) == (1, ["settled"] * 23)


def test_an_error_that_is_about_no_subscription_ends_the_connection(sandbox: Sandbox) -> None:
    """It is opened again, and everybody is subscribed anew."""
    receipt = pay(sandbox)

    async def wait() -> bool:
        (task,) = start(trigger(receipt))
        one = await connected()
        socket = one._push._socket
        with pytest.raises(push._SilentError):
            socket._hear('{"channel":"error","code":400}')
        task.cancel()
        return True

    assert asyncio.run(wait())
