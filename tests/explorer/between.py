"""What happens between two tries: clears, losses of the ledger, drift, somebody else's withdrawal, and people."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from pacifica_provider.api.models import PendingWithdrawal, SettledWithdrawal
from pacifica_provider.withdrawals import decisions
from pacifica_provider.withdrawals.ledger import LedgerState, prune, restored
from pacifica_provider.withdrawals.matching import ListedRow, Reading, Snapshot, listed_rows
from pacifica_provider.withdrawals.record import Record
from pacifica_provider.withdrawals.record import Row as ListedWithdrawal
from tests.explorer.world import (
    DECISIONS,
    DRIFTED,
    FEE,
    PLAIN_REFERENCES,
    RECORDS,
    SETTLES_AFTER_MS,
    TASKS,
    TOLERANCE_MS,
    Sight,
    World,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.explorer.choices import Chooser

_LATER = {"now": 0, "after 10 minutes": 600_000, "after 3 days": 3 * 86_400_000}
_EMPTY = "the ledger comes back empty, the run as new, and is said to be restored"
_FIRST = "the ledger comes back as it was after the first try, and is said to be restored"
_WIPED = "A3 an entry was deleted"


def happens(world: World, chooser: Chooser) -> bool:
    """Let one thing happen before the next try, if it is chosen; say whether anything did."""
    chosen = chooser.choose(faults=tuple(_possible(world)) if chooser.faults else ())
    if not chosen:
        return False
    world.faults += 1
    chooser.say(f"{(world.now_ms - 1_800_000_000_000) / 1000:9.0f} s  BETWEEN TRIES: {chosen}")
    _do(world, chosen)
    return True


def _possible(world: World) -> list[str]:
    """Name everything that can happen now."""
    found = []
    for at, task in enumerate(world.tasks):
        if task.ended:
            found += [f"task {at} is cleared {when}" for when in _LATER]
        elif not task.fresh:
            found += [f"task {at} is cleared {when}" for when in _LATER if when != "now"]
        if not task.fresh:
            found.append(f"the run of task {at} is deleted and made again")
        if not task.fresh and world.setting.kind == "plain" and not task.ended:
            found += ["the order drifts", "the reference drifts"]
    for reference, entry in RECORDS.items():
        if entry in world.entries:
            found.append(f"the record of {reference} is deleted")
            found += [f"{reference}: a person {does}" for does in _decisions(world, reference)]
    if any(entry in world.entries for entry in (*RECORDS.values(), *TASKS.values())):
        found += [_EMPTY, "the ledger is pruned", "the entries of withdrawals and tasks are deleted"]
    if world.backup is not None and world.backup != world.entries:
        found.append(_FIRST)
    found.append("an equal withdrawal is made elsewhere")
    return found


def _do(world: World, what: str) -> None:
    if what.startswith("an equal"):
        world.foreign(world.now_ms)
    elif ": a person " in what:
        reference, does = what.split(": a person ")
        decide(world, reference, does)
    elif what.startswith(("task", "the run", "the order", "the reference")):
        _do_to_a_task(world, what)
    else:
        _do_to_the_ledger(world, what)


def _do_to_a_task(world: World, what: str) -> None:
    if what == "the order drifts":
        other = DRIFTED if world.tasks[0].amount != DRIFTED else DRIFTED - 1
        world.tasks = (replace(world.tasks[0], amount=other),)
    elif what == "the reference drifts":
        other_reference = PLAIN_REFERENCES[world.tasks[0].references == PLAIN_REFERENCES[:1]]
        world.tasks = (replace(world.tasks[0], references=(other_reference,)),)
    elif what.endswith("deleted and made again"):
        at = int(what.split()[4])
        clear(world, at)
        world.tasks = (*world.tasks[:at], replace(world.tasks[at], fresh=True), *world.tasks[at + 1 :])
    else:
        world.advance(world.now_ms + _LATER[what.split(" is cleared ")[1]])
        clear(world, int(what.split()[1]))


def _do_to_the_ledger(world: World, what: str) -> None:
    if what.startswith("the record of "):
        del world.entries[RECORDS[what.split()[3]]]
        if not any(name in world.entries for name in TASKS.values()):
            world.cause(_WIPED)
    elif what.startswith("the entries of"):
        for name in (*RECORDS.values(), *TASKS.values()):
            world.entries.pop(name, None)
        world.cause(_WIPED)
    elif what == "the ledger is pruned":
        prune(_Outside(world), world.now_ms + 1, world.now_ms)
    else:
        world.entries = dict(world.backup or {}) if what == _FIRST else {}
        restored(_Outside(world), world.now_ms)
        world.said.clear()
        if what == _EMPTY:
            made_again = (replace(t, ended=None, tries=0, due_ms=world.now_ms, fresh=True) for t in world.tasks)
            world.tasks = tuple(made_again)
    # What is not on record any more binds no later try.
    for reference, name in RECORDS.items():
        if name not in world.entries:
            world.said.pop(reference, None)


class _Outside:
    """The ledger as a command sees it."""

    fenced = False

    def __init__(self, world: World) -> None:
        self._entries = world.entries

    def get(self, name: str, /) -> object | None:
        entry: object | None = self._entries.get(name)
        return entry

    def set(self, name: str, value: Mapping[str, Any], /) -> None:
        self._entries[name] = dict(value)

    def delete(self, name: str, /) -> None:
        self._entries.pop(name, None)

    def names(self) -> list[str]:
        return list(self._entries)


def clear(world: World, at: int) -> None:
    """Clear a task instance: it runs again, with all its retries."""
    task = replace(world.tasks[at], ended=None, tries=0, due_ms=world.now_ms)
    world.tasks = (*world.tasks[:at], task, *world.tasks[at + 1 :])


# -- people


def note_sight(world: World) -> None:
    """Note what a person saw when first there was something to decide, and what a backup holds."""
    if world.backup is None and any(world.record(reference) for reference in RECORDS):
        world.backup = dict(world.entries)
    for reference in RECORDS:
        record = _record(world, reference)
        if (
            record is not None
            and record.state in {"open", "unknown"}
            and record.attempts
            and reference not in world.seen
        ):
            rows = tuple(decisions.to_be_named(_listed(world, record)))
            moved = bool(world.debits(reference))
            world.seen[reference] = Sight(record.fingerprint, len(record.attempts), rows, _restores(world), moved)


def right_decision(world: World, reference: str) -> str:
    """Say what somebody who knows the truth decides."""
    record = _record(world, reference)
    paid = [row for each in world.unit(reference) for row in world.debits(each)]
    if any(row.reference != reference or (record and row.amount != record.order.amount) for row in paid):
        return "voids it"  # paid under another reference, or as another order
    if paid:
        if record is None or not _to_adopt(world, reference, record, own=True):
            world.broken("the withdrawal is not among the rows that a person is shown", world.why_lost())
        return "adopts the right row"
    return "voids it" if record is None or record.duplicate else "has it posted again"


def _decisions(world: World, reference: str) -> list[str]:
    record = _record(world, reference)
    if record is None or record.state not in {"open", "unknown"} or DECISIONS[reference] in world.entries:
        return []
    can = ["has it posted again", "voids it"]
    if _to_adopt(world, reference, record, own=True):
        can.append("adopts the right row")
    if _to_adopt(world, reference, record, own=False):
        can.append("adopts another row")
    sight = world.seen.get(reference)
    if sight is not None and sight != _sight_now(world, reference, record):
        can.append("has it posted again by what was seen at first")
    return can


def _sight_now(world: World, reference: str, record: Record) -> Sight:
    rows = tuple(decisions.to_be_named(_listed(world, record)))
    return Sight(record.fingerprint, len(record.attempts), rows, _restores(world), bool(world.debits(reference)))


def _restores(world: World) -> int:
    """Return how often the ledger has come back from a backup, as it says itself."""
    return LedgerState.of(_Outside(world), world.now_ms).restores


def decide(world: World, reference: str, does: str) -> None:
    """Leave the decision in the ledger, as the case command does; clear the task if it has ended."""
    record = _record(world, reference)
    assert record is not None
    world.decisions += 1
    said: dict[str, Any] = {"by": "ana", "why": "looked", "decision_id": f"d{world.decisions}"}
    if does == "voids it":
        decision: decisions.Decision = decisions.Void(record.key, **said)
    elif does.startswith("adopts"):
        own = does == "adopts the right row"
        decision = decisions.adopt(record, _to_adopt(world, reference, record, own=own)[0], **said)
        if not own:
            world.cause("A4 a person adopted another's row")
    else:
        sight = _sight_now(world, reference, record)
        if does.endswith("at first"):
            sight = world.seen[reference]
        reposted = decisions.repost(record, sight.rows, **said)
        decision = msgspec.structs.replace(
            reposted, fingerprint=sight.fingerprint, attempts=sight.attempts, restores=sight.restores
        )
        if sight.moved:
            world.cause("A4 a person had it posted again although it had moved")
        if world.said.get(reference, ("",))[0] == "OutcomeUnknown":
            world.said.pop(reference)
    world.entries[DECISIONS[reference]] = decisions.stored_form(decision)
    for at, task in enumerate(world.tasks):
        if task.ended and reference in task.references:
            clear(world, at)


def _to_adopt(world: World, reference: str, record: Record, *, own: bool) -> list[ListedWithdrawal]:
    """Return the rows of this amount that a person is shown: its own, or somebody else's."""
    nonces = {row.nonce for row in world.rows if (row.reference == reference) == own}
    return [
        each.row for each in _listed(world, record) if each.row.batch_nonce in nonces and (own or each.fit != "other")
    ]


def _record(world: World, reference: str) -> Record | None:
    stored = world.record(reference)
    return None if stored is None else Record.from_json(stored)


def _listed(world: World, record: Record) -> tuple[ListedRow, ...]:
    """Return the rows as the case command lists them now."""
    pending, history = [], []
    for row in world.visible():
        if world.now_ms - row.created_ms >= SETTLES_AFTER_MS:
            history.append(SettledWithdrawal("SOL", row.amount - FEE, row.nonce, f"tx{row.nonce}", row.created_ms))
        else:
            pending.append(PendingWithdrawal("SOL", row.amount - FEE, row.amount, FEE, row.nonce, row.created_ms))
    reading = Reading(Snapshot(world.now_ms, world.now_ms, 0, pending), history, FEE)
    return listed_rows(record, reading, tolerance_ms=TOLERANCE_MS)
