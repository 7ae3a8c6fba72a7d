"""Clocks and signatures: F29 to F33."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.api.client import Endpoints
from pacifica_provider.api.signing import Signer, canonical_message
from pacifica_provider.exceptions import ConfigurationError, Unreachable, Unresolved
from pacifica_provider.sandbox.requests import canonical_message as sandbox_message
from tests.faults.checks import assert_paid_once, nonces, refused, statuses
from tests.faults.wiretap import Wiretap

if TYPE_CHECKING:
    from tests.support.harness import ProtocolHarness

WINDOW_S = 10
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "signing.json").read_text())["vectors"]


@pytest.mark.parametrize(
    ("skew_ms", "says"),
    [
        (-3_600_000, r"(3599|3600)\.\d s behind"),
        (-7_000, "s behind"),
        (7_000, "s ahead of"),
        (3_600_000, r"(3599|3600)\.\d s ahead"),
    ],
)
def test_a_worker_s_clock_that_is_off_is_refused_before_the_post(
    harness: ProtocolHarness, skew_ms: int, says: str
) -> None:
    """F29: more than 5 s apart from the Date header, nothing is sent or re-dated, and the difference is quoted."""
    harness.clock.skew_ms = skew_ms

    error = refused(harness, ConfigurationError)

    assert re.search(says, str(error))
    assert "at most 5 s are safe" in str(error)
    assert harness.posts() == []


@pytest.mark.parametrize("skew_ms", [-4_000, -2_000, 0, 2_000, 4_000])
def test_a_clock_within_the_bound_pays(harness: ProtocolHarness, skew_ms: int) -> None:
    """F29: up to 5 s of skew the worker's own time is signed as it is, and a lost answer is still found."""
    harness.clock.skew_ms = skew_ms
    harness.fault("reset", when="after_commit")

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=True)

    assert harness.posts()[0]["timestamp"] == receipt.submitted_at_ms


def test_an_answer_without_a_date_sends_nothing(harness: ProtocolHarness) -> None:
    """F29: without a Date header the exchange's clock is not known, so the try stops before the POST."""
    harness.fault("no_date", route="pending", count=3)

    error = refused(harness, Unreachable)

    assert ("no Date" in str(error), harness.posts()) == (True, [])


def test_an_exchange_that_trusts_no_future_timestamp_is_satisfied(harness: ProtocolHarness) -> None:
    """F29: with no tolerance for the future, a worker on time is accepted and one ahead of time is plainly refused."""
    harness.options(future_tolerance_ms=0)
    ahead = harness.sibling(run_id="manual__ahead")

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=False)
    ahead.clock.skew_ms = 3_000
    with pytest.raises(Exception, match="Invalid message"):
        ahead.try_once()

    assert ahead.debits() == []


@pytest.mark.parametrize("committed", [True, False], ids=["answered", "lost"])
@pytest.mark.parametrize(("after_s", "inside"), [(WINDOW_S - 1, True), (WINDOW_S + 1, False)])
def test_captured_bytes_die_with_their_window(
    harness: ProtocolHarness, after_s: int, inside: bool, committed: bool
) -> None:
    """F30, S14: replayed inside the window the bytes meet 409, or land late; after it they are refused. One debit."""
    with Wiretap(harness.sandbox.base_url) as tap:
        harness.base_url = tap.base_url
        if committed:
            harness.try_once()
        else:
            harness.timeout_s, tap.hold_posts = 0.2, True
            with pytest.raises(_Stopped):
                harness.try_once(_stop)
        tap.hold_posts = False
        harness.clock.sleep_s(after_s)
        answer = int(tap.replay(tap.posts[0]).split()[1])

        receipt = harness.try_once()
        assert_paid_once(harness, receipt, adopted=not committed and inside)

    assert answer == ((409 if committed else 200) if inside else 400)


@pytest.mark.parametrize("back_ms", [500, 3_000])
def test_a_clock_that_steps_back_between_tries_signs_its_own_time(harness: ProtocolHarness, back_ms: int) -> None:
    """F31: after a step back the next try signs the time it has; the window counts on the exchange's clock."""
    harness.fault("status", route="pending", status=503, skip=1, count=3)
    harness.fault("reset", when="after_commit")
    refused(harness, Unresolved)
    harness.clock.skew_ms = -back_ms

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=True)
    first, second = harness.posts()

    assert second["received_at"] > first["timestamp"] + WINDOW_S * 1000
    assert abs(second["timestamp"] - (second["received_at"] - back_ms)) < 1000


@pytest.mark.parametrize("step_ms", [-4_000, 4_000])
def test_a_clock_that_steps_during_a_try_sends_nothing_stale(harness: ProtocolHarness, step_ms: int) -> None:
    """F31: a step while the try waits out a window neither shortens the wait nor sends on an old look."""
    harness.fault("reset")

    def wait(seconds: float) -> None:
        harness.clock.skew_ms = step_ms
        harness.clock.sleep_s(seconds)

    receipt = harness.try_once(wait)
    assert_paid_once(harness, receipt, adopted=False)
    attempts = harness.store.record()["attempts"]

    assert harness.posts()[-1]["received_at"] > attempts[0]["signed_ms"] + attempts[0]["window_ms"]


def test_every_request_is_signed_anew_with_the_same_key_and_order(harness: ProtocolHarness) -> None:
    """F32: timestamp and signature differ from request to request; key, symbol and amount are the same bytes."""
    harness.amount = "1.50"
    with Wiretap(harness.sandbox.base_url) as tap:
        harness.base_url = tap.base_url
        harness.fault("status", status=503, count=2)
        refused(harness, Unresolved)
        receipt = harness.try_once()
        assert_paid_once(harness, receipt, adopted=False)
        bodies = tap.bodies
    orders = {(body["idempotency_key"], body["symbol"], body["amount"], body["account"]) for body in bodies}

    assert orders == {(harness.key, "SOL", "1.5", harness.account)}
    assert len({body["signature"] for body in bodies}) == len({body["timestamp"] for body in bodies}) == 3
    assert all(after["timestamp"] - one["timestamp"] > WINDOW_S * 1000 for one, after in pairwise(bodies))


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_the_signed_bytes_are_the_vendor_s(vector: dict[str, Any]) -> None:
    """F33: message and signature equal the official SDK's, and what the sandbox rebuilds from the flat body."""
    header, data = vector["header"], vector["payload"]
    times = {"timestamp_ms": header["timestamp"], "expiry_window_ms": header["expiry_window"]}

    message = canonical_message(header["type"], data, **times)
    rebuilt = sandbox_message(
        header["type"], data, timestamp=header["timestamp"], expiry_window=header["expiry_window"]
    )

    assert message == rebuilt == vector["message"].encode("ascii")
    assert Signer.from_base58(vector["secret_key_base58"]).sign(message) == vector["signature"]


@pytest.mark.parametrize("agent", [True, False], ids=["agent-key", "owner-key"])
def test_optional_fields_are_left_out_and_never_null(harness: ProtocolHarness, agent: bool) -> None:
    """F33: an agent's address is sent when an agent signs, and no field is ever null."""
    if not agent:
        harness.private_key = harness.sandbox.private_key
    with Wiretap(harness.sandbox.base_url) as tap:
        harness.base_url = tap.base_url
        receipt = harness.try_once()
        assert_paid_once(harness, receipt, adopted=False)
        (body,) = tap.bodies
    fields = {"account", "signature", "timestamp", "expiry_window", "symbol", "amount", "idempotency_key"}

    assert set(body) == fields | ({"agent_wallet"} if agent else set())
    assert None not in body.values()


@pytest.mark.parametrize("symbol", ["SOLÉ", "\uff33\uff2f\uff2c", "SOL\n", "S L", "", "x" * 33, "\ud800"])
def test_a_field_that_has_two_spellings_is_refused_before_anything_is_read(
    harness: ProtocolHarness, symbol: str
) -> None:
    """F33: the SDKs sign non-ASCII text as different bytes, so it never gets as far as a signature."""
    harness.symbol = symbol

    refused(harness, ConfigurationError)

    assert (harness.store.calls, harness.ledger()["requests"]) == ([], {})


def test_the_body_is_what_was_signed(harness: ProtocolHarness) -> None:
    """F33: an amount with trailing zeros is signed and sent in one canonical text, accepted and paid as that."""
    harness.amount = "2.500"
    signed = Endpoints(harness.base_url, harness.account).withdrawal(
        Signer.from_base58(harness.private_key),
        "SOL",
        Decimal("2.500"),
        idempotency_key=harness.key,
        timestamp_ms=1,
        expiry_window_ms=2,
    )

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=False)

    assert json.loads(signed.request.body or b"")["amount"] == "2.5"
    assert (nonces(harness), statuses(harness)) == ([receipt.batch_nonce], [200])


class _Stopped(BaseException):
    """The process ends here, as far as the protocol can tell."""


def _stop(_seconds: float) -> None:
    raise _Stopped
