"""
A real Airflow under random kills and faults, then the ledger against the runs: ``python -m dev.chaos --minutes 10``.

Runs of several DAGs are started, killed, frozen and cleared, parts of Airflow die, and the
exchange misbehaves, all from one seed. Then the trouble ends, everything is left to finish (and cleared where it used
up its retries), and each withdrawal is judged: no identity with two debits, no success without its own debit.
Prints a table and one line of JSON; exit status 1 if the promise was broken. Real processes keep real time, so a seed
repeats the choices, not every interleaving.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab import processes
from tests.lab.airflow_rest import AirflowFailed
from tests.lab.chaos_nemesis import Nemesis
from tests.lab.chaos_verdict import Checker, Withdrawal
from tests.lab.cluster import DAGS, TestCluster, environment
from tests.lab.local_airflow import LocalAirflow
from tests.lab.local_sandbox import LocalSandbox, SandboxFailed

if TYPE_CHECKING:
    from tests.lab.runs import Payer, Run

ACCOUNTS = 4
SETTLE_AFTER_S = 3
# Enough to keep two cores busy.
AT_ONCE = 16
DRAIN_S = 420.0
ROUNDS = 4
DAG_IDS = ["pay"] * 5 + ["pay_too", "pay_and_wait", "pay_drifting", "pay_mapped", "pay_by_hook"]
# Few, so that equal withdrawals of one account stand beside each other.
AMOUNTS = ("1.25", "2.5", "3", "0.75", "10")
STARTED = time.monotonic()


class Chaos:
    """Starts runs, lets the nemesis loose on them, and waits for their end."""

    def __init__(self, cluster: TestCluster, seed: int) -> None:
        self.cluster = cluster
        self.random = random.Random(seed)  # noqa: S311 - chaos, not cryptography
        self.nemesis = Nemesis(cluster, self.random)
        self.runs: list[Run] = []
        self.withdrawals: list[Withdrawal] = []
        self._payers: list[Payer] = []

    def rage(self, seconds: float) -> None:
        """Start runs and make trouble for so long."""
        self._payers = [self.cluster.payer() for _ in range(ACCOUNTS)]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.nemesis.guarded(self._start_some)
            self.nemesis.strike(self.runs)
            time.sleep(self.random.uniform(0.2, 1.5))
        self.nemesis.relent()

    def drain(self) -> None:
        """Wait for every run's end; clear what ended for want of retries, a few times."""
        for _ in range(ROUNDS):
            deadline = time.monotonic() + DRAIN_S
            while self._unfinished() and time.monotonic() < deadline:
                time.sleep(2)
            judge = Checker(self.cluster, self.withdrawals)
            again = [each for each in self.withdrawals if judge.wants_another_try(each)]
            say(f"{len(again)} tasks used up their retries and are cleared")
            if not again:
                return
            for each in again:
                self.cluster.airflow.clear(each.run.dag_id, each.run.run_id, [each.task_id])

    def _start_some(self) -> None:
        for _ in range(min(3, AT_ONCE - len(self._unfinished()))):
            self._start_one()

    def _start_one(self) -> None:
        dag_id, payer = self.random.choice(DAG_IDS), self.random.choice(self._payers)
        conf: dict[str, Any] = self.nemesis.accident()
        orders = [
            {"symbol": "SOL", "amount": self.random.choice(AMOUNTS), "withdrawal_ref": f"ref-{n}"} for n in range(3)
        ]
        conf |= {"orders": orders, "cleared_orders": self.random.sample(orders, 3)}
        run = self.cluster.run(dag_id, payer, self.random.choice(AMOUNTS), **conf)
        self.runs.append(run)
        self.withdrawals += Withdrawal.of(run)

    def _unfinished(self) -> list[str]:
        wanted = {"states": ["queued", "running"], "page_limit": 100}
        listed = self.cluster.airflow.rest("POST", "/dags/~/dagRuns/list", wanted)
        return [each["dag_run_id"] for each in listed["dag_runs"]]


def main(arguments: list[str] | None = None) -> int:
    """Run as told; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dev.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", action="store_true", help="keep Airflow's folder, to look at afterwards")
    options = parser.parse_args(arguments)
    say(f"seed {options.seed}, {options.minutes:g} minutes")
    try:
        with processes.INTERRUPTIONS, LocalSandbox(SETTLE_AFTER_S) as exchange, tempfile.TemporaryDirectory() as folder:
            exchange.control("POST", "/options", {"enforce_credits": False})
            env = environment(exchange.info["airflow_connection"], Path(folder))
            with LocalAirflow(
                DAGS, env=env, heartbeat_timeout_s=15, parallelism=10, execution_api_apart=True, keep_home=options.keep
            ) as airflow:
                return _run(Chaos(TestCluster(airflow, exchange, Path(folder)), options.seed), options)
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
    verdict = Checker(chaos.cluster, chaos.withdrawals).verdict()
    verdict |= {"seed": options.seed, "minutes": options.minutes, "runs": len(chaos.runs)}
    verdict["trouble"] = dict(sorted(chaos.nemesis.done.items()))
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
