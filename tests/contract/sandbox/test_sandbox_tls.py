"""The same over TLS."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import ssl
from typing import TYPE_CHECKING

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.sync.client import connect

from pacifica_provider.sandbox import Sandbox
from tests.contract.sandbox.wallet import Wallet
from tests.support.patience import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a self-signed certificate for localhost, and its key."""
    folder, key = tmp_path_factory.mktemp("tls"), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    signed = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(
        key, hashes.SHA256()
    )
    certfile, keyfile = folder / "cert.pem", folder / "key.pem"
    certfile.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    keyfile.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certfile, keyfile


@pytest.fixture
def secure(certificate: tuple[Path, Path]) -> Iterator[Wallet]:
    """Yield a wallet that trusts the sandbox's certificate."""
    certfile, keyfile = certificate
    with Sandbox(ssl_certfile=certfile, ssl_keyfile=keyfile) as sandbox:
        wallet = Wallet(sandbox)
        wallet.session.verify = str(certfile)
        with wallet.session:
            yield wallet


def test_https(secure: Wallet) -> None:
    """The addresses are https and wss on localhost, and control works whatever the certificate."""
    assert secure.base_url.startswith("https://localhost:")
    assert secure.post().status_code == 200
    assert len(secure.debits()) == 1


def test_untrusted(secure: Wallet) -> None:
    """A client that does not trust the certificate gets nowhere."""
    secure.session.verify = True

    with pytest.raises(requests.exceptions.SSLError):
        secure.post()
    assert secure.posts() == []


@pytest.mark.parametrize("kind", ["reset", "close", "truncate"])
def test_faults(secure: Wallet, kind: str) -> None:
    """Faults break TLS connections just as well."""
    secure.fault(kind, when="after_commit", **({"bytes": 5} if kind == "truncate" else {}))

    with pytest.raises(requests.RequestException):
        secure.post()
    assert len(secure.debits()) == 1


def test_stopping_with_an_idle_connection(secure: Wallet) -> None:
    """A client that keeps its encrypted connection open does not keep the sandbox from stopping."""
    secure.get("/account")
    secure.sandbox.stop()


@pytest.mark.parametrize("broken", ["missing", "empty"])
def test_bad_certificate(tmp_path: Path, broken: str) -> None:
    """A certificate that cannot be used is an error at the start."""
    if broken == "empty":
        (tmp_path / "cert.pem").touch()

    with pytest.raises(OSError, match=r"PEM|No such file"):  # ssl.SSLError is one
        Sandbox(ssl_certfile=tmp_path / "cert.pem", ssl_keyfile=tmp_path / "cert.pem").start()


def test_websocket(secure: Wallet, certificate: tuple[Path, Path]) -> None:
    """The WebSocket is encrypted too."""
    context = ssl.create_default_context(cafile=certificate[0])

    with connect(secure.sandbox.ws_url, ssl=context, proxy=None) as socket:
        socket.send('{"method":"ping"}')
        assert json.loads(socket.recv(timeout=PATIENCE_S)) == {"channel": "pong"}
