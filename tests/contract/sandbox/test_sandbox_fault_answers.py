"""Faults that change the answer: anything from another status to a gigabyte."""

from __future__ import annotations

import json
import socket

import pytest

from tests.contract.sandbox.wallet import Wallet, head_of, new_key
from tests.support.patience import PATIENCE_S

BOTH = pytest.mark.parametrize(("when", "debits"), [("before_commit", 0), ("after_commit", 1)])


@BOTH
@pytest.mark.parametrize("status", [200, 204, 299, 401, 403, 418, 429, 500, 502, 503, 504, 599])
def test_status(wallet: Wallet, when: str, debits: int, status: int) -> None:
    """`status` answers with any status, in the envelope."""
    wallet.fault("status", when=when, status=status, headers={"Retry-After": "2"})

    response = wallet.post()

    assert (response.status_code, response.headers["retry-after"], len(wallet.debits())) == (status, "2", debits)
    assert response.text == "" if status == 204 else response.json()["code"] == status


@pytest.mark.parametrize(
    ("body", "text"), [("Bad gateway", "Bad gateway"), ({"success": True}, '{"success":true}'), ([], "[]")]
)
def test_status_with_a_body(wallet: Wallet, body: object, text: str) -> None:
    """The body can be given as text, or as JSON."""
    wallet.fault("status", status=502, body=body)

    assert wallet.post().text == text


def test_status_can_set_the_date(wallet: Wallet) -> None:
    """A header of the fault wins over the sandbox's own."""
    wallet.fault("status", status=503, headers={"Date": "Thu, 01 Jan 1970 00:00:00 GMT"})

    assert wallet.post().headers["date"] == "Thu, 01 Jan 1970 00:00:00 GMT"


@BOTH
def test_html(wallet: Wallet, when: str, debits: int) -> None:
    """`html` is a captive portal: 200, and no JSON."""
    wallet.fault("html", when=when)

    response = wallet.post()

    assert (response.status_code, response.headers["content-type"]) == (200, "text/html")
    assert "<html>" in response.text
    assert len(wallet.debits()) == debits


@BOTH
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect(wallet: Wallet, when: str, debits: int, status: int) -> None:
    """`redirect` points the client somewhere else."""
    wallet.fault("redirect", when=when, status=status, location="http://127.0.0.1:9/elsewhere")

    response = wallet.post()

    assert (response.status_code, response.headers["location"]) == (status, "http://127.0.0.1:9/elsewhere")
    assert len(wallet.debits()) == debits


@BOTH
def test_duplicate_in_progress(wallet: Wallet, when: str, debits: int) -> None:
    """`duplicate_in_progress` answers 409 to a key that nobody has used."""
    wallet.fault("duplicate_in_progress", when=when)

    assert (wallet.post(key=new_key()).status_code, len(wallet.debits())) == (409, debits)


@BOTH
def test_echo(wallet: Wallet, when: str, debits: int) -> None:
    """`echo` answers 200 with a receipt for something else."""
    wallet.fault("echo", when=when, symbol="BTC", amount="9")

    data = wallet.post(amount="1").json()["data"]

    assert (data["symbol"], data["requested_amount"]) == ("BTC", "9")
    assert [debit["amount"] for debit in wallet.debits()] == ["1.00000000"] * debits


def test_echo_of_a_nonce(wallet: Wallet) -> None:
    """Any value can be put in place of the nonce."""
    wallet.fault("echo", when="after_commit", batch_nonce=None)

    assert wallet.post().json()["data"]["batch_nonce"] is None


def test_echo_of_a_refusal(wallet: Wallet) -> None:
    """A refusal has nothing to echo, and stays what it is; nor has a body that is no order."""
    for when, body, status in (("after_commit", wallet.order(amount="9000000"), 422), ("before_commit", b"[", 400)):
        wallet.fault("echo", when=when, symbol="BTC")

        assert wallet.post(body).status_code == status


def test_huge(wallet: Wallet) -> None:
    """`huge` pads the true answer, valid JSON, to any size."""
    wallet.fault("huge", when="after_commit", bytes=3_000_000)

    response = wallet.post()

    assert (len(response.content), response.json()["data"]["batch_nonce"]) == (3_000_000, 42)


@pytest.mark.parametrize("shape", ["text", "empty"])
def test_huge_of_no_json(wallet: Wallet, shape: str) -> None:
    """An answer that is no JSON object becomes one."""
    wallet.options(duplicate_body=shape)
    key = new_key()
    wallet.post(key=key)
    wallet.fault("huge", when="after_commit", bytes=100)

    assert len(wallet.post(key=key).json()["padding"]) > 50


def test_huge_need_not_be_read(wallet: Wallet) -> None:
    """A client may leave in the middle of a gigabyte, which was never in memory."""
    wallet.fault("huge", when="after_commit", bytes=10**9)
    with socket.create_connection(wallet.netloc, timeout=PATIENCE_S) as sock:
        content = json.dumps(wallet.order()).encode()
        sock.sendall(head_of(content) + content)
        assert b"1000000000" in sock.recv(1000)

    assert wallet.post().status_code == 200


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
def test_no_date(wallet: Wallet, when: str) -> None:
    """`no_date` leaves out the Date header, and nothing else is different."""
    wallet.fault("no_date", when=when)

    response = wallet.post()

    assert ("date" in response.headers, response.status_code, len(wallet.debits())) == (False, 200, 1)
