"""
The account's credits: read off every answer, and never spent to the last third.

The quota is shared with the workers that withdraw, with other triggerers and with whatever else uses the account or the
address. A watcher that must wait waits; the reserve is for those that must not.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

from pacifica_provider.api.outcomes import Answer, Credits, TransportFailure
from pacifica_provider.api.transports import HttpxTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacifica_provider.api.transports import HttpRequest

RESERVED = 1 / 3
WINDOW_S = 60.0
# Documented only as "heavy GETs cost 3 to 12, with an API config key 1 to 4"; taken at the dearest.
_HEAVY_COST, _HEAVY_COST_WITH_KEY = 12.0, 4.0
_PAGE_TRIES = 5
_PAGE_PAUSE_S = 1.0


class Budget:
    """
    What may be spent now, by the last answer's ``ratelimit`` headers; without headers, anything.

    :param clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._credits: Credits | None = None
        self._noted_at = 0.0

    def note(self, credits_left: Credits | None) -> None:
        """Take over what an answer said."""
        if credits_left is not None:
            self._credits, self._noted_at = credits_left, self._clock()

    def wait_s(self, cost: float) -> float:
        """
        Return how long to wait before a request of this cost, 0 if it leaves the reserve untouched.

        The credits are a rolling minute's: they come back as the requests that took them grow old, so what is missing
        is waited for in proportion, and at least until the time that the headers name.
        """
        known = self._credits
        if known is None:
            return 0.0
        quota = known.quota or max(known.remaining, 1.0)
        missing = cost + quota * RESERVED - known.remaining
        if missing <= 0:
            return 0.0
        ready_at = self._noted_at + min(max(known.refresh_s, WINDOW_S * missing / quota), WINDOW_S)
        return max(0.0, ready_at - self._clock())

    def spend(self, cost: float) -> None:
        """Deduct a request that is being sent, until its answer says what is left."""
        if (known := self._credits) is not None:
            self._credits = Credits(known.remaining - cost, known.refresh_s, known.quota)


class MeteredTransport(HttpxTransport):
    """
    The watcher's transport: it waits for credits before each request, and fetches a later page again if it fails.

    A long history is so read to its end, slowly, instead of from its beginning each time.

    :param timeout_s: deadline of one request, waiting not included.
    :param with_key: whether an API config key is sent; heavy requests then cost less.
    """

    def __init__(self, *, timeout_s: float, with_key: bool) -> None:
        super().__init__(timeout_s=timeout_s)
        self.budget = Budget()
        self._heavy_cost = _HEAVY_COST_WITH_KEY if with_key else _HEAVY_COST

    async def __call__(self, request: HttpRequest, /) -> Answer | TransportFailure:
        """Send a GET when the credits allow it, and return the whole answer or the failure."""
        tries = _PAGE_TRIES if "cursor=" in request.url else 1
        cost = self._heavy_cost if "history" in request.url else 1.0
        while True:
            await asyncio.sleep(self.budget.wait_s(cost))
            self.budget.spend(cost)
            result = await super().__call__(request)
            self.budget.note(result.credits if isinstance(result, Answer) else None)
            tries -= 1
            if tries <= 0 or not _passing(result):
                return result
            await asyncio.sleep(_pause_s(result) * random.uniform(1, 1.5))  # noqa: S311 - jitter, not a secret


def _passing(result: Answer | TransportFailure) -> bool:
    """Say whether the same request may well be answered a little later."""
    return isinstance(result, TransportFailure) or result.status == 429 or result.status >= 500


def _pause_s(result: Answer | TransportFailure) -> float:
    """Return how long to wait before asking again: as a 429 says, else a moment."""
    if isinstance(result, TransportFailure) or result.status != 429:
        return _PAGE_PAUSE_S
    return min(result.retry_after_s or _PAGE_PAUSE_S, WINDOW_S)
