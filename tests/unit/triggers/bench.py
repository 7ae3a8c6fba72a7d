"""What the tests of the triggers share: triggers on a sandbox, and asyncio without a plugin."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from pacifica_provider.triggers import watcher
from pacifica_provider.triggers.withdrawal import WithdrawalBatchTrigger
from tests.support.patience import until, until_in_loop

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox

CONN_ID = "pacifica_default"
# How often a trigger has its account polled: nothing that takes less was found by the next regular poll.
PACE_S = 60.0


def pay(sandbox: Sandbox, amount: str = "1", symbol: str = "SOL") -> dict[str, Any]:
    """Make a withdrawal and return its receipt."""
    return sandbox.control("POST", "/foreign_withdrawal", {"symbol": symbol, "amount": amount})


def settle(sandbox: Sandbox, **which: object) -> None:
    """Send batches on chain."""
    sandbox.control("POST", "/settle", which)


def options(sandbox: Sandbox, **values: object) -> None:
    """Flip the sandbox's switches."""
    sandbox.control("POST", "/options", values)


def pass_time(sandbox: Sandbox, seconds: float) -> None:
    """Let time pass at the exchange."""
    offset_ms = sandbox.control("GET", "/clock")["offset_ms"]
    sandbox.control("POST", "/clock", {"offset_ms": offset_ms + int(seconds * 1000)})


def web_socket(sandbox: Sandbox, action: str) -> None:
    """Accept, refuse, silence or cut the sandbox's WebSocket."""
    sandbox.control("POST", "/ws", {"action": action})


def requests(sandbox: Sandbox) -> dict[str, int]:
    """Return how many requests each route has had."""
    counts: dict[str, int] = {"pending": 0, "history": 0, "bridge_parameters": 0}
    return {**counts, **sandbox.control("GET", "/ledger")["requests"]}


def sockets(sandbox: Sandbox) -> int:
    """Return how many WebSockets are open."""
    return int(sandbox.control("GET", "/ws")["connections"])


def hung_up(sandbox: Sandbox) -> bool:
    """Wait until every WebSocket is closed."""
    until(lambda: not sockets(sandbox))
    return True


def trigger(receipt: dict[str, Any], *, lasts_s: float = 3600, **kwargs: Any) -> WithdrawalBatchTrigger:
    """Return a trigger that waits for a withdrawal."""
    arguments: dict[str, Any] = {
        "pacifica_conn_id": CONN_ID,
        "symbol": receipt["symbol"],
        "batch_nonce": receipt["batch_nonce"],
        "amount": receipt["requested_amount"],
        "end_time": time.time() + lasts_s,
        "poll_interval": PACE_S,
    }
    return WithdrawalBatchTrigger(**{**arguments, **kwargs})


async def event_of(waiting: WithdrawalBatchTrigger) -> dict[str, Any]:
    """Run a trigger to its end and return its only event."""
    payloads = [event.payload async for event in waiting.run()]
    assert len(payloads) == 1
    return dict(payloads[0])


def start(*triggers: WithdrawalBatchTrigger) -> list[asyncio.Task[dict[str, Any]]]:
    """Run triggers, each in a task of its own, as the triggerer does."""
    return [asyncio.ensure_future(event_of(each)) for each in triggers]


async def connected() -> watcher.Watcher:
    """Wait until a push stands and the look after it is over, and return its watcher."""
    await until_in_loop(lambda: any(each.push_is_healthy and _at_rest(each) for each in watchers()))
    return next(each for each in watchers() if each.push_is_healthy)


def _at_rest(one: watcher.Watcher) -> bool:
    """Say whether nothing is wanted but the regular poll, and the last one has come to its end."""
    asked = one._push.gap or one._schedule._idle_at < float("inf")
    return not asked and all(0 <= one._schedule.last_poll <= case.looked_at for case in one._cases)


def watchers() -> list[watcher.Watcher]:
    """Return the watchers of the running event loop."""
    return list(watcher._watchers.get(asyncio.get_running_loop(), {}).values())


async def alone() -> bool:
    """Wait until nothing is left running but the test itself, and say whether no watcher is left."""
    await until_in_loop(lambda: len(asyncio.all_tasks()) == 1)
    return not watchers()
