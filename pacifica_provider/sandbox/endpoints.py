"""What the endpoints of the exchange answer, once a request has got so far."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Generic, TypeVar

from typing_extensions import TypedDict

from pacifica_provider.sandbox.accounts import Account, Asset, Refused, plain
from pacifica_provider.sandbox.exchange import Exchange, Receipt
from pacifica_provider.sandbox.openapi import Operation
from pacifica_provider.sandbox.requests import Order
from pacifica_provider.sandbox.responses import HTML, JSON, TEXT, ErrorEnvelope
from pacifica_provider.sandbox.withdrawals import HistoryRow, PendingRow

MINIMUM_DEPOSIT = "0.01"
DAILY_DEPOSIT_USD, DAILY_WITHDRAW_USD = "50000", "250000"
LISTED_AT = 1_775_000_000_000
API = "/api/v1"
ERROR: dict[str, object] = {JSON: ErrorEnvelope}
T = TypeVar("T")
Query = Mapping[str, str]
Schema = Mapping[str, object]
Reader = Callable[[Exchange, Query], Mapping[str, Any]]


class Envelope(TypedDict, Generic[T]):
    """What every accepted request is answered with."""

    success: bool
    data: T
    error: None
    code: None


class HistoryPage(Envelope[list[HistoryRow]]):
    """A page of the history, and where the next one begins."""

    next_cursor: str | None
    has_more: bool


class Balance(TypedDict):
    """What an account has of one asset."""

    symbol: str
    amount: str
    available_to_withdraw: str
    pending_balance: str
    daily_withdraw_amount_usd: str
    effective_daily_deposit_limit_usd: str
    effective_daily_withdraw_limit_usd: str


class AccountInfo(TypedDict):
    """An account that holds spot assets and nothing else."""

    balance: str
    account_equity: str
    available_to_spend: str
    available_to_withdraw: str
    pending_balance: str
    total_margin_used: str
    positions_count: int
    orders_count: int
    stop_orders_count: int
    fee_level: int
    spot_balances: list[Balance]
    updated_at: int


class SpotAsset(TypedDict):
    """An asset as the exchange lists it."""

    symbol: str
    tick_size: str
    lot_size: str
    active: bool
    collateral_enabled: bool
    ltv_ratio: str
    created_at: int
    updated_at: int


class Bridge(TypedDict):
    """The way of an asset to and from the chain."""

    symbol: str
    minimum_deposit: str
    withdrawal_fee: str
    bridge_program: str
    mint: str | None
    decimals: int


def accepted(data: T) -> Envelope[T]:
    """Return data in the envelope."""
    return {"success": True, "data": data, "error": None, "code": None}


def withdraw(exchange: Exchange, body: bytes, received_at: int) -> Envelope[Receipt]:
    """Withdraw a spot asset."""
    return accepted(exchange.withdraw(body, received_at=received_at))


def pending(exchange: Exchange, query: Query) -> Envelope[list[PendingRow]]:
    """Withdrawals that are not on chain yet."""
    return accepted(exchange.pending(_account(query)))


def history(exchange: Exchange, query: Query) -> HistoryPage:
    """Withdrawals that are."""
    rows, cursor = exchange.history(_account(query), limit=_limit(query), cursor=query.get("cursor") or None)
    return {**accepted(rows), "next_cursor": cursor, "has_more": cursor is not None}


def account(exchange: Exchange, query: Query) -> Envelope[AccountInfo]:
    """Balances."""
    exchange.advance()
    found = exchange.accounts.find(_account(query))
    if found is None:
        raise Refused(404, "Account not found")
    return accepted(
        {
            "balance": "0",
            "account_equity": "0",
            "available_to_spend": "0",
            "available_to_withdraw": "0",
            "pending_balance": "0",
            "total_margin_used": "0",
            "positions_count": 0,
            "orders_count": 0,
            "stop_orders_count": 0,
            "fee_level": 0,
            "spot_balances": [_balance(exchange, found, symbol) for symbol in found.balances],
            "updated_at": exchange.now_ms(),
        }
    )


def _balance(exchange: Exchange, found: Account, symbol: str) -> Balance:
    amount = plain(found.balances[symbol])
    limit = exchange.options.daily_limit_usd
    return {
        "symbol": symbol,
        "amount": amount,
        "available_to_withdraw": amount,
        "pending_balance": "0",
        "daily_withdraw_amount_usd": plain(exchange.withdrawn_usd(found.address, symbol, exchange.now_ms())),
        "effective_daily_deposit_limit_usd": DAILY_DEPOSIT_USD,
        "effective_daily_withdraw_limit_usd": DAILY_WITHDRAW_USD if limit is None else plain(Decimal(str(limit))),
    }


def spot_assets(exchange: Exchange, query: Query) -> Envelope[list[SpotAsset]]:
    """List the assets."""
    everything = query.get("include_inactive") == "true"
    return accepted([_asset(asset) for asset in exchange.assets.values() if asset.active or everything])


def _asset(asset: Asset) -> SpotAsset:
    return {
        "symbol": asset.symbol,
        "tick_size": "0.01",
        "lot_size": "0.01",
        "active": asset.active,
        "collateral_enabled": True,
        "ltv_ratio": "0.8",
        "created_at": LISTED_AT,
        "updated_at": LISTED_AT,
    }


def bridge_info(exchange: Exchange, _query: Query) -> Envelope[list[Bridge]]:
    """List the active bridges."""
    return accepted([_bridge(asset) for asset in exchange.assets.values() if asset.bridge == "active"])


def bridge_parameters(exchange: Exchange, query: Query) -> Envelope[Bridge]:
    """Describe the bridge of one asset."""
    asset = exchange.assets.get(query["symbol"])
    if asset is None or asset.bridge != "active":
        raise Refused(404, f"No active bridge for {query['symbol']}")
    return accepted(_bridge(asset))


def _bridge(asset: Asset) -> Bridge:
    return {
        "symbol": asset.symbol,
        "minimum_deposit": MINIMUM_DEPOSIT,
        "withdrawal_fee": plain(asset.fee),
        "bridge_program": asset.program,
        "mint": asset.mint,
        "decimals": asset.decimals,
    }


def _account(query: Query) -> str:
    address = query.get("account")
    if not address:
        raise Refused(400, "Failed to deserialize query string: missing field `account`")
    return address


def _limit(query: Query) -> int | None:
    text = query.get("limit")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise Refused(400, "Failed to deserialize query string: limit: invalid value")
    return int(text)


def _get(name: str, path: str, reader: Reader, parameters: Mapping[str, Schema]) -> Operation:
    errors: dict[int, dict[str, object]] = {400: ERROR, 403: {HTML: str}, 404: ERROR, 429: ERROR}
    return Operation("GET", API + path, name, "exchange", reader, None, errors, parameters)


ACCOUNT: Mapping[str, Schema] = {"account": {"type": "string", "minLength": 1}}
PAGE: Mapping[str, Schema] = {
    # Left empty it is as if it were not there.
    "limit": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 10**9 - 1}, {"type": "string", "maxLength": 0}]},
    "cursor": {"type": "string"},
}
INACTIVE: Mapping[str, Schema] = {"include_inactive": {"type": "string", "description": "`true`, or not"}}
SYMBOL: Mapping[str, Schema] = {"symbol": {"type": "string"}}
READS = (
    _get("pending", "/account/spot_asset/withdraw/pending", pending, ACCOUNT),
    _get("history", "/account/spot_asset/withdraw/history", history, {**ACCOUNT, **PAGE}),
    _get("account", "/account", account, ACCOUNT),
    _get("spot_assets", "/spot_assets", spot_assets, INACTIVE),
    _get("bridge_info", "/spot_assets/bridge/info", bridge_info, {}),
    _get("bridge_parameters", "/spot_assets/bridge/parameters/{symbol}", bridge_parameters, SYMBOL),
)
WITHDRAW = Operation(
    "POST",
    API + "/account/spot_asset/withdraw",
    "withdraw",
    "exchange",
    withdraw,
    Order,
    {400: {**ERROR, TEXT: str}, 409: {**ERROR, TEXT: str}, 422: ERROR, 429: ERROR},
)
