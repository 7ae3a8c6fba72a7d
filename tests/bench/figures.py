"""What the bench writes down: figures beside their peers, and goals; nothing in here measures."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Figure:
    """
    One figure of ours beside a peer's, measured in the same run.

    :param what: what was measured.
    :param unit: of both.
    :param ours: the median, unless ``what`` says otherwise.
    :param peer: what it stands beside.
    :param theirs: the peer's figure; ``None`` where it could not be measured, and ``note`` says why.
    :param n: samples of ours.
    """

    what: str
    unit: str
    ours: float
    peer: str
    theirs: float | None
    n: int
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours by theirs."""
        return self.ours / self.theirs if self.theirs else None

    def as_json(self) -> dict[str, Any]:
        """Return it with its ratio."""
        return {**asdict(self), "ratio": self.ratio}


@dataclass(frozen=True)
class Goal:
    """A goal, and what was reached; every goal is a largest value."""

    goal: str
    unit: str
    largest: float
    reached: float

    def as_json(self) -> dict[str, Any]:
        """Return it with the verdict."""
        return {**asdict(self), "met": self.reached <= self.largest}


@dataclass
class Part:
    """What one part of the bench found."""

    figures: list[Figure] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "figures": [figure.as_json() for figure in self.figures],
            "goals": [goal.as_json() for goal in self.goals],
            "notes": self.notes,
        }


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return float(statistics.median(values))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of the values that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
