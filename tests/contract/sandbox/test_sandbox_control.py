"""The control interface, over HTTP and as a method."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.sandbox.wallet import Wallet, new_key
from tests.support.patience import PATIENCE_S

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox


def call(wallet: Wallet, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    """Make a control call over HTTP."""
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body)
    response = wallet.session.request(method, wallet.sandbox.control_url + path, data=data, timeout=PATIENCE_S)
    return response.status_code, response.json()


def test_http_and_method_agree(wallet: Wallet, sandbox: Sandbox) -> None:
    """The method and the HTTP call are one interface."""
    wallet.post(key=new_key())

    assert call(wallet, "GET", "/ledger") == (200, sandbox.control("GET", "/ledger"))
    assert call(wallet, "POST", "/settle")[1]["settled"][0]["batch_nonce"] == 42


def test_ledger(wallet: Wallet) -> None:
    """The ledger has every debit, every POST with its timestamp, and counts every request."""
    key, body = new_key(), None
    body = wallet.order(amount="2", key=key)
    wallet.post(body)
    wallet.pending()
    wallet.get("/nowhere")

    ledger = call(wallet, "GET", "/ledger")[1]

    assert set(ledger["debits"][0]) == {
        "account",
        "symbol",
        "amount",
        "fee_amount",
        "idempotency_key",
        "batch_nonce",
        "created_at",
        "transaction_id",
    }
    (post,) = ledger["posts"]
    assert body["timestamp"] <= post.pop("received_at")
    assert post == {
        "key": key,
        "timestamp": body["timestamp"],
        "account": wallet.account,
        "symbol": "SOL",
        "amount": "2",
        "outcome": "accepted",
        "status": 200,
        "fault": None,
    }
    assert ledger["requests"] == {"withdraw": 1, "pending": 1, "other": 1}


@pytest.mark.parametrize(
    ("method", "path", "body", "says"),
    [
        ("GET", "/nothing", None, "there are GET /ledger, POST /settle"),
        ("PUT", "/ledger", None, "no control call PUT /ledger"),
        ("POST", "/settle", b"{", "not JSON"),
        ("POST", "/settle", b"[" * 100_000, "not JSON"),
        ("POST", "/settle", [], "must be a JSON object"),
        ("POST", "/settle", {"asset": "SOL"}, "takes no 'asset'"),
        ("POST", "/settle", b'{"\\ud800": 1}', "its names Unicode"),
        ("POST", "/settle", {"batch_nonce": "x"}, "'batch_nonce'"),
        ("POST", "/settle", {"batch_nonce": 42.0}, "'batch_nonce' must be a whole number"),
        ("POST", "/settle", {"batch_nonce": True}, "'batch_nonce'"),
        ("POST", "/settle", {"symbol": 1}, "'symbol'"),
        ("POST", "/clock", {}, "'offset_ms'"),
        ("POST", "/clock", {"offset_ms": 1.5}, "'offset_ms'"),
        ("POST", "/clock", {"offset_ms": 10**18}, "'offset_ms'"),
        ("POST", "/forget_keys", {"all": True}, "takes no 'all'"),
        ("POST", "/foreign_withdrawal", {"symbol": "SOL"}, "'amount'"),
        ("POST", "/foreign_withdrawal", {"symbol": "SOL", "amount": 1}, "'amount'"),
        ("POST", "/foreign_withdrawal", {"symbol": "SOL", "amount": "1", "account": 5}, "'account'"),
        ("POST", "/foreign_withdrawal", {"symbol": "SOL", "amount": "1", "account": "x"}, "Account not found"),
        ("POST", "/foreign_withdrawal", {"symbol": "XYZ", "amount": "1"}, "Asset not found: XYZ"),
        ("POST", "/options", {"duplicate": "text"}, "takes no 'duplicate'; it takes duplicate_body, burn_keys, "),
        ("POST", "/options", {"duplicate_body": "html"}, "'duplicate_body' must be one of envelope, text, empty"),
        ("POST", "/options", {"burn_keys": 1}, "'burn_keys' must be true or false"),
        ("POST", "/options", {"list_lag_s": -1}, "zero or more"),
        ("POST", "/options", b'{"list_lag_s": NaN}', "zero or more"),
        ("POST", "/options", b'{"settle_after_s": 1e308}', "zero or more"),
        ("POST", "/options", {"quota": 10.0}, "'quota' must be a whole number above zero"),
        ("POST", "/options", {"settle_after_s": "1"}, "or null"),
        ("POST", "/options", {"history_page_size": 0}, "above zero"),
        ("POST", "/accounts", {"balances": []}, "'balances'"),
        ("POST", "/accounts", {"balances": {"SOL": 100}}, "'balances.SOL'"),
        ("POST", "/accounts", {"subaccount_of": 1}, "'subaccount_of'"),
        ("POST", "/accounts", {"subaccount_of": "x"}, "'subaccount_of' must be an account of this sandbox"),
        ("POST", "/agents", {"account": "x"}, "'account' must be an account of this sandbox"),
        ("POST", "/agents", {"account": "x", "bound": "no"}, "'bound'"),
        ("POST", "/agents", {"account": "x", "bound": False}, "'agent_wallet'"),
        ("POST", "/assets", {"symbol": "SOL", "bridge": "open"}, "'bridge'"),
        ("POST", "/assets", {"symbol": "SOL", "active": 1}, "'active'"),
        ("POST", "/assets", {"symbol": "SOL", "decimals": 40}, "'decimals'"),
        ("POST", "/assets", {"symbol": "SOL", "fee": "-1"}, "'fee'"),
        ("POST", "/ws", {"action": "dance"}, "'action' must be one of cut, accept, refuse, silence"),
    ],
)
def test_wrong_calls(wallet: Wallet, method: str, path: str, body: object, says: str) -> None:
    """A wrong call is a 400 that names the mistake, never a 500."""
    status, answer = call(wallet, method, path, body)

    assert (status, set(answer)) == (400, {"error"})
    assert says in answer["error"]


@pytest.mark.parametrize(
    ("path", "field"),
    [("/agents", "account"), ("/accounts", "subaccount_of"), ("/ws", "action"), ("/clock", "offset_ms")],
)
def test_a_wrong_value_is_never_repeated(sandbox: Sandbox, path: str, field: str) -> None:
    """Who puts a private key into the wrong field does not find it in a log."""
    with pytest.raises(ValueError, match=f"'{field}' must be") as caught:
        sandbox.control("POST", path, {field: sandbox.private_key})

    assert sandbox.private_key not in str(caught.value)
    assert caught.value.__cause__ is None


def test_wrong_options_change_nothing(wallet: Wallet, sandbox: Sandbox) -> None:
    """Options are changed together or not at all."""
    before = sandbox.control("GET", "/options")
    call(wallet, "POST", "/options", {"burn_keys": True, "nonsense": 1})

    assert sandbox.control("GET", "/options") == before


def test_options_show_themselves(wallet: Wallet) -> None:
    """Every option can be read, set to what was read, and is then the same."""
    shown = call(wallet, "GET", "/options")[1]["options"]

    assert call(wallet, "POST", "/options", shown) == (200, {"options": shown})
    assert call(wallet, "POST", "/options", {"burn_keys": True})[1]["options"] == {**shown, "burn_keys": True}


def test_clock(wallet: Wallet, sandbox: Sandbox) -> None:
    """The offset is set, not added, so setting it twice is the same as once."""
    call(wallet, "POST", "/clock", {"offset_ms": 5_000})
    shown = call(wallet, "POST", "/clock", {"offset_ms": 5_000})[1]

    assert shown["offset_ms"] == call(wallet, "GET", "/clock")[1]["offset_ms"] == 5_000
    assert abs(sandbox.exchange.now_ms() - shown["now_ms"]) < 1_000


def test_new_account(wallet: Wallet, sandbox: Sandbox) -> None:
    """A new account comes with its keys and a connection, and can withdraw what it was given."""
    opened = call(wallet, "POST", "/accounts", {"balances": {"SOL": "100"}})[1]
    other = Wallet(sandbox, opened)
    connection = json.loads(opened["airflow_connection"])

    with other.session:
        assert (other.post(amount="100").status_code, other.post(agent=False, amount="1").status_code) == (200, 422)
    assert (connection["login"], connection["password"], connection["host"]) == (
        opened["account"],
        opened["agent_private_key"],
        sandbox.base_url,
    )


def test_method_needs_a_running_sandbox(sandbox: Sandbox) -> None:
    """A sandbox that has stopped says so; stopping it twice is harmless."""
    sandbox.stop()
    sandbox.stop()

    with pytest.raises(RuntimeError, match="not running"):
        sandbox.control("GET", "/ledger")
