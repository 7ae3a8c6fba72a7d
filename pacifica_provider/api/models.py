"""
What Pacifica answers, as frozen records with exact amounts.

Every ``from_json`` is strict: a missing or mistyped field raises ``ValueError`` instead of becoming a default,
since a row read wrongly is a withdrawal judged wrongly. Fields that Pacifica adds later are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacifica_provider.api.amounts import parse_wire_amount

if TYPE_CHECKING:
    from decimal import Decimal

_LARGEST_NONCE = 2**64 - 1


def parse_batch_nonce(value: object) -> int:
    """
    Read a batch nonce: a non-negative integer, or its decimal digits as text.

    The documentation says integer, the official examples show text, and an Airflow template renders text.

    :raises ValueError: for anything else: ``None``, a boolean, a float, a sign, spaces, or more than 64 bits.
    """
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST_NONCE:
        raise ValueError(f"not a batch nonce (a non-negative integer): {str(value)[:40]!r}")
    return value


@dataclass(frozen=True, slots=True)
class Receipt:
    """The exchange's answer to an accepted withdrawal: gross amount asked for, and the fee taken out of it."""

    symbol: str
    batch_nonce: int
    requested_amount: Decimal
    fee_amount: Decimal

    @classmethod
    def from_json(cls, data: object) -> Receipt:
        """Read ``data`` of a 200 answer; ``ValueError`` if a field is missing or odd."""
        row = _mapping(data)
        return cls(
            symbol=_text(row, "symbol"),
            batch_nonce=parse_batch_nonce(row.get("batch_nonce")),
            requested_amount=parse_wire_amount(row.get("requested_amount")),
            fee_amount=parse_wire_amount(row.get("fee_amount")),
        )


@dataclass(frozen=True, slots=True)
class PendingWithdrawal:
    """A row of the pending list: accepted, not yet on chain. ``amount`` is net, ``amount_requested`` gross."""

    symbol: str
    amount: Decimal
    amount_requested: Decimal
    fee_amount: Decimal
    batch_nonce: int
    created_at_ms: int

    @classmethod
    def from_json(cls, data: object) -> PendingWithdrawal:
        """Read one row; ``ValueError`` if a field is missing or odd."""
        row = _mapping(data)
        return cls(
            symbol=_text(row, "symbol"),
            amount=parse_wire_amount(row.get("amount")),
            amount_requested=parse_wire_amount(row.get("amount_requested")),
            fee_amount=parse_wire_amount(row.get("fee_amount")),
            batch_nonce=parse_batch_nonce(row.get("batch_nonce")),
            created_at_ms=_milliseconds(row, "created_at"),
        )


@dataclass(frozen=True, slots=True)
class SettledWithdrawal:
    """
    A row of the history. It counts as on chain only with a ``transaction_id``.

    Whether ``amount`` is net or gross is not documented; readers must allow for both.
    """

    symbol: str
    amount: Decimal
    batch_nonce: int
    transaction_id: str | None
    created_at_ms: int

    @classmethod
    def from_json(cls, data: object) -> SettledWithdrawal:
        """Read one row; ``ValueError`` if a field is missing or odd. An empty transaction id is none."""
        row = _mapping(data)
        transaction_id = row.get("transaction_id")
        if transaction_id is not None and not isinstance(transaction_id, str):
            raise ValueError("transaction_id is neither text nor null")
        return cls(
            symbol=_text(row, "symbol"),
            amount=parse_wire_amount(row.get("amount")),
            batch_nonce=parse_batch_nonce(row.get("batch_nonce")),
            transaction_id=transaction_id or None,
            created_at_ms=_milliseconds(row, "created_at"),
        )


@dataclass(frozen=True, slots=True)
class SpotBalance:
    """What the account holds of one asset, and how much of it may be withdrawn now."""

    symbol: str
    amount: Decimal
    available_to_withdraw: Decimal
    pending_balance: Decimal

    @classmethod
    def from_json(cls, data: object) -> SpotBalance:
        """Read one entry of ``spot_balances``; ``ValueError`` if a field is missing or odd."""
        row = _mapping(data)
        return cls(
            symbol=_text(row, "symbol"),
            amount=parse_wire_amount(row.get("amount")),
            available_to_withdraw=parse_wire_amount(row.get("available_to_withdraw")),
            pending_balance=parse_wire_amount(row.get("pending_balance")),
        )


@dataclass(frozen=True, slots=True)
class SpotAsset:
    """An asset of the exchange and whether it is active."""

    symbol: str
    active: bool

    @classmethod
    def from_json(cls, data: object) -> SpotAsset:
        """Read one row of ``/spot_assets``; ``ValueError`` if a field is missing or odd."""
        row = _mapping(data)
        if not isinstance(row.get("active"), bool):
            raise ValueError("active is not a boolean")
        return cls(symbol=_text(row, "symbol"), active=row["active"] is True)


@dataclass(frozen=True, slots=True)
class BridgeParameters:
    """What it takes to withdraw one asset: the flat fee in units of the asset, and its decimal places."""

    symbol: str
    withdrawal_fee: Decimal
    decimals: int

    @classmethod
    def from_json(cls, data: object) -> BridgeParameters:
        """Read the parameters of one asset; ``ValueError`` if a field is missing or odd."""
        row = _mapping(data)
        decimals = row.get("decimals")
        if isinstance(decimals, bool) or not isinstance(decimals, int) or not 0 <= decimals <= 18:
            raise ValueError("decimals is not an integer from 0 to 18")
        return cls(
            symbol=_text(row, "symbol"),
            withdrawal_fee=parse_wire_amount(row.get("withdrawal_fee")),
            decimals=decimals,
        )


def _mapping(data: object) -> Mapping[str, object]:
    if not isinstance(data, Mapping):
        raise ValueError(f"expected an object, got {type(data).__name__}")
    return data


def _text(row: Mapping[str, object], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is not text")
    return value


def _milliseconds(row: Mapping[str, object], name: str) -> int:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} is not a time in Unix milliseconds")
    return value
