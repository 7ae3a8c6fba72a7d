"""What the tests of the triggers share: triggers on a sandbox, and asyncio without a plugin."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from pacifica_provider.triggers import watcher
from pacifica_provider.triggers.withdrawal import WithdrawalBatchTrigger

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacifica_provider.sandbox import Sandbox

CONN_ID = "pacifica_default"


def pay(sandbox: Sandbox, amount: str = "1", symbol: str = "SOL") -> dict[str, Any]:
    """Make a withdrawal and return its receipt."""
    return sandbox.control("POST", "/foreign_withdrawal", {"symbol": symbol, "amount": amount})


def settle(sandbox: Sandbox, **which: object) -> None:
    """Send batches on chain."""
    sandbox.control("POST", "/settle", which)


def options(sandbox: Sandbox, **values: object) -> None:
    """Flip the sandbox's switches."""
    sandbox.control("POST", "/options", values)


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
    """Say whether every WebSocket is closed, or will be in a moment."""
    deadline = time.monotonic() + 2
    while sockets(sandbox) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not sockets(sandbox)


def trigger(receipt: dict[str, Any], *, lasts_s: float = 60, **kwargs: Any) -> WithdrawalBatchTrigger:
    """Return a trigger that waits for a withdrawal."""
    arguments: dict[str, Any] = {
        "pacifica_conn_id": CONN_ID,
        "symbol": receipt["symbol"],
        "batch_nonce": receipt["batch_nonce"],
        "amount": receipt["requested_amount"],
        "end_time": time.time() + lasts_s,
        "poll_interval": 30,
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


async def until(holds: Callable[[], object], *, within_s: float = 5) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "did not come to hold"
        await asyncio.sleep(0.01)


async def connected(sandbox: Sandbox) -> watcher.Watcher:
    """Wait until the push stands and the look after it is over, and return the watcher."""
    await until(lambda: any(each.push_is_healthy for each in watchers()))
    before = requests(sandbox)["pending"]
    await asyncio.sleep(0.1)
    await until(lambda: requests(sandbox)["pending"] >= before)
    return watchers()[0]


def watchers() -> list[watcher.Watcher]:
    """Return the watchers of the running event loop."""
    return list(watcher._watchers.get(asyncio.get_running_loop(), {}).values())


async def alone() -> bool:
    """Say whether nothing is left running but the test itself."""
    deadline = time.monotonic() + 3
    while len(asyncio.all_tasks()) > 1:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return not watchers()
