"""Throwaway key pairs, the same ones again for the same seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

import base58
from nacl.signing import SigningKey

ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
PREFIX_LENGTH = 8


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An address and its secret, both base58. The secret is the 64-byte Solana pair."""

    address: str
    secret: str


class KeyMaker:
    """Makes keys, transaction ids and API keys. Without a seed they differ at each start."""

    def __init__(self, seed: int | None = None) -> None:
        # Not a secure generator once seeded, and not meant to be: these keys guard play money.
        self._random: random.Random = random.SystemRandom() if seed is None else random.Random(seed)  # noqa: S311 - play money

    def _bytes(self, length: int) -> bytes:
        return self._random.getrandbits(8 * length).to_bytes(length, "big")

    def pair(self) -> KeyPair:
        """Return a new Ed25519 key pair."""
        seed = self._bytes(32)
        public = bytes(SigningKey(seed).verify_key)
        return KeyPair(address=_text(public), secret=_text(seed + public))

    def address(self) -> str:
        """Return 32 bytes in base58, for programs and mints."""
        return _text(self._bytes(32))

    def transaction_id(self) -> str:
        """Return 64 bytes in base58: what a Solana signature looks like."""
        return _text(self._bytes(64))

    def api_key(self) -> str:
        """Return an API config key: eight characters, an underscore, a UUID in base58."""
        prefix = "".join(self._random.choice(ALPHABET) for _ in range(PREFIX_LENGTH))
        return f"{prefix}_{_text(self._bytes(16))}"


def _text(raw: bytes) -> str:
    return base58.b58encode(raw).decode("ascii")
