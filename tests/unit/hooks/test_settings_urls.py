"""The base URL of environment custom: a corpus of what looks like one (S12, S13)."""

from __future__ import annotations

import pytest

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.hooks.settings import ConnectionSettings

ACCOUNT = "FVen3X669xLzsi6N2V91DoiyzHzg1uAgqiT8jZ9nS96Z"
KEYED = "user:s3cretpassw0rd@"


def custom(host: str | None) -> ConnectionSettings:
    """Return the settings of a custom connection."""
    return ConnectionSettings.parse(login=ACCOUNT, host=host, port=None, schema=None, extra={"environment": "custom"})


@pytest.mark.parametrize(
    ("host", "base_url", "ws_url"),
    [
        ("https://exchange.example", "https://exchange.example/api/v1", "wss://exchange.example/ws"),
        ("https://exchange.example/", "https://exchange.example/api/v1", "wss://exchange.example/ws"),
        ("https://exchange.example/api/v1", "https://exchange.example/api/v1", "wss://exchange.example/ws"),
        ("https://exchange.example/api/v1/", "https://exchange.example/api/v1", "wss://exchange.example/ws"),
        ("https://exchange.example:8443/x", "https://exchange.example:8443/x", "wss://exchange.example:8443/ws"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/api/v1", "ws://127.0.0.1:8000/ws"),
        ("http://127.255.0.1:8000", "http://127.255.0.1:8000/api/v1", "ws://127.255.0.1:8000/ws"),
        ("http://localhost:8000", "http://localhost:8000/api/v1", "ws://localhost:8000/ws"),
        ("http://LOCALHOST:8000", "http://LOCALHOST:8000/api/v1", "ws://LOCALHOST:8000/ws"),
        ("http://[::1]:8000", "http://[::1]:8000/api/v1", "ws://[::1]:8000/ws"),
    ],
)
def test_a_whole_url_is_taken(host: str, base_url: str, ws_url: str) -> None:
    """Https anywhere, http on loopback, with the documented path where none is given."""
    read = custom(host)

    assert (base_url, ws_url) == (read.base_url, read.ws_url)


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "exchange.example",
        "exchange.example:8000",
        "//exchange.example",
        "/api/v1",
        "https:",
        "https:/exchange.example",
        "https:///api/v1",
        "ftp://exchange.example",
        "file:///etc/passwd",
        "gopher://127.0.0.1:70/",
        "javascript:alert(1)",
        "http://exchange.example",
        "http://api.pacifica.fi",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://evil.example#127.0.0.1",
        "http://evil.example/127.0.0.1",
        "http://0.0.0.0:8000",
        "http://10.0.0.1",
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]",
        "http://[::]",
        "http://2130706433",
        "http://0x7f000001",
        "http://0177.0.0.1",
        "http://127.1",
        "http://loc\u0430lhost",
        "https://\u0430pi.pacifica.fi",
        "https://exchange.example\uff0fapi",
        f"https://{KEYED}exchange.example",
        f"http://{KEYED}127.0.0.1",
        "https://user@exchange.example",
        "https://@exchange.example",
        "https://:@exchange.example",
        "https://api.pacifica.fi@evil.example",
        "https://api.pacifica.fi\\@evil.example",
        "https://api.pacifica.fi\\.evil.example",
        "https://exchange.example?x=1",
        "https://exchange.example/?",
        "https://exchange.example#x",
        "https://exchange.example#",
        "https://exchange.example:99999",
        "https://exchange.example:port",
        "https://exchange.example:-1",
        "https://[::1",
        "https://::1]",
        "https://ex change.example",
        "https://exchange.example/a b",
        " https://exchange.example",
        "https://exchange.example\n",
        "https://exchange.example/\r\nX-Injected: 1",
        "https://exchange\t.example",
        "https://exchange\x00.example",
        "https://exchange.example/\x1b[31m",
        "https://exchange.example/\x7f",
        "https://a..b",
        "https://.example",
        f"https://{'a' * 64}.example",
    ],
)
def test_anything_else_is_refused_without_an_echo(host: str | None) -> None:
    """No other scheme, no credentials, no query, nothing that another parser could read otherwise (S12, S13)."""
    with pytest.raises(ConfigurationError, match=r"Pacifica connection cannot be used: .*Nothing was sent") as caught:
        custom(host)

    assert "s3cretpassw0rd" not in str(caught.value)
    assert not host or host == "https:" or host not in str(caught.value)
