"""Processes that die: F34 to F40, a real process and a real SIGKILL at every failpoint."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import TimeoutPosix

from pacifica_provider.exceptions import OutcomeUnknown
from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator
from tests.faults.checks import assert_paid_once, nonces, refused, statuses
from tests.faults.processes import Task, killed_by, reached, result
from tests.support.patience import until

if TYPE_CHECKING:
    from pathlib import Path

    from pacifica_provider.sandbox import Sandbox
    from tests.support.harness import ProtocolHarness


# Where the process dies, whether money had moved by then, and whether the next try finds a row to adopt.
POINTS = [
    pytest.param("before_record", 0, False, id="F34"),
    pytest.param("after_attempt", 0, False, id="F35"),
    pytest.param("before_post", 0, False, id="F36-before-the-bytes-left"),
    pytest.param("after_post", 1, True, id="F37"),
    pytest.param("after_receipt", 1, False, id="F38"),
]


@pytest.mark.parametrize(("point", "moved", "adopted"), POINTS)
def test_a_task_killed_at_any_point_is_paid_once_by_its_retry(
    processes: Task, point: str, moved: int, adopted: bool
) -> None:
    """F34 to F38, F46: SIGKILL at a failpoint, then a retry: one debit, and after the receipt no request at all."""
    child = processes.start({point: "kill"})
    ended = (reached(child), killed_by(child))
    harness = processes.harness()
    before = (len(harness.debits()), len(harness.posts()))

    receipt = harness.try_once()
    assert_paid_once(harness, receipt)

    assert ended == (point, "SIGKILL")
    assert before == (moved, moved)
    # Killed before anything was written, the record may be lost, but there is no row and no 409 to stop at.
    assert receipt.adopted is (adopted and point != "after_receipt")
    assert len(harness.posts()) == (
        1 if point in {"before_record", "after_attempt", "before_post", "after_receipt"} else 2
    )


@pytest.mark.parametrize("point", ["before_post", "after_post"])
def test_a_task_killed_over_a_request_and_retried_late_asks_a_person(processes: Task, point: str) -> None:
    """F36, F37, F55: once the unanswered request is older than the key trust, the retry posts nothing: unknown."""
    child = processes.start({point: "kill"})
    reached(child)
    killed_by(child)
    harness = processes.harness()
    harness.clock.sleep_s(10 * 60)
    processes.sandbox.control("POST", "/forget_keys")
    posts = len(harness.posts())

    error = refused(harness, OutcomeUnknown)

    assert list(error.batch_nonces) == nonces(harness) == ([42] if point == "after_post" else [])
    assert len(harness.posts()) == posts


@pytest.mark.parametrize("sent_signal", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_task_killed_while_it_waits_for_the_answer_is_adopted(processes: Task, sent_signal: signal.Signals) -> None:
    """F36, F39: killed by whatever signal after the bytes left and before the answer came, the retry adopts the row."""
    processes.sandbox.control(
        "POST", "/faults", {"route": "withdraw", "when": "after_commit", "kind": "hang", "seconds": 3600, "count": 1}
    )
    child = processes.start({})
    until(lambda: bool(processes.sandbox.control("GET", "/ledger")["debits"]))
    child.send_signal(sent_signal)
    ended = killed_by(child)
    harness = processes.harness()

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=True)

    assert ended == sent_signal.name
    assert statuses(harness)[-1] == 409


def test_two_kills_in_a_row_still_pay_once(processes: Task) -> None:
    """F36, F37: killed after the first request and again before the second, the third try finds the first one's row."""
    first = processes.start({"after_post": "kill"})
    killed_by(first)
    second = processes.start({"before_post": "kill"})
    killed_by(second)
    harness = processes.harness()

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=True)

    assert statuses(harness) == [200, 409]


def test_a_killed_mapped_task_stops_with_its_row_in_view(sandbox: Sandbox, tmp_path: Path) -> None:
    """F37: a mapped task that was killed before its receipt is unknown, since an equal one may stand beside it."""
    task = Task(sandbox, tmp_path, fields={"adoption": "never", "instance": "0/None", "withdrawal_ref": "invoice-7"})
    try:
        killed_by(task.start({"after_post": "kill"}))
        harness = task.harness()
        error = refused(harness, OutcomeUnknown)
    finally:
        task.end()

    assert list(error.batch_nonces) == nonces(harness) == [42]


def test_killing_the_task_undoes_and_sends_nothing(harness: ProtocolHarness, capfd: pytest.CaptureFixture[str]) -> None:
    """F39: on_kill only says that a withdrawal cannot be recalled; a withdrawal stands, and nothing else is sent."""
    receipt = harness.try_once()
    operator = WithdrawSpotAssetOperator(task_id="withdraw", symbol="SOL", amount="1")
    before = harness.ledger()

    operator.on_kill()

    assert harness.ledger() == before
    assert "hook" not in operator.__dict__  # it did not so much as look at the connection
    assert_paid_once(harness, receipt, adopted=False)


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
def test_an_execution_timeout_is_not_swallowed(harness: ProtocolHarness, when: str) -> None:
    """F40: Airflow's own time limit strikes in mid-request, passes through as it is, and the next try settles it."""
    harness.fault("hang", when=when, seconds=2)

    with pytest.raises(AirflowTaskTimeout), TimeoutPosix(0.4):
        harness.try_once()
    attempts = harness.store.record()["attempts"]
    until(lambda: not _in_progress(harness))
    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=True)

    assert [attempt["outcome"] for attempt in attempts] == ["unanswered"]


def test_a_worker_prints_what_its_try_came_to(processes: Task) -> None:
    """The bench of this file: left alone, a try in a process of its own pays and says so."""
    child = processes.start({})
    said = result(child)
    harness = processes.harness()

    receipt = harness.try_once()

    assert (said["batch_nonce"], said["adopted"]) == (receipt.batch_nonce, False)
    assert (len(harness.posts()), isinstance(child, subprocess.Popen)) == (1, True)


def _in_progress(harness: ProtocolHarness) -> bool:
    return any(post["outcome"] == "in_progress" for post in harness.posts())
