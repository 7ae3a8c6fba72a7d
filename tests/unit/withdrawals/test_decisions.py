"""A person's decision: read strictly, bound to what was seen, and applied only where that has not changed."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.withdrawals import decisions
from pacifica_provider.withdrawals.decisions import (
    StaleDecisionError,
    apply_decision,
    read_decision,
    stored_form,
    to_be_named,
)
from pacifica_provider.withdrawals.matching import Fit, ListedRow
from pacifica_provider.withdrawals.record import Attempt, Record, Row, StoredReceipt
from tests.support.listed import LOST, NET, RECORD, SKEW, T0, WINDOW

KEY = RECORD.key
OURS = Row(7, Decimal("1.5"), NET, T0 + 2_000)
OTHER = Row(8, Decimal("1.5"), None, T0 + 60_000, "5x")
UNKNOWN = replace(RECORD, state="unknown", reason="lost")
ADOPT: dict[str, Any] = {
    "key": KEY,
    "action": "adopt",
    "fingerprint": RECORD.fingerprint,
    "by": "ana",
    "why": "seen on chain",
    "batch_nonce": 7,
    "created_at_ms": T0 + 2_000,
    "amount": "1.5",
}
REPOST: dict[str, Any] = {
    "key": KEY,
    "action": "repost",
    "fingerprint": RECORD.fingerprint,
    "by": "ana",
    "why": "nothing arrived",
    "attempts": 1,
    "rows": [7, 8],
}
VOID: dict[str, Any] = {"key": KEY, "action": "void", "by": "ana", "why": "paid by hand"}


def listed(*rows: Row, fit: Fit = "exact") -> tuple[ListedRow, ...]:
    """Return rows as a person is shown them."""
    return tuple(ListedRow(row, fit, in_window=True) for row in rows)


BOTH = listed(OURS, OTHER)


def apply(data: dict[str, Any], *, record: Record = UNKNOWN, rows: tuple[ListedRow, ...] = BOTH) -> Record:
    """Return the record as decided."""
    return apply_decision(record, read_decision(data), rows, tolerance_ms=SKEW)


@pytest.mark.parametrize(
    "data",
    [ADOPT, REPOST, VOID, {**REPOST, "rows": []}, {**REPOST, "restores": 2}, {**VOID, "decision_id": "mine"}],
)
def test_a_decision_survives_the_ledger(data: dict[str, Any]) -> None:
    """As an object or as JSON text, and again after it was stored with its id, it is the same decision."""
    decision = read_decision(data)

    assert decision == read_decision(json.dumps(data)) == read_decision(stored_form(decision))
    assert decision.decision_id
    assert set(stored_form(decision)) == {*data, "decision_id"}


def test_two_decisions_have_two_ids() -> None:
    """The id tells whether a decision was applied already, so it follows every word of it."""
    wishes = [ADOPT, {**ADOPT, "why": "other"}, {**ADOPT, "batch_nonce": 8}, {**ADOPT, "decision_id": "mine"}, VOID]

    assert len({read_decision(wish).decision_id for wish in wishes}) == len(wishes)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, "Expected `object`"),
        ([], "Expected `object`"),
        ("void", "JSON is malformed"),
        ("[]", "Expected `object`"),
        ({**VOID, "action": "retry"}, "Invalid value 'retry'"),
        ({**VOID, "action": None}, "Expected `str`"),
        ({**VOID, "action": ["void"]}, "Expected `str`"),
        ({**VOID, "force": True}, "unknown field `force`"),
        ({**VOID, "rows": []}, "unknown field `rows`"),
        ({**ADOPT, "outside_window": True}, "unknown field `"),
        ({**ADOPT, "rows": [7]}, "unknown field `"),
        (
            {name: value for name, value in ADOPT.items() if name != "created_at_ms"},
            "required field `created_at_ms`",
        ),
        (
            {name: value for name, value in REPOST.items() if name != "fingerprint"},
            "required field `fingerprint`",
        ),
        ({name: value for name, value in VOID.items() if name != "by"}, "required field `by`"),
        ({**VOID, "key": None}, r"Expected `str`.*\.key"),
        ({**VOID, "by": ""}, r"Expected `str`.*\.by"),
        ({**VOID, "why": 7}, r"Expected `str`.*\.why"),
        ({**VOID, "why": "  "}, r"Expected `str`.*\.why"),
        ({**ADOPT, "fingerprint": None}, r"Expected `str`.*\.fingerprint"),
        ({**ADOPT, "batch_nonce": None}, r"Expected `int`.*\.batch_nonce"),
        ({**ADOPT, "batch_nonce": True}, r"Expected `int`.*\.batch_nonce"),
        ({**ADOPT, "batch_nonce": "7 "}, r"Expected `int`.*\.batch_nonce"),
        ({**ADOPT, "created_at_ms": "1"}, r"Expected `int`.*\.created_at_ms"),
        ({**ADOPT, "created_at_ms": -1}, r"Expected `int`.*\.created_at_ms"),
        ({**ADOPT, "created_at_ms": 1.5}, r"Expected `int`.*\.created_at_ms"),
        ({**ADOPT, "amount": 1.5}, r"Expected `str`.*\.amount"),
        ({**ADOPT, "amount": "1e3"}, "not a number in plain digits and quotes"),
        ({**REPOST, "attempts": True}, r"Expected `int`.*\.attempts"),
        ({**REPOST, "attempts": None}, r"Expected `int`.*\.attempts"),
        ({**REPOST, "rows": [7, "x"]}, r"Expected `int`.*\.rows"),
        ({**REPOST, "rows": 7}, r"Expected `array`.*\.rows"),
        ({**REPOST, "rows": "78"}, r"Expected `array`.*\.rows"),
        ({**REPOST, "rows": {"7": "mine", "8": "not"}}, r"Expected `array`.*\.rows"),
    ],
)
def test_a_decision_that_cannot_be_read_is_refused(data: Any, says: str) -> None:
    """What is wrong with it is named, and nothing is guessed (F48)."""
    with pytest.raises(ConfigurationError, match=f"no decision on a withdrawal .adopt, repost or void.: .*{says}"):
        read_decision(data)


def test_what_a_command_makes_is_what_is_read() -> None:
    """Adopt names the row as it is listed; repost names the record's order and how often it was sent (F98)."""
    said = {"by": "ana", "why": "looked", "decision_id": "mine"}
    adopted, reposted = decisions.adopt(UNKNOWN, OTHER, **said), decisions.repost(UNKNOWN, [7, 8], **said)

    assert stored_form(adopted) == {
        "key": KEY,
        "action": "adopt",
        "fingerprint": RECORD.fingerprint,
        **said,
        "batch_nonce": 8,
        "created_at_ms": T0 + 60_000,
        "amount": "1.5",
    }
    assert stored_form(reposted) == {
        "key": KEY,
        "action": "repost",
        "fingerprint": RECORD.fingerprint,
        **said,
        "attempts": 1,
        "rows": [7, 8],
    }


@pytest.mark.parametrize(
    ("row", "fee"),
    [(OURS, Decimal("0.001")), (replace(OURS, amount=NET, net_amount=None, transaction_id="5x"), Decimal("0.001"))],
    ids=["still pending", "settled since, shown net"],
)
def test_an_adopted_row_becomes_the_receipt(row: Row, fee: Decimal | None) -> None:
    """Nonce and fee of the row, amount of the order, time of the attempt; and who said so."""
    decided = apply(ADOPT, rows=listed(row, OTHER))

    assert decided.receipt == StoredReceipt(7, Decimal("1.5"), fee, LOST.signed_ms, adopted=True)
    assert decided.state == "accepted"
    assert decided.reason == "adopt by ana: seen on chain"
    assert decided.decisions == (read_decision(ADOPT).decision_id,)


def test_a_row_outside_every_window_can_be_adopted() -> None:
    """A person may know better than the clocks: the row is named by nonce, time and amount (F93)."""
    wish = {**ADOPT, "batch_nonce": 8, "created_at_ms": OTHER.created_at_ms}

    assert apply(wish).receipt == StoredReceipt(8, Decimal("1.5"), None, OTHER.created_at_ms, adopted=True)


def test_a_row_that_only_possibly_fits_can_be_adopted() -> None:
    """The fee may have changed since: the row is shown, and a person says whose it is (F93)."""
    row = Row(9, Decimal("1.45"), None, T0 + 2_000, "5x")
    decided = apply({**ADOPT, "batch_nonce": 9, "amount": "1.45"}, rows=listed(row, fit="possible"))

    assert decided.receipt == StoredReceipt(9, Decimal("1.5"), Decimal("0.05"), LOST.signed_ms, adopted=True)


@pytest.mark.parametrize(
    ("wish", "rows", "says"),
    [
        ({}, (), "no withdrawal with batch_nonce 7, created_at 1002000 and amount 1.5 is listed any more"),
        ({}, listed(OTHER), "is listed any more"),
        ({"created_at_ms": T0 + 2_001}, BOTH, "is listed any more"),
        ({"amount": "1.4"}, BOTH, "amount 1.4 is listed any more"),
        ({}, listed(replace(OURS, amount=Decimal(9), net_amount=Decimal("8.999")), fit="other"), "another amount"),
        ({"amount": "9"}, listed(replace(OURS, amount=Decimal(9)), fit="other"), "another amount than this order"),
    ],
)
def test_a_row_that_is_not_as_it_was_named_is_not_adopted(
    wish: dict[str, Any], rows: tuple[ListedRow, ...], says: str
) -> None:
    """Nonce, time and amount must all be there, so a typing error and another row of the batch adopt nothing (F98)."""
    with pytest.raises(StaleDecisionError, match=says):
        apply({**ADOPT, **wish}, rows=rows)


def test_a_repost_opens_the_record_under_the_same_key() -> None:
    """The named rows join the *before* picture, what was sent is overruled and stays on record."""
    decided = apply(REPOST)

    assert (decided.state, decided.key, decided.maybe_sent) == ("open", KEY, False)
    assert decided.before == (OURS, OTHER)
    assert decided.attempts == (replace(LOST, outcome="overruled"),)
    assert decided.may_have_moved


def test_a_repost_of_a_lost_record_says_that_nothing_was_sent() -> None:
    """Of a record that may be lost a person says that nothing moved: then the next try sends it (F87, 5.3)."""
    lost = replace(UNKNOWN, maybe_sent=True, attempts=())

    assert not apply({**REPOST, "attempts": 0}, record=lost).maybe_sent


@pytest.mark.parametrize(
    ("attempt", "outcome"),
    [
        (LOST, "overruled"),
        (replace(LOST, outcome="answered", status=422), "overruled"),
        (replace(LOST, outcome="refused", status=422, amount=Decimal("1.5")), "overruled"),
        (replace(LOST, outcome="answered", status=429), "answered"),
        (replace(LOST, outcome="unsent"), "unsent"),
    ],
)
def test_a_repost_overrules_whatever_was_sent(attempt: Attempt, outcome: str) -> None:
    """Whatever came of it, nothing moved by it, says the person: else the next try would ask again (F25, F90)."""
    decided = apply(REPOST, record=replace(UNKNOWN, attempts=(attempt,)))

    assert [each.outcome for each in decided.attempts] == [outcome]


@pytest.mark.parametrize(
    ("named", "stale"), [([7, 8], ""), ([7, 8, 9], ""), ([7], r"batch_nonce \[8\] is listed"), ([], r"\[7, 8\]")]
)
def test_a_repost_must_name_every_row_that_could_be_it(named: list[int], stale: str) -> None:
    """A row left unnamed might be this withdrawal; one that is gone since does no harm (F93, F98)."""
    wish = {**REPOST, "rows": named}
    if not stale:
        assert apply(wish).state == "open"
        return

    with pytest.raises(StaleDecisionError, match=stale):
        apply(wish)


def test_rows_of_another_amount_need_not_be_named() -> None:
    """They are shown, but cannot be this withdrawal; those that possibly fit must be named (F93)."""
    rows = (*listed(OURS), *listed(replace(OTHER, batch_nonce=9), fit="possible"), *listed(OTHER, fit="other"))

    assert to_be_named(rows) == [7, 9]
    assert apply({**REPOST, "rows": [7, 9]}, rows=rows).before == (OURS, replace(OTHER, batch_nonce=9))


@pytest.mark.parametrize("attempts", [0, 2])
def test_a_repost_taken_on_another_number_of_requests_is_stale(attempts: int) -> None:
    """Another request was made since the person looked, or the record is another one (F98)."""
    with pytest.raises(StaleDecisionError, match=f"taken after {attempts} requests, now there are 1"):
        apply({**REPOST, "attempts": attempts})


@pytest.mark.parametrize(("decided", "now"), [(0, 1), (1, 2), (1, 0)])
def test_a_repost_from_before_a_restore_is_stale(decided: int, now: int) -> None:
    """What the backup has lost may be what it was decided on, and another repost that has paid since (F98)."""
    with pytest.raises(StaleDecisionError, match=f"backup {decided} times, now it has {now} times"):
        apply({**REPOST, "restores": decided}, record=replace(UNKNOWN, restores=now))


def test_a_key_answered_409_is_not_reposted() -> None:
    """Futile while the key is remembered, dangerous after (F16, F18)."""
    record = replace(UNKNOWN, attempts=(LOST, Attempt(T0, WINDOW, "answered", 409)))

    with pytest.raises(StaleDecisionError, match="answered 409"):
        apply({**REPOST, "attempts": 2}, record=record)


@pytest.mark.parametrize("wish", [ADOPT, REPOST])
def test_a_decision_on_another_order_is_stale(wish: dict[str, Any]) -> None:
    """The amount was changed, under the same key, since the person looked (F98)."""
    with pytest.raises(StaleDecisionError, match="taken on another order"):
        apply({**wish, "fingerprint": "0" * 64})


@pytest.mark.parametrize("wish", [ADOPT, REPOST, VOID])
def test_a_decision_for_another_key_is_stale(wish: dict[str, Any]) -> None:
    """Even a void is bound to its key (F70, F98)."""
    with pytest.raises(StaleDecisionError, match="it is for key other"):
        apply({**wish, "key": "other"})


@pytest.mark.parametrize("wish", [ADOPT, REPOST, VOID])
@pytest.mark.parametrize("state", ["accepted", "rejected", "void"])
def test_an_ended_record_is_decided_no_more(wish: dict[str, Any], state: Any) -> None:
    """A decision that comes too late changes nothing (F98)."""
    with pytest.raises(StaleDecisionError, match=f"is {state}, so nothing is left to decide"):
        apply(wish, record=replace(UNKNOWN, state=state))


@pytest.mark.parametrize(
    "record", [UNKNOWN, replace(RECORD, fingerprint="another order"), replace(RECORD, attempts=())]
)
def test_a_voided_record_keeps_its_attempts(record: Record) -> None:
    """Void ends any open or unknown record of the key, needs no lists, and erases nothing of it."""
    assert apply(VOID, record=record, rows=()) == replace(
        record,
        state="void",
        reason="void by ana: paid by hand",
        decisions=(read_decision(VOID).decision_id,),
    )
