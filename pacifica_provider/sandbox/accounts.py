"""Accounts and assets: who has what, and what may be withdrawn."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from pacifica_provider.sandbox.errors import BadControl, Refused, business
from pacifica_provider.sandbox.records import Account, Asset, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pacifica_provider.sandbox.keys import KeyMaker

RICH = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Opened:
    """A new account with its secrets."""

    account: str
    private_key: str = field(repr=False)
    agent_private_key: str = field(repr=False)
    api_config_key: str = field(repr=False)


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


class Accounts:
    """All accounts of the exchange."""

    def __init__(self, keys: KeyMaker) -> None:
        self._keys = keys
        self._known: dict[str, Account] = {}

    def open(self, balances: Mapping[str, Decimal], parent: str | None = None) -> Opened:
        """Open an account with one agent bound to it."""
        if parent is not None:
            self.get(parent)
        owner, agent, api_key = self._keys.pair(), self._keys.pair(), self._keys.api_key()
        self._known[owner.address] = Account(owner.address, dict(balances), frozenset({agent.address}), parent, api_key)
        return Opened(owner.address, owner.secret, agent.secret, api_key)

    def find(self, address: str) -> Account | None:
        """Return the account, if there is one."""
        return self._known.get(address)

    def get(self, address: str) -> Account:
        """Return the account, or tell the caller of the control interface that there is none."""
        account = self.find(address)
        if account is None:
            raise BadControl(f"no account {address!r}")
        return account

    def payer_of(self, api_key: str) -> str | None:
        """Return the main account whose credits an API config key spends."""
        for account in self._known.values():
            if account.api_key == api_key:
                return account.parent or account.address
        return None

    def bind(self, address: str, agent: str, *, bound: bool) -> None:
        """Bind an agent wallet to an account, or unbind it."""
        account = self.get(address)
        agents = account.agents | {agent} if bound else account.agents - {agent}
        self._known[address] = replace(account, agents=agents)

    def bind_new_agent(self, address: str) -> tuple[str, str]:
        """Bind a new agent and return its address and its secret."""
        pair = self._keys.pair()
        self.bind(address, pair.address, bound=True)
        return pair.address, pair.secret

    def debit(self, address: str, symbol: str, amount: Decimal) -> None:
        """Take `amount` off a balance that has been checked to hold it."""
        account = self._known[address]
        balances = {**account.balances, symbol: account.balances[symbol] - amount}
        self._known[address] = replace(account, balances=balances)


def check_withdrawal(account: Account | None, asset: Asset | None, symbol: str, amount: Decimal) -> Asset:
    """Apply the business rules, and return the asset."""
    if account is None:
        raise business(1, "Account not found")
    if account.parent is not None:
        raise business(34, f"Subaccount withdrawal not allowed: {account.address}")
    if asset is None:
        raise business(55, f"Asset not found: {symbol}")
    problem = _asset_problem(asset) or _amount_problem(account, asset, amount)
    if problem is not None:
        raise problem
    return asset


def check_day(account: str, usd: Decimal, limit_usd: float) -> None:
    """Refuse a withdrawal with which the day's total would come to more than the limit."""
    if usd > limit_usd:
        raise business(116, f"Daily withdraw limit exceeded for {account}: {plain(usd)} > {limit_usd:g}")


def _asset_problem(asset: Asset) -> Refused | None:
    if not asset.active:
        return business(56, f"Asset not active: {asset.symbol}")
    if asset.bridge == "missing":
        return business(91, f"Spot bridge not found: {asset.symbol}")
    if asset.bridge == "inactive":
        return business(92, f"Spot bridge inactive: {asset.symbol}")
    return None


def _amount_problem(account: Account, asset: Asset, amount: Decimal) -> Refused | None:
    exponent = amount.normalize().as_tuple().exponent
    places = -exponent if isinstance(exponent, int) else 0
    if amount <= 0 or places > asset.decimals:
        return business(59, f"Invalid amount: {plain(amount)}")
    if amount <= asset.fee or amount < asset.minimum:
        return business(29, f"Withdraw amount too low: {plain(amount)}")
    balance = account.balances.get(asset.symbol, Decimal(0))
    if amount > balance:
        return business(62, f"Insufficient spot balance: balance {plain(balance)} amount {plain(amount)}")
    return None
