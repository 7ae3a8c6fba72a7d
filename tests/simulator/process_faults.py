"""Draws what befalls one try."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulator.worker import ProcessFaults

if TYPE_CHECKING:
    from tests.simulator.fault_injector import FaultInjector

# A try in fair weather comes to about as many steps; one that waits and settles to twice as many.
STEPS = 30


def draw_process_faults(injector: FaultInjector) -> ProcessFaults:
    """Return what befalls the next try."""
    profile, rng = injector.profile, injector.rng
    freezes: dict[int | str, int] = {}
    clock_steps: dict[int, int] = {}
    kill_at = rng.randint(1, STEPS) if injector.strikes(profile.kill) else None
    while injector.strikes(profile.freeze):
        freezes[rng.randint(1, STEPS)] = rng.choice(
            (500, 4_000, rng.randint(10_000, 60_000), rng.randint(60_000, 1_200_000))
        )
    if injector.strikes(profile.clock_step):
        clock_steps[rng.randint(1, STEPS)] = rng.choice((-3_000, 3_000, -20_000, 20_000, -120_000, 120_000))
    skew_ms = rng.randint(-4_000, 4_000)
    if injector.strikes(profile.skew_beyond):
        injector.seen["skew of 5 to 6 s"] += 1
        skew_ms = rng.choice((-1, 1)) * rng.randint(5_000, 6_000)
    if injector.strikes(profile.skew_beyond):
        injector.seen["skew beyond"] += 1
        skew_ms = rng.choice((-60_000, -8_000, 8_000, 60_000))
    ledger_down = injector.strikes(profile.ledger_outage)
    if ledger_down:
        injector.seen["ledger down"] += 1
    return ProcessFaults(kill_at, None, freezes, clock_steps, skew_ms, ledger_down)
