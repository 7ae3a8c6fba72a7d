"""Pacifica's request signature: canonical message bytes, and the one object that holds the private key."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from pacifica_provider.exceptions import ConfigurationError, KeyMaterialError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nacl.signing import SigningKey

_SEED_BYTES = 32
_PAIR_BYTES = 64
_DIGITS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def canonical_message(
    operation_type: str, data: Mapping[str, Any], *, timestamp_ms: int, expiry_window_ms: int
) -> bytes:
    """
    Build the bytes that are signed: compact JSON, keys sorted at every level, ASCII only.

    ``account``, ``agent_wallet`` and ``signature`` are not part of it; an optional field that is absent must be
    left out of ``data``. Same bytes as Pacifica's Python SDK for every vector in ``tests/vectors``.

    :raises ConfigurationError: if a value is not ASCII (the SDKs disagree on those bytes), not finite, or ``None``
        (which would be signed as ``null``).
    """
    _refuse_ambiguous(data)
    message = {
        "type": operation_type,
        "timestamp": timestamp_ms,
        "expiry_window": expiry_window_ms,
        "data": data,
    }
    return json.dumps(message, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _refuse_ambiguous(value: object) -> None:
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        for name, item in value.items():
            _refuse_ambiguous(name)
            _refuse_ambiguous(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_ambiguous(item)
    elif not (isinstance(value, int) or (isinstance(value, str) and value.isascii())):
        raise ConfigurationError(
            f"cannot sign {value!r}: only ASCII text, integers and booleans have one form only. Nothing was sent."
        )


class Signer:
    """
    Holds an Ed25519 private key and shows nothing of it.

    It cannot be printed, pickled, copied or subscripted into giving the key away; PyNaCl's own key object prints
    its raw seed and pickles (measured), which is why it never leaves this class.
    """

    __slots__ = ("_key", "public_key")

    public_key: str
    """The public half, base58."""

    def __init__(self, key: SigningKey) -> None:
        import base58

        self._key = key
        self.public_key = base58.b58encode(bytes(key.verify_key)).decode("ascii")

    @classmethod
    def from_base58(cls, secret: str) -> Signer:
        """
        Read a 64-byte Solana keypair (seed and public key) or a 32-byte seed, in base58.

        :raises KeyMaterialError: if it is neither, or the two halves do not belong together. The text itself is
            never repeated, not even in part.
        """
        from nacl.signing import SigningKey

        raw, problem = _decoded(secret)
        del secret  # a traceback that prints locals must find no key here
        if not problem and len(raw) not in (_SEED_BYTES, _PAIR_BYTES):
            problem = f"it decodes to {len(raw)} bytes; a keypair has {_PAIR_BYTES}, a seed {_SEED_BYTES}"
        if problem:
            del raw
            raise KeyMaterialError(f"The private key cannot be used: {problem}. Nothing was sent.")
        key = SigningKey(raw[:_SEED_BYTES])
        if len(raw) == _PAIR_BYTES and bytes(key.verify_key) != raw[_SEED_BYTES:]:
            del raw, key
            raise KeyMaterialError(
                "The private key cannot be used: its two halves do not belong together, so it was damaged "
                "on the way here. Nothing was sent."
            )
        return cls(key)

    def sign(self, message: bytes) -> str:
        """Return the Ed25519 signature of the bytes as base58 text of 64 bytes; the same bytes, the same text."""
        return _base58_text(self._key.sign(message).signature)

    def mask_with(self, mask: Callable[[str], object]) -> None:
        """
        Hand every common text form of the key to ``mask``, Airflow's ``mask_secret``.

        With only the base58 form registered, hex, base64, byte lists and the bare seed pass unmasked (measured).
        """
        import base58

        seed = bytes(self._key)
        for raw in (seed, seed + bytes(self._key.verify_key)):
            mask(base58.b58encode(raw).decode("ascii"))
            mask(raw.hex())
            mask(raw.hex().upper())
            # Without padding and brackets the padded and bracketed forms are masked as well.
            mask(base64.b64encode(raw).decode("ascii").rstrip("="))
            mask(base64.urlsafe_b64encode(raw).decode("ascii").rstrip("="))
            mask(json.dumps(list(raw))[1:-1])
            mask(json.dumps(list(raw), separators=(",", ":"))[1:-1])
            mask(repr(raw))

    def __repr__(self) -> str:
        return f"<Signer of {self.public_key}>"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Signer cannot be pickled or copied: the private key stays in this process")


@cache
def _digit_pairs() -> list[str]:
    return [high + low for high in _DIGITS for low in _DIGITS]


def _base58_text(raw: bytes) -> str:
    """
    Print bytes in base58.

    The library divides the whole number by 58 for each digit, which for a signature takes over half as long as signing.
    Four digits at a time, as 58**4 fits one of the pieces that Python's integers are made of, take a quarter of that.
    """
    pairs, number = _digit_pairs(), int.from_bytes(raw, "big")
    text: list[str] = []
    while number:
        number, four = divmod(number, 58**4)
        high, low = divmod(four, 58**2)
        text += (pairs[low], pairs[high])
    text.reverse()
    zeros = len(raw) - len(raw.lstrip(b"\0"))
    return "1" * zeros + "".join(text).lstrip("1")


def _decoded(text: object) -> tuple[bytes, str]:
    """Return the bytes and no problem, or no bytes and what is wrong, without repeating the text."""
    import base58

    if not isinstance(text, str) or not text:
        return b"", "it is empty or not text"
    if text != text.strip():
        return b"", "it begins or ends with white space"
    if text.startswith(("[", "{")):
        return b"", "it looks like JSON (Solana CLI's byte list); give it as base58 text"
    try:
        return base58.b58decode(text.encode("ascii")), ""
    except ValueError:
        return b"", "it is not base58"


def looks_like_a_key(text: str) -> bool:
    """Say whether a text may be a private key: base58 of a keypair's or a seed's length, which an address has too."""
    raw, problem = _decoded(text)
    return not problem and len(raw) in (_SEED_BYTES, _PAIR_BYTES)


def check_address(text: object, name: str) -> str:
    """
    Return a Solana address unchanged once it is known to be base58 of 32 bytes.

    :raises ConfigurationError: naming ``name`` and what is wrong.
    """
    raw, problem = _decoded(text)
    if not problem and len(raw) != _SEED_BYTES:
        problem = f"it decodes to {len(raw)} bytes, not {_SEED_BYTES}"
    if problem:
        raise ConfigurationError(f"{name} is not a Solana address: {problem}. Nothing was sent.")
    return str(text)
