"""How rough a world is: how often each thing goes wrong. Probabilities are per call, per try or per world, as named."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tests.simulator.exchange import ExchangeOptions

if TYPE_CHECKING:
    from random import Random

MINUTE = 60_000
HOUR = 60 * MINUTE


@dataclass(frozen=True, slots=True)
class Profile:
    """One way to be unlucky."""

    name: str
    post_trouble: float  # a POST
    get_trouble: float  # a GET
    ledger_trouble: float  # a ledger call
    ledger_outage: float  # a try
    write_lost: float  # a world: one write is acknowledged and lost
    entry_deleted: float  # a world: one entry is deleted by hand
    restore: float  # a world: its database comes back from a backup
    restore_unsaid: float  # a restore, of which nothing is said
    two_deployments: float  # a world
    prune: float  # a world that is cleared weeks later
    unborn: float  # a world: the ledger begins with it
    kill: float  # a try
    freeze: float  # a try
    overlap: float  # a try: Airflow starts the next one beside it
    skew_beyond: float  # a try
    clock_step: float  # a try
    drift: float  # a try: the amount renders to another
    reference_drift: float  # a try: the reference renders to another
    guard: float  # a try
    early: float  # a try: it fails before it comes to the withdrawal
    clear: float  # an ended task, again and again
    clear_beside: float  # a run: another of its tasks is cleared
    recreate: float  # a clear: the run is deleted and made again instead
    duplicate_reference: float  # a mapped run: two of its references are equal
    foreign_in_window: float  # a POST
    foreign: float  # a world
    person: float  # an unknown, or a failure that may have moved money
    person_wrong: float  # a decision
    person_late: float  # a decision: taken on what the next tries change
    fee_change: float  # a world
    bridge_gone: float  # a world
    odd_window: float  # a world: signatures live for a second, half a minute, or longer than they should
    hasty: float  # an end of a try: the delay until the next is not the operator's
    strange_exchange: float  # a world: options beyond what is promised for
    refusing: float  # a world
    poor: float  # a world: balance for little more than one
    equal_tags: bool = False  # whoever else tags amounts has our tags, which happens once in 9,999 times


MILD = Profile(
    name="mild",
    post_trouble=0.01,
    get_trouble=0.01,
    ledger_trouble=0.003,
    ledger_outage=0.003,
    write_lost=0.003,
    entry_deleted=0.001,
    restore=0.01,
    restore_unsaid=0.1,
    two_deployments=0.002,
    prune=0.3,
    unborn=0.02,
    kill=0.01,
    freeze=0.005,
    overlap=0.005,
    skew_beyond=0.003,
    clock_step=0.003,
    drift=0.005,
    reference_drift=0.002,
    guard=0.003,
    early=0.01,
    clear=0.1,
    clear_beside=0.1,
    recreate=0.04,
    duplicate_reference=0.005,
    foreign_in_window=0.01,
    foreign=0.1,
    person=0.9,
    person_wrong=0.02,
    person_late=0.05,
    fee_change=0.02,
    bridge_gone=0.01,
    odd_window=0.03,
    hasty=0.05,
    strange_exchange=0.005,
    refusing=0.01,
    poor=0.02,
)
HARSH = Profile(
    name="harsh",
    post_trouble=0.6,
    get_trouble=0.12,
    ledger_trouble=0.03,
    ledger_outage=0.05,
    write_lost=0.05,
    entry_deleted=0.03,
    restore=0.25,
    restore_unsaid=0.3,
    two_deployments=0.05,
    prune=0.5,
    unborn=0.3,
    kill=0.3,
    freeze=0.25,
    overlap=0.08,
    skew_beyond=0.04,
    clock_step=0.05,
    drift=0.06,
    reference_drift=0.04,
    guard=0.02,
    early=0.05,
    clear=0.55,
    clear_beside=0.2,
    recreate=0.1,
    duplicate_reference=0.05,
    foreign_in_window=0.06,
    foreign=0.4,
    person=0.7,
    person_wrong=0.2,
    person_late=0.3,
    fee_change=0.15,
    bridge_gone=0.08,
    odd_window=0.3,
    hasty=0.6,
    strange_exchange=0.06,
    refusing=0.08,
    poor=0.15,
)
PROFILES = {
    "mild": MILD,
    "harsh": HARSH,
    # The same worlds, but for the tags.
    "mild-equal-tags": replace(MILD, equal_tags=True),
    "harsh-equal-tags": replace(HARSH, equal_tags=True),
}


def draw_window_ms(rng: Random, unlucky: bool) -> int:
    """Return how long signatures live in a world: ten seconds, unless somebody has set something else."""
    return rng.choice((1_000, 30_000, 200_000)) if unlucky else 10_000


def draw_habits(rng: Random, profile: Profile) -> ExchangeOptions:
    """Return what the exchange of one world is like; within the promise unless the profile's luck says otherwise."""

    def coin(probability: float = 0.5) -> bool:
        return rng.random() < probability

    lag_ms = rng.choice((0, 0, 2_000, 15_000, 30_000))
    retention_ms = rng.choice((None, 10 * MINUTE, rng.randint(10 * MINUTE, HOUR), 24 * HOUR))
    gap_ms = rng.choice((0, 0, 0, 10_000))
    if coin(profile.strange_exchange):
        lag_ms = rng.randint(30_000, 10 * MINUTE)
    if coin(profile.strange_exchange):
        retention_ms = rng.randint(MINUTE, 10 * MINUTE - 1)
    if coin(profile.strange_exchange):
        gap_ms = rng.randint(10_000, 20 * MINUTE)
    return ExchangeOptions(
        burns_keys=coin(),
        conflict_in_progress=coin(),
        balance_before_key=coin(),
        expiry_at_arrival=coin(0.3),
        shared_batches=coin(),
        global_nonces=coin(),
        history_gross=coin(),
        history_shows_settlement_time=coin(),
        list_lag_ms=lag_ms,
        settle_gap_ms=gap_ms,
        settle_ms=rng.choice(((1_000, 20_000), (10_000, 10 * MINUTE), (MINUTE, 6 * HOUR))),
        key_retention_ms=retention_ms,
        future_tolerance_ms=rng.choice((None, 5_000, 30_000)),
    )
