"""Two tries of one task at once: F41, in two processes, with a barrier or a freeze between them."""

from __future__ import annotations

import signal

import pytest

from tests.faults.checks import assert_paid_once, nonces, statuses
from tests.faults.processes import Task, go, reached, result


@pytest.mark.parametrize("point", ["after_attempt", "before_post"])
def test_a_try_that_was_overtaken_before_its_request_never_sends_it(processes: Task, point: str) -> None:
    """F41, F92: the older try stands at a barrier while the newer one pays; let go, it sends and claims nothing."""
    older = processes.start({point: "wait"})
    stood = reached(older)
    newer = processes.start({})
    paid = result(newer)
    said = result(go(older))
    harness = processes.harness()

    assert_paid_once(harness, harness.try_once(), adopted=False)

    assert (stood, nonces(harness), statuses(harness)) == (point, [paid["batch_nonce"]], [200])
    assert (said["error"], "MAY have moved money" in said["text"]) == ("Unresolved", True)
    assert "no money moved" not in said["text"].lower()


def test_a_try_that_was_overtaken_before_it_read_the_record_returns_the_newer_one_s_receipt(processes: Task) -> None:
    """F41: it reads what the newer try wrote, as reading is never fenced, and that is already withdrawn."""
    older = processes.start({"before_record": "wait"})
    reached(older)
    paid = result(processes.start({}))
    said = result(go(older))
    harness = processes.harness()

    assert_paid_once(harness, harness.try_once(), adopted=False)

    names = ("batch_nonce", "submitted_at_ms", "adopted")
    assert [said[name] for name in names] == [paid[name] for name in names]
    assert statuses(harness) == [200]


def test_a_try_frozen_between_its_record_and_its_request_sends_nothing_when_thawed(processes: Task) -> None:
    """F41: SIGSTOP after the write-ahead; the newer try waits out the signature and pays; SIGCONT finds it too late."""
    older = processes.start({"before_post": "stop"})
    reached(older)
    newer = processes.start({})
    paid = result(newer)
    older.send_signal(signal.SIGCONT)
    said = result(older)
    harness = processes.harness()

    assert_paid_once(harness, harness.try_once(), adopted=False)

    assert (nonces(harness), statuses(harness)) == ([paid["batch_nonce"]], [200])
    assert said["error"] in {"Unreachable", "Unresolved"}


def test_a_try_that_had_just_been_answered_and_the_one_that_replaces_it_name_one_batch(processes: Task) -> None:
    """F41: the older try has posted and stands; the newer waits out its window, meets 409 and adopts; both agree."""
    older = processes.start({"after_post": "wait"})
    reached(older)
    newer = processes.start({})
    adopted = result(newer)
    first = result(go(older))
    harness = processes.harness()

    receipt = harness.try_once()

    assert nonces(harness) == [first["batch_nonce"]] == [adopted["batch_nonce"]] == [receipt.batch_nonce]
    assert (first["adopted"], adopted["adopted"], statuses(harness)) == (False, True, [200, 409])


def test_a_replaced_try_cannot_unsay_what_the_newer_one_wrote(processes: Task) -> None:
    """F41: the older try's late answer changes nothing in a record that is already accepted."""
    older = processes.start({"after_post": "wait"})
    reached(older)
    result(processes.start({}))
    written = _record(processes)

    result(go(older))
    after = _record(processes)

    assert '"state": "accepted"' in after
    assert (after == written) is processes.fenced  # without a fence it writes its receipt of the same batch once more


def _record(task: Task) -> str:
    (file,) = task.folder.glob("withdrawal_*.json")
    return file.read_text()
