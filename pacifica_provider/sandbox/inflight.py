"""Which keys are being processed right now, while a request is held before its commit."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Claim = tuple[str, str]


class Inflight:
    """(account, key) of each held request."""

    def __init__(self) -> None:
        self._held: dict[Claim, asyncio.Event] = {}

    def __contains__(self, claim: Claim | None) -> bool:
        return claim in self._held

    async def wait(self, claim: Claim | None) -> None:
        """Wait until nobody else holds the claim."""
        while claim is not None and claim in self._held:
            await self._held[claim].wait()

    @asynccontextmanager
    async def hold(self, claim: Claim | None) -> AsyncIterator[None]:
        """Hold the claim meanwhile."""
        if claim is None:
            yield
            return
        done = self._held[claim] = asyncio.Event()
        try:
            yield
        finally:
            del self._held[claim]
            done.set()
