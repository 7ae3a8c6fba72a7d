"""What is read from the headers of an answer, and what of its text reaches a log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica_provider.api.outcomes import Answer, Credits, safe_text

if TYPE_CHECKING:
    from collections.abc import Iterator

MONDAY_MS = 1_716_199_200_000


def answer(**headers: str) -> Answer:
    """Return an empty answer with these headers."""
    return Answer(200, {name.replace("_", "-"): value for name, value in headers.items()}, b"")


@pytest.fixture(params=["UTC", "Asia/Kathmandu"])
def worker_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run the test on a worker of this time zone."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("Mon, 20 May 2024 10:00:00 GMT", MONDAY_MS),
        ("Mon, 20 May 2024 12:00:00 +0200", MONDAY_MS),
        ("Mon, 20 May 2024 10:00:00 -0000", MONDAY_MS),
        ("Mon, 20 May 2024 10:00:00", MONDAY_MS),
        ("Monday, 20-May-24 10:00:00 GMT", MONDAY_MS),
        ("yesterday", None),
        ("", None),
        ("1716199200", None),
        ("Mon, 99 May 2024 10:00:00 GMT", None),
        ("Mon, 20 May 99999 10:00:00 GMT", None),
        (f"Mon, 20 May 2024 10:00:00 +{'9' * 20}", None),
    ],
)
def test_the_exchange_clock_is_its_date_header(worker_zone: str, date: str, expected: int | None) -> None:
    """A Date is read in UTC wherever the worker stands; an unreadable one is no clock (F29)."""
    assert expected == answer(date=date).server_time_ms


def test_no_date_is_no_clock() -> None:
    """An answer without Date says nothing of the time."""
    assert answer().server_time_ms is None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"ratelimit": '"credits";r=1200;t=32'}, Credits(120.0, 32)),
        (
            {"ratelimit": '"credits";r=1205;t=32', "ratelimit_policy": '"credits";q=1250;w=60'},
            Credits(120.5, 32, 125.0),
        ),
        ({"ratelimit": '"credits" ; r=0 ; t=0', "ratelimit_policy": "odd"}, Credits(0.0, 0)),
        ({"ratelimit_policy": '"credits";q=1250;w=60'}, None),
        ({"ratelimit": '"other";r=1;t=2'}, None),
        ({"ratelimit": '"credits";r=-1;t=2'}, None),
        ({"ratelimit": '"credits";r=1'}, None),
        ({"ratelimit": '"credits";r=٣;t=2'}, None),
        ({"ratelimit": f'"credits";r={"9" * 400};t=1'}, None),
        ({"ratelimit": f'"credits";r=1;t={"9" * 5000}'}, None),
        ({"ratelimit": '"credits";r=10;t=1', "ratelimit_policy": f'"credits";q={"9" * 5000};w=1'}, Credits(1.0, 1)),
    ],
)
def test_credits_are_a_tenth_of_what_the_headers_say(headers: dict[str, str], expected: Credits | None) -> None:
    """The documented values are ten times the credits; an odd or absurd header reports nothing (S23)."""
    assert expected == answer(**headers).credits


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("1.5", 1.5),
        ("86400000", 86_400_000.0),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("9" * 5000, None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 9.0),
        ("soon", 9.0),
        ("", 9.0),
    ],
)
def test_an_absurd_retry_after_is_no_advice(header: str, expected: float | None) -> None:
    """A number is taken, an unreadable one falls back to the rate limit, an impossible one says nothing (F23)."""
    assert expected == answer(retry_after=header, ratelimit='"credits";r=0;t=9').retry_after_s


@given(st.dictionaries(st.sampled_from(["date", "retry_after", "ratelimit", "ratelimit_policy"]), st.text()))
def test_no_header_makes_reading_fail(headers: dict[str, str]) -> None:
    """Whatever the headers hold, reading them raises nothing (S23)."""
    read = answer(**headers)

    assert isinstance(read.server_time_ms, int | None)
    assert isinstance(read.credits, Credits | None)
    assert isinstance(read.retry_after_s, float | None)


@given(st.text())
def test_safe_text_is_one_printable_line(text: str) -> None:
    """No line break, control character or escape survives, and no more than 200 characters do (S23)."""
    safe = safe_text(text)

    assert safe.isascii()
    assert not safe or safe.isprintable()
    assert len(safe) <= 200
    assert safe == safe_text(safe)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Over withdrawal: balance 1 amount 2", "Over withdrawal: balance 1 amount 2"),
        ("a\r\nb\tc\x00d\x1b[0m", "a b c d [0m"),
        ("\u202eabc\u2028def\x85", "abc def"),
        ("  much   space  ", "much space"),
        ("y" * 1000, "y" * 200),
    ],
)
def test_safe_text_keeps_what_can_be_read(text: str, expected: str) -> None:
    """Plain words stay, the rest becomes single spaces (S23)."""
    assert expected == safe_text(text)


@pytest.mark.parametrize("body", [b"\xff\xfe", b'{"error": "\\ud800"}', '{"error": "é"}'.encode("utf-16")])
def test_a_refusal_in_no_known_encoding_is_still_text(body: bytes) -> None:
    """Bytes that are no UTF-8 and lone surrogates end as ASCII (S23)."""
    assert answer().refusal() == (None, "")
    assert Answer(400, {}, body).refusal()[1].isascii()
