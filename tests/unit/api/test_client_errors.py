"""What each answer to a GET means to the caller, the same for both clients."""

from __future__ import annotations

import asyncio
import json
import ssl
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from pacifica_provider.api.client import Endpoints, PacificaClient, Steps, run_async
from pacifica_provider.api.models import BridgeParameters, SpotAsset, SpotBalance
from pacifica_provider.api.transports import HttpxTransport, RequestsTransport
from pacifica_provider.exceptions import ConfigurationError, PacificaError, Throttled, Unreachable
from tests.support.patience import PATIENCE_S
from tests.support.raw_server import RawServer, answer, reset

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacifica_provider.sandbox import Sandbox

ACCOUNT = "FVen3X669xLzsi6N2V91DoiyzHzg1uAgqiT8jZ9nS96Z"
HTML = {"Content-Type": "text/html"}


def run_blocking(steps: Steps[Any]) -> Any:
    """Drive an endpoint as a worker does."""
    return PacificaClient(Endpoints("", ""), RequestsTransport(timeout_s=PATIENCE_S))._run(steps)


def run_in_loop(steps: Steps[Any]) -> Any:
    """Drive an endpoint as the triggerer does."""

    async def run() -> Any:
        """Drive it within the loop."""
        async with HttpxTransport(timeout_s=PATIENCE_S) as transport:
            return await run_async(steps, transport)

    return asyncio.run(run())


BOTH = pytest.mark.parametrize("run", [run_blocking, run_in_loop])


@BOTH
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ConfigurationError),
        (401, ConfigurationError),
        (403, ConfigurationError),
        (404, ConfigurationError),
        (201, Unreachable),
        (301, Unreachable),
        (307, Unreachable),
        (409, Unreachable),
        (418, Unreachable),
        (422, Unreachable),
        (429, Throttled),
        (500, Unreachable),
        (502, Unreachable),
        (503, Unreachable),
        (504, Unreachable),
        (599, Unreachable),
    ],
)
def test_a_status_other_than_200_says_whose_turn_it_is(
    run: Callable[[Steps[Any]], Any], status: int, kind: type[PacificaError]
) -> None:
    """Refusals are for the connection's owner, 429 and the rest for a later try; status and code are kept (F27)."""
    body = json.dumps({"success": False, "error": "no\nsuch", "code": 7}).encode()
    with RawServer(answer(body, status=status)) as server, pytest.raises(PacificaError) as caught:
        run(Endpoints(server.url, ACCOUNT).pending())

    assert type(caught.value) is kind
    assert caught.value.status == status
    assert caught.value.code == (None if status == 429 else 7)
    assert f"HTTP {status} no such" in str(caught.value)


@BOTH
@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [({}, 30.0), ({"Retry-After": "0"}, 0.0), ({"Retry-After": "5"}, 5.0), ({"Ratelimit": '"credits";r=0;t=12'}, 12.0)],
)
def test_a_429_carries_how_long_to_wait(
    run: Callable[[Steps[Any]], Any], headers: dict[str, str], wait_s: float
) -> None:
    """As told, or half a minute if nothing is (F23, F79)."""
    with RawServer(answer(status=429, headers=headers)) as server, pytest.raises(Throttled) as caught:
        run(Endpoints(server.url, ACCOUNT).pending())

    assert caught.value.retry_after_s == wait_s


@BOTH
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"success":true}',
        b'{"success":false,"data":[]}',
        b'{"data":[]}',
        b'{"success":"true","data":[]}',
        b'{"success":true,"data":{}}',
        b'{"success":true,"data":[7]}',
        b'{"success":true,"data":[{"symbol":"SOL"}]}',
        b'{"success":true,"data":' + b"[" * 50_000,
        b'{"success":true,"data":[NaN]}',
        b"\xff\xfe\x00",
    ],
)
def test_a_200_that_cannot_be_read_is_unreachable(run: Callable[[Steps[Any]], Any], body: bytes) -> None:
    """A malformed list is transient, never an empty list (F79)."""
    with RawServer(answer(body)) as server, pytest.raises(Unreachable, match="cannot be read") as caught:
        run(Endpoints(server.url, ACCOUNT).pending())

    assert caught.value.status == 200


@BOTH
def test_one_odd_row_spoils_the_list(run: Callable[[Steps[Any]], Any]) -> None:
    """A list with one row that cannot be read is not read at all: the missing one might be ours."""
    good = {"symbol": "S", "amount": "1", "amount_requested": "2", "fee_amount": "1", "batch_nonce": 1, "created_at": 1}
    body = json.dumps({"success": True, "data": [good, {**good, "amount_requested": 2}]}).encode()
    with RawServer(answer(body)) as server, pytest.raises(Unreachable, match="not a number in plain digits and quotes"):
        run(Endpoints(server.url, ACCOUNT).pending())


@BOTH
def test_a_web_page_is_said_to_be_one(run: Callable[[Steps[Any]], Any]) -> None:
    """A portal's 200 and a wrong path's 404 name the page without quoting it (F13, F27)."""
    texts = []
    for status in (200, 404):
        page = answer(b"<html>login", status=status, headers=HTML)
        with RawServer(page) as server, pytest.raises(PacificaError) as caught:
            run(Endpoints(server.url, ACCOUNT).pending())
        texts.append(str(caught.value))

    assert "(a web page)" in texts[0]
    assert "(HTML page)" in texts[1]
    assert "login" not in "".join(texts)


@BOTH
def test_no_answer_is_unreachable_and_names_the_path_only(run: Callable[[Steps[Any]], Any]) -> None:
    """What the network did is named; host and account are not repeated."""
    with RawServer(reset) as server, pytest.raises(Unreachable) as caught:
        run(Endpoints(server.url, ACCOUNT).pending())

    assert "did not answer GET /account/spot_asset/withdraw/pending: connection reset" in str(caught.value)
    assert ACCOUNT not in str(caught.value)


@BOTH
def test_a_refused_certificate_is_for_the_owner(run: Callable[[Steps[Any]], Any]) -> None:
    """An unproven server is a ConfigurationError: no retry makes it another (F10)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    with (
        RawServer(answer(), context=context, host="localhost") as server,
        pytest.raises(ConfigurationError, match="certificate is not valid"),
    ):
        run(Endpoints(server.url, ACCOUNT).pending())

    assert server.requests == []


@BOTH
def test_the_reads_of_a_real_exchange(run: Callable[[Steps[Any]], Any], sandbox: Sandbox) -> None:
    """Balances, assets and bridge parameters are read from the sandbox as they are; an unknown symbol is refused."""
    endpoints = Endpoints(sandbox.base_url, sandbox.account)

    assert SpotBalance("SOL", Decimal(10**6), Decimal(10**6), Decimal(0)) in run(endpoints.spot_balances())
    assert SpotAsset("kBONK", active=True) in run(endpoints.spot_assets())
    assert run(endpoints.bridge_parameters("SOL")) == BridgeParameters("SOL", Decimal("0.001"), 9)
    with pytest.raises(ConfigurationError, match="404"):
        run(endpoints.bridge_parameters("../../account?x=1#"))


@BOTH
@pytest.mark.parametrize("page_rows", [1, 7, 100])
def test_a_long_history_is_read_whole(run: Callable[[Steps[Any]], Any], sandbox: Sandbox, page_rows: int) -> None:
    """Whatever the page size, all 30 rows come once each, a row of the last page included (F76)."""
    for number in range(1, 31):
        sandbox.control("POST", "/foreign_withdrawal", {"symbol": "SOL", "amount": str(number)})
    sandbox.control("POST", "/settle")
    sandbox.control("POST", "/options", {"history_page_size": page_rows, "history_amount": "gross"})
    rows = run(Endpoints(sandbox.base_url, sandbox.account).history()).rows

    assert sorted(row.amount for row in rows) == list(range(1, 31))


@BOTH
@pytest.mark.parametrize("data", [None, [], "account", {"spot_balances": None}, {"spot_balances": [{"symbol": "SOL"}]}])
def test_an_account_that_is_none_is_unreachable(run: Callable[[Steps[Any]], Any], data: object) -> None:
    """Balances that cannot be read are not taken for none."""
    body = json.dumps({"success": True, "data": data}).encode()
    with RawServer(answer(body)) as server, pytest.raises(Unreachable, match="cannot be read"):
        run(Endpoints(server.url, ACCOUNT).spot_balances())


def test_the_blocking_client_has_a_method_for_each_read(sandbox: Sandbox) -> None:
    """What the endpoints offer is there without knowing of steps and transports."""
    client = PacificaClient(Endpoints(sandbox.base_url, sandbox.account), RequestsTransport(timeout_s=PATIENCE_S))

    assert [*client.pending_withdrawals().rows, *client.withdrawal_history().rows] == []
    assert {asset.symbol for asset in client.spot_assets()} == {row.symbol for row in client.spot_balances()}
    assert client.bridge_parameters("BTC").decimals == 8
