"""When the lists are polled next, and what is logged where that fails."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import pytest

from pacifica_provider.exceptions import ConfigurationError, Throttled, Unreachable
from pacifica_provider.triggers import rate_limit, schedule
from pacifica_provider.triggers.rate_limit import RateLimiter
from pacifica_provider.triggers.schedule import PollSchedule

if TYPE_CHECKING:
    from pacifica_provider.exceptions import PacificaError

AWAY = Unreachable("away")


def polled(at: float = 100.0) -> PollSchedule:
    """Return a schedule that has just polled, and polls once a minute while push is healthy."""
    made = PollSchedule("acct", 60)
    made.started(at)
    return made


def pause_s(made: PollSchedule, now: float, interval: float, error: PacificaError) -> float:
    """Let a poll fail, and return for how long nothing is due."""
    made.failed(now, interval, error)
    return made.blocked_until - now


def test_a_poll_is_due_after_the_shortest_interval_and_later_with_push() -> None:
    """A healthy socket stretches short intervals to a minute and leaves long ones alone; nothing of it is urgent."""
    made = polled()

    assert made.idle_at(30, push=False) == 130
    assert made.idle_at(30, push=True) == 160
    assert made.idle_at(90, push=True) == 190
    assert made.idle_at(0, push=False) == 100 + schedule.LEAST_INTERVAL_S
    assert made.urgent_at(30) == float("inf")


def test_whoever_joins_is_looked_for_soon_but_not_for_each_alone() -> None:
    """The first waits a tenth of a second; the next, within the interval after that poll, for the interval to pass."""
    made = PollSchedule("acct", 60)
    assert made.idle_at(30, push=True) == float("inf")
    made.joined(100, 30)
    first = made.idle_at(30, push=True)
    made.started(100.1)
    made.joined(101, 30)

    assert first == pytest.approx(100.1)
    assert made.idle_at(30, push=True) == pytest.approx(130.1)


def test_a_failure_outranks_a_push_and_doubles() -> None:
    """No push and no newcomer makes it poll before the pause is over; a success forgets all failures."""
    made = polled()
    first, second = (pause_s(made, 100, 0.1, AWAY) for _ in range(2))
    made.pushed(100)
    made.want(100)
    made.want(100, urgent=True)
    blocked = [made.idle_at(0.1, push=False), made.urgent_at(0.1)]
    made.succeeded()

    assert 0.1 <= first <= 0.125
    assert 0.2 <= second <= 0.25
    assert blocked == [pytest.approx(100 + second)] * 2
    assert made.idle_at(0.1, push=False) == made.urgent_at(0.1) == 100


def test_a_429_is_waited_out_as_it_asks() -> None:
    """The time it names is the least, and five minutes, here shortened, the most."""
    asks = [Throttled("slower", retry_after_s=seconds) for seconds in (0.3, 9_999)]

    assert 0.3 <= pause_s(polled(), 0, 0.05, asks[0]) <= 0.375
    assert pause_s(polled(), 0, 0.05, asks[1]) <= 0.5


def test_a_batch_between_the_lists_is_looked_for_ever_less_often() -> None:
    """After ten minutes every two minutes; a reading that took a minute is repeated after five at the earliest."""
    made = polled(0)
    made.unseen(10)
    young = made.urgent_at(30)
    made.unseen(600)
    old = [made.history_due(at, 30) for at in (100, 119)]
    made.last_history = 0
    late = [made.history_due(at, 30) for at in (100, 119)]
    made.unseen(1, reading_s=60)

    assert young == 30
    assert old == [True, True]
    assert late == [False, True]
    assert not made.history_due(200, 30)
    made.unseen(None)
    assert made.urgent_at(30) == float("inf")


def test_a_push_is_followed_up_until_it_is_dealt_with() -> None:
    """The lists may lag behind it by seconds."""
    made = polled()
    made.pushed(100)
    due = []
    while made.following:
        due.append(round(made.urgent_at(30) - 100, 2))
        made.started(made.urgent_at(30))
    made.pushed(200)
    made.done_following()

    assert due == [0.02, 0.2, 0.5, 1, 2, 4]
    assert made.urgent_at(30) == float("inf")


def test_trouble_is_logged_when_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    """Not at each poll; and a connection is to be read again only after minutes of nothing but refusals."""
    caplog.set_level(logging.INFO, schedule.__name__)
    made, refused = polled(), ConfigurationError("no", status=403)
    read_again = [made.failed(now, 1, error) for error, now in ((AWAY, 0), (AWAY, 1), (refused, 2))]
    read_again += [made.failed(301, 1, refused), made.failed(302, 1, AWAY)]
    read_again += [made.failed(303, 1, refused), made.failed(603, 1, refused)]
    made.succeeded()
    made.succeeded()

    assert read_again == [False, False, False, False, False, False, True]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 4 + ["INFO"]


def test_an_idle_poll_takes_its_turn_and_an_urgent_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a thousand others it waits for minutes, keeps its place, and gives it up when it has polled."""
    monkeypatch.setattr(rate_limit, "IDLE_SHARE", 0.37)
    limiter = RateLimiter(100)
    for _ in range(1000):
        limiter.ticket(1)
    made, now = polled(0), time.monotonic()
    turns = [made.due(30, limiter, 1, push=True) - now for _ in range(2)]
    made.want(0, urgent=True)
    urgent = made.due(30, limiter, 1, push=True)
    made.started(0)

    assert turns == [pytest.approx(988 / 37 * 60, abs=1)] * 2
    assert urgent <= now
    assert made.due(30, limiter, 1, push=True) - now > turns[0] + 1
