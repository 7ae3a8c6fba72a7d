"""What is said of a withdrawal: whether money moved, may have moved or did not, and what to do next."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from pacifica_provider.exceptions import (
    ConfigurationError,
    KeyMaterialError,
    OutcomeUnknown,
    PacificaError,
    ParameterMismatch,
    Throttled,
    Unreachable,
    Unresolved,
    WithdrawalRejected,
)
from pacifica_provider.withdrawals.identity import Order, RunIdentity
from pacifica_provider.withdrawals.ledger import decision_entry
from pacifica_provider.withdrawals.matching import listed_rows
from pacifica_provider.withdrawals.messages import Messages, unread, utc_text
from pacifica_provider.withdrawals.protocol import Asked, End
from pacifica_provider.withdrawals.record import Record, StoredReceipt
from tests.support.listed import IDENTITY, LOST, ORDER, RECORD, T0, pending, reading, settled

COMMAND = "airflow pacifica case --dag-id pay"
SAY = Messages(Asked(IDENTITY, ORDER, "https://x"), COMMAND)
OPEN = replace(RECORD, attempts=())
RECEIPT = StoredReceipt(7, Decimal("1.5"), None, T0, adopted=False)
ACCEPTED = replace(RECORD, state="accepted", receipt=RECEIPT)
DUPLICATE = replace(LOST, outcome="answered", status=409)
REFUSED = replace(LOST, outcome="refused", status=422, code=5, detail="Insufficient balance", amount=Decimal("1.5"))
LISTED = listed_rows(RECORD, reading(pending(7), settled(8, amount="1.2"), pending(9, gross="4")), tolerance_ms=6_000)


def said(kind: Any, record: Record, **fields: Any) -> PacificaError:
    """Return the error that a try ends with."""
    return SAY.of(End(kind, record, **fields))


EVERY: list[tuple[PacificaError, type[PacificaError], str]] = [
    (said("mismatch", RECORD), ParameterMismatch, "may have moved money"),
    (said("mismatch", ACCEPTED), ParameterMismatch, "WAS accepted"),
    (said("mismatch", replace(RECORD, state="void")), ParameterMismatch, "was voided by a person"),
    (said("mismatch", OPEN), ParameterMismatch, "No money moved"),
    (
        said("voided", replace(RECORD, state="void", reason="void by ana: paid")),
        OutcomeUnknown,
        "voided this withdrawal",
    ),
    (said("rejected", replace(RECORD, attempts=(REFUSED,))), WithdrawalRejected, "No money moved"),
    (said("unknown", RECORD, why="lost", listed=LISTED), OutcomeUnknown, "money may have moved"),
    (said("unfinished", RECORD, why="Down."), Unresolved, "MAY have moved money"),
    (said("unfinished", OPEN, why="Down."), Unreachable, "Nothing was sent, so no money moved"),
    (said("unfinished", OPEN, why="Wait.", retry_after_s=9.0), Throttled, "No money moved"),
    (said("misconfigured", OPEN, why="No such path.", status=404), ConfigurationError, "No such path."),
    (said("misconfigured", RECORD, why="No such path.", status=404), ConfigurationError, "MAY have moved money"),
    (said("misconfigured", ACCEPTED, why="No such path."), ConfigurationError, "WAS accepted (batch_nonce 7)"),
    (SAY.overtaken(OPEN, "Written."), Unresolved, "MAY have moved money"),
]


@pytest.mark.parametrize(("error", "kind", "claim"), EVERY, ids=lambda each: each if isinstance(each, str) else "")
def test_each_ending_says_whether_money_moved(error: PacificaError, kind: type[PacificaError], claim: str) -> None:
    """Its class is what Airflow and handlers act on, its text is the claim about the whole record (I3)."""
    assert type(error) is kind
    assert claim in str(error)


@pytest.mark.parametrize("error", [error for error, kind, _ in EVERY if kind is not ConfigurationError], ids=repr)
def test_each_ending_carries_key_order_and_times(error: PacificaError) -> None:
    """A handler needs no parsing of prose (design.md)."""
    assert (error.idempotency_key, error.symbol, error.amount) == (RECORD.key, "SOL", "1.5")
    assert error.submitted_at_ms in {(), (LOST.signed_ms,)}


def test_an_unknown_shows_every_row_and_names_those_that_could_be_it() -> None:
    """A person sees how well each fits; the attributes leave out what cannot be it (F93)."""
    error = said("unknown", RECORD, why="lost", listed=LISTED)
    lines = [line for line in str(error).splitlines() if line.startswith("  - ")]

    assert [line.split(",")[0] for line in lines] == [
        f"  - {utc_text(each.row.created_at_ms)}  batch_nonce {each.row.batch_nonce}" for each in LISTED
    ]
    assert error.batch_nonces == (7, 8)
    assert f"See the case and decide with:\n{COMMAND}" in str(error)
    assert decision_entry("pay", "run", "withdraw", None) in str(error)
    assert all(word in str(error) for word in ("adopt", "repost", "void", RECORD.key))


@pytest.mark.parametrize("amount", ["1.5", "123456789012.12345678"])
def test_an_unknown_says_the_worst_in_its_first_line(amount: str) -> None:
    """A hundred characters are what a list of failures shows; why and what to do come after."""
    record = replace(RECORD, order=Order.parse("SOL", amount))
    first, second = str(said("unknown", record, why="the answer was lost")).splitlines()[:2]

    assert first == f"UNKNOWN whether {amount} SOL was withdrawn; money may have moved."
    assert len(first) <= 100
    assert second == "Why: the answer was lost."


@pytest.mark.parametrize(
    ("record", "listed", "choices"),
    [
        (RECORD, LISTED, "adopt a listed withdrawal, or repost because nothing moved, or void"),
        (RECORD, None, "adopt a listed withdrawal, or repost because nothing moved, or void"),
        (RECORD, (), "has decided: repost because nothing moved, or void"),
        (RECORD, LISTED[2:], "has decided: repost because nothing moved, or void"),
        (replace(RECORD, attempts=(LOST, DUPLICATE)), LISTED, "has decided: adopt a listed withdrawal, or void"),
        (replace(RECORD, attempts=(LOST, DUPLICATE)), (), "has decided: void because it was settled elsewhere. "),
    ],
)
def test_an_unknown_offers_only_what_can_be_decided(record: Record, listed: Any, choices: str) -> None:
    """No row that fits, no adopting; a key that Pacifica knows stands for a withdrawal, so no posting it again."""
    message = str(said("unknown", record, why="lost", listed=listed))

    assert choices in message
    assert "While you do not know, decide nothing" in message


@pytest.mark.parametrize(
    ("listed", "text"),
    [((), "lists showed no withdrawal of SOL since the record began"), (None, "lists could not be read now")],
)
def test_an_unknown_says_that_nothing_was_found_or_could_be_read(listed: Any, text: str) -> None:
    """No row is not the same as no list (F18, F45)."""
    assert text in str(said("unknown", RECORD, why="lost", listed=listed))


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (RECORD, f"Attempts signed at {utc_text(LOST.signed_ms)}."),
        (replace(OPEN, maybe_sent=True), "No attempt is on record. An earlier record may be lost"),
    ],
)
def test_an_unresolved_try_says_what_was_sent_and_what_comes_next(record: Record, text: str) -> None:
    """The next try looks first; without retries the task is to be cleared (F73)."""
    message = str(said("unfinished", record, why="Down."))

    assert text in message
    assert "The next try looks at Pacifica's lists before it sends anything" in message
    assert COMMAND in message


@pytest.mark.parametrize(
    ("attempt", "text"),
    [
        (REFUSED, "HTTP 422, code 5: Insufficient balance."),
        (replace(REFUSED, code=None, detail=""), "HTTP 422: (no text)."),
    ],
)
def test_a_rejection_quotes_the_exchange(attempt: Any, text: str) -> None:
    """Status, code and text, on the error as well (F24)."""
    error = said("rejected", replace(RECORD, attempts=(attempt,)))

    assert text in str(error)
    assert (error.status, error.code) == (422, attempt.code)


def test_a_mismatch_shows_both_orders_and_their_accounts() -> None:
    """A person sees at once what drifted: amount, account, exchange or scope (F51, F56, F70, F71)."""
    asked = Asked(
        RunIdentity("other", "pay", "run", "withdraw", scope="new"), Order("BTC", Decimal("0.1")), "https://y"
    )
    message = str(Messages(asked, COMMAND).of(End("mismatch", RECORD)))

    assert "a withdrawal of 1.5 SOL for account acc at https://x, scope ''" in message
    assert "asks for 0.1 BTC for account other at https://y" in message
    assert "this try sent nothing" in message
    assert "scope" not in str(said("mismatch", RECORD))


def test_a_throttled_ending_says_for_how_long() -> None:
    """Airflow retries; a handler may wait (F23)."""
    error = said("unfinished", OPEN, why="Wait.", retry_after_s=9.0)

    assert isinstance(error, Throttled)
    assert (error.retry_after_s, error.status) == (9.0, 429)


def test_a_guard_s_refusal_is_repeated_with_what_may_have_moved_first() -> None:
    """Its class, status and text stay; of a record of which nothing was sent it is the guard's own words (F26)."""
    guard = KeyMaterialError("no private key. Nothing was sent.", status=403, code=7)
    repeated = SAY.configuration(RECORD, guard)

    assert SAY.configuration(OPEN, guard) is guard
    assert type(repeated) is KeyMaterialError
    assert str(repeated).startswith("The withdrawal of 1.5 SOL MAY have moved money. This try sent nothing: no private")
    assert (repeated.status, repeated.code, repeated.idempotency_key) == (403, 7, RECORD.key)


def test_a_ledger_that_could_not_be_read_leaves_it_open() -> None:
    """Nothing is known of the record, so nothing is claimed of it (F44)."""
    error = unread("EOFError: ")

    assert type(error) is Unresolved
    assert "Whether an earlier one did stands in the record that could not be read" in str(error)


def test_another_reference_says_which_one_was_used() -> None:
    """And how to go on: the same text at every try, append to the list, or a new run (F101)."""
    asked = Asked(replace(IDENTITY, withdrawal_ref="b"), ORDER, "https://x")
    error = Messages(asked, COMMAND).another_reference(["'a'", "None"])

    assert "under the withdrawal_ref 'a', None; now it asks for 1.5 SOL under 'b'" in str(error)
    assert error.idempotency_key == asked.identity.idempotency_key()
    assert (error.symbol, error.amount) == ("SOL", "1.5")
    assert COMMAND in str(error)
