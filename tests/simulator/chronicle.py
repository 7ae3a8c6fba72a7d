"""What happened in a world, written down as it happens, for the checker to judge afterwards."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from tests.simulator.agenda import Agenda
    from tests.simulator.exchange import Request, Sender

MarkKind = Literal["wiped", "write lost", "adopt", "repost", "void", "repost read", "overwritten"]


@dataclass(frozen=True, slots=True)
class Try:
    """One try of one task instance, and when it began."""

    sender: Sender
    began_ms: int
    uncounted: bool
    fenced: bool
    mapped: bool


@dataclass(frozen=True, slots=True)
class Post:
    """One withdraw request, when its bytes left."""

    request: Request
    sent_ms: int


@dataclass(frozen=True, slots=True)
class Claim:
    """
    What a try ended with: ``kind`` is ``success`` or the name of the error.

    ``current`` says that Airflow had not replaced the try, so that its word counts; ``heard`` that its store never
    failed.
    """

    sender: Sender
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
    """Something done to a task instance from outside; ``right`` says whether a decision was true when taken."""

    task: int
    at_ms: int
    kind: MarkKind
    nonce: int | None = None
    right: bool = True


@dataclass(slots=True)
class Chronicle:
    """The history of one world."""

    agenda: Agenda
    tracing: bool = False
    tries: list[Try] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    signed: list[Request] = field(default_factory=list)
    refused: set[tuple[int, int]] = field(default_factory=set)

    def next_task(self, run: int) -> int:
        """Return a number for a new task instance of a run; what is recreated is new."""
        self.runs.append(run)
        return len(self.runs) - 1

    def posted(self, request: Request) -> None:
        """Note a request as its bytes leave."""
        self.posts.append(Post(request, self.agenda.now_ms))

    def answered_no(self, request: Request) -> None:
        """Note that the refusal of a request reached whoever sent it: that request is over."""
        self.refused.add((request.sender.attempt, request.signed_ms))

    def marked(self, task: int, kinds: AbstractSet[MarkKind], *, until_ms: int, since_ms: int = 0) -> bool:
        """Say whether any of this was done to a task instance in that time."""
        return any(
            mark.task == task and mark.kind in kinds and since_ms <= mark.at_ms <= until_ms for mark in self.marks
        )

    def mark(self, task: int, kind: MarkKind, nonce: int | None = None, *, right: bool = True) -> None:
        """Note what was done to a task instance."""
        self.marks.append(Mark(task, self.agenda.now_ms, kind, nonce, right))
        if kind in {"adopt", "repost", "void"}:
            self.seen[f"person: {kind}, {'rightly' if right else 'wrongly'}"] += 1
        else:
            self.seen[kind] += 1

    def tell(self, who: str, what: str) -> None:
        """Add a line to the trace, if anyone reads it."""
        if self.tracing:
            self.trace.append(f"{(self.agenda.now_ms - START_MS) / 1000:12.3f} {who:<10} {what}")


START_MS = 1_800_000_000_000
