"""What a poll or a push means for those who wait, without a network: filing, searching, settling by a push."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica_provider.api.models import PendingWithdrawal, SettledWithdrawal
from pacifica_provider.triggers.poll import Case, Cases, Search, filed, history_since_ms, is_queued
from pacifica_provider.withdrawals.settlement import (
    Awaited,
    Confirmation,
    Settled,
    Settlement,
    Waiting,
    is_pending,
    looked,
)

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
def test_filing_the_pending_list_leaves_out_nothing_that_matters(
    awaited: Awaited, rows: list[PendingWithdrawal]
) -> None:
    """Whether it is pending is the same by what is filed and by the whole list; what its rows show is remembered."""
    case = Case(awaited, None, None)

    assert is_queued(case, filed(rows)) == is_pending(awaited, rows)
    like_it = [row for row in rows if is_pending(awaited, [row])]
    assert case.equal_rows == len(like_it)
    assert case.since_ms == min((row.created_at_ms for row in like_it), default=None)


@given(awaiteds, st.lists(settled_rows, max_size=8), st.sampled_from([None, FEE, Decimal(0)]))
def test_filing_the_history_leaves_out_nothing_that_matters(
    awaited: Awaited, rows: list[SettledWithdrawal], fee: Decimal | None
) -> None:
    """What the history says of a withdrawal is the same by what is filed and by the whole list."""
    case = Case(awaited, fee, None)
    search = Search([case])
    early = search.take(rows, now_ms=0)
    ended = list(search.rest({}, now_ms=0))

    assert early == []
    assert not search.is_over
    expected = shown(awaited, rows, fee)
    if isinstance(expected, Settled):
        assert [(each, type(seen)) for each, seen in ended] == [(case, Settled)]
    else:
        assert (ended, case.waiting) == ([], expected)


@given(
    st.lists(awaiteds, min_size=1, max_size=4, unique=True),
    st.lists(settled_rows, max_size=8),
)
def test_a_search_settles_early_only_what_the_whole_history_settles(
    sought: list[Awaited], rows: list[SettledWithdrawal]
) -> None:
    """Where as many rows like it exist as were pending at once, reading on could not have changed the answer."""
    cases = [Case(awaited, FEE, None) for awaited in sought]
    for case in cases:
        # Gross or net: as many as the history will ever show, which is what the pending list had shown.
        case.equal_rows = sum(shown(case.awaited, [row], FEE) != shown(case.awaited, [], FEE) for row in rows)
    search = Search(cases)
    settled: list[Case] = []
    for row in rows:
        settled += [case for case, _ in search.take([row], now_ms=0)]
        if search.is_over:
            break
    rest = [case for case, _ in search.rest({}, now_ms=0)]

    assert len(settled) == len(set(settled))
    assert not set(settled) & set(rest)
    for case in settled:
        assert isinstance(shown(case.awaited, rows, FEE), Settled)
    if search.is_over:
        assert set(settled) == set(cases)


def shown(awaited: Awaited, rows: Sequence[SettledWithdrawal], fee: Decimal | None) -> Settlement:
    """Return what the history says of a withdrawal that is not pending."""
    return looked(awaited, Waiting(), (), rows, fee, now_ms=0)


def test_the_fee_is_asked_for_only_where_it_decides() -> None:
    """Rows of the batch are there, none shows the gross amount, and nothing has told the fee."""
    net = SettledWithdrawal("SOL", Decimal("0.9"), 1, "tx", 0)
    gross = SettledWithdrawal("BTC", Decimal(1), 1, "tx", 0)
    asked: dict[str, Any] = {
        "net rows": Case(Awaited("SOL", 1, Decimal(1)), None, None),
        "a receipt": Case(Awaited("SOL", 1, Decimal(2)), FEE, None),
        "gross row": Case(Awaited("BTC", 1, Decimal(1)), None, None),
        "no row": Case(Awaited("ETH", 1, Decimal(1)), None, None),
        "any amount": Case(Awaited("SOL", 1), None, None),
    }
    needed = {}
    for name, case in asked.items():
        search = Search([case])
        search.take([net, gross], now_ms=0)
        needed[name] = search.fees_needed()

    assert needed == {**{key: set() for key in asked}, "net rows": {"SOL"}}


@pytest.mark.parametrize(("known", "since_ms"), [((5, 3), 1), ((5, None), None), ((None,), None)])
def test_the_history_is_read_back_to_the_oldest_or_to_its_beginning(
    known: tuple[int | None, ...], since_ms: int | None
) -> None:
    """Where the time of one is not known, all of it is read."""
    gone = [Case(Awaited("SOL", nonce), None, since) for nonce, since in enumerate(known)]

    assert history_since_ms(gone, 2) == since_ms


PUSH = Confirmation("SOL", 7, Decimal(1), Decimal("0.5"), FEE, "5x")


def joined(
    cases: Cases, *, fee: Decimal | None = FEE, since_ms: int | None = 3, waits: int = 1, equal: int = 0
) -> Case:
    """Let so many wait for the withdrawal of the push, of which so many rows were seen pending."""
    case = cases.join(PUSH.awaited, fee, since_ms)
    case.waits.update({object(): None for _ in range(waits)})  # type: ignore[misc]  # whom to wake is not asked here
    case.equal_rows = equal
    return case


def test_a_push_settles_the_one_that_it_names() -> None:
    """By its receipt alone, or by the pending list, which then tells how many may be meant."""
    for waits, equal in ((1, 0), (1, 1), (5, 1)):
        cases = Cases()
        case = joined(cases, waits=waits, equal=equal)
        ((settled, proof),), doubt = cases.told(("SOL", 7), PUSH)

        assert (settled, doubt) == (case, False)
        assert proof == Settled(SettledWithdrawal("SOL", Decimal("0.5"), 7, "5x", 3))


@pytest.mark.parametrize(
    "doubt",
    [
        {"fee": None},
        {"fee": Decimal("0.4")},
        {"since_ms": None},
        {"waits": 2},
        {"equal": 2},
    ],
)
def test_a_push_that_may_mean_another_settles_nobody(doubt: dict[str, Any]) -> None:
    """The fee is not known or another; it is not known when it was made; two wait, or two were pending (F77)."""
    cases = Cases()
    joined(cases, **doubt)

    assert cases.told(("SOL", 7), PUSH) == ([], True)


@pytest.mark.parametrize(
    ("batch", "push", "left"),
    [
        (None, None, True),
        (("SOL", 7), None, True),
        (("SOL", 8), None, False),
        (("SOL", 7), replace(PUSH, requested_amount=Decimal(2)), True),
        (("SOL", 8), replace(PUSH, batch_nonce=8), False),
    ],
)
def test_a_push_that_proves_nothing_is_a_hint_to_whom_it_may_concern(
    batch: Any, push: Confirmation | None, *, left: bool
) -> None:
    """One without a batch to all, any other to whoever waits for its batch."""
    cases = Cases()
    joined(cases)

    assert cases.told(batch, push) == ([], left)


def test_whoever_waits_for_any_amount_is_left_to_the_history() -> None:
    """A push settles the one that it names, and is a hint to the one that may be meant as well."""
    cases = Cases()
    case = joined(cases)
    cases.join(Awaited("SOL", 7), None, None)
    settled, doubt = cases.told(("SOL", 7), PUSH)

    assert ([each for each, _ in settled], doubt) == ([case], True)


def test_two_withdrawals_that_differ_in_their_fee_alone_are_two() -> None:
    """The fee changed while the batch was open: each has its own row."""
    cases = Cases()
    first, second = joined(cases), joined(cases, fee=Decimal("0.4"))

    assert first is not second
    assert [case for case, _ in cases.told(("SOL", 7), PUSH)[0]] == [first]


def test_what_left_early_is_not_kept() -> None:
    """Ten thousand that came and went leave nothing behind; one that is here twice is one."""
    cases = Cases()
    stays = cases.join(Awaited("SOL", 1), None, 9)
    for _ in range(10_000):
        case = cases.join(Awaited("SOL", 2), None, None)
        cases.leave(case)
        cases.leave(case)

    assert cases.join(Awaited("SOL", 1), None, 5) is stays
    assert (list(cases), len(cases), stays.since_ms) == ([stays], 1, 5)
    assert (cases.awaits(("SOL", 1)), cases.awaits(("SOL", 2))) == (True, False)
    assert stays in cases
    assert case not in cases
