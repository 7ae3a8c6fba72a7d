"""
In the child, in the peers' environment: microseconds to sign and build one request, four ways, the same message.

Started with ``{"rounds", "calls"}``. What cannot be imported is told with its error instead of a figure.
"""

from __future__ import annotations

import importlib
import json
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tests.bench.child import Parent

if TYPE_CHECKING:
    from collections.abc import Callable

SEED = bytes(range(1, 33))  # not from 0: ccxt's base58 drops leading zeros
KEY = "550e8400-e29b-41d4-a716-446655440000"
NOW_MS, WINDOW_MS = 1_716_200_000_000, 10_000
BASE_URL = "https://api.pacifica.fi/api/v1"
PAYLOAD = {"symbol": "SOL", "amount": "1.5", "idempotency_key": KEY}
HEADER = {"timestamp": NOW_MS, "expiry_window": WINDOW_MS, "type": "withdraw_spot_asset"}
ACCOUNT = "Vote111111111111111111111111111111111111111"


def main() -> None:
    """Measure round by round, each way in turn."""
    parent = Parent()
    ways: dict[str, Callable[[], bytes]] = {}
    missing: dict[str, str] = {}
    for name, make in {"ours": ours, "sdk": official_sdk, "ccxt": by_ccxt, "libsodium": libsodium}.items():
        try:
            ways[name] = make()
        except ImportError as error:
            missing[name] = str(error)
    _check_same({name: json.loads(build()) for name, build in ways.items()})
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(parent.wish["rounds"]):
        for name, build in ways.items():
            begun = time.perf_counter()
            for _ in range(parent.wish["calls"]):
                build()
            spent[name].append((time.perf_counter() - begun) / parent.wish["calls"] * 1e6)
    parent.say({"microseconds": spent, "missing": missing})


def ours() -> Callable[[], bytes]:
    """Return the product's way."""
    from pacifica_provider.api.client import Endpoints
    from pacifica_provider.api.signing import Signer

    signer = Signer.from_base58(_base58(SEED))
    endpoints = Endpoints(BASE_URL, ACCOUNT)

    def build() -> bytes:
        signed = endpoints.withdrawal(
            signer, "SOL", Decimal("1.5"), idempotency_key=KEY, timestamp_ms=NOW_MS, expiry_window_ms=WINDOW_MS
        )
        return signed.request.body or b""

    return build


def official_sdk() -> Callable[[], bytes]:
    """
    Return the way of Pacifica's Python SDK (github.com/pacifica-fi/python-sdk, common/utils.py): solders and base58.

    Its examples hand the request to ``requests`` as ``json=``, which prints it with ``json.dumps``.
    """
    keypair = importlib.import_module("solders.keypair").Keypair.from_seed(SEED)
    base58 = importlib.import_module("base58")
    agent = str(keypair.pubkey())

    def sort_keys(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: sort_keys(value[key]) for key in sorted(value)}
        return [sort_keys(item) for item in value] if isinstance(value, list) else value

    def build() -> bytes:
        message = json.dumps(sort_keys({**HEADER, "data": PAYLOAD}), separators=(",", ":"))
        signature = base58.b58encode(bytes(keypair.sign_message(message.encode()))).decode("ascii")
        header = {"account": ACCOUNT, "signature": signature, "timestamp": NOW_MS, "expiry_window": WINDOW_MS}
        return json.dumps({**header, **PAYLOAD, "agent_wallet": agent}).encode()

    return build


def by_ccxt() -> Callable[[], bytes]:
    """Return the way of ccxt's Pacifica class: it decodes and loads the private key for every request."""
    exchange = importlib.import_module("ccxt").pacifica()
    agent = _agent()
    exchange.privateKey, exchange.walletAddress = _base58(SEED + _public()), ACCOUNT
    exchange.options["builderFee"] = False
    params = {"timestamp": NOW_MS, "expiryWindow": WINDOW_MS, "agentAddress": agent}

    def build() -> bytes:
        request = exchange.post_action_request("withdraw_spot_asset", dict(PAYLOAD), dict(params))
        body: str = exchange.json(request)
        return body.encode()

    return build


def libsodium() -> Callable[[], bytes]:
    """
    Return the limit: PyNaCl's signature and the two pieces of JSON, nothing else.

    The signature's text is made once beforehand, since base58 is neither.
    """
    from nacl.signing import SigningKey

    key, agent = SigningKey(SEED), _agent()
    text = _base58(key.sign(_message()).signature)

    def build() -> bytes:
        key.sign(_message())
        header = {"account": ACCOUNT, "signature": text, "timestamp": NOW_MS, "expiry_window": WINDOW_MS}
        return json.dumps({**header, **PAYLOAD, "agent_wallet": agent}, separators=(",", ":")).encode()

    return build


def _message() -> bytes:
    return json.dumps({**HEADER, "data": PAYLOAD}, sort_keys=True, separators=(",", ":")).encode()


def _check_same(bodies: dict[str, dict[str, Any]]) -> None:
    """Refuse to compare ways that do not build the same request."""
    for name, body in bodies.items():
        if body != bodies["ours"]:
            raise ValueError(f"{name} builds another request: {body} instead of {bodies['ours']}")


def _public() -> bytes:
    from nacl.signing import SigningKey

    return bytes(SigningKey(SEED).verify_key)


def _agent() -> str:
    return _base58(_public())


def _base58(raw: bytes) -> str:
    import base58

    return base58.b58encode(raw).decode("ascii")


if __name__ == "__main__":
    main()
