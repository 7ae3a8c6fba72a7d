"""The idempotency table: which keys an account has used, and until when the exchange remembers them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacifica_provider.sandbox.clock import to_ms
from pacifica_provider.sandbox.errors import duplicate

if TYPE_CHECKING:
    from pacifica_provider.sandbox.options import Options


class KeyTable:
    """Keys are remembered for each account apart, whatever order they came with."""

    def __init__(self) -> None:
        self._used_at: dict[tuple[str, str], int] = {}

    def check(self, account: str, key: str | None, *, now_ms: int, options: Options) -> None:
        """Refuse a key that is still remembered."""
        used_at = None if key is None else self._used_at.get((account, key))
        if used_at is None:
            return
        retention = options.key_retention_s
        if retention is None or now_ms < used_at + to_ms(retention):
            raise duplicate(options.duplicate_body)

    def remember(self, account: str, key: str | None, *, now_ms: int) -> None:
        """Use a key up."""
        if key is not None:
            self._used_at[account, key] = now_ms

    def forget(self) -> int:
        """Forget every key and say how many there were."""
        count = len(self._used_at)
        self._used_at.clear()
        return count
