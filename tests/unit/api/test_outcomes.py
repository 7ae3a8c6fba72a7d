"""``classify``: every status, every kind of body, by rule."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica_provider.api.models import Receipt
from pacifica_provider.api.outcomes import (
    Accepted,
    Answer,
    Duplicate,
    Outcome,
    Rejected,
    Throttled,
    TransportFailure,
    Unknown,
    classify,
)

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = {"symbol": "SOL", "batch_nonce": 42, "requested_amount": "1.00000000", "fee_amount": "0.00100000"}
RECEIPT = Receipt("SOL", 42, Decimal(1), Decimal("0.001"))
GOOD = json.dumps({"success": True, "data": DATA, "error": None, "code": None}).encode()
NOTHING = "HTTP 200 whose body is not a receipt: "

# name: body, its business code and text when refused, what a 200 with it says (None: it is a receipt)
BODIES: dict[str, tuple[bytes, int | None, str, str | None]] = {
    "receipt": (GOOD, None, "", None),
    "nonce as text": (GOOD.replace(b"42", b'"42"'), None, "", None),
    "error envelope": (
        b'{"success":false,"data":null,"error":"Insufficient spot balance","code":62}',
        62,
        "Insufficient spot balance",
        "HTTP 200 without success",
    ),
    "code zero": (b'{"success":false,"error":"x","code":0,"error_id":"y"}', 0, "x", "HTTP 200 without success"),
    "code as text": (b'{"success":false,"error":"x","code":"62"}', None, "x", "HTTP 200 without success"),
    "code as boolean": (b'{"success":false,"error":"x","code":true}', None, "x", "HTTP 200 without success"),
    "error as object": (b'{"success":false,"error":{"a":1}}', None, "", "HTTP 200 without success"),
    "bare text": (
        b"Verification failed",
        None,
        "Verification failed",
        NOTHING + "Expecting value: line 1 column 1 (char 0)",
    ),
    "empty": (b"", None, "", NOTHING + "Expecting value: line 1 column 1 (char 0)"),
    "deep": (b"[" * 100_000, None, "[" * 200, NOTHING + "the body nests too deeply"),
    "NaN": (b'{"success":NaN}', None, '{"success":NaN}', NOTHING + "NaN is not JSON"),
    "Infinity": (b'{"success":-Infinity}', None, '{"success":-Infinity}', NOTHING + "-Infinity is not JSON"),
    "list": (b"[1]", None, "[1]", NOTHING + "the body is not a JSON object"),
    "nested success": (b'{"data":{"success":true,"batch_nonce":42}}', None, "", "HTTP 200 without success"),
    "success without data": (b'{"success":true}', None, "", NOTHING + "expected an object, got NoneType"),
    "success as text": (GOOD.replace(b"true", b'"true"'), None, "", "HTTP 200 without success"),
    "success as one": (GOOD.replace(b"true", b"1"), None, "", "HTTP 200 without success"),
    "no nonce": (
        GOOD.replace(b"42", b"null"),
        None,
        "",
        NOTHING + "not a batch nonce (a non-negative integer): 'None'",
    ),
    "amount as number": (
        GOOD.replace(b'"1.00000000"', b"1.0"),
        None,
        "",
        NOTHING + "not a number in plain digits and quotes: 1.0",
    ),
}


def expected_outcome(status: int, body: str) -> Outcome:
    """Return what the rules say: proof for yes and no, everything else unknown."""
    _, code, text, at_200 = BODIES[body]
    match status:
        case 200:
            return Accepted(RECEIPT) if at_200 is None else Unknown(at_200, 200)
        case 409:
            return Duplicate(text)
        case 429:
            return Throttled(None)
        case 400 | 401 | 403 | 404 | 422:
            return Rejected(status, code, text)
        case _:
            return Unknown(f"HTTP {status} {text}".rstrip(), status)


@pytest.mark.parametrize("body", BODIES)
def test_every_status_is_classified_by_rule(body: str) -> None:
    """Each of 100 to 599 with this body is what the rules say, and never a success without its proof (F28)."""
    statuses = range(100, 600)
    expected = {status: expected_outcome(status, body) for status in statuses}

    assert expected == {status: classify(Answer(status, {}, BODIES[body][0])) for status in statuses}


@pytest.mark.parametrize("status", [201, 202, 204, 206, 299])
def test_another_2xx_with_a_whole_receipt_is_unknown(status: int) -> None:
    """Only the documented 200 is proof (F28)."""
    assert Unknown(f"HTTP {status}", status) == classify(Answer(status, {}, GOOD))


@pytest.mark.parametrize("length", range(len(GOOD)))
def test_a_receipt_cut_at_any_byte_is_unknown(length: int) -> None:
    """No prefix of a receipt counts as one (F07)."""
    outcome = classify(Answer(200, {}, GOOD[:length]))

    assert isinstance(outcome, Unknown)
    assert outcome.status == 200


@pytest.mark.parametrize("status", [200, 403, 404, 500, 502])
def test_a_web_page_is_named_and_not_quoted(status: int) -> None:
    """Of HTML only the fact is told (F13): as success it proves nothing."""
    page = Answer(status, {"content-type": "text/html; charset=utf-8"}, b"<html>The request could not be satisfied")
    outcome = classify(page)

    assert "satisfied" not in str(outcome)
    assert status == 200 or "(HTML page)" in str(outcome)
    assert isinstance(outcome, Rejected if status in {403, 404} else Unknown)


@pytest.mark.parametrize("kind", ["timed out", "connection reset", "the server's certificate is not valid"])
def test_a_transport_failure_is_unknown_whatever_its_kind(kind: str) -> None:
    """The type of a failure never proves that nothing was delivered (F02, F10)."""
    assert Unknown(f"no whole answer: {kind}") == classify(TransportFailure(kind))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"ratelimit": '"credits";r=0;t=32'}, 32.0),
        ({"retry-after": "soon", "ratelimit": '"credits";r=0;t=32'}, 32.0),
        ({"ratelimit": '"credits";r=0;t=' + "9" * 5000}, None),
        ({"ratelimit": '"credits";r=' + "9" * 5000 + ";t=1"}, None),
    ],
)
def test_a_429_says_how_long_to_wait(headers: dict[str, str], expected: float | None) -> None:
    """Retry-After goes before the rate limit's refresh time, and absurd headers are none at all (F23)."""
    assert Throttled(expected) == classify(Answer(429, headers, b""))


HEADER_NAMES = st.sampled_from(["content-type", "date", "retry-after", "ratelimit", "ratelimit-policy"])


@given(st.integers(), st.dictionaries(HEADER_NAMES, st.text()), st.binary())
def test_classify_is_total(status: int, headers: dict[str, str], body: bytes) -> None:
    """No answer makes it raise, and random bytes are never accepted (S23)."""
    assert not isinstance(classify(Answer(status, headers, body)), Accepted)


@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_only_a_whole_receipt_is_accepted(data: object) -> None:
    """Random JSON under a true success is accepted only if it is a receipt (S23)."""
    outcome = classify(Answer(200, {}, json.dumps({"success": True, "data": data}).encode()))

    assert isinstance(outcome, Unknown)


SHOWN: list[Callable[[str], Outcome]] = [
    lambda text: classify(Answer(422, {}, json.dumps({"error": text}).encode())),
    lambda text: classify(Answer(409, {}, text.encode())),
    lambda text: classify(Answer(503, {}, text.encode())),
    lambda text: classify(
        Answer(200, {}, json.dumps({"success": True, "data": {"symbol": "S", "batch_nonce": text}}).encode())
    ),
]


@pytest.mark.parametrize("outcome_of", SHOWN)
def test_text_of_the_exchange_is_one_short_safe_line(outcome_of: Callable[[str], Outcome]) -> None:
    """Line breaks, escapes and length of a refusal cannot forge log lines (S23)."""
    text = "no\r\n2026 ERROR forged\x1b[31m\u202e\u2028" + "x" * 10_000
    detail = getattr(outcome_of(text), "detail", "")

    assert detail.isascii()
    assert detail.isprintable()
    assert detail
    assert len(detail) <= 300
