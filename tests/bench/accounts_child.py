"""
In the child: many accounts, some triggers on each, all on one event loop.

Started with ``{"exchange", "kind": "ours" or "peer", "interval", "seconds"}`` and sent the accounts as its first line.
It says when all are waiting and subscribed, or that this takes too long and it has given up. It measures so many
seconds of idling from the next line it is sent, and says what they cost. Ours go on: with the next line it takes note
of what is settled, and some time after the one that says that everything is, it says which trigger was told and when.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil

from tests.bench import triggers
from tests.bench.child import Parent

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.triggers.base import BaseTrigger, TriggerEvent

WARM_UP_S = 1.5
# Whoever connects is not hurried, and the first polls are not what idling costs.
MOST_STARTING_S = 60.0
SETTLED_IN_S = 3.0
HEARTBEAT_S = 0.005


def main() -> None:
    """Run it."""
    parent = Parent()
    accounts: list[dict[str, Any]] = json.loads(sys.stdin.readline())
    asyncio.run(_Crew(parent, accounts).run())


class _Crew:
    """All triggers, and when each of them was told."""

    def __init__(self, parent: Parent, accounts: list[dict[str, Any]]) -> None:
        self._parent = parent
        self._wish: dict[str, Any] = parent.wish
        self._accounts = accounts
        self._who = [(at, number) for at, account in enumerate(accounts) for number in range(len(account["nonces"]))]
        self._heard_ms: dict[int, float] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Wait, idle, and hear."""
        for at, account in enumerate(self._accounts):
            triggers.load(self._wish["exchange"], account, _conn_id(at))
        await self._warm_up()
        resident = _resident()
        stall = asyncio.ensure_future(_stall(started := asyncio.Event()))
        cpu_s, begun = time.process_time(), time.perf_counter()
        # A thread: what takes too long may keep the loop from looking at any clock.
        limit = threading.Timer(MOST_STARTING_S + self._spread_s, self._give_up)
        limit.start()
        await self._begin()
        limit.cancel()
        cpu_s, took_s = time.process_time() - cpu_s, time.perf_counter() - begun
        started.set()
        stall_s, grown = await stall, _resident() - resident
        self._parent.say({"start_s": took_s, "start_cpu_s": cpu_s, "stall_s": stall_s, "resident_bytes": grown})
        await _line()
        self._parent.say({"cpu_s_per_minute": await self._idle()})
        if self._wish["kind"] == "ours":
            await self._hear()

    async def _warm_up(self) -> None:
        """Let one trigger wait and go, so that what is only ever loaded once is there."""
        tasks = triggers.start(self._maker(), 1, self._heard)
        await asyncio.sleep(WARM_UP_S)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(WARM_UP_S)

    async def _begin(self) -> None:
        """Start everybody; return when all wait and each account's subscription stands."""
        self._tasks = triggers.start(self._maker(), len(self._who), self._heard, self._spread_s)
        await asyncio.sleep(self._spread_s + SETTLED_IN_S)
        for at in range(len(self._accounts) if self._wish["kind"] == "ours" else 0):
            while not (await triggers.watcher(_conn_id(at))).push_is_healthy:  # noqa: ASYNC110 - each has its own event
                await asyncio.sleep(0.1)
        self._check()

    @property
    def _spread_s(self) -> float:
        """Those that poll for themselves would otherwise all poll at once, which no row of tasks does."""
        spread_s: float = 0.0 if self._wish["kind"] == "ours" else self._wish["interval"]
        return spread_s

    def _give_up(self) -> None:
        self._parent.say({"gave_up": MOST_STARTING_S})
        os._exit(0)

    async def _idle(self) -> float:
        cpu_s, begun = time.process_time(), time.perf_counter()
        await asyncio.sleep(self._wish["seconds"])
        cpu_s, took_s = time.process_time() - cpu_s, time.perf_counter() - begun
        self._check()
        return cpu_s / took_s * 60

    async def _hear(self) -> None:
        """Say by nonce when each was told, in this machine's clock."""
        await _line()
        cpu_s, begun = time.process_time(), time.perf_counter()
        grace_s: float = json.loads(await _line())
        cpu_s, took_s = time.process_time() - cpu_s, time.perf_counter() - begun
        await asyncio.wait(self._tasks, timeout=grace_s)
        end_ms = time.time_ns() / 1e6
        nonces = {self._nonce(number): heard_ms for number, heard_ms in self._heard_ms.items()}
        self._parent.say(
            {"heard_ms": nonces, "end_ms": end_ms, "cpu_s": cpu_s, "cpu_s_per_minute": cpu_s / took_s * 60}
        )

    def _maker(self) -> Callable[[int], BaseTrigger]:
        interval = self._wish["interval"]

        def ours(number: int) -> BaseTrigger:
            at, nth = self._who[number]
            account = self._accounts[at]
            return triggers.ours(account, nth, interval, _conn_id(at), account["opened_at_ms"])

        def peer(number: int) -> BaseTrigger:
            at, nth = self._who[number]
            return triggers.peer(self._wish["exchange"], self._accounts[at], nth, interval)

        return ours if self._wish["kind"] == "ours" else peer

    def _heard(self, number: int, event: TriggerEvent) -> None:
        if event.payload["status"] != "settled":
            raise RuntimeError(f"trigger {number} says {event}")
        self._heard_ms[number] = time.time_ns() / 1e6

    def _nonce(self, number: int) -> int:
        at, nth = self._who[number]
        nonce: int = self._accounts[at]["nonces"][nth]
        return nonce

    def _check(self) -> None:
        for task in self._tasks:
            if task.done():
                raise RuntimeError("a trigger has stopped waiting") from task.exception()


def _conn_id(at: int) -> str:
    return f"{triggers.CONN_ID}_{at}"


def _resident() -> int:
    gc.collect()
    resident: int = psutil.Process().memory_info().rss
    return resident


async def _stall(end: asyncio.Event) -> float:
    """Return for how long the loop was kept from anything else at most, in CPU time: other processes do not matter."""
    longest = 0.0
    while not end.is_set():
        before = time.thread_time()
        await asyncio.sleep(HEARTBEAT_S)
        longest = max(longest, time.thread_time() - before)
    return longest


async def _line() -> str:
    """Wait for a line without keeping the loop from anything."""
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


if __name__ == "__main__":
    main()
