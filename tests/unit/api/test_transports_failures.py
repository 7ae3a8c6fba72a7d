"""Answers cut, garbled or never given: both transports return a failure, and raise nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pacifica_provider.api.outcomes import Accepted, Answer, TransportFailure, classify
from pacifica_provider.api.transports import CERTIFICATE_REFUSED, HttpRequest
from tests.support.patience import PATIENCE_S
from tests.support.raw_server import RawServer, answer, drip, say
from tests.support.senders import SENDERS, Sender, by_requests, get, post

if TYPE_CHECKING:
    from pathlib import Path

BOTH = pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
WHOLE = b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"success":true}'
CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{"success":true}\r\n0\r\n\r\n'


@BOTH
@pytest.mark.parametrize("cut", range(len(WHOLE)))
def test_an_answer_cut_at_any_byte_is_a_failure(send: Sender, cut: int) -> None:
    """A connection closed at any offset of the answer is no answer, the last byte of the body included (F07)."""
    with RawServer(say(WHOLE[:cut])) as server:
        result = send(get(server.url))

    assert isinstance(result, TransportFailure)


@BOTH
@pytest.mark.parametrize("cut", range(len(CHUNKED) - 20, len(CHUNKED) - 5))
def test_a_chunked_answer_without_its_end_is_a_failure(send: Sender, cut: int) -> None:
    """A chunked body ends with its last chunk and nowhere else (F07)."""
    with RawServer(say(CHUNKED[:cut])) as server:
        result = send(get(server.url))

    assert isinstance(result, TransportFailure)


@BOTH
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x00\xff" * 100,
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_http_is_a_failure(send: Sender, data: bytes) -> None:
    """Garbage instead of an answer is a failure and not an exception (S23)."""
    with RawServer(say(data)) as server:
        result = send(get(server.url))

    assert isinstance(result, TransportFailure)


@given(st.binary(max_size=300), st.integers(0, len(WHOLE)), st.sampled_from(list(SENDERS.values())))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_bytes_make_a_transport_raise(noise: bytes, at: int, send: Sender) -> None:
    """Noise anywhere in an answer comes back as an answer or a failure, and is never accepted (S23)."""
    with RawServer(say(WHOLE[:at] + noise + WHOLE[at:])) as server:
        result = send(get(server.url))

    assert not isinstance(classify(result), Accepted)


@BOTH
def test_a_closed_port_is_named(send: Sender) -> None:
    """A refused connection is said to be one (F01)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    assert TransportFailure("connection refused") == send(get(f"http://127.0.0.1:{port}/"))


@BOTH
def test_an_unknown_host_is_named(send: Sender) -> None:
    """A name that does not resolve is said to be one (F01)."""
    assert TransportFailure("the host name does not resolve") == send(get("http://no-such-host.invalid/"))


@BOTH
@pytest.mark.parametrize(
    "url",
    [
        "http://h\x00st/",
        "http://[::1",
        "http:///path",
        "ftp://127.0.0.1/",
        "http://127.0.0.1:1:2/",
        "http://a..b/",
        f"http://{'a' * 64}.invalid/",
        "",
    ],
)
def test_an_impossible_url_is_a_failure(send: Sender, url: str) -> None:
    """Whatever the URL, nothing is raised at the caller."""
    assert isinstance(send(get(url)), TransportFailure)


def test_a_failure_says_nothing_of_the_request() -> None:
    """Neither body, header nor URL of a request that failed is in what is logged of it (S14)."""
    request = HttpRequest("POST", "http://127.0.0.1:9/secret-path", {"PF-API-KEY": "secret-header"}, b"secret-body")

    assert "secret" not in repr(by_requests(request))
    assert "secret-header" not in repr(request)
    assert "secret-body" not in repr(request)


@pytest.fixture
def authority(tmp_path: Path) -> tuple[trustme.CA, str]:
    """Return an authority of our own and the file that trusts it."""
    authority = trustme.CA()
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return authority, str(file)


def tls(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """Return a server's context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@BOTH
def test_a_trusted_certificate_is_accepted(send: Sender, authority: tuple[trustme.CA, str]) -> None:
    """With its authority trusted the server is reached (F10)."""
    issuer, file = authority
    with RawServer(answer(), context=tls(issuer.issue_cert("localhost")), host="localhost") as server:
        result = send(get(server.url), ca_file=file)

    assert isinstance(result, Answer)


@BOTH
@pytest.mark.parametrize("wrong", ["unknown authority", "wrong host", "expired"])
def test_a_wrong_certificate_is_refused_before_a_byte_is_sent(
    send: Sender, wrong: str, authority: tuple[trustme.CA, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request reaches a server that does not prove its name, whatever authorities the environment names (F10)."""
    issuer, file = authority
    past = datetime.now(UTC) - timedelta(days=1)
    leaf = issuer.issue_cert(
        "elsewhere.example" if wrong == "wrong host" else "localhost", not_after=past if wrong == "expired" else None
    )
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, file)
    with RawServer(answer(), context=tls(leaf), host="localhost") as server:
        requests = [get(server.url), post(server.url)] if send is by_requests else [get(server.url)]
        results = {send(request, ca_file=None if wrong == "unknown authority" else file) for request in requests}

    assert {TransportFailure(CERTIFICATE_REFUSED)} == results
    assert server.requests == []


@BOTH
def test_a_server_without_tls_is_no_certificate_problem(send: Sender) -> None:
    """Plain HTTP on an https address is a failure of another kind."""
    with RawServer(answer(), greeting=b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        result = send(get(server.url.replace("http:", "https:")))

    assert isinstance(result, TransportFailure)
    assert result.kind != CERTIFICATE_REFUSED


def test_a_bad_record_after_delivery_is_no_certificate_problem(authority: tuple[trustme.CA, str]) -> None:
    """TLS that breaks after the body was delivered is told apart from a refused certificate (F10)."""
    issuer, file = authority

    def garble(connection: socket.socket) -> bool:
        with socket.socket(fileno=os.dup(connection.fileno())) as raw, contextlib.suppress(OSError):
            raw.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        return False

    with RawServer(garble, context=tls(issuer.issue_cert("localhost")), host="localhost") as server:
        result = by_requests(post(server.url, b"signed"), ca_file=file)

    assert TransportFailure("TLS failed") == result
    assert server.requests[0].endswith(b"signed")


@BOTH
def test_a_drip_over_tls_ends_with_the_deadline(send: Sender, authority: tuple[trustme.CA, str]) -> None:
    """The deadline cuts an encrypted connection as well, and nothing of what was read is taken for an answer (F08)."""
    issuer, file = authority
    closed = threading.Event()
    script = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", every_s=0.05, closed=closed)
    with RawServer(script, context=tls(issuer.issue_cert("localhost")), host="localhost") as server:
        began = time.monotonic()
        result = send(get(server.url), ca_file=file, timeout_s=0.5)
        took_s = time.monotonic() - began

        assert closed.wait(PATIENCE_S)
    assert result == TransportFailure("deadline passed")
    assert took_s < PATIENCE_S / 4


def test_a_connection_made_too_late_carries_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where resolving the name takes all the time there is, nothing is sent any more (F01)."""
    resolve = socket.getaddrinfo

    def slowly(*arguments: Any, **more: Any) -> Any:
        time.sleep(0.4)
        return resolve(*arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    with RawServer(answer()) as server:
        result = by_requests(post(server.url), timeout_s=0.2)

    assert result == TransportFailure("deadline passed")
    assert server.requests == []
