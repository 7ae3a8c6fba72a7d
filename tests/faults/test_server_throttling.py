"""What the exchange puts off: F23, throttling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pacifica_provider.exceptions import (
    Throttled,
    Unresolved,
)
from tests.faults.checks import assert_paid_once, refused, statuses

if TYPE_CHECKING:
    from tests.support.harness import ProtocolHarness


BUDGET_S = 180


@pytest.mark.parametrize(
    ("headers", "least_s"),
    [
        pytest.param({"retry-after": "3"}, 3, id="retry-after"),
        pytest.param({"retry-after": "0"}, 1, id="at-once"),
        pytest.param({"retry-after": "140"}, 140, id="nearly-the-try-s-time"),
        pytest.param({"ratelimit": '"credits";r=0;t=12'}, 12, id="documented-header"),
        pytest.param({}, 60, id="the-quota's-refresh"),
        pytest.param({"ratelimit": ""}, 5, id="nothing"),
        pytest.param({"retry-after": "Fri, 13 Nov 2026 08:00:00 GMT", "ratelimit": ""}, 5, id="a-date"),
        pytest.param({"retry-after": "nan"}, 5, id="not-a-number"),
        pytest.param({"retry-after": "-7"}, 5, id="negative"),
        pytest.param({"retry-after": "inf"}, 5, id="infinite"),
    ],
)
def test_a_429_is_waited_out_as_told_and_posted_again(
    harness: ProtocolHarness, headers: dict[str, str], least_s: float
) -> None:
    """F23, F95: a 429 is honoured with jitter, at least what it asks for or five seconds, then paid once."""
    harness.fault("status", status=429, headers=headers)

    receipt = harness.try_once()
    waited_s = harness.clock.slept_s
    assert_paid_once(harness, receipt, adopted=False)

    assert least_s <= waited_s <= least_s * 1.25  # a 429 was not processed, so its signature need not expire first
    assert statuses(harness) == [429, 200]


@pytest.mark.parametrize("seconds", ["150", "3600", "86400", "1e9"])
def test_an_absurd_retry_after_holds_no_worker(harness: ProtocolHarness, seconds: str) -> None:
    """F23: longer than a try has, it ends as Throttled, saying how long, and Airflow's own retry comes later."""
    harness.fault("status", status=429, headers={"retry-after": seconds})

    error = refused(harness, Throttled)
    slept_s = harness.clock.slept_s
    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=False)

    assert (error.retry_after_s, error.status, slept_s) == (float(seconds), 429, 0)


@pytest.mark.parametrize("route", ["withdraw", "pending"])
def test_a_429_that_stays_ends_the_try_after_its_time(harness: ProtocolHarness, route: str) -> None:
    """F23, F95: throttled again and again, the try ends as Throttled: nothing of it can have moved money."""
    harness.fault("status", route=route, status=429, headers={"retry-after": "20"}, count=None)

    error = refused(harness, Throttled)

    assert (error.retry_after_s, set(statuses(harness)) <= {429}, harness.debits()) == (20.0, True, [])
    assert BUDGET_S - 25 <= harness.clock.slept_s <= BUDGET_S


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
def test_a_429_after_an_unanswered_request_is_no_throttled(harness: ProtocolHarness, when: str) -> None:
    """F23: Throttled would claim that no money moved, so after a lost answer it is Unresolved instead."""
    harness.fault("reset", when=when)
    harness.fault("status", status=429, headers={"retry-after": "3600"})

    refused(harness, Unresolved)
    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=when == "after_commit")


@pytest.mark.parametrize("route", ["pending", "history", "bridge_parameters"])
def test_a_throttled_look_after_a_lost_answer_is_waited_out(harness: ProtocolHarness, route: str) -> None:
    """F23, F95: a 429 to any read is waited out inside the try, which then finds and adopts its row."""
    harness.fault("reset", when="after_commit")
    harness.fault("status", route=route, status=429, skip=1 if route == "pending" else 0)

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=True)


@pytest.mark.parametrize("route", ["pending", "history", "bridge_parameters"])
def test_a_throttled_look_after_a_lost_answer_is_unresolved(harness: ProtocolHarness, route: str) -> None:
    """F23: a try whose reads stay throttled after a lost answer claims nothing of the money."""
    harness.fault("reset", when="after_commit")
    skip = 1 if route == "pending" else 0
    harness.fault("status", route=route, status=429, headers={"retry-after": "3600"}, skip=skip)

    refused(harness, Unresolved)
    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=True)


def test_the_sandbox_s_own_quota_is_waited_for(harness: ProtocolHarness) -> None:
    """F23, F95: with the documented quota spent, the same try waits until it is there again, and pays."""
    harness.options(enforce_credits=True, quota=2)
    harness.client().pending_withdrawals()
    harness.client().pending_withdrawals()

    receipt = harness.try_once()
    waited_s = harness.clock.slept_s
    harness.options(enforce_credits=False)
    assert_paid_once(harness, receipt, adopted=False)

    assert 50 <= waited_s <= 75


def test_a_quota_that_is_too_small_ends_as_a_throttled_try(harness: ProtocolHarness) -> None:
    """F23: where the quota never lets it through, the try ends as Throttled with nothing sent."""
    harness.options(enforce_credits=True, quota=1)
    harness.client().pending_withdrawals()

    error = refused(harness, Throttled, "A later try is safe")
    harness.options(enforce_credits=False)
    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=False)

    assert 0 < error.retry_after_s <= 60
