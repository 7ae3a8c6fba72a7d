"""A day's limit, what waits for its reset, and an asset's minimum."""

from __future__ import annotations

import pytest

from pacifica_provider.sandbox.withdrawals import DAY_MS, midnight
from tests.contract.sandbox.wallet import Wallet, new_key

# SOL is worth 150 USD here.
THREE_SOL_USD = 450


@pytest.fixture(autouse=True)
def noon(wallet: Wallet) -> None:
    """Let each test begin at noon, UTC."""
    now = wallet.sandbox.exchange.now_ms()
    wallet.shift((midnight(now) + DAY_MS * 1.5 - now) / 1000)


def to_next_day(wallet: Wallet) -> None:
    """Move the exchange's clock past its next reset."""
    wallet.shift(DAY_MS / 2 / 1000)


def balance(wallet: Wallet) -> dict[str, str]:
    """Return the balance of SOL as the account shows it."""
    rows: list[dict[str, str]] = wallet.get("/account").json()["data"]["spot_balances"]
    return next(row for row in rows if row["symbol"] == "SOL")


def test_what_is_over_the_days_limit_waits_for_the_reset(wallet: Wallet) -> None:
    """It is accepted and debited, stays pending whatever else settles, and settles on the next day."""
    wallet.options(daily_limit_usd=THREE_SOL_USD, settle_after_s=5)
    assert [wallet.post(amount=amount).status_code for amount in ("2", "2", "1")] == [200, 200, 200]

    wallet.shift(3600)
    assert wallet.settle() == []
    assert [row["amount_requested"] for row in wallet.pending()] == ["2.00000000"]
    assert len(wallet.debits()) == 3

    to_next_day(wallet)
    assert wallet.pending() == []
    assert len(wallet.history()["data"]) == 3


def test_a_reset_frees_no_more_than_a_day_s_limit(wallet: Wallet) -> None:
    """What waits counts on the day that it goes, so the next in line waits a day longer."""
    wallet.options(daily_limit_usd=THREE_SOL_USD, settle_after_s=5)
    for _ in range(3):
        wallet.post(amount="3")

    left = [len(wallet.pending())]
    for _ in range(3):
        wallet.shift(DAY_MS / 1000)
        left.append(len(wallet.pending()))

    assert left == [3, 1, 0, 0]


def test_one_that_is_above_the_limit_by_itself_goes_alone(wallet: Wallet) -> None:
    """It waits for a day that nothing else is taken out of."""
    wallet.options(daily_limit_usd=THREE_SOL_USD, settle_after_s=5)
    wallet.post(amount="10")

    assert len(wallet.pending()) == 1
    to_next_day(wallet)
    assert wallet.pending() == []


def test_the_account_shows_what_the_day_has_used(wallet: Wallet) -> None:
    """Used and limit stand in the balance; what waits counts on the day that it goes."""
    wallet.options(daily_limit_usd=THREE_SOL_USD)
    for _ in range(2):
        wallet.post(amount="2")
    today = balance(wallet)
    to_next_day(wallet)

    assert today["effective_daily_withdraw_limit_usd"] == str(THREE_SOL_USD)
    assert [day["daily_withdraw_amount_usd"] for day in (today, balance(wallet))] == ["300", "300"]
    assert today["available_to_withdraw"] == "999996"


def test_the_limit_may_refuse_instead(wallet: Wallet) -> None:
    """The other reading of the documentation: code 116, nothing is debited."""
    wallet.options(daily_limit_usd=THREE_SOL_USD, over_daily_limit="refuse")
    wallet.post(amount="2")

    refused = wallet.post(amount="2", key=new_key())

    assert (refused.status_code, refused.json()["code"]) == (422, 116)
    assert len(wallet.debits()) == 1


def test_the_limit_is_of_each_asset_apart(wallet: Wallet) -> None:
    """Another asset's withdrawals do not count."""
    wallet.options(daily_limit_usd=THREE_SOL_USD, over_daily_limit="refuse")
    wallet.post(amount="3")

    assert wallet.post(symbol="kBONK", amount="1000").status_code == 200


def test_held_withdrawals_share_no_batch_with_others(wallet: Wallet) -> None:
    """Where withdrawals share the open batch, one that waits for the reset has its own."""
    wallet.options(daily_limit_usd=THREE_SOL_USD, shared_batches=True)
    nonces = [wallet.post(amount=amount).json()["data"]["batch_nonce"] for amount in ("1", "1", "3", "1")]

    assert nonces == [42, 42, 43, 42]
    assert {row["batch_nonce"] for row in wallet.settle()} == {42}


def test_less_than_an_asset_s_minimum_is_refused(wallet: Wallet) -> None:
    """Code 29, as for an amount that the fee would eat."""
    wallet.sandbox.control("POST", "/assets", {"symbol": "SOL", "minimum": "0.5"})

    refused = wallet.post(amount="0.499", key=new_key())

    assert (refused.status_code, refused.json()["code"]) == (422, 29)
    assert wallet.post(amount="0.5", key=new_key()).status_code == 200


def test_the_exchange_knows_when_its_lists_change_next(wallet: Wallet) -> None:
    """At the settlement of the next row, at the reset, and never where nothing is under way."""
    exchange = wallet.sandbox.exchange
    assert exchange.next_event_ms() is None
    wallet.options(daily_limit_usd=THREE_SOL_USD, settle_after_s=60, transaction_id_delay_s=30)
    for _ in range(2):
        wallet.post(amount="2")
    first, second = exchange.book.rows.values()
    seen = [exchange.next_event_ms()]
    for seconds in (61, 30, DAY_MS / 2 / 1000 - 90, 30):
        wallet.shift(seconds)
        seen.append(exchange.next_event_ms())

    reset = midnight(second.created_at) + DAY_MS
    assert seen == [first.created_at + 60_000, first.created_at + 90_000, reset, reset + 30_000, None]
