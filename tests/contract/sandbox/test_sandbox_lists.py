"""Pending, history, and the time in between."""

from __future__ import annotations

import base58
import pytest

from pacifica_provider.sandbox import Sandbox
from tests.contract.sandbox.wallet import Wallet, new_key
from tests.support.patience import until


def test_pending_row(wallet: Wallet) -> None:
    """A pending row shows net, gross and fee; it names neither key nor transaction."""
    before = wallet.sandbox.exchange.now_ms()
    wallet.post(amount="1.001", key=new_key())

    (row,) = wallet.pending()

    created_at = row.pop("created_at")
    assert row == {
        "symbol": "SOL",
        "amount": "1.00000000",
        "amount_requested": "1.00100000",
        "fee_amount": "0.00100000",
        "batch_nonce": 42,
    }
    assert before <= created_at <= wallet.sandbox.exchange.now_ms()


def test_settling_moves_the_row(wallet: Wallet) -> None:
    """A settled row leaves pending, and history has it with a transaction id of 64 bytes."""
    wallet.post()
    settled = wallet.settle()

    page = wallet.history()

    (row,) = page["data"]
    assert wallet.pending() == []
    assert set(row) == {"symbol", "amount", "batch_nonce", "transaction_id", "created_at"}
    assert (row["amount"], row["batch_nonce"]) == ("0.99900000", 42)
    assert row["transaction_id"] == settled[0]["transaction_id"] == wallet.debits()[0]["transaction_id"]
    assert len(base58.b58decode(row["transaction_id"])) == 64
    assert (page["next_cursor"], page["has_more"]) == (None, False)


def test_settle_only_one_batch(wallet: Wallet) -> None:
    """Settling can be told which asset and which batch."""
    for symbol, amount in (("SOL", "1"), ("SOL", "2"), ("BTC", "1")):
        wallet.post(symbol=symbol, amount=amount)

    by_both = wallet.settle(symbol="SOL", batch_nonce=43)
    by_nonce = wallet.settle(batch_nonce=42)

    assert [(row["symbol"], row["batch_nonce"]) for row in by_both] == [("SOL", 43)]
    assert {(row["symbol"], row["batch_nonce"]) for row in by_nonce} == {("SOL", 42), ("BTC", 42)}


def test_accounts_see_their_own_rows(wallet: Wallet, sandbox: Sandbox) -> None:
    """An account's lists hold only its own rows, and those of an unknown account are empty."""
    other = Wallet(sandbox, sandbox.control("POST", "/accounts", {"balances": {"SOL": "5"}}))
    wallet.post()

    with other.session:
        assert (other.pending(), len(wallet.pending())) == ([], 1)
        other.account = "nobody"
        assert other.pending() == []
        assert (other.get("/account").status_code, other.get("/account").json()["error"]) == (404, "Account not found")


@pytest.mark.parametrize(("scope", "nonces"), [("asset", [42, 43, 42]), ("global", [42, 43, 44])])
def test_nonce_scope(wallet: Wallet, scope: str, nonces: list[int]) -> None:
    """Nonces are counted per asset, so that two batches can share one; or for the whole exchange."""
    wallet.options(nonce_scope=scope)

    assert [wallet.post(symbol=symbol).json()["data"]["batch_nonce"] for symbol in ("SOL", "SOL", "BTC")] == nonces


def test_nonce_scope_can_change(wallet: Wallet) -> None:
    """A batch is never named twice for one asset, not even when the scope changes in between."""
    wallet.post(), wallet.post(symbol="BTC")
    wallet.options(nonce_scope="global")
    wallet.post(), wallet.post(symbol="BTC")
    wallet.options(nonce_scope="asset")
    wallet.post(), wallet.post(symbol="BTC")

    names = [(debit["symbol"], debit["batch_nonce"]) for debit in wallet.debits()]

    assert len(names) == len(set(names)) == 6


def test_nonce_as_text(wallet: Wallet) -> None:
    """The nonce is a number, or text, everywhere alike."""
    wallet.options(nonce_as_text=True)
    receipt = wallet.post().json()["data"]
    pending = wallet.pending()[0]
    wallet.settle(batch_nonce="42")

    assert [row["batch_nonce"] for row in (receipt, pending, wallet.history()["data"][0])] == ["42"] * 3


def test_shared_batches(wallet: Wallet) -> None:
    """Withdrawals of one asset can share the open batch, and then its transaction, until it settles."""
    wallet.options(shared_batches=True)
    for amount in ("1", "2"):
        wallet.post(amount=amount)
    wallet.post(symbol="BTC")
    settled = wallet.settle(symbol="SOL")
    wallet.post(amount="3")

    debits = wallet.debits()

    assert [(debit["symbol"], debit["batch_nonce"]) for debit in debits] == [
        ("SOL", 42),
        ("SOL", 42),
        ("BTC", 42),
        ("SOL", 43),
    ]
    assert len(settled) == 2
    assert len({row["transaction_id"] for row in settled}) == 1


@pytest.mark.parametrize(("shown", "amount"), [("net", "0.99900000"), ("gross", "1.00000000")])
def test_history_amount(wallet: Wallet, shown: str, amount: str) -> None:
    """Whether history shows net or gross is unknown."""
    wallet.options(history_amount=shown)
    wallet.post()
    wallet.settle()

    assert wallet.history()["data"][0]["amount"] == amount


@pytest.mark.parametrize(("shown", "later"), [("accepted", 0), ("settled", 3600)])
def test_history_time(wallet: Wallet, shown: str, later: int) -> None:
    """History's created_at is that of the pending row, or the time of settlement."""
    wallet.options(history_time=shown)
    wallet.post()
    (pending,) = wallet.pending()
    wallet.shift(3600)
    wallet.settle()

    assert (wallet.history()["data"][0]["created_at"] - pending["created_at"]) // 1000 == later


def test_list_lag(wallet: Wallet) -> None:
    """A new row can be missing from both lists for a while, settled or not."""
    wallet.options(list_lag_s=30)
    wallet.post(), wallet.post()
    wallet.settle(batch_nonce=42)
    at_once = (wallet.pending(), wallet.history()["data"])
    wallet.shift(31)

    assert at_once == ([], [])
    assert (len(wallet.pending()), len(wallet.history()["data"])) == (1, 1)


def test_settle_gap(wallet: Wallet) -> None:
    """A row can be in neither list for a while after it has left pending."""
    wallet.options(settle_gap_s=30)
    wallet.post()
    before = len(wallet.pending())
    wallet.settle()
    between = (wallet.pending(), wallet.history()["data"])
    wallet.shift(31)

    assert (before, between, len(wallet.history()["data"])) == (1, ([], []), 1)


def test_transaction_id_delay(wallet: Wallet) -> None:
    """A row can be in the history before its transaction id is."""
    wallet.options(transaction_id_delay_s=30)
    wallet.post()
    wallet.settle()
    early = wallet.history()["data"][0]["transaction_id"]
    wallet.shift(31)

    assert (early, bool(wallet.history()["data"][0]["transaction_id"])) == (None, True)


def test_clock_turned_back(wallet: Wallet) -> None:
    """Turning the clock back hides no row, and undoes no settlement."""
    wallet.post(), wallet.post()
    wallet.settle(batch_nonce=42)
    wallet.shift(-3600)

    assert (len(wallet.pending()), len(wallet.history()["data"])) == (1, 1)


def test_settle_after(wallet: Wallet) -> None:
    """With settle_after_s a row settles by itself, dated when it became due, however late one looks."""
    wallet.options(settle_after_s=60, history_time="settled")
    wallet.post()
    (pending,) = wallet.pending()
    wallet.shift(59)
    still = len(wallet.pending())
    wallet.shift(600)

    (row,) = wallet.history()["data"]

    assert (still, row["created_at"]) == (1, pending["created_at"] + 60_000)


def test_settle_after_in_real_time() -> None:
    """The library's argument does the same without any clock being shifted."""
    with Sandbox(settle_after_s=0.5) as sandbox:
        wallet = Wallet(sandbox)
        with wallet.session:
            wallet.post()
            at_once = len(wallet.pending())
            until(lambda: not wallet.pending())

            assert (at_once, len(wallet.history()["data"])) == (1, 1)
