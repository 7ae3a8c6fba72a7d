"""The GET endpoints: what the exchange shows of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from pacifica_provider.sandbox.answers import Answer, accepted, error_envelope
from pacifica_provider.sandbox.errors import Refused, bad_request
from pacifica_provider.sandbox.exchange import Exchange
from pacifica_provider.sandbox.records import Account, Asset, plain

MINIMUM_DEPOSIT = "0.01"
DAILY_DEPOSIT_USD, DAILY_WITHDRAW_USD = "50000", "250000"
NOT_FOUND = 404
Query = Mapping[str, str]
Reader = Callable[[Exchange, Query], Answer]


def pending(exchange: Exchange, query: Query) -> Answer:
    """Withdrawals that are not on chain yet."""
    return accepted(exchange.pending(_account(query)))


def history(exchange: Exchange, query: Query) -> Answer:
    """Withdrawals that are."""
    rows, cursor = exchange.history(_account(query), limit=_limit(query), cursor=query.get("cursor") or None)
    return accepted(rows, next_cursor=cursor, has_more=cursor is not None)


def account(exchange: Exchange, query: Query) -> Answer:
    """Balances."""
    exchange.advance()
    found = exchange.accounts.find(_account(query))
    if found is None:
        return error_envelope(NOT_FOUND, "Account not found")
    idle = dict.fromkeys(("positions_count", "orders_count", "stop_orders_count", "fee_level"), 0)
    money = ("balance", "account_equity", "available_to_spend", "available_to_withdraw", "pending_balance")
    return accepted(
        {
            **dict.fromkeys(money, "0"),
            "total_margin_used": "0",
            **idle,
            "spot_balances": [_balance(exchange, found, symbol) for symbol in found.balances],
            "updated_at": exchange.now_ms(),
        }
    )


def _balance(exchange: Exchange, found: Account, symbol: str) -> dict[str, str]:
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


def spot_assets(exchange: Exchange, query: Query) -> Answer:
    """List the assets."""
    wanted = [asset for asset in exchange.assets.values() if asset.active or query.get("include_inactive") == "true"]
    return accepted([_asset(asset) for asset in wanted])


def _asset(asset: Asset) -> dict[str, object]:
    return {
        "symbol": asset.symbol,
        "tick_size": "0.01",
        "lot_size": "0.01",
        "active": asset.active,
        "collateral_enabled": True,
        "ltv_ratio": "0.8",
        "created_at": 1_775_000_000_000,
        "updated_at": 1_775_000_000_000,
    }


def bridge_info(exchange: Exchange, _query: Query) -> Answer:
    """List the active bridges."""
    return accepted([_bridge(asset) for asset in exchange.assets.values() if asset.bridge == "active"])


def bridge_parameters(exchange: Exchange, query: Query) -> Answer:
    """Describe the bridge of one asset."""
    asset = exchange.assets.get(query["symbol"])
    if asset is None or asset.bridge != "active":
        return error_envelope(NOT_FOUND, f"No active bridge for {query['symbol']}")
    return accepted(_bridge(asset))


def _bridge(asset: Asset) -> dict[str, object]:
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
        raise bad_request("Failed to deserialize query string: missing field `account`")
    return address


def _limit(query: Query) -> int | None:
    text = query.get("limit")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise Refused(400, "Failed to deserialize query string: limit: invalid value")
    return int(text)


READERS: Mapping[str, tuple[str, Reader]] = {
    "pending": ("/account/spot_asset/withdraw/pending", pending),
    "history": ("/account/spot_asset/withdraw/history", history),
    "account": ("/account", account),
    "spot_assets": ("/spot_assets", spot_assets),
    "bridge_info": ("/spot_assets/bridge/info", bridge_info),
    "bridge_parameters": ("/spot_assets/bridge/parameters/{symbol}", bridge_parameters),
}
