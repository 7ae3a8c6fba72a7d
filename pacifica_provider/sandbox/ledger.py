"""What a test asks afterwards: every debit, every POST, every request."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from pacifica_provider.sandbox.records import Post, Withdrawal, padded

if TYPE_CHECKING:
    from collections.abc import Iterable


class Ledger:
    """Keeps the POSTs and the counts; debits are read off the book, so that they cannot disagree with it."""

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.requests: Counter[str] = Counter()

    def open_post(self, body: bytes, *, received_at: int) -> int:
        """Write down a POST as it arrives, readable or not, and return its number."""
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            content = None
        seen = content if isinstance(content, dict) else {}
        self.posts.append(
            Post(
                key=seen.get("idempotency_key"),
                timestamp=seen.get("timestamp"),
                account=seen.get("account"),
                symbol=seen.get("symbol"),
                amount=seen.get("amount"),
                received_at=received_at,
            )
        )
        return len(self.posts) - 1

    def close_post(self, number: int, *, outcome: str, status: int | None, fault: str | None) -> None:
        """Write down what became of it."""
        self.posts[number] = replace(self.posts[number], outcome=outcome, status=status, fault=fault)

    def as_json(self, rows: Iterable[Withdrawal]) -> dict[str, object]:
        """Return the whole ledger."""
        return {
            "debits": [_debit(row) for row in rows],
            "posts": [asdict(post) for post in self.posts],
            "requests": dict(self.requests),
        }


def _debit(row: Withdrawal) -> dict[str, object]:
    return {
        "account": row.account,
        "symbol": row.symbol,
        "amount": padded(row.amount),
        "fee_amount": padded(row.fee),
        "idempotency_key": row.idempotency_key,
        "batch_nonce": row.batch_nonce,
        "created_at": row.created_at,
        "transaction_id": row.transaction_id,
    }
