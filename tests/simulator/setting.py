"""What the parts of one world share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from random import Random

    from tests.simulator.elsewhere import Elsewhere
    from tests.simulator.exchange import SimulatedExchange
    from tests.simulator.fault_injector import FaultInjector
    from tests.simulator.history import History
    from tests.simulator.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class Setting:
    """Time, luck, the exchange and the history of one world."""

    scheduler: Scheduler
    rng: Random
    injector: FaultInjector
    exchange: SimulatedExchange
    history: History
    new_id: Callable[[], str]
    elsewhere: Elsewhere

    @property
    def seen(self) -> Counter[str]:
        """How often each ingredient occurred."""
        return self.history.seen
