"""The switches of the idempotency table, each of them both ways."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests.contract.sandbox.wallet import Wallet, new_key
from tests.support.patience import until

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox


def background(wallet: Wallet, body: object, statuses: list[int]) -> threading.Thread:
    """Post from another thread."""

    def run() -> None:
        other = Wallet(wallet.sandbox)
        with other.session:
            statuses.append(other.post(body).status_code)  # type: ignore[arg-type]  # a signed body

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("shape", "kind", "text"),
    [
        ("envelope", "application/json", '"code":409'),
        ("text", "text/plain; charset=utf-8", "Duplicate idempotency key"),
        ("empty", "text/plain; charset=utf-8", ""),
    ],
)
def test_duplicate_body(wallet: Wallet, shape: str, kind: str, text: str) -> None:
    """What a 409 says is unknown: an envelope, bare text, or nothing."""
    wallet.options(duplicate_body=shape)
    key = new_key()
    wallet.post(key=key)

    response = wallet.post(key=key)

    assert (response.status_code, response.headers["content-type"]) == (409, kind)
    assert text in response.text
    assert bool(response.text) == bool(text)


@pytest.mark.parametrize(("burn", "then"), [(False, 200), (True, 409)])
def test_burn_keys_on_422(wallet: Wallet, burn: bool, then: int) -> None:
    """A refused order leaves its key usable, or uses it up."""
    wallet.options(burn_keys=burn)
    key = new_key()

    assert [wallet.post(key=key, amount="9000000").status_code, wallet.post(key=key).status_code] == [422, then]


@pytest.mark.parametrize(("burn", "then"), [(False, 200), (True, 409)])
def test_burn_keys_on_500(wallet: Wallet, burn: bool, then: int) -> None:
    """So does a failure inside the exchange, from which nothing was debited."""
    wallet.options(burn_keys=burn)
    wallet.fault("status", status=500)
    key = new_key()

    assert [wallet.post(key=key).status_code, wallet.post(key=key).status_code] == [500, then]
    assert len(wallet.debits()) == (0 if burn else 1)


def test_a_bad_signature_burns_nothing(wallet: Wallet, sandbox: Sandbox) -> None:
    """A key cannot be used up by somebody who may not sign for the account."""
    wallet.options(burn_keys=True)
    key, stranger = new_key(), sandbox.control("POST", "/accounts", {})["private_key"]

    refused = wallet.post(key=key, agent=False, secret=stranger, amount="9000000")
    wallet.fault("status", status=500)
    failed = wallet.post(key=key, agent=False, secret=stranger)

    assert [refused.status_code, failed.status_code, wallet.post(key=key).status_code] == [400, 500, 200]


def test_retention(wallet: Wallet) -> None:
    """A key older than the retention is forgotten, and then pays again; by default none is."""
    key = new_key()
    wallet.post(key=key)
    wallet.shift(10 * 86_400)
    remembered = wallet.post(key=key).status_code
    wallet.options(key_retention_s=600)
    forgotten = wallet.post(key=key).status_code
    wallet.shift(599)
    fresh = wallet.post(key=key).status_code

    assert (remembered, forgotten, fresh) == (409, 200, 409)


def test_forget_keys(wallet: Wallet, sandbox: Sandbox) -> None:
    """The exchange can be told to forget every key."""
    key = new_key()
    wallet.post(key=key)

    assert sandbox.control("POST", "/forget_keys") == {"forgotten": 1}
    assert wallet.post(key=key).status_code == 200
    assert len(wallet.debits()) == 2


@pytest.mark.parametrize(("balance_first", "status"), [(False, 409), (True, 422)])
def test_balance_before_key(sandbox: Sandbox, balance_first: bool, status: int) -> None:
    """A repeated order whose first copy emptied the account meets the key, or the balance."""
    wallet = Wallet(sandbox, sandbox.control("POST", "/accounts", {"balances": {"SOL": "1"}}))
    wallet.options(balance_before_key=balance_first)
    key = new_key()

    with wallet.session:
        assert [wallet.post(key=key).status_code, wallet.post(key=key).status_code] == [200, status]


def test_conflict_in_progress(wallet: Wallet) -> None:
    """While the first is held before its commit, the second is told 409 although nothing is debited yet."""
    wallet.options(conflict_in_progress=True)
    wallet.fault("hang", seconds=3)
    key, first = new_key(), list[int]()
    thread = background(wallet, wallet.order(key=key), first)
    until(wallet.posts)

    second = wallet.post(key=key).status_code
    debits = len(wallet.debits())
    thread.join()

    assert (second, debits, first, len(wallet.debits())) == (409, 0, [200], 1)


def test_waiting_for_the_first(wallet: Wallet) -> None:
    """Or the second waits for the first, and gets its 409 when the first has been debited."""
    wallet.fault("hang", seconds=0.8)
    key, first = new_key(), list[int]()
    thread = background(wallet, wallet.order(key=key), first)
    until(wallet.posts)

    second = wallet.post(key=key).status_code
    debits = len(wallet.debits())
    thread.join()

    assert (second, debits, first) == (409, 1, [200])


def test_waiting_for_a_first_that_fails(wallet: Wallet) -> None:
    """A second that waited for a first which was refused is judged by itself."""
    wallet.fault("hang", seconds=0.8)
    key, first = new_key(), list[int]()
    thread = background(wallet, wallet.order(key=key, amount="9000000"), first)
    until(wallet.posts)

    second = wallet.post(key=key).status_code
    thread.join()

    assert (second, first) == (200, [422])


@pytest.mark.parametrize(("checked", "status", "debits"), [("commit", 400, 0), ("arrival", 200, 1)])
def test_expiry_checked(wallet: Wallet, checked: str, status: int, debits: int) -> None:
    """A request that is held past its window dies; unless the exchange looks at the window only on arrival."""
    wallet.options(expiry_checked=checked)
    wallet.fault("hang", seconds=0.8)
    statuses: list[int] = []
    thread = background(wallet, wallet.order(), statuses)
    until(wallet.posts)
    wallet.shift(11)
    thread.join()

    assert (statuses, len(wallet.debits())) == ([status], debits)
