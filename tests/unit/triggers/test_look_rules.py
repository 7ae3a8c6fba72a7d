"""The rules behind a watcher, without a network: indices, pace, budget, waiters."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica_provider.api.models import PendingWithdrawal, SettledWithdrawal
from pacifica_provider.api.outcomes import Credits
from pacifica_provider.triggers import pace
from pacifica_provider.triggers.budget import Budget
from pacifica_provider.triggers.pace import Pace
from pacifica_provider.triggers.readings import HistoryIndex, PendingIndex
from pacifica_provider.triggers.search import Search
from pacifica_provider.triggers.waiters import Waiter, Waiters
from pacifica_provider.withdrawals.settlement import Awaited, Settled, Settlement, Waiting, is_pending, looked

if TYPE_CHECKING:
    from collections.abc import Sequence

FEE = Decimal("0.5")
symbols, nonces = st.sampled_from(["SOL", "BTC"]), st.integers(0, 2)
amounts = st.sampled_from([Decimal(text) for text in ("0.5", "1", "1.0", "1.5", "2")])
awaiteds = st.builds(Awaited, symbols, nonces, st.one_of(st.none(), amounts))
settled_rows = st.builds(
    SettledWithdrawal, symbols, amounts, nonces, st.sampled_from([None, "tx1", "tx2"]), st.integers(0, 9)
)
pending_rows = st.builds(PendingWithdrawal, symbols, amounts, amounts, st.just(FEE), nonces, st.integers(0, 9))


@given(awaiteds, st.lists(pending_rows, max_size=8))
def test_the_pending_index_leaves_out_nothing_that_matters(awaited: Awaited, rows: list[PendingWithdrawal]) -> None:
    """Whether it is pending is the same by the index and by the whole list."""
    assert is_pending(awaited, PendingIndex(rows).of(awaited)) == is_pending(awaited, rows)


@given(awaiteds, st.lists(settled_rows, max_size=8), st.sampled_from([None, FEE, Decimal(0)]))
def test_the_history_index_leaves_out_nothing_that_matters(
    awaited: Awaited, rows: list[SettledWithdrawal], fee: Decimal | None
) -> None:
    """What the history says of a withdrawal is the same by the index and by the whole list."""
    index = HistoryIndex()
    for row in rows:
        index.add(row)
    expected, found = shown(awaited, rows, fee), shown(awaited, index.of(awaited, fee), fee)

    assert found == expected or (isinstance(found, Settled) and isinstance(expected, Settled))


@given(
    st.lists(st.tuples(awaiteds, st.integers(1, 3)), min_size=1, max_size=4),
    st.lists(settled_rows, max_size=8),
    st.integers(0, 8),
)
def test_a_search_settles_early_only_what_the_whole_history_settles(
    sought: list[tuple[Awaited, int]], rows: list[SettledWithdrawal], others: int
) -> None:
    """Where as many rows like it exist as were pending at once, reading on could not have changed the answer."""
    waiters = []
    for awaited, _ in sought:
        waiter = Waiter(awaited, interval=1, fee=FEE)
        # Gross or net: as many as the history will ever show, which is what the pending list had shown.
        waiter.twins = sum(shown(awaited, [row], FEE) != shown(awaited, [], FEE) for row in rows)
        waiters.append(waiter)
    settled: list[Waiter] = []
    search = Search(waiters, lambda waiter, _: settled.append(waiter))
    for row in rows:
        if search.file_and_ask(row):
            break

    assert len(settled) == len(set(settled))
    assert set(settled) | set(search.rest()) == set(waiters)
    for waiter in settled:
        assert isinstance(shown(waiter.awaited, rows, FEE), Settled)


def shown(awaited: Awaited, rows: Sequence[SettledWithdrawal], fee: Decimal | None) -> Settlement:
    """Return what the history says of a withdrawal that is not pending."""
    return looked(awaited, Waiting(), (), rows, fee, now_ms=0)


def test_a_look_is_due_after_the_shortest_interval_and_later_with_push() -> None:
    """A healthy socket stretches short intervals to a minute and leaves long ones alone."""
    clock = Pace()
    clock.started(100)

    assert clock.due(30, push=False) == 130
    assert clock.due(30, push=True) == 160
    assert clock.due(90, push=True) == 190
    assert clock.due(0, push=False) == 100 + pace.LEAST_INTERVAL_S


def test_whoever_joins_is_looked_for_soon_but_not_for_each_alone() -> None:
    """The first waits a tenth of a second; the next, within the interval after that look, for the interval to pass."""
    clock = Pace()
    clock.joined(100, 30)
    first = clock.due(30, push=True)
    clock.started(100.1)
    clock.joined(101, 30)

    assert first == pytest.approx(100.1)
    assert clock.due(30, push=True) == pytest.approx(130.1)


def test_a_failure_outranks_a_push_and_doubles() -> None:
    """No push and no newcomer makes it look before the pause is over; a success forgets all failures."""
    clock = Pace()
    clock.started(100)
    first = clock.failed(100, 0.1, None)
    second = clock.failed(100, 0.1, None)
    clock.pushed(100)
    clock.want(100)
    blocked_until = clock.due(0.1, push=False)
    clock.succeeded()

    assert 0.1 <= first <= 0.125
    assert 0.2 <= second <= 0.25
    assert blocked_until == pytest.approx(100 + second)
    assert clock.due(0.1, push=False) <= 100


def test_a_429_is_waited_out_as_it_asks() -> None:
    """The time it names is the least, and five minutes, here shortened, the most."""
    clock = Pace()

    assert 0.3 <= clock.failed(0, 0.05, 0.3) <= 0.375
    assert clock.failed(0, 0.05, 9_999) <= 0.5


def test_a_batch_between_the_lists_is_looked_for_ever_less_often() -> None:
    """After ten minutes every two minutes; a reading that took a minute is repeated after five at the earliest."""
    clock = Pace()
    clock.started(0)
    clock.unseen(10)
    young = clock.due(30, push=True)
    clock.unseen(600)
    old = [clock.history_due(at, 30) for at in (100, 119)]
    clock.last_history = 0
    late = [clock.history_due(at, 30) for at in (100, 119)]
    clock.unseen(1, reading_s=60)

    assert young == 30
    assert old == [True, True]
    assert late == [False, True]
    assert not clock.history_due(200, 30)


def test_the_budget_keeps_a_third_and_waits_for_what_is_missing() -> None:
    """With 100 credits a dear request needs 46 left; what is missing comes back within the minute."""
    now = [0.0]
    budget = Budget(lambda: now[0])
    waits: list[Any] = [budget.wait_s(12)]
    budget.note(Credits(46, 5, 100))
    waits.append(budget.wait_s(12))
    budget.note(Credits(40, 5, 100))
    waits += [budget.wait_s(12), budget.wait_s(1)]
    budget.note(Credits(0, 5, 100))
    waits.append(round(budget.wait_s(12)))
    now[0] = 59
    waits.append(budget.wait_s(12))

    assert waits == [0, 0, 5, 0, 27, 0]


def test_an_answer_without_headers_leaves_the_budget_as_it_was() -> None:
    """What was spent meanwhile is counted."""
    budget = Budget(lambda: 0.0)
    budget.note(Credits(46, 5, 100))
    budget.spend(12)
    budget.note(None)

    assert budget.wait_s(12) > 0


def test_waiters_that_left_early_are_not_kept() -> None:
    """Ten thousand that came and went leave nothing behind."""
    waiters = Waiters()
    stays = Waiter(Awaited("SOL", 1, None), interval=30)
    waiters.add(stays)
    for _ in range(10_000):
        waiter = Waiter(Awaited("SOL", 2, None), interval=1)
        waiters.add(waiter)
        waiters.discard(waiter)
        waiters.discard(waiter)

    assert (list(waiters), waiters.shortest_interval, waiters.awaits(("SOL", 2))) == ([stays], 30, False)
