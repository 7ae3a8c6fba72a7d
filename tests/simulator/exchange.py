"""
The simulated exchange: what a withdraw request does, and what the two lists show.

This is evidence, so it is meant to be read: every unknown of the real exchange is one field of ``ExchangeOptions``, and
nothing in here knows anything of the code under test. ``sender`` is a label for the checker; no rule looks at it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from pacifica_provider.api.models import PendingWithdrawal, Receipt, SettledWithdrawal
from pacifica_provider.api.outcomes import Accepted, Duplicate, Outcome, Rejected

if TYPE_CHECKING:
    from collections import Counter
    from random import Random

    from tests.simulator.scheduler import Scheduler

FEE = Decimal("0.001")  # at first


@dataclass(frozen=True, slots=True)
class ExchangeOptions:
    """What is not known of Pacifica, as one world has it."""

    burns_keys: bool = False
    conflict_in_progress: bool = False
    balance_before_key: bool = False
    expiry_at_arrival: bool = False
    shared_batches: bool = False
    global_nonces: bool = False
    history_gross: bool = False
    history_shows_settlement_time: bool = False
    list_lag_ms: int = 0
    settle_gap_ms: int = 0
    settle_ms: tuple[int, int] = (1_000, 3_600_000)
    key_retention_ms: int | None = None
    future_tolerance_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Sender:
    """Whose request it was: the identity meant to pay, the task instance, and the number of the try (world-wide)."""

    owner: int
    task: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Request:
    """One signed request, as it arrives."""

    sender: Sender
    key: str
    symbol: str
    amount: Decimal
    signed_ms: int
    window_ms: int


@dataclass(frozen=True, slots=True)
class Row:
    """One accepted withdrawal: a debit. ``request`` is ``None`` if it was made elsewhere."""

    request: Request | None
    symbol: str
    amount: Decimal
    batch_nonce: int
    fee: Decimal
    created_ms: int
    listed_ms: int
    settles_ms: int
    in_history_ms: int

    @property
    def sender(self) -> Sender | None:
        """Whose request made it."""
        return None if self.request is None else self.request.sender

    @property
    def key(self) -> str | None:
        """The key that it was made with."""
        return None if self.request is None else self.request.key

    def is_listed(self, now_ms: int) -> bool:
        """Whether either list shows it at that time."""
        return now_ms >= self.listed_ms and not self.settles_ms <= now_ms < self.in_history_ms


@dataclass(slots=True)
class SimulatedExchange:
    """
    Balance, keys, batches and lists of one account.

    ``window_ms`` is how long the connections to it let a signature live.
    """

    options: ExchangeOptions
    scheduler: Scheduler
    rng: Random
    seen: Counter[str]
    balance: Decimal = Decimal(1000)
    fee: Decimal = FEE
    bridge_gone: bool = False
    window_ms: int = 10_000
    refusing: bool = False
    fees: set[Decimal] = field(default_factory=lambda: {FEE})
    rows: list[Row] = field(default_factory=list)
    in_progress: set[str] = field(default_factory=set)
    keys: dict[str, int] = field(default_factory=dict)
    burned: dict[str, int] = field(default_factory=dict)
    conflicts: set[str] = field(default_factory=set)
    forgot_all_ms: int = -1
    _nonces: dict[str, int] = field(default_factory=dict)

    def remembers(self, key: str) -> bool:
        """Whether this idempotency key still counts as used."""
        used_ms = self.keys.get(key)
        if used_ms is None or used_ms <= self.forgot_all_ms:
            return False
        retention_ms = self.options.key_retention_ms
        return retention_ms is None or self.scheduler.now_ms - used_ms < retention_ms

    def receive(self, request: Request, *, arrived_ms: int | None = None) -> Outcome:
        """Check and execute one request, now; its signature was checked when it arrived, or is checked now."""
        if (refusal := self.signature_refused(request, arrived_ms)) is not None:
            return refusal
        if self.options.balance_before_key and self.balance < request.amount:
            return self._unprocessable(request, "insufficient balance, before the key was looked at")
        if self.remembers(request.key):
            self.seen["answered 409"] += 1
            return Duplicate("Duplicate idempotency key")
        if request.key in self.in_progress:
            self.seen["409 while in progress"] += 1
            self.conflicts.add(request.key)
            return Duplicate("Duplicate idempotency key: in progress")
        if self.refusing or self.balance < request.amount:
            return self._unprocessable(request, "refused" if self.refusing else "insufficient balance")
        self.balance -= request.amount
        self.keys[request.key] = self.scheduler.now_ms
        row = self._accept(request, request.symbol, request.amount)
        return Accepted(Receipt(row.symbol, row.batch_nonce, row.amount, row.fee))

    def signature_refused(self, request: Request, arrived_ms: int | None = None) -> Rejected | None:
        """Refuse what is signed for another time, where this exchange checks that."""
        now_ms = self.scheduler.now_ms
        if arrived_ms is not None and self.options.expiry_at_arrival:
            now_ms = arrived_ms
        tolerance_ms = self.options.future_tolerance_ms
        too_early = tolerance_ms is not None and request.signed_ms > now_ms + tolerance_ms
        if too_early or request.signed_ms + request.window_ms < now_ms:
            self.seen["signed for another time"] += 1
            return Rejected(400, 400, "Invalid message")
        return None

    def refuse(self, request: Request, why: str) -> Rejected:
        """Refuse a request that may have been executed already, delivered twice by somebody in between."""
        return self._unprocessable(request, why)

    def fail(self, request: Request) -> None:
        """Break down over a request that is in order, without executing it: some exchanges burn its key."""
        if self.signature_refused(request) is None:
            self._burn(request)

    def withdraw_elsewhere(self, symbol: str, amount: Decimal) -> Row:
        """Accept a withdrawal that nobody in this world made."""
        return self._accept(None, symbol, amount)

    def charge(self, fee: Decimal) -> None:
        """Take another fee from now on."""
        self.fee = fee
        self.fees.add(fee)

    def settle(self) -> None:
        """Send everything that is pending on chain, now."""
        now_ms, gap_ms = self.scheduler.now_ms, self.options.settle_gap_ms
        self.rows = [
            replace(row, settles_ms=now_ms, in_history_ms=now_ms + gap_ms) if row.settles_ms > now_ms else row
            for row in self.rows
        ]

    def pending(self) -> tuple[PendingWithdrawal, ...]:
        """Return the pending list as shown now."""
        now_ms = self.scheduler.now_ms
        return tuple(
            PendingWithdrawal(row.symbol, row.amount - row.fee, row.amount, row.fee, row.batch_nonce, row.created_ms)
            for row in self.rows
            if row.listed_ms <= now_ms < row.settles_ms
        )

    def history(self, since_ms: int) -> tuple[SettledWithdrawal, ...]:
        """Return the history as shown now, no row more than was asked for."""
        return tuple(
            SettledWithdrawal(row.symbol, self.shown_amount(row), row.batch_nonce, f"tx-{row.batch_nonce}", shown_ms)
            for row in self.rows
            if self.scheduler.now_ms >= max(row.in_history_ms, row.listed_ms)
            and (shown_ms := self.shown_ms(row)) >= since_ms
        )

    def shown_amount(self, row: Row) -> Decimal:
        """Return what the history says was withdrawn."""
        return row.amount if self.options.history_gross else row.amount - row.fee

    def shown_ms(self, row: Row) -> int:
        """Return when the history says that it happened."""
        return row.settles_ms if self.options.history_shows_settlement_time else row.created_ms

    def _unprocessable(self, request: Request, why: str) -> Rejected:
        self.seen[f"422 {why}"] += 1
        if any(row.key == request.key for row in self.rows):
            self.seen["422 after a commit"] += 1
        if request.key not in self.keys:
            self._burn(request)
        return Rejected(422, 62, why)

    def _burn(self, request: Request) -> None:
        if self.options.burns_keys and not self.remembers(request.key):
            self.seen["burned key"] += 1
            self.keys[request.key] = self.scheduler.now_ms
            self.burned.setdefault(request.key, self.scheduler.now_ms)

    def _accept(self, request: Request | None, symbol: str, amount: Decimal) -> Row:
        now_ms, options = self.scheduler.now_ms, self.options
        nonce, settles_ms = self._batch(symbol)
        listed_ms = now_ms + int(options.list_lag_ms * self.rng.random())
        in_history_ms = settles_ms + int(options.settle_gap_ms * self.rng.random())
        row = Row(request, symbol, amount, nonce, self.fee, now_ms, listed_ms, settles_ms, in_history_ms)
        self.rows.append(row)
        return row

    def _batch(self, symbol: str) -> tuple[int, int]:
        now_ms = self.scheduler.now_ms
        if self.options.shared_batches:
            for row in reversed(self.rows):
                if row.symbol == symbol and row.settles_ms > now_ms:
                    self.seen["shared batch"] += 1
                    return row.batch_nonce, row.settles_ms
        counter = "" if self.options.global_nonces else symbol
        self._nonces[counter] = nonce = self._nonces.get(counter, 41) + 1
        return nonce, now_ms + self.rng.randint(*self.options.settle_ms)
