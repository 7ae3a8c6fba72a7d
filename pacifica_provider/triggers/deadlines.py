"""When waiters give up: one timer for all of them, and a last look for each."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from pacifica_provider.triggers.events import expired_event
from pacifica_provider.withdrawals.settlement import Waiting, timed_out

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pacifica_provider.triggers.waiters import Waiter
    from pacifica_provider.triggers.watcher import Watcher

# Whose time is up gets one more look, but not for longer than this: Airflow's own limit on the deferral follows.
LAST_LOOK_S = 30.0


class Deadlines:
    """The ends of a watcher's waiters, by the wall clock: they were set by another process, maybe on another host."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._set_for: float | None = None
        self._overdue: list[Waiter] = []

    def set(self) -> None:
        """Set the timer for the next end, if that has changed."""
        end = self._watcher.waiters.next_end
        if end == self._set_for:
            return
        self.cancel()
        self._set_for = end
        if end is not None:
            self._timer = self._loop.call_later(max(0.0, end - time.time()), self._pass)

    def cancel(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._set_for = None

    def take_overdue(self) -> list[Waiter]:
        """Return those who only wait for the look that begins now."""
        overdue, self._overdue = self._overdue, []
        return overdue

    def looked(self, overdue: Iterable[Waiter]) -> None:
        """Time out those who waited for the look that has ended, and check the clock, which may have been set."""
        for waiter in overdue:
            self._time_out(waiter)
        self._pass()

    def _pass(self) -> None:
        """Time out those whose time is up, after one more look where the last is older than they asked for."""
        now, pace = time.monotonic(), self._watcher.pace
        for waiter in self._watcher.waiters.pop_ended(time.time()):
            # A look that has only begun has shown nothing yet.
            looked = pace.last_look >= waiter.joined_at and waiter.waiting != Waiting()
            if looked and (now - pace.last_look <= waiter.interval or pace.blocked(now)):
                self._time_out(waiter)
            else:
                self._overdue.append(waiter)
                self._loop.call_later(LAST_LOOK_S, self._time_out, waiter)
                self._watcher.look_now()
        self.cancel()
        self.set()

    def _time_out(self, waiter: Waiter) -> None:
        self._watcher.settle(waiter, expired_event(timed_out(waiter.awaited, waiter.waiting)))
