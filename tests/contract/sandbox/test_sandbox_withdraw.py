"""What a withdraw POST is answered, and what it debits."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.sandbox.wallet import Wallet, new_key
from tests.support.patience import PATIENCE_S

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox


def business(response: Any) -> tuple[int, int, bool]:
    """Return what tells business refusals apart."""
    content = response.json()
    return response.status_code, content["code"], content["success"]


def test_receipt(wallet: Wallet) -> None:
    """The answer has the documented fields and shapes, and the debit is in the ledger."""
    key = new_key()

    response = wallet.post(amount="1.5", key=key)

    assert response.json() == {
        "success": True,
        "data": {
            "symbol": "SOL",
            "batch_nonce": 42,
            "requested_amount": "1.50000000",
            "fee_amount": "0.00100000",
        },
        "error": None,
        "code": None,
    }
    assert [("1.50000000", key, 42, None)] == [
        (debit["amount"], debit["idempotency_key"], debit["batch_nonce"], debit["transaction_id"])
        for debit in wallet.debits()
    ]


@pytest.mark.parametrize(
    ("amount", "echo"), [("1.123456789", "1.123456789"), ("0.1", "0.10000000"), ("10", "10.00000000")]
)
def test_amounts_are_exact(wallet: Wallet, amount: str, echo: str) -> None:
    """Amounts have eight places, or more where eight would round."""
    assert echo == wallet.post(amount=amount).json()["data"]["requested_amount"]


@pytest.mark.parametrize(
    ("order", "code"),
    [
        ({"symbol": "NOSUCH"}, 55),
        ({"symbol": "sol"}, 55),
        ({"amount": "0"}, 59),
        ({"amount": "-1"}, 59),
        ({"amount": "1.0000000001"}, 59),
        ({"symbol": "kBONK", "amount": "100.000001"}, 59),
        ({"amount": "0.001"}, 29),
        ({"amount": "1000000.1"}, 62),
    ],
)
def test_business_rules(wallet: Wallet, order: dict[str, Any], code: int) -> None:
    """A business rule answers 422 with its own code, and debits nothing."""
    assert (422, code, False) == business(wallet.post(**order))
    assert wallet.debits() == []


@pytest.mark.parametrize(
    ("change", "code"), [({"active": False}, 56), ({"bridge": "missing"}, 91), ({"bridge": "inactive"}, 92)]
)
def test_asset_states(wallet: Wallet, sandbox: Sandbox, change: dict[str, object], code: int) -> None:
    """An asset that cannot be withdrawn says why."""
    sandbox.control("POST", "/assets", {"symbol": "SOL", **change})

    assert (422, code, False) == business(wallet.post())


def test_asset_not_found_names_it(wallet: Wallet) -> None:
    """The text is the one that was seen live."""
    assert wallet.post(symbol="NOSUCH").json()["error"] == "Asset not found: NOSUCH"


def test_subaccount(wallet: Wallet, sandbox: Sandbox) -> None:
    """Subaccounts may not withdraw."""
    opened = sandbox.control("POST", "/accounts", {"balances": {"SOL": "5"}, "subaccount_of": wallet.account})
    child = Wallet(sandbox, opened)

    with child.session:
        assert business(child.post()) == (422, 34, False)


def test_balance_runs_out(sandbox: Sandbox) -> None:
    """The gross amount leaves the balance at once, and what is left shows in GET /account."""
    poor = Wallet(sandbox, sandbox.control("POST", "/accounts", {"balances": {"SOL": "1.5"}}))

    with poor.session:
        answers = [poor.post().status_code, business(poor.post())]
        balances = poor.get("/account").json()["data"]["spot_balances"]

    assert answers == [200, (422, 62, False)]
    assert (
        balances[0]["symbol"],
        balances[0]["amount"],
        balances[0]["available_to_withdraw"],
        balances[0]["daily_withdraw_amount_usd"],
    ) == ("SOL", "0.5", "0.5", "150")


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 1},
        {"amount": "1e3"},
        {"amount": "+1"},
        {"amount": " 1"},
        {"timestamp": "now"},
        {"timestamp": 1.5},
        {"timestamp": True},
        {"timestamp": 2**63},
        {"symbol": None},
        {"symbol": "\ud800"},
        {"expiry_window": -1},
        {"idempotency_key": "abc"},
        {"idempotency_key": "550e8400e29b41d4a716446655440000"},
        {"idempotency_key": "{550e8400-e29b-41d4-a716-446655440000}"},
    ],
)
def test_mistyped(wallet: Wallet, change: dict[str, object]) -> None:
    """A missing or mistyped field is a 400 in the envelope, before any signature is looked at."""
    response = wallet.post({**wallet.order(), **change})

    assert business(response) == (400, 400, False)
    assert [(post["outcome"], post["status"]) for post in wallet.posts()] == [("refused", 400)]


@pytest.mark.parametrize("field", ["account", "signature", "timestamp", "symbol", "amount"])
def test_missing(wallet: Wallet, field: str) -> None:
    """A missing field is named."""
    body = wallet.order()
    del body[field]

    response = wallet.post(body)

    assert (business(response), f"`{field}`" in response.json()["error"]) == ((400, 400, False), True)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b"null"])
def test_not_an_object(wallet: Wallet, body: bytes) -> None:
    """A body that is no JSON object is a 400, however odd."""
    assert business(wallet.post(body)) == (400, 400, False)


def test_same_key_twice(wallet: Wallet) -> None:
    """A repeated key is refused, whatever the order, and the first receipt is not repeated."""
    key = new_key()

    responses = [wallet.post(key=key), wallet.post(key=key), wallet.post(key=key, amount="2")]

    assert [response.status_code for response in responses] == [200, 409, 409]
    assert {name: value for name, value in responses[1].json().items() if name != "error_id"} == {
        "success": False,
        "data": None,
        "error": "Duplicate idempotency key",
        "code": 409,
    }
    assert len(wallet.debits()) == 1
    assert [post["outcome"] for post in wallet.posts()] == ["accepted", "duplicate", "duplicate"]


def test_keys_belong_to_accounts(wallet: Wallet, sandbox: Sandbox) -> None:
    """Two accounts may use the same key."""
    key, other = new_key(), Wallet(sandbox, sandbox.control("POST", "/accounts", {"balances": {"SOL": "5"}}))

    with other.session:
        assert [wallet.post(key=key).status_code, other.post(key=key).status_code] == [200, 200]


def test_race(wallet: Wallet) -> None:
    """Of many simultaneous requests with one key exactly one is accepted."""
    key, statuses, barrier = new_key(), [], threading.Barrier(8)

    def post() -> None:
        racer = Wallet(wallet.sandbox)
        with racer.session:
            barrier.wait()
            statuses.append(racer.post(key=key).status_code)

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(statuses) == [200] + [409] * 7
    assert len(wallet.debits()) == 1


def test_foreign_withdrawal(wallet: Wallet, sandbox: Sandbox) -> None:
    """A withdrawal made elsewhere looks like any other in the lists, and has no key in the ledger."""
    wallet.post(key=new_key())
    sandbox.control("POST", "/foreign_withdrawal", {"symbol": "SOL", "amount": "1"})

    newest, oldest = wallet.pending()

    assert newest["amount_requested"] == oldest["amount_requested"]
    assert len({newest["batch_nonce"], oldest["batch_nonce"]}) == 2
    assert [debit["idempotency_key"] is None for debit in wallet.debits()] == [False, True]


def test_get_with_a_body(wallet: Wallet) -> None:
    """A GET with a body, even `{}`, never gets past the CDN, which answers in HTML."""
    response = wallet.session.get(wallet.base_url + "/account", json={}, timeout=PATIENCE_S)

    assert (
        response.status_code,
        response.headers["content-type"],
        "The request could not be satisfied" in response.text,
    ) == (403, "text/html", True)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/account", 405)])
def test_unknown_places(wallet: Wallet, method: str, path: str, status: int) -> None:
    """What does not exist is an envelope too, with a Date."""
    response = wallet.session.request(method, wallet.base_url + path, timeout=PATIENCE_S)

    assert (status, status, True) == (response.status_code, response.json()["code"], "date" in response.headers)
