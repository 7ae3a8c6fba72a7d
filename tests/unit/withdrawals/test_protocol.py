"""What a try does next: pure, total, and never a second payment, whatever is on record and whatever was seen."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from pacifica_provider.api.models import Receipt
from pacifica_provider.api.outcomes import Accepted, Duplicate, Outcome, Rejected, Throttled, Unknown
from pacifica_provider.withdrawals.decisions import Decision, Void, adopt, repost, stored_form
from pacifica_provider.withdrawals.identity import Order, RunIdentity, fingerprint
from pacifica_provider.withdrawals.ledger import LedgerState
from pacifica_provider.withdrawals.matching import Reading, Snapshot, refused_rows
from pacifica_provider.withdrawals.protocol import (
    Asked,
    Drop,
    End,
    Evidence,
    Keep,
    Look,
    Pause,
    Policy,
    Post,
    Read,
    Return,
    Step,
    Trouble,
    TryContext,
    Unlock,
    Wait,
    answered,
    begin,
    is_fresh,
    next_step,
    recall,
)
from pacifica_provider.withdrawals.record import Attempt, Record, Row, StoredReceipt
from tests.support.listed import FEE, IDENTITY, LOST, NET, OLD, ORDER, RECORD, T0, WINDOW, pending, settled

POLICY = Policy()
ASKED = Asked(IDENTITY, ORDER, "https://x")
CONTEXT = TryContext(first_try=False, run_after_ms=T0)
OPEN = replace(RECORD, attempts=())
EXPIRED = LOST.expires_ms + 1  # the first moment at which LOST cannot be accepted any more
LAG = POLICY.list_lag_ms
TRUST = POLICY.key_trust_ms
RECEIPT = StoredReceipt(7, Decimal("1.5"), FEE, T0, adopted=False)
ACCEPTED = replace(RECORD, attempts=(replace(LOST, outcome="answered", status=200),), state="accepted", receipt=RECEIPT)
DUPLICATE = Attempt(T0 + 13_000, WINDOW, "answered", 409, None, "Duplicate")
REFUSED = replace(LOST, outcome="answered", status=422)
CONCLUDED = replace(REFUSED, outcome="refused", amount=Decimal("1.5"))
VOID = Void(RECORD.key, "ana", "paid by hand", "id-1")


def look(at_ms: int, *rows: Any) -> Snapshot:
    """Return the pending list as seen then, both clocks being equal."""
    return Snapshot(at_ms, at_ms, 0, rows)


def read(at_ms: int, *rows: Any) -> Reading:
    """Return both lists as read then: pending rows from the fixtures' ``pending``, others from ``settled``."""
    waiting = [row for row in rows if hasattr(row, "amount_requested")]
    return Reading(look(at_ms, *waiting), [row for row in rows if row not in waiting], FEE)


def seen(at_ms: int, *readings: Reading, **changes: Any) -> Evidence:
    """Return what a try has seen that unlocked its key and has just read, if it read at all."""
    given_: dict[str, Any] = {
        "window_ms": WINDOW,
        "readings": readings,
        "snapshot": readings[-1].snapshot if readings else None,
        "started_ms": at_ms,
    }
    return Evidence(**{"asked": ASKED, "context": CONTEXT, "now_ms": at_ms, **given_, **changes})


def ends(step: Step, kind: str, why: str = "") -> Record:
    """Return the record of a step that ends the try so."""
    assert isinstance(step, End)
    assert (step.kind, why in step.why) == (kind, True), step
    return step.record


# -- any record, any evidence

# Mostly close together, so that windows, lags and key trust matter; around a time with room for older ones.
MIDDLE = 2 * TRUST
TIMES = st.sampled_from(
    [-TRUST - 1, -TRUST + WINDOW, -60_000, -LAG, -WINDOW, -1_000, -1, 0, 1, 9_000, LAG + 1_000]
).map(lambda ms: MIDDLE + ms) | st.integers(MIDDLE - TRUST - 60_000, MIDDLE + 60_000)
WINDOWS = st.sampled_from([1_000, WINDOW, 30_000])
AMOUNTS = st.sampled_from([Decimal("1.5"), NET, Decimal("1.499") - FEE, Decimal("1.2"), Decimal(9)])
NONCES = st.integers(5, 8)
SENT_OUTCOMES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(lambda status: {"status": status}, st.sampled_from([None, 200, 302, 500, 504])),
    st.just({"outcome": "unsent"}),
    st.builds(
        lambda status: {"outcome": "answered", "status": status}, st.sampled_from([400, 401, 404, 409, 422, 429])
    ),
    st.builds(lambda amount: {"outcome": "refused", "status": 422, "amount": amount}, AMOUNTS),
    st.just({"outcome": "overruled"}),
)
ATTEMPTS = st.builds(lambda at_ms, window_ms, what: Attempt(at_ms, window_ms, **what), TIMES, WINDOWS, SENT_OUTCOMES)
ROWS = st.builds(
    lambda nonce, amount, fee, at_ms: Row(nonce, amount, amount - FEE if fee else None, at_ms, None if fee else "5x"),
    *(NONCES, AMOUNTS, st.booleans(), TIMES),
)
PENDING = st.builds(lambda nonce, at_ms, gross: pending(nonce, at_ms, str(gross)), NONCES, TIMES, AMOUNTS)
LISTED = st.one_of(
    PENDING,
    st.builds(
        lambda nonce, at_ms, amount, tx: settled(nonce, at_ms, str(amount), tx=tx),
        *(NONCES, TIMES, AMOUNTS, st.sampled_from([None, "5x"])),
    ),
)
READINGS = st.builds(
    lambda at_ms, rows, fee: replace(read(at_ms, *rows), fee=fee),
    *(TIMES, st.lists(LISTED, max_size=3), st.sampled_from([FEE, Decimal("0.3"), None])),
)
TROUBLES = st.builds(
    Trouble,
    st.sampled_from(["unreachable", "throttled", "misconfigured"]),
    st.just("trouble"),
    st.sampled_from([None, 0.0, 1.0, 120.0, 1e9]),
    st.sampled_from([None, 404]),
)
CONTEXTS = st.builds(
    TryContext, st.booleans(), TIMES, st.sampled_from(["window", "never", "amount"]), st.sampled_from([None, "-1/None"])
)
OTHER_ORDER = Order("SOL", Decimal(9))
OTHER_ACCOUNT = RunIdentity("other", "pay", "run", "withdraw")


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Return any record that could be stored."""
    order, identity = draw(st.sampled_from([*[ORDER] * 6, OTHER_ORDER])), IDENTITY
    state = draw(st.sampled_from([*["open"] * 8, "accepted", "rejected", "unknown", "void"]))
    receipt = StoredReceipt(draw(NONCES), order.amount, draw(st.none() | st.just(FEE)), T0, draw(st.booleans()))
    return Record(
        identity,
        order,
        "https://x",
        fingerprint(identity, "https://x", order),
        maybe_sent=draw(st.booleans()),
        since_ms=draw(TIMES),
        before=tuple(draw(st.lists(ROWS, max_size=2))),
        attempts=tuple(draw(st.lists(ATTEMPTS, max_size=2))),
        state=state,  # type: ignore[arg-type]  # a text drawn from the literals
        receipt=receipt if state == "accepted" else None,
        reason=draw(st.sampled_from(["", "lost"])),
        decisions=tuple(draw(st.sampled_from([[], ["id-0"], ["id-1"]]))),
        restores=draw(st.sampled_from([0, 1])),
    )


@st.composite
def decisions(draw: st.DrawFn, record: Record) -> Decision | None:
    """Return no decision, one that fits the record as it stands, or one that does not."""
    said: dict[str, Any] = {"by": "ana", "why": "looked", "decision_id": draw(st.sampled_from(["id-1", "id-2"]))}
    action = draw(st.sampled_from([*["none"] * 6, "void", "adopt", "repost"]))
    if action == "none":
        return None
    decision: Decision = Void(record.key, **said)
    if action == "adopt":
        decision = adopt(record, draw(ROWS), **said)
    elif action == "repost":
        decision = repost(record, draw(st.sampled_from([[], [5, 6, 7, 8]])), **said)
    if draw(st.integers(0, 4)) == 0:
        changes: dict[str, Any] = {"key": "other", "fingerprint": "other", "attempts": 9}
        name = draw(st.sampled_from(sorted(changes.keys() & stored_form(decision).keys())))
        decision = msgspec.structs.replace(decision, **{name: changes[name]})
    return decision


@st.composite
def cases(draw: st.DrawFn) -> tuple[Record, Evidence]:
    """Return any record, and anything that a try may have seen; mostly soon after what was read last."""
    record = draw(records())
    readings = tuple(
        sorted(
            draw(st.lists(READINGS, max_size=3) | st.lists(READINGS, min_size=6, max_size=7)),
            key=lambda each: each.snapshot.server_ms,
        )
    )
    snapshot = readings[-1].snapshot if readings else draw(st.none() | st.builds(look, TIMES, PENDING))
    now_ms = draw(TIMES)
    if snapshot is not None and draw(st.integers(0, 3)):
        now_ms = snapshot.began_ms + draw(st.integers(0, 4_000))
    identity = draw(st.sampled_from([*[IDENTITY] * 8, OTHER_ACCOUNT]))
    return record, Evidence(
        Asked(identity, draw(st.sampled_from([*[ORDER] * 6, OTHER_ORDER])), "https://x"),
        draw(CONTEXTS),
        started_ms=now_ms - draw(st.sampled_from([0, 0, 0, 0, 60_000, 180_000, 180_001, -1])),
        now_ms=now_ms,
        decision=draw(decisions(record)),
        window_ms=draw(st.sampled_from([None, 1_000, *[WINDOW] * 4, 30_000])),
        snapshot=snapshot,
        readings=readings,
        trouble=draw(st.none() | st.none() | st.none() | TROUBLES),
        failures=draw(st.integers(0, 4)),
        posts=draw(st.sampled_from([0, 0, 0, 1, 1, 2])),
    )


@st.composite
def nearly_posting(draw: st.DrawFn) -> tuple[Record, Evidence]:
    """Return a record and evidence of which most of what a post needs is true."""
    record, evidence = draw(cases())
    snapshot = evidence.snapshot or look(evidence.now_ms)
    record = replace(record, order=ORDER, fingerprint=RECORD.fingerprint)
    if draw(st.booleans()):  # on the edge of key trust
        age_ms = TRUST - draw(st.sampled_from([0, WINDOW - 1, WINDOW, WINDOW + 1, 30_000]))
        record = replace(record, attempts=(Attempt(snapshot.server_ms - age_ms, WINDOW),))
    return record, replace(
        evidence,
        asked=ASKED,
        decision=None,
        trouble=None,
        snapshot=snapshot,
        window_ms=evidence.window_ms or WINDOW,
        now_ms=snapshot.began_ms + 100,
        started_ms=snapshot.began_ms,
        posts=min(evidence.posts, 1),
    )


@settings(max_examples=200)
@given(cases())
def test_every_record_and_every_evidence_has_an_answer(case: tuple[Record, Evidence]) -> None:
    """Total and pure: a step, the same one when asked again, and no exception (5.3)."""
    record, evidence = case
    step = next_step(record, evidence, POLICY)
    event(type(step).__name__ + (f" {step.kind}" if isinstance(step, End) else ""))

    assert isinstance(step, get_args(Step))
    assert step == next_step(record, evidence, POLICY)


@settings(max_examples=400)
@given(cases() | nearly_posting())
def test_a_post_is_never_a_second_payment(case: tuple[Record, Evidence]) -> None:
    """Only of an open record and its order; none live, refused or forgotten, and a fresh look (F04, F55)."""
    record, evidence = case
    step = next_step(record, evidence, POLICY)
    if not isinstance(step, Post):
        return
    snapshot, window_ms = evidence.snapshot, evidence.window_ms
    assert snapshot is not None
    assert window_ms is not None
    oldest_ms = min([attempt.signed_ms for attempt in record.unanswered], default=snapshot.server_ms)

    assert replace(step.record, before=record.before) == record
    event(f"posts after {len(record.sent)} sent")
    assert (record.state, record.duplicate, evidence.decision, evidence.trouble) == ("open", False, None, None)
    assert record.fingerprint == evidence.asked.fingerprint
    assert snapshot.server_ms > record.live_until_ms
    assert 0 <= evidence.now_ms - snapshot.began_ms <= window_ms / 3
    assert snapshot.server_ms + window_ms - oldest_ms <= TRUST
    assert not record.maybe_sent or evidence.now_ms + window_ms - record.since_ms <= TRUST
    assert evidence.readings or not (record.maybe_sent or record.refusals)
    assert evidence.posts < POLICY.posts_per_try
    assert 0 <= evidence.now_ms - evidence.started_ms <= POLICY.try_budget_ms


@settings(max_examples=200)
@given(cases())
def test_a_claim_is_never_more_than_was_seen(case: tuple[Record, Evidence]) -> None:
    """A receipt is returned if there is one, nothing moved if it was shown, and unknown stays unknown (I2, I3, I4)."""
    record, evidence = case
    step = next_step(record, evidence, POLICY)
    late = [reading for reading in evidence.readings if reading.snapshot.server_ms > record.live_until_ms]

    if isinstance(step, Return):
        assert (step.record.state, step.record.receipt) == ("accepted", step.receipt)
        assert record.receipt is not None or (step.receipt.adopted and late)
    if isinstance(step, End):
        assert (step.kind == "rejected") == (step.record.state == "rejected")
        assert (step.kind == "unknown") <= (step.record.state == "unknown")
        assert (step.kind == "voided") == (step.record.state == "void" and step.kind != "mismatch")
    if isinstance(step, End) and step.kind == "rejected":
        apart = late[-1].snapshot.server_ms - late[0].snapshot.server_ms
        assert not step.record.may_have_moved
        assert apart >= LAG
        assert not refused_rows(record, record.sent, late, tolerance_ms=POLICY.tolerance_ms)


@settings(max_examples=200)
@given(cases())
def test_a_record_is_rewritten_only_by_a_decision_or_for_a_new_order(case: tuple[Record, Evidence]) -> None:
    """Keep is for what a person decided and for ordering anew after a refusal; a decision that waits is dealt with."""
    record, evidence = case
    step = next_step(record, evidence, POLICY)

    if isinstance(step, Keep):
        assert step.decided == (evidence.decision is not None)
        assert step.decided or record.state == "rejected"
    if isinstance(step, Drop):
        assert evidence.decision is not None
    if evidence.decision is not None:
        assert isinstance(step, (Keep, Drop, Read, Wait, Pause, End))
        assert not isinstance(step, End) or step.kind in {"unfinished", "misconfigured"}


# -- each clause


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (OPEN, "mismatch"),
        (replace(RECORD, state="unknown"), "mismatch"),
        (ACCEPTED, "mismatch"),
        (replace(RECORD, state="void"), "mismatch"),
    ],
)
@pytest.mark.parametrize(
    "asked",
    [replace(ASKED, order=OTHER_ORDER), replace(ASKED, base_url="https://y"), replace(ASKED, identity=OTHER_ACCOUNT)],
)
def test_another_order_than_the_recorded_one_is_a_mismatch(record: Record, kind: str, asked: Asked) -> None:
    """Amount, exchange or account drifted: nothing is done, whatever the state (F51, F56, F70, F71)."""
    assert ends(next_step(record, seen(T0, asked=asked), POLICY), kind) == record


def test_a_receipt_on_record_is_returned_at_once() -> None:
    """Before the key is unlocked or anything is read (F38, F53)."""
    assert next_step(ACCEPTED, seen(T0, window_ms=None), POLICY) == Return(ACCEPTED, RECEIPT)


def test_a_voided_record_ends_every_try() -> None:
    """It stays as the person left it, and nothing is read."""
    record = replace(RECORD, state="void")

    assert ends(next_step(record, seen(T0, window_ms=None), POLICY), "voided") == record


def test_the_first_try_unlocks_then_looks_then_posts() -> None:
    """What fails locally fails first; the look is the *before* picture (F01, F29)."""
    steps = [
        next_step(OPEN, seen(T0, window_ms=None), POLICY),
        next_step(OPEN, seen(T0), POLICY),
        next_step(OPEN, seen(T0, snapshot=look(T0, pending(7), pending(8, gross="9"))), POLICY),
    ]

    assert steps == [Unlock(), Look(), Post(replace(OPEN, before=(Row(7, Decimal("1.5"), NET, T0 + 2_000),)))]


@pytest.mark.parametrize(
    "record",
    [
        replace(OPEN, before=(OLD,), attempts=(replace(LOST, outcome="overruled"),)),
        replace(OPEN, before=(OLD,), decisions=("id-0",)),
        replace(OPEN, before=(OLD,), maybe_sent=True),
    ],
    ids=["overruled", "decided", "may be lost"],
)
def test_the_before_picture_is_taken_once(record: Record) -> None:
    """What is pending after something may have been sent, or after a person named rows, may be ours (F20)."""
    evidence = seen(EXPIRED, read(EXPIRED)) if record.maybe_sent else seen(EXPIRED, snapshot=look(EXPIRED, pending(7)))

    assert next_step(record, evidence, POLICY) == Post(record)


@pytest.mark.parametrize(("age_ms", "step"), [(0, Post), (3_333, Post), (3_334, Look), (-1, Look)])
def test_a_look_is_acted_on_only_while_it_is_fresh(age_ms: int, step: type) -> None:
    """For a third of the signature's window, and not if the clock was set back (F29, F31)."""
    evidence = seen(T0 + age_ms, snapshot=look(T0), started_ms=T0 + age_ms)

    assert isinstance(next_step(OPEN, evidence, POLICY), step)
    assert is_fresh(T0, T0 + age_ms, WINDOW) == (step is Post)


@pytest.mark.parametrize(
    ("server_ms", "step"),
    [
        (LOST.signed_ms, Wait(LOST.expires_ms)),
        (LOST.expires_ms, Wait(LOST.expires_ms)),
        (EXPIRED, Post(RECORD)),
        (LOST.signed_ms + TRUST - WINDOW, Post(RECORD)),
        (LOST.signed_ms + TRUST - WINDOW + 1, Read()),
    ],
)
def test_an_unanswered_request_is_waited_out_and_posted_again_while_the_key_is_known(
    server_ms: int, step: Step
) -> None:
    """Not before it can be accepted no more, and only if the next one is dead before the key may go (F02, F04, F89)."""
    assert step == next_step(RECORD, seen(server_ms, snapshot=look(server_ms)), POLICY)


def test_a_forgotten_key_ends_as_unknown_with_the_lists_in_view() -> None:
    """After key trust a person is asked, and no request is made (F55)."""
    late = LOST.signed_ms + TRUST
    step = next_step(RECORD, seen(late, read(late, settled(7))), POLICY)

    assert ends(step, "unknown", "may have forgotten").state == "unknown"
    assert isinstance(step, End)
    assert [each.row.batch_nonce for each in step.listed or ()] == [7]


@pytest.mark.parametrize(
    "changes",
    [
        {"posts": 2},
        {"started_ms": EXPIRED - POLICY.try_budget_ms - 1},
        {"started_ms": EXPIRED + 1},
        {"now_ms": T0 + 2_000, "snapshot": look(T0 + 2_000), "started_ms": T0 + 2_000 - POLICY.try_budget_ms + 500},
    ],
    ids=["two posts", "budget used", "clock set back", "waits longer than the budget"],
)
def test_a_try_has_two_posts_and_three_minutes(changes: dict[str, Any]) -> None:
    """What a try cannot do in that is left to the next one (5.4)."""
    ends(next_step(RECORD, seen(EXPIRED, **{"snapshot": look(EXPIRED), **changes}), POLICY), "unfinished")


REFUSED_RECORD = replace(RECORD, attempts=(REFUSED,))


def test_a_refusal_is_concluded_from_two_readings() -> None:
    """The first once the request is dead, the second after the lag bound; then nothing moved (F24, F90)."""
    first, second = read(EXPIRED), read(EXPIRED + LAG + 1_000)
    steps = [
        next_step(REFUSED_RECORD, seen(T0 + 2_000, snapshot=look(T0 + 2_000)), POLICY),
        next_step(REFUSED_RECORD, seen(EXPIRED, snapshot=look(EXPIRED)), POLICY),
        next_step(REFUSED_RECORD, seen(EXPIRED, first), POLICY),
    ]

    assert steps == [Wait(LOST.expires_ms), Read(), Wait(EXPIRED + LAG + 999)]
    end = next_step(REFUSED_RECORD, seen(EXPIRED + LAG + 1_000, first, second), POLICY)
    assert ends(end, "rejected") == replace(REFUSED_RECORD, state="rejected", attempts=(CONCLUDED,))


@pytest.mark.parametrize("shown_in", [0, 1])
def test_a_refusal_beside_a_row_is_unknown(shown_in: int) -> None:
    """A request delivered twice may be accepted once and refused once (F90)."""
    rows: list[list[Any]] = [[], []]
    rows[shown_in] = [pending(7)]
    late = EXPIRED + LAG + 1_000
    evidence = seen(late, read(EXPIRED, *rows[0]), read(late, *rows[1]))

    ends(next_step(REFUSED_RECORD, evidence, POLICY), "unknown", "answered HTTP 422, yet lists")


@pytest.mark.parametrize(
    "attempts", [(LOST, REFUSED), (replace(LOST, outcome="overruled"), REFUSED), (REFUSED, REFUSED)]
)
def test_a_refusal_after_something_was_maybe_sent_is_unknown(attempts: tuple[Attempt, ...]) -> None:
    """It says nothing of the request before it (F25, F26)."""
    record = replace(RECORD, attempts=attempts)
    evidence = seen(EXPIRED, read(EXPIRED))

    ends(next_step(record, evidence, POLICY), "unknown", "after an earlier request, Pacifica answered HTTP 422")


def test_a_refusal_of_a_record_that_may_be_lost_is_unknown() -> None:
    """An earlier try may have sent it (F25, F54)."""
    record = replace(REFUSED_RECORD, maybe_sent=True)

    ends(next_step(record, seen(EXPIRED, read(EXPIRED)), POLICY), "unknown", "HTTP 422")


def test_a_refused_order_is_ordered_anew() -> None:
    """With the order of today; what was refused, what was there before and what was decided are kept (F90)."""
    record = replace(
        RECORD, state="rejected", attempts=(CONCLUDED,), before=(OLD,), decisions=("id-0",), restores=3, reason="old"
    )
    step = next_step(record, seen(T0 + 99_000, asked=replace(ASKED, order=OTHER_ORDER)), POLICY)

    assert isinstance(step, Keep)
    assert step.record == replace(
        record, state="open", order=OTHER_ORDER, fingerprint=replace(ASKED, order=OTHER_ORDER).fingerprint, reason=""
    )


def test_a_refused_order_of_another_account_begins_anew() -> None:
    """A wrong account is a common reason for a refusal, and nothing of it moved."""
    record = replace(RECORD, state="rejected", attempts=(CONCLUDED,), restores=3)
    step = next_step(record, seen(T0 + 99_000, asked=replace(ASKED, identity=OTHER_ACCOUNT)), POLICY)

    assert isinstance(step, Keep)
    assert (step.record.attempts, step.record.since_ms, step.record.restores) == ((), T0 + 99_000, 3)


@pytest.mark.parametrize(("rows", "kind"), [((), Post), ((pending(7, gross="9"),), Post), ((pending(7),), End)])
def test_an_order_made_anew_reads_both_lists_first(rows: tuple[Any, ...], kind: type) -> None:
    """A row that the refused request may have come to is a person's to judge (F90)."""
    record = replace(RECORD, attempts=(CONCLUDED,))
    at_ms = EXPIRED + LAG

    assert next_step(record, seen(at_ms, snapshot=look(at_ms)), POLICY) == Read()
    step = next_step(record, seen(at_ms, read(at_ms, *rows)), POLICY)
    assert isinstance(step, kind)
    assert bool(refused_rows(record, record.refusals, [read(at_ms, *rows)], tolerance_ms=6_000)) == (kind is End)


LOST_RECORD = replace(OPEN, maybe_sent=True)


def test_a_lost_record_is_looked_for_before_anything_is_sent() -> None:
    """Nothing there: it is posted. A look-alike: a person says whose it is (F54, F96)."""
    steps = [
        next_step(LOST_RECORD, seen(T0, snapshot=look(T0)), POLICY),
        next_step(LOST_RECORD, seen(T0, read(T0)), POLICY),
        next_step(LOST_RECORD, seen(T0, read(T0, pending(7))), POLICY),
    ]

    assert steps[:2] == [Read(), Post(LOST_RECORD)]
    ends(steps[2], "unknown", "may be lost")


def test_a_lost_record_whose_key_may_be_forgotten_is_never_posted() -> None:
    """One look proves nothing: the row may be between the lists (F87)."""
    late = T0 + TRUST - WINDOW + 1
    steps = [next_step(LOST_RECORD, seen(at_ms, read(at_ms)), POLICY) for at_ms in (late - 1, late)]

    assert steps[0] == Post(LOST_RECORD)
    ends(steps[1], "unknown", "forgotten its idempotency key since")


def test_what_a_restored_ledger_may_have_lost_is_never_posted() -> None:
    """However young the record is: it may have been sent under another reference, whose key is another (F47, F101)."""
    record = replace(LOST_RECORD, restores=1)

    ends(next_step(record, seen(T0, read(T0)), POLICY), "unknown", "may be lost")


def test_a_lost_record_with_a_request_of_its_own_is_settled_by_a_409() -> None:
    """The row in view may be that request's, so it is posted again and the key tells (F54)."""
    record = replace(LOST_RECORD, attempts=(LOST,))

    assert next_step(record, seen(EXPIRED, read(EXPIRED, pending(7))), POLICY) == Post(record)


DUPLICATE_RECORD = replace(RECORD, attempts=(LOST, DUPLICATE))
AFTER = DUPLICATE.expires_ms + 1
SECOND = AFTER + LAG + 1_000


def twice(*rows: Any, context: TryContext = CONTEXT) -> Evidence:
    """Return two readings that settle a 409, both with these rows."""
    return seen(SECOND, read(AFTER, *rows), read(SECOND, *rows), context=context)


def test_a_409_is_settled_by_two_readings_and_its_row_adopted() -> None:
    """The one row made in the window of the unanswered request is the withdrawal (F03, F15)."""
    steps = [
        next_step(DUPLICATE_RECORD, seen(T0 + 14_000, snapshot=look(T0 + 14_000)), POLICY),
        next_step(DUPLICATE_RECORD, seen(AFTER, snapshot=look(AFTER)), POLICY),
        next_step(DUPLICATE_RECORD, seen(AFTER, read(AFTER, pending(7))), POLICY),
    ]

    assert steps == [Wait(DUPLICATE.expires_ms), Read(), Wait(AFTER + LAG + 999)]
    found = next_step(DUPLICATE_RECORD, twice(pending(7)), POLICY)
    receipt = StoredReceipt(7, Decimal("1.5"), FEE, LOST.signed_ms, adopted=True)
    assert found == Return(replace(DUPLICATE_RECORD, state="accepted", receipt=receipt), receipt)


@pytest.mark.parametrize(
    ("evidence", "why"),
    [
        (twice(), "yet lists no such withdrawal"),
        (twice(pending(7), pending(8)), "lists 2 withdrawals that could be it"),
        (twice(pending(7, T0 + 90_000)), "was not made by an unanswered request"),
        (twice(pending(7), context=replace(CONTEXT, adoption="never")), "a person has to say which"),
    ],
    ids=["no row", "two rows", "outside the window", "several withdrawals of one task"],
)
def test_a_409_without_one_sure_row_is_unknown(evidence: Evidence, why: str) -> None:
    """Burned key, foreign rows, a mapped task: nothing is adopted without a person (F17, F18, F20, F62, F94)."""
    assert ends(next_step(DUPLICATE_RECORD, evidence, POLICY), "unknown", why).reason != ""


def test_a_409_on_the_first_request_is_unknown_at_once() -> None:
    """Somebody else used this key: no row is ever taken for ours (F16)."""
    record = replace(RECORD, attempts=(DUPLICATE,))

    ends(next_step(record, seen(AFTER, read(AFTER, pending(7))), POLICY), "unknown", "already knew this")


def test_a_409_on_the_first_request_of_a_lost_record_is_not_adopted() -> None:
    """No window is on record, so nothing shows that the row is ours (F54)."""
    record = replace(LOST_RECORD, attempts=(DUPLICATE,))

    ends(next_step(record, twice(pending(7)), POLICY), "unknown", "was not made by an unanswered request")


def test_a_stored_unknown_of_a_409_is_settled_again() -> None:
    """A row that came late is found when the task is cleared, by reading alone (5.3)."""
    record = replace(DUPLICATE_RECORD, state="unknown", reason="no row")

    assert isinstance(next_step(record, twice(pending(7)), POLICY), Return)
    ends(next_step(record, twice(), POLICY), "unknown")


def test_any_other_stored_unknown_is_repeated_with_the_lists_in_view() -> None:
    """It is read, not posted, however often the task is cleared (I4)."""
    record = replace(RECORD, state="unknown", reason="lost")

    assert next_step(record, seen(EXPIRED, window_ms=None), POLICY) == Read()
    assert ends(next_step(record, seen(EXPIRED, read(EXPIRED, pending(7))), POLICY), "unknown", "lost") == record


TAGGED = replace(CONTEXT, adoption="amount")


@pytest.mark.parametrize(
    "record",
    [
        replace(RECORD, state="unknown", reason="lost"),
        replace(LOST_RECORD, since_ms=T0 - TRUST),
        replace(RECORD, attempts=(DUPLICATE,)),
    ],
    ids=["unknown", "lost and forgotten", "409 on the first request"],
)
def test_a_tagged_amount_is_recognised_where_others_are_unknown(record: Record) -> None:
    """Two readings with one row of this amount, whenever it was made: no person is needed (5.3)."""
    asks = next_step(record, seen(SECOND, context=TAGGED), POLICY)
    found = next_step(record, twice(pending(7, T0 + 90_000), context=TAGGED), POLICY)

    assert isinstance(asks, Read)
    assert isinstance(found, Return)
    assert (found.receipt.batch_nonce, found.receipt.adopted) == (7, True)
    ends(next_step(record, twice(pending(7), pending(8), context=TAGGED), POLICY), "unknown")
    ends(next_step(record, twice(context=TAGGED), POLICY), "unknown")


@pytest.mark.parametrize("record", [REFUSED_RECORD, DUPLICATE_RECORD])
def test_a_clock_that_stands_still_ends_the_try(record: Record) -> None:
    """Six readings of the same moment are enough: the next try goes on (F08)."""
    readings = [read(T0)] * 6
    step = next_step(record, seen(AFTER + 99_999, *readings, snapshot=look(AFTER + 99_999)), POLICY)

    ends(step, "unfinished", "clock does not move on")


# -- trouble


@pytest.mark.parametrize(
    ("trouble", "changes", "step"),
    [
        (Trouble("unreachable", "t"), {"failures": 1}, Pause(1.0)),
        (Trouble("unreachable", "t"), {"failures": 2}, Pause(2.0)),
        (Trouble("unreachable", "t"), {"failures": 3}, "unfinished"),
        (Trouble("unreachable", "t"), {"failures": 1, "started_ms": T0 - POLICY.try_budget_ms}, "unfinished"),
        (Trouble("throttled", "t", None), {}, Pause(5.0, jitter=True)),
        (Trouble("throttled", "t", 0.0), {}, Pause(1.0, jitter=True)),
        (Trouble("throttled", "t", 144.0), {}, Pause(144.0, jitter=True)),
        (Trouble("throttled", "t", 144.1), {}, "unfinished"),
        (Trouble("misconfigured", "t", status=404), {"failures": 1}, "misconfigured"),
    ],
)
def test_trouble_is_waited_out_within_the_budget(trouble: Trouble, changes: dict[str, Any], step: Any) -> None:
    """Three times for a network error, as long as asked for a 429, never for a wrong path (F01, F23, F95)."""
    found = next_step(OPEN, seen(T0, trouble=trouble, **changes), POLICY)

    if isinstance(step, Pause):
        assert found == step
    else:
        assert ends(found, step, "t") == OPEN
        assert isinstance(found, End)
        assert (found.retry_after_s, found.status) == (trouble.retry_after_s, trouble.status)


def test_trouble_does_not_hide_what_is_known() -> None:
    """A receipt is returned and an unknown is said without the lists, if they cannot be read (F45)."""
    down = {"trouble": Trouble("unreachable", "down"), "failures": 3}
    record = replace(RECORD, state="unknown", reason="lost")
    said = next_step(record, seen(T0, **down), POLICY)

    assert next_step(ACCEPTED, seen(T0, **down), POLICY) == Return(ACCEPTED, RECEIPT)
    assert said == End("unknown", record, "lost", None)


# -- a person's decision


def test_a_void_is_applied_at_once() -> None:
    """It only stops, so it needs neither lists nor an expired request (F98)."""
    step = next_step(RECORD, seen(T0, window_ms=None, decision=VOID), POLICY)

    assert step == Keep(
        replace(RECORD, state="void", reason="void by ana: paid by hand", decisions=("id-1",)),
        "void by ana: paid by hand",
        decided=True,
    )


@pytest.mark.parametrize("action", ["adopt", "repost"])
def test_adopt_and_repost_wait_until_no_request_is_live_and_read_the_lists(action: str) -> None:
    """What the person saw may be overtaken by a request that still lands (F04, F98)."""
    record = replace(RECORD, state="unknown")
    said = {"by": "ana", "why": "looked", "decision_id": "id-1"}
    row = Row(7, Decimal("1.5"), NET, T0 + 2_000)
    decision = adopt(record, row, **said) if action == "adopt" else repost(record, [7], **said)
    steps = [
        next_step(record, seen(T0 + 2_000, window_ms=None, decision=decision), POLICY),
        next_step(record, seen(T0 + 2_000, read(T0 + 2_000), decision=decision), POLICY),
        next_step(record, seen(EXPIRED, snapshot=look(EXPIRED), decision=decision), POLICY),
        next_step(record, seen(EXPIRED, read(EXPIRED, pending(7)), decision=decision), POLICY),
    ]

    assert steps[:3] == [Read(), Wait(LOST.expires_ms), Read()]
    assert isinstance(steps[3], Keep)
    assert steps[3].record.state == ("accepted" if action == "adopt" else "open")


@pytest.mark.parametrize(
    ("record", "decision", "why"),
    [
        (replace(RECORD, decisions=("id-1",)), VOID, "has been applied"),
        (RECORD, msgspec.structs.replace(VOID, key="other"), "it is for key other"),
        (RECORD, repost(RECORD, [], by="a", why="b", decision_id="c"), "batch_nonce [7] is listed"),
        (RECORD, repost(replace(RECORD, attempts=()), [7], by="a", why="b", decision_id="c"), "after 0 requests"),
    ],
)
def test_a_decision_that_does_not_fit_is_dropped(record: Record, decision: Decision, why: str) -> None:
    """With a line that says what changed; the try goes on as if it had not been taken (F98, F99)."""
    step = next_step(record, seen(EXPIRED, read(EXPIRED, pending(7)), decision=decision), POLICY)

    assert isinstance(step, Drop)
    assert why in step.why


# -- what an answer makes of the record


@pytest.mark.parametrize(
    ("outcome", "changes"),
    [
        (Duplicate("known"), {"outcome": "answered", "status": 409, "detail": "known"}),
        (Rejected(422, 5, "low"), {"outcome": "answered", "status": 422, "code": 5, "detail": "low"}),
        (Throttled(3.0), {"outcome": "answered", "status": 429}),
        (Unknown("HTTP 502", 502), {"status": 502, "detail": "HTTP 502"}),
        (Unknown("no whole answer: reset"), {"detail": "no whole answer: reset"}),
        (Accepted(Receipt("BTC", 7, Decimal("1.5"), FEE)), {"detail": "HTTP 200 that echoes another order"}),
        (Accepted(Receipt("SOL", 7, Decimal("1.51"), FEE)), {"detail": "HTTP 200 that echoes another order"}),
        (Accepted(Receipt("SOL", 7, Decimal("1.5"), Decimal(2))), {"detail": "HTTP 200 that echoes another order"}),
    ],
)
def test_an_answer_is_noted_at_its_attempt(outcome: Outcome, changes: dict[str, Any]) -> None:
    """Accepted only by a receipt that echoes the order; what proves nothing stays unanswered (F13, F14, F28, F95)."""
    record = replace(RECORD, attempts=(replace(LOST, outcome="unsent"), LOST))

    assert answered(record, outcome) == replace(
        record, attempts=(replace(LOST, outcome="unsent"), replace(LOST, **changes))
    )


def test_an_accepted_answer_is_the_receipt() -> None:
    """``1.50`` echoes ``1.5``; the receipt is dated by its request (F14)."""
    record = answered(RECORD, Accepted(Receipt("SOL", 7, Decimal("1.50"), FEE)))

    assert record.state == "accepted"
    assert record.receipt == StoredReceipt(7, Decimal("1.5"), FEE, LOST.signed_ms, adopted=False)
    assert record.attempts == (replace(LOST, outcome="answered", status=200),)


# -- how a record begins, and what it is worth after a restore

RAISED = LedgerState(T0 + 1, raised=True)


@pytest.mark.parametrize(
    ("first_try", "run_after_ms", "ledger", "listed", "maybe_sent"),
    [
        (True, T0, LedgerState(T0), False, False),
        (True, T0, LedgerState(T0 + 1), False, False),
        (False, T0, LedgerState(T0), False, False),
        (False, T0, LedgerState(T0 + 1), False, True),
        (True, T0, RAISED, False, True),
        (False, T0 + 1, RAISED, False, False),
        (True, T0, LedgerState(T0), True, True),
        (False, T0, LedgerState(0), True, True),
    ],
)
def test_an_absent_record_proves_that_nothing_was_sent_where_the_ledger_is_complete(
    first_try: bool, run_after_ms: int, ledger: LedgerState, listed: bool, maybe_sent: bool
) -> None:
    """Of runs not older than it, and of first tries while it never forgot; never where it was listed (F47, F96)."""
    context = TryContext(first_try, run_after_ms)
    record = begin(ASKED, context, now_ms=T0 + 9, ledger=ledger, listed=listed)

    assert maybe_sent == record.maybe_sent
    assert record.since_ms == (run_after_ms if maybe_sent else T0 + 9)
    assert (record.state, record.attempts, record.fingerprint) == ("open", (), RECORD.fingerprint)
    assert record.restores == ledger.restores


def test_a_record_that_may_be_lost_is_no_younger_than_now() -> None:
    """A run planned for the future cannot have been sent after this moment."""
    context = TryContext(first_try=False, run_after_ms=T0 + 99)

    assert begin(ASKED, context, now_ms=T0, ledger=LedgerState(T0 + 100), listed=False).since_ms == T0


RESTORED = LedgerState(T0 + 99_999, raised=True, restores=1)


@pytest.mark.parametrize(
    ("record", "changes"),
    [
        (RECORD, {"maybe_sent": True}),
        (replace(RECORD, state="rejected", attempts=(CONCLUDED,)), {"maybe_sent": True, "state": "open"}),
        (replace(RECORD, state="unknown"), {"maybe_sent": True}),
    ],
)
def test_a_record_older_than_a_restore_may_lack_what_came_after_it(record: Record, changes: dict[str, Any]) -> None:
    """The database came back from a backup: what the record shows may have gone on since (5.2)."""
    context = TryContext(first_try=True, run_after_ms=T0 - 5)

    assert recall(record, context, RESTORED) == replace(record, since_ms=T0 - 5, restores=1, **changes)


@pytest.mark.parametrize(
    "record", [ACCEPTED, replace(RECORD, state="void"), replace(RECORD, restores=1), replace(OPEN, restores=1)]
)
def test_an_ended_record_or_one_written_since_is_as_it_is(record: Record) -> None:
    """A receipt and a person's void stay true, whatever was lost."""
    assert record == recall(record, CONTEXT, RESTORED)
