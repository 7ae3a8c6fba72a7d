"""The control interface: what tests do to the exchange, and ask of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from pacifica_provider.sandbox.errors import BadControl, Refused
from pacifica_provider.sandbox.feed import MODES, Feed
from pacifica_provider.sandbox.ready import connection_json

if TYPE_CHECKING:
    from pacifica_provider.sandbox.exchange import Exchange
    from pacifica_provider.sandbox.faults import Faults

Wish = Mapping[str, object]
Reply = dict[str, object]
Call = Callable[[Wish], Reply]
DECIMAL = re.compile(r"[0-9]{1,28}(\.[0-9]{1,28})?", re.ASCII)
LARGEST_OFFSET_MS = 10 * 365 * 86_400_000
MOST_DECIMALS = 28
# These two check the names themselves.
FREE = (("POST", "/options"), ("POST", "/faults"))


class Control:
    """Answers control calls. `base_url` goes into the connections of new accounts."""

    def __init__(self, exchange: Exchange, faults: Faults, feed: Feed, base_url: str) -> None:
        self._exchange = exchange
        self._faults = faults
        self._feed = feed
        self._base_url = base_url
        self._calls: dict[tuple[str, str], Call] = {
            ("GET", "/ledger"): lambda _wish: exchange.debits(),
            ("POST", "/settle"): self._settle,
            ("GET", "/faults"): lambda _wish: {"faults": faults.as_json()},
            ("POST", "/faults"): self._add_fault,
            ("DELETE", "/faults"): self._clear_faults,
            ("GET", "/clock"): lambda _wish: self._clock_now(),
            ("POST", "/clock"): self._clock,
            ("POST", "/forget_keys"): lambda _wish: {"forgotten": exchange.keys.forget()},
            ("POST", "/foreign_withdrawal"): self._foreign_withdrawal,
            ("GET", "/options"): lambda _wish: {"options": exchange.options.as_json()},
            ("POST", "/options"): self._options,
            ("POST", "/accounts"): self._open_account,
            ("POST", "/agents"): self._agents,
            ("POST", "/assets"): self._assets,
            ("GET", "/ws"): lambda _wish: self._ws_now(),
            ("POST", "/ws"): self._ws,
        }
        self._takes = {
            "/settle": ("symbol", "batch_nonce"),
            "/clock": ("offset_ms",),
            "/foreign_withdrawal": ("symbol", "amount", "account"),
            "/accounts": ("balances", "subaccount_of"),
            "/agents": ("account", "agent_wallet", "bound"),
            "/assets": ("symbol", "decimals", "fee", "price_usd", "active", "bridge", "minimum"),
            "/ws": ("action",),
        }

    def dispatch(self, method: str, path: str, wish: object) -> Reply:
        """Carry out one call, or say what is wrong with it."""
        call = self._calls.get((method, path))
        if call is None:
            known = ", ".join(f"{verb} {where}" for verb, where in self._calls)
            raise BadControl(f"no control call {method} {path}; there are {known}")
        if not isinstance(wish, dict):
            raise BadControl("the body must be a JSON object")
        takes = wish if (method, path) in FREE else self._takes.get(path, ()) if method == "POST" else ()
        for name in wish:
            if name not in takes:
                raise BadControl(f"{method} {path} takes no {name!r}")
        return call(wish)

    def _settle(self, wish: Wish) -> Reply:
        symbol = None if wish.get("symbol") is None else _text(wish, "symbol")
        nonce = wish.get("batch_nonce")
        nonce = int(nonce) if isinstance(nonce, str) and nonce.isascii() and nonce.isdigit() else nonce
        if nonce is not None and (not isinstance(nonce, int) or isinstance(nonce, bool)):
            raise BadControl(f"'batch_nonce' must be a whole number, not {nonce!r}")
        settled = self._exchange.settle(symbol=symbol, batch_nonce=nonce)
        shown = [
            {
                "account": row.account,
                "symbol": row.symbol,
                "batch_nonce": row.batch_nonce,
                "transaction_id": row.transaction_id,
            }
            for row in settled
        ]
        return {"settled": shown}

    def _add_fault(self, wish: Wish) -> Reply:
        self._faults.add(wish)
        return {"faults": self._faults.as_json()}

    def _clear_faults(self, _wish: Wish) -> Reply:
        self._faults.clear()
        return {"faults": []}

    def _clock_now(self) -> Reply:
        return {"offset_ms": self._exchange.clock.offset_ms, "now_ms": self._exchange.now_ms()}

    def _clock(self, wish: Wish) -> Reply:
        offset = wish.get("offset_ms")
        if not isinstance(offset, int) or isinstance(offset, bool) or abs(offset) > LARGEST_OFFSET_MS:
            raise BadControl(f"'offset_ms' must be whole milliseconds, at most ten years, not {offset!r}")
        self._exchange.clock.offset_ms = offset
        self._exchange.advance()
        return self._clock_now()

    def _foreign_withdrawal(self, wish: Wish) -> Reply:
        symbol, amount = _text(wish, "symbol"), _decimal(wish.get("amount"), "amount")
        account = wish.get("account", self._exchange.main.account)
        if not isinstance(account, str):
            raise BadControl(f"'account' must be text, not {account!r}")
        try:
            self._exchange.check_rules(account, symbol, amount)
        except Refused as refused:
            raise BadControl(f"the exchange refuses it: {refused.error}") from None
        return self._exchange.accept(account, symbol, amount, key=None)

    def _options(self, wish: Wish) -> Reply:
        self._exchange.set_options(wish)
        return {"options": self._exchange.options.as_json()}

    def _open_account(self, wish: Wish) -> Reply:
        balances, parent = wish.get("balances", {}), wish.get("subaccount_of")
        if not isinstance(balances, dict):
            raise BadControl(f"'balances' must be an object of symbol and amount, not {balances!r}")
        if parent is not None and not isinstance(parent, str):
            raise BadControl(f"'subaccount_of' must be an account, not {parent!r}")
        amounts = {symbol: _decimal(amount, f"balances.{symbol}") for symbol, amount in balances.items()}
        opened = self._exchange.accounts.open(amounts, parent)
        return {
            "account": opened.account,
            "private_key": opened.private_key,
            "agent_private_key": opened.agent_private_key,
            "api_config_key": opened.api_config_key,
            "airflow_connection": connection_json(opened, self._base_url),
        }

    def _agents(self, wish: Wish) -> Reply:
        account, bound = _text(wish, "account"), wish.get("bound", True)
        if not isinstance(bound, bool):
            raise BadControl(f"'bound' must be true or false, not {bound!r}")
        if bound and wish.get("agent_wallet") is None:
            address, secret = self._exchange.accounts.bind_new_agent(account)
            return {"account": account, "agent_wallet": address, "bound": True, "agent_private_key": secret}
        agent = _text(wish, "agent_wallet")
        self._exchange.accounts.bind(account, agent, bound=bound)
        return {"account": account, "agent_wallet": agent, "bound": bound}

    def _assets(self, wish: Wish) -> Reply:
        symbol = _text(wish, "symbol")
        known = self._exchange.assets
        asset = known.get(symbol) or replace(known["SOL"], symbol=symbol)
        known[symbol] = asset = replace(asset, **_asset_changes(wish))  # type: ignore[arg-type]  # checked there
        return {"symbol": symbol, "active": asset.active, "bridge": asset.bridge, "decimals": asset.decimals}

    def _ws_now(self) -> Reply:
        return {"mode": self._feed.mode, "connections": self._feed.connections}

    def _ws(self, wish: Wish) -> Reply:
        action = wish.get("action")
        if action == "cut":
            return {**self._ws_now(), "cut": self._feed.cut()}
        if not isinstance(action, str) or action not in MODES:
            raise BadControl(f"'action' must be one of cut, {', '.join(MODES)}, not {action!r}")
        self._feed.mode = action
        return self._ws_now()


def _asset_changes(wish: Wish) -> dict[str, object]:
    changes: dict[str, object] = {}
    for name in ("fee", "price_usd", "minimum"):
        if name in wish:
            changes[name] = _decimal(wish[name], name)
    decimals, active, bridge = wish.get("decimals"), wish.get("active"), wish.get("bridge")
    if decimals is not None:
        if not isinstance(decimals, int) or isinstance(decimals, bool) or not 0 <= decimals <= MOST_DECIMALS:
            raise BadControl(f"'decimals' must be a whole number up to {MOST_DECIMALS}, not {decimals!r}")
        changes["decimals"] = decimals
    if active is not None:
        if not isinstance(active, bool):
            raise BadControl(f"'active' must be true or false, not {active!r}")
        changes["active"] = active
    if bridge is not None:
        if bridge not in ("active", "inactive", "missing"):
            raise BadControl(f"'bridge' must be active, inactive or missing, not {bridge!r}")
        changes["bridge"] = bridge
    return changes


def _text(wish: Wish, name: str) -> str:
    value = wish.get(name)
    if not isinstance(value, str) or not value:
        raise BadControl(f"{name!r} must be text, not {value!r}")
    return value


def _decimal(value: object, name: str) -> Decimal:
    if not isinstance(value, str) or not DECIMAL.fullmatch(value):
        raise BadControl(f'{name!r} must be decimal text such as "1.5", not {value!r}')
    return Decimal(value)
