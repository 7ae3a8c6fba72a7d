"""Answers that cannot be trusted, and ways that must not be taken: F09 to F14."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from pacifica_provider.exceptions import ConfigurationError, Unreachable
from pacifica_provider.sandbox import Sandbox
from tests.faults.checks import assert_paid_once, nonces, refused, statuses
from tests.faults.wiretap import Wiretap, unused_port
from tests.support.harness import ProtocolHarness
from tests.support.patience import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MOMENTS = ["before_commit", "after_commit"]
GARBAGE = b"\x17\x03\x03\x00\x20" + b"\xa5" * 32  # a TLS record that was encrypted with no key of this connection


@pytest.mark.parametrize("when", MOMENTS)
def test_a_huge_answer_is_read_no_further_than_the_bound(harness: ProtocolHarness, when: str) -> None:
    """F09: an answer of a gigabyte is given up on at the bound, proves nothing, and ends in one debit."""
    harness.fault("huge", when=when, bytes=1 << 30)
    began = time.monotonic()

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=when == "after_commit")

    assert time.monotonic() - began < PATIENCE_S
    assert any("too large" in line for line in harness.logs)


ALIEN_BODIES = [
    pytest.param("[" * 100_000, id="F09-deep-json"),
    pytest.param('{"a":' * 50_000, id="F09-deep-object"),
    pytest.param("<html>sign in to the hotel</html>", id="F13-html-as-text"),
    pytest.param("", id="empty"),
    pytest.param("true", id="not-an-object"),
    pytest.param('{"success": true, "data": null}', id="no-receipt"),
    pytest.param('{"success": false, "data": {"batch_nonce": 7}}', id="no-success"),
    pytest.param('{"success": true, "data": {"symbol": "SOL", "batch_nonce": NaN}}', id="nan"),
]


@pytest.mark.parametrize("when", MOMENTS)
@pytest.mark.parametrize("body", ALIEN_BODIES)
def test_a_200_that_is_no_receipt_is_no_success(harness: ProtocolHarness, body: str, when: str) -> None:
    """F09, F13: whatever a 200 says instead of a receipt, it is waited out, and the ledger decides."""
    harness.fault("status", when=when, status=200, body=body)

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=when == "after_commit")


@pytest.mark.parametrize("when", MOMENTS)
def test_a_captive_portal_is_no_success(harness: ProtocolHarness, when: str) -> None:
    """F13: a 200 with HTML from a portal or a CDN is unknown, before the commit and after it."""
    harness.fault("html", when=when)

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=when == "after_commit")


def test_a_portal_at_the_look_sends_nothing(harness: ProtocolHarness) -> None:
    """F13: HTML in place of the pending list stops the try before the POST."""
    harness.fault("html", route="pending", count=3)

    error = refused(harness, Unreachable)

    assert "web page" in str(error)
    assert harness.posts() == []


@pytest.mark.parametrize("when", MOMENTS)
@pytest.mark.parametrize(
    "echo", [{"amount": "2"}, {"amount": "1.00000001"}, {"symbol": "BTC"}, {"fee_amount": "1.1"}, {"batch_nonce": -1}]
)
def test_a_receipt_of_another_order_is_not_trusted(
    harness: ProtocolHarness, echo: dict[str, object], when: str
) -> None:
    """F14: a 200 that echoes another order, or an impossible fee, is maybe sent, and its nonce is not used."""
    harness.fault("echo", when=when, **echo)  # type: ignore[arg-type]  # the keys are literal above

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=when == "after_commit")


@pytest.mark.parametrize("amount", ["1", "1.0", "1.000000000000000000", "01"])
def test_an_echo_that_writes_the_amount_otherwise_is_the_same_order(harness: ProtocolHarness, amount: str) -> None:
    """F14: amounts are compared as decimals, so `1` equals `1.00000000`."""
    harness.fault("echo", when="after_commit", amount=amount)

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=False)

    assert statuses(harness) == [200]


@pytest.mark.parametrize("when", MOMENTS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirected_post_is_not_followed(harness: ProtocolHarness, status: int, when: str) -> None:
    """F11, I6: the signed body goes to no second host; the redirect is unknown, and the ledger decides."""
    with Sandbox(seed=7) as elsewhere:  # the same account: it would accept what it is sent
        target = f"{elsewhere.base_url}/account/spot_asset/withdraw"
        harness.fault("redirect", when=when, status=status, location=target)
        receipt = harness.try_once()
        assert_paid_once(harness, receipt, adopted=when == "after_commit")
        seen = elsewhere.control("GET", "/ledger")

    assert seen == {"debits": [], "posts": [], "requests": {}}


def test_a_redirected_look_is_not_followed(harness: ProtocolHarness) -> None:
    """F11: a redirect of the pending list sends nothing and reads nothing elsewhere."""
    with Sandbox(seed=7) as elsewhere:
        harness.fault("redirect", route="pending", count=3, location=f"{elsewhere.base_url}/account")
        error = refused(harness, Unreachable)
        seen = elsewhere.control("GET", "/ledger")

    assert "HTTP 307" in str(error)
    assert (seen["requests"], harness.posts()) == ({}, [])


def test_proxies_and_netrc_of_the_environment_are_ignored(
    harness: ProtocolHarness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """F12: neither proxy variables nor a .netrc have a say in where a request goes or what it carries."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login eve password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_port()}")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    with Wiretap(harness.sandbox.base_url) as tap:
        harness.base_url = tap.base_url
        receipt = harness.try_once()
        assert_paid_once(harness, receipt, adopted=False)
        heads = [bytes(sent).partition(b"\r\n\r\n")[0].lower() for sent in tap.connections]

    assert [b"authorization" in head for head in heads] == [False] * len(heads)
    assert all(head.split()[1].startswith(b"/api/v1/") for head in heads)  # to an origin, not to a proxy


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Return the authority that the rigs trust."""
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path) -> Iterator[Callable[..., ProtocolHarness]]:
    """Yield a maker of rigs whose sandbox speaks TLS with a certificate of one's choice."""
    running: list[Sandbox] = []

    def make(*, issuer: trustme.CA = authority, host: str = "localhost", expired: bool = False) -> ProtocolHarness:
        past = dt.datetime(2020, 1, 2, tzinfo=dt.UTC)
        dates: dict[str, Any] = {"not_before": past, "not_after": past + dt.timedelta(days=1)} if expired else {}
        leaf = issuer.issue_cert(host, **dates)
        where = tmp_path / str(len(running))
        where.mkdir()
        leaf.private_key_pem.write_to_path(str(where / "key.pem"))
        leaf.cert_chain_pems[0].write_to_path(str(where / "cert.pem"))
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        sandbox = Sandbox(seed=7, ssl_certfile=where / "cert.pem", ssl_keyfile=where / "key.pem").start()
        running.append(sandbox)
        return ProtocolHarness(sandbox, ca_file=str(tmp_path / "ca.pem"))

    yield make
    for sandbox in running:
        sandbox.stop()


def test_a_valid_certificate_is_trusted(tls: Callable[..., ProtocolHarness]) -> None:
    """F10: over TLS with a certificate of a trusted authority the withdrawal is made."""
    harness = tls()

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=False)

    assert harness.base_url.startswith("https://")


@pytest.mark.parametrize(
    "certificate",
    [{"issuer": trustme.CA()}, {"host": "exchange.invalid"}, {"expired": True}],
    ids=["unknown-authority", "wrong-host", "expired"],
)
def test_a_bad_certificate_at_the_look_sends_nothing(
    tls: Callable[..., ProtocolHarness], certificate: dict[str, object]
) -> None:
    """F10: a certificate that does not verify is a ConfigurationError at the look; verification is never dropped."""
    harness = tls(**certificate)

    error = refused(harness, ConfigurationError, "certificate is not valid")

    assert "cannot be reached safely" in str(error)
    assert (harness.posts(), harness.ledger()["requests"]) == ([], {})


def test_a_bad_certificate_at_the_post_proves_nothing(tls: Callable[..., ProtocolHarness]) -> None:
    """F10: the class of the POST's failure is no proof that nothing was sent, so it is waited out like any other."""
    harness, stranger = tls(), tls(issuer=trustme.CA())
    with Wiretap(harness.base_url) as tap, Wiretap(stranger.base_url) as other:
        harness.base_url = tap.base_url
        tap.route = lambda number: other.upstream if number == 2 else tap.upstream
        receipt = harness.try_once()
        assert_paid_once(harness, receipt, adopted=False)

    assert any("certificate is not valid" in line for line in harness.logs)
    assert [attempt["outcome"] for attempt in harness.store.record()["attempts"]] == ["unanswered", "answered"]
    assert stranger.ledger()["debits"] == []


def test_a_bad_record_after_the_body_was_delivered_is_adopted(tls: Callable[..., ProtocolHarness]) -> None:
    """F10: a damaged TLS record after the commit looks like a failed handshake, and still pays once."""
    harness = tls()
    with Wiretap(harness.base_url) as tap:
        harness.base_url = tap.base_url
        damaged: list[int] = []

        def alter(data: bytes) -> bytes:
            if damaged or not nonces(harness):
                return data
            damaged.append(len(data))
            return GARBAGE

        tap.alter = alter
        receipt = harness.try_once()
        assert_paid_once(harness, receipt, adopted=True)

    assert len(damaged) == 1
    assert any("TLS failed" in line for line in harness.logs)
