"""What came of one world, and of many."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class WorldReport:
    """
    One world, judged. ``violations`` break the promise; ``admitted`` are the cases it leaves out, by kind.

    ``groups`` counts identities by plain or mapped, by whether their ledger lost an entry, and by what came of them;
    debits and receipts that are admitted count too.
    """

    seed: int
    profile: str
    tries: int
    posts: int
    debits: int
    identities: int
    successes: int
    adopted: int
    double_payments: int
    false_receipts: int
    false_nothing_moved: int
    stuck: int
    asked: int
    asked_as_forgotten: int
    asked_or_failed: int
    mismatches: int
    rejected: int
    voided: int
    violations: tuple[str, ...]
    unknowns: Counter[str]
    admitted: Counter[str]
    seen: Counter[str]
    groups: Counter[tuple[str, bool, str]]
    trace: tuple[str, ...] = field(default=(), repr=False)


@dataclass(slots=True)
class Totals:
    """
    Many worlds.

    ``double_payments``, ``false_receipts`` and ``false_nothing_moved`` hold those that break the promise, never the
    admitted.
    ``asked``: identities of which a person was asked; ``asked_as_forgotten``: others, after a prune or a backup that
    the ledger knows of; ``asked_or_failed``: those asked, and those that failed without retry.
    """

    worlds: int = 0
    tries: int = 0
    posts: int = 0
    debits: int = 0
    identities: int = 0
    successes: int = 0
    adopted: int = 0
    double_payments: int = 0
    false_receipts: int = 0
    false_nothing_moved: int = 0
    stuck: int = 0
    asked: int = 0
    asked_as_forgotten: int = 0
    asked_or_failed: int = 0
    mismatches: int = 0
    rejected: int = 0
    voided: int = 0
    unknowns: Counter[str] = field(default_factory=Counter)
    admitted: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    groups: Counter[tuple[str, bool, str]] = field(default_factory=Counter)
    failing: list[tuple[str, int, str]] = field(default_factory=list)

    def add(self, report: WorldReport) -> None:
        """Count one world."""
        self.worlds += 1
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(report, name))
        self.unknowns.update(report.unknowns)
        self.admitted.update(report.admitted)
        self.seen.update(report.seen)
        self.groups.update(report.groups)
        self.failing += [(report.profile, report.seed, violation) for violation in report.violations]

    def merge(self, other: Totals) -> None:
        """Add the totals of other worlds."""
        self.worlds += other.worlds
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _COUNTS:
            getattr(self, name).update(getattr(other, name))
        self.failing += other.failing

    def __str__(self) -> str:
        lines = [f"{'worlds':<20} {self.worlds:>10}"]
        lines += [f"{name.replace('_', ' '):<20} {getattr(self, name):>10}" for name in _SUMS]
        share, wider = (100 * count / max(1, self.identities) for count in (self.asked, self.asked_or_failed))
        lines.append(f"a person was asked for {share:.2f} % of the identities, asked or failed for {wider:.2f} %")
        for name in ("unknowns", "admitted"):
            lines.append(f"{name}, by {'cause' if name == 'unknowns' else 'kind'}:")
            counts: Counter[str] = getattr(self, name)
            lines += [f"  {count:>8}  {what}" for what, count in counts.most_common()] or ["         0"]
        return "\n".join(lines)


def table(profile: str, measured: Mapping[str, Totals]) -> str:
    """
    Return a Markdown table of what came of the identities, by the word for how their amounts were written.

    Debits and receipts that are admitted count too; the line below says how many worlds broke the promise.
    """
    lines = [
        "| worlds | task | ledger | amounts | identities | asked | succeeded | paid twice | false receipts |",
        "| --- | --- | --- | --- | --: | --: | --: | --: | --: |",
    ]
    for name, lost in itertools.product(("plain", "mapped"), (False, True)):
        begins = f"| {profile} | {name} | {'entry lost' if lost else 'kept'} |"
        lines += [f"{begins} {word} {_row(totals, name, lost)}" for word, totals in measured.items()]
    broken = (
        f"{len({seed for _, seed, _ in totals.failing})} of {totals.worlds:,} {word}"
        for word, totals in measured.items()
    )
    return "\n".join([*lines, "", f"Worlds that broke the promise: {', '.join(broken)}."])


def _row(totals: Totals, name: str, lost: bool) -> str:
    identities, asked, succeeded, paid_twice, misled = (
        totals.groups[name, lost, what] for what in ("identities", "asked", "succeeded", "paid twice", "false receipt")
    )
    shares = (f"{count:,} ({100 * count / max(1, identities):.2f} %)" for count in (asked, succeeded))
    return f"| {identities:,} | {' | '.join(shares)} | {paid_twice} | {misled} |"


_COUNTS = ("unknowns", "admitted", "seen", "groups")
_SUMS = tuple(f.name for f in fields(Totals) if f.name not in {"worlds", "failing", *_COUNTS})
