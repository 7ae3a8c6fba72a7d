"""Schedules that single clauses of the protocol are there for, each told in a few lines."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from pacifica_provider.withdrawals.ledger import decision_entry
from tests.simulator.exchange import ExchangeOptions
from tests.simulator.history import START_MS
from tests.simulator.people import decide_rightly, leave
from tests.simulator.profiles import HOUR, MINUTE
from tests.simulator.scripted import NEVER_MS, QUIET, ScriptedWorld
from tests.simulator.tasks import HOOK_REFERENCES, MAPPED, TAGGED_MAPPED, Kind
from tests.simulator.worker import ProcessFaults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulator.fault_injector import PostFault

LATE_LISTS = ExchangeOptions(list_lag_ms=30_000, settle_ms=NEVER_MS)
DAY = 24 * HOUR


@pytest.fixture(autouse=True)
def _failpoints_are_left_as_they_were() -> Iterator[None]:
    """Leave no failpoint handler behind."""
    yield
    ScriptedWorld.close()


class Slowest:
    """Lists that are as late as they may be: every draw comes out highest."""

    def random(self) -> float:
        """Return the highest draw."""
        return 0.999

    def randint(self, _least: int, most: int) -> int:
        """Return the highest draw."""
        return most


def late_stage() -> ScriptedWorld:
    """Return a stage whose lists show a row only 30 s after it was accepted."""
    scripted = ScriptedWorld(LATE_LISTS)
    scripted.exchange.rng = Slowest()  # type: ignore[assignment]  # the two draws that the exchange makes
    return scripted


def said(scripted: ScriptedWorld) -> str:
    """Return what the task's last try said."""
    assert scripted.task.last is not None
    return scripted.task.last.text


# -- the lists, the window, the key


def test_a_row_as_late_as_the_bound_is_still_adopted() -> None:
    """Two readings, 30 s apart, the first after the signature has expired, see it (F17)."""
    scripted = late_stage()

    ended = scripted.attempt("lost after commit")

    assert ended == "success"
    assert scripted.task.last is not None
    assert (scripted.task.last.nonce, scripted.task.last.adopted) == (scripted.debits()[0].batch_nonce, True)
    assert scripted.violations() == []


def test_a_row_that_was_there_before_is_not_a_candidate() -> None:
    """An equal withdrawal listed before the first request leaves one candidate, ours (F15)."""
    scripted = ScriptedWorld(ExchangeOptions(settle_ms=NEVER_MS, global_nonces=True))
    scripted.exchange.withdraw_elsewhere("SOL", Decimal(1))
    scripted.pass_time(2_000)

    ended = scripted.attempt("lost after commit")

    assert ended == "success"
    assert scripted.task.last is not None
    assert scripted.task.last.nonce == scripted.debits()[0].batch_nonce
    assert scripted.violations() == []


def test_two_equal_rows_in_one_window_are_unknown() -> None:
    """Nothing tells them apart, so nobody but a person chooses (F20)."""
    scripted = ScriptedWorld()
    scripted.scheduler.at(
        scripted.scheduler.now_ms + 3_000, lambda: scripted.exchange.withdraw_elsewhere("SOL", Decimal(1))
    )

    ended = scripted.attempt("lost after commit")

    assert ended == "OutcomeUnknown"
    assert scripted.task.last is not None
    assert len(scripted.task.last.nonces) == 2


@pytest.mark.parametrize("kind", [MAPPED, HOOK_REFERENCES])
def test_a_task_that_withdraws_several_times_does_not_adopt_by_itself(kind: Kind) -> None:
    """An equal sibling may stand beside it, so a 409 is for a person to attribute (F03, mapped, F94)."""
    scripted = ScriptedWorld(kind=kind, references=["invoice"])

    ended = scripted.attempt("lost after commit")

    assert ended == "OutcomeUnknown"
    assert scripted.violations() == []


def test_a_tagged_amount_is_recognised_beside_its_siblings() -> None:
    """No other withdrawal has this amount, so a mapped task needs no person to attribute its 409 (F03, mapped)."""
    scripted = ScriptedWorld(kind=TAGGED_MAPPED)
    other = scripted.add("another invoice")
    scripted.attempt(task=other)

    ended = scripted.attempt("lost after commit")

    assert ended == "success"
    assert scripted.violations() == []


def test_a_burned_key_without_a_row_is_unknown() -> None:
    """The 409 is all there is to see, and it does not say how the first request ended (F18)."""
    scripted = ScriptedWorld(ExchangeOptions(burns_keys=True, settle_ms=NEVER_MS))

    ended = scripted.attempt("5xx before commit")

    assert (ended, scripted.debits()) == ("OutcomeUnknown", [])


def test_a_409_to_the_first_request_is_another_s() -> None:
    """Nothing of this record was sent, so another task or deployment used the key (F16)."""
    scripted = ScriptedWorld()
    scripted.exchange.keys[scripted.task.payment.identity.idempotency_key()] = scripted.scheduler.now_ms

    ended = scripted.attempt()

    assert ended == "OutcomeUnknown"
    assert "another task or deployment" in said(scripted)


@pytest.mark.parametrize("fault", ["lost after commit", "5xx after commit", "odd echo after commit"])
def test_an_old_unanswered_request_is_never_posted_again(fault: PostFault) -> None:
    """After nine minutes the key may be forgotten, so a person is asked (F55)."""
    scripted = ScriptedWorld()
    scripted.attempt(fault, process_faults=ProcessFaults(kill_where="after_post"))
    scripted.pass_time(20 * MINUTE)
    scripted.forget_keys()

    ended = scripted.attempt()

    assert (ended, len(scripted.debits()), len(scripted.history.posts)) == ("OutcomeUnknown", 1, 1)
    assert scripted.violations() == []


def test_a_409_that_the_lists_explain_late_is_settled_by_clearing() -> None:
    """A stored unknown of a 409 is settled again by reading alone, once the row is listed (F17)."""
    scripted = ScriptedWorld(replace(LATE_LISTS, list_lag_ms=5 * MINUTE))
    scripted.exchange.rng = Slowest()  # type: ignore[assignment]  # the two draws that the exchange makes
    assert scripted.attempt("lost after commit") == "OutcomeUnknown"
    scripted.pass_time(5 * MINUTE)
    scripted.clear()

    ended = scripted.attempt()

    assert (ended, len(scripted.history.posts)) == ("success", 2)
    assert scripted.violations() == []


@pytest.mark.parametrize("window_ms", [30_000, 200_000])
def test_no_request_lives_when_the_key_may_be_forgotten(window_ms: int) -> None:
    """A long window brings the end of key trust forward, so no second request can outlive the key (F89)."""
    scripted = ScriptedWorld(ExchangeOptions(settle_ms=NEVER_MS, key_retention_ms=10 * MINUTE))
    scripted.exchange.window_ms = window_ms
    scripted.attempt("lost after commit", process_faults=ProcessFaults(kill_where="after_post"))
    scripted.pass_time(9 * MINUTE - 15_000)

    ended = scripted.attempt("lost before commit")

    assert (ended, len(scripted.history.posts)) == ("OutcomeUnknown", 1)


def test_what_was_signed_long_ago_is_not_sent() -> None:
    """A process frozen between write-ahead and send signs anew; an expired request would only be refused (F41)."""
    scripted = ScriptedWorld()

    ended = scripted.attempt(process_faults=ProcessFaults(freezes={"before_post": 20_000}))

    assert (ended, len(scripted.history.posts), len(scripted.debits())) == ("success", 1, 1)
    assert scripted.violations() == []


@pytest.mark.parametrize("skew_ms", [-60_000, -8_000, 8_000, 60_000])
def test_a_worker_whose_clock_is_off_sends_nothing(skew_ms: int) -> None:
    """A signature's life is counted in the worker's clock, so it must be close to the exchange's (F29)."""
    scripted = ScriptedWorld()

    ended = scripted.attempt(process_faults=ProcessFaults(skew_ms=skew_ms))

    assert (ended, scripted.history.posts) == ("ConfigurationError", [])


# -- refusals, and requests that were not processed


def test_a_request_delivered_twice_is_not_called_refused() -> None:
    """The first delivery was accepted, the second refused; the lists show it before anything is said (F90)."""
    scripted = late_stage()
    scripted.injector.rng.random = lambda: 0.999  # type: ignore[method-assign]  # the second delivery is refused

    ended = scripted.attempt("delivered twice")

    assert (ended, len(scripted.debits())) == ("OutcomeUnknown", 1)
    assert scripted.violations() == []


def test_a_refused_order_is_made_anew_only_after_reading_the_lists() -> None:
    """What a refused request came to all the same may be listed only later; then the new order asks (F90)."""
    scripted = ScriptedWorld(replace(LATE_LISTS, list_lag_ms=5 * MINUTE))
    scripted.exchange.rng = Slowest()  # type: ignore[assignment]  # the two draws that the exchange makes
    scripted.injector.rng.random = lambda: 0.999  # type: ignore[method-assign]  # the second delivery is refused
    assert scripted.attempt("delivered twice") == "WithdrawalRejected"
    scripted.pass_time(HOUR)
    scripted.forget_keys()
    scripted.clear()

    ended = scripted.attempt()

    assert (ended, len(scripted.debits())) == ("OutcomeUnknown", 1)


def test_a_refusal_that_is_not_concluded_says_nothing_of_money() -> None:
    """A worker that dies before the two readings leaves a refusal, which alone proves nothing (F90, F44)."""
    scripted = ScriptedWorld()
    scripted.injector.rng.random = lambda: 0.999  # type: ignore[method-assign]  # the second delivery is refused
    scripted.attempt("delivered twice", process_faults=ProcessFaults(kill_where="GET history"))
    scripted.task.payment.amount = "2"

    scripted.attempt()

    assert "No money moved" not in said(scripted)
    assert scripted.violations() == []


@pytest.mark.parametrize("gone", [True, False])
def test_a_refusal_is_not_concluded_past_a_row_that_another_fee_hides(*, gone: bool) -> None:
    """The fee changes, or the bridge is gone, before the lists are read; a row that could be ours counts (F90, F93)."""
    scripted = ScriptedWorld()
    scripted.injector.rng.random = lambda: 0.999  # type: ignore[method-assign]  # the second delivery is refused
    scripted.attempt("delivered twice", process_faults=ProcessFaults(kill_where="GET history"))
    scripted.exchange.settle()
    scripted.exchange.charge(Decimal("0.003"))
    scripted.exchange.bridge_gone = gone

    ended = scripted.attempt()

    assert ended == "OutcomeUnknown"
    assert scripted.violations() == []


def test_a_refusal_is_concluded_only_when_its_signature_is_dead() -> None:
    """The refused request is delivered again nine seconds later, and its row is listed 30 s after that (F90, F17)."""
    scripted = late_stage()
    scripted.exchange.refusing = True

    def again() -> None:
        scripted.exchange.refusing = False
        scripted.exchange.receive(scripted.history.posts[0].request)

    scripted.scheduler.at(scripted.scheduler.now_ms + 9_000, again)

    ended = scripted.attempt()

    assert (ended, len(scripted.debits())) == ("OutcomeUnknown", 1)
    assert scripted.violations() == []


def test_a_row_that_fits_is_not_adopted_beside_one_that_another_fee_hides() -> None:
    """Ours is on chain and shows net of the old fee; the one that fits is another's (F93, F94)."""
    scripted = ScriptedWorld(ExchangeOptions(settle_ms=NEVER_MS, global_nonces=True))
    scripted.attempt("lost after commit", process_faults=ProcessFaults(kill_where="after_post"))
    scripted.exchange.settle()
    scripted.exchange.charge(Decimal("0.003"))
    scripted.exchange.withdraw_elsewhere("SOL", Decimal(1))

    ended = scripted.attempt()

    assert (ended, len(scripted.debits())) == ("OutcomeUnknown", 1)
    assert scripted.violations() == []


def test_a_throttled_request_does_not_count_as_sent() -> None:
    """A 429 was not processed: a refusal after it is the answer to the only request (F95)."""
    scripted = ScriptedWorld()

    ended = scripted.attempt("429", "refused")

    assert (ended, scripted.debits()) == ("WithdrawalRejected", [])
    assert scripted.violations() == []


# -- the ledger


def test_a_ledger_that_cannot_be_read_says_nothing_of_what_was_sent() -> None:
    """The record that could not be read may hold a request, so the claim is not that nothing was sent (F44)."""
    scripted = ScriptedWorld()
    scripted.attempt("lost after commit", process_faults=ProcessFaults(kill_where="after_post"))

    ended = scripted.attempt(process_faults=ProcessFaults(ledger_down=True))

    assert ended == "Unresolved"
    assert scripted.violations() == []


def test_a_run_made_again_says_nothing_it_cannot_read() -> None:
    """Its first try is not the first: the deleted run may have paid, and the ledger is down (F66, F44)."""
    scripted = ScriptedWorld()
    scripted.attempt()
    scripted.run.recreate()
    (again,) = scripted.run.tasks

    ended = scripted.attempt(task=again, process_faults=ProcessFaults(ledger_down=True))

    assert ended == "Unresolved"
    assert scripted.violations() == []


def test_a_run_made_again_pays_nothing_twice() -> None:
    """The ledger outlives the run, and the key need not be remembered (F66)."""
    scripted = ScriptedWorld()
    scripted.attempt()
    scripted.pass_time(3 * DAY)
    scripted.forget_keys()
    scripted.run.recreate()
    (again,) = scripted.run.tasks

    ended = scripted.attempt(task=again)

    assert (ended, len(scripted.history.posts)) == ("success", 1)


def test_a_mapping_re_ordered_by_a_clear_pays_nothing_twice() -> None:
    """The record is named by the reference, so it is met at whatever index that comes to (F62, F85)."""
    scripted = ScriptedWorld(kind=MAPPED)
    first, second = scripted.task, scripted.add("another invoice")
    assert [scripted.attempt(task=first), scripted.attempt(task=second)] == ["success", "success"]
    scripted.pass_time(3 * DAY)
    scripted.forget_keys()
    scripted.clear()
    first.payments, second.payments = second.payments, first.payments

    ended = [scripted.attempt(task=first), scripted.attempt(task=second)]

    assert ended == ["success", "success"]
    assert (len(scripted.debits(0)), len(scripted.debits(1))) == (1, 1)


def test_a_mapping_grown_by_a_clear_refuses_a_new_reference_at_an_old_index() -> None:
    """An index that has paid one reference pays no other; a list is to be appended to (F62, F85, F101)."""
    scripted = ScriptedWorld(kind=MAPPED)
    scripted.attempt()
    scripted.clear()
    scripted.task.payments = [scripted.payment("put in front")]

    ended = scripted.attempt()

    assert (ended, len(scripted.history.posts)) == ("ParameterMismatch", 1)


def test_one_look_proves_nothing_for_a_record_that_is_lost() -> None:
    """The row was between the lists at that look; once the key may be forgotten, a person is asked (F87)."""
    scripted = ScriptedWorld(ExchangeOptions(settle_ms=NEVER_MS, settle_gap_ms=HOUR))
    scripted.attempt()
    scripted.exchange.settle()
    scripted.pass_time(20 * MINUTE)
    scripted.forget_keys()
    scripted.restore(START_MS - 1)

    ended = scripted.attempt()

    assert (ended, len(scripted.debits())) == ("OutcomeUnknown", 1)
    assert "may be lost" in said(scripted)


@pytest.mark.parametrize("started", [True, False])
def test_a_backup_of_which_the_ledger_knows_pays_nothing_twice(*, started: bool) -> None:
    """Airflow forgets the run's tries with the record, so its next try looks like the first (F47, F66)."""
    scripted = ScriptedWorld()
    if started:
        scripted.attempt(process_faults=ProcessFaults(kill_where="before_record"))
    backup_ms = scripted.scheduler.now_ms
    scripted.pass_time(MINUTE)
    assert scripted.attempt() == "success"
    scripted.pass_time(3 * DAY)
    scripted.forget_keys()
    scripted.restore(backup_ms)

    ended = scripted.attempt()

    assert (ended, len(scripted.debits())) == ("OutcomeUnknown", 1)


def test_a_record_older_than_its_ledger_s_backup_proves_nothing() -> None:
    """It was refused when the backup was made, and paid afterwards (F47, F90)."""
    scripted = ScriptedWorld()
    scripted.exchange.balance = Decimal(0)
    assert scripted.attempt() == "WithdrawalRejected"
    backup_ms = scripted.scheduler.now_ms
    scripted.exchange.balance = Decimal(1000)
    scripted.pass_time(MINUTE)
    scripted.clear()
    assert scripted.attempt() == "success"
    scripted.pass_time(3 * DAY)
    scripted.forget_keys()
    scripted.restore(backup_ms)

    ended = scripted.attempt()

    assert (ended, len(scripted.debits())) == ("OutcomeUnknown", 1)


def test_a_pruned_withdrawal_asks_instead_of_paying() -> None:
    """Also at the first try of its run made again (F66, F87)."""
    scripted = ScriptedWorld()
    scripted.attempt()
    scripted.pass_time(40 * DAY)
    scripted.forget_keys()
    scripted.ledger.prune(scripted.scheduler.now_ms - 30 * DAY)
    scripted.run.recreate()
    (again,) = scripted.run.tasks

    ended = scripted.attempt(task=again)

    assert (ended, len(scripted.debits())) == ("OutcomeUnknown", 1)


def test_the_task_s_entry_speaks_for_a_record_that_is_lost() -> None:
    """It says that there was a request under this reference, though the run is younger than the ledger (F47)."""
    scripted = ScriptedWorld()
    scripted.attempt()
    scripted.pass_time(3 * DAY)
    scripted.forget_keys()
    scripted.ledger.lose(record_entry(scripted), "record lost")
    scripted.clear()

    ended = scripted.attempt()

    assert (ended, len(scripted.debits())) == ("OutcomeUnknown", 1)


def test_a_lost_record_is_looked_for_again_after_a_429() -> None:
    """A first look may be too early; a request that was throttled moved nothing, so the next try looks again (F54)."""
    scripted = ScriptedWorld(LATE_LISTS, born_ms=START_MS + 1)
    scripted.exchange.rng = Slowest()  # type: ignore[assignment]  # the two draws that the exchange makes
    scripted.attempt("lost after commit", process_faults=ProcessFaults(kill_where="after_post"))
    for name in [name for name in scripted.ledger.names() if name != "ledger"]:
        scripted.ledger.lose(name, "record lost")
    throttled: list[PostFault | None] = ["429"] * 60
    scripted.attempt(*throttled)
    scripted.pass_time(HOUR)
    scripted.forget_keys()

    ended = scripted.attempt()

    assert {post.request.sender.attempt for post in scripted.history.posts} == {0, 1}
    assert (ended, len(scripted.debits())) == ("OutcomeUnknown", 1)


def test_a_task_that_never_ran_needs_nobody_though_another_was_cleared() -> None:
    """The run is younger than the ledger, so an absent record proves that nothing was sent (F96)."""
    scripted = ScriptedWorld()
    scripted.clear()
    scripted.exchange.withdraw_elsewhere("SOL", Decimal(1))
    scripted.attempt(process_faults=ProcessFaults(kill_where="before_record"))
    scripted.pass_time(20 * MINUTE)

    ended = scripted.attempt()

    assert (ended, len(scripted.debits())) == ("success", 1)


def test_a_dead_worker_is_replaced_while_the_key_is_known() -> None:
    """Airflow misses a heartbeat after five minutes, and the operator's delay is one: no person is needed (F97)."""
    scripted = ScriptedWorld()
    scripted.attempt("lost after commit", process_faults=ProcessFaults(kill_where="after_post"))
    scripted.pass_time(5 * MINUTE + MINUTE)

    ended = scripted.attempt()

    assert (ended, len(scripted.debits())) == ("success", 1)
    assert scripted.violations() == []


@pytest.mark.parametrize("fenced", [True, False])
def test_a_refusal_in_the_hand_of_a_replaced_try_is_not_written(*, fenced: bool) -> None:
    """The newer try paid meanwhile: the older one leaves its record alone and claims nothing (F92, F41)."""
    # fails for the mutant: what another try wrote is overwritten
    scripted = ScriptedWorld(fenced=fenced)
    scripted.attempt("refused", process_faults=ProcessFaults(freezes={"after_post": 20 * MINUTE}))
    scripted.attempt()
    scripted.pass_time(HOUR)

    assert claimed(scripted) == ["success", "Unresolved"]
    assert (scripted.record()["state"], len(scripted.debits())) == ("accepted", 1)


@pytest.mark.parametrize("fenced", [True, False])
@pytest.mark.parametrize("trouble", ["get_trouble", "guard"])
def test_a_replaced_try_that_sent_nothing_does_not_say_that_nothing_moved(*, trouble: str, fenced: bool) -> None:
    """It read an empty record, the newer try paid; then the exchange is gone, or a guard refuses (F92)."""
    # fails for the mutant: a claim that nothing moved is not confirmed
    scripted = ScriptedWorld(fenced=fenced)
    bad = replace(QUIET, **{trouble: 1.0})  # type: ignore[arg-type]  # a float field, named by the parameter
    scripted.injector.profile = bad if trouble == "guard" else QUIET  # a guard is drawn when the try begins
    scripted.attempt(process_faults=ProcessFaults(freezes={"get ledger, unanswered": 20 * MINUTE}))
    scripted.injector.profile = QUIET
    scripted.attempt()
    scripted.injector.profile = bad
    scripted.pass_time(HOUR)

    assert claimed(scripted) == ["success", "Unresolved"]
    assert len(scripted.debits()) == 1


def test_a_replaced_try_does_not_speak_for_one_that_has_written_nothing_yet() -> None:
    """Its refusal is not written, since it has been replaced; the newer try finds a lost request, and pays (F92)."""
    # fails for the mutant: a write that failed does not spoil the claim
    scripted = ScriptedWorld()
    scripted.attempt("refused", process_faults=ProcessFaults(freezes={"after_post": MINUTE}))
    scripted.attempt(process_faults=ProcessFaults(freezes={"before_record": 4 * MINUTE}))
    scripted.pass_time(HOUR)

    assert claimed(scripted) == ["Unresolved", "success"]
    assert len(scripted.debits()) == 1


# -- several references in one task


def test_a_second_reference_is_not_taken_for_the_first() -> None:
    """The first is unknown and adopted by a person; the second, whose run was paid before, is not paid again (F83)."""
    scripted = ScriptedWorld(kind=HOOK_REFERENCES, references=["one", "two"])
    assert scripted.attempt() == "success"
    scripted.pass_time(3 * DAY)
    scripted.forget_keys()
    scripted.restore(START_MS - 1)
    assert scripted.attempt() == "OutcomeUnknown"
    adopt = decide_rightly(scripted.task)
    leave(scripted.task, adopt)
    scripted.clear()

    ended = scripted.attempt()

    assert (ended, [len(scripted.debits(owner)) for owner in (0, 1)]) == ("OutcomeUnknown", [1, 1])
    assert scripted.violations() == []


def test_a_loop_of_references_goes_on_past_the_first() -> None:
    """The second's answer was lost; a retry recalls the first and settles the second (F91)."""
    scripted = ScriptedWorld(kind=HOOK_REFERENCES, references=["one", "two"])
    scripted.attempt(None, "lost before commit", "lost before commit")
    scripted.pass_time(MINUTE)

    ended = scripted.attempt()

    assert (ended, [len(scripted.debits(owner)) for owner in (0, 1)]) == ("success", [1, 1])
    assert scripted.violations() == []


def test_a_second_call_under_one_reference_gets_the_first_one_s_receipt() -> None:
    """Through the seam it is the same withdrawal; that a try calls twice is refused by the hook (F103)."""
    scripted = ScriptedWorld(kind=HOOK_REFERENCES, references=["one"])
    scripted.task.payments *= 2

    ended = scripted.attempt()

    assert (ended, len(scripted.debits())) == ("success", 1)
    assert len({claim.nonce for claim in scripted.history.claims}) == 1


def test_a_drifting_reference_pays_once() -> None:
    """A template with a time in it renders to another reference at every try (F101)."""
    scripted = ScriptedWorld(references=["daily-1"])
    scripted.attempt("lost after commit", process_faults=ProcessFaults(kill_where="after_post"))
    scripted.task.payments[0].identity = scripted.payment("daily-2").identity

    ended = scripted.attempt()

    assert (ended, len(scripted.history.posts)) == ("ParameterMismatch", 1)
    assert "'daily-1'" in said(scripted)


def test_a_reference_that_drifts_and_comes_back_pays_once() -> None:
    """The first was refused, the drifted one was paid: the first is not ordered anew (F101)."""
    scripted = ScriptedWorld(references=["daily-1"])
    first, drifted = scripted.task.payments[0].identity, scripted.payment("daily-2").identity
    scripted.attempt("refused")
    scripted.task.payments[0].identity = drifted
    assert scripted.attempt() == "success"
    scripted.task.payments[0].identity = first

    ended = scripted.attempt()

    assert (ended, len(scripted.debits())) == ("ParameterMismatch", 1)


# -- rows that a person has to see


@pytest.mark.parametrize(("skew_ms", "of_a_second_ms"), [(-5_500, 900), (5_500, 0)])
def test_a_clock_that_is_hardly_off_hides_no_row(skew_ms: int, of_a_second_ms: int) -> None:
    """One tolerance for clocks everywhere: what may be posted by may be seen by (F93)."""
    scripted = ScriptedWorld()
    scripted.pass_time(of_a_second_ms)  # a Date has whole seconds
    scripted.attempt("lost after commit", process_faults=ProcessFaults(kill_where="after_post", skew_ms=skew_ms))
    scripted.pass_time(20 * MINUTE)
    scripted.forget_keys()

    scripted.attempt()

    assert len(scripted.debits()) == 1
    assert scripted.task.last is not None
    assert scripted.task.last.nonces == (scripted.debits()[0].batch_nonce,)
    assert "made while a request of this run was valid" in said(scripted)
    assert scripted.violations() == []


@pytest.mark.parametrize("gone", [True, False])
def test_a_changed_fee_hides_no_row(*, gone: bool) -> None:
    """The history shows net of the old fee, or the fee cannot be had: the row is shown, and a repost names it (F93)."""
    scripted = ScriptedWorld()
    scripted.attempt("lost after commit", process_faults=ProcessFaults(kill_where="after_post"))
    scripted.exchange.settle()
    scripted.exchange.charge(Decimal("0.003"))
    scripted.exchange.bridge_gone = gone
    scripted.pass_time(20 * MINUTE)
    scripted.forget_keys()
    assert scripted.attempt() == "OutcomeUnknown"
    leave(
        scripted.task, {"action": "repost", "fingerprint": scripted.record()["fingerprint"], "attempts": 1, "rows": []}
    )
    scripted.clear()

    ended = scripted.attempt()

    assert (ended, len(scripted.debits())) == ("OutcomeUnknown", 1)
    assert scripted.task.last is not None
    assert scripted.task.last.nonces == (scripted.debits()[0].batch_nonce,)


def test_an_unknown_shows_what_was_listed_after_the_last_request() -> None:
    """The lists were read before an order made anew was posted; the row of its lost request is shown (F93, F25)."""
    # fails for the mutant: a list read before the request counts after it
    scripted = ScriptedWorld()
    assert scripted.attempt("refused") == "WithdrawalRejected"
    scripted.clear()

    ended = scripted.attempt("lost after commit", "refused")

    assert ended == "OutcomeUnknown"
    assert scripted.task.last is not None
    assert scripted.task.last.nonces == (scripted.debits()[0].batch_nonce,)


# -- decisions


def test_a_decision_whose_removal_failed_is_applied_once() -> None:
    """It is consumed by being saved with the record, so a kill before its removal does not apply it again (F36)."""
    scripted = ScriptedWorld()
    scripted.attempt("lost before commit", "lost before commit")
    scripted.pass_time(MINUTE)
    leave(scripted.task, reposting(scripted))
    scripted.attempt(process_faults=ProcessFaults(kill_where="delete decision"))
    assert waiting(scripted) is not None

    ended = scripted.attempt()

    assert (ended, len(scripted.record()["decisions"]), waiting(scripted)) == ("success", 1, None)
    assert scripted.violations() == []


def test_a_repost_decided_before_the_next_request_is_dropped() -> None:
    """It was right after one request; a second has moved since, and its row is between the lists (F98)."""
    # fails for the mutant: a repost is not bound to the number of requests
    scripted = ScriptedWorld(ExchangeOptions(settle_ms=NEVER_MS, settle_gap_ms=HOUR))
    scripted.attempt("lost before commit", process_faults=ProcessFaults(kill_where="after_post"))
    early = reposting(scripted)
    scripted.pass_time(MINUTE)
    scripted.attempt("lost after commit", process_faults=ProcessFaults(kill_where="after_post"))
    scripted.exchange.settle()
    leave(scripted.task, early)
    scripted.pass_time(20 * MINUTE)
    scripted.forget_keys()

    ended = scripted.attempt()

    assert (ended, len(scripted.debits()), scripted.record()["decisions"]) == ("OutcomeUnknown", 1, [])
    assert waiting(scripted) is None


def test_an_adoption_decided_on_another_order_is_dropped() -> None:
    """The key is the same, the order was made anew with another amount after a refusal (F98)."""
    # fails for the mutant: a decision is not bound to its order
    scripted = ScriptedWorld()
    scripted.attempt("refused")
    first = scripted.record()["fingerprint"]
    scripted.task.payment.amount = "2"
    row = scripted.exchange.withdraw_elsewhere("SOL", Decimal(2))
    scripted.attempt("lost before commit", process_faults=ProcessFaults(kill_where="after_post"))
    naming = {"batch_nonce": row.batch_nonce, "created_at_ms": row.created_ms, "amount": "2"}
    leave(scripted.task, {"action": "adopt", "fingerprint": first, **naming})
    scripted.pass_time(20 * MINUTE)

    ended = scripted.attempt()

    assert (ended, scripted.record()["receipt"]) == ("OutcomeUnknown", None)


def test_a_repost_that_does_not_name_a_listed_row_is_dropped() -> None:
    """Somebody who did not see the row cannot say that it is not this one (F98)."""
    # fails for the mutant: a repost need not name the rows
    scripted = ScriptedWorld()
    scripted.attempt("lost after commit", process_faults=ProcessFaults(kill_where="after_post"))
    leave(scripted.task, reposting(scripted))
    scripted.pass_time(20 * MINUTE)
    scripted.forget_keys()

    ended = scripted.attempt()

    assert (ended, len(scripted.debits())) == ("OutcomeUnknown", 1)


def test_a_repost_after_a_refusal_is_posted() -> None:
    """What was unanswered and what was refused are both overruled by the person (F25)."""
    scripted = ScriptedWorld()
    assert scripted.attempt("lost before commit", "refused") == "OutcomeUnknown"
    leave(scripted.task, reposting(scripted))
    scripted.clear()

    ended = scripted.attempt()

    assert (ended, len(scripted.debits())) == ("success", 1)


@pytest.mark.parametrize(
    "decision", ["repost", 17, [], {"action": ["void"], "by": "ana"}, {"action": "pay", "by": "b"}]
)
def test_a_malformed_decision_does_not_block_the_task(decision: object) -> None:
    """It is dropped with a line in the log, and the try goes on (F99)."""
    scripted = ScriptedWorld()
    scripted.attempt("lost before commit", process_faults=ProcessFaults(kill_where="after_post"))
    leave(scripted.task, decision)
    scripted.pass_time(MINUTE)

    ended = scripted.attempt()

    assert (ended, waiting(scripted), len(scripted.debits())) == ("success", None, 1)


def reposting(scripted: ScriptedWorld) -> dict[str, object]:
    """Return a repost that fits the record as it stands, and names no row."""
    record = scripted.record()
    attempts = len(record["attempts"])
    return {"action": "repost", "fingerprint": record["fingerprint"], "attempts": attempts, "rows": []}


def claimed(scripted: ScriptedWorld) -> list[str]:
    """Return what every try claimed, in the order of their ends; also what nobody hears any more."""
    return [claim.kind for claim in scripted.history.claims]


def record_entry(scripted: ScriptedWorld) -> str:
    """Return the name of the record's entry."""
    (name,) = [name for name in scripted.ledger.names() if name.startswith("withdrawal_")]
    return name


def waiting(scripted: ScriptedWorld) -> object | None:
    """Return the decision that waits in the ledger."""
    identity = scripted.task.payment.identity
    name = decision_entry(identity.dag_id, identity.run_id, identity.task_id, identity.withdrawal_ref)
    return json.loads(scripted.ledger.entries[name]) if name in scripted.ledger.entries else None
