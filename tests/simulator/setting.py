"""What the parts of one world share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from random import Random

    from tests.simulator.agenda import Agenda
    from tests.simulator.chronicle import Chronicle
    from tests.simulator.elsewhere import Elsewhere
    from tests.simulator.exchange import SimulatedExchange
    from tests.simulator.weather import Weather


@dataclass(frozen=True, slots=True)
class Setting:
    """Time, luck, the exchange and the history of one world."""

    agenda: Agenda
    rng: Random
    weather: Weather
    exchange: SimulatedExchange
    chronicle: Chronicle
    new_id: Callable[[], str]
    elsewhere: Elsewhere

    @property
    def seen(self) -> Counter[str]:
        """How often each ingredient occurred."""
        return self.chronicle.seen
