"""A real Airflow from a script: its own processes, its own folder, gone without a trace afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import httpx
import psutil

from tests.lab import processes, task_processes
from tests.lab.airflow_rest import AirflowFailed, AirflowRest
from tests.lab.airflow_settings import ALONE, HOST, Settings, free_port
from tests.lab.airflow_settings import components as known_components
from tests.lab.local_postgres import LocalPostgres
from tests.lab.local_redis import LocalRedis

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Self

HEALTH_NAMES = {"scheduler": "scheduler", "triggerer": "triggerer", "dag-processor": "dag_processor"}
AIRFLOW = Path(sys.executable).parent / "airflow"
START_TIMEOUT_S = 120
TAIL_LINES = 40


class LocalAirflow(AirflowRest):
    """Context manager: Airflow with LocalExecutor, or CeleryExecutor, and a PostgreSQL of its own.

    Entering returns when every component is healthy, or raises AirflowFailed with the tail of their logs.
    Leaving, by whatever way, ends every process it started and removes its folder (unless ``keep_home``).
    While entered, INT, TERM and HUP raise ``processes.Interrupted`` in the main thread.

    :param env: more environment for every component, such as ``AIRFLOW_CONN_PACIFICA_DEFAULT``.
    :param parallelism: LocalExecutor's workers, or those of each Celery worker.
    :param heartbeat_timeout_s: after how long a task without heartbeat is given up; 15 for tests that kill.
    :param schedules: whether DAGs run by their schedule too; without, only what is triggered runs.
    :param components: what to start besides the API server; with a worker among them, Celery's Redis too.
    :param port: of the API server and web page; a free one if that is taken.
    :param execution_api_apart: give the tasks an API server of their own, so that it can be away alone.
    """

    def __init__(
        self,
        dags_folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        parallelism: int = 4,
        heartbeat_timeout_s: int | None = None,
        schedules: bool = False,
        components: Sequence[str] = ALONE,
        port: int = 0,
        keep_home: bool = False,
        execution_api_apart: bool = False,
    ) -> None:
        execution_port = free_port() if execution_api_apart else None
        self._settings = partial(
            Settings,
            dags_folder=dags_folder.resolve(),
            env=dict(env or {}),
            parallelism=parallelism,
            heartbeat_timeout_s=heartbeat_timeout_s,
            schedules=schedules,
            execution_port=execution_port,
        )
        self._components = known_components(execution_port)
        self._servers = [each for each in self._components if each in ("api-server", "execution-api")]
        self._wanted = components
        self.redis: LocalRedis | None = None
        self._port = free_port(port)
        self._execution_url = f"http://{HOST}:{execution_port or self._port}/execution/health"
        self._keep_home = keep_home
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, str] = {}
        self._environment: dict[str, str] = {}
        self.home = Path()
        super().__init__(f"http://{HOST}:{self._port}")

    def __enter__(self) -> Self:
        processes.INTERRUPTIONS.__enter__()
        try:
            with processes.INTERRUPTIONS.held():
                processes.adopt_orphans()
                # Resolved, as working directories are compared with it.
                self.home = Path(tempfile.mkdtemp(prefix="pacifica-airflow-")).resolve()
                (self.home / "tmp").mkdir()
            self.database = LocalPostgres(self.home / "postgres")
            if "worker" in self._wanted:
                self.redis = LocalRedis(self.home)
            settings = self._settings(
                home=self.home,
                port=self._port,
                database_url=self.database.url,
                broker_url=None if self.redis is None else self.redis.url,
            )
            self._environment = settings.environment()
            self._start_all()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            with processes.INTERRUPTIONS.held():
                self._stop_all()
        finally:
            processes.INTERRUPTIONS.__exit__()

    def log(self, component: str) -> str:
        """Return what the component has printed so far."""
        path = self.home / f"{component}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self, component: str) -> None:
        """Start a component, the first time or after ``kill``. Does not wait until it is healthy."""
        # In the form of the health report's heartbeats, to be compared with them as text.
        self._started[component] = datetime.now(UTC).isoformat()
        self._running[component] = self._launch(component, self._command(component))

    @property
    def running(self) -> list[str]:
        """The names of what was started and not killed, the database and Redis included."""
        return sorted(self._running)

    def ended(self) -> list[str]:
        """Return, and forget, the components that have ended without being killed."""
        gone = [name for name, process in self._running.items() if process.poll() is not None]
        for name in gone:
            del self._running[name]
        return gone

    def kill(self, component: str, signum: int = signal.SIGKILL, *, tree: bool = False) -> None:
        """Send the component's main process a signal and wait for its end, 30 s at most.

        With ``tree`` its descendants get it too; without, they live on as orphans do: tasks go on running.
        """
        process = self._running.pop(component)
        below = processes.descendants(process.pid) if tree else []
        for each in (psutil.Process(process.pid), *below):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(signum)
        process.wait(timeout=30)

    def pids(self, component: str) -> list[int]:
        """Return the component's process ids, the main one first."""
        main = self._running[component].pid
        return [main, *(each.pid for each in processes.descendants(main))]

    def wait_healthy(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until every running component is healthy, by a heartbeat of its own, not of one killed before."""
        wanted = {HEALTH_NAMES[each]: self._started[each] for each in self._running if each in HEALTH_NAMES}

        def healthy() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                report = self._http.get("/api/v2/monitor/health").raise_for_status().json()
                return all(
                    report[name]["status"] == "healthy" and (report[name][f"latest_{name}_heartbeat"] or "") > since
                    for name, since in wanted.items()
                )
            return False

        self.wait_until(healthy, timeout_s, f"{[*wanted]} to be healthy")

    def wait_execution_api(self) -> None:
        """Wait until tasks are answered. The first request takes longer than their client waits, so it is made here."""
        self.wait_until(self._execution_api_answers, START_TIMEOUT_S, "the execution API")

    def task_processes(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, timeout_s: float = 60
    ) -> task_processes.TaskProcesses:
        """Wait until the task has processes of its own and return them, to be killed."""
        found: list[task_processes.TaskProcesses] = []

        def running() -> bool:
            tasks = self.task_instances(dag_id, run_id)
            ids = [t["id"] for t in tasks if (t["task_id"], t["map_index"]) == (task_id, map_index)]
            found[:] = task_processes.find(self.home, ids)
            return bool(found)

        self.wait_until(running, timeout_s, f"a process of {task_id}")
        return found[0]

    def working_on(self, task_instance_ids: Collection[str]) -> bool:
        """Tell whether a process works on one of these tries."""
        return task_processes.busy(self.home, task_instance_ids)

    def wait_scheduler_knows(self, dag_id: str, run_id: str, timeout_s: float) -> None:
        """
        Wait until the scheduler has read how the run's processes, all of which are ending, have ended.

        A task that is resumed before that is failed as "killed externally" (3 of 50 on a busy machine, 3.3.2). The
        scheduler's own line on it is no sign: where the task's row is locked it drops what it read (seen on 3.3.2).
        """
        ids = [each["id"] for each in self.task_instances(dag_id, run_id)]
        self.wait_until(lambda: not self.working_on(ids), timeout_s, f"the processes of {run_id} to have ended")
        self.wait_scheduler_loop(timeout_s)

    def wait_scheduler_loop(self, timeout_s: float) -> None:
        """Wait until the scheduler, which tells of a heartbeat at the end of a loop, has begun and ended one."""
        beats: set[str] = set()

        def three() -> bool:
            report = self._http.get("/api/v2/monitor/health").raise_for_status().json()
            beats.add(report["scheduler"]["latest_scheduler_heartbeat"])
            # The first may be from before this call, the second from a loop that had begun before it.
            return len(beats) >= 3

        self.wait_until(three, timeout_s, "three heartbeats of the scheduler")

    def command(self, program: str, *words: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run ``airflow …`` or ``python …`` in this Airflow's environment, as a person would paste it."""
        python = [sys.executable] if program == "python" else [sys.executable, str(AIRFLOW)]
        where: dict[str, Any] = {"cwd": self.home, "env": self._environment}
        return subprocess.run(
            [*python, *words], **where, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def check_alive(self) -> None:
        """Raise AirflowFailed if a component has ended that nobody killed."""
        for component, process in [*self._running.items()]:  # another thread may start one
            if process.poll() is not None:
                self.fail(f"{component} ended with status {process.returncode}")

    def fail(self, message: str) -> NoReturn:
        """Raise AirflowFailed with the last lines of every component's log."""
        tails = [f"--- {path.name}\n{_tail(path)}" for path in sorted(self.home.glob("*.log"))]
        raise AirflowFailed("\n".join([message, *tails]))

    def _command(self, component: str) -> list[str]:
        if component == "postgres":
            return self.database.command
        if component == "redis" and self.redis is not None:
            return self.redis.command
        return [sys.executable, str(AIRFLOW), *self._components[component]]

    def _start_all(self) -> None:
        self.database.create()
        self.start("postgres")
        if self.redis is not None:
            self.start("redis")
            self.wait_until(self.redis.answers, START_TIMEOUT_S, "Redis")
        self.wait_until(self.database.answers, START_TIMEOUT_S, "PostgreSQL")
        # Migrating and building the API take 6 s each, so they go side by side.
        migration = self._launch("db-migrate", [sys.executable, str(AIRFLOW), "db", "migrate"])
        for server in self._servers:
            self.start(server)
        self.wait_until(lambda: migration.poll() is not None, START_TIMEOUT_S, "airflow db migrate")
        if migration.returncode:
            self.fail(f"airflow db migrate ended with status {migration.returncode}")
        for component in self._wanted:
            self.start(component)
        self.wait_execution_api()
        self.wait_healthy()

    def _execution_api_answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return self._http.get(self._execution_url).is_success
        return False

    def _launch(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        return processes.start(command, cwd=self.home, env=self._environment, log=self.home / f"{name}.log")

    def _stop_all(self) -> None:
        self._http.close()
        if self.home == Path():
            return
        try:
            # The database last: whoever cannot reach it any more takes its time to end.
            processes.end(lambda: self._all_processes(database=False))
            processes.end(self._all_processes)
        finally:
            for process in self._running.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=1)
            self._running = {}
            if self._keep_home:
                print(f"kept: {self.home}", file=sys.stderr)
            else:
                self._remove_home()

    def _all_processes(self, *, database: bool = True) -> list[psutil.Process]:
        ours = {each.pid: each for each in processes.inside(self.home)}
        for process in self._running.values():
            ours.update((each.pid, each) for each in processes.descendants(process.pid))
        left_out = {os.getpid(), *(() if database or "postgres" not in self._running else self.pids("postgres"))}
        return [each for each in ours.values() if each.pid not in left_out]

    def _remove_home(self) -> None:
        # A file written between listing and removing makes rmtree fail: once more, then the error counts.
        for _ in range(3):
            shutil.rmtree(self.home, ignore_errors=True)
            if not self.home.exists():
                return
            time.sleep(0.1)
        shutil.rmtree(self.home)


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-TAIL_LINES:])
