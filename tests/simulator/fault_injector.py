"""What goes wrong next: one source of bad luck for a whole world, which can be switched off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections import Counter
    from random import Random

    from tests.simulator.profiles import Profile

PostFault = Literal[
    "lost before commit",
    "lost after commit",
    "lands late",
    "held inside",
    "5xx before commit",
    "5xx after commit",
    "429",
    "odd echo before commit",
    "odd echo after commit",
    "refused",
    "replayed",
    "delivered twice",
]
POST_FAULTS: tuple[PostFault, ...] = get_args(PostFault)
# How often each, among faults; the losses and the late ones are what the protocol is about.
_WEIGHTS = (14, 26, 16, 8, 8, 8, 8, 3, 4, 3, 2, 3)


@dataclass(slots=True)
class FaultInjector:
    """Draws faults; ``fair`` ends them all."""

    profile: Profile
    rng: Random
    seen: Counter[str]
    fair: bool = False

    def strikes(self, probability: float) -> bool:
        """Whether something of this probability happens now."""
        return not self.fair and self.rng.random() < probability

    def post_fault(self) -> PostFault | None:
        """Draw what happens to a POST."""
        if not self.strikes(self.profile.post_trouble):
            return None
        fault: PostFault = self.rng.choices(POST_FAULTS, _WEIGHTS)[0]
        self.seen[f"POST {fault}"] += 1
        return fault
