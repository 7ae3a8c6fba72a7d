"""The client against scripted answers: paging, headers, and what each answer to a GET means."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.api.client import Endpoints, PacificaClient
from pacifica_provider.api.outcomes import Credits
from pacifica_provider.api.transports import RequestsTransport
from pacifica_provider.exceptions import Unreachable
from tests.support.patience import PATIENCE_S
from tests.support.raw_server import RawServer, Script, answer

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "49W385L4rePHy6PAaQUovbD2aacgN4HsKXSMeUzRg4fmwXszN91JuMFrQRj3vMDpZuRF3ZknQBuRBoWQJEfXstMw"
ACCOUNT = "FVen3X669xLzsi6N2V91DoiyzHzg1uAgqiT8jZ9nS96Z"
KEY = "550e8400-e29b-41d4-a716-446655440000"
READS: dict[str, Callable[[Endpoints], Any]] = {
    "pending": lambda endpoints: endpoints.pending(),
    "history": lambda endpoints: endpoints.history(),
    "account": lambda endpoints: endpoints.spot_balances(),
    "assets": lambda endpoints: endpoints.spot_assets(),
    "bridge": lambda endpoints: endpoints.bridge_parameters("SOL"),
}
READ = pytest.mark.parametrize("read", READS.values(), ids=READS)


def client(server: RawServer, **kwargs: Any) -> PacificaClient:
    """Return a client of the server."""
    return PacificaClient(
        Endpoints(f"{server.url}/api/v1/", ACCOUNT, api_config_key=kwargs.pop("api_config_key", None)),
        RequestsTransport(timeout_s=PATIENCE_S),
        **kwargs,
    )


def ok(data: object, **more: object) -> Script:
    """Return a script that answers an envelope."""
    return answer(json.dumps({"success": True, "data": data, **more}).encode())


def row(at_ms: int, nonce: int = 1) -> dict[str, object]:
    """Return a row of the history."""
    return {"symbol": "SOL", "amount": "1", "batch_nonce": nonce, "transaction_id": "5x", "created_at": at_ms}


def page(*times: int, cursor: str | None = None) -> Script:
    """Return a script that answers a page of the history."""
    return ok([row(at_ms) for at_ms in times], next_cursor=cursor, has_more=cursor is not None)


def queries(server: RawServer) -> list[str]:
    """Return the query strings of the requests."""
    return [request.split(b" ")[1].decode().partition("?")[2] for request in server.requests]


def test_history_follows_the_cursor_to_its_end() -> None:
    """Every page is read, each by the cursor of the one before it (F76)."""
    with RawServer(page(9, 8, cursor="a b&c"), page(7, cursor="d"), page(6)) as server:
        listing = client(server).withdrawal_history()

    assert [r.created_at_ms for r in listing.rows] == [9, 8, 7, 6]
    assert queries(server) == [
        f"account={ACCOUNT}&limit=100",
        f"account={ACCOUNT}&limit=100&cursor=a+b%26c",
        f"account={ACCOUNT}&limit=100&cursor=d",
    ]


@pytest.mark.parametrize("cursors", [("a", "a"), ("a", "b", "a")])
def test_a_cursor_that_comes_twice_is_unreachable(cursors: tuple[str, ...]) -> None:
    """A history that loops is not read for ever, and not taken as read (F76)."""
    with (
        RawServer(*(page(9, cursor=cursor) for cursor in cursors)) as server,
        pytest.raises(Unreachable, match="repeats a page"),
    ):
        client(server).withdrawal_history()

    assert len(server.requests) == len(cursors)


def test_a_history_without_end_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ever new cursors are followed for a bounded number of pages, then nothing is concluded (F76)."""
    monkeypatch.setattr("pacifica_provider.api.client._MOST_PAGES", 5)
    pages = [page(9, cursor=f"c{number}") for number in range(9)]
    with RawServer(*pages) as server, pytest.raises(Unreachable, match="more than 5 pages"):
        client(server).withdrawal_history()

    assert len(server.requests) == 5


@pytest.mark.parametrize(
    ("pages", "since_ms", "read"),
    [
        ([(9, 8), (5, 4), (3, 2)], 6, 2),
        ([(9, 8), (7, 5), (3, 2)], 6, 3),
        ([(9, 8), (6, 6), (5, 5), (4, 4)], 6, 3),
        ([(1, 2), (3, 4), (5, 6)], 6, 3),
        ([(4, 5), (9, 1), (3, 2)], 6, 3),
        ([(5, 5), (5, 5), (9, 9)], 6, 3),
        ([(5, 4), (3, 2), (9, 9)], None, 3),
        ([(), (9, 8), (5, 4), (3, 2)], 6, 3),
    ],
    ids=[
        "newest first",
        "a page half old",
        "the very moment",
        "oldest first",
        "no order",
        "all alike",
        "all asked for",
        "an empty page",
    ],
)
def test_paging_stops_early_only_when_the_order_is_seen(
    pages: list[tuple[int, ...]], since_ms: int | None, read: int
) -> None:
    """The order is undocumented: without proof that time runs backwards every page is read (F76)."""
    last = len(pages) - 1
    scripts = [page(*times, cursor=None if at == last else f"c{at}") for at, times in enumerate(pages)]
    with RawServer(*scripts) as server:
        rows = client(server).withdrawal_history(since_ms).rows

    assert len(server.requests) == read
    assert [r.created_at_ms for r in rows] == [at_ms for times in pages[:read] for at_ms in times]


@pytest.mark.parametrize(
    "more", [{"has_more": True}, {"has_more": True, "next_cursor": ""}, {"has_more": 1, "next_cursor": 5}]
)
def test_more_without_a_cursor_is_unreachable(more: dict[str, object]) -> None:
    """A page that announces another and does not say where is not the end of the list."""
    with RawServer(ok([], **more)) as server, pytest.raises(Unreachable, match="has_more without next_cursor"):
        client(server).withdrawal_history()


def test_two_hundred_pending_rows_are_one_reading() -> None:
    """The pending list has no pages: whatever it holds is read, with clock and credits as reported."""
    rows = [
        {
            "symbol": "SOL",
            "amount": "0.9",
            "amount_requested": "1",
            "fee_amount": "0.1",
            "batch_nonce": str(nonce),
            "created_at": nonce,
        }
        for nonce in range(200)
    ]
    headers = {
        "Date": "Mon, 20 May 2024 10:00:00 GMT",
        "Ratelimit": '"credits";r=990;t=20',
        "Ratelimit-Policy": '"credits";q=1000;w=60',
    }
    body = json.dumps({"success": True, "data": rows}).encode()
    with RawServer(answer(body, headers=headers)) as server:
        listing = client(server).pending_withdrawals()

    assert [r.batch_nonce for r in listing.rows] == list(range(200))
    assert (listing.server_time_ms, listing.credits) == (1716199200000, Credits(99.0, 20, 100.0))


@READ
def test_the_api_config_key_is_sent_where_it_is_configured(read: Callable[[Endpoints], Any]) -> None:
    """``PF-API-KEY`` is on every request of a client that has one, and on none of one that has none."""
    seen = []
    for key in ("CFGKEY_abc", None):
        with RawServer(ok({})) as server:
            probe = client(server, api_config_key=key)
            with pytest.raises(Unreachable):
                probe._run(read(probe.endpoints))
        seen.append(b"pf-api-key: cfgkey_abc" in server.requests[0].lower())

    assert seen == [True, False]
