"""What the protocol decides: F84, F87, F89, F90 to F93, F95, F98 and F99."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse, GetVariable, OKResponse, PutVariable, VariableResult

from pacifica_provider.exceptions import (
    ConfigurationError,
    OutcomeUnknown,
    Unresolved,
    WithdrawalRejected,
)
from pacifica_provider.hooks.ledgers import VariableLedger
from pacifica_provider.withdrawals.ledger import restored
from tests.faults.airflow_bench import TaskBench
from tests.faults.checks import assert_paid_once, assert_unknown, nonces, refused, statuses
from tests.faults.processes import Task, go, reached, result
from tests.faults.wiretap import Wiretap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pacifica_provider.api.client import PacificaClient
    from tests.support.harness import ProtocolHarness

TEN_MINUTES_S = 600


class Supervisor:
    """The supervisor of a task on Airflow 3.1: it keeps Variables, and does with them what ``weather`` says."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.weather = "fair"
        self.gets = 0

    def send(self, message: Any) -> Any:
        """Answer a message as Airflow does."""
        self.gets += isinstance(message, GetVariable)
        lost = self.weather == "all not found" or (self.weather == "a blip" and self.gets <= 3)
        bad = self.weather == "a bad variable" and message.key.startswith("pacifica_withdrawal_")
        if self.weather == "server error" or bad:
            return ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 500})
        if isinstance(message, PutVariable):
            if self.weather != "lost writes":
                self.values[message.key] = str(message.value)
            return OKResponse(ok=True)
        if isinstance(message, GetVariable) and message.key in self.values and not lost:
            return VariableResult(key=message.key, value=self.values[message.key])
        return ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND)


@pytest.mark.parametrize("weather", ["server error", "a bad variable", "all not found", "a blip", "lost writes"])
@pytest.mark.parametrize("paid", [True, False])
def test_a_variable_that_airflow_does_not_answer_for_is_not_taken_as_missing(
    harness: ProtocolHarness, weather: str, paid: bool
) -> None:
    """F84, F44: on 3.1 an API error reads as "not there" and a failed write as done; nothing is sent on either."""
    supervisor = Supervisor()
    harness.store = VariableLedger(supervisor.send)  # type: ignore[assignment]  # a ledger like any other
    harness.sibling(run_id="manual__before", amount="3", store=harness.store).try_once()
    first = harness.try_once() if paid else None
    harness.sandbox.control("POST", "/forget_keys")
    posts = len(harness.posts())
    supervisor.weather, supervisor.gets = weather, 0
    if paid and weather == "lost writes":  # what was written before is read, and that is all it needs
        assert harness.try_once() == first
    else:
        refused(
            harness, Unresolved, "the request was not sent" if weather == "lost writes" else "this try sent nothing"
        )
    stormy_posts = len(harness.posts())
    supervisor.weather = "fair"

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=False)

    assert stormy_posts == posts


@pytest.mark.parametrize("lost", ["the ledger", "the ledger, said so, the task's tries too"])
@pytest.mark.parametrize("hidden_by", ["the gap between the lists", "lag"])
def test_a_lost_record_whose_row_is_hidden_is_never_posted_once_the_key_may_be_forgotten(
    harness: ProtocolHarness, hidden_by: str, lost: str
) -> None:
    """F87: one look that shows nothing proves nothing, so a run older than the key trust asks a person."""
    if hidden_by == "lag":
        harness.options(list_lag_s=86_400)
    harness.try_once()
    harness.store.lose()
    harness.clock.sleep_s(TEN_MINUTES_S)
    harness.sandbox.control("POST", "/forget_keys")
    if lost != "the ledger":  # a database from a backup has the task not yet run
        restored(harness.store, harness.clock.now_ms())
        harness.try_number = 0
    if hidden_by != "lag":
        harness.options(settle_gap_s=86_400)
        harness.sandbox.control("POST", "/settle")

    assert_unknown(harness, rows=[], because="may have forgotten its idempotency key", debits=1)


@pytest.mark.parametrize("window_ms", [30_001, 200_000])
def test_a_window_that_outlives_what_the_key_is_trusted_for_is_refused(
    harness: ProtocolHarness, connect: Callable[..., None], window_ms: int
) -> None:
    """F89: a signature lives at most 30 s."""
    connect(extra={"expiry_window_ms": window_ms})

    with pytest.raises(ConfigurationError, match="expiry_window_ms"):
        TaskBench(harness).withdraw()

    assert harness.ledger()["posts"] == []


@pytest.mark.parametrize(("window_s", "age_s"), [(10, 525), (10, 531), (30, 505), (30, 511)])
def test_no_request_is_live_when_the_key_may_be_forgotten(harness: ProtocolHarness, window_s: int, age_s: int) -> None:
    """F89: a request that could still be accepted after the key trust is not sent: a person is asked before."""
    harness.window_ms = window_s * 1000
    harness.fault("reset")
    harness.fault("status", route="pending", status=503, skip=1, count=3)
    refused(harness, Unresolved)
    signed_ms = harness.store.record()["attempts"][0]["signed_ms"]
    harness.clock.sleep_s(age_s - (harness.clock.now_ms() - signed_ms) / 1000)

    if age_s + window_s < 540:
        harness.try_once()
    else:
        refused(harness, OutcomeUnknown)

    assert all(post["timestamp"] + window_s * 1000 < signed_ms + 540_000 for post in harness.posts())
    assert len(harness.posts()) == 1 + (age_s + window_s < 540)


@pytest.fixture
def twice(harness: ProtocolHarness) -> Iterator[ProtocolHarness]:
    """Yield a harness whose requests are delivered twice on the way; it asks for more than half of the balance."""
    with Wiretap(harness.sandbox.base_url) as tap:
        tap.repeat_posts = True
        harness.options(balance_before_key=True)
        harness.base_url, harness.amount = tap.base_url, "600000"
        yield harness


def test_a_request_delivered_twice_is_not_called_refused(twice: ProtocolHarness) -> None:
    """F90: accepted, then refused for its balance, with lists that lag two seconds: unknown, its row in view."""
    twice.options(list_lag_s=2)

    assert_unknown(twice, rows=[42], because="yet lists such a withdrawal", debits=1)


@pytest.mark.parametrize("amount", ["600000", "300000"])
def test_a_refusal_is_remembered_when_the_order_is_made_anew(twice: ProtocolHarness, amount: str) -> None:
    """F90: with lists that lag beyond the bound it reads as refused; ordered anew, it meets the row and pays nobody."""
    twice.options(list_lag_s=120)
    refused(twice, WithdrawalRejected)
    twice.clock.sleep_s(120)
    twice.clear()
    twice.amount = amount

    refused(twice, OutcomeUnknown)

    assert (nonces(twice), statuses(twice)) == ([42], [200, 422])


def test_a_refusal_does_not_stand_against_ordering_anew(harness: ProtocolHarness) -> None:
    """F90: another withdrawal of the account, in the refused one's window but of another amount, hinders nobody."""
    harness.fault("status", status=422)

    def wait(seconds: float) -> None:
        harness.foreign("3")
        harness.clock.sleep_s(seconds)

    with pytest.raises(WithdrawalRejected):
        harness.try_once(wait)
    harness.clear()

    assert_paid_once(harness, harness.try_once(), adopted=False)


@pytest.mark.parametrize("amounts", [("1", "1"), ("1", "2")])
def test_a_loop_of_two_references_goes_on_where_it_broke(task: TaskBench, amounts: tuple[str, str]) -> None:
    """F91: the first is recalled, the second, whose answer was lost, is decided by a person, and the loop ends."""
    orders = dict(zip("ab", amounts, strict=True))
    task.harness.fault("reset", when="after_commit", skip=1)
    task.harness.fault("status", route="pending", status=503, skip=2, count=3)

    def loop() -> list[Any]:
        context = task.context()
        return [task.withdraw(amount, ref=ref, context=context) for ref, amount in orders.items()]

    with pytest.raises(Unresolved):
        loop()
    with pytest.raises(OutcomeUnknown) as caught:
        loop()
    second = max(caught.value.batch_nonces)
    task.decide("adopt", "b", **task.harness.named(second))
    task.clear()

    receipts = loop()

    assert [receipt["adopted"] for receipt in receipts] == [False, True]
    assert (receipts[1]["batch_nonce"], len(task.debits())) == (second, 2)


@pytest.mark.parametrize("processes", [True], indirect=True, ids=["fenced"])
@pytest.mark.parametrize("newer", ["has paid", "has not begun"])
def test_a_replaced_try_whose_write_is_refused_claims_nothing(processes: Task, newer: str) -> None:
    """F92: answered 422, it cannot write that; whoever has replaced it may have paid, so it does not say "no money"."""
    processes.sandbox.control("POST", "/faults", {"route": "withdraw", "kind": "status", "status": 422, "count": 1})
    older = processes.start({"after_post": "wait"})
    reached(older)
    if newer == "has paid":
        result(processes.start({}))
    else:
        processes.replace()
    said = result(go(older))
    harness = processes.harness()

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=False)

    assert (said["error"], "MAY have moved money" in said["text"]) == ("Unresolved", True)
    assert "no money moved" not in said["text"].lower()


@pytest.mark.parametrize("fenced", [True, False])
def test_a_guard_of_a_replaced_try_claims_nothing(harness: ProtocolHarness, fenced: bool) -> None:
    """F92: nor does a try say that nothing moved, because a limit stops it, once another has written the record."""
    harness.fault("status", status=422)
    refused(harness, WithdrawalRejected)
    harness.store.fenced = fenced
    newer = harness.sibling(store=harness.store, try_number=1)

    def refuse() -> PacificaClient:
        newer.try_once()
        raise ConfigurationError("The connection's limit is 0.5 SOL. Nothing was sent by this try.")

    harness.unlock = refuse  # type: ignore[method-assign]  # the guard of this one try

    with pytest.raises(Unresolved, match="Another try of this task may have taken over") as caught:
        harness.try_once()

    assert "no money moved" not in str(caught.value).lower()
    assert len(harness.debits()) == 1


def test_a_worker_s_clock_six_seconds_ahead_hides_no_row(harness: ProtocolHarness) -> None:
    """F93: what the look lets pass, 5.4 s ahead here, is within the tolerance by which the row is found."""
    second_s = harness.clock.now_ms() % 1000 / 1000
    harness.clock.sleep_s(1.05 - second_s)  # Date has a resolution of a second, so right after one the look sees least
    harness.clock.skew_ms = 5_400
    harness.fault("reset", when="after_commit")

    def wait(seconds: float) -> None:
        harness.clock.skew_ms = 0
        harness.clock.sleep_s(seconds)

    receipt = harness.try_once(wait)
    assert_paid_once(harness, receipt, adopted=True)
    (row,) = harness.ledger()["debits"]

    assert receipt.submitted_at_ms - row["created_at"] > 5_000


HIDDEN = [
    pytest.param({"fee": "0.002"}, id="the-fee-has-changed"),
    pytest.param({"bridge": "missing"}, id="the-bridge-is-gone"),
]


@pytest.mark.parametrize("change", HIDDEN)
def test_a_row_whose_fee_is_not_known_is_shown_and_can_be_adopted(
    harness: ProtocolHarness, change: dict[str, str]
) -> None:
    """F93: history shows net, by a fee that cannot be read any more: the true row is in the error, marked possible."""
    harness.fault("reset", when="after_commit")

    def wait(seconds: float) -> None:
        harness.sandbox.control("POST", "/settle")
        harness.sandbox.control("POST", "/assets", {"symbol": "SOL", **change})
        harness.clock.sleep_s(seconds)

    with pytest.raises(OutcomeUnknown) as caught:
        harness.try_once(wait)
    harness.decide("adopt", batch_nonce=caught.value.batch_nonces[0])
    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=True)

    assert list(caught.value.batch_nonces) == nonces(harness)
    assert "amount fits with another fee, or rounded; made while a request of this run was valid" in str(caught.value)


@pytest.mark.parametrize("change", HIDDEN)
def test_a_repost_that_does_not_name_a_possible_row_is_dropped(
    harness: ProtocolHarness, change: dict[str, str]
) -> None:
    """F93, F98: a person who was not shown the row, or overlooked it, does not have it paid twice."""
    harness.fault("reset", when="after_commit")
    harness.fault("status", route="pending", status=503, skip=1, count=3)
    refused(harness, Unresolved)
    harness.sandbox.control("POST", "/settle")
    harness.sandbox.control("POST", "/assets", {"symbol": "SOL", **change})
    harness.clock.sleep_s(TEN_MINUTES_S)
    harness.sandbox.control("POST", "/forget_keys")
    first = refused(harness, OutcomeUnknown)
    harness.decide("repost")

    again = refused(harness, OutcomeUnknown)

    assert first.batch_nonces == again.batch_nonces == (42,)
    assert any("batch_nonce [42] is listed, which it does not name" in line for line in harness.logs)
    assert (len(harness.debits()), len(harness.posts())) == (1, 1)


def test_a_429_before_a_refusal_leaves_it_a_refusal(harness: ProtocolHarness) -> None:
    """F95, F24: a throttled request was not processed, so the refused one is the only one, and nothing moved."""
    harness.fault("status", status=429, headers={"retry-after": "1"})
    harness.fault("status", status=422)

    refused(harness, WithdrawalRejected)

    assert (statuses(harness), harness.debits()) == ([429, 422], [])


def _left_by_a_lost_request(harness: ProtocolHarness, when: str = "before_commit") -> None:
    harness.fault("reset", when=when)
    harness.fault("status", route="pending", status=503, skip=1, count=3)
    refused(harness, Unresolved)


STALE: list[Any] = [
    pytest.param("repost", {"attempts": 0}, "it was taken after 0 requests, now there are 1", id="F98-repost"),
    pytest.param("repost", {"fingerprint": "0" * 64}, "it was taken on another order", id="F98-repost-of-another"),
    pytest.param("repost", {"key": "707c8f43-4f9e-5fd7-9463-d1c4d56dee14"}, "it is for key 707c8f43", id="F98-key"),
    pytest.param(
        "adopt",
        {"fingerprint": "0" * 64, "batch_nonce": 42, "created_at_ms": 1, "amount": "1"},
        "it was taken on another order",
        id="F98-adopt-of-another",
    ),
    pytest.param(
        "adopt",
        {"batch_nonce": 4711, "created_at_ms": 1_800_000_000_000, "amount": "1"},
        "no withdrawal with batch_nonce 4711, created_at 1800000000000 and amount 1 is listed any more",
        id="F99-no-such-row",
    ),
    pytest.param("void", {"key": "707c8f43-4f9e-5fd7-9463-d1c4d56dee14"}, "it is for key 707c8f43", id="F99-void"),
    pytest.param("void", {"why": ""}, "matching regex '\\\\S' - at `$.why`", id="F99-malformed"),
    pytest.param("void", {"action": "pay"}, "(adopt, repost or void): Invalid value 'pay'", id="F99-no-action"),
]


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
@pytest.mark.parametrize(("action", "fields", "why"), STALE)
def test_a_decision_that_does_not_fit_is_dropped_and_the_try_goes_on(
    harness: ProtocolHarness, action: str, fields: dict[str, Any], why: str, when: str
) -> None:
    """F98, F99: taken on another state or order, or no decision at all, it is said and removed, and blocks nothing."""
    _left_by_a_lost_request(harness, when)
    harness.decide(action, **fields)

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=when == "after_commit")

    assert any("WARNING" in line and "decision is dropped" in line and why in line for line in harness.logs)
    assert [name for name in harness.store.entries if name.startswith("decision")] == []


def test_a_decision_on_an_older_state_does_not_post(harness: ProtocolHarness) -> None:
    """F98: taken after one request, with nothing listed, a repost is not applied after a second whose row is there."""
    _left_by_a_lost_request(harness)
    harness.decide("repost")
    waiting = {name: text for name, text in harness.store.entries.items() if name.startswith("decision")}
    harness.store.lose("decision")
    harness.fault("reset", when="after_commit")
    harness.fault("status", route="pending", status=503, skip=1, count=3)
    refused(harness, Unresolved)
    harness.clock.sleep_s(TEN_MINUTES_S)
    harness.sandbox.control("POST", "/forget_keys")
    harness.store.entries |= waiting

    error = refused(harness, OutcomeUnknown)

    assert list(error.batch_nonces) == nonces(harness) == [42]
    assert len(harness.posts()) == 2


def test_an_adoption_names_a_row_and_not_a_batch(harness: ProtocolHarness) -> None:
    """F98: of two rows in one batch it takes the one of that time and amount; one whose amount is other is dropped."""
    harness.options(shared_batches=True)
    _left_by_a_lost_request(harness, "after_commit")
    harness.foreign("3")
    rows = harness.client().pending_withdrawals().rows
    other = next(row for row in rows if row.amount_requested == 3)
    named = {"batch_nonce": other.batch_nonce, "created_at_ms": other.created_at_ms}
    harness.decide("adopt", **named, amount="3")

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=True)

    assert {row.batch_nonce for row in rows} == {other.batch_nonce}
    assert any("has another amount than this order" in line for line in harness.logs)


def test_a_second_decision_is_applied_after_a_refused_one(harness: ProtocolHarness) -> None:
    """F99: what was dropped stands in nobody's way: the next decision of the same case is applied."""
    _left_by_a_lost_request(harness, "after_commit")
    harness.clock.sleep_s(TEN_MINUTES_S)
    harness.sandbox.control("POST", "/forget_keys")
    harness.decide("adopt", batch_nonce=4711, created_at_ms=1, amount="1")
    error = refused(harness, OutcomeUnknown)
    harness.decide("adopt", batch_nonce=error.batch_nonces[0])

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=True)
