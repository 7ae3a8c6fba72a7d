"""Whom the exchange believes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import base58
import pytest

from pacifica_provider.sandbox.accounts import Refused
from pacifica_provider.sandbox.requests import (
    authenticate,
    canonical_message,
    check_public_key,
    read_order,
    signature_bytes,
    verify,
)
from tests.contract.sandbox.wallet import Wallet, address_of, new_key

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "signing.json").read_text())["vectors"]


def refused(response: Any) -> tuple[int, str]:
    """Return status and text of a bare-text answer, which is no JSON."""
    with pytest.raises(ValueError, match="Expecting value"):
        response.json()
    return response.status_code, response.text


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_known_answers(vector: dict[str, Any]) -> None:
    """The sandbox rebuilds the vendor's message byte for byte, and its signature verifies."""
    header = vector["header"]
    message = canonical_message(
        header["type"],
        vector["payload"],
        timestamp=header["timestamp"],
        expiry_window=header["expiry_window"],
    )

    assert vector["message"].encode() == message
    verify(message, signature_bytes(vector["signature"]), check_public_key(vector["public_key"]))


@pytest.mark.parametrize("agent", [True, False])
def test_owner_and_agent_may_withdraw(wallet: Wallet, agent: bool) -> None:
    """The account's own key and a bound agent's key are both accepted."""
    response = wallet.post(agent=agent)

    assert response.status_code == 200, response.text


def test_agent_wallet_null_is_the_same_as_none(wallet: Wallet) -> None:
    """Pacifica's SDK sends `agent_wallet: null`; it is not signed and does no harm."""
    body = {**wallet.order(agent=False), "agent_wallet": None, "idempotency_key": None, "memo": "ignored"}

    assert wallet.post(body).status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", "2"),
        ("amount", "1.0"),
        ("symbol", "BTC"),
        ("expiry_window", 10_001),
        ("idempotency_key", "550e8400-e29b-41d4-a716-446655440000"),
    ],
)
def test_changed_field(wallet: Wallet, field: str, value: object) -> None:
    """A field that differs from what was signed, even by a trailing zero, fails verification and debits nothing."""
    response = wallet.post({**wallet.order(), field: value})

    assert refused(response) == (400, "Verification failed")
    assert wallet.debits() == []


def test_changed_timestamp(wallet: Wallet) -> None:
    """The timestamp is signed too."""
    body = wallet.order()

    assert refused(wallet.post({**body, "timestamp": body["timestamp"] + 1})) == (400, "Verification failed")


def test_dropped_key(wallet: Wallet) -> None:
    """A signed idempotency key cannot be taken out of the request."""
    body = wallet.order(key=new_key())
    del body["idempotency_key"]

    assert refused(wallet.post(body)) == (400, "Verification failed")


def test_upper_case_key(wallet: Wallet) -> None:
    """A UUID is parsed and printed again before verification, so it must be signed in lower case."""
    assert refused(wallet.post(key=new_key().upper())) == (400, "Verification failed")


def test_agent_key_without_agent_wallet(wallet: Wallet) -> None:
    """Without `agent_wallet` the agent's signature is checked against the account."""
    body = wallet.order()
    del body["agent_wallet"]

    assert refused(wallet.post(body)) == (400, "Verification failed")


def test_unbound_agent(wallet: Wallet, sandbox: Sandbox) -> None:
    """A good signature of an agent that is not bound to the account is refused in the envelope."""
    sandbox.control(
        "POST",
        "/agents",
        {"account": wallet.account, "agent_wallet": address_of(wallet.agent_secret), "bound": False},
    )

    response = wallet.post()

    assert (
        response.status_code,
        response.json()["error"],
        response.json()["code"],
    ) == (400, "Agent not authorized for account", 400)


def test_agent_of_another_account(wallet: Wallet, sandbox: Sandbox) -> None:
    """An agent is bound to one account, not to the exchange."""
    other = sandbox.control("POST", "/accounts", {"balances": {}})

    response = wallet.post(secret=other["agent_private_key"])

    assert response.json()["error"] == "Agent not authorized for account"


def test_rotated_agent(wallet: Wallet, sandbox: Sandbox) -> None:
    """A new agent can be bound, and signs for the same account."""
    bound = sandbox.control("POST", "/agents", {"account": wallet.account})

    assert address_of(bound["agent_private_key"]) == bound["agent_wallet"]
    assert wallet.post(secret=bound["agent_private_key"]).status_code == 200


def test_the_last_millisecond() -> None:
    """A request is good while `timestamp + expiry_window` is not less than now, and not a millisecond longer."""
    order = read_order(json.dumps(VECTORS[1]["request_body"]).encode())
    last = order.timestamp + order.window_ms
    authenticate(order, now_ms=last, future_tolerance_ms=None)
    authenticate(order, now_ms=order.timestamp - 500, future_tolerance_ms=500)

    for now_ms in (last + 1, order.timestamp - 501):
        with pytest.raises(Refused, match="Invalid message"):
            authenticate(order, now_ms=now_ms, future_tolerance_ms=500)


def test_expired(wallet: Wallet) -> None:
    """A request outside its window is refused; the same one with a longer window is not."""
    late = wallet.post(late_ms=60_000)
    in_time = wallet.post(late_ms=60_000, expiry=70_000)

    assert refused(late) == (400, "Invalid message")
    assert in_time.status_code == 200


@pytest.mark.parametrize(("late_ms", "status"), [(29_000, 200), (31_000, 400)])
def test_expiry_window_left_out(wallet: Wallet, late_ms: int, status: int) -> None:
    """Without `expiry_window` 30000 is verified and applies."""
    assert status == wallet.post(expiry=None, late_ms=late_ms).status_code


def test_shifted_clock_expires(wallet: Wallet) -> None:
    """The window runs on the exchange's clock."""
    body = wallet.order()
    wallet.shift(11)

    assert refused(wallet.post(body)) == (400, "Invalid message")


@pytest.mark.parametrize(("tolerance", "status"), [(None, 200), (60_000, 200), (1_000, 400)])
def test_future_timestamp(wallet: Wallet, tolerance: float | None, status: int) -> None:
    """How far ahead a timestamp may be is unknown, so it is a switch; by default any is accepted."""
    wallet.options(future_tolerance_ms=tolerance)

    assert status == wallet.post(late_ms=-30_000).status_code


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("signature", "0OIl", "Invalid signature"),
        ("signature", base58.b58encode(b"short").decode(), "Invalid signature"),
        ("account", "not base58 at all", "Invalid public key"),
        ("agent_wallet", base58.b58encode(b"x" * 31).decode(), "Invalid public key"),
        ("signature", base58.b58encode(b"x" * 64).decode(), "Verification failed"),
    ],
)
def test_malformed(wallet: Wallet, field: str, value: str, text: str) -> None:
    """Each malformed part has Pacifica's own words, in bare text."""
    assert (400, text) == refused(wallet.post({**wallet.order(), field: value}))


def test_replayed_bytes(wallet: Wallet) -> None:
    """A captured request pays once: inside its window the key refuses it, after it the window does."""
    body = json.dumps(wallet.order(key=new_key())).encode()

    statuses = [wallet.post(body).status_code, wallet.post(body).status_code]
    wallet.shift(11)

    assert statuses == [200, 409]
    assert refused(wallet.post(body)) == (400, "Invalid message")
    assert len(wallet.debits()) == 1


def test_replay_without_key(wallet: Wallet) -> None:
    """Without a key nothing guards against a replay inside the window: only the key does."""
    body = wallet.order()

    assert [wallet.post(body).status_code, wallet.post(body).status_code] == [200, 200]
