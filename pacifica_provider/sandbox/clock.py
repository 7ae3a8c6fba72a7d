"""The exchange's clock: real time plus an offset that tests may shift."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MS = 1000
DAY_MS = 86_400_000


def wall_clock_ms() -> int:
    """Milliseconds since the epoch, as this machine has them."""
    return time.time_ns() // 1_000_000


class Clock:
    """Tells the exchange's time. `source` is the clock underneath; simulators pass their own."""

    def __init__(self, source: Callable[[], int] = wall_clock_ms) -> None:
        self._source = source
        self.offset_ms = 0

    def now_ms(self) -> int:
        """Milliseconds since the epoch, as the exchange has them."""
        return self._source() + self.offset_ms


def midnight(at_ms: int) -> int:
    """Return when the day began, in UTC: a day's limit begins anew then."""
    return at_ms - at_ms % DAY_MS


def to_ms(seconds: float) -> int:
    """Seconds as whole milliseconds."""
    return round(seconds * MS)
