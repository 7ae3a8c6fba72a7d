"""What happened in a world, written down as it happens, for the checker to judge afterwards."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from tests.simulator.exchange import Request, Sender
    from tests.simulator.scheduler import Scheduler

# What may happen to a ledger; "entry lost" is without a word.
LedgerMark = Literal["entry lost", "restored, said", "restored, not said", "pruned", "overwritten"]
LOST: frozenset[LedgerMark] = frozenset({"entry lost", "restored, said", "restored, not said", "pruned", "overwritten"})


@dataclass(frozen=True, slots=True)
class Try:
    """
    One try of one task instance, and when it began.

    ``task`` is new for a recreated run; ``instance`` is the same, and names only tasks with one reference for ever.
    """

    task: int
    instance: str | None
    deployment: int
    began_ms: int
    fenced: bool
    adoption: str


@dataclass(frozen=True, slots=True)
class Post:
    """One withdraw request, when its bytes left."""

    request: Request
    sent_ms: int
    deployment: int


@dataclass(frozen=True, slots=True)
class Claim:
    """
    What a try ended with: ``kind`` is ``success`` or the name of the error.

    ``current`` says that Airflow had not replaced the try, so that its word counts; ``heard`` that its ledger never
    failed. ``key`` is the one it asked for.
    """

    sender: Sender
    deployment: int
    key: str
    at_ms: int
    kind: str
    current: bool
    heard: bool
    nonce: int | None = None
    adopted: bool = False
    nonces: tuple[int, ...] = ()
    text: str = ""
    names_the_case: bool = True
    asked: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened to entries of a ledger."""

    deployment: int
    at_ms: int
    kind: LedgerMark
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Decided:
    """A person's decision, bound to what was there to be seen at ``looked_ms``; ``right`` says if it was true then."""

    decision_id: str
    action: str
    owner: int
    looked_ms: int
    nonce: int | None
    right: bool


@dataclass(slots=True)
class History:
    """The history of one world. ``names`` holds the ledger entries that know of an owner's withdrawals."""

    scheduler: Scheduler
    tracing: bool = False
    tries: list[Try] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    decided: list[Decided] = field(default_factory=list)
    applied: set[str] = field(default_factory=set)
    seen: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)
    signed: list[Request] = field(default_factory=list)
    refused: set[tuple[int, int]] = field(default_factory=set)
    names: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    tasks: int = 0

    def next_task(self) -> int:
        """Return a number for a new task instance; what is recreated is new."""
        self.tasks += 1
        return self.tasks - 1

    def posted(self, request: Request) -> None:
        """Note a request as its bytes leave."""
        deployment = self.tries[request.sender.attempt].deployment
        self.posts.append(Post(request, self.scheduler.now_ms, deployment))

    def answered_no(self, request: Request) -> None:
        """Note that the refusal of a request reached whoever sent it: that request is over."""
        self.refused.add((request.sender.attempt, request.signed_ms))

    def lost(
        self, owner: int, deployment: int, kinds: AbstractSet[LedgerMark], *, until_ms: int, since_ms: int = 0
    ) -> bool:
        """Say whether this happened in that time to an entry that knows of the owner's withdrawals."""
        return any(
            mark.deployment == deployment
            and mark.kind in kinds
            and since_ms <= mark.at_ms <= until_ms
            and not self.names[owner].isdisjoint(mark.names)
            for mark in self.marks
        )

    def mark(self, deployment: int, kind: LedgerMark, *, names: AbstractSet[str]) -> None:
        """Note what happened to a ledger."""
        self.marks.append(Mark(deployment, self.scheduler.now_ms, kind, frozenset(names)))
        self.seen[f"ledger: {kind}"] += 1
        self.tell(f"ledger {deployment}", f"{kind}: {sorted(names)}")

    def tell(self, who: str, what: str) -> None:
        """Add a line to the trace, if anyone reads it."""
        if self.tracing:
            self.trace.append(f"{(self.scheduler.now_ms - START_MS) / 1000:12.3f} {who:<10} {what}")


START_MS = 1_800_000_000_000
