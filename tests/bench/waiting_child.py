"""
In the child: N triggers wait on one account, and what a minute of that costs this process.

Started with ``{"exchange", "account", "kind": "ours" or "peer", "interval", "seconds"}``; without ``seconds`` it only
says how many bytes the waiting holds. Otherwise it says when all are waiting, measures from the next line it is sent,
and says what it found.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import psutil

from tests.bench import triggers
from tests.bench.child import Parent

if TYPE_CHECKING:
    from airflow.triggers.base import TriggerEvent

# The first looks, and the subscription.
SETTLED_IN_S = 4.0
SETTLED_IN_S_EACH = 0.0005
WARM_UP_S = 1.0
HEARTBEAT_S = 0.005
STALL_LOOK_S = 4.0


def main() -> None:
    """Run it."""
    parent = Parent()
    asyncio.run(_measure(parent, parent.wish))


async def _measure(parent: Parent, wish: dict[str, Any]) -> None:
    triggers.load(wish["exchange"], wish["account"])
    count, process = len(wish["account"]["nonces"]), psutil.Process()
    seconds: float | None = wish.get("seconds")
    await _warm_up(wish)
    gc.collect()
    resident = process.memory_info().rss
    if seconds is None:
        tracemalloc.start()
    tasks = await _wait(wish, count)
    gc.collect()
    if seconds is None:
        parent.say({"count": count, "held_bytes": tracemalloc.get_traced_memory()[0]})
        return
    resident = process.memory_info().rss - resident
    parent.say({"waiting": count})
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    cpu_s, begun = time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    cpu_s, took_s = time.process_time() - cpu_s, time.perf_counter() - begun
    _check(tasks)
    parent.say({"count": count, "cpu_s_per_minute": cpu_s / took_s * 60, "resident_bytes": resident})
    parent.say({"stall_s": await _stall() if wish["kind"] == "ours" else None})


async def _warm_up(wish: dict[str, Any]) -> None:
    """Let one trigger wait and go, so that what is only ever loaded once is there."""
    tasks = triggers.start(triggers.maker(wish), 1, _surprised)
    await asyncio.sleep(WARM_UP_S)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await asyncio.sleep(WARM_UP_S / 2)


async def _wait(wish: dict[str, Any], count: int) -> list[asyncio.Task[None]]:
    # Those that poll for themselves would otherwise all poll at once, which no row of tasks does.
    spread_s = 0.0 if wish["kind"] == "ours" else wish["interval"]
    tasks = triggers.start(triggers.maker(wish), count, _surprised, spread_s)
    await asyncio.sleep(spread_s + SETTLED_IN_S + count * SETTLED_IN_S_EACH)
    _check(tasks)
    return tasks


async def _stall() -> float:
    """Return for how long one look keeps the loop from anything else, in CPU time: other processes do not matter."""
    (await triggers.watcher()).look_now()
    longest, end = 0.0, time.perf_counter() + STALL_LOOK_S
    while time.perf_counter() < end:
        before = time.thread_time()
        await asyncio.sleep(HEARTBEAT_S)
        longest = max(longest, time.thread_time() - before)
    return longest


def _check(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done():
            raise RuntimeError("a trigger has stopped waiting") from task.exception()


def _surprised(number: int, event: TriggerEvent) -> None:
    raise RuntimeError(f"nothing was settled, but trigger {number} says {event}")


if __name__ == "__main__":
    main()
