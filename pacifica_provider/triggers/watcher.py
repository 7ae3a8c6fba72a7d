"""
One watcher for each account in an event loop: ten thousand triggers wait on one conversation with the exchange.

It reads the pending list, and the history only when somebody's withdrawal has left that list; each reading serves
everybody (``readings.py``). A push settles whom it names without doubt, and makes it look at once else; while pushes
are heard, it looks seldom (``push.py``, ``pace.py``). It leaves the last third of the account's credits alone
(``budget.py``). A look that fails is no event for anybody: it looks again later.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
import traceback
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pacifica_provider.api.client import Endpoints
from pacifica_provider.exceptions import ConfigurationError, PacificaError, Retryable, Throttled
from pacifica_provider.triggers.budget import MeteredTransport
from pacifica_provider.triggers.condition import Condition
from pacifica_provider.triggers.events import expired_event, settled_event
from pacifica_provider.triggers.look import Look
from pacifica_provider.triggers.pace import Pace
from pacifica_provider.triggers.push import Push
from pacifica_provider.triggers.waiters import Waiters
from pacifica_provider.withdrawals.settlement import Waiting, confirmed, not_looked, timed_out

if TYPE_CHECKING:
    from pacifica_provider.hooks.settings import ConnectionSettings
    from pacifica_provider.triggers.listening import Listener
    from pacifica_provider.triggers.waiters import Batch, Waiter
    from pacifica_provider.withdrawals.settlement import Confirmation

log = logging.getLogger(__name__)

# Clocks and sockets are checked at least this often, however long the pause.
_LONGEST_SLEEP_S = 30.0
# Whose time is up gets one more look, but not for longer than this: Airflow's own limit on the deferral follows.
LAST_LOOK_S = 30.0
_CLOCK_CHECK_S = 600.0
_Key = tuple[str, str, str | None]

_watchers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Key, Watcher]] = WeakKeyDictionary()


class WatcherFailed(PacificaError):
    """The watcher that this trigger shared has died of a defect; the withdrawal itself has not failed."""


class Watcher:
    """
    Waits for every trigger on one account in this event loop; made by ``of``, ended by the last that leaves.

    :param settings: the checked connection, without its private key.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self.waiters = Waiters()
        self.listeners: dict[Listener, None] = {}
        self.pace = Pace()
        self.pushed: dict[Batch | None, float] = {}
        self._endpoints = Endpoints(settings.base_url, settings.account, api_config_key=settings.api_config_key)
        self._look = Look(self, self._endpoints)
        self._wake = asyncio.Event()
        self._push = Push(
            settings.ws_url,
            settings.account,
            on_confirmed=self._confirmed,
            on_connected=self.look_now,
            on_lost=self._wake.set,
        )
        self._condition = Condition(settings.account)
        # In a context of its own: what it logs belongs to no single task, least of all to the one that came first.
        self._task = contextvars.Context().run(self._loop.create_task, self._run())
        self._task.add_done_callback(self._ended)

    @classmethod
    def of(cls, settings: ConnectionSettings) -> Watcher:
        """Return this event loop's watcher for the account, a new one if there is none."""
        watchers = _watchers.setdefault(asyncio.get_running_loop(), {})
        key = _key(settings)
        if key not in watchers:
            watchers[key] = cls(settings)
        return watchers[key]

    async def wait(self, waiter: Waiter, end_time: float) -> dict[str, Any] | None:
        """
        Wait for a withdrawal until ``end_time``, Unix seconds, and look once more then if the last look is too old.

        :return: the trigger's event, or ``None`` if the connection is to be read again.
        """
        waiter.future = future = self._loop.create_future()
        waiter.joined_at, waiter.overdue = time.monotonic(), False
        self.waiters.add(waiter)
        self.pace.joined(waiter.joined_at, waiter.interval)
        self._wake.set()
        try:
            # By the wall clock: the end was set by another process, maybe on another host.
            while (left_s := end_time - time.time()) > 0 and not future.done():
                await asyncio.wait([future], timeout=min(left_s, _CLOCK_CHECK_S))
            if not future.done() and not self._has_looked_for(waiter):
                waiter.overdue = True
                self.look_now()
                await asyncio.wait([future], timeout=LAST_LOOK_S)
            return future.result() if future.done() else expired_event(timed_out(waiter.awaited, waiter.waiting))
        finally:
            self.waiters.discard(waiter)
            self._end_if_unused()

    def _has_looked_for(self, waiter: Waiter) -> bool:
        """Say whether the last look is no older than it asked for, or no other may be made now."""
        now = time.monotonic()
        # A look that has only begun has shown nothing yet.
        looked = self.pace.last_look >= waiter.joined_at and waiter.waiting != Waiting()
        return looked and (now - self.pace.last_look <= waiter.interval or self.pace.blocked(now))

    def settle(self, waiter: Waiter, event: dict[str, Any] | None) -> None:
        """Wake a trigger for good."""
        waiter.settle(event)
        self.waiters.discard(waiter)

    def listen(self, listener: Listener) -> None:
        """Hand every reading of the history to a listener, until ``unlisten``."""
        self.listeners[listener] = None
        self.look_now()

    def unlisten(self, listener: Listener) -> None:
        """Hand it nothing more."""
        self.listeners.pop(listener, None)
        self._end_if_unused()

    @property
    def push_is_healthy(self) -> bool:
        """Whether a confirmation would be heard."""
        return self._push.healthy

    @property
    def interval(self) -> float:
        """The shortest interval that anybody asks for."""
        intervals = [listener.interval for listener in self.listeners]
        if (shortest := self.waiters.shortest_interval) is not None:
            intervals.append(shortest)
        return min(intervals, default=float("inf"))

    @property
    def _used(self) -> bool:
        return bool(len(self.waiters) or self.listeners)

    async def _run(self) -> None:
        listening = self._loop.create_task(self._push.run())
        listening.add_done_callback(_push_ended)
        try:
            async with MeteredTransport(
                timeout_s=self._settings.timeout_s, with_key=self._settings.api_config_key is not None
            ) as transport:
                try:
                    while self._used:
                        await self._until_due()
                        await self._look_once(transport)
                finally:
                    self._forget()  # before anything is awaited: whoever comes now begins a new one
        finally:
            listening.cancel()
            await asyncio.wait([listening])

    async def _until_due(self) -> None:
        while self._used:
            self._wake.clear()
            due = self.pace.due(self.interval, push=self._push.healthy)
            if due <= time.monotonic():
                return
            timer = self._loop.call_at(min(due, time.monotonic() + _LONGEST_SLEEP_S), self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()

    async def _look_once(self, transport: MeteredTransport) -> None:
        self.pace.started(time.monotonic())
        waiters = list(self.waiters)
        overdue = [waiter for waiter in waiters if waiter.overdue]
        try:
            await self._look.run(waiters, transport)
        except (Retryable, ConfigurationError) as error:
            self._failed(error, waiters)
        else:
            self.pace.succeeded()
            self._condition.good()
        for waiter in overdue:
            self.settle(waiter, expired_event(timed_out(waiter.awaited, waiter.waiting)))

    def _failed(self, error: PacificaError, waiters: list[Waiter]) -> None:
        asked_s = error.retry_after_s if isinstance(error, Throttled) else None
        pause_s = self.pace.failed(time.monotonic(), self.interval, asked_s)
        refused = self._condition.bad(error, waiting=len(self.waiters), pause_s=pause_s)
        for waiter in waiters:
            waiter.waiting = not_looked(waiter.waiting, str(error))
            if refused:
                self.settle(waiter, None)
        if refused:
            for listener in self.listeners:
                listener.fail(error)

    def _confirmed(self, batch: Batch | None, push: Confirmation | None = None) -> None:
        if push is not None:
            self._settle_by(push)
        if batch is None or self.listeners or self.waiters.awaits(batch):
            if batch not in self.pushed:
                self.pushed[batch] = time.monotonic()
                self.pace.pushed(self.pushed[batch])
            self._wake.set()

    def _settle_by(self, push: Confirmation) -> None:
        for waiter in self.waiters.of(push.awaited):
            proof = confirmed(
                waiter.awaited, push, equal_rows=waiter.twins, fee=waiter.fee, created_at_ms=waiter.since_ms
            )
            if proof is not None:
                self.settle(waiter, settled_event(proof.row))

    def look_now(self) -> None:
        """Look, unless a failure forbids it."""
        self.pace.want(time.monotonic())
        self._wake.set()

    def _end_if_unused(self) -> None:
        # Once it is ending by itself, a cancellation would only keep it from closing its sockets.
        if not self._used and self._forget():
            self._task.cancel()
            self._wake.set()

    def _forget(self) -> bool:
        """Let nobody join any more; say whether it was possible so far."""
        watchers, key = _watchers.get(self._loop, {}), _key(self._settings)
        if watchers.get(key) is not self:
            return False
        del watchers[key]
        return True

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Leave nobody waiting for a watcher that is gone."""
        self._forget()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            # Without the error's own text, which may quote a header.
            trace = "".join(traceback.format_tb(error.__traceback__))
            log.error("The watcher of account %s died: %s\n%s", self._settings.account, type(error).__name__, trace)
        text = (
            f"The watcher of account {self._settings.account} ended ({type(error).__name__}). The withdrawal itself "
            "has not failed and must not be made again: a retry waits on and sends nothing."
        )
        for member in (*self.waiters, *self.listeners):
            member.fail(WatcherFailed(text))


def _key(settings: ConnectionSettings) -> _Key:
    return settings.base_url, settings.account, settings.api_config_key


def _push_ended(task: asyncio.Task[None]) -> None:
    """Without push the watcher polls on; a defect there is worth a line, not ten thousand failed tasks."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("Pacifica's push ended (%s); polling goes on without it.", type(error).__name__)
