"""The client's one POST: what it carries, and that one call sends it once."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from pacifica_provider.api.client import Endpoints, PacificaClient
from pacifica_provider.api.outcomes import Accepted
from pacifica_provider.api.signing import Signer
from pacifica_provider.api.transports import RequestsTransport
from pacifica_provider.exceptions import ConfigurationError
from tests.support.patience import PATIENCE_S
from tests.support.raw_server import RawServer, answer

SECRET = "49W385L4rePHy6PAaQUovbD2aacgN4HsKXSMeUzRg4fmwXszN91JuMFrQRj3vMDpZuRF3ZknQBuRBoWQJEfXstMw"
ACCOUNT = "FVen3X669xLzsi6N2V91DoiyzHzg1uAgqiT8jZ9nS96Z"
KEY = "550e8400-e29b-41d4-a716-446655440000"
RECEIPT = b'{"success":true,"data":{"symbol":"SOL","batch_nonce":"7","requested_amount":"1","fee_amount":"0"}}'


def client(server: RawServer, *, signs: bool = True, api_config_key: str | None = None) -> PacificaClient:
    """Return a client of the server."""
    return PacificaClient(
        Endpoints(f"{server.url}/api/v1/", ACCOUNT, api_config_key=api_config_key),
        RequestsTransport(timeout_s=PATIENCE_S),
        signer=Signer.from_base58(SECRET) if signs else None,
    )


def test_a_withdrawal_carries_the_api_config_key_too() -> None:
    """The POST spends the same credits as the reads."""
    with RawServer(answer(status=409)) as server:
        client(server, api_config_key="CFGKEY_abc").withdraw_spot_asset(
            "SOL", Decimal(1), idempotency_key=KEY, timestamp_ms=1
        )

    assert b"pf-api-key: cfgkey_abc" in server.requests[0].lower()


@pytest.mark.parametrize("agent", [False, True])
def test_an_agent_is_named_only_if_it_signs(agent: bool) -> None:
    """The signer's address goes along as ``agent_wallet`` exactly when it is not the account, and is not signed."""
    account = "8S9vx1PxFeCw1QTQpKcYSSWYtLDAEiBBHU7wo4P72pXx" if agent else ACCOUNT
    signed = Endpoints("http://x", account).withdrawal(
        Signer.from_base58(SECRET), "SOL", Decimal("1.50"), idempotency_key=KEY, timestamp_ms=7, expiry_window_ms=9
    )
    body = json.loads(signed.request.body or b"")
    signature = body.pop("signature")

    assert body == {
        "account": account,
        "timestamp": 7,
        "expiry_window": 9,
        "symbol": "SOL",
        "amount": "1.5",
        "idempotency_key": KEY,
        **({"agent_wallet": ACCOUNT} if agent else {}),
    }
    assert signature not in repr(signed)
    assert "amount" not in repr(signed)


def test_each_attempt_is_signed_anew_for_the_same_order() -> None:
    """Another time is another signature over the same key and order (F32)."""
    endpoints, signer = Endpoints("http://x", ACCOUNT), Signer.from_base58(SECRET)
    first, second = (
        json.loads(
            endpoints.withdrawal(
                signer, "SOL", Decimal(1), idempotency_key=KEY, timestamp_ms=at, expiry_window_ms=9
            ).request.body
            or b""
        )
        for at in (1, 2)
    )
    differing = {name for name in first if first[name] != second[name]}

    assert differing == {"timestamp", "signature"}


def test_a_client_without_a_key_cannot_withdraw() -> None:
    """It says so, and nothing is sent."""
    with RawServer(answer()) as server, pytest.raises(ConfigurationError, match="holds no private key"):
        client(server, signs=False).withdraw_spot_asset("SOL", Decimal(1), idempotency_key=KEY, timestamp_ms=1)

    assert server.connections == 0


def test_the_idempotency_key_cannot_be_forgotten() -> None:
    """The bare POST has no default for it and takes it by name only."""
    probe: Any = PacificaClient(Endpoints("http://x", ACCOUNT), RequestsTransport(timeout_s=1))

    with pytest.raises(TypeError, match="idempotency_key"):
        probe.withdraw_spot_asset("SOL", Decimal(1), timestamp_ms=1)
    with pytest.raises(TypeError, match="positional"):
        probe.withdraw_spot_asset("SOL", Decimal(1), KEY, 1)


def test_one_call_is_one_post() -> None:
    """A receipt comes of exactly one request, and so does a refusal: the client repeats nothing by itself."""
    with RawServer(answer(RECEIPT), answer(status=503), answer(status=429)) as server:
        probe = client(server)
        outcomes = [probe.withdraw_spot_asset("SOL", Decimal(1), idempotency_key=KEY, timestamp_ms=1) for _ in range(3)]

    assert [type(outcome).__name__ for outcome in outcomes] == ["Accepted", "Unknown", "Throttled"]
    assert isinstance(outcomes[0], Accepted)
    assert outcomes[0].receipt.batch_nonce == 7
    assert len(server.requests) == 3
