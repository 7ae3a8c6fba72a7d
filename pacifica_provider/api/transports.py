"""
One HTTP exchange, twice: ``requests`` for workers, ``httpx`` for the triggerer's event loop.

Both have defaults that cannot hurt: no redirects, no environment proxies or ``.netrc``, no transport retries, a
deadline for the whole request, a bounded body. Neither raises for anything the network does: it comes back as a
``TransportFailure`` whose kind is for logs and never proves that nothing was delivered.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pacifica_provider import __version__
from pacifica_provider.api.outcomes import Answer, TransportFailure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType
    from typing import Self

    import httpx
    import requests

MAX_BODY_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """
    A request ready to send. Its ``repr`` shows the method alone.

    Body and headers hold a signature and a key, and the address of a Solana RPC may hold a token.
    """

    method: Literal["GET", "POST"]
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)


class AsyncTransport(Protocol):
    """The same in an event loop."""

    async def __call__(self, request: HttpRequest, /) -> Answer | TransportFailure:
        """Send once; the network raises nothing."""
        ...


class Transport(Protocol):
    """Sends one request and returns the whole answer, or why there is none."""

    def __call__(self, request: HttpRequest, /) -> Answer | TransportFailure:
        """Send it, once."""
        ...


def base_headers() -> dict[str, str]:
    """Return the headers that every request carries: plain bodies only, and no answer out of a cache."""
    return {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Cache-Control": "no-cache",
        "User-Agent": f"airflow-provider-pacifica/{__version__}",
    }


class RequestsTransport:
    """
    The workers' transport: a new connection for every request, closed after it.

    A kept-alive connection that the peer closes as we write leaves a POST in doubt; a new one cannot.

    :param timeout_s: deadline of the whole request, connecting and reading the body included.
    :param ca_file: trust this file's authorities instead of certifi's; verification itself cannot be turned off.
    """

    def __init__(self, *, timeout_s: float, ca_file: str | None = None) -> None:
        self._timeout_s = timeout_s
        self._verify: bool | str = ca_file or True

    def __call__(self, request: HttpRequest, /) -> Answer | TransportFailure:
        """Send the request once and return the whole answer or the failure."""
        import requests
        from urllib3.exceptions import HTTPError

        deadline = _Deadline(self._timeout_s)
        try:
            with deadline, requests.Session() as session:
                session.trust_env = False
                session.headers.clear()
                # Even a redirect that is not followed is resolved by requests: its body read whole, its address parsed.
                session.get_redirect_target = _nowhere  # type: ignore[method-assign]  # the way requests offers
                session.mount("https://", _adapter(deadline))
                session.mount("http://", _adapter(deadline))
                response = session.request(
                    request.method,
                    request.url,
                    headers={**request.headers, "Connection": "close"},
                    data=request.body,
                    timeout=self._timeout_s,
                    allow_redirects=False,
                    verify=self._verify,
                    stream=True,
                )
                result = _bounded(response)
        except (requests.RequestException, HTTPError, OSError) as error:
            result = TransportFailure(_kind(error))
        except BaseException as error:  # noqa: BLE001 - Airflow's time limit, on its way up
            # The frames below hold the signed body, and error reporters print locals.
            raise error.with_traceback(None) from None
        if deadline.passed and isinstance(result, TransportFailure):
            return TransportFailure("deadline passed")
        return result


def _nowhere(resp: requests.Response) -> None:
    """Say that an answer redirects nowhere."""


class _Deadline:
    """
    Cuts the request's socket once the time is up.

    ``requests`` limits each read, so a server that drips one byte a second would hold a task for ever.
    """

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._connections: list[Any] = []
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def watch(self, connection: Any) -> None:
        """Take charge of a connection that has just been made; refuse it if the time is already up."""
        self._connections.append(connection)
        if self.passed:
            raise TimeoutError("the deadline passed while connecting")

    def _cut(self) -> None:
        self.passed = True
        for connection in self._connections:
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)
            except (OSError, AttributeError):  # closed in this very moment
                continue


def _adapter(deadline: _Deadline) -> requests.adapters.HTTPAdapter:
    """Build an adapter whose connections the deadline can cut."""
    from requests.adapters import HTTPAdapter
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    def watched(pool: Any) -> Any:
        def connect(self: Any) -> None:
            pool.ConnectionCls.connect(self)
            deadline.watch(self)

        connection_class = type("WatchedConnection", (pool.ConnectionCls,), {"connect": connect})
        return type("WatchedPool", (pool,), {"ConnectionCls": connection_class})

    adapter = HTTPAdapter(max_retries=0)
    adapter.poolmanager.pool_classes_by_scheme = {
        "http": watched(HTTPConnectionPool),
        "https": watched(HTTPSConnectionPool),
    }
    return adapter


def _bounded(response: requests.Response) -> Answer | TransportFailure:
    body = bytearray()
    while chunk := response.raw.read(_CHUNK_BYTES, decode_content=False):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return TransportFailure("the body is too large")
    headers = {name.lower(): value for name, value in response.headers.items()}
    return _whole(response.status_code, headers, bytes(body))


def _whole(status: int, headers: dict[str, str], body: bytes) -> Answer | TransportFailure:
    """
    Refuse a body shorter or longer than announced, whatever the library thinks of it.

    An answer that announces nothing ends where the connection does, and http.client takes headers cut off in the
    middle for all there are: it cannot be told from a truncated one.
    """
    announced = headers.get("content-length")
    if announced is None and headers.get("transfer-encoding", "").lower() != "chunked":
        return TransportFailure("the answer does not say where it ends")
    if announced is not None and announced != str(len(body)):
        return TransportFailure("the body is truncated")
    return Answer(status, headers, body)


def _kind(error: BaseException) -> str:
    """Name a failure in a few words, without the message of the error: that may quote what it was sending."""
    chain = list(_causes(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in chain):
        return CERTIFICATE_REFUSED
    if any(isinstance(cause, ssl.SSLError) for cause in chain):
        return "TLS failed"
    for kind, words in (
        (socket.gaierror, "the host name does not resolve"),
        (ConnectionRefusedError, "connection refused"),
        (ConnectionResetError, "connection reset"),
        (TimeoutError, "timed out"),
    ):
        if any(isinstance(cause, kind) for cause in chain):
            return words
    return f"connection failed ({type(error).__name__})"


CERTIFICATE_REFUSED = "the server's certificate is not valid"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and everything under it; urllib3 keeps causes in ``reason`` and ``args`` as well."""
    seen: set[int] = set()
    queue: list[object] = [error]
    while queue:
        item = queue.pop()
        if isinstance(item, BaseException) and id(item) not in seen:
            seen.add(id(item))
            yield item
            queue += [item.__cause__, item.__context__, getattr(item, "reason", None), *item.args]


class HttpxTransport:
    """
    The triggerer's transport: connections are kept and reused. Use it as an async context manager.

    It sends nothing but GETs, and POSTs to the one address that it is made for: an exchange gets none.

    :param timeout_s: deadline of the whole request.
    :param ca_file: as for ``RequestsTransport``.
    :param posts_to: the address of a Solana RPC, whose questions are POSTs.
    """

    def __init__(self, *, timeout_s: float, ca_file: str | None = None, posts_to: str | None = None) -> None:
        import httpx

        self._timeout_s = timeout_s
        self._posts_to = posts_to
        verify = ssl.create_default_context(cafile=ca_file) if ca_file else True
        self._client = httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=timeout_s, verify=verify)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections that were kept."""
        await self._client.aclose()

    async def __call__(self, request: HttpRequest, /) -> Answer | TransportFailure:
        """Send the request once and return the whole answer or the failure."""
        import httpx

        if request.method != "GET" and request.url != self._posts_to:
            raise ValueError("the triggerer sends nothing but GETs to an exchange")
        try:
            return await asyncio.wait_for(self._sent(request), self._timeout_s)
        except TimeoutError:
            return TransportFailure("deadline passed")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return TransportFailure(_kind(error))

    async def _sent(self, request: HttpRequest) -> Answer | TransportFailure:
        import httpx

        url, extensions = httpx.URL(request.url), {}
        if request.method == "POST":  # httpx logs each address: path and query, which may hold a token, travel apart
            url, extensions = url.copy_with(raw_path=b"/"), {"target": url.raw_path}
        headers = dict(request.headers)
        sending = self._client.stream(request.method, url, content=request.body, headers=headers, extensions=extensions)
        async with sending as response:
            return await _bounded_async(response)


async def _bounded_async(response: httpx.Response) -> Answer | TransportFailure:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return TransportFailure("the body is too large")
    return _whole(response.status_code, dict(response.headers.items()), bytes(body))
