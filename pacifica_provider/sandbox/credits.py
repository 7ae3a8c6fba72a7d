"""Rate limits: credits in a rolling minute, as Pacifica documents them."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacifica_provider.sandbox.clock import MS

if TYPE_CHECKING:
    from pacifica_provider.sandbox.options import Options

WINDOW_MS = 60_000
HISTORY_COST = {"ip": 12.0, "key": 4.0}
# The documented header values are tenfold.
SCALE = 10


@dataclass(frozen=True, slots=True)
class Client:
    """Who pays: an address that says nothing of itself, or the main account behind an API config key."""

    kind: str  # "ip" or "key"
    name: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a client stands after a request."""

    allowed: bool
    remaining: float
    resets_in_s: int
    quota: float

    @property
    def headers(self) -> dict[str, str]:
        """The two documented headers."""
        remaining, quota = math.floor(self.remaining * SCALE), math.floor(self.quota * SCALE)
        return {
            "ratelimit": f'"credits";r={remaining};t={self.resets_in_s}',
            "ratelimit-policy": f'"credits";q={quota};w={WINDOW_MS // MS}',
        }


class Credits:
    """Charges each client for what it asks."""

    def __init__(self) -> None:
        self._spent: dict[Client, deque[tuple[int, float]]] = {}

    def charge(self, client: Client, route: str, *, now_ms: int, options: Options) -> Standing:
        """Charge one request, unless nobody is charged or too little is left."""
        quota = float(options.quota_with_key if client.kind == "key" else options.quota)
        if not options.enforce_credits:
            return Standing(allowed=True, remaining=quota, resets_in_s=WINDOW_MS // MS, quota=quota)
        spent = self._spent.setdefault(client, deque())
        while spent and not now_ms - WINDOW_MS < spent[0][0] <= now_ms:
            spent.popleft()  # older than the window, or from before the clock was turned back
        cost = _cost(client, route, options)
        left = quota - sum(each for _, each in spent)
        allowed = cost <= left
        if allowed:
            spent.append((now_ms, cost))
            left -= cost
        oldest = spent[0][0] if spent else now_ms
        resets_in_s = math.ceil((oldest + WINDOW_MS - now_ms) / MS)
        return Standing(allowed=allowed, remaining=left, resets_in_s=resets_in_s, quota=quota)


def _cost(client: Client, route: str, options: Options) -> float:
    if route != "history":
        return 1.0
    return HISTORY_COST[client.kind] if options.history_cost is None else float(options.history_cost)
