"""Simulated time, and who runs when: one process, no threads, no sleeping, the same order for the same seed."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]  # it carries no types

if TYPE_CHECKING:
    from collections.abc import Callable


class Scheduler:
    """
    What happens when. ``now_ms`` is a world's one true clock: the exchange shows it, workers are off by their skew.

    Each try of a task runs in a greenlet of its own and gives way wherever time passes for it (``wait_until``), so
    tries interleave at every ledger call, request, sleep and failpoint.
    """

    def __init__(self, start_ms: int) -> None:
        self.now_ms = start_ms
        self._due: list[tuple[int, int, Callable[[], object]]] = []
        self._serial = itertools.count()
        self._hub = getcurrent()

    def at(self, when_ms: int, action: Callable[[], object]) -> None:
        """Do this then; at once after what is due at the same moment, if that is in the past."""
        heapq.heappush(self._due, (max(when_ms, self.now_ms), next(self._serial), action))

    def spawn(self, work: Callable[[], object]) -> None:
        """Run ``work`` in a greenlet of its own, from now on, until it first waits."""
        self.at(self.now_ms, greenlet(work, parent=self._hub).switch)

    def wait_until(self, when_ms: int) -> None:
        """Let time pass for the caller, and others run meanwhile."""
        if not self._due or when_ms < self._due[0][0]:
            self.now_ms = max(self.now_ms, when_ms)
            return
        self.at(when_ms, getcurrent().switch)
        self._hub.switch()

    def wait(self, duration_ms: float) -> None:
        """Let so much time pass for the caller."""
        self.wait_until(self.now_ms + int(duration_ms))

    def run(self, until: Callable[[], bool] | None = None) -> None:
        """Do everything on the scheduler, in order, until nothing is left, or what is asked for has come true."""
        self._hub = getcurrent()
        while self._due and not (until and until()):
            when_ms, _, action = heapq.heappop(self._due)
            self.now_ms = max(self.now_ms, when_ms)
            action()
