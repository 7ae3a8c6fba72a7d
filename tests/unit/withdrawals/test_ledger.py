"""The ledger's names, what it says of itself, and the two things a person does with it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.withdrawals.ledger import (
    LedgerState,
    LedgerUnavailableError,
    decision_entry,
    prune,
    restored,
    task_entry,
    withdrawal_entry,
)
from pacifica_provider.withdrawals.record import Attempt, Record
from tests.support.harness import MemoryLedger
from tests.support.listed import LOST, RECORD, T0

TASK = ("pay", "scheduled__2026-11-23", "withdraw")
ENDED = replace(RECORD, state="void", since_ms=T0)
NEW = T0 + 99_999


def ledger(**entries: Any) -> MemoryLedger:
    """Return a ledger that holds these entries."""
    made = MemoryLedger()
    for name, value in entries.items():
        made.set(name, value.to_json("w") if isinstance(value, Record) else value)
    return made


def test_the_names_are_frozen() -> None:
    """Another name would lose every record there is."""
    assert [withdrawal_entry(*TASK, None), decision_entry(*TASK, None), task_entry(*TASK, "-1/None")] == [
        "withdrawal_a81dcbb6c5d100145b3f9e799eb4f614",
        "decision_a81dcbb6c5d100145b3f9e799eb4f614",
        "task_e738de9a85005adf7aabf8aba40d55c4",
    ]


@pytest.mark.parametrize(
    "other",
    [
        ("pay2", *TASK[1:], None),
        ("pay", "other", "withdraw", None),
        (*TASK[:2], "other", None),
        (*TASK, ""),
        (*TASK, "null"),
        (*TASK, "ref"),
        ("pay/scheduled__2026-11-23", "", "withdraw", None),
        ("token-of-the-secret-password", *TASK[1:], "é"),
    ],
)
def test_every_withdrawal_has_an_entry_of_its_own(other: tuple[str, str, str, str | None]) -> None:
    """DAG, run, task and reference are framed; neither account nor map index is among them (F61, F70)."""
    names = {withdrawal_entry(*TASK, None), withdrawal_entry(*other)}

    assert len(names) == 2
    assert all(name.removeprefix("withdrawal_").isalnum() and len(name) == 43 for name in names)
    assert decision_entry(*other) == withdrawal_entry(*other).replace("withdrawal_", "decision_")


def test_a_new_ledger_is_born_once() -> None:
    """Of what was before its birth an absent entry proves nothing."""
    made = ledger()
    states = [LedgerState.of(made, now_ms) for now_ms in (T0, T0 + 1)]

    assert states == [LedgerState(T0), LedgerState(T0)]
    assert json.loads(made.entries["ledger"]) == {
        "version": 1,
        "complete_since_ms": T0,
        "raised": False,
        "restores": 0,
    }


GOOD: dict[str, Any] = {"version": 1, "complete_since_ms": T0, "raised": True, "restores": 2}


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"version": None},
        {"complete_since_ms": "1"},
        {"complete_since_ms": True},
        {"complete_since_ms": 1.5},
        {"raised": 0},
        {"raised": None},
        {"restores": "0"},
        {"restores": False},
        {"more": 1},
    ],
)
def test_what_the_ledger_says_of_itself_is_read_strictly(changes: dict[str, Any]) -> None:
    """Too old a time would let a lost record pay again, so nothing is guessed (F48)."""
    made = ledger(ledger={**GOOD, **changes})

    assert LedgerState.of(ledger(ledger=GOOD), NEW) == LedgerState(T0, raised=True, restores=2)
    with pytest.raises(ConfigurationError, match=r"entry 'ledger' cannot be read.*left as it is.*ledger restored"):
        LedgerState.of(made, NEW)
    assert json.loads(made.entries["ledger"]) == {**GOOD, **changes}


def test_a_ledger_that_came_back_is_complete_from_now_on() -> None:
    """It is counted, since every record that is not ended may be older than what happened (5.2)."""
    made = ledger(ledger=GOOD, withdrawal_a=RECORD, decision_a={"action": "void"}, task_a={})
    restored(made, NEW)

    assert LedgerState.of(made, 0) == LedgerState(NEW, raised=True, restores=3)
    assert sorted(made.entries) == ["ledger", "task_a", "withdrawal_a"]


@pytest.mark.parametrize("stored", [{"version": 9}, "text", {**GOOD, "raised": None}, {"version": 1}])
def test_an_unreadable_entry_is_written_anew_when_the_ledger_came_back(stored: Any) -> None:
    """With a count that no record has, so that none is relied on (F48)."""
    made = MemoryLedger()
    made.entries["ledger"] = json.dumps(stored)
    restored(made, NEW)
    state = LedgerState.of(made, 0)

    assert (state.complete_since_ms, state.raised) == (NEW, True)
    assert state.restores > NEW


def test_what_ended_before_is_forgotten() -> None:
    """Ended withdrawals older than that, with a decision that came too late; nothing unfinished or younger (5.2)."""
    young = Attempt(NEW, 10_000)
    made = ledger(
        ledger=GOOD,
        withdrawal_void=ENDED,
        withdrawal_rejected=replace(ENDED, state="rejected", attempts=(replace(LOST, outcome="refused", status=422),)),
        withdrawal_open=RECORD,
        withdrawal_unknown=replace(RECORD, state="unknown"),
        withdrawal_young=replace(ENDED, since_ms=NEW, attempts=()),
        withdrawal_tried=replace(ENDED, attempts=(young,)),
        task_a={"version": 1},
        decision_void={},
        decision_unknown={},
    )
    forgotten = prune(made, NEW, NEW)

    assert forgotten == (2, [])
    assert sorted(made.entries) == [
        *("decision_unknown", "ledger", "task_a"),
        *("withdrawal_open", "withdrawal_tried", "withdrawal_unknown", "withdrawal_young"),
    ]
    assert LedgerState.of(made, 0) == LedgerState(NEW, raised=True, restores=2)


def test_an_entry_that_cannot_be_read_is_left_and_named() -> None:
    """It stops no prune, which would have raised the ledger for nothing (F48)."""
    made = ledger(ledger=GOOD, withdrawal_alien={"version": 9}, withdrawal_void=ENDED)

    assert prune(made, NEW, NEW) == (1, ["withdrawal_alien"])
    assert sorted(made.entries) == ["ledger", "withdrawal_alien"]


def test_forgetting_never_lowers_what_the_ledger_is_complete_since() -> None:
    """An older prune, after a restore, would let lost records pay again."""
    made = ledger(ledger={**GOOD, "complete_since_ms": NEW + 5})
    prune(made, NEW, NEW)

    assert LedgerState.of(made, 0).complete_since_ms == NEW + 5


def test_a_ledger_that_two_tasks_begin_at_once_has_one_birth() -> None:
    """The first runs of a deployment may come together; no try ends for it (seen on 3.1 with PostgreSQL)."""

    class Contested(MemoryLedger):
        def set(self, name: str, value: Any, /) -> None:
            """Read back what another task wrote a moment later."""
            super().set(name, {**value, "complete_since_ms": NEW})
            raise LedgerUnavailableError("it does not hold what was written to it")

    made = Contested()

    assert LedgerState.of(made, T0) == LedgerState.of(made, T0) == LedgerState(NEW)


def test_a_ledger_that_cannot_be_born_is_unavailable() -> None:
    """Nobody has written it, and this try could not (F45)."""
    made = MemoryLedger()
    made.fail_writes = 1

    with pytest.raises(LedgerUnavailableError, match="this write fails"):
        LedgerState.of(made, T0)
    assert LedgerState.of(made, T0) == LedgerState(T0)


def test_a_prune_that_is_cut_short_has_raised_the_ledger_first() -> None:
    """First the word, then the deed: an entry that is gone never proves that nothing was sent (5.2)."""

    class CutShort(MemoryLedger):
        def delete(self, name: str, /) -> None:
            raise KeyboardInterrupt

    made = CutShort()
    made.set("withdrawal_a", ENDED.to_json("w"))
    with pytest.raises(KeyboardInterrupt):
        prune(made, NEW, NEW)

    assert LedgerState.of(made, 0) == LedgerState(NEW, raised=True)
    assert "withdrawal_a" in made.entries
