"""The exchange itself: pure state and a clock; no sockets, no waiting."""

from __future__ import annotations

import json
import math
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from typing_extensions import TypedDict

from pacifica_provider.sandbox.accounts import (
    RICH,
    Accounts,
    KeyMaker,
    Opened,
    Refused,
    business,
    check_withdrawal,
    default_assets,
    padded,
    plain,
)
from pacifica_provider.sandbox.options import Options
from pacifica_provider.sandbox.requests import Order, authenticate, read_order
from pacifica_provider.sandbox.withdrawals import (
    DAY_MS,
    Debit,
    HistoryRow,
    PendingRow,
    Withdrawal,
    Withdrawals,
    history_page,
    midnight,
    pending_rows,
    shown_nonce,
    to_ms,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MINUTE_MS = 60_000
HISTORY_COST = {"ip": 12.0, "key": 4.0}


class Clock:
    """Tells the exchange's time: this machine's, plus an offset that tests may shift."""

    def __init__(self) -> None:
        self.offset_ms = 0

    def now_ms(self) -> int:
        """Milliseconds since the epoch, as the exchange has them."""
        return time.time_ns() // 1_000_000 + self.offset_ms


class Client(NamedTuple):
    """Who pays: an address that says nothing of itself, or the main account behind an API config key."""

    kind: str  # "ip" or "key"
    name: str


class RateLimitStatus(NamedTuple):
    """Where a client stands after a request."""

    allowed: bool
    remaining: float
    resets_in_s: int
    quota: float

    @property
    def headers(self) -> dict[str, str]:
        """The two documented headers. Their values are tenfold."""
        remaining, quota = math.floor(self.remaining * 10), math.floor(self.quota * 10)
        return {
            "ratelimit": f'"credits";r={remaining};t={self.resets_in_s}',
            "ratelimit-policy": f'"credits";q={quota};w={MINUTE_MS // 1000}',
        }


class Credits:
    """Charges each client for what it asks, in a rolling minute, as Pacifica documents it."""

    def __init__(self) -> None:
        self._spent: dict[Client, deque[tuple[int, float]]] = {}

    def charge(self, client: Client, route: str, *, now_ms: int, options: Options) -> RateLimitStatus:
        """Charge one request, unless nobody is charged or too little is left."""
        quota = float(options.quota_with_key if client.kind == "key" else options.quota)
        if not options.enforce_credits:
            return RateLimitStatus(allowed=True, remaining=quota, resets_in_s=MINUTE_MS // 1000, quota=quota)
        spent = self._spent.setdefault(client, deque())
        while spent and not now_ms - MINUTE_MS < spent[0][0] <= now_ms:
            spent.popleft()  # older than the window, or from before the clock was turned back
        cost = 1.0
        if route == "history":
            cost = HISTORY_COST[client.kind] if options.history_cost is None else options.history_cost
        left = quota - sum(each for _, each in spent)
        allowed = cost <= left
        if allowed:
            spent.append((now_ms, cost))
            left -= cost
        oldest = spent[0][0] if spent else now_ms
        resets_in_s = math.ceil((oldest + MINUTE_MS - now_ms) / 1000)
        return RateLimitStatus(allowed=allowed, remaining=left, resets_in_s=resets_in_s, quota=quota)


class Receipt(TypedDict):
    """What an accepted withdrawal is answered with."""

    symbol: str
    batch_nonce: int | str
    requested_amount: str
    fee_amount: str


@dataclass(slots=True)
class Post:
    """One POST as the exchange saw it, readable or not. `status` is None where no answer was sent."""

    key: object
    timestamp: object
    account: object
    symbol: object
    amount: object
    received_at: int
    outcome: str = "in_progress"
    status: int | None = None
    fault: str | None = None


class Ledger(TypedDict):
    """What a test asks afterwards: every debit, every POST, and how many requests of each route."""

    debits: list[Debit]
    posts: list[dict[str, Any]]
    requests: dict[str, int]


class Exchange:
    """Everything the sandbox knows. Call it from the server's thread; a test may look from any."""

    def __init__(self, *, seed: int | None = None, options: Options | None = None) -> None:
        self.clock = Clock()
        self.options = options or Options()
        keys = KeyMaker(seed)
        self.accounts = Accounts(keys)
        self.assets = default_assets(keys)
        self.main: Opened = self.accounts.open(dict.fromkeys(self.assets, RICH))
        self.book = Withdrawals(keys.transaction_id)
        self.credits = Credits()
        self.posts: list[Post] = []
        self.requests: Counter[str] = Counter()
        self.listeners: list[Callable[[str, Withdrawal], None]] = []
        # When an account used an idempotency key, whatever order came with it.
        self._keys_used_at: dict[tuple[str, str], int] = {}

    def now_ms(self) -> int:
        """Return the exchange's time."""
        return self.clock.now_ms()

    def open_post(self, body: bytes) -> Post:
        """Write down a POST as it arrives. Whoever processes it writes down what became of it."""
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            content = None
        seen = content if isinstance(content, dict) else {}
        post = Post(
            key=seen.get("idempotency_key"),
            timestamp=seen.get("timestamp"),
            account=seen.get("account"),
            symbol=seen.get("symbol"),
            amount=seen.get("amount"),
            received_at=self.now_ms(),
        )
        self.posts.append(post)
        return post

    def ledger(self) -> Ledger:
        """Return the ledger. Debits are read off the withdrawals, so that they cannot disagree with them."""
        self.advance()
        return {
            "debits": [row.debit() for row in self.book.rows.values()],
            "posts": [asdict(post) for post in self.posts],
            "requests": dict(self.requests),
        }

    def authenticate(self, body: bytes, *, received_at: int) -> Order:
        """Read an order and make sure that someone who may sign for the account signed it."""
        order = read_order(body)
        checked_at = received_at if self.options.expiry_checked == "arrival" else self.now_ms()
        authenticate(order, now_ms=checked_at, future_tolerance_ms=self.options.future_tolerance_ms)
        if order.agent_wallet not in (None, order.account):
            account = self.accounts.find(order.account)
            if account is None or order.agent_wallet not in account.agents:
                raise Refused(400, "Agent not authorized for account")
        return order

    def withdraw(self, body: bytes, *, received_at: int) -> Receipt:
        """Accept the withdrawal in `body` and return its receipt, or refuse it."""
        order = self.authenticate(body, received_at=received_at)
        self.advance()
        if self.options.balance_before_key:
            self._business(order)
        if order.idempotency_key is not None:
            self._check_key(order.account, order.idempotency_key)
        self._business(order)
        self._use_key(order)
        return self.accept(order.account, order.symbol, order.value, key=order.idempotency_key)

    def _check_key(self, account: str, key: str) -> None:
        used_at, retention_s = self._keys_used_at.get((account, key)), self.options.key_retention_s
        if used_at is not None and (retention_s is None or self.now_ms() < used_at + to_ms(retention_s)):
            raise self.duplicate()

    def _use_key(self, order: Order) -> None:
        if order.idempotency_key is not None:
            self._keys_used_at[order.account, order.idempotency_key] = self.now_ms()

    def duplicate(self) -> Refused:
        """Refuse an idempotency key that was used before. The true body is unknown, so its shape is an option."""
        shape, error_id = self.options.duplicate_body, "duplicate_idempotency_key"
        return Refused(409, "Duplicate idempotency key", shape=shape, error_id=error_id)

    def burn(self, order: Order) -> None:
        """Use up the key of a request that failed inside, if failures do that."""
        if self.options.burn_keys:
            self._use_key(order)

    def forget_keys(self) -> int:
        """Forget every key and say how many there were."""
        count = len(self._keys_used_at)
        self._keys_used_at.clear()
        return count

    def _business(self, order: Order) -> None:
        try:
            self.check_rules(order.account, order.symbol, order.value)
        except Refused:
            self.burn(order)
            raise

    def check_rules(self, account: str, symbol: str, amount: Decimal) -> None:
        """Refuse a withdrawal that a business rule forbids."""
        _, asset = check_withdrawal(self.accounts.find(account), self.assets.get(symbol), symbol, amount)
        limit = self.options.daily_limit_usd
        if limit is None or self.options.over_daily_limit != "refuse":
            return
        usd = self.withdrawn_usd(account, symbol, self.now_ms()) + amount * asset.price_usd
        if usd > limit:
            raise business(116, f"Daily withdraw limit exceeded for {account}: {plain(usd)} > {limit:g}")

    def withdrawn_usd(self, account: str, symbol: str, at_ms: int) -> Decimal:
        """Return what counts against the limit of the day that `at_ms` lies in."""
        amounts = [
            row.amount
            for row in self._rows(account)
            if row.symbol == symbol and midnight(row.free_at) == midnight(at_ms)
        ]
        asset = self.assets.get(symbol)
        return sum(amounts, Decimal(0)) * (asset.price_usd if asset else 0)

    def _held_until(self, account: str, symbol: str, amount: Decimal) -> int | None:
        """Return the reset that the day's limit lets a withdrawal go at: of the first day with room; None for today."""
        limit, at_ms = self.options.daily_limit_usd, self.now_ms()
        value = amount * self.assets[symbol].price_usd
        if limit is None or self.withdrawn_usd(account, symbol, at_ms) + value <= limit:
            return None
        at_ms = midnight(at_ms) + DAY_MS
        while (used := self.withdrawn_usd(account, symbol, at_ms)) and used + value > limit:
            at_ms += DAY_MS
        return at_ms

    def accept(self, account: str, symbol: str, amount: Decimal, *, key: str | None) -> Receipt:
        """Debit an account that has been checked, put the withdrawal into a batch, and return the receipt."""
        fee, held_until = self.assets[symbol].fee, self._held_until(account, symbol, amount)
        self.accounts.debit(account, symbol, amount)
        row = self.book.add(
            account,
            symbol,
            amount,
            fee,
            key=key,
            now_ms=self.now_ms(),
            held_until=held_until,
            options=self.options,
        )
        self._tell("withdrawal_pending", row)
        return {
            "symbol": symbol,
            "batch_nonce": shown_nonce(row.batch_nonce, self.options),
            "requested_amount": padded(amount),
            "fee_amount": padded(fee),
        }

    def settle(self, *, symbol: str | None = None, batch_nonce: int | None = None) -> list[Withdrawal]:
        """Settle the open batches that match."""
        settled = self.book.settle(now_ms=self.now_ms(), symbol=symbol, batch_nonce=batch_nonce)
        self.advance()
        return settled

    def replace_transactions(self, *, symbol: str | None = None, batch_nonce: int | None = None) -> list[Withdrawal]:
        """Let the transactions of the matching batches fail, and show others in their place."""
        return self.book.replace_transactions(symbol=symbol, batch_nonce=batch_nonce)

    def chain(self) -> dict[str, tuple[int, str]]:
        """Return when each transaction was sent and what the chain says of it; none that it does not know."""
        now, options = self.now_ms(), self.options
        if options.chain == "unknown":
            return {}
        known = {}
        for row in self.book.rows.values():
            if row.transaction_id is not None and row.settled_at is not None:
                after_s = options.finalized_after_s
                final = after_s is not None and now >= row.settled_at + to_ms(after_s)
                landed = "finalized" if final else "confirmed"
                known[row.transaction_id] = (row.settled_at, "failed" if options.chain == "failed" else landed)
        return known | {name: (at_ms, "failed") for name, at_ms in self.book.replaced.items()}

    def advance(self) -> None:
        """Catch up with the clock: settle what is due, and announce what has become visible."""
        now, options = self.now_ms(), self.options
        if options.settle_after_s is not None:
            self.book.settle_due(now_ms=now, after_ms=to_ms(options.settle_after_s))
        for row in self.book.announce_confirmed(now_ms=now, options=options):
            self._tell("withdrawal_confirmed", row)

    def next_event_ms(self) -> int | None:
        """Return when the lists change next by themselves, in the exchange's time; None for never."""
        return self.book.next_event_ms(now_ms=self.now_ms(), options=self.options)

    def pending(self, account: str) -> list[PendingRow]:
        """Return the pending list of an account."""
        self.advance()
        return pending_rows(self._rows(account), self.now_ms(), self.options)

    def history(self, account: str, *, limit: int | None, cursor: str | None) -> tuple[list[HistoryRow], str | None]:
        """Return a page of an account's history and the next cursor."""
        self.advance()
        return history_page(self._rows(account), self.now_ms(), self.options, limit=limit, cursor=cursor)

    def charge(self, address: str, api_key: str | None, route: str) -> RateLimitStatus:
        """Charge a request to whoever sent it."""
        payer = None if api_key is None else self.accounts.payer_of(api_key)
        client = Client("ip", address) if payer is None else Client("key", payer)
        return self.credits.charge(client, route, now_ms=self.now_ms(), options=self.options)

    def set_options(self, changes: Mapping[str, object]) -> None:
        """Flip switches."""
        self.advance()
        self.options = self.options.updated(changes)

    def _rows(self, account: str) -> list[Withdrawal]:
        return [row for row in self.book.rows.values() if row.account == account]

    def _tell(self, kind: str, row: Withdrawal) -> None:
        for listener in self.listeners:
            listener(kind, row)
