"""How rough a world is: how often each thing goes wrong. Probabilities are per call, per try or per world, as named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulator.exchange import Habits

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
    store_trouble: float  # a store call
    store_outage: float  # a try
    write_lost: float  # a world: one write is acknowledged and lost
    kill: float  # a try
    freeze: float  # a try
    overlap: float  # a try: Airflow starts the next one beside it
    skew_beyond: float  # a try
    clock_step: float  # a try
    drift: float  # a try
    guard: float  # a try
    clear: float  # an ended task, again and again
    wipe: float  # a clear
    foreign_in_window: float  # a POST
    foreign: float  # a world
    person: float  # an unknown, or a failure that may have moved money
    person_wrong: float  # a decision
    strange_exchange: float  # a world: habits beyond what is promised for
    refusing: float  # a world
    poor: float  # a world: balance for little more than one


MILD = Profile(
    name="mild",
    post_trouble=0.01,
    get_trouble=0.01,
    store_trouble=0.003,
    store_outage=0.003,
    write_lost=0.003,
    kill=0.01,
    freeze=0.005,
    overlap=0.005,
    skew_beyond=0.003,
    clock_step=0.003,
    drift=0.01,
    guard=0.003,
    clear=0.1,
    wipe=0.1,
    foreign_in_window=0.01,
    foreign=0.1,
    person=0.9,
    person_wrong=0.02,
    strange_exchange=0.005,
    refusing=0.01,
    poor=0.02,
)
HARSH = Profile(
    name="harsh",
    post_trouble=0.6,
    get_trouble=0.12,
    store_trouble=0.03,
    store_outage=0.05,
    write_lost=0.05,
    kill=0.3,
    freeze=0.25,
    overlap=0.08,
    skew_beyond=0.04,
    clock_step=0.05,
    drift=0.06,
    guard=0.02,
    clear=0.55,
    wipe=0.3,
    foreign_in_window=0.06,
    foreign=0.4,
    person=0.7,
    person_wrong=0.2,
    strange_exchange=0.06,
    refusing=0.08,
    poor=0.15,
)
PROFILES = {profile.name: profile for profile in (MILD, HARSH)}


def draw_habits(rng: Random, profile: Profile) -> Habits:
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
    return Habits(
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
