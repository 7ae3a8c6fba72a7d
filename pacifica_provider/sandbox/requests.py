"""The body of the withdraw POST: read, checked for shape, and turned back into the signed message.

Signatures are checked as Pacifica's documentation describes them, and apart from `pacifica_provider.api.signing` on
purpose: a mistake in one is seen by the other.
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

import base58
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from pacifica_provider.sandbox.accounts import Refused

OPERATION = "withdraw_spot_asset"
DEFAULT_EXPIRY_MS = 30_000
LARGEST_INTEGER = 2**63 - 1
PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
MISSHAPEN = {
    "amount": "Invalid decimal in field `amount`",
    "idempotency_key": "Invalid idempotency_key: expected a full UUID string",
}


def _unicode(text: str) -> str:
    text.encode()  # a lone surrogate: JSON can spell it, UTF-8 cannot
    return text


Text = Annotated[str, AfterValidator(_unicode)]
Integer = Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]
# Parsed and printed again in lower case, as a typed server does.
Key = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$", to_lower=True)]


class Order(BaseModel):
    """A withdraw request whose fields have the right types. Nothing else is known about it yet."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    account: Text
    signature: Text
    timestamp: Integer
    expiry_window: Integer | None = DEFAULT_EXPIRY_MS
    symbol: Text
    amount: Annotated[str, StringConstraints(pattern=r"^-?[0-9]{1,28}(\.[0-9]{1,28})?$")]
    idempotency_key: Key | None = None
    agent_wallet: Text | None = None

    @property
    def value(self) -> Decimal:
        """The amount as an exact number."""
        return Decimal(self.amount)

    @property
    def window_ms(self) -> int:
        """How long after its timestamp it is good."""
        return DEFAULT_EXPIRY_MS if self.expiry_window is None else self.expiry_window

    @property
    def message(self) -> bytes:
        """The bytes that the signer must have signed, rebuilt from the fields."""
        data = {"symbol": self.symbol, "amount": self.amount}
        if self.idempotency_key is not None:
            data["idempotency_key"] = self.idempotency_key
        return canonical_message(OPERATION, data, timestamp=self.timestamp, expiry_window=self.window_ms)


def read_json(body: bytes) -> dict[str, object]:
    """Return the JSON object in `body`, or refuse it."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "Failed to parse the request body as JSON") from None
    if not isinstance(content, dict):
        raise Refused(400, "Failed to deserialize the JSON body: expected an object")
    return content


def read_order(body: bytes) -> Order:
    """Return the order in `body`, or refuse it. Fields the API does not document are ignored."""
    try:
        return Order.model_validate(read_json(body))
    except ValidationError as problem:
        raise Refused(400, _complaint(problem.errors()[0])) from None


def _complaint(error: Mapping[str, Any]) -> str:
    """Return Pacifica's words for the first field that is wrong; null is as good as missing."""
    name, kind = str(error["loc"][0]), error["type"]
    if kind == "string_pattern_mismatch":
        return MISSHAPEN[name]
    if kind == "missing" or error["input"] is None:
        text = f"missing field `{name}`"
    elif kind in ("string_unicode", "value_error"):
        text = f"{name}: invalid unicode"
    elif kind == "string_type":
        text = f"{name}: invalid type, expected a string"
    else:
        text = f"{name}: invalid type, expected an integer"
    return f"Failed to deserialize the JSON body: {text}"


def authenticate(order: Order, *, now_ms: int, future_tolerance_ms: float | None) -> None:
    """Refuse the order unless its signer signed it and it has not expired at `now_ms`."""
    signature = signature_bytes(order.signature)
    expired = order.timestamp + order.window_ms < now_ms
    if expired or (future_tolerance_ms is not None and order.timestamp > now_ms + future_tolerance_ms):
        raise _bad_signature("Invalid message")
    account_key = check_public_key(order.account)
    signer = account_key if order.agent_wallet is None else check_public_key(order.agent_wallet)
    verify(order.message, signature, signer)


def canonical_message(operation_type: str, data: Mapping[str, object], *, timestamp: int, expiry_window: int) -> bytes:
    """Return the signed bytes: header and `data`, keys sorted at every level, no whitespace, UTF-8."""
    message = {"type": operation_type, "timestamp": timestamp, "expiry_window": expiry_window, "data": data}
    return json.dumps(message, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def signature_bytes(text: str) -> bytes:
    """Decode a signature, or refuse it."""
    return _decoded(text, SIGNATURE_BYTES, "Invalid signature")


def check_public_key(text: str) -> bytes:
    """Decode an address, or refuse it."""
    return _decoded(text, PUBLIC_KEY_BYTES, "Invalid public key")


def _decoded(text: str, length: int, otherwise: str) -> bytes:
    try:
        raw = base58.b58decode(text)
    except ValueError:
        raise _bad_signature(otherwise) from None
    if len(raw) != length or base58.b58encode(raw).decode() != text:
        raise _bad_signature(otherwise)
    return raw


def verify(message: bytes, signature: bytes, public_key: bytes) -> None:
    """Refuse the message unless `public_key` signed exactly these bytes."""
    try:
        VerifyKey(public_key).verify(message, signature)
    except (BadSignatureError, ValueError):
        raise _bad_signature("Verification failed") from None


def _bad_signature(error: str) -> Refused:
    """Refuse a signature, in the bare text that Pacifica has been seen to send."""
    return Refused(400, error, shape="text")
