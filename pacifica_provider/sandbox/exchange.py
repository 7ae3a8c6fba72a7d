"""The exchange itself: pure state and a clock; no sockets, no waiting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from pacifica_provider.sandbox.accounts import RICH, Accounts, Opened, check_day, check_withdrawal, default_assets
from pacifica_provider.sandbox.book import Book, history_page, pending_rows, shown_nonce
from pacifica_provider.sandbox.clock import DAY_MS, Clock, midnight, to_ms
from pacifica_provider.sandbox.credits import Client, Credits, Standing
from pacifica_provider.sandbox.errors import Refused, bad_request
from pacifica_provider.sandbox.keys import KeyMaker
from pacifica_provider.sandbox.keytable import KeyTable
from pacifica_provider.sandbox.ledger import Ledger
from pacifica_provider.sandbox.options import Options
from pacifica_provider.sandbox.orders import Order, authenticate, read_order
from pacifica_provider.sandbox.records import Withdrawal, padded

Listener = Callable[[str, Withdrawal], None]
Json = dict[str, object]


class Exchange:
    """Everything the sandbox knows. Call it from the server's thread; a test may look from any."""

    def __init__(self, *, clock: Clock | None = None, seed: int | None = None, options: Options | None = None) -> None:
        self.clock = clock or Clock()
        self.options = options or Options()
        keys = KeyMaker(seed)
        self.accounts = Accounts(keys)
        self.assets = default_assets(keys)
        self.main: Opened = self.accounts.open(dict.fromkeys(self.assets, RICH))
        self.book = Book(keys.transaction_id)
        self.keys = KeyTable()
        self.credits = Credits()
        self.ledger = Ledger()
        self.listeners: list[Listener] = []

    def now_ms(self) -> int:
        """Return the exchange's time."""
        return self.clock.now_ms()

    def authenticate(self, body: bytes, *, received_at: int) -> Order:
        """Read an order and make sure that someone who may sign for the account signed it."""
        order = read_order(body)
        checked_at = received_at if self.options.expiry_checked == "arrival" else self.now_ms()
        authenticate(order, now_ms=checked_at, future_tolerance_ms=self.options.future_tolerance_ms)
        if order.agent_wallet not in (None, order.account):
            account = self.accounts.find(order.account)
            if account is None or order.agent_wallet not in account.agents:
                raise bad_request("Agent not authorized for account")
        return order

    def withdraw(self, body: bytes, *, received_at: int) -> Json:
        """Accept the withdrawal in `body` and return its receipt, or refuse it."""
        order = self.authenticate(body, received_at=received_at)
        self.advance()
        now, options = self.now_ms(), self.options
        if options.balance_before_key:
            self._business(order)
        self.keys.check(order.account, order.idempotency_key, now_ms=now, options=options)
        self._business(order)
        self.keys.remember(order.account, order.idempotency_key, now_ms=now)
        return self.accept(order.account, order.symbol, order.value, key=order.idempotency_key)

    def _business(self, order: Order) -> None:
        try:
            self.check_rules(order.account, order.symbol, order.value)
        except Refused:
            self.burn(order)
            raise

    def check_rules(self, account: str, symbol: str, amount: Decimal) -> None:
        """Refuse a withdrawal that a business rule forbids."""
        asset = check_withdrawal(self.accounts.find(account), self.assets.get(symbol), symbol, amount)
        limit, now = self.options.daily_limit_usd, self.now_ms()
        if limit is not None and self.options.over_daily_limit == "refuse":
            check_day(account, self.withdrawn_usd(account, symbol, now) + amount * asset.price_usd, limit)

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

    def burn(self, order: Order) -> None:
        """Use up the key of a request that failed inside, if failures do that."""
        if self.options.burn_keys:
            self.keys.remember(order.account, order.idempotency_key, now_ms=self.now_ms())

    def accept(self, account: str, symbol: str, amount: Decimal, *, key: str | None) -> Json:
        """Debit the account, put the withdrawal into a batch, and return the receipt."""
        fee = self.assets[symbol].fee
        self.accounts.debit(account, symbol, amount)
        held_until = self._held_until(account, symbol, amount)
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

    def pending(self, account: str) -> list[Json]:
        """Return the pending list of an account."""
        self.advance()
        return pending_rows(self._rows(account), self.now_ms(), self.options)

    def history(self, account: str, *, limit: int | None, cursor: str | None) -> tuple[list[Json], str | None]:
        """Return a page of an account's history and the next cursor."""
        self.advance()
        return history_page(self._rows(account), self.now_ms(), self.options, limit=limit, cursor=cursor)

    def debits(self) -> Json:
        """Return the ledger."""
        self.advance()
        return self.ledger.as_json(list(self.book.rows.values()))

    def charge(self, address: str, api_key: str | None, route: str) -> Standing:
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
