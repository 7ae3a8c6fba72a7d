"""
Clients that share no line with this package withdraw from the sandbox, each signing by itself.

The request is the plain ``requests`` snippet of Pacifica's page, the message is written out by the page's rules. So a
mistake that the package's client and its sandbox had in common would show here.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import base58
import pytest
import requests

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox

Sign = Callable[[str, bytes], tuple[str, str]]


def by_pynacl(secret: str, message: bytes) -> tuple[str, str]:
    """Return public key and signature, made with PyNaCl."""
    from nacl.signing import SigningKey

    key = SigningKey(base58.b58decode(secret)[:32])
    return base58.b58encode(bytes(key.verify_key)).decode(), base58.b58encode(key.sign(message).signature).decode()


def by_openssl(secret: str, message: bytes) -> tuple[str, str]:
    """Return public key and signature, made with OpenSSL."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(base58.b58decode(secret)[:32])
    public = key.public_key().public_bytes_raw()
    return base58.b58encode(public).decode(), base58.b58encode(key.sign(message)).decode()


def by_solders(secret: str, message: bytes) -> tuple[str, str]:
    """Return public key and signature, made as Pacifica's own Python SDK does."""
    keypair = pytest.importorskip("solders.keypair").Keypair.from_base58_string(secret)
    return str(keypair.pubkey()), str(keypair.sign_message(message))


SIGNERS = pytest.mark.parametrize("sign", [by_pynacl, by_openssl, by_solders])


def signed(sandbox: Sandbox, sign: Sign = by_pynacl, *, agent: bool = False, **changes: Any) -> dict[str, Any]:
    """Return a signed body of one SOL; ``changes`` are signed too."""
    secret = sandbox.agent_private_key if agent else sandbox.private_key
    header = {"timestamp": int(time.time() * 1000), "expiry_window": 5000, "type": "withdraw_spot_asset"}
    data = {"symbol": "SOL", "amount": "1.00000000", "idempotency_key": str(uuid.uuid4())}
    header |= {name: value for name, value in changes.items() if name in header}
    data |= {name: value for name, value in changes.items() if name not in header}
    message = json.dumps({**header, "data": data}, sort_keys=True, separators=(",", ":"))
    public, signature = sign(secret, message.encode())
    del header["type"]
    body = {"account": sandbox.account, "signature": signature, **header, **data}
    return {**body, "agent_wallet": public} if agent else body


def send(sandbox: Sandbox, body: dict[str, Any]) -> tuple[int, str]:
    """Post a body as Pacifica's page does; return status and text."""
    with requests.Session() as session:
        session.trust_env = False
        response = session.post(
            f"{sandbox.base_url}/account/spot_asset/withdraw", json=body, headers={"Accept": "*/*"}, timeout=5
        )
        return response.status_code, response.text


def debits(sandbox: Sandbox) -> list[dict[str, Any]]:
    """Return the ledger's debits."""
    return list(sandbox.control("GET", "/ledger")["debits"])


@SIGNERS
@pytest.mark.parametrize("agent", [False, True], ids=["owner", "agent"])
def test_an_independent_client_withdraws(sandbox: Sandbox, sign: Sign, agent: bool) -> None:
    """Owner and bound agent get the documented receipt, and the account is debited once."""
    body = signed(sandbox, sign, agent=agent)
    status, text = send(sandbox, body)
    (debit,) = debits(sandbox)

    assert status == 200
    assert json.loads(text) == {
        "success": True,
        "data": {
            "symbol": "SOL",
            "batch_nonce": debit["batch_nonce"],
            "requested_amount": "1.00000000",
            "fee_amount": "0.00100000",
        },
        "error": None,
        "code": None,
    }
    assert (debit["account"], debit["idempotency_key"]) == (sandbox.account, body["idempotency_key"])


def test_the_page_s_snippet_without_optional_fields_withdraws(sandbox: Sandbox) -> None:
    """Neither idempotency key nor agent is needed; what is left out is not signed as null."""
    body = {"symbol": "SOL", "amount": "1"}
    header = {"timestamp": int(time.time() * 1000), "expiry_window": 30_000, "type": "withdraw_spot_asset"}
    message = json.dumps({**header, "data": body}, sort_keys=True, separators=(",", ":")).encode()
    _, signature = by_pynacl(sandbox.private_key, message)
    del header["type"]

    assert send(sandbox, {"account": sandbox.account, "signature": signature, **header, **body})[0] == 200


@pytest.mark.parametrize(
    "changed",
    [
        {"amount": "1"},
        {"amount": "2.00000000"},
        {"symbol": "BTC"},
        {"idempotency_key": "550e8400-e29b-41d4-a716-446655440000"},
        {"timestamp": 1},
        {"expiry_window": 60_000},
        {"agent_wallet": "8S9vx1PxFeCw1QTQpKcYSSWYtLDAEiBBHU7wo4P72pXx"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_body_changed_after_signing_is_refused(sandbox: Sandbox, changed: dict[str, Any]) -> None:
    """Every signed field is bound to the signature, and the signer to the body (S14)."""
    body = signed(sandbox)
    if "timestamp" in changed:  # by a millisecond: still inside the window
        changed = {"timestamp": body["timestamp"] + 1}
    status, text = send(sandbox, {**body, **changed})

    assert (status, "Verification failed" in text) == (400, True)
    assert debits(sandbox) == []


def test_a_field_left_out_after_signing_is_refused(sandbox: Sandbox) -> None:
    """A body without the signed idempotency key is another message."""
    body = signed(sandbox)
    del body["idempotency_key"]

    assert send(sandbox, body)[0] == 400
    assert debits(sandbox) == []


@pytest.mark.parametrize(("late_ms", "status"), [(-2000, 400), (2000, 200)])
def test_a_signature_lives_as_long_as_its_window(sandbox: Sandbox, late_ms: int, status: int) -> None:
    """Two seconds after its end it is refused, two seconds before it is accepted (F30)."""
    body = signed(sandbox, timestamp=int(time.time() * 1000) - 5000 + late_ms)

    assert send(sandbox, body)[0] == status
    assert len(debits(sandbox)) == (status == 200)


def test_an_agent_that_is_not_bound_is_refused(sandbox: Sandbox) -> None:
    """Unbound, the same agent's valid signature moves nothing; bound again, it does."""
    body = signed(sandbox, agent=True)
    agent = {"account": sandbox.account, "agent_wallet": body["agent_wallet"]}
    sandbox.control("POST", "/agents", {**agent, "bound": False})
    refused = send(sandbox, body)
    sandbox.control("POST", "/agents", {**agent, "bound": True})

    assert (refused[0], "Agent not authorized" in refused[1]) == (400, True)
    assert send(sandbox, body)[0] == 200


def test_an_agent_that_does_not_name_itself_is_refused(sandbox: Sandbox) -> None:
    """Without ``agent_wallet`` the signature is checked against the account."""
    body = signed(sandbox, agent=True)
    del body["agent_wallet"]

    assert send(sandbox, body)[0] == 400
    assert debits(sandbox) == []


def test_the_same_request_again_is_a_duplicate(sandbox: Sandbox) -> None:
    """Byte for byte inside its window, a second time moves nothing (F30)."""
    body = signed(sandbox)

    assert [send(sandbox, body)[0], send(sandbox, body)[0]] == [200, 409]
    assert len(debits(sandbox)) == 1
