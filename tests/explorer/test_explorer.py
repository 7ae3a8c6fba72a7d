"""Every schedule with one fault keeps the promise, and a protocol that is broken on purpose does not."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.api.outcomes import Duplicate
from pacifica_provider.withdrawals import protocol, withdraw
from pacifica_provider.withdrawals.record import Record, StoredReceipt
from tests.explorer import Setting, explore, replay, search
from tests.explorer.choices import Chooser
from tests.explorer.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacifica_provider.api.outcomes import Outcome

PLAIN = [Setting(), Setting(fenced=False), Setting(newborn=True)]
SWEEPS = [Setting(sweeps=True), Setting(fenced=False, sweeps=True), Setting(newborn=True, sweeps=True)]
TWO = [
    Setting("pair"),
    Setting("pair", fenced=False),
    Setting("mapped"),
    Setting("mapped", fenced=False),
]
A5 = "A5 no fence: a frozen try overwrote what a later one wrote"


@pytest.mark.parametrize("setting", [*PLAIN, *SWEEPS, *TWO], ids=lambda setting: setting.name)
def test_every_schedule_with_one_fault_keeps_the_promise(setting: Setting) -> None:
    """No schedule with one fault pays twice, says what is not so or is stuck; only without a fence one edge is met."""
    report = explore(setting, 1)

    assert report.violations == {}
    assert (set() if setting.fenced else {A5}) == set(report.admitted)
    assert report.complete
    assert report.schedules > 200


def test_a_schedule_without_faults_is_one_try() -> None:
    """Without faults there is one schedule: one request, one receipt."""
    report = explore(Setting(), 0)
    story = replay(Setting(), 0, ())

    assert (report.schedules, report.endings) == (1, {"success": 1})
    assert [line.split("s  ")[1].split(":")[0] for line in story if "sends 5" in line] == ["try 1"]


@pytest.mark.parametrize("setting", [Setting(), Setting(fenced=False)], ids=lambda setting: setting.name)
def test_recognising_states_changes_no_count(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no state ever recognised, as many schedules end in each way as with it, only with more steps run."""
    report = explore(setting, 1)
    numbers = itertools.count()
    monkeypatch.setattr(World, "key", lambda _: next(numbers).to_bytes(16, "big"))
    monkeypatch.setattr(search, "Chooser", lambda *prefix, **_: Chooser(*prefix))

    every_one = explore(setting, 1)

    assert every_one.endings == report.endings
    assert every_one.admitted == report.admitted
    assert every_one.runs > report.runs


def test_a_violation_is_told_by_its_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choices that are printed with a violation lead to it again, and every fault of the schedule is told."""
    _take_a_409_as_success(monkeypatch)
    report = explore(Setting(), 1)
    (what, *_) = report.violations

    story = replay(Setting(), 1, report.examples[what])

    assert f"VIOLATION: {what}" == story[-1]
    assert sum("FAULT" in line or "BETWEEN TRIES" in line for line in story) == 1


def _take_a_409_as_success(monkeypatch: pytest.MonkeyPatch) -> None:
    real = protocol.answered

    def answered(record: Record, outcome: Outcome) -> Record:
        changed = real(record, outcome)
        if not isinstance(outcome, Duplicate):
            return changed
        return replace(changed, state="accepted", receipt=StoredReceipt(1, record.order.amount, None, 0, adopted=True))

    monkeypatch.setattr(withdraw, "answered", answered)


def _never_wait_for_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Record, "live_until_ms", 0)


def _ignore_what_may_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    real = protocol.begin

    def begin(*args: Any, **kwargs: Any) -> Record:
        return replace(real(*args, **kwargs), maybe_sent=False)

    monkeypatch.setattr(withdraw, "begin", begin)


def _trust_a_key_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    real = protocol.next_step

    def next_step(record: Record, seen: protocol.Evidence, policy: protocol.Policy) -> protocol.Step:
        return real(record, seen, replace(policy, key_trust_ms=10**12))

    monkeypatch.setattr(withdraw, "next_step", next_step)


def _write_after_the_post(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withdraw._Try, "_write_ahead", lambda *_: None)


def _adopt_any_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def adoptable(_record: Record, rows: Any, _readings: Any, **_: Any) -> Any:
        return rows[0] if rows else None

    monkeypatch.setattr(protocol, "adoptable", adoptable)


def _never_check_who_wrote_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withdraw._Try, "_check_hold", lambda *_: None)


def _forget_what_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_doubt", lambda *_: None)


BREAKAGES: list[tuple[Callable[[pytest.MonkeyPatch], None], Setting, int]] = [
    (_take_a_409_as_success, Setting(), 1),
    (_never_wait_for_the_window, Setting(), 1),
    (_write_after_the_post, Setting(), 1),
    (_never_check_who_wrote_last, Setting(fenced=False), 1),
    (_ignore_what_may_be_lost, Setting(), 2),
    (_trust_a_key_for_ever, Setting(), 2),
    (_adopt_any_one_row, Setting(), 2),
    (_forget_what_was_answered, Setting(), 2),
]


@pytest.mark.parametrize(("break_it", "setting", "faults"), BREAKAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_protocol_is_noticed(
    break_it: Callable[[pytest.MonkeyPatch], None], setting: Setting, faults: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of these ways to be wrong breaks the promise in some schedule with one fault, or two in different tries."""
    break_it(monkeypatch)

    assert explore(setting, faults, per_step=1, first_only=True).violations
