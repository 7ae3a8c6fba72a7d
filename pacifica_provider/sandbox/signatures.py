"""Pacifica's signatures, checked as its documentation describes them.

Written apart from `pacifica_provider.api.signing` on purpose: a mistake in one is seen by the other.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import base58
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from pacifica_provider.sandbox.errors import bad_signature

if TYPE_CHECKING:
    from collections.abc import Mapping

PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64


def canonical_message(operation_type: str, data: Mapping[str, object], *, timestamp: int, expiry_window: int) -> bytes:
    """Return the signed bytes: header and `data`, keys sorted at every level, no whitespace, UTF-8."""
    message = {"type": operation_type, "timestamp": timestamp, "expiry_window": expiry_window, "data": data}
    return json.dumps(message, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decoded(text: str, length: int) -> bytes | None:
    """Return the bytes behind base58 text, or None if they are not `length` bytes."""
    try:
        raw = base58.b58decode(text)
    except ValueError:
        return None
    return raw if len(raw) == length and base58.b58encode(raw).decode() == text else None


def signature_bytes(text: str) -> bytes:
    """Decode a signature, or refuse it."""
    raw = decoded(text, SIGNATURE_BYTES)
    if raw is None:
        raise bad_signature("Invalid signature")
    return raw


def check_public_key(text: str) -> bytes:
    """Decode an address, or refuse it."""
    raw = decoded(text, PUBLIC_KEY_BYTES)
    if raw is None:
        raise bad_signature("Invalid public key")
    return raw


def verify(message: bytes, signature: bytes, public_key: bytes) -> None:
    """Refuse the message unless `public_key` signed exactly these bytes."""
    try:
        VerifyKey(public_key).verify(message, signature)
    except (BadSignatureError, ValueError):
        raise bad_signature("Verification failed") from None
