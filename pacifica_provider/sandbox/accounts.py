"""Accounts and assets: keys, who has what, and what may be withdrawn."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

import base58
from nacl.signing import SigningKey

if TYPE_CHECKING:
    from collections.abc import Mapping

RICH = Decimal(1_000_000)
ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
PREFIX_LENGTH = 8
PLACES = Decimal("1.00000000")


class Refused(Exception):
    """The exchange says no. `shape` is the shape of the answer's body: "envelope", "text" or "empty"."""

    def __init__(
        self,
        status: int,
        error: str,
        *,
        code: int | None = None,
        shape: str = "envelope",
        error_id: str = "unspecified",
    ) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.code = status if code is None else code
        self.shape = shape
        self.error_id = error_id


def padded(amount: Decimal) -> str:
    """Amounts of withdrawals have eight places, or more where eight would not be exact."""
    short = amount.normalize()
    exponent = short.as_tuple().exponent
    return format(short if isinstance(exponent, int) and exponent < -8 else short.quantize(PLACES), "f")


def plain(amount: Decimal) -> str:
    """Balances are not padded: "5", "0", "250000"."""
    return format(amount.normalize(), "f") if amount else "0"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An address and its secret, both base58. The secret is the 64-byte Solana pair."""

    address: str
    secret: str = field(repr=False)


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
        return KeyPair(address=_base58(public), secret=_base58(seed + public))

    def address(self) -> str:
        """Return 32 bytes in base58, for programs and mints."""
        return _base58(self._bytes(32))

    def transaction_id(self) -> str:
        """Return 64 bytes in base58: what a Solana signature looks like."""
        return _base58(self._bytes(64))

    def api_key(self) -> str:
        """Return an API config key: eight characters, an underscore, a UUID in base58."""
        prefix = "".join(self._random.choice(ALPHABET) for _ in range(PREFIX_LENGTH))
        return f"{prefix}_{_base58(self._bytes(16))}"


def _base58(raw: bytes) -> str:
    return base58.b58encode(raw).decode("ascii")


@dataclass(frozen=True, slots=True)
class Asset:
    """A spot asset and its bridge ("active", "inactive" or "missing")."""

    symbol: str
    decimals: int
    fee: Decimal
    price_usd: Decimal
    mint: str | None
    program: str
    active: bool = True
    bridge: str = "active"
    minimum: Decimal = Decimal(0)


def default_assets(keys: KeyMaker) -> dict[str, Asset]:
    """Return three assets: native, wrapped, and one whose symbol is case sensitive."""
    return {
        asset.symbol: asset
        for asset in (
            Asset("SOL", 9, Decimal("0.001"), Decimal(150), None, keys.address()),
            Asset("BTC", 8, Decimal("0.00002"), Decimal(100_000), keys.address(), keys.address()),
            Asset("kBONK", 5, Decimal(25), Decimal("0.02"), keys.address(), keys.address()),
        )
    }


@dataclass(slots=True)
class Account:
    """An account: its balances, the agents bound to it, and its main account if it is a subaccount."""

    address: str
    balances: dict[str, Decimal]
    agents: set[str]
    parent: str | None = None
    api_key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """A new account with its secrets."""

    account: str
    private_key: str = field(repr=False)
    agent_private_key: str = field(repr=False)
    api_config_key: str = field(repr=False)

    def as_json(self, base_url: str) -> dict[str, str]:
        """Return it with the text for AIRFLOW_CONN_PACIFICA_DEFAULT, which has the agent's key, never the owner's."""
        connection = {
            "conn_type": "pacifica",
            "login": self.account,
            "password": self.agent_private_key,
            "host": base_url,
            "extra": {"environment": "custom"},
        }
        return {**asdict(self), "airflow_connection": json.dumps(connection)}


class Accounts:
    """All accounts of the exchange."""

    def __init__(self, keys: KeyMaker) -> None:
        self._keys = keys
        self._known: dict[str, Account] = {}

    def open(self, balances: Mapping[str, Decimal], parent: str | None = None) -> Opened:
        """Open an account with one agent bound to it."""
        owner, agent, api_key = self._keys.pair(), self._keys.pair(), self._keys.api_key()
        self._known[owner.address] = Account(owner.address, dict(balances), {agent.address}, parent, api_key)
        return Opened(owner.address, owner.secret, agent.secret, api_key)

    def find(self, address: str) -> Account | None:
        """Return the account, if there is one."""
        return self._known.get(address)

    def payer_of(self, api_key: str) -> str | None:
        """Return the main account whose credits an API config key spends."""
        for account in self._known.values():
            if account.api_key == api_key:
                return account.parent or account.address
        return None

    def debit(self, address: str, symbol: str, amount: Decimal) -> None:
        """Take `amount` off a balance that has been checked to hold it."""
        self._known[address].balances[symbol] -= amount

    def bind_new_agent(self, account: Account) -> KeyPair:
        """Bind a new agent wallet to the account, and return its keys."""
        pair = self._keys.pair()
        account.agents.add(pair.address)
        return pair


def check_withdrawal(
    account: Account | None, asset: Asset | None, symbol: str, amount: Decimal
) -> tuple[Account, Asset]:
    """Apply the business rules to an order, and return the account and the asset that it names."""
    if account is None:
        raise business(1, "Account not found")
    if account.parent is not None:
        raise business(34, f"Subaccount withdrawal not allowed: {account.address}")
    if asset is None:
        raise business(55, f"Asset not found: {symbol}")
    if not asset.active:
        raise business(56, f"Asset not active: {symbol}")
    if asset.bridge != "active":
        code, state = (91, "not found") if asset.bridge == "missing" else (92, "inactive")
        raise business(code, f"Spot bridge {state}: {symbol}")
    exponent = amount.normalize().as_tuple().exponent
    places = -exponent if isinstance(exponent, int) else 0
    if amount <= 0 or places > asset.decimals:
        raise business(59, f"Invalid amount: {plain(amount)}")
    if amount <= asset.fee or amount < asset.minimum:
        raise business(29, f"Withdraw amount too low: {plain(amount)}")
    balance = account.balances.get(symbol, Decimal(0))
    if amount > balance:
        raise business(62, f"Insufficient spot balance: balance {plain(balance)} amount {plain(amount)}")
    return account, asset


def business(code: int, error: str) -> Refused:
    """Refuse by a business rule: the one case in which `code` is not the HTTP status."""
    return Refused(422, error, code=code)
