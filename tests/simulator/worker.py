"""The process that runs one try: its clock, and the places where it may die, freeze or be put aside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]  # it carries no types

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Mapping
    from random import Random

    from tests.simulator.scheduler import Scheduler


class SimulatedKill(BaseException):
    """SIGKILL: the process is gone, wherever it was."""


@dataclass(frozen=True, slots=True)
class ProcessFaults:
    """
    What befalls one try, counted in steps: ledger calls, requests and failpoints, each before and after it happens.

    ``freezes`` maps a step, or a place when it is first come to, to how long the process stands still there;
    ``clock_steps`` maps a step to how far its clock jumps.
    """

    kill_at: int | None = None
    kill_where: str | None = None
    freezes: Mapping[int | str, int] = field(default_factory=dict)
    clock_steps: dict[int, int] = field(default_factory=dict)
    skew_ms: int = 0
    ledger_down: bool = False


@dataclass(slots=True)
class Worker:
    """One process. ``frozen`` is called with how long it will stand still, so that Airflow may miss its heartbeat."""

    scheduler: Scheduler
    rng: Random
    process_faults: ProcessFaults
    attempt: int
    seen: Counter[str]
    tell: Callable[[str], None]
    frozen: Callable[[int], None]
    steps: int = 0
    ledger_faults: int = 0
    offset_ms: int = 0
    _freezes: dict[int | str, int] = field(init=False)

    def __post_init__(self) -> None:
        self._freezes = dict(self.process_faults.freezes)

    def step(self, where: str) -> None:
        """Come to a place where the process may die or stand still."""
        self.steps += 1
        process_faults = self.process_faults
        if self.steps in process_faults.clock_steps:
            self.seen["clock stepped"] += 1
            self.offset_ms += process_faults.clock_steps[self.steps]
        duration_ms = self._freezes.pop(self.steps, 0) or self._freezes.pop(where, 0)
        if duration_ms:
            self.seen[f"frozen at {where}"] += 1
            self.tell(f"frozen at {where} for {duration_ms / 1000:g} s")
            self.frozen(duration_ms)
            self.scheduler.wait(duration_ms)
        if self.steps == process_faults.kill_at or where == process_faults.kill_where:
            self.seen[f"killed at {where}"] += 1
            self.tell(f"killed at {where}")
            raise SimulatedKill

    def now_ms(self) -> int:
        """Return the time as this worker's clock has it."""
        return self.scheduler.now_ms + self.process_faults.skew_ms + self.offset_ms

    def sleep_s(self, seconds: float) -> None:
        """Sleep."""
        self.scheduler.wait(seconds * 1000)

    def work(self, job: Callable[[], None]) -> None:
        """Run the job as this process; a kill ends it without a word."""
        _Process.current()[getcurrent()] = self
        try:
            job()
        except SimulatedKill:
            pass
        finally:
            del _Process.current()[getcurrent()]


class _Process:
    """Which worker runs in which greenlet."""

    _workers: dict[greenlet, Worker] = {}  # noqa: RUF012 - one process-wide table, as the failpoints are

    @classmethod
    def current(cls) -> dict[greenlet, Worker]:
        return cls._workers


def at_failpoint(point: str) -> None:
    """Handle ``failpoints.reach`` for whichever simulated process reached it."""
    _Process.current()[getcurrent()].step(point)
