"""A hundred mapped withdrawals beside a hundred empty tasks, in a real Airflow with LocalExecutor."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tests.bench.child import ROOT, BenchFailed
from tests.bench.figures import Figure, Part, median
from tests.lab.local_airflow import LocalAirflow
from tests.lab.local_sandbox import LocalSandbox

DAGS = ROOT / "tests" / "bench" / "dags"
WARM_UP, EMPTY, POST_ONLY, WITHDRAW = "bench_warm_up", "bench_empty", "bench_post_only", "bench_withdraw"
PARALLELISM = 8
RUN_TIMEOUT_S = 240
TASKS = 100


def run() -> Part:
    """Run the three DAGs one after the other, and check in the ledger that they did what they say."""
    with LocalSandbox() as sandbox:
        sandbox.control("POST", "/options", {"enforce_credits": False})
        connection = {"AIRFLOW_CONN_PACIFICA_DEFAULT": sandbox.info["airflow_connection"]}
        with LocalAirflow(DAGS, env=connection, parallelism=PARALLELISM) as airflow:
            _run(airflow, WARM_UP)  # whatever only the first tasks of an Airflow pay
            found = {dag_id: _run(airflow, dag_id) for dag_id in (EMPTY, POST_ONLY, WITHDRAW)}
        debits = sandbox.debits()
    if len(debits) != 2 * TASKS:
        raise BenchFailed(f"{len(debits)} debits instead of {2 * TASKS}")
    figures = []
    for peer, name in ((EMPTY, "empty tasks"), (POST_ONLY, "tasks that only post")):
        figures += [
            Figure(
                f"{TASKS} mapped withdrawals, start to end",
                "s",
                found[WITHDRAW]["run_s"],
                f"{TASKS} {name}",
                found[peer]["run_s"],
                1,
            ),
            Figure(
                "one of them, as Airflow times it",
                "s",
                found[WITHDRAW]["task_s"],
                f"one of {TASKS} {name}",
                found[peer]["task_s"],
                TASKS,
            ),
        ]
    ours, bare = found[WITHDRAW]["task_s"], found[POST_ONLY]["task_s"]
    note = (
        f"Mapped: LocalExecutor, parallelism {PARALLELISM}, PostgreSQL, one run each, all {2 * TASKS} debits found in "
        "the sandbox's ledger. The protocol (one GET, and the store calls through Airflow's API) is "
        f"{(ours - bare) / ours:.0%} of the median task's time."
    )
    return Part(figures=figures, notes=[note])


def _run(airflow: LocalAirflow, dag_id: str) -> dict[str, float]:
    run_id = airflow.trigger(dag_id, run_id="bench")
    state = airflow.wait_run(dag_id, run_id, RUN_TIMEOUT_S)
    if state != "success":
        airflow.fail(f"{dag_id} ended as {state}")
    run: dict[str, Any] = airflow.rest("GET", f"/dags/{dag_id}/dagRuns/{run_id}")
    seconds = (_time(run["end_date"]) - _time(run["start_date"])).total_seconds()
    tasks = airflow.task_instances(dag_id, run_id)
    return {"run_s": seconds, "task_s": median([task["duration"] for task in tasks])}


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
