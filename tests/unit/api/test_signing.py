"""Canonical message and signature: the five known answers, and everything without one canonical form refused."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import VerifyKey

from pacifica_provider.api.client import OPERATION_TYPE, Endpoints
from pacifica_provider.api.signing import Signer, canonical_message, check_address
from pacifica_provider.exceptions import ConfigurationError

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "signing.json").read_text())["vectors"]
ACCOUNT = VECTORS[0]["public_key"]
VECTOR = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
KEY = "550e8400-e29b-41d4-a716-446655440000"
ASCII = st.text(st.characters(max_codepoint=127), max_size=20)
VALUES = st.recursive(
    st.one_of(ASCII, st.integers(), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(ASCII, inner, max_size=3)),
    max_leaves=8,
)


def message_of(vector: dict[str, Any]) -> bytes:
    """Return the message that a vector's header and payload make."""
    header = vector["header"]
    return canonical_message(
        header["type"],
        vector["payload"],
        timestamp_ms=header["timestamp"],
        expiry_window_ms=header["expiry_window"],
    )


def test_there_are_five_vectors() -> None:
    """The vectors file is the agreed one, and none of it is lost."""
    assert len({vector["name"] for vector in VECTORS}) == 5


@VECTOR
def test_the_message_equals_the_vector_byte_for_byte(vector: dict[str, Any]) -> None:
    """The canonical bytes are those of the official SDK (F33)."""
    assert vector["message"].encode() == message_of(vector)


@VECTOR
@pytest.mark.parametrize("form", ["secret_key_base58", "seed"])
def test_the_signature_equals_the_vector(vector: dict[str, Any], form: str) -> None:
    """Pair and seed give the same public key and the same signature as the official SDK."""
    import base58

    seed = base58.b58encode(bytes.fromhex(vector["seed_hex"])).decode()
    signer = Signer.from_base58(seed if form == "seed" else vector[form])

    assert (vector["public_key"], vector["signature"]) == (signer.public_key, signer.sign(message_of(vector)))


@given(st.binary(max_size=200))
def test_a_signature_verifies_and_is_the_same_each_time(message: bytes) -> None:
    """Signing is deterministic, 64 bytes, and verifies under the public key (S24)."""
    import base58

    signer = Signer.from_base58(VECTORS[0]["secret_key_base58"])
    signature = signer.sign(message)

    assert signature == signer.sign(message)
    assert message == VerifyKey(base58.b58decode(signer.public_key)).verify(message, base58.b58decode(signature))


@given(st.dictionaries(ASCII, VALUES, max_size=5))
def test_a_message_is_compact_sorted_and_says_what_it_was_given(data: dict[str, Any]) -> None:
    """Any data of text, integers and booleans is signed as itself, whatever order its keys came in (F33)."""
    message = canonical_message("t", data, timestamp_ms=1, expiry_window_ms=2)
    turned = canonical_message("t", dict(reversed(data.items())), timestamp_ms=1, expiry_window_ms=2)
    read = json.loads(message)

    assert {"type": "t", "timestamp": 1, "expiry_window": 2, "data": data} == read
    assert message == turned == json.dumps(read, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "value",
    [
        None,
        1.5,
        float("nan"),
        "é",
        "SOL\u200b",
        {"deep": [{"er": None}]},
        ["ok", 0.1],
        ("ok", None),
        {"ключ": "v"},
        {None: 1},
        {1: "one", "1": "too"},
        Decimal("1.5"),
        b"bytes",
    ],
)
def test_a_value_without_one_canonical_form_is_refused(value: Any) -> None:
    """Null, float and non-ASCII are signed differently by different SDKs, so they are not signed at all (F33)."""
    with pytest.raises(ConfigurationError, match=r"cannot sign .*Nothing was sent"):
        canonical_message("t", {"field": value}, timestamp_ms=1, expiry_window_ms=2)


def test_the_body_is_flat_and_carries_exactly_the_signed_values() -> None:
    """A vector's whole request body comes out of the client's own request builder."""
    vector = next(vector for vector in VECTORS if vector["payload"].get("amount") == "0.5")
    payload, header = vector["payload"], vector["header"]

    signed = Endpoints("https://x/api/v1", vector["request_body"]["account"]).withdrawal(
        Signer.from_base58(vector["secret_key_base58"]),
        payload["symbol"],
        Decimal(payload["amount"]),
        idempotency_key=payload["idempotency_key"],
        timestamp_ms=header["timestamp"],
        expiry_window_ms=header["expiry_window"],
    )
    body = json.loads(signed.request.body or b"")

    assert header["type"] == OPERATION_TYPE
    assert vector["request_body"] == body


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty or not text"),
        (None, "empty or not text"),
        (7, "empty or not text"),
        (f" {ACCOUNT}", "white space"),
        (f"{ACCOUNT}\n", "white space"),
        ("[1, 2]", "JSON"),
        ("0OIl", "not base58"),
        ("é", "not base58"),
        (ACCOUNT[:-3], "not 32"),
        (ACCOUNT + "1", "not 32"),
        (VECTORS[0]["secret_key_base58"], "64 bytes, not 32"),
    ],
)
def test_an_account_that_is_not_32_bytes_is_refused_by_name(text: Any, says: str) -> None:
    """A wrong address is a ConfigurationError that names the field (S19)."""
    with pytest.raises(ConfigurationError, match=rf"^The account is not a Solana address: .*{says}.*Nothing was sent"):
        check_address(text, "The account")


def test_a_right_account_is_passed_through() -> None:
    """An address of 32 bytes is returned unchanged."""
    assert check_address(ACCOUNT, "The account") == ACCOUNT
