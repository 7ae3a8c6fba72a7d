"""What the tests of the harness itself run."""

from __future__ import annotations

import time
from datetime import timedelta

from airflow.sdk import dag, task


@dag(schedule=None, catchup=False)
def harness() -> None:
    """Return one amount as text."""

    @task
    def amount() -> str:
        print("counting")  # the log is what the test reads
        return "12.50"

    amount()


@dag(schedule=None, catchup=False)
def harness_slow() -> None:
    """Sleep at the first try, return at the second."""

    @task(retries=1, retry_delay=timedelta(seconds=0))
    def sleep(ti: object = None) -> int:
        try_number = int(getattr(ti, "try_number", 1))
        time.sleep(120 if try_number == 1 else 0)
        return try_number

    sleep()


harness()
harness_slow()
