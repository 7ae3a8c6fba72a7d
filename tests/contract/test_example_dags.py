"""The example DAGs: parsed by Airflow without errors, without a connection and without the network."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PARSE = """
import json, sys
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise RuntimeError(f"parsing reaches for the network: {event} {arguments}")
sys.addaudithook(hook)
try:
    from airflow.dag_processing.dagbag import DagBag
except ModuleNotFoundError:  # Airflow 3.1
    from airflow.models.dagbag import DagBag
bag = DagBag(dag_folder=sys.argv[1])
tasks = {
    dag_id: {task.task_id: [task.task_type, sorted(task.downstream_task_ids)] for task in dag.tasks}
    for dag_id, dag in bag.dags.items()
}
pages = {
    dag_id: [dag.doc_md, dag.schedule if isinstance(dag.schedule, str) else None] for dag_id, dag in bag.dags.items()
}
print("PARSED" + json.dumps([bag.import_errors, tasks, pages]))
"""
EXPECTED = {
    "example_approval": {
        "withdraw": ["WithdrawSpotAssetOperator", []],
        "prepare": ["PrepareWithdrawalOperator", ["approve"]],
        "approve": ["ApprovalOperator", ["withdraw"]],
    },
    "example_sweep": {"withdraw": ["WithdrawSpotAssetOperator", []]},
    "example_withdraw": {
        "withdraw": ["WithdrawSpotAssetOperator", ["wait_until_settled"]],
        "wait_until_settled": ["WithdrawalBatchSensor", []],
    },
    "example_withdraw_deferrable": {"withdraw_and_wait": ["WithdrawSpotAssetOperator", []]},
    "example_withdraw_mapped": {"withdraw": ["WithdrawSpotAssetOperator", []]},
    "example_withdrawal_events": {"show_withdrawals": ["_PythonDecoratedOperator", []]},
    "example_withdrawal_outlets": {"withdraw_and_wait": ["WithdrawSpotAssetOperator", []]},
    "example_withdrawal_outlets_reader": {"show_withdrawals": ["_PythonDecoratedOperator", []]},
}


def parse(folder: Path, home: Path) -> Any:
    """Parse a folder of DAGs in a process of its own; return import errors, tasks, and each DAG's text and schedule."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment |= {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=home,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("PARSED")]
    assert lines, done.stdout + done.stderr
    return json.loads(lines[0].removeprefix("PARSED"))


def test_the_examples_parse_without_a_connection_or_the_network(tmp_path: Path) -> None:
    """Each documented example is a DAG with its tasks, and a failing import would show."""
    errors, tasks, _ = parse(ROOT / "dags_examples", tmp_path)

    assert errors == {}
    assert tasks == EXPECTED


def test_each_example_says_on_airflow_s_page_what_it_does_and_needs(tmp_path: Path) -> None:
    """Its text names the connection, and says of a scheduled one that unpausing it withdraws at once."""
    _, _, pages = parse(ROOT / "dags_examples", tmp_path)
    scheduled = sorted(name for name, (_, schedule) in pages.items() if schedule is not None)

    assert [name for name, (text, _) in pages.items() if "`pacifica_default`" not in (text or "")] == []
    assert scheduled == ["example_sweep", "example_withdraw_mapped"]
    for name in scheduled:
        assert "**Unpausing this DAG makes its latest run at once, and so withdraws at once.**" in pages[name][0]


def test_the_readers_say_the_same_of_the_same_withdrawal(capsys: pytest.CaptureFixture[str]) -> None:
    """A row of Pacifica's history and a receipt are printed alike."""
    row = {"symbol": "SOL", "amount": "1", "requested_amount": "1", "batch_nonce": 42, "transaction_id": "5x"}
    printed = []
    for file, dag, asset, extra in (
        ("example_withdrawal_events", "dag", "settled_withdrawals", {"payload": row}),
        ("example_withdrawal_outlets", "reader", "withdrawn", row),
    ):
        names = runpy.run_path(str(ROOT / "dags_examples" / f"{file}.py"))
        show = names[dag].get_task("show_withdrawals").python_callable
        capsys.readouterr()
        show(triggering_asset_events={names[asset]: [SimpleNamespace(extra=extra)]})
        printed.append(capsys.readouterr().out)

    assert printed == ["1 SOL in batch 42, transaction 5x\n"] * 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import no_such_module", "no_such_module"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "network"),
    ],
)
def test_a_bad_dag_file_would_be_noticed(tmp_path: Path, text: str, says: str) -> None:
    """A missing module, or a connection at parse time, is an import error."""
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "bad.py").write_text(f"from airflow.sdk import DAG\n{text}\nDAG('bad')\n")
    errors, _, _ = parse(folder, tmp_path)

    assert says in json.dumps(errors)
