"""The sandbox and an Airflow with its web page, until Ctrl-C: ``python -m dev.ui``."""

from __future__ import annotations

import sys
import time
from typing import Any

from tests.lab import processes
from tests.lab.airflow_rest import AirflowFailed
from tests.lab.local_airflow import LocalAirflow
from tests.lab.local_sandbox import ROOT, LocalSandbox, SandboxFailed

PORT = 8080
SETTLE_AFTER_S = 20

GUIDE = """
Airflow   {airflow}
          no sign-in; nothing here outlives Ctrl-C
Withdraw  {airflow}/dags/example_withdraw
          "Trigger" (top right), and once more: the run withdraws once; wait_until_settled ends {settle} s later.
          Its task "withdraw": "Storage" has the receipt, "Details" the links. Clear it (the arrow
          beside "Success"): it returns the same receipt and sends nothing.
          DAGs with a schedule, as example_withdraw_mapped, also make a run of their own once they are unpaused.
Events    {airflow}/dags/example_withdrawal_events and
          {airflow}/dags/example_withdrawal_outlets_reader
          Unpause them (top left), give Airflow a minute, then trigger example_withdrawal_outlets:
          each makes a run once it has settled.
Connect   {airflow}/connections
          "Add Connection", type Pacifica: the form. Environment custom with the base URL below leads to the sandbox;
          with port 0 the Test button works. pacifica_default is not listed: it comes from the environment.
Ledger    {airflow}/assets
          pacifica_withdrawals, its second tab: every record, and where a person's decision is left.
Exchange  {base_url}  (a sandbox; its money is not real)
          {control_url}/ledger: every debit

Ctrl-C stops everything.
"""


def main() -> int:
    """Serve until interrupted and return the exit status."""
    try:
        with processes.INTERRUPTIONS, LocalSandbox(SETTLE_AFTER_S) as sandbox:
            env = {
                "AIRFLOW_CONN_PACIFICA_DEFAULT": sandbox.info["airflow_connection"],
                "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            }
            print("starting (20 s)", flush=True)
            options: dict[str, Any] = {"env": env, "port": PORT, "schedules": True, "execution_api_apart": True}
            with LocalAirflow(ROOT / "dags_examples", **options) as airflow:
                urls = {each: sandbox.info[each] for each in ("base_url", "control_url")}
                print(GUIDE.format(airflow=airflow.base_url, settle=SETTLE_AFTER_S, **urls), flush=True)
                while True:
                    airflow.check_alive()
                    time.sleep(1)
    except processes.Interrupted:
        print("stopped", flush=True)
        return 0
    except (AirflowFailed, SandboxFailed) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
