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

from tests.simulator.admitted import DAMAGE, UNFENCED, admitted_double, admitted_receipt

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet
    from decimal import Decimal

    from tests.simulator.chronicle import Chronicle, Claim, MarkKind, Post
    from tests.simulator.exchange import Row, SimulatedExchange

NOTHING_MOVED = frozenset({"WithdrawalRejected", "Unreachable", "Throttled"})


@dataclass(slots=True)
class Findings:
    """What the judge found."""

    violations: list[str] = field(default_factory=list)
    admitted: Counter[str] = field(default_factory=Counter)
    double_payments: int = 0
    false_receipts: int = 0


def judge(chronicle: Chronicle, exchange: SimulatedExchange) -> Findings:
    """Check I1 to I6, and that no two signatures live at once, over one world's history."""
    return _Judge(chronicle, exchange).verdict()


class _Judge:
    def __init__(self, chronicle: Chronicle, exchange: SimulatedExchange) -> None:
        self._chronicle = chronicle
        self._exchange = exchange
        self._found = Findings()
        self._debits: dict[int, list[Row]] = defaultdict(list)
        for row in exchange.rows:
            if row.sender is not None:
                self._debits[row.sender.owner].append(row)
        self._posts: dict[int, list[Post]] = defaultdict(list)
        for post in chronicle.posts:
            self._posts[post.request.sender.task].append(post)

    def verdict(self) -> Findings:
        for owner, rows in self._debits.items():
            for first, second in pairwise(rows):
                self._second_debit(owner, first, second)
        self._receipts()
        for claim in self._chronicle.claims:
            if claim.current:
                self._claim(claim)
        self._sent_once()
        for posts in self._posts.values():
            for before, post in pairwise(posts):
                self._one_live_signature(before, post)
        return self._found

    def _second_debit(self, owner: int, first: Row, second: Row) -> None:
        """I1: at most one debit per identity."""
        kind = admitted_double(self._chronicle, first, second)
        if kind:
            self._found.admitted[f"double payment: {kind}"] += 1
        else:
            self._found.double_payments += 1
            batches = f"{first.batch_nonce} and {second.batch_nonce}"
            self._found.violations.append(f"I1: identity {owner} was debited in batches {batches}")

    def _receipts(self) -> None:
        """I2: a success names the debit that was made for its identity."""
        judged: set[tuple[int, int | None, Decimal]] = set()
        for claim in self._chronicle.claims:
            owner = claim.sender.owner
            if claim.kind != "success" or (owner, claim.nonce, claim.asked) in judged:
                continue
            judged.add((owner, claim.nonce, claim.asked))
            own = self._debits.get(owner, [])
            if any((row.batch_nonce, row.amount) == (claim.nonce, claim.asked) for row in own):
                continue
            damaged = (kind for kind, marks in DAMAGE.items() if self._marked(claim, marks))
            kind = admitted_receipt(self._chronicle, self._exchange, claim, own) or next(damaged, None)
            if kind:
                self._found.admitted[f"false receipt: {kind}"] += 1
            else:
                self._found.false_receipts += 1
                self._found.violations.append(
                    f"I2: try {claim.sender.attempt} got a receipt of batch {claim.nonce}, not its own"
                )

    def _marked(self, claim: Claim, marks: AbstractSet[MarkKind]) -> bool:
        return self._chronicle.marked(claim.sender.task, marks, until_ms=claim.at_ms)

    def _claim(self, claim: Claim) -> None:
        """I3 to I5: what a try says of money is true, and what ends a record ends it."""
        sender = claim.sender
        mine = [post for post in self._posts[sender.task] if post.request.sender.owner == sender.owner]
        if claim.kind in NOTHING_MOVED:
            sent = {post.request.sender.attempt for post in mine if post.sent_ms <= claim.at_ms}
            rows = self._debits.get(sender.owner, [])
            moved = [
                row for row in rows if row.sender and row.sender.task == sender.task and row.sender.attempt in sent
            ]
            if moved and all(self._sent_meanwhile(claim, row, mine) for row in moved):
                self._found.admitted["I3 broken: store without a fence, an overlapping try sent meanwhile"] += 1
            elif moved:
                self._breach("I3", claim, claim.at_ms, f"{claim.kind} was said of batch {moved[0].batch_nonce}")
        if claim.kind == "ParameterMismatch" and any(post.request.sender.attempt == sender.attempt for post in mine):
            self._breach("I3", claim, claim.at_ms, "it posted and ended as a mismatch")
        if claim.adopted and self._chronicle.tries[sender.attempt].mapped:
            decided = self._chronicle.marked(sender.task, {"adopt"}, until_ms=claim.at_ms)
            if not decided:
                self._breach("I2", claim, claim.at_ms, "a mapped task adopted by itself")
        if claim.kind == "OutcomeUnknown":
            if not claim.names_the_case:
                self._breach("I4", claim, claim.at_ms, "its unknown names no key or order")
            self._ended("I4", claim, mine, unless={"wiped", "repost read"})
        if claim.kind in {"success", "Voided"}:
            self._ended("I5", claim, mine, unless={"wiped"})

    def _sent_meanwhile(self, claim: Claim, row: Row, mine: Sequence[Post]) -> bool:
        """Whether another try, which nothing had fenced off, sent the request of this row after this one had begun."""
        this = self._chronicle.tries[claim.sender.attempt]
        if this.fenced or row.sender is None or row.sender.attempt == claim.sender.attempt:
            return False
        sent_ms = [p.sent_ms for p in mine if p.request.sender == row.sender and p.sent_ms <= row.created_ms]
        return max(sent_ms) >= this.began_ms

    def _ended(self, name: str, claim: Claim, mine: Sequence[Post], unless: AbstractSet[MarkKind]) -> None:
        """After an ending that its store took, no try that began later posts for this task instance and identity."""
        for post in mine if claim.heard else ():
            began_ms = self._chronicle.tries[post.request.sender.attempt].began_ms
            excused = self._chronicle.marked(claim.sender.task, unless, since_ms=claim.at_ms, until_ms=post.sent_ms)
            if began_ms > claim.at_ms and not excused:
                self._breach(name, claim, post.sent_ms, f"{post.request.sender.attempt} posted after {claim.kind}")
                return

    def _breach(self, name: str, claim: Claim, at_ms: int, what: str) -> None:
        for kind, marks in DAMAGE.items():
            if self._chronicle.marked(claim.sender.task, marks, until_ms=at_ms):
                self._found.admitted[f"{name} broken: {kind}"] += 1
                return
        self._found.violations.append(f"{name}: try {claim.sender.attempt}: {what}")

    def _sent_once(self) -> None:
        """I6: no signed request is sent twice."""
        sent = Counter((post.request.sender.attempt, post.request.signed_ms) for post in self._chronicle.posts)
        self._found.violations += [
            f"I6: try {attempt} sent twice what it signed at {signed_ms}"
            for (attempt, signed_ms), times in sent.items()
            if times > 1
        ]

    def _one_live_signature(self, before: Post, post: Post) -> None:
        """Nothing is sent while an unrefused request of the same record, which its try could see, may still land."""
        old, new = before.request, post.request
        chronicle = self._chronicle
        could_see = (
            old.sender.attempt == new.sender.attempt or chronicle.tries[new.sender.attempt].began_ms > before.sent_ms
        )
        lost: set[MarkKind] = {"wiped", "write lost", *DAMAGE[UNFENCED]}
        if (
            old.sender.owner == new.sender.owner
            and could_see
            and post.sent_ms <= old.signed_ms + old.window_ms
            and (old.sender.attempt, old.signed_ms) not in chronicle.refused
            and not chronicle.marked(new.sender.task, lost, until_ms=post.sent_ms)
        ):
            self._found.violations.append(f"two live signatures: try {new.sender.attempt} posted at {post.sent_ms}")
