"""Two tries of one task at once: F41, in two processes, with a barrier or a freeze between them."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.faults.judge import assert_paid_once, nonces, statuses
from tests.faults.processes import Task, reached, result

if TYPE_CHECKING:
    import subprocess


@pytest.mark.parametrize("point", ["before_record", "after_marker"])
def test_a_try_that_was_overtaken_before_its_request_never_sends_it(processes: Task, point: str) -> None:
    """F41: the older try stands at a barrier while the newer one pays; let go, it sends nothing."""
    older = processes.start({point: "wait"})
    stood = reached(older)
    newer = processes.start({})
    paid = result(newer)
    said = result(_go(older))
    rig = processes.rig()

    assert_paid_once(rig, rig.try_once(), adopted=False)

    assert (stood, nonces(rig), statuses(rig)) == (point, [paid["batch_nonce"]], [200])
    if "error" in said:
        assert said["error"] in {"Unreachable", "Unresolved"}
    else:  # without a fence it could read the newer try's receipt
        assert (said["batch_nonce"], processes.fenced) == (paid["batch_nonce"], False)


@pytest.mark.parametrize(
    ("processes", "point"),
    [  # without a fence, a try that stood before its record reads the newer one's receipt and returns it
        pytest.param(True, "before_record"),
        (True, "after_marker"),
        (True, "before_post"),
        (False, "after_marker"),
        (False, "before_post"),
    ],
    indirect=["processes"],
)
def test_an_overtaken_try_claims_nothing_of_the_money(processes: Task, point: str) -> None:
    """F41: an older try that finds it was overtaken does not say that no money moved: the newer one has moved it."""
    older = processes.start({point: "wait"})
    reached(older)
    result(processes.start({}))

    said = result(_go(older))

    assert said["error"] in {"Unreachable", "Unresolved"}
    assert "no money moved" not in said["text"].lower()


def test_a_try_frozen_between_its_record_and_its_request_sends_nothing_when_thawed(processes: Task) -> None:
    """F41: SIGSTOP after the write-ahead; the newer try waits out the signature and pays; SIGCONT finds it too late."""
    older = processes.start({"before_post": "stop"})
    reached(older)
    newer = processes.start({})
    paid = result(newer)
    older.send_signal(signal.SIGCONT)
    said = result(older)
    rig = processes.rig()

    assert_paid_once(rig, rig.try_once(), adopted=False)

    assert (nonces(rig), statuses(rig)) == ([paid["batch_nonce"]], [200])
    assert said["error"] in {"Unreachable", "Unresolved"}


def test_a_try_that_had_just_been_answered_and_the_one_that_replaces_it_name_one_batch(processes: Task) -> None:
    """F41: the older try has posted and stands; the newer waits out its window, meets 409 and adopts; both agree."""
    older = processes.start({"after_post": "wait"})
    reached(older)
    newer = processes.start({})
    adopted = result(newer)
    first = result(_go(older))
    rig = processes.rig()

    receipt = rig.try_once()

    assert nonces(rig) == [first["batch_nonce"]] == [adopted["batch_nonce"]] == [receipt.batch_nonce]
    assert (first["adopted"], adopted["adopted"], statuses(rig)) == (False, True, [200, 409])


def test_a_replaced_try_cannot_unsay_what_the_newer_one_wrote(processes: Task) -> None:
    """F41: the older try's late answer changes nothing in a record that is already accepted."""
    older = processes.start({"after_post": "wait"})
    reached(older)
    result(processes.start({}))
    written = (processes.folder / "entry.json").read_text()

    result(_go(older))
    after = (processes.folder / "entry.json").read_text()

    assert '"state": "accepted"' in after
    assert (after == written) is processes.fenced  # without a fence it writes its receipt of the same batch once more


def _go(child: subprocess.Popen[str]) -> subprocess.Popen[str]:
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()
    return child
