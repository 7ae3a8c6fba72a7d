"""
One watcher for each account in an event loop: ten thousand triggers wait on one conversation with the exchange.

It polls the pending list, and the history only when somebody's withdrawal has left that list; what they mean is decided
in ``poll.py``, when it polls in ``schedule.py``. A push settles whom it names without doubt, and makes it poll at once
else (``push.py``). Where the connection has a Solana RPC, a poll ends with a question to it, one for everybody whom the
history or a push shows on chain. The credits are shared with the other accounts' watchers (``rate_limit.py``). A poll
that fails is no event for anybody: it polls again later.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
import traceback
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from pacifica_provider.api.client import Endpoints, run_async
from pacifica_provider.api.outcomes import Answer
from pacifica_provider.exceptions import ConfigurationError, PacificaError, Retryable
from pacifica_provider.triggers.events import expired_event, settled_event
from pacifica_provider.triggers.poll import Cases, Search, filed, history_since_ms, is_queued
from pacifica_provider.triggers.push import subscribe
from pacifica_provider.triggers.rate_limit import LIGHT_COST, shared_rpc, shared_transport
from pacifica_provider.triggers.schedule import REFUSED_S, PollSchedule, sleep_until
from pacifica_provider.withdrawals.settlement import (
    Expired,
    Settled,
    log_level,
    not_asked_yet,
    not_looked,
    on_chain,
    timed_out,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from decimal import Decimal

    from pacifica_provider.api.client import Listing
    from pacifica_provider.api.models import PendingWithdrawal, SettledWithdrawal
    from pacifica_provider.api.transports import AsyncTransport, HttpxTransport
    from pacifica_provider.hooks.settings import ConnectionSettings
    from pacifica_provider.triggers.poll import Batch, Case, Pending
    from pacifica_provider.triggers.rate_limit import MeteredTransport
    from pacifica_provider.withdrawals.settlement import Awaited, Waiting

log = logging.getLogger(__name__)

PUSH_INTERVAL_S = 60.0
# Whose time is up gets one more poll, but not for longer than this: Airflow's own limit on the deferral follows.
LAST_LOOK_S = 30.0
_CLOCK_CHECK_S = 600.0
FEE_AGE_S = 600.0
# Clocks differ by seconds and lists lag by half a minute; ten minutes cost nothing where rows are few.
SLACK_MS = 10 * 60_000
# So many are judged in a row: some ten milliseconds.
BREATH = 1000
_LONG_BYTES = 64 * 1024
_Key = tuple[str, str, str | None, str | None]
# No event: the time is up.
_TIME_UP: dict[str, Any] = {}
T = TypeVar("T")

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
        self._endpoints = Endpoints(settings.base_url, settings.account, api_config_key=settings.api_config_key)
        self._cases = Cases()
        self._intervals: Counter[float] = Counter()
        self._fees: dict[str, tuple[float, Decimal | None]] = {}
        # Batches that a push named without proving anything, None for any; and those whose time is up.
        self._hinted: set[Batch | None] = set()
        self._overdue: list[asyncio.Future[dict[str, Any] | None]] = []
        # Whether somebody waits for what the Solana RPC says, which nothing pushes.
        self._unproven = False
        self._silent_since = float("inf")
        self._schedule = PollSchedule(settings.account, PUSH_INTERVAL_S)
        self._wake = asyncio.Event()
        self._push = subscribe(settings.ws_url, settings.account, self._wake)
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

    async def wait(
        self, awaited: Awaited, *, end_time: float, interval: float, fee: Decimal | None, since_ms: int | None
    ) -> dict[str, Any] | None:
        """
        Wait for a withdrawal until ``end_time``, Unix seconds, and look once more then if the last poll is too old.

        :param interval: longest time between polls, in seconds.
        :param fee: what was deducted, where a receipt says it.
        :param since_ms: a time before the withdrawal was made, where one is known.
        :return: the trigger's event, or ``None`` if the connection is to be read again.
        """
        case = self._cases.join(awaited, fee, since_ms)
        self._intervals[interval] += 1
        self._schedule.joined(time.monotonic(), interval)
        self._wake.set()
        told = None
        try:
            # By the wall clock: the end was set by another process, maybe on another host.
            while (left_s := end_time - time.time()) > 0:
                if (event := await self._event(case, min(left_s, _CLOCK_CHECK_S))) is not _TIME_UP:
                    return event
                told = _said(case, told)
            now = time.monotonic()
            if now - case.looked_at > interval and now >= self._schedule.blocked_until:
                self.look_now()
                if (event := await self._event(case, LAST_LOOK_S, last=True)) is not _TIME_UP:
                    return event
                _said(case, told)
            return expired_event(timed_out(awaited, case.waiting))
        finally:
            if not case.waits:
                self._cases.leave(case)
            self._intervals[interval] -= 1
            self._intervals += Counter()  # drops what nobody asks for any more
            self._end_if_unused()

    async def _event(self, case: Case, within_s: float, *, last: bool = False) -> dict[str, Any] | None:
        """Return what the wait comes to, ``_TIME_UP`` if that is nothing within this time or by a last poll."""
        future: asyncio.Future[dict[str, Any] | None] = self._loop.create_future()
        case.waits[future] = None
        if last:
            self._overdue.append(future)
        timer = self._loop.call_later(within_s, _wake, future, _TIME_UP)
        try:
            event = await future
        finally:
            timer.cancel()
            del case.waits[future]
        # It may have ended after the time was up, and before this was resumed.
        return case.event if event is _TIME_UP and case.ended else event

    def look_now(self) -> None:
        """Poll, unless a failure forbids it."""
        self._schedule.want(time.monotonic(), urgent=True)
        self._wake.set()

    @property
    def push_is_healthy(self) -> bool:
        """Whether a confirmation would be heard."""
        return self._push.healthy

    @property
    def _interval(self) -> float:
        return min(self._intervals, default=float("inf"))

    async def _run(self) -> None:
        """Take in what is pushed, also while a poll is under way, and begin the next poll when it is due."""
        poll: asyncio.Task[None] | None = None
        async with shared_transport(self._settings) as transport, shared_rpc(self._settings) as rpc:
            try:
                while self._cases:
                    self._wake.clear()
                    self._hear()
                    if poll is not None and poll.done():
                        poll.result()
                        poll = None
                    due = float("inf")
                    if poll is None:
                        healthy = self._push.healthy and not self._unproven
                        due = self._schedule.due(self._interval, transport.limiter, LIGHT_COST, push=healthy)
                    if due <= time.monotonic():
                        poll, due = self._loop.create_task(self._poll(transport, rpc)), float("inf")
                        poll.add_done_callback(lambda _: self._wake.set())
                    await sleep_until(due, self._wake)
            finally:
                self._forget()  # before anything is awaited: whoever comes now begins a new one
                if poll is not None:
                    poll.cancel()
                    await asyncio.wait([poll])

    def _hear(self) -> None:
        """Take in what was pushed: it settles, or it calls for a poll."""
        heard, gap = self._push.take()
        for batch, confirmation in heard:
            settled, doubt = self._cases.told(batch, confirmation)
            for case, proof in settled:
                self._conclude(case, proof)
                if case.shown is not None:
                    self.look_now()
            if doubt:
                self._hinted.add(batch)
                self._schedule.pushed(time.monotonic())
        if gap:
            self._schedule.want(time.monotonic())
        self._hinted = {
            batch
            for batch in self._hinted
            if (self._schedule.following if batch is None else self._cases.awaits(batch))
        }
        if not self._hinted:
            self._schedule.done_following()

    def _conclude(self, case: Case, seen: Settled | Expired) -> None:
        """End the wait for it, unless a Solana RPC is to be asked first; of two transactions the later one counts."""
        if self._settings.solana_rpc_url is None:
            self._settle(case, seen)
        elif isinstance(seen, Settled):
            case.shown, case.waiting = seen, not_asked_yet(seen, now_ms=_now_ms())
        elif case.shown is None:  # else a push has shown it while the lists were read
            self._settle(case, seen)

    def _settle(self, case: Case, seen: Settled | Expired | None) -> None:
        """Wake everybody who waits for it, with an event; ``None`` lets them read the connection again."""
        self._cases.leave(case)
        case.ended = True
        if seen is not None:
            case.event = settled_event(seen.row) if isinstance(seen, Settled) else expired_event(seen)
        for future in case.waits:
            _wake(future, case.event)

    async def _poll(self, transport: MeteredTransport, rpc: HttpxTransport | None) -> None:
        """Poll once, and wake those whose time is up, whatever came of it."""
        self._schedule.started(time.monotonic())
        overdue, self._overdue = self._overdue, []
        cases = list(self._cases)
        try:
            await self._read_lists(cases, transport, last=bool(overdue))
        except (Retryable, ConfigurationError) as error:
            self._failed(error, cases)
        else:
            self._schedule.succeeded()
        if rpc is not None:
            await self._ask_chain(rpc)
        for future in overdue:
            _wake(future, _TIME_UP)

    async def _read_lists(self, cases: Sequence[Case], transport: MeteredTransport, *, last: bool) -> None:
        """
        Read the pending list, and the history if somebody's withdrawal has left it.

        :param last: whether for somebody this is the last poll.
        :raises Retryable: if a list could not be read; nobody has been judged by it.
        :raises ConfigurationError: if the exchange refuses to show it.
        """
        began = time.monotonic()
        pending = await read_pending(self._endpoints, transport, _filed)
        gone = []
        for number, case in enumerate(cases, 1):
            if case.shown is not None:
                continue
            if is_queued(case, pending):
                case.looked_at = began
            else:
                gone.append(case)
            if number % BREATH == 0:
                await asyncio.sleep(0)
        if not gone:
            self._schedule.unseen(None)
            return
        begun = time.monotonic()
        new = any(case.waiting.missing_since_ms is None for case in gone)
        if not (new or last or self._schedule.history_due(begun, self._interval)):
            return
        await self._search(Search(gone), history_since_ms(gone, SLACK_MS), transport)
        for case in gone:
            case.looked_at = began
        now = self._schedule.last_history = time.monotonic()
        since_ms = [case.waiting.missing_since_ms for case in gone if case in self._cases and case.shown is None]
        youngest_ms = max((each for each in since_ms if each is not None), default=None)
        self._schedule.unseen(None if youngest_ms is None else now - youngest_ms / 1000, now - begun)

    async def _search(self, search: Search, since_ms: int | None, transport: MeteredTransport) -> None:
        """Read the history as far as anybody needs it, and settle whom it shows."""

        def enough(page: Sequence[SettledWithdrawal]) -> bool:
            for case, seen in search.take(page, now_ms=_now_ms()):
                self._conclude(case, seen)
            return search.is_over

        await run_async(self._endpoints.history(since_ms, enough), transport)
        fees = {symbol: await self._fee(symbol, transport) for symbol in search.fees_needed()}
        for number, (case, ended) in enumerate(search.rest(fees, now_ms=_now_ms()), 1):
            if case in self._cases:  # a push may have settled it meanwhile
                self._conclude(case, ended)
            if number % BREATH == 0:
                await asyncio.sleep(0)

    async def _ask_chain(self, rpc: HttpxTransport) -> None:
        """
        Ask the Solana RPC once for everybody who has been shown on chain, and settle those who are finalized there.

        Whoever failed, or is not found, is looked for in the lists again: Pacifica may name another transaction. After
        minutes without an answer the connection is read again: its address may have been corrected.
        """
        began = time.monotonic()
        asked = {case: case.shown for case in self._cases if case.shown is not None}
        if asked:
            from pacifica_provider.api.solana import chain_statuses

            names = [name for shown in asked.values() for name in shown.transaction_ids]
            chain = await run_async(chain_statuses(str(self._settings.solana_rpc_url), names), rpc)
            silent = all(status.word == "no answer" for status in chain.values())
            self._silent_since = min(self._silent_since, began) if silent else float("inf")
            reread = began - self._silent_since >= REFUSED_S
            for number, (case, shown) in enumerate(asked.items(), 1):
                if case in self._cases and case.shown is shown:  # a push may have shown another one meanwhile
                    self._judge(case, on_chain(shown, chain, now_ms=_now_ms()))
                    case.looked_at = began
                    if reread:
                        self._settle(case, None)
                if number % BREATH == 0:
                    await asyncio.sleep(0)
        self._unproven = any(case.waiting.chain is not None for case in self._cases)

    def _judge(self, case: Case, seen: Settled | Waiting) -> None:
        if isinstance(seen, Settled):
            self._settle(case, seen)
            return
        case.waiting = seen
        if seen.chain in {"failed", "not found"}:
            case.shown = None
        if case.told is None or case.told.last_seen != seen.last_seen:
            case.told = seen
            for future in case.waits:
                _wake(future, _TIME_UP)

    async def _fee(self, symbol: str, transport: MeteredTransport) -> Decimal | None:
        """Return the asset's present fee; ``None`` if it has no bridge any more: then only a gross row matches."""
        now = time.monotonic()
        read_at, fee = self._fees.get(symbol, (float("-inf"), None))
        if now - read_at > FEE_AGE_S:
            try:
                fee = (await run_async(self._endpoints.bridge_parameters(symbol), transport)).withdrawal_fee
            except ConfigurationError as error:
                log.warning("The fee of %s is not known: %s", symbol, error)
                fee = None
            self._fees[symbol] = (now, fee)
        return fee

    def _failed(self, error: PacificaError, cases: Sequence[Case]) -> None:
        refused = self._schedule.failed(time.monotonic(), self._interval, error)
        for case in cases:
            case.waiting = not_looked(case.waiting, str(error))
            if refused:
                self._settle(case, None)

    def _end_if_unused(self) -> None:
        # Once it is ending by itself, a cancellation would only keep it from closing its sockets.
        if not self._cases and self._forget():
            self._task.cancel()

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
        self._push.close()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            # Without the error's own text, which may quote a header.
            trace = "".join(traceback.format_tb(error.__traceback__))
            log.error("The watcher of account %s died: %s\n%s", self._settings.account, type(error).__name__, trace)
        text = (
            f"The watcher of account {self._settings.account} ended ({type(error).__name__}). The withdrawal itself "
            "has not failed and must not be made again: a retry waits on and sends nothing."
        )
        for case in self._cases:
            for future in case.waits:
                if not future.done():
                    future.set_exception(WatcherFailed(text))


async def read_pending(
    endpoints: Endpoints, transport: AsyncTransport, read: Callable[[Listing[PendingWithdrawal]], T]
) -> T:
    """
    Read the pending list and make of it what ``read`` does, a long one in a thread: 10,000 rows take half a second.

    :raises Retryable: if it cannot be read.
    :raises ConfigurationError: if the exchange refuses to show it.
    """
    steps = endpoints.pending()
    answer = await transport(next(steps))

    def parsed() -> T:
        """Read the answer."""
        try:
            steps.send(answer)
        except StopIteration as done:
            return read(done.value)
        raise RuntimeError("the pending list takes one request")

    long = isinstance(answer, Answer) and len(answer.body) > _LONG_BYTES
    return await asyncio.to_thread(parsed) if long else parsed()


def _said(case: Case, before: Waiting | None) -> Waiting | None:
    """Log what the chain says of it, if that is new: called by who waits, so that it stands in that task's own log."""
    if case.told is not None and case.told is not before:
        log.log(log_level(case.told), "%s: %s", case.awaited, case.told.last_seen)
    return case.told


def _wake(future: asyncio.Future[dict[str, Any] | None], event: dict[str, Any] | None) -> None:
    if not future.done():
        future.set_result(event)


def _filed(listing: Listing[PendingWithdrawal]) -> Pending:
    return filed(listing.rows)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _key(settings: ConnectionSettings) -> _Key:
    return settings.base_url, settings.account, settings.api_config_key, settings.solana_rpc_url
