"""When a watcher looks next. Pure: times in, a time out; monotonic seconds throughout."""

from __future__ import annotations

import random
from collections import deque

# With a healthy socket a look only serves to find a push that was lost.
PUSH_INTERVAL_S = 60.0
# Whoever joins is looked for soon; those that join together, together.
JOIN_DELAY_S = 0.1
# A push comes as one message a withdrawal, and may run ahead of the lists.
FOLLOW_UPS_S = (0.02, 0.2, 0.5, 1.0, 2.0, 4.0)
LEAST_INTERVAL_S = 1.0
LONGEST_PAUSE_S = 300.0
# A batch between the lists is looked for less often the longer it is away, and a long history less often than a short
# one.
UNSEEN_SHARE = 0.2
UNSEEN_LONGEST_S = 120.0
HISTORY_SHARE = 5.0


class Pace:
    """
    Decides the next look from what has happened; the latest failure outranks everything.

    After a failure it waits for the shortest interval, then twice as long each time, up to five minutes, and as long
    as a 429 asks for at least; a quarter of jitter on top, so that triggerers do not come back together.
    """

    def __init__(self) -> None:
        self.last_look = float("-inf")
        self.last_history = float("-inf")
        self._failures = 0
        self._blocked_until = float("-inf")
        self._wanted_at = float("inf")
        self._follow_ups: deque[float] = deque()
        self._unseen_wait: float | None = None

    def blocked(self, now: float) -> bool:
        """Say whether a failure forbids looking."""
        return now < self._blocked_until

    def want(self, at: float) -> None:
        """Ask for a look at this time, if none is due earlier."""
        self._wanted_at = min(self._wanted_at, at)

    def joined(self, now: float, interval: float) -> None:
        """Ask for a look for somebody who is new, at the pace that would hold without push."""
        self.want(max(now + JOIN_DELAY_S, self.last_look + max(interval, LEAST_INTERVAL_S)))

    def pushed(self, now: float) -> None:
        """Look at once, and a few times more if the lists lag."""
        self._follow_ups = deque(now + delay for delay in FOLLOW_UPS_S)

    def done_following(self) -> None:
        """Every pushed batch has been dealt with."""
        self._follow_ups.clear()

    @property
    def following(self) -> bool:
        """Whether a push is still being followed up."""
        return bool(self._follow_ups)

    def started(self, now: float) -> None:
        """Note that a look begins."""
        self.last_look = now
        self._wanted_at = float("inf")
        while self._follow_ups and self._follow_ups[0] <= now:
            self._follow_ups.popleft()

    def failed(self, now: float, interval: float, asked_s: float | None) -> float:
        """Note that the look failed, and return how long to keep away."""
        self._failures += 1
        pause = min(LONGEST_PAUSE_S, max(interval, LEAST_INTERVAL_S) * 2.0 ** min(self._failures - 1, 20))
        pause = max(pause, min(asked_s or 0.0, LONGEST_PAUSE_S))
        pause *= random.uniform(1, 1.25)  # noqa: S311 - jitter, not a secret
        self._blocked_until = now + pause
        return pause

    def succeeded(self) -> None:
        """Note that the look came to its end."""
        self._failures = 0
        self._blocked_until = float("-inf")

    def unseen(self, youngest_s: float | None, reading_s: float = 0.0) -> None:
        """Note how long the batch that is between the lists for the shortest time has been away; ``None`` for none."""
        self._unseen_wait = None
        if youngest_s is not None:
            self._unseen_wait = max(min(UNSEEN_LONGEST_S, youngest_s * UNSEEN_SHARE), reading_s * HISTORY_SHARE)

    def history_due(self, now: float, interval: float) -> bool:
        """Say whether the history is to be read again for somebody who was already missed in it."""
        # A tenth early, or a look that is due a moment before would wait for another round.
        return self.following or now - self.last_history >= 0.9 * max(interval, self._unseen_wait or 0.0)

    def due(self, interval: float, *, push: bool) -> float:
        """Return when the next look is due, for the shortest interval that anybody asked for."""
        interval = max(interval, LEAST_INTERVAL_S)
        pause = max(interval, PUSH_INTERVAL_S) if push else interval
        if self._unseen_wait is not None:
            pause = min(pause, max(interval, self._unseen_wait))
        follow_up = self._follow_ups[0] if self._follow_ups else float("inf")
        regular = self.last_look + pause if self.last_look >= 0 else float("inf")  # the first look has to be asked for
        return max(min(regular, self._wanted_at, follow_up), self._blocked_until)
