"""Both transports on real sockets: what they send, what they follow, and how long they wait."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pacifica_provider.api.outcomes import Answer, TransportFailure
from pacifica_provider.api.transports import MAX_BODY_BYTES, HttpRequest, HttpxTransport, RequestsTransport
from tests.support.patience import PATIENCE_S
from tests.support.raw_server import RawServer, answer, drip, reset, say
from tests.support.senders import SENDERS, Sender, by_requests, get, post

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BOTH = pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"


@BOTH
def test_a_whole_answer_comes_back_with_lower_case_headers(send: Sender) -> None:
    """Status, headers and body arrive as they were sent."""
    with RawServer(answer(b'{"a":1}', status=418, headers={"X-Odd": "Yes"})) as server:
        result = send(get(server.url))

    assert isinstance(result, Answer)
    assert (result.status, result.body, result.headers["x-odd"]) == (418, b'{"a":1}', "Yes")


@BOTH
def test_a_get_never_has_a_body(send: Sender) -> None:
    """CloudFront answers 403 to a GET with a body, so there is none and none is announced."""
    with RawServer(answer()) as server:
        send(get(f"{server.url}/api/v1/account?account=x"))
    (request,) = server.requests
    head, _, body = request.partition(b"\r\n\r\n")

    assert head.startswith(b"GET /api/v1/account?account=x HTTP/1.1\r\n")
    assert body == b""
    assert not re.search(rb"(?i)content-length|transfer-encoding|content-type", head)


@BOTH
def test_every_request_asks_for_a_plain_fresh_answer(send: Sender) -> None:
    """No compression and no cache; and nothing that a library adds by itself says more than it must."""
    with RawServer(answer()) as server:
        send(get(server.url))
    (request,) = server.requests
    names = {line.split(b":")[0].lower() for line in request.split(b"\r\n")[1:] if line}

    assert b"accept-encoding: identity" in request.lower()
    assert b"cache-control: no-cache" in request.lower()
    assert names <= {b"host", b"accept", b"accept-encoding", b"cache-control", b"user-agent", b"connection"}


def test_a_post_sends_exactly_its_bytes() -> None:
    """The body on the wire is the one that was signed, byte for byte (F32)."""
    body = bytes(range(256)) * 3
    with RawServer(answer()) as server:
        by_requests(post(server.url, body))
    (request,) = server.requests

    assert body == request.partition(b"\r\n\r\n")[2]
    assert b"content-type: application/json" in request.lower()


@pytest.mark.parametrize("make", [get, post])
def test_no_connection_is_used_twice(make: Callable[[str], HttpRequest]) -> None:
    """Each request of a worker has a connection of its own and says so, so no stale one can swallow a POST (F06)."""
    transport = RequestsTransport(timeout_s=PATIENCE_S)
    with RawServer(answer()) as server:
        for _ in range(3):
            assert isinstance(transport(make(server.url)), Answer)

    assert server.connections == 3
    assert all(b"connection: close" in request.lower() for request in server.requests)


def test_the_triggerer_keeps_its_connection() -> None:
    """Its GETs are many and free to repeat, so one connection serves them all."""

    async def thrice(url: str) -> None:
        """Send three requests through one transport."""
        async with HttpxTransport(timeout_s=PATIENCE_S) as transport:
            for _ in range(3):
                assert isinstance(await transport(get(url)), Answer)

    with RawServer(answer()) as server:
        asyncio.run(thrice(server.url))

    assert (server.connections, len(server.requests)) == (1, 3)


def test_the_triggerer_sends_no_post() -> None:
    """A POST through its transport is a programming error, and nothing leaves."""
    with RawServer(answer()) as server, pytest.raises(ValueError, match="nothing but GETs"):
        SENDERS["httpx"](post(server.url))

    assert server.connections == 0


@BOTH
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(send: Sender, status: int) -> None:
    """The second host sees nothing, though 307 and 308 ask for the signed body; the answer is the redirect (F11)."""
    with RawServer(answer()) as second:
        with RawServer(answer(status=status, headers={"Location": f"{second.url}/elsewhere"})) as first:
            results = [send(get(first.url))]
            if send is by_requests:
                results.append(send(post(first.url)))

        assert second.connections == 0
    assert {status} == {result.status for result in results if isinstance(result, Answer)}
    assert len(results) == len(first.requests)


@BOTH
@pytest.mark.parametrize("location", ["http://[::1", "//", "http://127.0.0.1:1:2/", "\xff\xfe", "mailto:x"])
def test_an_impossible_redirect_raises_nothing(send: Sender, location: str) -> None:
    """The address of a redirect is never used, so that it cannot be parsed is no error of ours (F11, S23)."""
    with RawServer(answer(b"moved", status=307, headers={"Location": location})) as server:
        result = send(get(server.url))
        posted = by_requests(post(server.url))

    assert isinstance(result, Answer | TransportFailure)
    assert isinstance(posted, Answer)
    assert (posted.status, posted.body) == (307, b"moved")


@BOTH
def test_the_environment_decides_nothing(send: Sender, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Proxy variables and ``.netrc`` are ignored: the host is reached directly, without credentials (F12)."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login user password stolen\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with RawServer(answer()) as proxy, RawServer(answer()) as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv(name.lower(), proxy.url)
        result = send(get(server.url))

    assert isinstance(result, Answer)
    assert (proxy.connections, server.connections) == (0, 1)
    assert b"authorization" not in server.requests[0].lower()


@BOTH
@pytest.mark.parametrize(
    "head",
    [b"H", b"HTTP/1.1 200 OK\r\nX-Slow: ", HEAD, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n"],
    ids=["status line", "headers", "body", "chunk"],
)
def test_a_drip_ends_with_the_deadline(send: Sender, head: bytes) -> None:
    """One byte at a time keeps every single read alive; the whole request ends all the same, and hangs up (F08)."""
    closed = threading.Event()
    with RawServer(drip(head, every_s=0.05, closed=closed)) as server:
        began = time.monotonic()
        result = send(get(server.url), timeout_s=0.4)
        took_s = time.monotonic() - began

        assert closed.wait(PATIENCE_S)
    assert TransportFailure("deadline passed") == result
    assert 0.3 < took_s < PATIENCE_S / 4  # every read alone is in time for ever


@BOTH
def test_silence_ends_with_the_timeout(send: Sender) -> None:
    """A server that takes the request and says nothing does not hold a task (F05)."""
    gone = threading.Event()

    def listen(connection: object) -> bool:
        return gone.wait(PATIENCE_S)

    with RawServer(listen) as server:
        began = time.monotonic()
        result = send(get(server.url), timeout_s=0.3)
        took_s = time.monotonic() - began
        gone.set()

    assert isinstance(result, TransportFailure)
    assert took_s < PATIENCE_S / 4


@BOTH
def test_an_endless_body_is_cut(send: Sender) -> None:
    """A body above the bound is a failure, however it is framed (F09)."""
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * (MAX_BODY_BYTES // 0x10000 + 2)
    large = b"x" * (MAX_BODY_BYTES + 1)
    for script in (answer(large), say(endless), answer(large, status=307, headers={"Location": "/"})):
        with RawServer(script) as server:
            assert TransportFailure("the body is too large") == send(get(server.url))


@BOTH
def test_the_largest_allowed_body_arrives(send: Sender) -> None:
    """The bound itself is within bounds."""
    with RawServer(answer(b"x" * MAX_BODY_BYTES)) as server:
        result = send(get(server.url))

    assert isinstance(result, Answer)
    assert len(result.body) == MAX_BODY_BYTES


@BOTH
def test_a_compressed_body_is_not_unpacked(send: Sender) -> None:
    """A bomb stays as small as it came."""
    with RawServer(answer(b"\x1f\x8b\x08bomb", headers={"Content-Encoding": "gzip"})) as server:
        result = send(get(server.url))

    assert isinstance(result, Answer)
    assert result.body == b"\x1f\x8b\x08bomb"


@BOTH
def test_a_reset_is_a_failure(send: Sender) -> None:
    """A connection that is reset instead of answered says nothing of what was delivered (F03)."""
    with RawServer(reset) as server:
        result = send(get(server.url))

    assert TransportFailure("connection reset") == result
