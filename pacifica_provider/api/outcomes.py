"""
What one withdraw request came to: three outcomes and their shades, decided by one pure function.

``Accepted`` and ``Rejected`` need positive proof in the answer. Whatever gives no proof is ``Unknown``: a transport
failure of any type, 5xx, a redirect, a truncated or alien body, a 2xx that is not the documented 200.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from pacifica_provider.api.models import Receipt

if TYPE_CHECKING:
    from collections.abc import Mapping

REFUSING_STATUSES = frozenset({400, 401, 403, 404, 422})
_RATELIMIT = re.compile(r'"credits"\s*;\s*r=(\d{1,9})\s*;\s*t=(\d{1,9})(?!\d)', re.ASCII)
_POLICY = re.compile(r'"credits"\s*;\s*q=(\d{1,9})\s*;\s*w=(\d{1,9})(?!\d)', re.ASCII)
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Credits:
    """What the ``ratelimit`` headers report: credits left of ``quota`` until ``refresh_s`` from now."""

    remaining: float
    refresh_s: int
    quota: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer; ``headers`` with lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def server_time_ms(self) -> int | None:
        """The exchange's clock by the ``Date`` header, at its resolution of a second; ``None`` if unreadable."""
        try:
            moment = parsedate_to_datetime(self.headers["date"])
            # Without a zone it is UTC (RFC 9110); datetime would take the worker's own.
            return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
        except (KeyError, ValueError, TypeError, OverflowError):
            return None

    @property
    def credits(self) -> Credits | None:
        """The rate limit as reported; header values are ten times the credits (documented)."""
        found = _RATELIMIT.search(self.headers.get("ratelimit", ""))
        if not found:
            return None
        policy = _POLICY.search(self.headers.get("ratelimit-policy", ""))
        return Credits(int(found[1]) / 10, int(found[2]), int(policy[1]) / 10 if policy else None)

    @property
    def retry_after_s(self) -> float | None:
        """Seconds to wait by ``Retry-After``, else by the rate limit's refresh time; ``None`` if neither is there."""
        try:
            seconds = float(self.headers["retry-after"])
        except (KeyError, ValueError):
            return float(self.credits.refresh_s) if self.credits else None
        return seconds if math.isfinite(seconds) and seconds >= 0 else None

    def json(self) -> Mapping[str, object]:
        """
        Return the envelope.

        :raises ValueError: if the body is not one JSON object, nests too deeply, or holds ``NaN``.
        """
        try:
            value = json.loads(self.body, parse_constant=_refuse_constant)
        except RecursionError:
            raise ValueError("the body nests too deeply") from None
        if not isinstance(value, dict):
            raise ValueError("the body is not a JSON object")
        return value

    def refusal(self) -> tuple[int | None, str]:
        """Return the business code, if any, and a short text safe to log, of an answer that is not a success."""
        try:
            envelope = self.json()
        except ValueError:
            kind = self.headers.get("content-type", "")
            return None, "(HTML page)" if "html" in kind else safe_text(self.body.decode("utf-8", "replace"))
        code, error = envelope.get("code"), envelope.get("error")
        return (
            code if isinstance(code, int) and not isinstance(code, bool) else None,
            safe_text(error) if isinstance(error, str) else "",
        )


@dataclass(frozen=True, slots=True)
class TransportFailure:
    """No whole answer arrived. ``kind`` is one word for logs; it never proves that nothing was delivered."""

    kind: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """Accepted, with a receipt; whether it echoes the order is for the caller to compare."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Duplicate:
    """409: the exchange knows this idempotency key. Not a receipt, and not proof that money moved."""

    detail: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """Refused: this request moved nothing."""

    status: int
    code: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class Throttled:
    """429: not processed (inferred), to be repeated later with the same key."""

    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class Unknown:
    """No proof either way."""

    detail: str
    status: int | None = None


Outcome = Accepted | Duplicate | Rejected | Throttled | Unknown


def classify(result: Answer | TransportFailure) -> Outcome:
    """Say what one withdraw request came to. Total over every status, body and transport failure; no I/O."""
    if isinstance(result, TransportFailure):
        return Unknown(f"no whole answer: {result.kind}")
    status = result.status
    if status == 200:
        return _classify_ok(result)
    code, text = result.refusal()
    if status == 409:
        return Duplicate(text)
    if status == 429:
        return Throttled(result.retry_after_s)
    if status in REFUSING_STATUSES:
        return Rejected(status, code, text)
    return Unknown(f"HTTP {status} {text}".rstrip(), status)


def _classify_ok(answer: Answer) -> Accepted | Unknown:
    try:
        envelope = answer.json()
        if envelope.get("success") is not True:
            return Unknown("HTTP 200 without success", 200)
        return Accepted(Receipt.from_json(envelope.get("data")))
    except ValueError as error:
        return Unknown(f"HTTP 200 whose body is not a receipt: {safe_text(str(error))}", 200)


def safe_text(text: str) -> str:
    """Make text from outside safe for one log line: printable ASCII, no line breaks, at most 200 characters."""
    plain = "".join(c if c.isascii() and c.isprintable() else " " for c in text[: 4 * _SHOWN])
    return " ".join(plain.split())[:_SHOWN]


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
