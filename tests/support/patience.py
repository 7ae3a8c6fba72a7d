"""
Waiting in tests: for a fact, never for as long as a machine is thought to take.

``PATIENCE_S`` ends a test whose fact never comes. A limit that tells one design from another ("by the push, not by the
poll a minute later") is a fraction of what the other design would take, and many times what this one does.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 120.0


def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "did not come to hold"
        time.sleep(0.005)


async def until_in_loop(holds: Callable[[], object]) -> None:
    """Wait until something holds, and let the event loop run meanwhile."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "did not come to hold"
        await asyncio.sleep(0.01)
