"""
What a poll of the lists, or a push, means for those who wait. Pure: rows and times in, settlements out.

Withdrawals and rows are filed by order, so that ten thousand are judged in one pass; what a row means is decided by
``withdrawals/settlement.py`` alone.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from pacifica_provider.withdrawals.matching import shown_amounts
from pacifica_provider.withdrawals.settlement import (
    QUEUED,
    Expired,
    Settled,
    Settlement,
    Waiting,
    confirmed,
    is_pending,
    looked,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from decimal import Decimal
    from typing import Any

    from pacifica_provider.api.models import PendingWithdrawal, SettledWithdrawal
    from pacifica_provider.withdrawals.settlement import Awaited, Confirmation

Batch = tuple[str, int]
# Symbol, nonce and amount; None for the amount means every row of the batch.
Key = tuple[str, int, "Decimal | None"]
Pending = dict[Key, list["PendingWithdrawal"]]
_Order = tuple["Awaited", "Decimal | None"]


class Case:
    """
    One withdrawal that is waited for, by one trigger or by many that know the same fee of it.

    :param fee: what was deducted, where a receipt or the pending list says it.
    :param since_ms: a time before which it was not made, Unix milliseconds, where one is known; bounds the history.
    """

    __slots__ = (
        *("awaited", "ended", "equal_rows", "event", "fee", "looked_at", "order", "shown", "since_ms", "told"),
        *("waiting", "waits"),
    )

    def __init__(self, awaited: Awaited, fee: Decimal | None, since_ms: int | None) -> None:
        self.order = awaited, fee
        self.awaited = awaited
        self.fee = fee
        self.since_ms = since_ms
        # How many rows like this one were seen pending at once; 0 if none ever was.
        self.equal_rows = 0
        self.waiting = Waiting()
        # What the history or a push shows of it, while a Solana RPC has not confirmed that; and what that said last.
        self.shown: Settled | None = None
        self.told: Waiting | None = None
        # When the last poll that tells of it began, in monotonic seconds.
        self.looked_at = float("-inf")
        # Whether the wait is over, and what it came to.
        self.ended = False
        self.event: dict[str, Any] | None = None
        # Whom to wake: with an event, or with None to read the connection again and come back.
        self.waits: dict[asyncio.Future[dict[str, Any] | None], None] = {}

    @property
    def batch(self) -> Batch:
        """Symbol and nonce."""
        return self.awaited.symbol, self.awaited.batch_nonce


class Cases:
    """The withdrawals that one watcher waits for; every question is cheap at ten thousand."""

    def __init__(self) -> None:
        self._cases: dict[_Order, Case] = {}
        self._batches: Counter[Batch] = Counter()

    def __len__(self) -> int:
        return len(self._cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(list(self._cases.values()))

    def __contains__(self, case: Case) -> bool:
        return self._cases.get(case.order) is case

    def join(self, awaited: Awaited, fee: Decimal | None, since_ms: int | None) -> Case:
        """Return the case of this withdrawal, a new one if there is none; another fee is another withdrawal."""
        case = self._cases.get((awaited, fee))
        if case is None:
            case = Case(awaited, fee, since_ms)
            self._cases[case.order] = case
            self._batches[case.batch] += 1
        if case.since_ms is not None and since_ms is not None:
            case.since_ms = min(case.since_ms, since_ms)
        return case

    def leave(self, case: Case) -> None:
        """Let one go, if it is here."""
        if case in self:
            del self._cases[case.order]
            self._batches[case.batch] -= 1
            if not self._batches[case.batch]:
                del self._batches[case.batch]

    def awaits(self, batch: Batch) -> bool:
        """Say whether somebody waits for this batch."""
        return batch in self._batches

    def told(self, batch: Batch | None, push: Confirmation | None) -> tuple[list[tuple[Case, Settled]], bool]:
        """
        Return whom a push settles without doubt, and whether somebody is left whom it may be about.

        :param batch: ``None`` where the push names none: then it may be about anybody.
        :param push: ``None`` where it does not say everything.
        """
        awaited = batch is None or self.awaits(batch)
        if push is None:
            return [], awaited
        orders = itertools.product((push.awaited, replace(push.awaited, amount=None)), (push.fee_amount, None))
        cases = [case for order in orders if (case := self._cases.get(order)) is not None]
        proofs = [
            (case, confirmed(case.awaited, push, fee=case.fee, rivals=_rivals(case), since_ms=case.since_ms))
            for case in cases
        ]
        settled = [(case, proof) for case, proof in proofs if proof is not None]
        # Where it settles nobody, whoever waits for this batch waits for another amount of it, or by another fee.
        return settled, len(settled) < len(cases) or (awaited and not settled)


def _rivals(case: Case) -> int:
    """Return how many withdrawals may be meant beside this one: as the pending list showed, else as many as wait."""
    return (case.equal_rows or len(case.waits)) - 1


def filed(rows: Iterable[PendingWithdrawal]) -> Pending:
    """File the pending list by order."""
    pending: Pending = {}
    for row in rows:
        for amount in (row.amount_requested, None):
            pending.setdefault((row.symbol, row.batch_nonce, amount), []).append(row)
    return pending


def is_queued(case: Case, pending: Pending) -> bool:
    """Say whether the pending list holds it; what that row shows is better evidence than anything read later."""
    awaited = case.awaited
    rows: Sequence[PendingWithdrawal] = pending.get((awaited.symbol, awaited.batch_nonce, awaited.amount), ())
    if not is_pending(case.awaited, rows):
        return False
    case.waiting = QUEUED
    case.since_ms = min(row.created_at_ms for row in rows)
    case.equal_rows = max(case.equal_rows, len(rows))
    if case.fee is None and case.awaited.amount is not None:
        case.fee = rows[0].fee_amount
    return True


class Search:
    """
    The history, as far as it has been read, for withdrawals that are not pending.

    One that was seen pending is settled while the history is still being read, once that shows as many rows like it as
    were pending at once: nothing in the rest can matter to it. The others wait for the whole reading (``rest``).
    """

    def __init__(self, gone: Iterable[Case]) -> None:
        self._missing = dict.fromkeys(gone)
        self._rows: dict[Key, list[SettledWithdrawal]] = {}
        self._wanted: dict[Key, list[Case]] = {}
        for case in self._missing:
            for amount in _shown(case) if case.equal_rows else ():
                self._wanted.setdefault((*case.batch, amount), []).append(case)

    @property
    def is_over(self) -> bool:
        """Whether everybody has been found."""
        return not self._missing

    def take(self, page: Iterable[SettledWithdrawal], *, now_ms: int) -> list[tuple[Case, Settled]]:
        """Take in rows, and return whom they settle whatever follows."""
        found = []
        for row in page:
            for key in ((row.symbol, row.batch_nonce, row.amount), (row.symbol, row.batch_nonce, None)):
                rows = self._rows.setdefault(key, [])
                rows.append(row)
                wanted = self._wanted.get(key, ())
                if wanted and len(rows) >= max(case.equal_rows for case in wanted):
                    del self._wanted[key]
                    found += [(case, seen) for case in wanted if (seen := self._settled(case, now_ms))]
        return found

    def fees_needed(self) -> set[str]:
        """Return the symbols whose fee decides: rows of a batch are there, maybe net, and no receipt tells the fee."""
        return {
            case.awaited.symbol
            for case in self._missing
            if case.fee is None
            and case.awaited.amount is not None
            and (*case.batch, None) in self._rows
            and (*case.batch, case.awaited.amount) not in self._rows
        }

    def rest(self, fees: Mapping[str, Decimal | None], *, now_ms: int) -> Iterator[tuple[Case, Settled | Expired]]:
        """Judge the others, the history having been read; who waits on remembers what was seen."""
        for case in self._missing:
            seen = self._seen(case, fees.get(case.awaited.symbol) if case.fee is None else case.fee, now_ms)
            if isinstance(seen, Waiting):
                case.waiting = seen
            else:
                yield case, seen

    def _settled(self, case: Case, now_ms: int) -> Settled | None:
        seen = self._seen(case, case.fee, now_ms)
        if case not in self._missing or not isinstance(seen, Settled):
            return None
        del self._missing[case]
        return seen

    def _seen(self, case: Case, fee: Decimal | None, now_ms: int) -> Settlement:
        rows: list[SettledWithdrawal] = []
        for amount in _shown(case, fee):
            rows += self._rows.get((*case.batch, amount), ())
        return looked(case.awaited, case.waiting, (), rows, fee, now_ms=now_ms)


def _shown(case: Case, fee: Decimal | None = None) -> set[Decimal | None]:
    """Return what the history may show of its amount."""
    gross = case.awaited.amount
    return {None} if gross is None else {*shown_amounts(gross, case.fee if fee is None else fee)}


def history_since_ms(gone: Sequence[Case], slack_ms: int) -> int | None:
    """
    Return how far back the history must be read.

    A row's time is that of the request or of the settlement, so it is not before the request. Where the time of that
    is not known for somebody, everything is read.
    """
    known = [case.since_ms for case in gone if case.since_ms is not None]
    return min(known) - slack_ms if len(known) == len(gone) else None
