"""Faults of the network: F01 to F08; F09 to F14, answers that cannot be trusted, are in ``test_network_trust.py``."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest

from pacifica_provider.exceptions import Unreachable
from tests.faults.checks import assert_paid_once, assert_unknown, nonces, refused, statuses
from tests.faults.wiretap import Wiretap, unused_port

if TYPE_CHECKING:
    from tests.support.harness import ProtocolHarness

WINDOW_S = 10


def test_a_closed_port_sends_nothing_and_a_later_try_pays(harness: ProtocolHarness) -> None:
    """F01: connection refused at the look is Unreachable, and the next try, with the port open, pays."""
    port = unused_port()
    harness.base_url = f"http://127.0.0.1:{port}/api/v1"

    error = refused(harness, Unreachable)
    with Wiretap(harness.sandbox.base_url, port=port):
        receipt = harness.try_once()
        assert_paid_once(harness, receipt, adopted=False)

    assert "connection refused" in str(error)
    assert statuses(harness) == [200]


def test_a_name_that_does_not_resolve_sends_nothing(harness: ProtocolHarness) -> None:
    """F01: a DNS failure at the look is Unreachable, and says so."""
    harness.base_url = "http://exchange.invalid/api/v1"

    error = refused(harness, Unreachable)

    assert "does not resolve" in str(error)
    assert harness.posts() == []


def test_a_connect_timeout_sends_nothing(harness: ProtocolHarness) -> None:
    """F01: a host that accepts no connection is given up on at the deadline, and nothing was sent."""
    harness.timeout_s = 0.2
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (first, second):  # a full backlog: the kernel drops every further SYN
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        harness.base_url = f"http://127.0.0.1:{full.getsockname()[1]}/api/v1"
        error = refused(harness, Unreachable)

    assert "timed out" in str(error) or "deadline passed" in str(error)
    assert harness.posts() == []


def test_a_reset_anywhere_in_the_request_is_posted_again_after_the_window(harness: ProtocolHarness) -> None:
    """F02: whatever part of the request had arrived at the RST, one try waits out the window and pays once."""
    with Wiretap(harness.sandbox.base_url) as tap:
        harness.sibling(run_id="length", base_url=tap.base_url).try_once()
        length = len(tap.posts[0].partition(b"\r\n\r\n")[2])
    offsets = [*range(0, length, 12), length]
    for offset in offsets:
        one = harness.sibling(run_id=f"manual__{offset}")
        one.fault("reset_request", bytes=offset)
        slept_s = harness.clock.slept_s
        receipt = one.try_once()
        assert_paid_once(one, receipt, adopted=False)

        assert WINDOW_S < harness.clock.slept_s - slept_s < WINDOW_S + 3
        assert statuses(one) == [200]  # the exchange never saw the first whole

    assert len(offsets) > 30


def test_a_connection_cut_at_any_byte_of_the_request_pays_once(harness: ProtocolHarness) -> None:
    """F02: cut on the way at any byte of head or body, the request is waited out and posted again: one debit."""
    with Wiretap(harness.sandbox.base_url) as tap:
        harness.sibling(run_id="length", base_url=tap.base_url).try_once()
        length = len(tap.posts[0])
        for offset in range(1, length - 3, 24):  # a signature's base58 differs in length by a character or two
            one = harness.sibling(run_id=f"manual__{offset}", base_url=tap.base_url)
            cuts = tap.cuts
            tap.cut_post_at = offset
            receipt = one.try_once()
            assert_paid_once(one, receipt, adopted=False)

            assert (tap.cuts - cuts, statuses(one)) == (1, [200])


LOST_AFTER_THE_COMMIT = [
    pytest.param({"kind": "reset"}, id="F03-reset"),
    pytest.param({"kind": "close"}, id="F06-closed"),
    pytest.param({"kind": "hang", "seconds": 3600}, id="F05-read-timeout"),
    pytest.param({"kind": "drip", "seconds": 0.1}, id="F08-drip"),
]


@pytest.mark.parametrize("fault", LOST_AFTER_THE_COMMIT)
def test_an_answer_lost_after_the_commit_is_adopted(harness: ProtocolHarness, fault: dict[str, object]) -> None:
    """F03, F05, F06, F08: waited out, posted again, answered 409, and the first request's row is adopted."""
    harness.gives_up_s = 0.3
    harness.fault(when="after_commit", **fault)  # type: ignore[arg-type]  # the keys are literal above
    began = time.monotonic()

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=True)

    assert statuses(harness)[-1] == 409
    assert time.monotonic() - began < 15  # F08: a deadline for the whole request, not for each of 300 bytes


@pytest.mark.parametrize("fault", LOST_AFTER_THE_COMMIT)
def test_a_mapped_task_never_adopts_by_itself(harness: ProtocolHarness, fault: dict[str, object]) -> None:
    """F03, F05: an equal withdrawal may stand beside a mapped one, so it stops as unknown, its row one step away."""
    harness.adoption, harness.instance, harness.withdrawal_ref, harness.gives_up_s = "never", "0/None", "invoice-7", 0.3
    harness.fault(when="after_commit", **fault)  # type: ignore[arg-type]  # the keys are literal above

    error = assert_unknown(harness, rows=[42], because="another withdrawal of the same task may be equal", debits=1)
    harness.decide("adopt", batch_nonce=error.batch_nonces[0])
    receipt = harness.try_once()

    assert nonces(harness) == [receipt.batch_nonce]


@pytest.mark.parametrize("lands", [True, False], ids=["inside-the-window", "after-the-window"])
def test_a_request_held_on_the_way_lands_or_dies_before_the_next_is_sent(harness: ProtocolHarness, lands: bool) -> None:
    """F04, F30: no second request while the first one's signature lives, so the late one lands first or never."""
    answers = []
    with Wiretap(harness.sandbox.base_url) as tap:
        harness.base_url, harness.gives_up_s, tap.hold_posts = tap.base_url, 0.25, True

        def wait(seconds: float) -> None:
            if tap.hold_posts:
                tap.hold_posts = False
                harness.clock.sleep_s(WINDOW_S - 2 if lands else WINDOW_S + 1)
                answers.append(tap.replay(tap.posts[0]).split()[1])
            harness.clock.sleep_s(seconds)

        receipt = harness.try_once(wait)
        assert_paid_once(harness, receipt, adopted=lands)

    assert answers == [b"200" if lands else b"400"]
    assert statuses(harness) == ([200, 409] if lands else [400, 200])


@pytest.mark.parametrize("expiry_checked", ["commit", "arrival"])
def test_a_request_held_inside_the_exchange_pays_once(harness: ProtocolHarness, expiry_checked: str) -> None:
    """F04: held before its commit, with the window checked on arrival or at the commit, it is one debit either way."""
    harness.options(expiry_checked=expiry_checked)
    harness.gives_up_s = 0.3
    harness.fault("hang", seconds=2)

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=expiry_checked == "arrival")


def test_every_request_has_a_connection_of_its_own(harness: ProtocolHarness) -> None:
    """F06: no connection is used twice, so none can be stale when the POST is written."""
    with Wiretap(harness.sandbox.base_url) as tap:
        harness.base_url = tap.base_url
        harness.fault("close", when="before_commit")
        receipt = harness.try_once()
        assert_paid_once(harness, receipt, adopted=False)
        methods = [bytes(sent).split(b" ", 1)[0] for sent in tap.connections]
        lines = [bytes(sent).count(b" HTTP/1.1\r\n") for sent in tap.connections]
        keeps = [b"Connection: close" in sent for sent in tap.connections]

    assert methods.count(b"POST") == 2
    assert (set(lines), set(keeps)) == ({1}, {True})


def test_an_answer_cut_at_any_byte_is_no_success_and_is_adopted(harness: ProtocolHarness) -> None:
    """F07: cut at any byte of head or body, the answer proves nothing; the 409 that follows leads to its row."""
    with Wiretap(harness.sandbox.base_url) as tap:
        answers = bytearray()

        def keep(data: bytes) -> bytes:
            answers.extend(data)
            return data

        tap.alter = keep
        harness.sibling(run_id="length", base_url=tap.base_url).try_once()
    head, _, body = bytes(answers[answers.rindex(b"HTTP/1.1") :]).partition(b"\r\n\r\n")
    cuts = [("reset", size) for size in range(0, len(head), 15)] + [("truncate", size) for size in range(len(body))]
    for kind, size in cuts:
        one = harness.sibling(run_id=f"{kind}__{size}")
        one.fault(kind, when="after_commit", bytes=size)
        receipt = one.try_once()
        (debit,) = one.debits()
        harness.sandbox.control("POST", "/settle")

        assert (receipt.adopted, receipt.batch_nonce) == (True, debit["batch_nonce"])
        assert statuses(one)[-1] == 409

    assert len(body) > 80
