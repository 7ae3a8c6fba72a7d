"""
The judge: what the exchange's ledger and the claims of the tries say of the invariants, after a world has ended.

It asks what the world did, never what the code under test wrote down. The cases that the promise leaves out are
recognised in ``admitted.py`` by rules of their own, and counted apart.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.simulator.admitted import (
    A4_REPOST,
    A5_SIBLING,
    admitted_double,
    admitted_receipt,
    damaged,
    late_or_unlisted,
    made_meanwhile_by_a_sibling,
    reposted_although_moved,
)
from tests.simulator.history import LOST

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from tests.simulator.exchange import Row, SimulatedExchange
    from tests.simulator.history import Claim, History, Post

NOTHING_MOVED = frozenset({"WithdrawalRejected", "Unreachable", "Throttled"})


@dataclass(slots=True)
class Findings:
    """What the judge found."""

    violations: list[str] = field(default_factory=list)
    admitted: Counter[str] = field(default_factory=Counter)
    double_payments: int = 0
    false_receipts: int = 0
    false_nothing_moved: int = 0
    # by owner, the admitted ones too
    paid_twice: set[int] = field(default_factory=set)
    misled: set[int] = field(default_factory=set)


def check_world(history: History, exchange: SimulatedExchange) -> Findings:
    """Check I1 to I6, and that no two signatures live at once, over one world's history."""
    return _Checker(history, exchange).verdict()


class _Checker:
    def __init__(self, history: History, exchange: SimulatedExchange) -> None:
        self._chronicle = history
        self._exchange = exchange
        self._found = Findings()
        self._debits: dict[int, list[Row]] = defaultdict(list)
        for row in exchange.rows:
            if row.sender is not None:
                self._debits[row.sender.owner].append(row)
        self._posts: dict[tuple[str, int], list[Post]] = defaultdict(list)
        for post in history.posts:
            self._posts[post.request.key, post.deployment].append(post)

    def verdict(self) -> Findings:
        for owner, rows in self._debits.items():
            self._second_debits(owner, rows)
        self._receipts()
        for claim in self._chronicle.claims:
            if claim.current:
                self._claim(claim)
        self._sent_once()
        for posts in self._posts.values():
            for before, post in pairwise(posts):
                self._one_live_signature(before, post)
        return self._found

    def _second_debits(self, owner: int, rows: list[Row]) -> None:
        """I1: at most one debit per payment; a task with one reference for ever makes none under another (F101)."""
        groups: dict[object, list[Row]] = defaultdict(list)
        for row in rows:
            assert row.sender is not None
            made_by = self._chronicle.tries[row.sender.attempt]
            groups[row.key].append(row)
            if made_by.instance is not None:
                groups[made_by.deployment, made_by.instance].append(row)
        for by, group in groups.items():
            for first, second in pairwise(group):
                if first.key != second.key or first.key == by:
                    self._second_debit(owner, first, second)

    def _second_debit(self, owner: int, first: Row, second: Row) -> None:
        self._found.paid_twice.add(owner)
        letter = admitted_double(self._chronicle, first, second)
        if letter:
            self._found.admitted[f"double payment: {letter}"] += 1
        else:
            self._found.double_payments += 1
            batches = f"{first.batch_nonce} and {second.batch_nonce}"
            self._found.violations.append(f"I1: payment {owner} was debited in batches {batches}")

    def _receipts(self) -> None:
        """I2: a success names the debit that was made for its payment."""
        judged: set[tuple[int, int | None, Decimal]] = set()
        for claim in self._chronicle.claims:
            owner = claim.sender.owner
            if claim.kind != "success" or (owner, claim.nonce, claim.asked) in judged:
                continue
            judged.add((owner, claim.nonce, claim.asked))
            own = self._debits.get(owner, [])
            if any((row.batch_nonce, row.amount) == (claim.nonce, claim.asked) for row in own):
                continue
            self._found.misled.add(owner)
            letter = admitted_receipt(self._chronicle, self._exchange, claim, own)
            if letter:
                self._found.admitted[f"false receipt: {letter}"] += 1
            else:
                self._found.false_receipts += 1
                self._found.violations.append(
                    f"I2: try {claim.sender.attempt} got a receipt of batch {claim.nonce}, not its own"
                )

    def _claim(self, claim: Claim) -> None:
        """I3 to I5: what a try says of money is true, and what ends a record ends it."""
        mine = self._posts[claim.key, claim.deployment]
        if claim.kind in NOTHING_MOVED or "No money moved; this try" in claim.text:
            self._nothing_moved(claim, mine)
        if claim.kind == "ParameterMismatch" and any(_by(post, claim) for post in mine):
            self._breach("I3", claim, claim.at_ms, "it posted and ended as a mismatch")
        if claim.adopted and self._chronicle.tries[claim.sender.attempt].adoption == "never":
            applied = any(
                decided.action == "adopt" and decided.nonce == claim.nonce and decided.decision_id in self._applied
                for decided in self._chronicle.decided
                if decided.owner == claim.sender.owner
            )
            if not applied:
                self._breach("I2", claim, claim.at_ms, "a mapped task adopted by itself")
        if claim.kind == "OutcomeUnknown":
            if not claim.names_the_case:
                self._breach("I4", claim, claim.at_ms, "its unknown names no key or order")
            self._ended("I4", claim, mine)
        if claim.kind in {"success", "Voided"}:
            self._ended("I5", claim, mine)

    @property
    def _applied(self) -> set[str]:
        return self._chronicle.applied

    def _nothing_moved(self, claim: Claim, mine: Sequence[Post]) -> None:
        """I3: whoever says that no money moved is right about every request that was ever sent for it."""
        sent = {post.request for post in mine if post.sent_ms <= claim.at_ms}
        moved = [row for row in self._debits.get(claim.sender.owner, []) if row.request in sent]
        if not moved:
            return
        letter = late_or_unlisted(moved, claim.at_ms)
        if any(reposted_although_moved(self._chronicle, row, claim.at_ms) for row in moved):
            letter = A4_REPOST  # the person said that nothing had moved
        if letter is None and all(made_meanwhile_by_a_sibling(self._chronicle, claim, row) for row in moved):
            letter = A5_SIBLING
        letter = letter or damaged(self._chronicle, claim.sender.owner, claim.deployment, until_ms=claim.at_ms)
        if letter:
            self._found.admitted[f"'nothing moved' is false: {letter}"] += 1
            return
        self._found.false_nothing_moved += 1
        tried, batch = claim.sender.attempt, moved[0].batch_nonce
        self._found.violations.append(f"I3: try {tried}: {claim.kind} was said of batch {batch}")

    def _ended(self, name: str, claim: Claim, mine: Sequence[Post]) -> None:
        """After an ending that its ledger took and kept, no try that began later posts, unless a person says so."""
        for post in mine if claim.heard else ():
            began_ms = self._chronicle.tries[post.request.sender.attempt].began_ms
            if began_ms <= claim.at_ms or self._kept_nothing(claim, post.sent_ms):
                continue
            if name == "I4" and self._reposted(claim, post.sent_ms):
                continue
            self._breach(name, claim, post.sent_ms, f"{post.request.sender.attempt} posted after {claim.kind}")
            return

    def _kept_nothing(self, claim: Claim, until_ms: int) -> bool:
        """Whether the ledger says itself that it has forgotten: then it asks or looks anew, which I1 judges."""
        return self._chronicle.lost(
            claim.sender.owner,
            claim.deployment,
            {"restored, said", "pruned"},
            since_ms=claim.at_ms,
            until_ms=until_ms,
        )

    def _reposted(self, claim: Claim, until_ms: int) -> bool:
        return any(
            decided.owner == claim.sender.owner
            and decided.action == "repost"
            and decided.looked_ms <= until_ms
            and decided.decision_id in self._applied
            for decided in self._chronicle.decided
        )

    def _breach(self, name: str, claim: Claim, at_ms: int, what: str) -> None:
        letter = damaged(self._chronicle, claim.sender.owner, claim.deployment, until_ms=at_ms)
        if letter:
            self._found.admitted[f"{name} broken: {letter}"] += 1
        else:
            self._found.violations.append(f"{name}: try {claim.sender.attempt}: {what}")

    def _sent_once(self) -> None:
        """I6: no signed request is sent twice."""
        sent = Counter(
            (post.request.sender.attempt, post.request.key, post.request.signed_ms) for post in self._chronicle.posts
        )
        self._found.violations += [
            f"I6: try {attempt} sent twice what it signed at {signed_ms}"
            for (attempt, _, signed_ms), times in sent.items()
            if times > 1
        ]

    def _one_live_signature(self, before: Post, post: Post) -> None:
        """Nothing is sent while an unrefused request of the same record, which its try could see, may still land."""
        old, new = before.request, post.request
        history = self._chronicle
        could_see = (
            old.sender.attempt == new.sender.attempt or history.tries[new.sender.attempt].began_ms > before.sent_ms
        )
        if (
            could_see
            and post.sent_ms <= old.signed_ms + old.window_ms
            and (old.sender.attempt, old.signed_ms) not in history.refused
            and not history.lost(new.sender.owner, post.deployment, LOST, until_ms=post.sent_ms)
        ):
            self._found.violations.append(f"two live signatures: try {new.sender.attempt} posted at {post.sent_ms}")


def _by(post: Post, claim: Claim) -> bool:
    return post.request.sender.attempt == claim.sender.attempt
