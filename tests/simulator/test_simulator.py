"""The promise, in thousands of simulated worlds."""

from __future__ import annotations

import json
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pacifica_provider.withdrawals import failpoints
from tests.simulator import Totals, run_worlds, simulate
from tests.simulator.fault_injector import POST_FAULTS
from tests.simulator.history import LOST
from tests.simulator.world import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

WORLDS = 1000
REGRESSIONS = json.loads(Path(__file__).with_name("regressions.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def batch() -> Iterator[dict[str, Totals]]:
    """Run the worlds of both profiles once, on two cores."""
    halves = [range(WORLDS // 2), range(WORLDS // 2, WORLDS)]
    with get_context("spawn").Pool(2) as pool:
        totals = {}
        for profile in ("mild", "harsh"):
            totals[profile], other = pool.map(partial(run_worlds, profile=profile), halves)
            totals[profile].merge(other)
        yield totals


@pytest.mark.parametrize("profile", ["mild", "harsh"])
def test_no_world_breaks_the_promise(batch: dict[str, Totals], profile: str) -> None:
    """I1 to I6 and I8 hold in every world; the admitted cases are counted apart (F03, F15, F36, F41, F47, F55, F83)."""
    totals = batch[profile]

    assert totals.failing == []
    assert totals.worlds == WORLDS
    assert (totals.double_payments, totals.false_receipts, totals.false_nothing_moved, totals.stuck) == (0, 0, 0, 0)


def test_most_mild_worlds_pay(batch: dict[str, Totals]) -> None:
    """A protocol that never pays breaks no promise, so liveness is counted: nine of ten identities are paid."""
    totals = batch["mild"]

    assert totals.debits >= 0.9 * totals.identities
    assert totals.successes >= 0.85 * totals.identities


def test_few_mild_worlds_ask_a_person(batch: dict[str, Totals]) -> None:
    """A protocol that always asks breaks no promise either: about one identity in a hundred does (F96, F97)."""
    totals = batch["mild"]

    assert totals.asked <= 0.015 * totals.identities


INGREDIENTS = [
    *(f"POST {fault}" for fault in POST_FAULTS),
    *(
        f"killed at {point}"
        for point in (*failpoints.POINTS, "set withdrawal, unanswered", "POST, nothing answered", "returned")
    ),
    *(f"frozen at {point}" for point in ("before_post", "after_post", "set withdrawal", "POST, nothing sent")),
    *(f"person: {decision}" for decision in ("adopt, rightly", "adopt, wrongly", "repost, rightly", "repost, wrongly")),
    "person: void, rightly",
    "person: late",
    "decision malformed",
    "409 while in progress",
    "422 after a commit",
    "422 insufficient balance, before the key was looked at",
    "422 refused",
    "422 refused the second time",
    "GET failed",
    "GET throttled",
    "all cleared weeks later",
    "answered 409",
    "bridge gone",
    "burned key",
    "cleared",
    "cleared beside",
    "clock stepped",
    "duplicate reference",
    "entry deleted by hand",
    "expiry checked at arrival",
    "failed before the withdrawal",
    "fee changed",
    "fenced ledger",
    "fenced off",
    "foreign withdrawal",
    "foreign withdrawal in the window",
    "guard refused",
    "history gross",
    "history net",
    "history shows settlement time",
    "keys forgotten",
    "keys forgotten early",
    "keys kept for ever",
    "ledger begins",
    "ledger down",
    "ledger failed",
    "ledger without a fence",
    *(f"ledger: {mark}" for mark in sorted(LOST)),
    *(kind.name for kind in KINDS),
    "list lag",
    "list lag beyond the bound",
    "mapping grown",
    "mapping re-ordered",
    "nonces global",
    "nonces per asset",
    "order drifted",
    "reference drifted",
    "replaced while running",
    "run recreated",
    "settle gap",
    "shared batch",
    "signed for another time",
    "skew beyond",
    "skew of 5 to 6 s",
    "tries overlap",
    "two deployments",
    "two runs of equal amounts",
    "window of 1 s",
    "window of 30 s",
    "window of 200 s",
    "write lost",
    "zombie ended",
]


@pytest.mark.parametrize("ingredient", INGREDIENTS)
def test_every_ingredient_occurs(batch: dict[str, Totals], ingredient: str) -> None:
    """A fault that is never drawn proves nothing."""
    assert batch["harsh"].seen[ingredient] > 0


def test_mild_tagged_worlds_hold_the_promise_and_ask_less() -> None:
    """Tags break nothing, and spare at least half of the questions about a lost answer or record (F03, F55)."""
    tagged, untagged = (run_worlds(range(300), "mild", tagged=which) for which in (True, False))

    assert (tagged.failing, untagged.failing) == ([], [])
    assert tagged.seen["tagged operator"] + tagged.seen["tagged mapped operator"] == tagged.worlds == 300
    assert tagged.seen["foreign withdrawal, tagged"] > 0
    assert 2 * (tagged.asked + tagged.asked_as_forgotten) <= untagged.asked + untagged.asked_as_forgotten
    assert tagged.debits >= 0.9 * tagged.identities


def test_the_same_seed_is_the_same_world() -> None:
    """A failing seed can be run again: nothing but the seed decides."""
    assert simulate(11, "harsh", trace=True) == simulate(11, "harsh", trace=True)
    assert simulate(11, "harsh").trace != simulate(12, "harsh", trace=True).trace


@pytest.mark.parametrize("case", REGRESSIONS, ids=lambda case: f"{case['profile']}-{case['seed']}")
def test_a_seed_that_once_failed_holds(case: dict[str, str | int]) -> None:
    """Every schedule that once broke the protocol is run for ever; what is admitted is recognised as such."""
    report = simulate(int(case["seed"]), str(case["profile"]))

    assert report.violations == ()
    if "admitted" in case:
        assert str(case["admitted"]) in report.admitted
