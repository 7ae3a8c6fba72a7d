"""The body of the withdraw POST: read, checked for shape, and turned back into the signed message."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from pacifica_provider.sandbox.errors import bad_request, bad_signature
from pacifica_provider.sandbox.signatures import (
    canonical_message,
    check_public_key,
    signature_bytes,
    verify,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

OPERATION = "withdraw_spot_asset"
DEFAULT_EXPIRY_MS = 30_000
LARGEST_INTEGER = 2**63 - 1
AMOUNT = re.compile(r"-?[0-9]{1,28}(\.[0-9]{1,28})?", re.ASCII)
FULL_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Order:
    """A withdraw request whose fields have the right types. Nothing else is known about it yet."""

    account: str
    signature: str
    timestamp: int
    expiry_window: int
    symbol: str
    amount: str
    idempotency_key: str | None
    agent_wallet: str | None

    @property
    def value(self) -> Decimal:
        """The amount as an exact number."""
        return Decimal(self.amount)

    @property
    def message(self) -> bytes:
        """The bytes that the signer must have signed, rebuilt from the fields."""
        data = {"symbol": self.symbol, "amount": self.amount}
        if self.idempotency_key is not None:
            data["idempotency_key"] = self.idempotency_key
        return canonical_message(OPERATION, data, timestamp=self.timestamp, expiry_window=self.expiry_window)


def read_json(body: bytes) -> dict[str, object]:
    """Return the JSON object in `body`, or refuse it."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise bad_request("Failed to parse the request body as JSON") from None
    if not isinstance(content, dict):
        raise bad_request("Failed to deserialize the JSON body: expected an object")
    return content


def read_order(body: bytes) -> Order:
    """Return the order in `body`, or refuse it. Fields the API does not document are ignored."""
    content = read_json(body)
    expiry = _integer(content, "expiry_window", optional=True)
    order = Order(
        account=_required_text(content, "account"),
        signature=_required_text(content, "signature"),
        timestamp=_integer(content, "timestamp") or 0,
        expiry_window=DEFAULT_EXPIRY_MS if expiry is None else expiry,
        symbol=_required_text(content, "symbol"),
        amount=_required_text(content, "amount"),
        idempotency_key=_key(content),
        agent_wallet=_text(content, "agent_wallet"),
    )
    if not AMOUNT.fullmatch(order.amount):
        raise bad_request("Invalid decimal in field `amount`")
    return order


def authenticate(order: Order, *, now_ms: int, future_tolerance_ms: float | None) -> None:
    """Refuse the order unless its signer signed it and it has not expired at `now_ms`."""
    signature = signature_bytes(order.signature)
    if order.timestamp + order.expiry_window < now_ms:
        raise bad_signature("Invalid message")
    if future_tolerance_ms is not None and order.timestamp > now_ms + future_tolerance_ms:
        raise bad_signature("Invalid message")
    account_key = check_public_key(order.account)
    signer = account_key if order.agent_wallet is None else check_public_key(order.agent_wallet)
    verify(order.message, signature, signer)


def _text(content: Mapping[str, object], name: str) -> str | None:
    value = content.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise bad_request(f"Failed to deserialize the JSON body: {name}: invalid type, expected a string")
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate: JSON can spell it, UTF-8 cannot
        raise bad_request(f"Failed to deserialize the JSON body: {name}: invalid unicode") from None
    return value


def _required_text(content: Mapping[str, object], name: str) -> str:
    value = _text(content, name)
    if value is None:
        raise bad_request(f"Failed to deserialize the JSON body: missing field `{name}`")
    return value


def _integer(content: Mapping[str, object], name: str, *, optional: bool = False) -> int | None:
    value = content.get(name)
    if value is None and optional:
        return None
    if value is None:
        raise bad_request(f"Failed to deserialize the JSON body: missing field `{name}`")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_INTEGER:
        raise bad_request(f"Failed to deserialize the JSON body: {name}: invalid type, expected an integer")
    return value


def _key(content: Mapping[str, object]) -> str | None:
    text = _text(content, "idempotency_key")
    if text is not None and not FULL_UUID.fullmatch(text):
        raise bad_request("Invalid idempotency_key: expected a full UUID string")
    return None if text is None else text.lower()  # parsed and printed again, as a typed server does
