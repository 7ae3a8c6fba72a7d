"""What a Solana RPC says of transactions: its own words, and silence for anything else that it may answer."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica_provider.api.client import run, run_async
from pacifica_provider.api.outcomes import Answer, TransportFailure
from pacifica_provider.api.solana import (
    MOST_SIGNATURES,
    NO_TRANSACTION,
    ChainStatus,
    Word,
    chain_statuses,
    is_signature,
    read_statuses,
)
from pacifica_provider.api.transports import HttpRequest, HttpxTransport, RequestsTransport
from tests.support.patience import PATIENCE_S
from tests.support.raw_server import RawServer, answer, reset

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacifica_provider.sandbox import Sandbox

URL = "https://rpc.example/v2/a-token-of-the-rpc"
FINAL = {"slot": 1, "confirmations": None, "err": None, "confirmationStatus": "finalized"}
ERRORS: list[object] = [False, 0, "", {}, []]
NO_STATUS: list[object] = ["finalized", 7, [], [FINAL], True, {}]
NO_COMMITMENT: list[object] = [None, "FINALIZED", "final", 1, ["finalized"], {}]
WORDS: tuple[Word, ...] = get_args(Word)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=20,
)
# What is nearly a status, and what is nearly none.
STATUS = st.fixed_dictionaries(
    {},
    optional={
        "err": st.none() | JSON,
        "confirmationStatus": st.sampled_from(["finalized", "confirmed", "processed", None, "Finalized"]) | JSON,
        "confirmations": JSON,
        "status": JSON,
    },
)


def reply(value: object, **changes: object) -> Answer:
    """Return a node's answer with this value."""
    body = {"jsonrpc": "2.0", "id": 1, "result": {"context": {"slot": 1}, "value": value}, **changes}
    return Answer(200, {}, json.dumps(body).encode())


def only(result: Answer | TransportFailure) -> ChainStatus:
    """Return what an answer says of the one signature that was asked for."""
    read = read_statuses(result, 1)
    return read[0] if isinstance(read, list) else read


def signatures(count: int) -> list[str]:
    """Return so many signatures."""
    import base58

    return [base58.b58encode(number.to_bytes(64, "big")).decode() for number in range(count)]


@pytest.mark.parametrize(
    ("row", "word"),
    [
        (FINAL, "finalized"),
        ({**FINAL, "confirmationStatus": "confirmed"}, "confirmed"),
        ({**FINAL, "confirmationStatus": "processed"}, "processed"),
        (None, "not found"),
        ({**FINAL, "err": {"InstructionError": [0, {"Custom": 1}]}}, "failed"),
        ({**FINAL, "err": "AccountNotFound"}, "failed"),
        *(({**FINAL, "err": odd}, "failed") for odd in ERRORS),
    ],
)
def test_a_node_s_word_is_taken(row: object, word: Word) -> None:
    """An error is one whatever it is, however final: only null says that there is none."""
    assert only(reply([row])) == ChainStatus(word)


@pytest.mark.parametrize(
    "result",
    [
        TransportFailure("deadline passed"),
        *(Answer(status, {}, reply([FINAL]).body) for status in (201, 204, 301, 400, 401, 403, 429, 500)),
        *(Answer(200, {}, body) for body in (b"", b"null", b"[]", b"<html>", b"\xff", b"[" * 100_000, b'{"id": NaN}')),
        Answer(200, {}, reply([FINAL]).body + b" " * 300_000),
        reply([FINAL], error={"code": -32602, "message": URL}),
        reply([FINAL], error=URL),
        reply([FINAL], id=2),
        reply([FINAL], id=None),
        reply([FINAL], result=[FINAL]),
        reply([FINAL], result=None),
        *(reply(value) for value in ([], [FINAL, FINAL], FINAL, None, "finalized", 7)),
        *(reply([row]) for row in NO_STATUS),
        reply([{name: value for name, value in FINAL.items() if name != "err"}]),
        *(reply([{**FINAL, "confirmationStatus": odd}]) for odd in NO_COMMITMENT),
    ],
)
def test_anything_else_says_nothing(result: Answer | TransportFailure) -> None:
    """No answer, with a reason of our own: what the other side wrote, or the address, is not repeated."""
    status = only(result)

    assert status.word == "no answer"
    assert status.why
    assert "token" not in status.why


@given(st.binary(max_size=300), st.integers(100, 599), st.integers(0, 3))
def test_no_body_is_an_error(body: bytes, status: int, count: int) -> None:
    """Whatever comes back is read to its end, and bytes that are no node's say nothing."""
    read = read_statuses(Answer(status, {}, body), count)

    assert isinstance(read, ChainStatus)
    assert read.word == "no answer"


@given(st.lists(STATUS | JSON, max_size=4), st.integers(0, 4))
def test_finalized_needs_every_part_of_the_proof(rows: list[Any], count: int) -> None:
    """Nothing but a status without an error, in a list as long as the question, with that very word."""
    read = read_statuses(reply(rows), count)
    words = [each.word for each in read] if isinstance(read, list) else []

    assert len(words) in {0, count}
    assert all(word in WORDS for word in words)
    for row, word in zip(rows, words, strict=False):
        proof = isinstance(row, dict) and ("err", None) in row.items()
        proof = proof and row.get("confirmationStatus") == "finalized"
        assert (word == "finalized") == proof


@given(st.text(max_size=100) | st.from_regex(r"[1-9A-HJ-NP-Za-km-z]{60,90}", fullmatch=True))
def test_what_is_no_signature_is_not_asked(text: str) -> None:
    """A node refuses the whole request for one of them, so nobody else's question may depend on it."""
    steps = chain_statuses(URL, [text])
    asked = is_signature(text)
    if not asked:
        with pytest.raises(StopIteration) as done:
            next(steps)
        assert done.value.value == {text: ChainStatus("not found", "it is no Solana signature")}
    else:
        assert json.loads(next(steps).body or b"")["params"][0] == [text]


def test_the_request_is_the_documented_one() -> None:
    """The history is searched too, and nothing of the address shows."""
    request = next(chain_statuses(URL, [NO_TRANSACTION, NO_TRANSACTION]))

    assert (request.method, request.url) == ("POST", URL)
    assert json.loads(request.body or b"") == {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "getSignatureStatuses",
        "params": [[NO_TRANSACTION], {"searchTransactionHistory": True}],
    }
    assert "token" not in repr(request)


def count_of(request: HttpRequest) -> int:
    """Return how many signatures a request asks for."""
    return len(json.loads(request.body or b"")["params"][0])


def test_many_are_asked_256_at_a_time() -> None:
    """As many requests as it takes, and each answer goes to the signature that was asked in its place."""
    names = signatures(2 * MOST_SIGNATURES + 1)
    counts: list[int] = []

    def node(request: HttpRequest) -> Answer:
        """Answer all but one as finalized."""
        counts.append(count_of(request))
        return reply([None if name == names[300] else FINAL for name in json.loads(request.body or b"")["params"][0]])

    said = run(chain_statuses(URL, names), node)

    assert counts == [MOST_SIGNATURES, MOST_SIGNATURES, 1]
    assert [name for name, status in said.items() if status.word != "finalized"] == [names[300]]
    assert set(said) == set(names)


def test_a_silent_node_is_asked_once() -> None:
    """Forty requests that hang one after the other would take minutes."""
    names = signatures(3 * MOST_SIGNATURES)
    results: list[Answer | TransportFailure] = [reply([FINAL] * MOST_SIGNATURES), TransportFailure("timed out")]
    said = run(chain_statuses(URL, names), lambda _: results.pop(0))

    words = [said[name].word for name in names]
    assert words == ["finalized"] * MOST_SIGNATURES + ["no answer"] * 2 * MOST_SIGNATURES


def by_worker(url: str) -> ChainStatus:
    """Ask for one transaction as the worker does."""
    return run(chain_statuses(url, [NO_TRANSACTION]), RequestsTransport(timeout_s=PATIENCE_S))[NO_TRANSACTION]


def by_triggerer(url: str) -> ChainStatus:
    """Ask for one transaction as the triggerer does."""

    async def ask() -> dict[str, ChainStatus]:
        """Ask in the loop."""
        async with HttpxTransport(timeout_s=PATIENCE_S, posts_to=url) as transport:
            return await run_async(chain_statuses(url, [NO_TRANSACTION]), transport)

    return asyncio.run(ask())[NO_TRANSACTION]


@pytest.mark.parametrize("ask", [by_worker, by_triggerer])
def test_what_breaks_on_the_way_is_no_answer(ask: Callable[[str], ChainStatus]) -> None:
    """By either transport: a reset, a body that is cut off, a page in HTML, a redirect."""
    elsewhere = {"Location": "/elsewhere"}
    scripts = (
        *(reset, answer(reply([FINAL]).body, announced=9_000), answer(b"<html>", status=502)),
        answer(reply([FINAL]).body, status=307, headers=elsewhere),
    )
    said = []
    for script in scripts:
        with RawServer(script) as server:
            said.append(ask(f"{server.url}/rpc?api-key=hush").word)

    assert said == ["no answer"] * 4


@pytest.mark.parametrize("ask", [by_worker, by_triggerer])
def test_a_node_is_asked_by_either_transport(ask: Callable[[str], ChainStatus], sandbox: Sandbox) -> None:
    """Path and query reach it whole."""
    with RawServer(answer(reply([FINAL]).body)) as server:
        said = ask(f"{server.url}/v2/hush-path?api-key=hush-query")
        (request,) = server.requests

    assert said == ChainStatus("finalized")
    assert request.startswith(b"POST /v2/hush-path?api-key=hush-query HTTP/1.1\r\n")
    assert ask(sandbox.solana_url) == ChainStatus("not found")


def test_httpx_logs_no_token(caplog: pytest.LogCaptureFixture) -> None:
    """It logs the address of each request, in a triggerer too: of this one it knows the host alone."""
    caplog.set_level("DEBUG", "httpx")
    with RawServer(answer(reply([FINAL]).body)) as server:
        by_triggerer(f"{server.url}/v2/hush-path?api-key=hush-query")

    assert "HTTP Request: POST" in caplog.text
    assert "hush" not in caplog.text


def test_the_triggerer_posts_to_no_other_address() -> None:
    """What is made for one RPC sends an exchange nothing but GETs."""
    request = next(chain_statuses(URL, [NO_TRANSACTION]))

    async def ask() -> object:
        """Try to."""
        async with HttpxTransport(timeout_s=PATIENCE_S, posts_to=f"{URL}/elsewhere") as transport:
            return await transport(request)

    with pytest.raises(ValueError, match="nothing but GETs to an exchange"):
        asyncio.run(ask())


@pytest.mark.parametrize(
    ("status", "shown"),
    [(ChainStatus("finalized"), "finalized"), (ChainStatus("no answer", "HTTP 429"), "no answer (HTTP 429)")],
)
def test_a_status_says_itself(status: ChainStatus, shown: str) -> None:
    """As the case command shows it."""
    assert str(status) == shown
