"""The credits that many accounts share: the reserve, the row of idle polls, and one transport for all of them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.api.outcomes import Credits
from pacifica_provider.hooks.lookup import settings_of
from pacifica_provider.triggers import rate_limit
from pacifica_provider.triggers.rate_limit import RateLimiter, shared_transport

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox

IDLE_SHARE = rate_limit.IDLE_SHARE  # before the tests are made hasty


class Clock:
    """Monotonic seconds that are set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def limiter(quota: float = 100) -> tuple[RateLimiter, Clock]:
    """Return a limiter and its clock."""
    clock = Clock()
    return RateLimiter(quota, clock), clock


def test_a_third_is_kept_and_what_is_missing_is_waited_for() -> None:
    """With 100 credits a dear request needs 46 left; what was spent comes back within the minute."""
    limits, clock = limiter()
    waits: list[Any] = [limits.wait_s(12)]
    for left in (46, 40, 0):
        limits.note(0, Credits(left, 5, 100))
        waits.append(round(limits.wait_s(12), 1))
    clock.now = 59
    waits.append(round(limits.wait_s(12), 1))
    clock.now = 60
    waits.append(limits.wait_s(12))

    assert waits == [0, 0, 5.3, 27.2, 0, 0]


def test_what_is_under_way_counts_until_it_is_answered() -> None:
    """Requests that are sent together do not find the same credits twice; an answer without headers ends that."""

    async def spend() -> tuple[bool, bool]:
        """Send three, and ask for a fourth before and after their answers."""
        limits, _ = limiter()
        limits.note(0, Credits(70, 60, 100))
        for _ in range(3):
            await limits.spend(12)
        fourth_waits = limits.wait_s(12) > 0
        for _ in range(3):
            limits.note(12, None)
        return fourth_waits, limits.wait_s(12) > 0

    assert asyncio.run(spend()) == (True, False)


@pytest.mark.parametrize("quiet_s", [0, 61])
def test_many_at_once_spend_no_more_than_there_is(quiet_s: float) -> None:
    """Also after a quiet minute, when what the last answer said is long out of date."""

    async def spend() -> int:
        """Let fifty ask, and return how many are sent before one is answered."""
        limits, clock = limiter()
        limits.note(0, Credits(100, 0, 100))
        clock.now = quiet_s
        tasks = [asyncio.ensure_future(limits.spend(12)) for _ in range(50)]
        await asyncio.sleep(0.3)
        sent = sum(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        return sent

    assert asyncio.run(spend()) == 5


def test_a_quota_that_is_too_small_is_asked_all_the_same() -> None:
    """A request that never fits above the reserve waits for a minute, not for ever."""
    limits, clock = limiter(quota=1)
    limits.note(0, Credits(0.5, 30, 1))
    waits = [limits.wait_s(12)]
    clock.now = 61
    waits.append(limits.wait_s(12))

    assert waits == [60, 0]


def test_requests_are_served_in_turn() -> None:
    """A cheap one, for which there would be enough, does not overtake a dear one that waits."""

    async def spend() -> list[str]:
        """Ask for both at once."""
        limits = RateLimiter(100)
        limits.note(0, Credits(45, 0, 100))
        served: list[str] = []

        async def one(name: str, cost: float) -> None:
            """Send one."""
            await limits.spend(cost)
            served.append(name)
            limits.note(cost, Credits(45, 0, 100))

        await asyncio.gather(one("dear", 12), one("cheap", 1))
        return served

    assert asyncio.run(spend()) == ["dear", "cheap"]


@pytest.mark.parametrize("quota", [100, 300])
def test_idle_polls_take_at_most_half_of_the_quota_in_any_minute(monkeypatch: pytest.MonkeyPatch, quota: float) -> None:
    """A thousand accounts that all want to be looked at are, one after the other, those first that came first."""
    monkeypatch.setattr(rate_limit, "IDLE_SHARE", IDLE_SHARE)
    limits, clock = limiter(quota)
    tickets = [limits.ticket(1) for _ in range(1000)]
    begun: list[float] = []
    for ticket in tickets:
        clock.now = max(clock.now, limits.ready_at(ticket))
        begun.append(clock.now)

    assert begun == sorted(begun)
    assert begun[12] == 0
    assert all(after - before >= 60 - 1e-6 for before, after in zip(begun, begun[int(quota / 2) :], strict=False))
    assert begun[-1] == pytest.approx(1000 / (quota * IDLE_SHARE) * 60, rel=0.02)


def test_the_quota_that_an_answer_tells_counts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who wait in the row already come sooner."""
    monkeypatch.setattr(rate_limit, "IDLE_SHARE", IDLE_SHARE)
    limits, _ = limiter()
    *_, last = [limits.ticket(1) for _ in range(113)]
    before = limits.ready_at(last)
    limits.note(0, Credits(900, 0, 1000))

    assert before == pytest.approx(100 / 37 * 60)
    assert limits.ready_at(last) == pytest.approx(before / 10)


def test_one_address_shares_its_credits_and_one_api_key_another(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the accounts and their time limits; all use one client, which the last who leaves closes."""
    given = json.loads(sandbox.airflow_connection)
    extras: dict[str, dict[str, Any]] = {
        "other": {"timeout_s": 7},
        "keyed": {"pf_api_key": sandbox.api_config_key},
    }
    for name, extra in extras.items():
        connection = {**given, "extra": {**given["extra"], **extra}}
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))

    async def lend() -> tuple[bool, bool, bool, bool]:
        """Lend to all of them."""
        one, other, keyed = [await settings_of(name) for name in ("pacifica_default", "other", "keyed")]
        async with shared_transport(one) as first, shared_transport(one) as again:
            async with shared_transport(other) as patient, shared_transport(keyed) as identified:
                told = (
                    first._client is again._client is identified._client,
                    again.limiter is patient.limiter is first.limiter,
                    identified.limiter is first.limiter,
                )
            client = first._client._client
        return (*told, client.is_closed)

    assert asyncio.run(lend()) == (True, True, False, True)
