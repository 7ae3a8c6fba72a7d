"""Withdraw once in a real Airflow against the sandbox: ``python -m dev.demo``.

The last line printed is JSON: state, run_id, receipt, settled, ledger_debits. The exit status is 0 only if the
run succeeded and the exchange's ledger holds exactly one debit. Progress goes to stderr. Nothing keeps running.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from tests.lab import processes
from tests.lab.airflow_rest import AirflowFailed, RestRefused
from tests.lab.local_airflow import LocalAirflow
from tests.lab.local_sandbox import ROOT, LocalSandbox, SandboxFailed

DAG_ID = "example_withdraw"
SETTLE_AFTER_S = 3
RUN_TIMEOUT_S = 240
LOG_LINES = 60
STARTED = time.monotonic()


def main() -> int:
    """Run the demo and return the exit status."""
    try:
        with processes.INTERRUPTIONS, LocalSandbox(SETTLE_AFTER_S) as sandbox:
            say(f"sandbox at {sandbox.info['base_url']}; starting Airflow (15 s)")
            connection = {"AIRFLOW_CONN_PACIFICA_DEFAULT": sandbox.info["airflow_connection"]}
            with LocalAirflow(ROOT / "dags_examples", env=connection) as airflow:
                say(f"Airflow {airflow.rest('GET', '/version')['version']} at {airflow.base_url}")
                result = withdraw(airflow)
                result["ledger_debits"] = len(sandbox.debits())
                say("stopping")
    except processes.Interrupted as interrupted:
        say(f"stopped by {interrupted}")
        return interrupted.exit_status
    except (AirflowFailed, SandboxFailed) as error:
        say(str(error))
        return 1
    say("stopped")
    print(json.dumps(result), flush=True)
    return 0 if (result["state"], result["ledger_debits"]) == ("success", 1) else 1


def withdraw(airflow: LocalAirflow) -> dict[str, Any]:
    """Trigger the example, wait until its run has ended, and return what it left."""
    run_id = airflow.trigger(DAG_ID)
    say(f"run {run_id}: withdraw, then wait until the withdrawal is settled")
    state = airflow.wait_run(DAG_ID, run_id, RUN_TIMEOUT_S)
    say(f"run {run_id}: {state}")
    for task in airflow.task_instances(DAG_ID, run_id):
        if task["state"] not in ("success", "upstream_failed"):
            log = airflow.task_log(DAG_ID, run_id, task["task_id"], task["try_number"])
            say("\n".join([f"{task['task_id']} is {task['state']}:", *log.splitlines()[-LOG_LINES:]]))
    return {
        "state": state,
        "run_id": run_id,
        "receipt": result_of(airflow, run_id, "withdraw"),
        "settled": result_of(airflow, run_id, "wait_until_settled"),
    }


def result_of(airflow: LocalAirflow, run_id: str, task_id: str) -> object:
    """Return what the task returned, None if it returned nothing."""
    try:
        return airflow.xcom(DAG_ID, run_id, task_id)
    except RestRefused:
        return None


def say(text: str) -> None:
    """Print progress."""
    print(f"[{time.monotonic() - STARTED:5.1f} s] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
