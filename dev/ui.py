"""The sandbox and an Airflow with its web page, until Ctrl-C: ``python -m dev.ui``."""

from __future__ import annotations

import sys
import time

from dev import processes
from dev.airflow_rest import AirflowFailed
from dev.local_airflow import LocalAirflow
from dev.local_sandbox import ROOT, LocalSandbox, SandboxFailed

PORT = 8080
SETTLE_AFTER_S = 20

GUIDE = """
Airflow   {airflow}
          no sign-in; nothing here outlives Ctrl-C
Try       {airflow}/dags/example_withdraw
          "Trigger" (top right): the run withdraws once; wait_until_settled ends {settle} s later.
          Task "withdraw", tab "XCom": the receipt. Clear the task: it adopts the same withdrawal.
          {airflow}/connections
          "Add Connection", type Pacifica: the form. The connection in use, pacifica_default,
          comes from the environment and is not listed there.
Exchange  {base_url}  (a sandbox; its money is not real)
          {control_url}/ledger: every debit

Ctrl-C stops everything.
"""


def main() -> int:
    """Serve until interrupted and return the exit status."""
    try:
        with processes.INTERRUPTIONS, LocalSandbox(SETTLE_AFTER_S) as sandbox:
            connection = {"AIRFLOW_CONN_PACIFICA_DEFAULT": sandbox.info["airflow_connection"]}
            print("starting (15 s)", flush=True)
            with LocalAirflow(ROOT / "dags_examples", env=connection, port=PORT) as airflow:
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
