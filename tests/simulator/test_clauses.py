"""Schedules that single clauses of the protocol are there for, each told in a few lines."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from pacifica_provider.withdrawals.ledger import decision_entry
from tests.simulator.chronicle import START_MS
from tests.simulator.exchange import Habits
from tests.simulator.people import decide_rightly, leave
from tests.simulator.profiles import HOUR, MINUTE
from tests.simulator.stage import NEVER_MS, QUIET, Stage
from tests.simulator.tasks import HOOK_REFERENCES, MAPPED, TAGGED_MAPPED, Kind
from tests.simulator.worker import Fate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulator.weather import PostFault

LATE_LISTS = Habits(list_lag_ms=30_000, settle_ms=NEVER_MS)
DAY = 24 * HOUR


@pytest.fixture(autouse=True)
def _failpoints_are_left_as_they_were() -> Iterator[None]:
    """Leave no failpoint handler behind."""
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


def late_stage() -> Stage:
    """Return a stage whose lists show a row only 30 s after it was accepted."""
    stage = Stage(LATE_LISTS)
    stage.exchange.rng = Slowest()  # type: ignore[assignment]  # the two draws that the exchange makes
    return stage


def said(stage: Stage) -> str:
    """Return what the task's last try said."""
    assert stage.task.last is not None
    return stage.task.last.text


# -- the lists, the window, the key


def test_a_row_as_late_as_the_bound_is_still_adopted() -> None:
    """Two readings, 30 s apart, the first after the signature has expired, see it (F17)."""
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


@pytest.mark.parametrize("kind", [MAPPED, HOOK_REFERENCES])
def test_a_task_that_withdraws_several_times_does_not_adopt_by_itself(kind: Kind) -> None:
    """An equal sibling may stand beside it, so a 409 is for a person to attribute (F03, mapped, F94)."""
    stage = Stage(kind=kind, references=["invoice"])

    ended = stage.attempt("lost after commit")

    assert ended == "OutcomeUnknown"
    assert stage.violations() == []


def test_a_tagged_amount_is_recognised_beside_its_siblings() -> None:
    """No other withdrawal has this amount, so a mapped task needs no person to attribute its 409 (F03, mapped)."""
    stage = Stage(kind=TAGGED_MAPPED)
    other = stage.add("another invoice")
    stage.attempt(task=other)

    ended = stage.attempt("lost after commit")

    assert ended == "success"
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
    assert "another task or deployment" in said(stage)


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


def test_a_409_that_the_lists_explain_late_is_settled_by_clearing() -> None:
    """A stored unknown of a 409 is settled again by reading alone, once the row is listed (F17)."""
    stage = Stage(replace(LATE_LISTS, list_lag_ms=5 * MINUTE))
    stage.exchange.rng = Slowest()  # type: ignore[assignment]  # the two draws that the exchange makes
    assert stage.attempt("lost after commit") == "OutcomeUnknown"
    stage.pass_time(5 * MINUTE)
    stage.clear()

    ended = stage.attempt()

    assert (ended, len(stage.chronicle.posts)) == ("success", 2)
    assert stage.violations() == []


@pytest.mark.parametrize("window_ms", [30_000, 200_000])
def test_no_request_lives_when_the_key_may_be_forgotten(window_ms: int) -> None:
    """A long window brings the end of key trust forward, so no second request can outlive the key (F89)."""
    stage = Stage(Habits(settle_ms=NEVER_MS, key_retention_ms=10 * MINUTE))
    stage.exchange.window_ms = window_ms
    stage.attempt("lost after commit", fate=Fate(kill_where="after_post"))
    stage.pass_time(9 * MINUTE - 15_000)

    ended = stage.attempt("lost before commit")

    assert (ended, len(stage.chronicle.posts)) == ("OutcomeUnknown", 1)


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


# -- refusals, and requests that were not processed


def test_a_request_delivered_twice_is_not_called_refused() -> None:
    """The first delivery was accepted, the second refused; the lists show it before anything is said (F90)."""
    stage = late_stage()
    stage.weather.rng.random = lambda: 0.999  # type: ignore[method-assign]  # the second delivery is refused

    ended = stage.attempt("delivered twice")

    assert (ended, len(stage.debits())) == ("OutcomeUnknown", 1)
    assert stage.violations() == []


def test_a_refused_order_is_made_anew_only_after_reading_the_lists() -> None:
    """What a refused request came to all the same may be listed only later; then the new order asks (F90)."""
    stage = Stage(replace(LATE_LISTS, list_lag_ms=5 * MINUTE))
    stage.exchange.rng = Slowest()  # type: ignore[assignment]  # the two draws that the exchange makes
    stage.weather.rng.random = lambda: 0.999  # type: ignore[method-assign]  # the second delivery is refused
    assert stage.attempt("delivered twice") == "WithdrawalRejected"
    stage.pass_time(HOUR)
    stage.forget_keys()
    stage.clear()

    ended = stage.attempt()

    assert (ended, len(stage.debits())) == ("OutcomeUnknown", 1)


def test_a_refusal_that_is_not_concluded_says_nothing_of_money() -> None:
    """A worker that dies before the two readings leaves a refusal, which alone proves nothing (F90, F44)."""
    stage = Stage()
    stage.weather.rng.random = lambda: 0.999  # type: ignore[method-assign]  # the second delivery is refused
    stage.attempt("delivered twice", fate=Fate(kill_where="GET history"))
    stage.task.payment.amount = "2"

    stage.attempt()

    assert "No money moved" not in said(stage)
    assert stage.violations() == []


@pytest.mark.parametrize("gone", [True, False])
def test_a_refusal_is_not_concluded_past_a_row_that_another_fee_hides(*, gone: bool) -> None:
    """The fee changes, or the bridge is gone, before the lists are read; a row that could be ours counts (F90, F93)."""
    stage = Stage()
    stage.weather.rng.random = lambda: 0.999  # type: ignore[method-assign]  # the second delivery is refused
    stage.attempt("delivered twice", fate=Fate(kill_where="GET history"))
    stage.exchange.settle()
    stage.exchange.charge(Decimal("0.003"))
    stage.exchange.bridge_gone = gone

    ended = stage.attempt()

    assert ended == "OutcomeUnknown"
    assert stage.violations() == []


def test_a_refusal_is_concluded_only_when_its_signature_is_dead() -> None:
    """The refused request is delivered again nine seconds later, and its row is listed 30 s after that (F90, F17)."""
    stage = late_stage()
    stage.exchange.refusing = True

    def again() -> None:
        stage.exchange.refusing = False
        stage.exchange.receive(stage.chronicle.posts[0].request)

    stage.agenda.at(stage.agenda.now_ms + 9_000, again)

    ended = stage.attempt()

    assert (ended, len(stage.debits())) == ("OutcomeUnknown", 1)
    assert stage.violations() == []


def test_a_row_that_fits_is_not_adopted_beside_one_that_another_fee_hides() -> None:
    """Ours is on chain and shows net of the old fee; the one that fits is another's (F93, F94)."""
    stage = Stage(Habits(settle_ms=NEVER_MS, global_nonces=True))
    stage.attempt("lost after commit", fate=Fate(kill_where="after_post"))
    stage.exchange.settle()
    stage.exchange.charge(Decimal("0.003"))
    stage.exchange.withdraw_elsewhere("SOL", Decimal(1))

    ended = stage.attempt()

    assert (ended, len(stage.debits())) == ("OutcomeUnknown", 1)
    assert stage.violations() == []


def test_a_throttled_request_does_not_count_as_sent() -> None:
    """A 429 was not processed: a refusal after it is the answer to the only request (F95)."""
    stage = Stage()

    ended = stage.attempt("429", "refused")

    assert (ended, stage.debits()) == ("WithdrawalRejected", [])
    assert stage.violations() == []


# -- the ledger


def test_a_ledger_that_cannot_be_read_says_nothing_of_what_was_sent() -> None:
    """The record that could not be read may hold a request, so the claim is not that nothing was sent (F44)."""
    stage = Stage()
    stage.attempt("lost after commit", fate=Fate(kill_where="after_post"))

    ended = stage.attempt(fate=Fate(ledger_down=True))

    assert ended == "Unresolved"
    assert stage.violations() == []


def test_a_run_made_again_says_nothing_it_cannot_read() -> None:
    """Its first try is not the first: the deleted run may have paid, and the ledger is down (F66, F44)."""
    stage = Stage()
    stage.attempt()
    stage.run.recreate()
    (again,) = stage.run.tasks

    ended = stage.attempt(task=again, fate=Fate(ledger_down=True))

    assert ended == "Unresolved"
    assert stage.violations() == []


def test_a_run_made_again_pays_nothing_twice() -> None:
    """The ledger outlives the run, and the key need not be remembered (F66)."""
    stage = Stage()
    stage.attempt()
    stage.pass_time(3 * DAY)
    stage.forget_keys()
    stage.run.recreate()
    (again,) = stage.run.tasks

    ended = stage.attempt(task=again)

    assert (ended, len(stage.chronicle.posts)) == ("success", 1)


def test_a_mapping_re_ordered_by_a_clear_pays_nothing_twice() -> None:
    """The record is named by the reference, so it is met at whatever index that comes to (F62, F85)."""
    stage = Stage(kind=MAPPED)
    first, second = stage.task, stage.add("another invoice")
    assert [stage.attempt(task=first), stage.attempt(task=second)] == ["success", "success"]
    stage.pass_time(3 * DAY)
    stage.forget_keys()
    stage.clear()
    first.payments, second.payments = second.payments, first.payments

    ended = [stage.attempt(task=first), stage.attempt(task=second)]

    assert ended == ["success", "success"]
    assert (len(stage.debits(0)), len(stage.debits(1))) == (1, 1)


def test_a_mapping_grown_by_a_clear_refuses_a_new_reference_at_an_old_index() -> None:
    """An index that has paid one reference pays no other; a list is to be appended to (F62, F85, F101)."""
    stage = Stage(kind=MAPPED)
    stage.attempt()
    stage.clear()
    stage.task.payments = [stage.payment("put in front")]

    ended = stage.attempt()

    assert (ended, len(stage.chronicle.posts)) == ("ParameterMismatch", 1)


def test_one_look_proves_nothing_for_a_record_that_is_lost() -> None:
    """The row was between the lists at that look; once the key may be forgotten, a person is asked (F87)."""
    stage = Stage(Habits(settle_ms=NEVER_MS, settle_gap_ms=HOUR))
    stage.attempt()
    stage.exchange.settle()
    stage.pass_time(20 * MINUTE)
    stage.forget_keys()
    stage.restore(START_MS - 1)

    ended = stage.attempt()

    assert (ended, len(stage.debits())) == ("OutcomeUnknown", 1)
    assert "may be lost" in said(stage)


@pytest.mark.parametrize("started", [True, False])
def test_a_backup_of_which_the_ledger_knows_pays_nothing_twice(*, started: bool) -> None:
    """Airflow forgets the run's tries with the record, so its next try looks like the first (F47, F66)."""
    stage = Stage()
    if started:
        stage.attempt(fate=Fate(kill_where="before_record"))
    backup_ms = stage.agenda.now_ms
    stage.pass_time(MINUTE)
    assert stage.attempt() == "success"
    stage.pass_time(3 * DAY)
    stage.forget_keys()
    stage.restore(backup_ms)

    ended = stage.attempt()

    assert (ended, len(stage.debits())) == ("OutcomeUnknown", 1)


def test_a_record_older_than_its_ledger_s_backup_proves_nothing() -> None:
    """It was refused when the backup was made, and paid afterwards (F47, F90)."""
    stage = Stage()
    stage.exchange.balance = Decimal(0)
    assert stage.attempt() == "WithdrawalRejected"
    backup_ms = stage.agenda.now_ms
    stage.exchange.balance = Decimal(1000)
    stage.pass_time(MINUTE)
    stage.clear()
    assert stage.attempt() == "success"
    stage.pass_time(3 * DAY)
    stage.forget_keys()
    stage.restore(backup_ms)

    ended = stage.attempt()

    assert (ended, len(stage.debits())) == ("OutcomeUnknown", 1)


def test_a_pruned_withdrawal_asks_instead_of_paying() -> None:
    """Also at the first try of its run made again (F66, F87)."""
    stage = Stage()
    stage.attempt()
    stage.pass_time(40 * DAY)
    stage.forget_keys()
    stage.ledger.prune(stage.agenda.now_ms - 30 * DAY)
    stage.run.recreate()
    (again,) = stage.run.tasks

    ended = stage.attempt(task=again)

    assert (ended, len(stage.debits())) == ("OutcomeUnknown", 1)


def test_the_task_s_entry_speaks_for_a_record_that_is_lost() -> None:
    """It says that there was a request under this reference, though the run is younger than the ledger (F47)."""
    stage = Stage()
    stage.attempt()
    stage.pass_time(3 * DAY)
    stage.forget_keys()
    stage.ledger.lose(record_entry(stage), "record lost")
    stage.clear()

    ended = stage.attempt()

    assert (ended, len(stage.debits())) == ("OutcomeUnknown", 1)


def test_a_lost_record_is_looked_for_again_after_a_429() -> None:
    """A first look may be too early; a request that was throttled moved nothing, so the next try looks again (F54)."""
    stage = Stage(LATE_LISTS, born_ms=START_MS + 1)
    stage.exchange.rng = Slowest()  # type: ignore[assignment]  # the two draws that the exchange makes
    stage.attempt("lost after commit", fate=Fate(kill_where="after_post"))
    for name in [name for name in stage.ledger.names() if name != "ledger"]:
        stage.ledger.lose(name, "record lost")
    throttled: list[PostFault | None] = ["429"] * 60
    stage.attempt(*throttled)
    stage.pass_time(HOUR)
    stage.forget_keys()

    ended = stage.attempt()

    assert {post.request.sender.attempt for post in stage.chronicle.posts} == {0, 1}
    assert (ended, len(stage.debits())) == ("OutcomeUnknown", 1)


def test_a_task_that_never_ran_needs_nobody_though_another_was_cleared() -> None:
    """The run is younger than the ledger, so an absent record proves that nothing was sent (F96)."""
    stage = Stage()
    stage.clear()
    stage.exchange.withdraw_elsewhere("SOL", Decimal(1))
    stage.attempt(fate=Fate(kill_where="before_record"))
    stage.pass_time(20 * MINUTE)

    ended = stage.attempt()

    assert (ended, len(stage.debits())) == ("success", 1)


def test_a_dead_worker_is_replaced_while_the_key_is_known() -> None:
    """Airflow misses a heartbeat after five minutes, and the operator's delay is one: no person is needed (F97)."""
    stage = Stage()
    stage.attempt("lost after commit", fate=Fate(kill_where="after_post"))
    stage.pass_time(5 * MINUTE + MINUTE)

    ended = stage.attempt()

    assert (ended, len(stage.debits())) == ("success", 1)
    assert stage.violations() == []


@pytest.mark.parametrize("fenced", [True, False])
def test_a_refusal_in_the_hand_of_a_replaced_try_is_not_written(*, fenced: bool) -> None:
    """The newer try paid meanwhile: the older one leaves its record alone and claims nothing (F92, F41)."""
    # fails for the mutant: what another try wrote is overwritten
    stage = Stage(fenced=fenced)
    stage.attempt("refused", fate=Fate(freezes={"after_post": 20 * MINUTE}))
    stage.attempt()
    stage.pass_time(HOUR)

    assert claimed(stage) == ["success", "Unresolved"]
    assert (stage.record()["state"], len(stage.debits())) == ("accepted", 1)


@pytest.mark.parametrize("fenced", [True, False])
@pytest.mark.parametrize("trouble", ["get_trouble", "guard"])
def test_a_replaced_try_that_sent_nothing_does_not_say_that_nothing_moved(*, trouble: str, fenced: bool) -> None:
    """It read an empty record, the newer try paid; then the exchange is gone, or a guard refuses (F92)."""
    # fails for the mutant: a claim that nothing moved is not confirmed
    stage = Stage(fenced=fenced)
    bad = replace(QUIET, **{trouble: 1.0})  # type: ignore[arg-type]  # a float field, named by the parameter
    stage.weather.profile = bad if trouble == "guard" else QUIET  # a guard is drawn when the try begins
    stage.attempt(fate=Fate(freezes={"get ledger, unanswered": 20 * MINUTE}))
    stage.weather.profile = QUIET
    stage.attempt()
    stage.weather.profile = bad
    stage.pass_time(HOUR)

    assert claimed(stage) == ["success", "Unresolved"]
    assert len(stage.debits()) == 1


def test_a_replaced_try_does_not_speak_for_one_that_has_written_nothing_yet() -> None:
    """Its refusal is not written, since it has been replaced; the newer try finds a lost request, and pays (F92)."""
    # fails for the mutant: a write that failed does not spoil the claim
    stage = Stage()
    stage.attempt("refused", fate=Fate(freezes={"after_post": MINUTE}))
    stage.attempt(fate=Fate(freezes={"before_record": 4 * MINUTE}))
    stage.pass_time(HOUR)

    assert claimed(stage) == ["Unresolved", "success"]
    assert len(stage.debits()) == 1


# -- several references in one task


def test_a_second_reference_is_not_taken_for_the_first() -> None:
    """The first is unknown and adopted by a person; the second, whose run was paid before, is not paid again (F83)."""
    stage = Stage(kind=HOOK_REFERENCES, references=["one", "two"])
    assert stage.attempt() == "success"
    stage.pass_time(3 * DAY)
    stage.forget_keys()
    stage.restore(START_MS - 1)
    assert stage.attempt() == "OutcomeUnknown"
    adopt = decide_rightly(stage.task)
    leave(stage.task, adopt)
    stage.clear()

    ended = stage.attempt()

    assert (ended, [len(stage.debits(owner)) for owner in (0, 1)]) == ("OutcomeUnknown", [1, 1])
    assert stage.violations() == []


def test_a_loop_of_references_goes_on_past_the_first() -> None:
    """The second's answer was lost; a retry recalls the first and settles the second (F91)."""
    stage = Stage(kind=HOOK_REFERENCES, references=["one", "two"])
    stage.attempt(None, "lost before commit", "lost before commit")
    stage.pass_time(MINUTE)

    ended = stage.attempt()

    assert (ended, [len(stage.debits(owner)) for owner in (0, 1)]) == ("success", [1, 1])
    assert stage.violations() == []


def test_a_second_call_under_one_reference_gets_the_first_one_s_receipt() -> None:
    """Through the seam it is the same withdrawal; that a try calls twice is refused by the hook (F103)."""
    stage = Stage(kind=HOOK_REFERENCES, references=["one"])
    stage.task.payments *= 2

    ended = stage.attempt()

    assert (ended, len(stage.debits())) == ("success", 1)
    assert len({claim.nonce for claim in stage.chronicle.claims}) == 1


def test_a_drifting_reference_pays_once() -> None:
    """A template with a time in it renders to another reference at every try (F101)."""
    stage = Stage(references=["daily-1"])
    stage.attempt("lost after commit", fate=Fate(kill_where="after_post"))
    stage.task.payments[0].identity = stage.payment("daily-2").identity

    ended = stage.attempt()

    assert (ended, len(stage.chronicle.posts)) == ("ParameterMismatch", 1)
    assert "'daily-1'" in said(stage)


def test_a_reference_that_drifts_and_comes_back_pays_once() -> None:
    """The first was refused, the drifted one was paid: the first is not ordered anew (F101)."""
    stage = Stage(references=["daily-1"])
    first, drifted = stage.task.payments[0].identity, stage.payment("daily-2").identity
    stage.attempt("refused")
    stage.task.payments[0].identity = drifted
    assert stage.attempt() == "success"
    stage.task.payments[0].identity = first

    ended = stage.attempt()

    assert (ended, len(stage.debits())) == ("ParameterMismatch", 1)


# -- rows that a person has to see


@pytest.mark.parametrize(("skew_ms", "of_a_second_ms"), [(-5_500, 900), (5_500, 0)])
def test_a_clock_that_is_hardly_off_hides_no_row(skew_ms: int, of_a_second_ms: int) -> None:
    """One tolerance for clocks everywhere: what may be posted by may be seen by (F93)."""
    stage = Stage()
    stage.pass_time(of_a_second_ms)  # a Date has whole seconds
    stage.attempt("lost after commit", fate=Fate(kill_where="after_post", skew_ms=skew_ms))
    stage.pass_time(20 * MINUTE)
    stage.forget_keys()

    stage.attempt()

    assert len(stage.debits()) == 1
    assert stage.task.last is not None
    assert stage.task.last.nonces == (stage.debits()[0].batch_nonce,)
    assert "made while a request of this run was valid" in said(stage)
    assert stage.violations() == []


@pytest.mark.parametrize("gone", [True, False])
def test_a_changed_fee_hides_no_row(*, gone: bool) -> None:
    """The history shows net of the old fee, or the fee cannot be had: the row is shown, and a repost names it (F93)."""
    stage = Stage()
    stage.attempt("lost after commit", fate=Fate(kill_where="after_post"))
    stage.exchange.settle()
    stage.exchange.charge(Decimal("0.003"))
    stage.exchange.bridge_gone = gone
    stage.pass_time(20 * MINUTE)
    stage.forget_keys()
    assert stage.attempt() == "OutcomeUnknown"
    leave(stage.task, {"action": "repost", "fingerprint": stage.record()["fingerprint"], "attempts": 1, "rows": []})
    stage.clear()

    ended = stage.attempt()

    assert (ended, len(stage.debits())) == ("OutcomeUnknown", 1)
    assert stage.task.last is not None
    assert stage.task.last.nonces == (stage.debits()[0].batch_nonce,)


def test_an_unknown_shows_what_was_listed_after_the_last_request() -> None:
    """The lists were read before an order made anew was posted; the row of its lost request is shown (F93, F25)."""
    # fails for the mutant: a list read before the request counts after it
    stage = Stage()
    assert stage.attempt("refused") == "WithdrawalRejected"
    stage.clear()

    ended = stage.attempt("lost after commit", "refused")

    assert ended == "OutcomeUnknown"
    assert stage.task.last is not None
    assert stage.task.last.nonces == (stage.debits()[0].batch_nonce,)


# -- decisions


def test_a_decision_whose_removal_failed_is_applied_once() -> None:
    """It is consumed by being saved with the record, so a kill before its removal does not apply it again (F36)."""
    stage = Stage()
    stage.attempt("lost before commit", "lost before commit")
    stage.pass_time(MINUTE)
    leave(stage.task, reposting(stage))
    stage.attempt(fate=Fate(kill_where="delete decision"))
    assert waiting(stage) is not None

    ended = stage.attempt()

    assert (ended, len(stage.record()["decisions"]), waiting(stage)) == ("success", 1, None)
    assert stage.violations() == []


def test_a_repost_decided_before_the_next_request_is_dropped() -> None:
    """It was right after one request; a second has moved since, and its row is between the lists (F98)."""
    # fails for the mutant: a repost is not bound to the number of requests
    stage = Stage(Habits(settle_ms=NEVER_MS, settle_gap_ms=HOUR))
    stage.attempt("lost before commit", fate=Fate(kill_where="after_post"))
    early = reposting(stage)
    stage.pass_time(MINUTE)
    stage.attempt("lost after commit", fate=Fate(kill_where="after_post"))
    stage.exchange.settle()
    leave(stage.task, early)
    stage.pass_time(20 * MINUTE)
    stage.forget_keys()

    ended = stage.attempt()

    assert (ended, len(stage.debits()), stage.record()["decisions"]) == ("OutcomeUnknown", 1, [])
    assert waiting(stage) is None


def test_an_adoption_decided_on_another_order_is_dropped() -> None:
    """The key is the same, the order was made anew with another amount after a refusal (F98)."""
    # fails for the mutant: a decision is not bound to its order
    stage = Stage()
    stage.attempt("refused")
    first = stage.record()["fingerprint"]
    stage.task.payment.amount = "2"
    row = stage.exchange.withdraw_elsewhere("SOL", Decimal(2))
    stage.attempt("lost before commit", fate=Fate(kill_where="after_post"))
    naming = {"batch_nonce": row.batch_nonce, "created_at_ms": row.created_ms, "amount": "2"}
    leave(stage.task, {"action": "adopt", "fingerprint": first, **naming})
    stage.pass_time(20 * MINUTE)

    ended = stage.attempt()

    assert (ended, stage.record()["receipt"]) == ("OutcomeUnknown", None)


def test_a_repost_that_does_not_name_a_listed_row_is_dropped() -> None:
    """Somebody who did not see the row cannot say that it is not this one (F98)."""
    # fails for the mutant: a repost need not name the rows
    stage = Stage()
    stage.attempt("lost after commit", fate=Fate(kill_where="after_post"))
    leave(stage.task, reposting(stage))
    stage.pass_time(20 * MINUTE)
    stage.forget_keys()

    ended = stage.attempt()

    assert (ended, len(stage.debits())) == ("OutcomeUnknown", 1)


def test_a_repost_after_a_refusal_is_posted() -> None:
    """What was unanswered and what was refused are both overruled by the person (F25)."""
    stage = Stage()
    assert stage.attempt("lost before commit", "refused") == "OutcomeUnknown"
    leave(stage.task, reposting(stage))
    stage.clear()

    ended = stage.attempt()

    assert (ended, len(stage.debits())) == ("success", 1)


@pytest.mark.parametrize(
    "decision", ["repost", 17, [], {"action": ["void"], "by": "ana"}, {"action": "pay", "by": "b"}]
)
def test_a_malformed_decision_does_not_block_the_task(decision: object) -> None:
    """It is dropped with a line in the log, and the try goes on (F99)."""
    stage = Stage()
    stage.attempt("lost before commit", fate=Fate(kill_where="after_post"))
    leave(stage.task, decision)
    stage.pass_time(MINUTE)

    ended = stage.attempt()

    assert (ended, waiting(stage), len(stage.debits())) == ("success", None, 1)


def reposting(stage: Stage) -> dict[str, object]:
    """Return a repost that fits the record as it stands, and names no row."""
    record = stage.record()
    attempts = len(record["attempts"])
    return {"action": "repost", "fingerprint": record["fingerprint"], "attempts": attempts, "rows": []}


def claimed(stage: Stage) -> list[str]:
    """Return what every try claimed, in the order of their ends; also what nobody hears any more."""
    return [claim.kind for claim in stage.chronicle.claims]


def record_entry(stage: Stage) -> str:
    """Return the name of the record's entry."""
    (name,) = [name for name in stage.ledger.names() if name.startswith("withdrawal_")]
    return name


def waiting(stage: Stage) -> object | None:
    """Return the decision that waits in the ledger."""
    identity = stage.task.payment.identity
    name = decision_entry(identity.dag_id, identity.run_id, identity.task_id, identity.withdrawal_ref)
    return json.loads(stage.ledger.entries[name]) if name in stage.ledger.entries else None
