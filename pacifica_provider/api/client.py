"""
Pacifica's endpoints as methods: one request builder and one parser, driven by a blocking or an async transport.

The client sends what it is told, once. When to send, how often and what an answer means for a withdrawal is decided
in ``pacifica_provider.withdrawals``. Facts about the endpoints: docs.pacifica.fi/api-documentation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from pacifica_provider.api.amounts import canonical_text
from pacifica_provider.api.models import (
    BridgeParameters,
    PendingWithdrawal,
    SettledWithdrawal,
    SpotAsset,
    SpotBalance,
)
from pacifica_provider.api.outcomes import Answer, Credits, Outcome, TransportFailure, classify
from pacifica_provider.api.signing import canonical_message
from pacifica_provider.api.transports import CERTIFICATE_REFUSED, HttpRequest, base_headers
from pacifica_provider.exceptions import ConfigurationError, Throttled, Unreachable

if TYPE_CHECKING:
    from decimal import Decimal

    from pacifica_provider.api.signing import Signer
    from pacifica_provider.api.transports import AsyncTransport, Transport

OPERATION_TYPE = "withdraw_spot_asset"
_PAGE_ROWS = 100
_MOST_PAGES = 500
_DEFAULT_RETRY_AFTER_S = 30.0

T = TypeVar("T")
Row = TypeVar("Row")
Steps = Generator[HttpRequest, Answer | TransportFailure, T]


@dataclass(frozen=True, slots=True)
class Listing(Generic[Row]):
    """Rows as of one moment, with the exchange's clock (1 s resolution) and the credits left, where reported."""

    rows: tuple[Row, ...]
    server_time_ms: int | None
    credits: Credits | None


@dataclass(frozen=True, slots=True)
class SignedWithdrawal:
    """One signed request: these bytes are what is sent, once. Its ``repr`` shows no signature."""

    timestamp_ms: int
    request: HttpRequest = field(repr=False)


class Endpoints:
    """Builds requests and reads answers for one account; no I/O, so both transports share it."""

    def __init__(self, base_url: str, account: str, *, api_config_key: str | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self.account = account
        self._headers = base_headers()
        if api_config_key:
            self._headers["PF-API-KEY"] = api_config_key

    def withdrawal(
        self,
        signer: Signer,
        symbol: str,
        amount: Decimal,
        *,
        idempotency_key: str,
        timestamp_ms: int,
        expiry_window_ms: int,
    ) -> SignedWithdrawal:
        """Sign one withdrawal, and build the flat body that carries exactly the values that were signed."""
        data = {"symbol": symbol, "amount": canonical_text(amount), "idempotency_key": idempotency_key}
        message = canonical_message(OPERATION_TYPE, data, timestamp_ms=timestamp_ms, expiry_window_ms=expiry_window_ms)
        body: dict[str, object] = {
            "account": self.account,
            "signature": signer.sign(message),
            "timestamp": timestamp_ms,
            "expiry_window": expiry_window_ms,
            **data,
        }
        if signer.public_key != self.account:
            body["agent_wallet"] = signer.public_key
        request = HttpRequest(
            "POST",
            f"{self.base_url}/account/spot_asset/withdraw",
            {**self._headers, "Content-Type": "application/json"},
            json.dumps(body, separators=(",", ":")).encode("ascii"),
        )
        return SignedWithdrawal(timestamp_ms, request)

    def pending(self) -> Steps[Listing[PendingWithdrawal]]:
        """Read what is accepted and not yet on chain, all symbols."""
        answer, envelope = yield from self._get("/account/spot_asset/withdraw/pending", account=self.account)
        rows = _rows(answer, envelope, PendingWithdrawal.from_json)
        return Listing(rows, answer.server_time_ms, answer.credits)

    def history(
        self, since_ms: int | None = None, enough: Callable[[Sequence[SettledWithdrawal]], bool] | None = None
    ) -> Steps[Listing[SettledWithdrawal]]:
        """
        Read the settled withdrawals, at least all since ``since_ms`` (``None``: all there are).

        The order of the list is not documented: paging stops early only once the rows read are seen to be newest first,
        or after a page for which ``enough`` is true; it is shown every page that is read.

        :raises Unreachable: if a cursor comes twice or the pages do not end.
        """
        rows: list[SettledWithdrawal] = []
        cursors: set[str] = set()
        query: dict[str, str] = {"account": self.account, "limit": str(_PAGE_ROWS)}
        for _ in range(_MOST_PAGES):
            answer, envelope = yield from self._get("/account/spot_asset/withdraw/history", **query)
            page = _rows(answer, envelope, SettledWithdrawal.from_json)
            rows += page
            cursor, over = _next_cursor(answer, envelope), enough is not None and enough(page)
            if over or cursor is None or _past(rows, page, since_ms):
                return Listing(tuple(rows), answer.server_time_ms, answer.credits)
            if cursor in cursors:
                raise Unreachable("Pacifica's withdrawal history repeats a page, so it cannot be read to its end.")
            cursors.add(cursor)
            query["cursor"] = cursor
        raise Unreachable(
            f"Pacifica's withdrawal history has more than {_MOST_PAGES} pages; it was not read to its end."
        )

    def spot_balances(self) -> Steps[tuple[SpotBalance, ...]]:
        """Read the account's spot balances."""
        answer, envelope = yield from self._get("/account", account=self.account)
        data = envelope.get("data")
        if not isinstance(data, dict):
            raise _unreadable(answer, "the account is not an object")
        return _rows(answer, {"data": data.get("spot_balances")}, SpotBalance.from_json)

    def spot_assets(self) -> Steps[tuple[SpotAsset, ...]]:
        """Read the exchange's spot assets, those too that are not active."""
        answer, envelope = yield from self._get("/spot_assets", include_inactive="true")
        return _rows(answer, envelope, SpotAsset.from_json)

    def bridge_parameters(self, symbol: str) -> Steps[BridgeParameters]:
        """Read fee and decimals of one asset; a symbol without an active bridge is a ``ConfigurationError``."""
        answer, envelope = yield from self._get(f"/spot_assets/bridge/parameters/{quote(symbol, safe='')}")
        try:
            return BridgeParameters.from_json(envelope.get("data"))
        except ValueError as error:
            raise _unreadable(answer, str(error)) from None

    def _get(self, path: str, **query: str) -> Steps[tuple[Answer, dict[str, Any]]]:
        """Yield one GET, never with a body (CloudFront answers 403), and return the answer with its envelope."""
        url = f"{self.base_url}{path}" + (f"?{urlencode(query)}" if query else "")
        result = yield HttpRequest("GET", url, self._headers)
        answer = _usable(result, path)
        try:
            envelope = dict(answer.json())
        except ValueError as error:
            raise _unreadable(answer, str(error)) from None
        if envelope.get("success") is not True:
            raise _unreadable(answer, "the answer does not say success")
        return answer, envelope


class PacificaClient:
    """
    The blocking client of one account.

    :param endpoints: request builder and parser.
    :param transport: sends one request; see ``api/transports.py``.
    :param signer: ``None`` for a client that only reads.
    :param expiry_window_ms: how long a signature is valid.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        transport: Transport,
        *,
        signer: Signer | None = None,
        expiry_window_ms: int = 10_000,
    ) -> None:
        self.endpoints = endpoints
        self.expiry_window_ms = expiry_window_ms
        self._transport = transport
        self._signer = signer

    def prepare_withdrawal(
        self, symbol: str, amount: Decimal, *, idempotency_key: str, timestamp_ms: int
    ) -> SignedWithdrawal:
        """
        Sign one withdrawal request; nothing is sent.

        :raises ConfigurationError: if this client holds no key.
        """
        if self._signer is None:
            raise ConfigurationError(
                "This connection holds no private key: it can read, but not withdraw. Nothing was sent."
            )
        return self.endpoints.withdrawal(
            self._signer,
            symbol,
            amount,
            idempotency_key=idempotency_key,
            timestamp_ms=timestamp_ms,
            expiry_window_ms=self.expiry_window_ms,
        )

    def send(self, withdrawal: SignedWithdrawal) -> Outcome:
        """Send exactly the signed bytes, once, and classify the answer."""
        return classify(self._transport(withdrawal.request))

    def withdraw_spot_asset(self, symbol: str, amount: Decimal, *, idempotency_key: str, timestamp_ms: int) -> Outcome:
        """Sign and send one bare POST. It guards against nothing: DAGs use the operator or the hook."""
        return self.send(
            self.prepare_withdrawal(symbol, amount, idempotency_key=idempotency_key, timestamp_ms=timestamp_ms)
        )

    def pending_withdrawals(self) -> Listing[PendingWithdrawal]:
        """Return what is accepted and not yet on chain."""
        return self._run(self.endpoints.pending())

    def withdrawal_history(
        self, since_ms: int | None = None, enough: Callable[[Sequence[SettledWithdrawal]], bool] | None = None
    ) -> Listing[SettledWithdrawal]:
        """Return the settled withdrawals, at least all since ``since_ms``; fewer once ``enough`` is true of a page."""
        return self._run(self.endpoints.history(since_ms, enough))

    def spot_balances(self) -> tuple[SpotBalance, ...]:
        """Return the account's spot balances."""
        return self._run(self.endpoints.spot_balances())

    def spot_assets(self) -> tuple[SpotAsset, ...]:
        """Return the exchange's spot assets."""
        return self._run(self.endpoints.spot_assets())

    def bridge_parameters(self, symbol: str) -> BridgeParameters:
        """Return fee and decimals of one asset."""
        return self._run(self.endpoints.bridge_parameters(symbol))

    def _run(self, steps: Steps[T]) -> T:
        return run(steps, self._transport)


def run(steps: Steps[T], transport: Transport) -> T:
    """Drive an endpoint of ``Endpoints`` with the workers' transport."""
    try:
        request = next(steps)
        while True:
            request = steps.send(transport(request))
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # the type of a generator's return is lost here


async def run_async(steps: Steps[T], transport: AsyncTransport) -> T:
    """Drive an endpoint of ``Endpoints`` with the triggerer's transport."""
    try:
        request = next(steps)
        while True:
            request = steps.send(await transport(request))
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # as in run


def _usable(result: Answer | TransportFailure, path: str) -> Answer:
    """Return a 200 answer, or raise for what a reader can do about anything else."""
    if isinstance(result, TransportFailure):
        if result.kind == CERTIFICATE_REFUSED:
            raise ConfigurationError(f"Pacifica cannot be reached safely: {result.kind}.")
        raise Unreachable(f"Pacifica did not answer GET {path}: {result.kind}.")
    if result.status == 200:
        return result
    code, text = result.refusal()
    said = f"GET {path} was answered HTTP {result.status} {text}".rstrip(" .")
    if result.status == 429:
        wait_s = result.retry_after_s
        raise Throttled(
            f"{said}: the request quota is used up.",
            retry_after_s=_DEFAULT_RETRY_AFTER_S if wait_s is None else wait_s,
            status=429,
        )
    if result.status in {400, 401, 403, 404}:
        raise ConfigurationError(
            f"{said}. Check the connection: Environment, Base URL and Account.", status=result.status, code=code
        )
    raise Unreachable(f"{said}.", status=result.status, code=code)


def _unreadable(answer: Answer, why: str) -> Unreachable:
    page = " (a web page)" if "html" in answer.headers.get("content-type", "") else ""
    return Unreachable(f"Pacifica's answer{page} cannot be read: {why}.", status=answer.status)


def _rows(answer: Answer, envelope: dict[str, Any], read: Callable[[object], Row]) -> tuple[Row, ...]:
    data = envelope.get("data")
    if not isinstance(data, list):
        raise _unreadable(answer, "data is not a list")
    try:
        return tuple(read(row) for row in data)
    except ValueError as error:
        raise _unreadable(answer, str(error)) from None


def _next_cursor(answer: Answer, envelope: dict[str, Any]) -> str | None:
    more, cursor = envelope.get("has_more"), envelope.get("next_cursor")
    if not more:
        return None
    if not isinstance(cursor, str) or not cursor:
        raise _unreadable(answer, "has_more without next_cursor")
    return cursor


def _past(rows: list[SettledWithdrawal], page: tuple[SettledWithdrawal, ...], since_ms: int | None) -> bool:
    """Say whether no later page can hold a row since then: all of this one is older, and time has run backwards."""
    if since_ms is None or not page:
        return False
    times = [row.created_at_ms for row in rows]
    newest_first = times[0] > times[-1] and all(a >= b for a, b in pairwise(times))
    return newest_first and all(row.created_at_ms < since_ms for row in page)
