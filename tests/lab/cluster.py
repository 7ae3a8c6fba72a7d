"""Where system tests play: one Airflow, an exchange, and for each test an account and a connection of its own."""

from __future__ import annotations

import itertools
import json
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from pacifica_provider.sandbox import Sandbox
from tests.lab.local_sandbox import ROOT
from tests.lab.runs import Exchange, Payer, Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.local_airflow import LocalAirflow
    from tests.lab.local_sandbox import LocalSandbox

DAGS = Path(__file__).parent / "dags"
BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"
WINDOW_MS = 3000
BALANCES = {"SOL": "100000", "BTC": "1000", "kBONK": "1000000000"}
SECRETS = ("private_key", "agent_private_key", "api_config_key")
_numbers = itertools.count(1)

EDITED = """
from airflow.sdk import DAG
from tests.lab.dags.parts import RETRYING, Pay

with DAG("pay_edited", schedule=None, default_args=RETRYING):
    Pay(task_id="withdraw", symbol="SOL", amount="3.25")
"""


def environment(connection: str, folder: Path) -> dict[str, str]:
    """
    Return what an Airflow needs to run these DAGs and the examples, and make ``folder`` ready.

    :param connection: what ``pacifica_default`` is.
    :param folder: where tests and tasks talk; it also holds the DAG that a test edits.
    """
    for name in ("accidents", "edited"):
        (folder / name).mkdir()
    (folder / "edited" / "edited.py").write_text(EDITED)
    bundles = {"tests": DAGS, "examples": ROOT / "dags_examples", "edited": folder / "edited"}
    described = [{"name": name, "classpath": BUNDLE, "kwargs": {"path": str(path)}} for name, path in bundles.items()]
    return {
        "AIRFLOW_CONN_PACIFICA_DEFAULT": connection,
        "ACCIDENTS_FOLDER": str(folder / "accidents"),
        "PYTHONPATH": str(ROOT),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(described),
        # Each call holds a connection, some need a second one; with the default of 15 in all they wait for each other.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE": "50",
        # Off unless somebody switches it on.
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        # Several tests wait for the scheduler's next heartbeats.
        "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
        # A triggerer that says nothing for so long is replaced; Airflow's own 30 s are long in a test.
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "12",
    }


class TestCluster:
    """Opens accounts, makes connections of them, and starts runs."""

    __test__ = False  # not one of the tests, whatever pytest makes of its name

    def __init__(self, airflow: LocalAirflow, exchange: LocalSandbox, folder: Path) -> None:
        self.airflow = airflow
        self.folder = folder / "accidents"
        self._edited = folder / "edited" / "edited.py"
        self._exchange = exchange
        airflow.rest("POST", "/pools", {"name": "many", "slots": 6})
        ready = exchange.info
        self.default = Payer(exchange, "pacifica_default", ready["account"], {n: ready[n] for n in SECRETS})
        self.payers = [self.default]
        self._begun: dict[int, list[Run]] = {}

    def payer(self, exchange: Exchange | None = None, **extra: object) -> Payer:
        """Open an account and make a connection of it; on the shared exchange unless told otherwise."""
        exchange = exchange or self._exchange
        opened = exchange.control("POST", "/accounts", {"balances": BALANCES})
        connection = json.loads(opened["airflow_connection"])
        settings = {**connection["extra"], "expiry_window_ms": WINDOW_MS, **extra}
        conn_id = f"pacifica_{next(_numbers)}"
        body = {
            "connection_id": conn_id,
            "conn_type": "pacifica",
            "host": connection["host"],
            "login": connection["login"],
            "password": connection["password"],
            "extra": json.dumps(settings),
        }
        self.airflow.rest("POST", "/connections", body)
        secrets = {name: opened[name] for name in SECRETS}
        payer = Payer(exchange, conn_id, opened["account"], secrets, body, settings["expiry_window_ms"])
        self.payers.append(payer)
        return payer

    @contextmanager
    def own_exchange(self, settle_after_s: float | None = None, **extra: object) -> Iterator[Payer]:
        """Yield a payer on an exchange that nobody else uses: for faults and switches."""
        with Sandbox(settle_after_s) as exchange:
            payer = self.payer(exchange, **extra)
            try:
                yield payer
            finally:
                for each in self.payers:
                    if each.exchange is exchange:
                        each.last_posts = each.posts()

    def run(
        self,
        dag_id: str,
        payer: Payer,
        amount: str = "1.25",
        *,
        run_id: str | None = None,
        logical_date: str | None = None,
        task_id: str = "withdraw",
        **conf: object,
    ) -> Run:
        """Start a run of one of tests/lab/dags/payments.py."""
        orders = {"conn": payer.conn_id, "symbol": "SOL", "amount": amount, **conf}
        run_id = run_id or f"run-{next(_numbers)}"
        started = self.airflow.trigger(dag_id, orders, run_id, logical_date)
        run = Run(self.airflow, payer, dag_id, started, self.folder / started, task_id)
        self._begun.setdefault(threading.get_ident(), []).append(run)
        return run

    def forget_runs(self) -> None:
        """Begin another test in this thread."""
        self._begun.pop(threading.get_ident(), None)

    def story(self) -> str:
        """Return what there is to know of the runs that this thread's test started."""
        return "\n".join(run.story() for run in self._begun.get(threading.get_ident(), []))

    def repoint(self, conn_id: str, other: Payer) -> None:
        """Let the connection pay from another account."""
        self._patch(conn_id, {**other.connection, "connection_id": conn_id})

    def rotate_agent(self, payer: Payer) -> None:
        """Give the account a new agent, and its connection the agent's key."""
        agent = payer.exchange.control("POST", "/agents", {"account": payer.account})
        payer.secrets["second agent_private_key"] = agent["agent_private_key"]
        self._patch(payer.conn_id, {**payer.connection, "password": agent["agent_private_key"]})

    def edit(self, old: str, new: str) -> None:
        """Edit the DAG pay_edited. A task parses its file itself, so nothing need be waited for."""
        self._edited.write_text(self._edited.read_text().replace(old, new))

    def trigger_arguments(self, conn_id: str) -> list[dict[str, Any]]:
        """Return the arguments of the triggers that wait on a connection, as they lie in Airflow's database."""
        query = "select kwargs from trigger where classpath like '%WithdrawalBatchTrigger'"  # an asset's is encrypted
        stored = [json.loads(text) for (text,) in self.airflow.database.query(query)]
        arguments = [each.get("__data__", each) if isinstance(each, dict) else each for each in stored]
        return [each for each in arguments if each["pacifica_conn_id"] == conn_id]

    def rendered(self, run: Run, map_index: int = -1) -> dict[str, Any]:
        """Return the task's templated fields as Airflow shows them."""
        return dict(self.airflow.task_instance(*run.task, map_index)["rendered_fields"])

    def _patch(self, conn_id: str, body: dict[str, Any]) -> None:
        self.airflow.rest("PATCH", f"/connections/{conn_id}", body)

    @staticmethod
    def process_of(run: Run) -> psutil.Process:
        """Return the process that the planned accident befell."""
        return psutil.Process(int((run.folder / "reached").read_text().split()[0]))
