"""When the lists are polled next, and what is logged where polling fails. Monotonic seconds throughout."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from typing import TYPE_CHECKING

from pacifica_provider.exceptions import ConfigurationError, Throttled

if TYPE_CHECKING:
    from pacifica_provider.exceptions import PacificaError
    from pacifica_provider.triggers.rate_limit import RateLimiter

log = logging.getLogger(__name__)

# Whoever joins is looked for soon; those that join together, together.
JOIN_DELAY_S = 0.1
# A push may run ahead of the lists.
FOLLOW_UPS_S = (0.02, 0.2, 0.5, 1.0, 2.0, 4.0)
LEAST_INTERVAL_S = 1.0
LONGEST_PAUSE_S = 300.0
# A batch between the lists is looked for less often the longer it is away, and a long history less often than a short
# one.
UNSEEN_SHARE = 0.2
UNSEEN_LONGEST_S = 120.0
HISTORY_SHARE = 5.0
# How long the exchange, or a Solana RPC, may refuse the connection before it is read again: it may have been corrected.
REFUSED_S = 300.0
# Clocks and sockets are checked at least this often, however long the pause.
_LONGEST_SLEEP_S = 30.0


class PollSchedule:
    """
    Decides the next poll of an account from what has happened; the latest failure outranks everything.

    A poll is urgent if something is known to have happened; any other is idle, and the quota lets it wait. Whether the
    exchange answers is logged when it changes, once for ten thousand waiting tasks.

    :param account: named in the log.
    :param push_interval_s: with a healthy socket a poll only serves to find a push that was lost.
    """

    def __init__(self, account: str, push_interval_s: float) -> None:
        self.last_poll = self.last_history = self.blocked_until = float("-inf")
        self._account = account
        self._trouble: str | None = None
        self._refused_since: float | None = None
        self._push_interval_s = push_interval_s
        self._failures = 0
        self._idle_at = self._urgent_at = float("inf")
        self._follow_ups: deque[float] = deque()
        self._unseen_wait: float | None = None
        self._ticket: float | None = None

    def want(self, at: float, *, urgent: bool = False) -> None:
        """Ask for a poll at this time, if none is due earlier."""
        if urgent:
            self._urgent_at = min(self._urgent_at, at)
        else:
            self._idle_at = min(self._idle_at, at)

    def joined(self, now: float, interval: float) -> None:
        """Ask for a poll for somebody who is new, at the pace that would hold without push."""
        self.want(max(now + JOIN_DELAY_S, self.last_poll + max(interval, LEAST_INTERVAL_S)))

    def pushed(self, now: float) -> None:
        """Poll at once, and a few times more if the lists lag."""
        self._follow_ups = deque(now + delay for delay in FOLLOW_UPS_S)

    def done_following(self) -> None:
        """Everything that was pushed has been dealt with."""
        self._follow_ups.clear()

    @property
    def following(self) -> bool:
        """Whether a push is still being followed up."""
        return bool(self._follow_ups)

    def started(self, now: float) -> None:
        """Note that a poll begins."""
        self.last_poll, self._ticket = now, None
        self._idle_at = self._urgent_at = float("inf")
        while self._follow_ups and self._follow_ups[0] <= now:
            self._follow_ups.popleft()

    def failed(self, now: float, interval: float, error: PacificaError) -> bool:
        """
        Note that the poll failed; say whether the connection was refused for so long that it is to be read again.

        It keeps away for the shortest interval, then twice as long each time, up to five minutes, and as long as a 429
        asks for at least; a quarter of jitter on top, so that triggerers do not come back together.
        """
        asked_s = error.retry_after_s or 0.0 if isinstance(error, Throttled) else 0.0
        self._failures += 1
        pause_s = min(LONGEST_PAUSE_S, max(interval, LEAST_INTERVAL_S) * 2.0 ** min(self._failures - 1, 20))
        pause_s = max(pause_s, min(asked_s, LONGEST_PAUSE_S)) * random.uniform(1, 1.25)  # noqa: S311 - no secret
        self.blocked_until = now + pause_s
        trouble = f"{type(error).__name__} {error.status}"
        if trouble != self._trouble:
            log.warning(
                "Account %s: could not look, will look again in %.0f s and go on: %s", self._account, pause_s, error
            )
        self._trouble = trouble
        if not isinstance(error, ConfigurationError):
            self._refused_since = None
            return False
        self._refused_since = now if self._refused_since is None else self._refused_since
        return now - self._refused_since >= REFUSED_S

    def succeeded(self) -> None:
        """Note that the poll came to its end."""
        if self._trouble is not None:
            log.info("Pacifica answers again for account %s.", self._account)
        self._failures, self._trouble, self._refused_since = 0, None, None
        self.blocked_until = float("-inf")

    def unseen(self, youngest_s: float | None, reading_s: float = 0.0) -> None:
        """Note how long the batch that is between the lists for the shortest time has been away; ``None`` for none."""
        self._unseen_wait = None
        if youngest_s is not None:
            self._unseen_wait = max(min(UNSEEN_LONGEST_S, youngest_s * UNSEEN_SHARE), reading_s * HISTORY_SHARE)

    def history_due(self, now: float, interval: float) -> bool:
        """Say whether the history is to be read again for somebody who was already missed in it."""
        # A tenth early, or a poll that is due a moment before would wait for another round.
        return self.following or now - self.last_history >= 0.9 * max(interval, self._unseen_wait or 0.0)

    def due(self, interval: float, limiter: RateLimiter, cost: float, *, push: bool) -> float:
        """
        Return when the next poll is due; an idle one takes its turn among all who spend the same credits.

        :param interval: the shortest that anybody asked for.
        :param cost: an idle poll's, in credits.
        :param push: whether the socket is healthy.
        """
        idle = self.idle_at(interval, push=push)
        if idle <= time.monotonic():
            if self._ticket is None:
                self._ticket = limiter.ticket(cost)
            idle = limiter.ready_at(self._ticket)
        return min(self.urgent_at(interval), idle)

    def urgent_at(self, interval: float) -> float:
        """Return when a poll is due because something has happened: a push, an end, a batch between the lists."""
        follow_up = self._follow_ups[0] if self._follow_ups else float("inf")
        unseen = float("inf")
        if self._unseen_wait is not None:
            unseen = self.last_poll + max(interval, LEAST_INTERVAL_S, self._unseen_wait)
        return max(min(self._urgent_at, follow_up, unseen), self.blocked_until)

    def idle_at(self, interval: float, *, push: bool) -> float:
        """Return when a poll is due although nothing is known to have happened, by the shortest interval asked for."""
        interval = max(interval, LEAST_INTERVAL_S)
        pause = max(interval, self._push_interval_s) if push else interval
        # The first poll has to be asked for.
        regular = self.last_poll + pause if self.last_poll >= 0 else float("inf")
        return max(min(regular, self._idle_at), self.blocked_until)


async def sleep_until(due: float, wake: asyncio.Event) -> None:
    """Sleep until then, but not for longer than half a minute, or until there is something to take in."""
    pause_s = min(max(due - time.monotonic(), 0.0), _LONGEST_SLEEP_S)
    timer = asyncio.get_running_loop().call_later(pause_s, wake.set)
    try:
        await wake.wait()
    finally:
        timer.cancel()
