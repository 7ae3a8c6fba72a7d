"""
A real Airflow under random kills and faults, then the ledger against the runs: ``python -m dev.chaos --minutes 10``.

Runs of several DAGs are started, killed, frozen and cleared, parts of Airflow die, and the
exchange misbehaves, all from one seed. Then the trouble ends, everything is left to finish (and cleared where it used
up its retries), and each withdrawal is judged: no identity with two debits, no success without its own debit, nothing
unknown or failed without a cause in the trouble. ``--executor celery`` is a cluster: Redis, two workers, schedulers and
triggerers, twenty accounts of which half have no API config key, and the exchange's documented quota.
Prints a table and one line of JSON; exit status 1 if the promise was broken. Real processes keep real time, so a seed
repeats the choices, not every interleaving.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab import processes
from tests.lab.airflow_rest import NOT_FOUND, AirflowFailed, RestRefused
from tests.lab.airflow_settings import ALONE, CLUSTER
from tests.lab.chaos_nemesis import Nemesis, Temper
from tests.lab.chaos_verdict import Checker, Withdrawal
from tests.lab.cluster import DAGS, TestCluster, environment
from tests.lab.local_airflow import LocalAirflow
from tests.lab.local_sandbox import LocalSandbox, SandboxFailed
from tests.lab.runs import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.lab.runs import Payer

DRAIN_S = 420.0
ROUNDS = 4
DAG_IDS = [*["pay"] * 5, "pay_too", "pay_drifting", "pay_mapped", "pay_by_hook", "pay_many"]
# Few, so that equal withdrawals of one account stand beside each other.
AMOUNTS = ("1.25", "2.5", "3", "0.75", "10")
STARTED = time.monotonic()


@dataclass(frozen=True)
class Setting:
    """
    What one executor is tried with.

    ``at_once`` unfinished runs keep two cores busy; ``a_minute`` withdrawals are asked for, as many as it can without;
    of the accounts, ``keyless`` have no API config key, and all share the quota if it is ``metered``.
    """

    dag_ids: Sequence[str]
    settle_after_s: float
    components: Sequence[str]
    parallelism: int
    heartbeat_timeout_s: int
    temper: Temper
    at_once: int
    accounts: int
    keyless: int = 0
    metered: bool = False
    a_minute: float = float("inf")


SETTINGS = {
    "local": Setting(
        dag_ids=[*DAG_IDS, "pay_and_wait"],
        settle_after_s=3,
        components=ALONE,
        parallelism=10,
        heartbeat_timeout_s=15,
        temper=Temper(
            accidents=0.4, fault=12, kill_task=5, freeze_task=4, clear=3, switch=2, kill_component=1, cut_push=1
        ),
        at_once=16,
        accounts=4,
    ),
    "celery": Setting(
        # Without the sensor that looks every second: ten accounts share the 100 credits, and each look costs 13.
        dag_ids=DAG_IDS,
        # So long that the triggerer has begun to watch, as it has where it takes minutes.
        settle_after_s=15,
        components=CLUSTER,
        parallelism=6,
        # On a busy machine a task needs longer than 15 s to begin, and would be taken for dead.
        heartbeat_timeout_s=30,
        # Fewer faults of the exchange: a lost answer costs some 26 credits to settle, and ten accounts share 100.
        temper=Temper(
            accidents=0.1,
            fault=2,
            kill_task=4,
            freeze_task=2,
            clear=1,
            switch=1,
            cut_push=1,
            kill_component=2,
            freeze_component=1,
            deliver_twice=4,
        ),
        at_once=40,
        accounts=20,
        keyless=10,
        metered=True,
        a_minute=50,
    ),
}


class Chaos:
    """Starts runs, lets the nemesis loose on them, and waits for their end."""

    def __init__(self, cluster: TestCluster, setting: Setting, seed: int) -> None:
        self.cluster = cluster
        self.random = random.Random(seed)  # noqa: S311 - chaos, not cryptography
        self.nemesis = Nemesis(cluster, self.random, setting.temper)
        self.runs: list[Run] = []
        self.withdrawals: list[Withdrawal] = []
        self._doubtful: list[Run] = []
        self._setting = setting
        self._payers: list[Payer] = []

    def rage(self, seconds: float) -> None:
        """Start runs and make trouble for so long; longer, up to twice, if not enough could be asked for."""
        self._payers = [self.cluster.payer(pf_api_key="") for _ in range(self._setting.keyless)]
        self._payers += [self.cluster.payer() for _ in range(self._setting.accounts - self._setting.keyless)]
        begun, wanted = time.monotonic(), self._setting.a_minute * seconds / 60
        while (since := time.monotonic() - begun) < seconds or len(self.withdrawals) < wanted < float("inf"):
            if since > 2 * seconds:
                return
            if len(self.withdrawals) < min(wanted, 1 + wanted * since / seconds):
                self.nemesis.guarded(self._start_one)
            self.nemesis.strike(self.runs)
            time.sleep(self.random.uniform(0.2, 1.5))

    def drain(self) -> None:
        """Let the trouble end and wait for every run's end; clear what ended for want of retries, a few times."""
        self.nemesis.relent()
        self._look_for_doubtful()
        for _ in range(ROUNDS):
            deadline = time.monotonic() + DRAIN_S
            while self._unfinished() and time.monotonic() < deadline:
                self.nemesis.tend()
                time.sleep(2)
            again = Checker(self.cluster, self.withdrawals).unfinished()
            say(f"{len(again)} tasks used up their retries and are cleared")
            if not again:
                return
            for each, task_ids in again:
                self.cluster.airflow.clear(each.run.dag_id, each.run.run_id, task_ids)

    def verdict(self) -> dict[str, Any]:
        """Return what came of it, in figures."""
        airflow, done = self.cluster.airflow, self.nemesis.done
        # Celery says of each message that it has come; twice the same id is what the test means to see.
        workers = "\n".join(airflow.log(name) for name in ("worker", "worker-2"))
        received = Counter(re.findall(r"Task execute_workload\[([0-9a-f-]{36})\] received", workers))
        return {
            **Checker(self.cluster, self.withdrawals).verdict(self.nemesis.strikes),
            "kills": {
                what: count for what, count in sorted(done.items()) if re.search(r"killed|frozen|gave up| at ", what)
            },
            "messages_delivered_twice": sum(count > 1 for count in received.values()),
            "runs": len(self.runs),
            "trouble": dict(sorted(done.items())),
        }

    def _start_one(self) -> None:
        if len(self._unfinished()) >= self._setting.at_once:
            return
        dag_id, payer = self.random.choice(self._setting.dag_ids), self.random.choice(self._payers)
        conf: dict[str, Any] = self.nemesis.accident()
        orders = [
            {"symbol": "SOL", "amount": self.random.choice(AMOUNTS), "withdrawal_ref": f"ref-{n}"} for n in range(3)
        ]
        conf |= {"orders": orders, "cleared_orders": self.random.sample(orders, 3)}
        run_id = f"chaos-{len(self.runs) + len(self._doubtful)}"
        asked = Run(self.cluster.airflow, payer, dag_id, run_id, self.cluster.folder / run_id)
        self._doubtful.append(asked)
        self.cluster.run(dag_id, payer, self.random.choice(AMOUNTS), run_id=run_id, **conf)
        self._doubtful.remove(asked)
        self._begun(asked)

    def _begun(self, run: Run) -> None:
        self.runs.append(run)
        self.withdrawals += Withdrawal.of(run)

    def _look_for_doubtful(self) -> None:
        """Find which runs began although Airflow's answer was lost."""
        for run in self._doubtful:
            try:
                self.cluster.airflow.rest("GET", f"/dags/{run.dag_id}/dagRuns/{run.run_id}")
            except RestRefused as error:
                if error.status != NOT_FOUND:
                    raise
            else:
                self._begun(run)
        self._doubtful.clear()

    def _unfinished(self) -> list[str]:
        wanted = {"states": ["queued", "running"], "page_limit": 100}
        listed = self.cluster.airflow.rest("POST", "/dags/~/dagRuns/list", wanted)
        return [each["dag_run_id"] for each in listed["dag_runs"]]


def main(arguments: list[str] | None = None) -> int:
    """Run as told; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dev.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--executor", choices=sorted(SETTINGS), default="local")
    parser.add_argument("--keep", action="store_true", help="keep Airflow's folder, to look at afterwards")
    options = parser.parse_args(arguments)
    setting = SETTINGS[options.executor]
    say(f"seed {options.seed}, {options.minutes:g} minutes, executor {options.executor}")
    try:
        with (
            processes.INTERRUPTIONS,
            LocalSandbox(setting.settle_after_s) as exchange,
            tempfile.TemporaryDirectory() as folder,
        ):
            exchange.control("POST", "/options", {"enforce_credits": setting.metered})
            with LocalAirflow(
                DAGS,
                env=environment(exchange.info["airflow_connection"], Path(folder)),
                components=setting.components,
                parallelism=setting.parallelism,
                heartbeat_timeout_s=setting.heartbeat_timeout_s,
                execution_api_apart=True,
                keep_home=options.keep,
            ) as airflow:
                return _run(Chaos(TestCluster(airflow, exchange, Path(folder)), setting, options.seed), options)
    except processes.Interrupted as interrupted:
        return interrupted.exit_status
    except (AirflowFailed, SandboxFailed) as error:
        say(str(error))
        return 1


def _run(chaos: Chaos, options: argparse.Namespace) -> int:
    say("Airflow is up; the trouble begins")
    chaos.rage(options.minutes * 60)
    say(f"the trouble ends; {len(chaos.runs)} runs, {len(chaos.withdrawals)} withdrawals are left to finish")
    chaos.drain()
    verdict = chaos.verdict() | {name: getattr(options, name) for name in ("executor", "seed", "minutes")}
    for title in ("trouble", "outcomes", "unknown", "tries"):
        print(f"\n{title}")
        for name, count in Counter(verdict[title]).most_common():
            print(f"  {count:6}  {name}")
    print(f"\n{verdict['debits']} debits, {verdict['posts']} requests, {len(verdict['violations'])} violations")
    for violation in verdict["violations"]:
        print(f"VIOLATION {violation}")
    print(json.dumps(verdict), flush=True)
    return int(bool(verdict["violations"]))


def say(text: str) -> None:
    """Print progress."""
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
