"""
In the child: triggers wait, and each event is told at once, with the milliseconds since the exchange settled it.

Started with ``{"exchange", "account", "kind": "ours" or "peer", "interval"}``. It says when all are waiting, and ends
with the last event.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from tests.bench import triggers
from tests.bench.child import Parent

if TYPE_CHECKING:
    from airflow.triggers.base import TriggerEvent

SETTLED_IN_S = 3.0


def main() -> None:
    """Run it."""
    parent = Parent()
    asyncio.run(_listen(parent, parent.wish))


async def _listen(parent: Parent, wish: dict[str, Any]) -> None:
    triggers.load(wish["exchange"], wish["account"])

    def heard(number: int, event: TriggerEvent) -> None:
        if event.payload["status"] != "settled":
            raise RuntimeError(f"trigger {number} says {event}")
        # Who settles is on this machine: one clock, to the millisecond.
        parent.say({"number": number, "heard_ms": time.time_ns() / 1e6})

    spread_s = 0.0 if wish["kind"] == "ours" else wish["interval"]
    tasks = triggers.start(triggers.maker(wish), len(wish["account"]["nonces"]), heard, spread_s)
    await asyncio.sleep(spread_s + SETTLED_IN_S)
    parent.say({"waiting": len(tasks)})
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    main()
