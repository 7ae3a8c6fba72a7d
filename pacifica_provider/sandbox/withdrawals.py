"""Accepted withdrawals: batches, settlement, and the two lists that clients see."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from typing_extensions import TypedDict

from pacifica_provider.sandbox.accounts import Refused, padded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from decimal import Decimal

    from pacifica_provider.sandbox.options import Options

DAY_MS = 86_400_000
# Every counter starts here, so that with nonces per asset SOL's 42 and BTC's 42 are two batches.
FIRST_NONCE = 42


def to_ms(seconds: float) -> int:
    """Seconds as whole milliseconds."""
    return round(seconds * 1000)


def midnight(at_ms: int) -> int:
    """Return when the day began, in UTC: a day's limit begins anew then."""
    return at_ms - at_ms % DAY_MS


class PendingRow(TypedDict):
    """A row of the pending list. It names neither key nor transaction."""

    symbol: str
    amount: str
    amount_requested: str
    fee_amount: str
    batch_nonce: int | str
    created_at: int


class HistoryRow(TypedDict):
    """A row of the history."""

    symbol: str
    amount: str
    batch_nonce: int | str
    transaction_id: str | None
    created_at: int


class Debit(TypedDict):
    """A withdrawal as the ledger shows it."""

    account: str
    symbol: str
    amount: str
    fee_amount: str
    idempotency_key: str | None
    batch_nonce: int
    created_at: int
    transaction_id: str | None


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """An accepted withdrawal: the debit, and the row of the lists. It settles after `held_until`, if that is set."""

    sequence: int
    account: str
    symbol: str
    amount: Decimal
    fee: Decimal
    idempotency_key: str | None
    batch_nonce: int
    created_at: int
    held_until: int | None = None
    settled_at: int | None = None
    transaction_id: str | None = None
    announced: bool = False

    @property
    def free_at(self) -> int:
        """When it may settle at the earliest."""
        return self.created_at if self.held_until is None else self.held_until

    @property
    def net(self) -> Decimal:
        """What arrives on chain."""
        return self.amount - self.fee

    def due_at(self, after_ms: int) -> int:
        """When it settles by itself, `after_ms` after it was accepted."""
        return max(self.created_at + after_ms, self.free_at)

    def debit(self) -> Debit:
        """Return it for the ledger."""
        return {
            "account": self.account,
            "symbol": self.symbol,
            "amount": padded(self.amount),
            "fee_amount": padded(self.fee),
            "idempotency_key": self.idempotency_key,
            "batch_nonce": self.batch_nonce,
            "created_at": self.created_at,
            "transaction_id": self.transaction_id,
        }


class Withdrawals:
    """All withdrawals of all accounts, in the order they were accepted. Frozen rows: a change is a new one in place."""

    def __init__(self, transaction_id: Callable[[], str]) -> None:
        self._transaction_id = transaction_id
        self._next_nonce: dict[str, int] = {}
        self._highest_nonce = FIRST_NONCE - 1
        self.rows: dict[int, Withdrawal] = {}
        # Transactions that failed on chain and were replaced, and when they were sent.
        self.replaced: dict[str, int] = {}

    def add(
        self,
        account: str,
        symbol: str,
        amount: Decimal,
        fee: Decimal,
        *,
        key: str | None,
        now_ms: int,
        held_until: int | None,
        options: Options,
    ) -> Withdrawal:
        """Accept a withdrawal into a batch."""
        row = Withdrawal(
            sequence=len(self.rows),
            account=account,
            symbol=symbol,
            amount=amount,
            fee=fee,
            idempotency_key=key,
            batch_nonce=self._nonce(symbol, options, held=held_until is not None),
            created_at=now_ms,
            held_until=held_until,
        )
        self.rows[row.sequence] = row
        return row

    def _nonce(self, symbol: str, options: Options, *, held: bool) -> int:
        if options.shared_batches and not held:
            for row in reversed(self.rows.values()):
                if row.symbol == symbol and row.settled_at is None and row.held_until is None:
                    return row.batch_nonce
        if options.nonce_scope == "global":
            nonce = self._highest_nonce + 1
        else:
            nonce = self._next_nonce.get(symbol, FIRST_NONCE)
        self._next_nonce[symbol] = max(nonce + 1, self._next_nonce.get(symbol, 0))
        self._highest_nonce = max(self._highest_nonce, nonce)
        return nonce

    def settle(self, *, now_ms: int, symbol: str | None = None, batch_nonce: int | None = None) -> list[Withdrawal]:
        """Send the matching open batches on chain, one transaction a batch; what is held stays."""
        return self._settle_batches(
            {
                (row.symbol, row.batch_nonce): now_ms
                for row in self.rows.values()
                if row.settled_at is None
                and (row.held_until is None or row.held_until <= now_ms)
                and symbol in (None, row.symbol)
                and batch_nonce in (None, row.batch_nonce)
            }
        )

    def settle_due(self, *, now_ms: int, after_ms: int) -> list[Withdrawal]:
        """Settle each batch whose oldest row is `after_ms` old, as of the moment it became so."""
        due: dict[tuple[str, int], int] = {}
        for row in self.rows.values():
            if row.settled_at is None and row.due_at(after_ms) <= now_ms:
                due.setdefault((row.symbol, row.batch_nonce), row.due_at(after_ms))
        return self._settle_batches(due)

    def _settle_batches(self, batches: dict[tuple[str, int], int]) -> list[Withdrawal]:
        settled = []
        for batch, at_ms in batches.items():
            transaction_id = self._transaction_id()
            for row in list(self.rows.values()):
                if (row.symbol, row.batch_nonce) == batch and row.settled_at is None:
                    done = replace(row, settled_at=max(at_ms, row.created_at), transaction_id=transaction_id)
                    self.rows[row.sequence] = done
                    settled.append(done)
        return settled

    def replace_transactions(self, *, symbol: str | None, batch_nonce: int | None) -> list[Withdrawal]:
        """Give the matching batches on chain another transaction each, as if the one they had failed."""
        new: dict[str, str] = {}
        changed = []
        for row in list(self.rows.values()):
            if row.transaction_id is None or row.settled_at is None:
                continue
            if symbol in (None, row.symbol) and batch_nonce in (None, row.batch_nonce):
                self.replaced[row.transaction_id] = row.settled_at
                if row.transaction_id not in new:
                    new[row.transaction_id] = self._transaction_id()
                changed.append(replace(row, transaction_id=new[row.transaction_id]))
                self.rows[row.sequence] = changed[-1]
        return changed

    def next_event_ms(self, *, now_ms: int, options: Options) -> int | None:
        """Return when a list will look different, if nobody does anything meanwhile; None for never."""
        times = [when for row in self.rows.values() for when in _changes(row, options) if when > now_ms]
        return min(times, default=None)

    def announce_confirmed(self, *, now_ms: int, options: Options) -> list[Withdrawal]:
        """Mark, and return, the rows whose transaction id has become visible since the last call."""
        ready = [row for row in self.rows.values() if not row.announced and shows_transaction(row, now_ms, options)]
        for row in ready:
            self.rows[row.sequence] = replace(row, announced=True)
        return ready


def _changes(row: Withdrawal, options: Options) -> list[int]:
    """Return when a list shows, or no longer shows, the row, and when the chain is final about it."""
    changes = [row.created_at + to_ms(options.list_lag_s)]
    if row.settled_at is not None:
        seen = row.settled_at + to_ms(options.settle_gap_s)
        changes += [seen, seen + to_ms(options.transaction_id_delay_s)]
        if options.finalized_after_s is not None:
            changes.append(row.settled_at + to_ms(options.finalized_after_s))
    elif options.settle_after_s is not None:
        changes.append(row.due_at(to_ms(options.settle_after_s)))
    return changes


def _passed(since_ms: int, wait_s: float, now_ms: int) -> bool:
    # Without a wait there is nothing to wait for, even while a test has turned the clock back.
    return wait_s == 0 or now_ms >= since_ms + to_ms(wait_s)


def shows_transaction(row: Withdrawal, now_ms: int, options: Options) -> bool:
    """Whether the row's transaction id can be seen."""
    wait_s = options.settle_gap_s + options.transaction_id_delay_s
    return row.settled_at is not None and _passed(row.settled_at, wait_s, now_ms)


def shown_nonce(nonce: int, options: Options) -> int | str:
    """Return the nonce as the API shows it."""
    return str(nonce) if options.nonce_as_text else nonce


def pending_rows(rows: Iterable[Withdrawal], now_ms: int, options: Options) -> list[PendingRow]:
    """Return the pending list, newest first."""
    return [
        {
            "symbol": row.symbol,
            "amount": padded(row.net),
            "amount_requested": padded(row.amount),
            "fee_amount": padded(row.fee),
            "batch_nonce": shown_nonce(row.batch_nonce, options),
            "created_at": row.created_at,
        }
        for row in sorted(rows, key=lambda row: -row.sequence)
        if row.settled_at is None and _passed(row.created_at, options.list_lag_s, now_ms)
    ]


def history_page(
    rows: Iterable[Withdrawal], now_ms: int, options: Options, *, limit: int | None, cursor: str | None
) -> tuple[list[HistoryRow], str | None]:
    """Return one page of the history, newest first, and the cursor of the next one if there is any."""
    size = min(limit or options.history_page_size, options.history_page_size)
    before = None if cursor is None else _position(cursor)
    shown = []
    for row in rows:
        if row.settled_at is None or not _passed(row.created_at, options.list_lag_s, now_ms):
            continue
        position = (row.settled_at if options.history_time == "settled" else row.created_at, row.sequence)
        if _passed(row.settled_at, options.settle_gap_s, now_ms) and (before is None or position < before):
            shown.append((position, row))
    shown.sort(key=lambda each: each[0], reverse=True)
    following = _cursor(*shown[size - 1][0]) if len(shown) > size else None
    return [_history_row(row, time_ms, now_ms, options) for (time_ms, _), row in shown[:size]], following


def _history_row(row: Withdrawal, time_ms: int, now_ms: int, options: Options) -> HistoryRow:
    return {
        "symbol": row.symbol,
        "amount": padded(row.amount if options.history_amount == "gross" else row.net),
        "batch_nonce": shown_nonce(row.batch_nonce, options),
        "transaction_id": row.transaction_id if shows_transaction(row, now_ms, options) else None,
        "created_at": time_ms,
    }


def _cursor(time_ms: int, sequence: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([time_ms, sequence]).encode()).decode().rstrip("=")


def _position(cursor: str) -> tuple[int, int]:
    try:
        time_ms, sequence = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return int(time_ms), int(sequence)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise Refused(400, "Invalid cursor") from None
