"""Schedules that single clauses of the protocol are there for, each told in a few lines."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from tests.simulator.exchange import Habits
from tests.simulator.people import leave
from tests.simulator.profiles import HOUR, MINUTE
from tests.simulator.stage import NEVER_MS, Stage
from tests.simulator.worker import Fate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulator.weather import PostFault

LATE_LISTS = Habits(list_lag_ms=30_000, settle_ms=NEVER_MS)


@pytest.fixture(autouse=True)
def _crash_points_are_left_as_they_were() -> Iterator[None]:
    """Leave no crash point handler behind."""
    yield
    Stage.close()


class Slowest:
    """Lists that are as late as they may be: every draw comes out highest."""

    def random(self) -> float:
        """Return the highest draw."""
        return 0.999

    def randint(self, _least: int, most: int) -> int:
        """Return the highest draw."""
        return most


def late_stage(*, mapped: bool = False) -> Stage:
    """Return a stage whose lists show a row only 30 s after it was accepted."""
    stage = Stage(LATE_LISTS, mapped=mapped)
    stage.exchange.rng = Slowest()  # type: ignore[assignment]  # the two draws that the exchange makes
    return stage


def test_a_row_as_late_as_the_bound_is_still_adopted() -> None:
    """Two readings, 30 s apart, the first after the signature has expired (F17)."""
    stage = late_stage()

    ended = stage.attempt("lost after commit")

    assert ended == "success"
    assert stage.task.last is not None
    assert (stage.task.last.nonce, stage.task.last.adopted) == (stage.debits()[0].batch_nonce, True)
    assert stage.violations() == []


def test_a_row_that_was_there_before_is_not_a_candidate() -> None:
    """An equal withdrawal listed before the first request leaves one candidate, ours (F15)."""
    stage = Stage(Habits(settle_ms=NEVER_MS, global_nonces=True))
    stage.exchange.withdraw_elsewhere("SOL", Decimal(1))
    stage.pass_time(2_000)

    ended = stage.attempt("lost after commit")

    assert ended == "success"
    assert stage.task.last is not None
    assert stage.task.last.nonce == stage.debits()[0].batch_nonce
    assert stage.violations() == []


def test_two_equal_rows_in_one_window_are_unknown() -> None:
    """Nothing tells them apart, so nobody but a person chooses (F20)."""
    stage = Stage()
    stage.agenda.at(stage.agenda.now_ms + 3_000, lambda: stage.exchange.withdraw_elsewhere("SOL", Decimal(1)))

    ended = stage.attempt("lost after commit")

    assert ended == "OutcomeUnknown"
    assert stage.task.last is not None
    assert len(stage.task.last.nonces) == 2


def test_a_mapped_task_does_not_adopt_by_itself() -> None:
    """An equal sibling may stand beside it (F03, mapped)."""
    stage = Stage(mapped=True)

    ended = stage.attempt("lost after commit")

    assert ended == "OutcomeUnknown"
    assert stage.violations() == []


def test_a_burned_key_without_a_row_is_unknown() -> None:
    """The 409 is all there is to see, and it does not say how the first request ended (F18)."""
    stage = Stage(Habits(burns_keys=True, settle_ms=NEVER_MS))

    ended = stage.attempt("5xx before commit")

    assert (ended, stage.debits()) == ("OutcomeUnknown", [])


def test_a_409_to_the_first_request_is_another_s() -> None:
    """Nothing of this record was sent, so another task or deployment used the key (F16)."""
    stage = Stage()
    stage.exchange.keys[stage.task.payment.identity.idempotency_key()] = stage.agenda.now_ms

    ended = stage.attempt()

    assert ended == "OutcomeUnknown"
    assert stage.task.last is not None
    assert "another task or deployment" in stage.task.last.text


def test_a_wiped_record_is_looked_for_again_after_a_429() -> None:
    """A first look may be too early; a request that was throttled moved nothing, so the next try looks again (F54)."""
    stage = late_stage()
    stage.attempt("lost after commit", fate=Fate(kill_where="after_post"))
    stage.clear(wiped=True)
    stage.attempt("429", "429")
    stage.pass_time(HOUR)
    stage.forget_keys()

    ended = stage.attempt()

    assert {post.request.sender.attempt for post in stage.chronicle.posts} == {0, 1}
    assert (ended, len(stage.debits())) == ("OutcomeUnknown", 1)
    assert stage.violations() == []


def test_a_wiped_record_counts_every_amount_once_the_key_may_be_forgotten() -> None:
    """Even beside an unanswered request of the new amount, which is younger than the key of the old (F51, F54)."""
    stage = Stage(Habits(settle_ms=NEVER_MS, key_retention_ms=10 * MINUTE))
    stage.attempt("lost after commit", fate=Fate(kill_where="after_post"))
    stage.clear(wiped=True)
    stage.task.payment.amount = "2"
    stage.pass_time(8 * MINUTE)
    stage.attempt("lost before commit", "lost before commit")
    stage.pass_time(4 * MINUTE)

    ended = stage.attempt()

    assert (ended, len(stage.debits())) == ("OutcomeUnknown", 1)
    assert stage.violations() == []


def test_a_mapping_re_ordered_by_a_clear_pays_nothing_twice() -> None:
    """The reference moves to an index whose store knows nothing of it, after the key is forgotten (F62)."""
    stage = Stage(mapped=True)
    first, second = stage.task, stage.add("another invoice")
    assert [stage.attempt(task=first), stage.attempt(task=second)] == ["success", "success"]
    stage.pass_time(72 * HOUR)
    stage.forget_keys()
    stage.clear()
    first.payment, second.payment = second.payment, first.payment

    ended = [stage.attempt(task=first), stage.attempt(task=second)]

    assert ended == ["OutcomeUnknown", "OutcomeUnknown"]
    assert (len(stage.debits(0)), len(stage.debits(1))) == (1, 1)


@pytest.mark.parametrize("fault", ["lost after commit", "5xx after commit", "odd echo after commit"])
def test_an_old_unanswered_request_is_never_posted_again(fault: PostFault) -> None:
    """After nine minutes the key may be forgotten, so a person is asked (F55)."""
    stage = Stage()
    stage.attempt(fault, fate=Fate(kill_where="after_post"))
    stage.pass_time(20 * MINUTE)
    stage.forget_keys()

    ended = stage.attempt()

    assert (ended, len(stage.debits()), len(stage.chronicle.posts)) == ("OutcomeUnknown", 1, 1)
    assert stage.violations() == []


def test_what_was_signed_long_ago_is_not_sent() -> None:
    """A process frozen between write-ahead and send signs anew; an expired request would only be refused (F41)."""
    stage = Stage()

    ended = stage.attempt(fate=Fate(freezes={"before_post": 20_000}))

    assert (ended, len(stage.chronicle.posts), len(stage.debits())) == ("success", 1, 1)
    assert stage.violations() == []


@pytest.mark.parametrize("skew_ms", [-60_000, -8_000, 8_000, 60_000])
def test_a_worker_whose_clock_is_off_sends_nothing(skew_ms: int) -> None:
    """A signature's life is counted in the worker's clock, so it must be close to the exchange's (F29)."""
    stage = Stage()

    ended = stage.attempt(fate=Fate(skew_ms=skew_ms))

    assert (ended, stage.chronicle.posts) == ("ConfigurationError", [])


def test_a_decision_whose_removal_failed_is_applied_once() -> None:
    """It is consumed by being saved with the record, so a kill before its removal does not apply it again (F36)."""
    stage = Stage()
    stage.attempt("lost before commit", "lost before commit")
    stage.pass_time(MINUTE)
    leave(stage.task, {"action": "repost", "rows": []})
    stage.attempt(fate=Fate(kill_where="decision delete"))
    assert stage.task.shelf.decision is not None

    ended = stage.attempt()

    (record,) = json.loads(stage.task.shelf.entry or "")["records"].values()
    assert (ended, len(record["decisions"]), stage.task.shelf.decision) == ("success", 1, None)
    assert stage.violations() == []


def test_a_store_that_cannot_be_read_says_nothing_of_what_was_sent() -> None:
    """The record that could not be read may hold a request, so the claim is not that nothing was sent (F44)."""
    stage = Stage()
    stage.attempt("lost after commit", fate=Fate(kill_where="after_post"))

    ended = stage.attempt(fate=Fate(store_down=True))

    assert ended == "Unresolved"
    assert stage.violations() == []
