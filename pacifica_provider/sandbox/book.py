"""Accepted withdrawals: batches, settlement, and the two lists that clients see."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from pacifica_provider.sandbox.clock import to_ms
from pacifica_provider.sandbox.errors import bad_request
from pacifica_provider.sandbox.records import Withdrawal, padded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from decimal import Decimal

    from pacifica_provider.sandbox.options import Options

# Every counter starts here, so that with nonces per asset SOL's 42 and BTC's 42 are two batches.
FIRST_NONCE = 42


class Book:
    """All withdrawals of all accounts, in the order they were accepted."""

    def __init__(self, transaction_id: Callable[[], str]) -> None:
        self._transaction_id = transaction_id
        self._next_nonce: dict[str, int] = {}
        self._highest_nonce = FIRST_NONCE - 1
        self.rows: dict[int, Withdrawal] = {}

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
            waiting = [
                row.batch_nonce
                for row in self.rows.values()
                if row.symbol == symbol and row.settled_at is None and row.held_until is None
            ]
            if waiting:
                return waiting[-1]
        if options.nonce_scope == "global":
            nonce = self._highest_nonce + 1
        else:
            nonce = self._next_nonce.get(symbol, FIRST_NONCE)
        self._next_nonce[symbol] = max(nonce + 1, self._next_nonce.get(symbol, 0))
        self._highest_nonce = max(self._highest_nonce, nonce)
        return nonce

    def settle(self, *, now_ms: int, symbol: str | None = None, batch_nonce: int | None = None) -> list[Withdrawal]:
        """Send the matching open batches on chain, one transaction a batch; what is held stays."""
        chosen = [
            row
            for row in self.rows.values()
            if row.settled_at is None
            and (row.held_until is None or row.held_until <= now_ms)
            and symbol in (None, row.symbol)
            and batch_nonce in (None, row.batch_nonce)
        ]
        return self._settle_batches({(row.symbol, row.batch_nonce): now_ms for row in chosen})

    def settle_due(self, *, now_ms: int, after_ms: int) -> list[Withdrawal]:
        """Settle each batch whose oldest row is `after_ms` old, as of the moment it became so."""
        due: dict[tuple[str, int], int] = {}
        for row in self.rows.values():
            due_at = _due_at(row, after_ms)
            if row.settled_at is None and due_at <= now_ms:
                due.setdefault((row.symbol, row.batch_nonce), due_at)
        return self._settle_batches(due)

    def _settle_batches(self, batches: dict[tuple[str, int], int]) -> list[Withdrawal]:
        settled = []
        for (symbol, nonce), at_ms in batches.items():
            transaction_id = self._transaction_id()
            for row in list(self.rows.values()):
                if (row.symbol, row.batch_nonce) == (symbol, nonce) and row.settled_at is None:
                    done = replace(row, settled_at=max(at_ms, row.created_at), transaction_id=transaction_id)
                    self.rows[row.sequence] = done
                    settled.append(done)
        return settled

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


def _due_at(row: Withdrawal, after_ms: int) -> int:
    return max(row.created_at + after_ms, row.free_at)


def _changes(row: Withdrawal, options: Options) -> list[int]:
    """Return when a list shows, or no longer shows, the row."""
    changes = [row.created_at + to_ms(options.list_lag_s)]
    if row.settled_at is not None:
        seen = row.settled_at + to_ms(options.settle_gap_s)
        changes += [seen, seen + to_ms(options.transaction_id_delay_s)]
    elif options.settle_after_s is not None:
        changes.append(_due_at(row, to_ms(options.settle_after_s)))
    return changes


def _passed(since_ms: int, wait_s: float, now_ms: int) -> bool:
    # Without a wait there is nothing to wait for, even while a test has turned the clock back.
    return wait_s == 0 or now_ms >= since_ms + to_ms(wait_s)


def in_pending(row: Withdrawal, now_ms: int, options: Options) -> bool:
    """Whether the pending list shows the row."""
    return row.settled_at is None and _passed(row.created_at, options.list_lag_s, now_ms)


def in_history(row: Withdrawal, now_ms: int, options: Options) -> bool:
    """Whether the history shows the row."""
    return (
        row.settled_at is not None
        and _passed(row.created_at, options.list_lag_s, now_ms)
        and _passed(row.settled_at, options.settle_gap_s, now_ms)
    )


def shows_transaction(row: Withdrawal, now_ms: int, options: Options) -> bool:
    """Whether the row's transaction id can be seen."""
    wait_s = options.settle_gap_s + options.transaction_id_delay_s
    return row.settled_at is not None and _passed(row.settled_at, wait_s, now_ms)


def shown_nonce(nonce: int, options: Options) -> int | str:
    """Return the nonce as the API shows it."""
    return str(nonce) if options.nonce_as_text else nonce


def pending_rows(rows: Iterable[Withdrawal], now_ms: int, options: Options) -> list[dict[str, object]]:
    """Return the pending list, newest first. It names neither key nor transaction."""
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
        if in_pending(row, now_ms, options)
    ]


def history_page(
    rows: Iterable[Withdrawal], now_ms: int, options: Options, *, limit: int | None, cursor: str | None
) -> tuple[list[dict[str, object]], str | None]:
    """Return one page of the history, newest first, and the cursor of the next one if there is any."""
    size = min(limit or options.history_page_size, options.history_page_size)
    before = None if cursor is None else _position(cursor)
    visible = [(_history_time(row, options), row.sequence, row) for row in rows if in_history(row, now_ms, options)]
    wanted = sorted((each for each in visible if before is None or each[:2] < before), reverse=True)
    page = wanted[:size]
    following = _cursor(page[-1][0], page[-1][1]) if len(wanted) > size else None
    return [_history_row(row, now_ms, options) for *_, row in page], following


def _history_time(row: Withdrawal, options: Options) -> int:
    settled = row.settled_at if row.settled_at is not None else row.created_at
    return settled if options.history_time == "settled" else row.created_at


def _history_row(row: Withdrawal, now_ms: int, options: Options) -> dict[str, object]:
    return {
        "symbol": row.symbol,
        "amount": padded(row.amount if options.history_amount == "gross" else row.net),
        "batch_nonce": shown_nonce(row.batch_nonce, options),
        "transaction_id": row.transaction_id if shows_transaction(row, now_ms, options) else None,
        "created_at": _history_time(row, options),
    }


def _cursor(time_ms: int, sequence: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([time_ms, sequence]).encode()).decode().rstrip("=")


def _position(cursor: str) -> tuple[int, int]:
    try:
        time_ms, sequence = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return int(time_ms), int(sequence)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise bad_request("Invalid cursor") from None
