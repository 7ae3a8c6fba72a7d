"""The environment a local Airflow runs in: everything it needs, nothing of the user's own Airflow."""

from __future__ import annotations

import os
import secrets
import socket
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HOST = "127.0.0.1"
ALONE = ("dag-processor", "scheduler", "triggerer")
CLUSTER = (*ALONE, "scheduler-2", "triggerer-2", "worker", "worker-2")
# Inherited settings would reach into the test: AIRFLOW_HOME, AIRFLOW_CONN_*, AIRFLOW__*, and what doubles start-up.
FOREIGN = ("AIRFLOW", "_AIRFLOW", "PYTHONDONTWRITEBYTECODE")


@dataclass(frozen=True)
class Settings:
    """
    What one local Airflow is told.

    ``heartbeat_timeout_s`` None leaves Airflow's own 300 s; with ``execution_port`` the tasks have an API server apart;
    with ``broker_url`` they are run by Celery's workers, each of them ``parallelism`` at once.
    """

    home: Path
    dags_folder: Path
    port: int
    database_url: str
    env: Mapping[str, str] = field(default_factory=dict)
    parallelism: int = 4
    heartbeat_timeout_s: int | None = None
    schedules: bool = False
    execution_port: int | None = None
    broker_url: str | None = None

    def environment(self) -> dict[str, str]:
        """Return the children's whole environment; ``env`` has the last word."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        own = {f"AIRFLOW__{name}": value for name, value in self._airflow().items()}
        local = f"{HOST},localhost"
        return {
            **inherited,
            "AIRFLOW_HOME": str(self.home),
            # Temporary folders of tasks lie inside too, so that they go with the rest.
            "TMPDIR": str(self.home / "tmp"),
            "NO_PROXY": local,
            "no_proxy": local,
            **own,
            **self.env,
        }

    def _airflow(self) -> dict[str, str]:
        url = f"http://{HOST}:{self.port}"
        settings = {
            "API__BASE_URL": url,
            "API__HOST": HOST,
            "API__PORT": str(self.port),
            "API__SECRET_KEY": secrets.token_hex(16),
            "API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "CORE__DAGS_FOLDER": str(self.dags_folder),
            "CORE__EXECUTION_API_SERVER_URL": f"http://{HOST}:{self.execution_port or self.port}/execution/",
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__FERNET_KEY": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__PARALLELISM": str(self.parallelism),
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            # The API server starts beside `db migrate` and must not insist on its end.
            "DATABASE__CHECK_MIGRATIONS": "False",
            # Unpausing a daily DAG makes a scheduled run at once, also with catchup=False: with
            # example_withdraw that is a second withdrawal, before the triggered one (seen on 3.3.2).
            "SCHEDULER__USE_JOB_SCHEDULE": str(self.schedules),
            "DATABASE__SQL_ALCHEMY_CONN": self.database_url,
            # The first request builds the routers, 6 to 8 s, more on a busy machine; the default is 5 s.
            "WORKERS__EXECUTION_API_TIMEOUT": "60",
        }
        if self.heartbeat_timeout_s is not None:
            # A dead worker is found after 15 to 35 s with a timeout of 15 s and these intervals (measured).
            settings |= {
                "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(self.heartbeat_timeout_s),
                "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
                "WORKERS__MIN_HEARTBEAT_INTERVAL": "3",
            }
        if self.broker_url is not None:
            settings |= self._celery(self.broker_url)
        return settings

    def _celery(self, broker_url: str) -> dict[str, str]:
        """Return what Celery needs, with limits that are met within seconds instead of minutes."""
        return {
            "CORE__EXECUTOR": "CeleryExecutor",
            "CORE__PARALLELISM": str(4 * self.parallelism),
            "CELERY__BROKER_URL": broker_url,
            "CELERY__RESULT_BACKEND": f"db+{self.database_url}",
            "CELERY__WORKER_CONCURRENCY": str(self.parallelism),
            # A message that a worker has not acknowledged after so long is given to another one.
            "CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "20",
            # A task whose message was lost is sent anew, as docs/clusters.md has it. A message that waits longer for a
            # free worker is refused by the API: its token has expired by then.
            "SCHEDULER__TASK_QUEUED_TIMEOUT": "120",
            "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
            # A dead scheduler's tasks are taken over by the other one.
            "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
            "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
        }


def components(execution_port: int | None) -> dict[str, tuple[str, ...]]:
    """Return each component's name and what follows ``airflow`` to start it."""
    alone = {"api-server": ("api-server",)}
    apart = {
        "api-server": ("api-server", "--apps", "core"),
        "execution-api": ("api-server", "--apps", "execution", "--port", str(execution_port)),
    }
    # Each of the others would serve logs on a port of its own; here the API server reads the files.
    scheduler, triggerer = ("scheduler", "--skip-serve-logs"), ("triggerer", "--skip-serve-logs")
    worker = ("celery", "worker", "--skip-serve-logs", "--celery-hostname")
    return {
        **(alone if execution_port is None else apart),
        "dag-processor": ("dag-processor",),
        "scheduler": scheduler,
        "scheduler-2": scheduler,
        "triggerer": triggerer,
        "triggerer-2": triggerer,
        "worker": (*worker, "worker"),
        "worker-2": (*worker, "worker-2"),
    }


def free_port(wanted: int = 0) -> int:
    """Return ``wanted`` if it is free on loopback, else some other free port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError:
            probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
