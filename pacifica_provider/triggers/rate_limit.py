"""
The credits of one address, or of one main account behind an API config key: shared by all who poll with them.

They are read off every answer. The last third is never spent: it is for the workers that withdraw. Polls that nothing
has called for take at most half, in turn, so the more accounts there are, the less often an idle one is looked at.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakValueDictionary

from pacifica_provider.api.outcomes import Answer, Credits, TransportFailure
from pacifica_provider.api.transports import HttpxTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pacifica_provider.api.transports import HttpRequest
    from pacifica_provider.hooks.settings import ConnectionSettings

RESERVED = 1 / 3
WINDOW_S = 60.0
# With one poll of both lists saved up, at most half of the smallest quota in any minute.
IDLE_SHARE, SAVED = 0.37, 13.0
# Documented; taken until an answer says otherwise.
_QUOTA, _QUOTA_WITH_KEY = 100.0, 300.0
# Documented only as "heavy GETs cost 3 to 12, with an API config key 1 to 4"; taken at the dearest.
LIGHT_COST, _HEAVY_COST, _HEAVY_COST_WITH_KEY = 1.0, 12.0, 4.0
_LOOK_AGAIN_S = 0.1
_PAGE_TRIES = 5
_PAGE_PAUSE_S = 1.0


class RateLimiter:
    """
    What may be spent now, by the last answer's ``ratelimit`` headers.

    :param quota: credits a minute, until an answer says otherwise.
    :param clock: monotonic seconds.
    """

    def __init__(self, quota: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._quota = quota
        self._known = Credits(quota, 0, quota)
        self._noted_at = self._due_at = clock()
        self._under_way = 0.0
        self._turn = asyncio.Lock()
        # Idle credits that were asked for, and how many of them have come due.
        self._asked, self._due = 0.0, SAVED

    def ticket(self, cost: float) -> float:
        """Take a place in the row of idle polls for one that costs so much."""
        self._asked += cost
        return self._asked

    def ready_at(self, ticket: float) -> float:
        """Return when it is this ticket's turn, by the quota as known now: those who came first come first."""
        rate, now = self._quota * IDLE_SHARE / WINDOW_S, self._clock()
        self._due = min(self._due + rate * (now - self._due_at), self._asked + SAVED)
        self._due_at = now
        return now + max(0.0, ticket - self._due) / rate

    async def spend(self, cost: float) -> None:
        """Wait, in turn, until a request of this cost leaves the reserve untouched, and deduct it until it is noted."""
        async with self._turn:
            while (wait_s := self.wait_s(cost)) > 0:  # noqa: ASYNC110 - the answers that shorten the wait come meanwhile
                await asyncio.sleep(wait_s)
            self._under_way += cost

    def note(self, cost: float, credits_left: Credits | None) -> None:
        """Take over what the answer to a request says; ``None`` if it says nothing or there was none."""
        self._under_way -= cost
        if credits_left is not None:
            self._known, self._noted_at = credits_left, self._clock()
            self._quota = credits_left.quota or max(self._quota, credits_left.remaining)

    def wait_s(self, cost: float) -> float:
        """
        Return how long to wait before a request of this cost, 0 if it leaves the reserve untouched.

        The credits are a rolling minute's: they come back as the requests that took them grow old, so what is missing
        is waited for in proportion, and at least until the time that the headers name. While requests are under way it
        is asked again soon: their answers say more. A quota that is too small for a request is asked all the same.
        """
        known, age_s = self._known, self._clock() - self._noted_at
        left = self._quota if age_s >= WINDOW_S else known.remaining
        missing = cost + self._under_way + self._quota * RESERVED - left
        if missing <= 0:
            return 0.0
        if self._under_way:
            return _LOOK_AGAIN_S
        spent = max(self._quota - left, 1.0)
        return max(0.0, min(max(known.refresh_s, WINDOW_S * missing / spent), WINDOW_S) - age_s)


class MeteredTransport:
    """
    Sends what a limiter lets through, and fetches a later page of a list again if it fails.

    A long history is so read to its end, slowly, instead of from its beginning each time.

    :param with_key: whether an API config key is sent; heavy requests then cost less.
    """

    def __init__(self, client: HttpxTransport, limiter: RateLimiter, *, with_key: bool) -> None:
        self.limiter = limiter
        self.heavy_cost = _HEAVY_COST_WITH_KEY if with_key else _HEAVY_COST
        self._client = client

    async def __call__(self, request: HttpRequest, /) -> Answer | TransportFailure:
        """Send a GET when the credits allow it, and return the whole answer or the failure."""
        tries = _PAGE_TRIES if "cursor=" in request.url else 1
        cost = self.heavy_cost if "history" in request.url else LIGHT_COST
        while True:
            await self.limiter.spend(cost)
            result: Answer | TransportFailure | None = None
            try:
                result = await self._client(request)
            finally:
                self.limiter.note(cost, result.credits if isinstance(result, Answer) else None)
            tries -= 1
            if tries <= 0 or not _passing(result):
                return result
            await asyncio.sleep(_pause_s(result) * random.uniform(1, 1.5))  # noqa: S311 - jitter, not a secret


# Address, deadline, and the one address that takes POSTs.
_Where = tuple[str, float, str | None]


class _Shared:
    """What one event loop shares: HTTP clients by where they lead, limiters by whose credits they spend."""

    def __init__(self) -> None:
        self.clients: dict[_Where, HttpxTransport] = {}
        self.users: Counter[_Where] = Counter()
        # One lives as long as somebody spends by it.
        self.limiters: WeakValueDictionary[tuple[str, str | None], RateLimiter] = WeakValueDictionary()

    def lend(self, where: _Where) -> HttpxTransport:
        """Lend a client, until it is given back."""
        if where not in self.clients:  # a client loads its certificates, which takes 30 ms and a megabyte
            _, timeout_s, posts_to = where
            self.clients[where] = HttpxTransport(timeout_s=timeout_s, posts_to=posts_to)
        self.users[where] += 1
        return self.clients[where]

    async def give_back(self, where: _Where) -> None:
        """Take a client back; the last one closes it."""
        self.users[where] -= 1
        if not self.users[where]:
            await self.clients.pop(where).aclose()


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared] = WeakKeyDictionary()


@asynccontextmanager
async def shared_transport(settings: ConnectionSettings) -> AsyncIterator[MeteredTransport]:
    """Lend what everybody in this event loop sends with who spends the same credits; the last one closes it."""
    shared, with_key = _shared.setdefault(asyncio.get_running_loop(), _Shared()), bool(settings.api_config_key)
    whose = settings.base_url, settings.api_config_key
    limiter = shared.limiters.setdefault(whose, RateLimiter(_QUOTA_WITH_KEY if with_key else _QUOTA))
    where = settings.base_url, settings.timeout_s, None
    client = shared.lend(where)
    try:
        yield MeteredTransport(client, limiter, with_key=with_key)
    finally:
        await shared.give_back(where)


@asynccontextmanager
async def shared_rpc(settings: ConnectionSettings) -> AsyncIterator[HttpxTransport | None]:
    """Lend what everybody in this event loop asks the Solana RPC with; ``None`` where the connection has none."""
    url = settings.solana_rpc_url
    if url is None:
        yield None
        return
    shared, where = _shared.setdefault(asyncio.get_running_loop(), _Shared()), (url, settings.timeout_s, url)
    client = shared.lend(where)
    try:
        yield client
    finally:
        await shared.give_back(where)


def _passing(result: Answer | TransportFailure) -> bool:
    """Say whether the same request may well be answered a little later."""
    return isinstance(result, TransportFailure) or result.status == 429 or result.status >= 500


def _pause_s(result: Answer | TransportFailure) -> float:
    """Return how long to wait before asking again: as a 429 says, else a moment."""
    if isinstance(result, TransportFailure) or result.status != 429:
        return _PAGE_PAUSE_S
    return min(result.retry_after_s or _PAGE_PAUSE_S, WINDOW_S)
