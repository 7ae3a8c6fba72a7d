"""The harness does what it says: without this, a system test that passes proves little."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab import processes
from tests.lab.airflow_rest import RestRefused
from tests.lab.airflow_settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

    from tests.lab.local_airflow import LocalAirflow

DAGS = Path(__file__).parent / "dags"
ROOT = DAGS.parents[2]

# Starts an Airflow, tells its folder, and stays in the phase that the test names.
SCRIPT = """
import sys, time
from pathlib import Path
from tests.lab import processes
from tests.lab.local_airflow import LocalAirflow

class Told(LocalAirflow):
    def _start_all(self):
        print(self.home, flush=True)
        super()._start_all()

try:
    with Told(Path(sys.argv[1])) as airflow:
        run_id = airflow.trigger("harness_slow")
        airflow.task_processes("harness_slow", run_id, "sleep")
        print("running", flush=True)
        time.sleep(60)
except processes.Interrupted as interrupted:
    sys.exit(interrupted.exit_status)
"""


@pytest.fixture
def script() -> Iterator[subprocess.Popen[str]]:
    """Yield a program that is starting an Airflow of its own."""
    command = [sys.executable, "-c", SCRIPT, str(DAGS)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        yield program
        program.kill()


def line(program: subprocess.Popen[str]) -> str:
    """Return the next line that the program prints."""
    assert program.stdout is not None
    return program.stdout.readline().strip()


def stopped(program: subprocess.Popen[str], signum: int) -> tuple[int, list[psutil.Process]]:
    """Signal the program; return its exit status and those of its descendants that outlived it."""
    before = processes.descendants(program.pid)
    program.send_signal(signum)
    status = program.wait(timeout=30)
    # One that has ended and waits for its new parent, init, to notice runs no more.
    return status, [each for each in before if each.is_running() and each.status() != "zombie"]


def test_a_triggered_run_succeeds_and_its_result_keeps_its_type(airflow: LocalAirflow) -> None:
    """A run ends in success; an amount returned as text is read as that text, and its log is there."""
    run_id = airflow.trigger("harness", conf={"a": 1})

    state = airflow.wait_run("harness", run_id)

    assert state == "success"
    assert airflow.xcom("harness", run_id, "amount") == "12.50"
    assert "counting" in airflow.task_log("harness", run_id, "amount")


def test_a_cleared_task_runs_again(airflow: LocalAirflow) -> None:
    """Clearing gives the task a second try in the same run."""
    run_id = airflow.trigger("harness", run_id="cleared-once")
    airflow.wait_run("harness", run_id)

    cleared = airflow.clear("harness", run_id, ["amount"])
    state = airflow.wait_task_state("harness", run_id, "amount", try_number=2)

    assert [each["task_id"] for each in cleared] == ["amount"]
    assert state == "success"


def test_a_killed_task_is_tried_again(airflow: LocalAirflow) -> None:
    """The process found for a task is the one that runs it: after a SIGKILL the second try does the work."""
    run_id = airflow.trigger("harness_slow")

    found = airflow.task_processes("harness_slow", run_id, "sleep")
    airflow.wait_task_state("harness_slow", run_id, "sleep", ["running"])
    found.task.send_signal(signal.SIGKILL)

    assert airflow.wait_run("harness_slow", run_id) == "success"
    assert airflow.xcom("harness_slow", run_id, "sleep") == 2


def test_a_killed_triggerer_is_replaced(airflow: LocalAirflow) -> None:
    """After kill and start another process is healthy, by a heartbeat of its own."""
    before = airflow.pids("triggerer")

    airflow.kill("triggerer")
    airflow.start("triggerer")
    airflow.wait_healthy()

    assert not set(before) & set(airflow.pids("triggerer"))


def test_an_entry_can_be_planted_and_taken_away(airflow: LocalAirflow) -> None:
    """What a task would find in the ledger is written, read and deleted from outside."""
    airflow.put_entry("planted", {"amount": "1.50"})
    planted = airflow.entry("planted")
    airflow.delete_entry("planted")

    assert planted == {"amount": "1.50"}
    assert airflow.entry("planted") is None


def test_what_airflow_refuses_is_raised_with_its_status(airflow: LocalAirflow) -> None:
    """An error of the API carries its HTTP status."""
    with pytest.raises(RestRefused, match="404") as refused:
        airflow.xcom("harness", "no such run", "amount")

    assert refused.value.status == 404


def test_a_signal_while_starting_leaves_nothing_behind(script: subprocess.Popen[str]) -> None:
    """TERM in the middle of the start: no process and no folder is left, and the status says TERM."""
    home = Path(line(script))
    time.sleep(4)

    status, left = stopped(script, signal.SIGTERM)

    assert (status, left) == (128 + signal.SIGTERM, [])
    assert not home.exists()


def test_a_signal_during_a_task_leaves_nothing_behind(script: subprocess.Popen[str]) -> None:
    """HUP while a task sleeps in a process group of its own: that goes as well, and nothing has to be waited out."""
    home = Path(line(script))
    assert line(script) == "running"

    started = time.monotonic()
    status, left = stopped(script, signal.SIGHUP)

    assert (status, left) == (128 + signal.SIGHUP, [])
    assert not home.exists()
    assert time.monotonic() - started < 60


def test_nothing_of_the_users_airflow_is_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings and connections of the surrounding shell do not reach the components; those asked for do."""
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://theirs")
    monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", "theirs")
    wanted = {"AIRFLOW_CONN_PACIFICA_DEFAULT": "ours"}

    environment = Settings(home=tmp_path, dags_folder=tmp_path, port=1, database_url="ours", env=wanted).environment()

    assert environment["AIRFLOW_HOME"] == str(tmp_path)
    assert environment["AIRFLOW_CONN_PACIFICA_DEFAULT"] == "ours"
    assert "theirs" not in " ".join(environment.values())
