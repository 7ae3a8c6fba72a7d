"""The driver: what it writes before a byte leaves, how an overtaken try finds out, and how its steps are performed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.api.client import Listing
from pacifica_provider.api.outcomes import Rejected, Throttled, Unknown
from pacifica_provider.exceptions import (
    ConfigurationError,
    OutcomeUnknown,
    PacificaError,
    ParameterMismatch,
    Unreachable,
    Unresolved,
    WithdrawalRejected,
)
from pacifica_provider.exceptions import Throttled as ThrottledError
from pacifica_provider.withdrawals import failpoints
from pacifica_provider.withdrawals.identity import RunIdentity
from pacifica_provider.withdrawals.ledger import (
    LedgerUnavailableError,
    decision_entry,
    task_entry,
    withdrawal_entry,
)
from pacifica_provider.withdrawals.protocol import End
from pacifica_provider.withdrawals.record import Record
from pacifica_provider.withdrawals.withdraw import _Try
from tests.support.harness import MemoryLedger, bound_decision
from tests.unit.withdrawals.test_withdraw_seam import Exchange, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pacifica_provider.api.outcomes import Outcome

FENCED = pytest.mark.parametrize("fenced", [True, False], ids=["fenced", "no fence"])
TASK = ("pay", "run-1", "withdraw")
ENTRY, DECISION, REFERENCES = withdrawal_entry(*TASK, None), decision_entry(*TASK, None), task_entry(*TASK, "0")


class Ledger(MemoryLedger):
    """A ledger that lets a test act between two calls: ``before`` and ``after`` by its name, as "set withdrawal"."""

    def __init__(self, *, fenced: bool = True) -> None:
        super().__init__(fenced=fenced)
        self.before: dict[str, Callable[[], None]] = {}
        self.after: dict[str, Callable[[], None]] = {}

    def set(self, name: str, value: Any, /) -> None:
        """Write, and act."""
        self.before.pop(f"set {name.partition('_')[0]}", lambda: None)()
        super().set(name, value)
        self.after.pop(f"set {name.partition('_')[0]}", lambda: None)()

    def get(self, name: str, /) -> object | None:
        """Read, and act."""
        self.before.pop(f"get {name.partition('_')[0]}", lambda: None)()
        return super().get(name)

    def stored(self, name: str = ENTRY) -> Any:
        """Return an entry."""
        return json.loads(self.entries[name])

    def overwritten(self) -> None:
        """Let another try write the record."""
        self.entries[ENTRY] = json.dumps({**self.stored(), "write_id": "another try"})

    def fail(self) -> None:
        """Fail as a fence does for a replaced try, or a channel that broke."""
        raise LedgerUnavailableError("404 Task instance not found")


@dataclass
class Told(Exchange):
    """An exchange that is told some answers; ``meanwhile`` happens while a request is on its way."""

    answers: list[Outcome] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None

    def send(self, withdrawal: Any, /) -> Outcome:
        """Give the next answer, or what the exchange would."""
        self.meanwhile()
        if not self.answers:
            return super().send(withdrawal)
        self.sent += 1
        return self.answers.pop(0)


class Bench(World):
    """A world with a ledger and an exchange that can be disturbed, and a log."""

    def __init__(self, *, fenced: bool = True, **changes: Any) -> None:
        self.lines: list[str] = []
        self.slept: list[float] = []
        self.disk = Ledger(fenced=fenced)
        super().__init__(ledger=self.disk, **changes)
        self.exchange: Told = Told(self)

    def log(self, line: str) -> None:
        """Keep what the protocol says of itself."""
        self.lines.append(line)

    def sleep(self, seconds: float) -> None:
        """Let time pass, and remember how much."""
        self.slept.append(seconds)
        super().sleep(seconds)

    def decide(self, action: str, **fields: Any) -> None:
        """Leave a decision, bound to the record as it stands."""
        self.disk.entries[DECISION] = json.dumps(bound_decision(self.disk.stored(), action, **fields))

    def make_unknown(self) -> None:
        """Leave an unknown withdrawal: its answer was lost, and so was the key."""
        self.policy = replace(self.policy, posts_per_try=1)
        self.exchange.answers = [Unknown("no whole answer: reset")]
        with pytest.raises(Unresolved):
            self.try_once()
        self.sleep(600)
        with pytest.raises(OutcomeUnknown):
            self.try_once()


@pytest.fixture
def points() -> Iterator[list[str]]:
    """Collect the failpoints as they are reached."""
    reached: list[str] = []
    failpoints.install(reached.append)
    yield reached
    failpoints.install(None)


# -- what is written, and when


def test_in_fair_weather_the_ledger_is_called_six_times() -> None:
    """Read record, task and ledger; write attempt, reference and receipt: no more, once the ledger is born."""
    bench = Bench()
    bench.disk.be_born(0)
    bench.disk.calls.clear()
    bench.try_once(instance="0")

    assert bench.disk.calls == [
        *("get withdrawal", "get task", "get ledger"),
        *("set withdrawal", "set task", "set withdrawal"),
    ]


def test_a_recalled_receipt_costs_one_read() -> None:
    """Nothing else is asked of the ledger, and nothing of the exchange (F38, F53)."""
    bench = Bench()
    receipt = bench.try_once(instance="0")
    bench.disk.calls.clear()
    bench.exchange.rows.clear()

    assert receipt == bench.try_once(instance="0")
    assert bench.disk.calls == ["get withdrawal"]
    assert "already withdrawn in batch 42; nothing is sent" in bench.lines[-1]


def test_the_ledger_is_born_before_the_first_record() -> None:
    """Else a record could be missing of which the ledger would say that it is complete."""
    bench = Bench()
    bench.disk.before["set withdrawal"] = lambda: bench.lines.append(str(sorted(bench.disk.entries)))
    bench.try_once()

    assert "['ledger']" in bench.lines
    assert bench.disk.stored("ledger")["complete_since_ms"] == 1_800_000_000_000


@FENCED
def test_the_attempt_and_the_reference_are_written_before_the_request_leaves(fenced: bool) -> None:
    """Killed from here on, the next try knows that something may have been sent, and under which reference (F36)."""
    bench = Bench(fenced=fenced)
    at_send: list[Any] = []
    bench.exchange.meanwhile = lambda: at_send.extend([bench.disk.stored(), bench.disk.stored(REFERENCES)])
    bench.try_once(instance="0")

    assert [(a["signed_ms"], a["outcome"]) for a in at_send[0]["attempts"]] == [(1_800_000_000_000, "unanswered")]
    assert at_send[1] == {"version": 1, "references": [None]}


@FENCED
def test_every_write_has_an_id_of_its_own(fenced: bool) -> None:
    """By it the next check sees who wrote last."""
    bench = Bench(fenced=fenced)
    bench.exchange.meanwhile = lambda: bench.lines.append(bench.disk.stored()["write_id"])
    bench.try_once()
    attempt, receipt = bench.lines[1], bench.disk.stored()["write_id"]

    assert attempt != receipt


def test_the_points_of_a_try_are_reached_in_order(points: list[str]) -> None:
    """Kill tests stop the process at each of them."""
    Bench().try_once(instance="0")

    assert tuple(points) == failpoints.POINTS == tuple(dict.fromkeys(points))


def test_a_request_that_was_not_written_in_time_is_not_sent() -> None:
    """A frozen process wakes up with a signature that is nearly dead: it notes so and looks again (F41)."""
    bench = Bench()
    bench.disk.after["set withdrawal"] = lambda: World.sleep(bench, 60)
    receipt = bench.try_once()

    assert [a["outcome"] for a in bench.disk.stored()["attempts"]] == ["unsent", "answered"]
    assert (receipt.batch_nonce, bench.exchange.sent) == (42, 1)


# -- another try has taken over


@pytest.mark.parametrize("moment", ["before set withdrawal", "after set withdrawal"])
def test_without_a_fence_another_try_is_seen_before_and_after_the_write(moment: str) -> None:
    """A try that read before another one wrote sends nothing (F41)."""
    bench = Bench(fenced=False)
    bench.policy = replace(bench.policy, posts_per_try=1)
    bench.exchange.answers = [Unknown("no whole answer: reset")]
    with pytest.raises(Unresolved):
        bench.try_once()
    bench.sleep(20)
    when = bench.disk.before if moment.startswith("before") else bench.disk.after
    when["get withdrawal" if moment.startswith("before") else "set withdrawal"] = bench.disk.overwritten
    if moment.startswith("before"):  # the second read of this try is the check
        bench.disk.before["get withdrawal"] = lambda: when.update({"get withdrawal": bench.disk.overwritten})
    with pytest.raises(Unresolved, match="written by another try") as caught:
        bench.try_once()

    assert "MAY have moved money" in str(caught.value)
    assert bench.exchange.sent == 1


@pytest.mark.parametrize("call", ["set withdrawal", "set task", "set ledger"])
def test_a_write_that_fails_before_the_request_stops_it(call: str) -> None:
    """It may be the fence of a replaced try: then the other one may have sent something (F41, F44)."""
    bench = Bench()
    bench.disk.before[call] = bench.disk.fail
    with pytest.raises(Unresolved, match="404 Task instance not found"):
        bench.try_once(instance="0")

    assert bench.exchange.sent == 0


@pytest.mark.parametrize("call", ["get withdrawal", "get task", "get ledger", "get decision"])
def test_a_ledger_that_cannot_be_read_stops_the_try(call: str) -> None:
    """Whether an earlier try sent something stands in what could not be read (F44)."""
    bench = Bench()
    bench.make_unknown()
    if call == "get ledger":
        bench.disk.lose("withdrawal")
    sent = bench.exchange.sent
    bench.disk.before[call] = bench.disk.fail
    with pytest.raises(Unresolved, match=r"could not be used \(404.*this try sent nothing"):
        bench.try_once(instance="0")

    assert bench.exchange.sent == sent


def conclude_a_refusal(bench: Bench) -> PacificaError:
    """Run a try whose request is refused, and return what it ends with."""
    bench.exchange.answers = [Rejected(422, 5, "Insufficient balance")]
    with pytest.raises(PacificaError) as caught:
        bench.try_once()
    return caught.value


@FENCED
def test_a_refusal_is_concluded_after_half_a_minute(fenced: bool) -> None:
    """Two readings, the first after the signature has expired, 30 s apart; then nothing moved (F24, F90)."""
    bench = Bench(fenced=fenced)
    error = conclude_a_refusal(bench)

    assert isinstance(error, WithdrawalRejected)
    assert 40 <= sum(bench.slept) <= 46
    assert bench.disk.stored()["state"] == "rejected"


@FENCED
def test_nothing_moved_is_not_said_once_another_try_has_written(fenced: bool) -> None:
    """The newer try may have paid, whatever this one was answered; and its record is left alone (F92)."""
    bench = Bench(fenced=fenced)
    sleep = bench.sleep

    def meanwhile(seconds: float) -> None:
        bench.disk.overwritten()
        sleep(seconds)

    bench.sleep = meanwhile  # type: ignore[method-assign]  # another try writes while this one waits
    error = conclude_a_refusal(bench)

    assert isinstance(error, Unresolved)
    assert "Another try of this task may have taken over" in str(error)
    assert bench.disk.stored()["write_id"] == "another try"


@pytest.mark.parametrize("failing", ["save of the answer", "save of the conclusion"])
def test_nothing_moved_is_not_said_where_a_write_has_failed(failing: str) -> None:
    """A write that fails may be the fence, so another try may have paid (F92)."""
    bench = Bench()
    bench.exchange.meanwhile = lambda: setattr(bench.disk, "fail_writes", 2)
    if failing == "save of the conclusion":
        bench.exchange.meanwhile = lambda: bench.disk.after.update(
            {"set withdrawal": lambda: setattr(bench.disk, "fail_writes", 1)}
        )
    error = conclude_a_refusal(bench)

    assert isinstance(error, Unresolved)
    assert "could not be written" in str(error)


def test_an_unknown_that_could_not_be_written_is_not_final() -> None:
    """What is stored would post again, so nobody says that nothing is sent any more; the next try concludes (F44)."""
    bench = Bench()
    bench.policy = replace(bench.policy, posts_per_try=1)
    bench.exchange.answers = [Unknown("no whole answer: reset")]
    with pytest.raises(Unresolved):
        bench.try_once()
    bench.sleep(600)
    bench.disk.fail_writes = 1
    with pytest.raises(Unresolved, match="could not be written"):
        bench.try_once()
    with pytest.raises(OutcomeUnknown):
        bench.try_once()

    assert bench.disk.stored()["state"] == "unknown"


def test_a_later_write_makes_good_for_one_that_failed() -> None:
    """What was written whole is held again: then it can be said that nothing moved."""
    bench = Bench()
    bench.exchange.meanwhile = lambda: setattr(bench.disk, "fail_writes", 1)

    assert isinstance(conclude_a_refusal(bench), WithdrawalRejected)
    assert any("WARNING: Airflow's ledger could not be written" in line for line in bench.lines)


def test_nothing_moved_is_not_said_where_the_ledger_cannot_be_read() -> None:
    """Whether this try still holds the record is not known then (F92)."""
    bench = Bench()
    bench.unlock = refusing(lambda: setattr(bench.disk, "down", True))  # type: ignore[method-assign]  # a guard of the connection
    with pytest.raises(Unresolved, match="could not be read"):
        bench.try_once()


def test_a_guard_does_not_speak_for_another_try() -> None:
    """While the key was loaded another try has written: it may have sent something (F92)."""
    bench = Bench()
    other = World(ledger=bench.disk)
    bench.unlock = refusing(lambda: other.try_once() and None)  # type: ignore[method-assign]  # a guard of the connection
    with pytest.raises(Unresolved, match="written by another try"):
        bench.try_once()


def test_an_order_refused_before_is_made_anew() -> None:
    """Mended and cleared, it is paid once; the refusal stays on record (F24, F90)."""
    bench = Bench()
    conclude_a_refusal(bench)
    bench.sleep(60)
    receipt = bench.try_once(amount="1.4")

    assert receipt.batch_nonce == 42
    assert [attempt["outcome"] for attempt in bench.disk.stored()["attempts"]] == ["refused", "answered"]
    assert any(": ordered anew after a refusal (" in line for line in bench.lines)


def refusing(meanwhile: Callable[[], None]) -> Callable[[], Told]:
    """Return a guard that refuses, and what happens meanwhile."""

    def make_signer() -> Told:
        meanwhile()
        raise ConfigurationError("more than the connection's limit. Nothing was sent.", status=403)

    return make_signer


def test_a_guard_s_refusal_is_repeated_as_it_is_where_nothing_was_sent() -> None:
    """It fails before anything is looked at or written (F26, S15)."""
    bench = Bench()
    bench.unlock = refusing(lambda: None)  # type: ignore[method-assign]  # a guard of the connection
    with pytest.raises(ConfigurationError, match=r"^more than the connection's limit. Nothing was sent.$"):
        bench.try_once()

    assert list(bench.disk.entries) == ["ledger"]


def test_a_guard_s_refusal_says_what_may_have_moved_before() -> None:
    """The connection was changed after a request was lost: that comes first (F26)."""
    bench = Bench()
    bench.policy = replace(bench.policy, posts_per_try=1)
    bench.exchange.answers = [Unknown("no whole answer: reset")]
    with pytest.raises(Unresolved):
        bench.try_once()
    bench.unlock = refusing(lambda: None)  # type: ignore[method-assign]  # a guard of the connection
    with pytest.raises(
        ConfigurationError, match=r"^The withdrawal of 1.5 SOL MAY have moved money. This try"
    ) as caught:
        bench.try_once()

    assert (caught.value.status, caught.value.amount) == (403, "1.5")


@FENCED
def test_a_receipt_is_written_whoever_wrote_last(fenced: bool) -> None:
    """An accepted withdrawal is true for every try (F41, F45)."""
    bench = Bench(fenced=fenced)
    bench.exchange.meanwhile = bench.disk.overwritten
    receipt = bench.try_once()

    assert bench.disk.stored()["receipt"]["batch_nonce"] == receipt.batch_nonce


@pytest.mark.parametrize(("failures", "written"), [(2, True), (3, False)])
def test_after_a_200_a_ledger_that_is_down_raises_nothing(failures: int, written: bool) -> None:
    """The write is tried three times, key and nonce are in the log, and the caller gets the receipt (F45)."""
    bench = Bench()
    bench.exchange.meanwhile = lambda: setattr(bench.disk, "fail_writes", failures)
    receipt = bench.try_once()
    warned = [line for line in bench.lines if "WARNING: batch_nonce 42 not written" in line]

    assert receipt.batch_nonce == 42
    assert (len(warned), bench.slept) == (failures, [0.5, 1.0, 1.5][:failures])
    assert (bench.disk.stored()["state"] == "accepted") == written


# -- entries that are not ours


@pytest.mark.parametrize(
    ("name", "says"),
    [(ENTRY, "record of this withdrawal"), (REFERENCES, "task's references"), ("ledger", "entry 'ledger'")],
)
@pytest.mark.parametrize("value", [{}, [], "text", 7, {"version": 2}, {"version": 1}, {"version": 1, "references": 7}])
def test_an_entry_that_cannot_be_read_is_refused_and_left_alone(name: str, says: str, value: object) -> None:
    """Of another version, or a person's: nothing is guessed, sent or overwritten (F48, S28)."""
    bench = Bench()
    bench.disk.entries[name] = json.dumps(value)
    with pytest.raises(ConfigurationError, match=rf"{says}.*cannot be read"):
        bench.try_once(instance="0")

    assert bench.disk.stored(name) == value
    assert bench.exchange.sent == 0


# -- one task instance, one reference


def test_another_reference_of_a_task_instance_that_has_paid_is_refused() -> None:
    """A reference that drifts between tries is another key, and would be another payment (F101)."""
    bench = Bench()
    bench.try_once(reference="daily-1", instance="0")
    with pytest.raises(ParameterMismatch, match="under the withdrawal_ref 'daily-1'") as caught:
        bench.try_once(reference="daily-2", instance="0")
    key = RunIdentity("account", *TASK, "daily-2").idempotency_key()

    assert (caught.value.idempotency_key, caught.value.symbol, caught.value.amount) == (key, "SOL", "1.5")
    assert bench.exchange.sent == 1
    assert bench.try_once(reference="daily-1", instance="0").batch_nonce == 42


def test_another_reference_goes_where_the_first_cannot_have_moved() -> None:
    """It was refused, so a mended template may name the right one."""
    bench = Bench()
    bench.exchange.answers = [Rejected(422, 5, "Insufficient balance")]
    with pytest.raises(WithdrawalRejected):
        bench.try_once(reference="wrong", instance="0")
    bench.try_once(reference="right", instance="0")

    assert bench.disk.stored(REFERENCES)["references"] == ["wrong", "right"]


def test_a_reference_that_drifts_and_comes_back_is_refused() -> None:
    """The first one is on record and moved nothing, but the second has been paid (F101)."""
    bench = Bench()
    bench.exchange.answers = [Rejected(422, 5, "Insufficient balance")]
    with pytest.raises(WithdrawalRejected):
        bench.try_once(reference="a", instance="0")
    bench.try_once(reference="b", instance="0")
    with pytest.raises(ParameterMismatch, match="under the withdrawal_ref 'b'"):
        bench.try_once(reference="a", instance="0")

    assert len(bench.exchange.rows) == 1


def test_a_reference_whose_record_is_gone_may_have_been_paid() -> None:
    """The task's entry lists it, so it was sent (F47, F101)."""
    bench = Bench()
    bench.try_once(reference="a", instance="0")
    bench.disk.lose("withdrawal")
    with pytest.raises(ParameterMismatch):
        bench.try_once(reference="b", instance="0")


@pytest.mark.parametrize("at", ["set withdrawal", "set task"])
def test_without_a_fence_another_reference_begun_meanwhile_is_seen(at: str) -> None:
    """Two tries of one task instance, two references at once: the one that is overtaken sends nothing (F41, F101)."""
    bench = Bench(fenced=False)
    others = {"version": 1, "references": ["b"]}
    bench.disk.after[at] = lambda: bench.disk.entries.update({REFERENCES: json.dumps(others)})
    with pytest.raises(Unresolved, match="written by another try"):
        bench.try_once(reference="a", instance="0")

    assert bench.exchange.sent == 0
    assert bench.disk.stored(REFERENCES) == others


def test_a_mapped_task_that_asks_for_one_reference_twice_is_seen_to_do_so() -> None:
    """A fence tells the tries of one task instance apart, not two instances with one reference (F62)."""
    bench = Bench()
    other = World(ledger=bench.disk)
    bench.disk.before["set ledger"] = lambda: other.try_once(adoption="never") and None
    with pytest.raises(Unresolved, match="written by another try"):
        bench.try_once(adoption="never")

    assert bench.exchange.sent == 0


def test_other_instances_and_tasks_without_one_are_not_bound() -> None:
    """A mapped sibling has its own entry, and a ``@task`` may withdraw under several references (F103)."""
    bench = Bench()
    for reference, instance in (("a", "0"), ("b", "1"), ("c", None), ("d", None)):
        bench.try_once(reference=reference, instance=instance)

    assert len(bench.exchange.rows) == 4
    assert sorted(name.partition("_")[0] for name in bench.disk.entries) == [
        "ledger",
        *["task"] * 2,
        *["withdrawal"] * 4,
    ]


def test_a_listed_reference_without_its_record_is_looked_for() -> None:
    """Even at a first try: the entry was deleted or lost, and the row in the list may be it (F47)."""
    bench = Bench()
    bench.try_once(instance="0")
    bench.disk.lose("withdrawal")
    with pytest.raises(OutcomeUnknown, match="may be lost"):
        bench.try_once(instance="0", first_try=True)

    assert bench.exchange.sent == 1


# -- a person's decision


def test_a_decision_is_applied_written_and_removed() -> None:
    """The record says who decided what, and the entry beside it is gone."""
    bench = Bench()
    bench.make_unknown()
    bench.decide("void")
    with pytest.raises(OutcomeUnknown, match="A person voided"):
        bench.try_once()

    assert (bench.disk.stored()["state"], bench.disk.stored()["reason"]) == ("void", "void by ana: looked")
    assert DECISION not in bench.disk.entries


@pytest.mark.parametrize("decision", ["void", {"action": "void"}, {"key": "k", "action": "adopt", "by": "a"}])
def test_a_decision_that_cannot_be_read_is_dropped(decision: object) -> None:
    """With a line that says what is wrong with it; it blocks no later try (F99)."""
    bench = Bench()
    bench.make_unknown()
    bench.disk.entries[DECISION] = json.dumps(decision)
    with pytest.raises(OutcomeUnknown):
        bench.try_once()

    assert any("WARNING: a waiting decision is dropped: This is no decision" in line for line in bench.lines)
    assert DECISION not in bench.disk.entries


def test_a_stale_decision_is_dropped_and_the_try_goes_on() -> None:
    """Taken on another order: the log says so, and the case is as it was (F98, F99)."""
    bench = Bench()
    bench.make_unknown()
    bench.decide("repost", fingerprint="0" * 64)
    with pytest.raises(OutcomeUnknown):
        bench.try_once()

    assert any("the waiting decision is dropped: it was taken on another order" in line for line in bench.lines)
    assert DECISION not in bench.disk.entries


def test_a_decision_that_could_not_be_removed_is_not_applied_twice() -> None:
    """Its id is on record, so the next try drops it."""
    bench = Bench()
    bench.make_unknown()
    bench.decide("repost")
    delete = bench.disk.delete
    bench.disk.delete = lambda name: bench.disk.fail()  # type: ignore[method-assign]  # the channel breaks
    receipt = bench.try_once()
    bench.disk.delete = delete  # type: ignore[method-assign]  # and is mended

    assert receipt == bench.try_once()
    assert any("WARNING: the decision could not be removed" in line for line in bench.lines)
    assert len(bench.disk.stored()["decisions"]) == 1


@FENCED
def test_a_repost_does_not_go_past_another_reference(fenced: bool) -> None:
    """It was decided on this withdrawal alone; the task may have paid under another reference since (F98, F101)."""
    bench = Bench(fenced=fenced)
    bench.make_unknown()
    bench.decide("repost")
    bench.disk.entries[REFERENCES] = json.dumps({"version": 1, "references": [None, "b"]})
    sent = bench.exchange.sent
    with pytest.raises(ParameterMismatch, match="under the withdrawal_ref 'b'"):
        bench.try_once(instance="0")

    assert bench.exchange.sent == sent
    assert DECISION in bench.disk.entries


@FENCED
def test_a_decision_that_cannot_be_written_stops_the_try(fenced: bool) -> None:
    """What it makes of the record must be kept before anything rests on it; the decision waits on (F44)."""
    bench = Bench(fenced=fenced)
    bench.make_unknown()
    bench.decide("repost")
    sent = bench.exchange.sent
    bench.disk.before["set withdrawal"] = bench.disk.fail
    with pytest.raises(Unresolved, match="this try sent nothing"):
        bench.try_once()
    bench.disk.before["get decision"] = bench.disk.overwritten
    with pytest.raises(Unresolved, match="written by another try"):
        bench.try_once()

    assert DECISION in bench.disk.entries
    assert bench.exchange.sent == sent


def test_a_decision_waits_for_a_record_that_was_never_written() -> None:
    """A person was asked before anything was on record: voided, the next try finds the decision (F87)."""
    bench = Bench()
    bench.disk.be_born(bench.now_ms + 1)
    bench.sleep(600)
    with pytest.raises(OutcomeUnknown):
        bench.try_once(first_try=False)
    bench.decide("void")
    bench.disk.lose("withdrawal")
    with pytest.raises(OutcomeUnknown, match="A person voided"):
        bench.try_once(first_try=False)


# -- what is read


@pytest.mark.parametrize(
    ("ahead_ms", "kind", "says"),
    [
        (0, None, ""),
        (5_000, None, ""),
        (-4_999, None, ""),
        (6_001, ConfigurationError, r"clock is 6.5 s behind Pacifica's; at most 5 s are safe"),
        (-6_001, ConfigurationError, r"clock is 6.5 s ahead of Pacifica's.*Synchronise"),
    ],
)
def test_a_clock_that_is_off_stops_the_try(ahead_ms: int, kind: type[PacificaError] | None, says: str) -> None:
    """The skew is quoted, and nothing is ever re-dated (F29)."""
    bench = Bench()
    listing = bench.exchange.pending_withdrawals
    bench.exchange.pending_withdrawals = lambda: replace(  # type: ignore[method-assign]  # the exchange's clock is off
        listing(), server_time_ms=(bench.now_ms + ahead_ms) // 1000 * 1000
    )
    if kind is None:
        assert bench.try_once().batch_nonce == 42
        return
    with pytest.raises(kind, match=says):
        bench.try_once()
    assert bench.exchange.sent == 0


@pytest.mark.parametrize(
    ("passes_s", "date", "says"), [(0, False, "carries no Date"), (7, True, "too slowly to compare")]
)
def test_an_exchange_whose_clock_cannot_be_seen_is_unreachable(passes_s: int, date: bool, says: str) -> None:
    """Without a bound of its clock no signature is safe; it is tried three times (F08, F79)."""
    bench = Bench()

    def slow() -> Any:
        began_ms = bench.now_ms
        World.sleep(bench, passes_s)
        return Listing((), began_ms if date else None, None)

    bench.exchange.pending_withdrawals = slow  # type: ignore[method-assign]  # a slow or headless answer
    with pytest.raises(Unreachable, match=says):
        bench.try_once()

    assert bench.slept == [1.0, 2.0]
    assert bench.exchange.sent == 0


def test_a_wait_ends_once_the_exchange_s_clock_must_be_past() -> None:
    """By the lower bound of its clock, which may be behind; and never in a busy loop (F04)."""
    bench = Bench()
    bench.exchange.lose_answers = 1
    bench.try_once()

    assert bench.slept[0] == 11
    assert min(bench.slept) >= 0.25


def test_a_bridge_that_is_gone_hides_no_list() -> None:
    """The fee cannot be had: the rows are shown all the same (F93)."""
    bench = Bench()

    def gone(symbol: str) -> Any:
        raise ConfigurationError(f"no bridge for {symbol}", status=404)

    bench.exchange.bridge_parameters = gone  # type: ignore[method-assign]  # the asset was taken off
    bench.exchange.lose_answers = 1
    bench.make_unknown()

    assert bench.disk.stored()["state"] == "unknown"


def test_the_lists_throttled_are_asked_again_with_jitter() -> None:
    """A 429 of a look is waited out within the try (F23, F95)."""
    bench = Bench()
    listing = bench.exchange.pending_withdrawals
    left = [ThrottledError("slow down", retry_after_s=8.0, status=429)]

    def throttled() -> Any:
        if left:
            raise left.pop()
        return listing()

    bench.exchange.pending_withdrawals = throttled  # type: ignore[method-assign]  # one 429
    bench.try_once()

    assert bench.slept == [9.0]


def test_a_throttled_request_does_not_count_as_sent() -> None:
    """It is waited out and posted again with the same key; a refusal after it is the only one (F95)."""
    bench = Bench()
    bench.exchange.answers = [Throttled(4.0), Throttled(None), Throttled(4.0)]
    receipt = bench.try_once()

    assert bench.slept == [4.5, 5.625, 4.5]
    assert (receipt.batch_nonce, bench.exchange.sent) == (42, 4)


def test_a_request_throttled_for_too_long_ends_the_try() -> None:
    """It says how long to wait and that no money moved (F23, F95)."""
    bench = Bench()
    bench.exchange.answers = [Throttled(600.0)]
    with pytest.raises(ThrottledError, match="No money moved") as caught:
        bench.try_once()

    assert (caught.value.retry_after_s, caught.value.status) == (600.0, 429)


def test_each_transition_is_one_line_with_key_and_order() -> None:
    """Enough to reconstruct a case, nothing to steal (S26)."""
    bench = Bench()
    bench.exchange.lose_answers = 1
    bench.try_once()
    key = RunIdentity("account", *TASK).idempotency_key()
    print_ = Record.from_json(bench.disk.stored()).fingerprint[:12]
    ids = f" (idempotency key {key}, fingerprint {print_})"

    assert bench.lines == [
        f"1.5 SOL: {what}{ids}"
        for what in (
            "posting, attempt 1, signed at 2027-01-15T08:00:00.000+00:00",
            "answer: Unknown the connection broke",
            "posting, attempt 2, signed at 2027-01-15T08:00:11.000+00:00",
            "answer: Duplicate Duplicate idempotency key",
            "adopted in batch 42, fee 0.001, net 1.499",
        )
    ]


def test_what_ends_a_try_is_not_performed() -> None:
    """``Return`` and ``End`` leave the loop; to perform one would be a mistake of ours."""
    bench = Bench()
    bench.try_once()
    record = Record.from_json(bench.disk.stored())

    with pytest.raises(TypeError):
        _Try._perform(object.__new__(_Try), End("voided", record), record, object())  # type: ignore[arg-type]  # not looked at
