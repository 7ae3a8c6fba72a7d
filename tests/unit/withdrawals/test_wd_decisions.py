"""A person's decision: read strictly, and applied only where it names what is there."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.withdrawals.decisions import Decision, apply_decision, receipt_of
from pacifica_provider.withdrawals.identity import Order, RunIdentity, fingerprint
from pacifica_provider.withdrawals.records import Attempt, Record, Row, StoredReceipt

IDENTITY = RunIdentity("acc", "pay", "run", "withdraw")
ORDER = Order("SOL", Decimal("1.5"))
KEY = IDENTITY.idempotency_key()
T0, SKEW, WINDOW = 1_000_000, 5_000, 10_000
LOST = Attempt(T0, WINDOW)
LATER_MS = T0 + WINDOW + SKEW
OURS = Row(7, Decimal("1.5"), Decimal("1.499"), T0 + 1_000)
OTHER = Row(8, Decimal("1.5"), None, T0 + 60_000)
RECORD = Record(
    IDENTITY,
    ORDER,
    "https://x",
    fingerprint(IDENTITY, "https://x", ORDER),
    maybe_sent=False,
    since_ms=T0,
    attempts=(LOST,),
    state="unknown",
    candidates=(OURS, OTHER),
    reason="lost",
)
ADOPT: dict[str, Any] = {"key": KEY, "action": "adopt", "batch_nonce": 7, "by": "ana", "why": "seen on chain"}
REPOST: dict[str, Any] = {"key": KEY, "action": "repost", "rows": [7, 8], "by": "ana", "why": "nothing arrived"}
VOID: dict[str, Any] = {"key": KEY, "action": "void", "by": "ana", "why": "paid by hand"}


def apply(
    data: dict[str, Any], *, record: Record = RECORD, rows: tuple[Row, ...] = (OURS, OTHER), now_ms: int = LATER_MS
) -> Record:
    """Return the record as decided."""
    return apply_decision(record, Decision.from_json(data), rows, now_ms=now_ms, skew_ms=SKEW)


@pytest.mark.parametrize("data", [ADOPT, REPOST, VOID, {**ADOPT, "outside_window": True}, {**REPOST, "rows": []}])
def test_a_decision_survives_the_store(data: dict[str, Any]) -> None:
    """As an object or as JSON text, and again after it was stored with its id, it is the same decision."""
    decision = Decision.from_json(data)

    assert decision == Decision.from_json(json.dumps(data)) == Decision.from_json(decision.to_json())
    assert decision.decision_id


def test_two_decisions_have_two_ids() -> None:
    """The id tells whether a decision was applied already, so it follows every word of it."""
    wishes = [ADOPT, {**ADOPT, "why": "other"}, {**ADOPT, "batch_nonce": 8}, {**ADOPT, "decision_id": "mine"}, VOID]

    assert len({Decision.from_json(wish).decision_id for wish in wishes}) == len(wishes)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, "not an object"),
        ([], "not an object"),
        ("void", "not JSON"),
        ("[]", "not an object"),
        ({**VOID, "action": "retry"}, "action is not one of"),
        ({**VOID, "action": None}, "action is not one of"),
        ({**VOID, "action": ["void"]}, "action is not one of"),
        ({**VOID, "force": True}, "unknown fields"),
        ({**VOID, "key": None}, "key is missing"),
        ({**VOID, "by": ""}, "by is missing"),
        ({**VOID, "why": 7}, "why is missing"),
        ({**ADOPT, "batch_nonce": None}, "not a batch nonce"),
        ({**ADOPT, "batch_nonce": True}, "not a batch nonce"),
        ({**ADOPT, "batch_nonce": "7 "}, "not a batch nonce"),
        ({**REPOST, "rows": [7, "x"]}, "not a batch nonce"),
        ({**REPOST, "rows": 7}, "rows is not a list"),
        ({**REPOST, "rows": "78"}, "rows is not a list"),
        ({**REPOST, "rows": {"7": "mine", "8": "not"}}, "rows is not a list"),
    ],
)
def test_a_decision_that_cannot_be_read_is_refused(data: Any, says: str) -> None:
    """What is wrong with it is named, and nothing is guessed (F48)."""
    with pytest.raises(ConfigurationError, match=f"decision on this withdrawal .*{says}"):
        Decision.from_json(data)


@pytest.mark.parametrize(
    ("row", "fee"), [(OURS, Decimal("0.001")), (replace(OURS, net_amount=None), None)], ids=["fee", "no fee"]
)
def test_an_adopted_row_becomes_the_receipt(row: Row, fee: Decimal | None) -> None:
    """Nonce and fee of the row, amount of the order, time of the attempt; and who said so."""
    decided = apply(ADOPT, rows=(row, OTHER))

    assert decided.receipt == StoredReceipt(7, Decimal("1.5"), fee, T0, adopted=True)
    assert (decided.state, decided.candidates) == ("accepted", ())
    assert decided.reason == "adopt by ana: seen on chain"
    assert decided.decisions == (Decision.from_json(ADOPT).decision_id,)


def test_a_row_outside_every_window_needs_to_be_named_so() -> None:
    """A row made while no request of this record was valid is adopted only with ``outside_window``."""
    wish = {**ADOPT, "batch_nonce": 8}
    decided = apply({**wish, "outside_window": True})

    assert decided.receipt == StoredReceipt(8, Decimal("1.5"), None, OTHER.created_at_ms, adopted=True)
    with pytest.raises(ConfigurationError, match="outside_window"):
        apply(wish)
    with pytest.raises(ConfigurationError, match="outside_window"):
        apply({**wish, "outside_window": "true"})


def test_a_row_of_a_wiped_record_needs_no_window() -> None:
    """Where no attempt is on record there is no window to be outside of (F54)."""
    wiped = replace(RECORD, attempts=(), maybe_sent=True)

    assert apply({**ADOPT, "batch_nonce": 8}, record=wiped).state == "accepted"


@pytest.mark.parametrize("rows", [(), (OTHER,)])
def test_a_row_that_is_not_listed_is_not_adopted(rows: tuple[Row, ...]) -> None:
    """A nonce that nothing listed carries is refused, so a typing error adopts nothing."""
    with pytest.raises(ConfigurationError, match="no listed withdrawal with batch_nonce 7"):
        apply(ADOPT, rows=rows)


def test_a_repost_opens_the_record_under_the_same_key() -> None:
    """The named rows join the *before* picture, the lost attempt is overruled and stays on record."""
    decided = apply(REPOST)

    assert (decided.state, decided.reposted, decided.key) == ("open", True, KEY)
    assert decided.before == (OURS, OTHER)
    assert decided.attempts == (replace(LOST, outcome="overruled"),)
    assert decided.may_have_moved
    assert decided.candidates == ()


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([7], r"does not name batch_nonce \[8\]"),
        ([7, 8, 9], r"\[9\], which is not a candidate"),
        ([], r"does not name batch_nonce \[7, 8\]"),
    ],
)
def test_a_repost_must_name_every_listed_row(rows: list[int], says: str) -> None:
    """A row left unnamed might be this withdrawal; one that is not there was misread."""
    with pytest.raises(ConfigurationError, match=says):
        apply({**REPOST, "rows": rows})


def test_a_key_answered_409_is_not_reposted() -> None:
    """Futile while the key is remembered, dangerous after (F16, F18)."""
    record = replace(RECORD, attempts=(LOST, Attempt(T0, WINDOW, "answered", 409)))

    with pytest.raises(ConfigurationError, match="answered 409"):
        apply(REPOST, record=record)


@pytest.mark.parametrize("wish", [ADOPT, REPOST, VOID])
@pytest.mark.parametrize("early_ms", [1, 500, SKEW + WINDOW])
def test_nothing_is_decided_while_a_signature_may_be_accepted(wish: dict[str, Any], early_ms: int) -> None:
    """Until the last window and the skew have passed the request may still land (F04)."""
    with pytest.raises(ConfigurationError, match=f"clear the task again in {early_ms // 1000 + 1} s"):
        apply(wish, now_ms=LATER_MS - early_ms)


def test_an_unsent_attempt_holds_nothing_up() -> None:
    """A request proven never to have left has no window to wait for."""
    record = replace(RECORD, attempts=(replace(LOST, outcome="unsent"),))

    assert apply(VOID, record=record, now_ms=T0).state == "void"


def test_a_voided_record_keeps_its_attempts() -> None:
    """Void ends the record and erases nothing of it."""
    assert apply(VOID) == replace(
        RECORD,
        state="void",
        reason="void by ana: paid by hand",
        decisions=(Decision.from_json(VOID).decision_id,),
    )


@pytest.mark.parametrize(("row", "at_ms"), [(OURS, T0), (OTHER, OTHER.created_at_ms)])
def test_a_found_withdrawal_is_dated_by_its_request(row: Row, at_ms: int) -> None:
    """The receipt's time is the signing time of the attempt it fits, else the row's own."""
    assert at_ms == receipt_of(RECORD, row, skew_ms=SKEW).submitted_at_ms
