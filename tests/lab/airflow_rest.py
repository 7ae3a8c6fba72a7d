"""Airflow's REST API, as far as tests and the demo need it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

import httpx

from tests.support.airflow_line import AIRFLOW

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

# Where the ledger is, as docs/unknown.md tells a person.
KEEPS_ASSET_STATE = AIRFLOW >= (3, 3)
LEDGER_ASSET = "pacifica_withdrawals"
VARIABLE_PREFIX = "pacifica_"
FINAL_STATES = ("success", "failed")
NOT_FOUND = 404
POLL_S = 0.3
PAGE = 100  # [api] maximum_page_limit


class AirflowFailed(RuntimeError):
    """Airflow did not do what was asked of it; the message ends with the tail of the logs that tell why."""


class RestRefused(AirflowFailed):
    """The API answered with an error; ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class AirflowRest:
    """Calls on a running Airflow. Every wait has its time limit and fails by raising AirflowFailed."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.poll_s = POLL_S
        self._http = httpx.Client(base_url=base_url, timeout=30, trust_env=False)
        self._token = ""

    def check_alive(self) -> None:
        """Raise AirflowFailed if waiting is pointless. A hook for who knows the processes."""

    def fail(self, message: str) -> NoReturn:
        """Raise AirflowFailed. A hook for who can add logs."""
        raise AirflowFailed(message)

    def rest(self, method: str, path: str, body: object = None, *, root: str = "/api/v2", **params: str | int) -> Any:
        """Call ``path`` below ``root`` and return the answer's JSON (None where it is empty)."""
        if not self._token:
            self._token = self._http.get("/auth/token").raise_for_status().json()["access_token"]
        headers = {"Authorization": f"Bearer {self._token}"}
        answer = self._http.request(method, f"{root}{path}", json=body, params=params, headers=headers)
        if answer.is_error:
            message = f"{method} {path}: {answer.status_code} {answer.text[:2000]}"
            raise RestRefused(message, answer.status_code)
        return answer.json() if answer.content else None

    def trigger(
        self,
        dag_id: str,
        conf: Mapping[str, object] | None = None,
        run_id: str | None = None,
        logical_date: str | None = None,
        timeout_s: float = 60,
    ) -> str:
        """Start a run and return its id. Waits until the DAG is parsed, and unpauses it."""
        self.unpause(dag_id, timeout_s)
        body = {"logical_date": logical_date, "conf": dict(conf or {})}
        if run_id is not None:
            body["dag_run_id"] = run_id
        return str(self.rest("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def unpause(self, dag_id: str, timeout_s: float = 60) -> None:
        """Wait until the DAG is parsed, and unpause it."""
        self.wait_dag(dag_id, timeout_s)
        self.rest("PATCH", f"/dags/{dag_id}", {"is_paused": False}, update_mask="is_paused")

    def wait_dag(self, dag_id: str, timeout_s: float = 60) -> None:
        """Wait until the DAG is parsed."""
        self.wait_until(lambda: self._found(f"/dags/{dag_id}") is not None, timeout_s, f"DAG {dag_id} to be parsed")

    def wait_run(self, dag_id: str, run_id: str, timeout_s: float = 120, states: Collection[str] = FINAL_STATES) -> str:
        """Wait until the run is in one of ``states`` and return which."""
        return self._wait_state(_run(dag_id, run_id), states, timeout_s)

    def wait_task_state(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        states: Collection[str] = FINAL_STATES,
        *,
        timeout_s: float = 120,
        map_index: int = -1,
        try_number: int = 0,
    ) -> str:
        """Wait until the task instance is in one of ``states`` at ``try_number`` or later; return which."""
        path = _task(dag_id, run_id, task_id, map_index)
        return self._wait_state(path, states, timeout_s, lambda each: each["try_number"] >= try_number)

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return every task instance of the run."""
        found: list[dict[str, Any]] = []
        while True:
            path = f"{_run(dag_id, run_id)}/taskInstances"
            page = self.rest("GET", path, limit=PAGE, offset=len(found), order_by="map_index")
            found += page["task_instances"]
            if len(found) >= page["total_entries"] or not page["task_instances"]:
                return found

    def task_instance(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, Any]:
        """Return one task instance with its rendered fields, which lists before Airflow 3.3 leave out."""
        return dict(self.rest("GET", _task(dag_id, run_id, task_id, map_index)))

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return the XCom's value; RestRefused with status 404 if there is none."""
        path = f"{_task(dag_id, run_id, task_id)}/xcomEntries/{quote(key, safe='')}"
        # Not deserialize=true: with it the text "12.50" comes back as the number 12.5 (seen on 3.1.8 and 3.3.2).
        return self.rest("GET", path, map_index=map_index)["value"]

    def clear(
        self, dag_id: str, run_id: str, task_ids: Sequence[str] | None = None, **options: bool
    ) -> list[dict[str, Any]]:
        """Clear tasks of the run (all, unless named) so that they run again; return what was cleared.

        ``options`` are the API's: only_failed (here False unless given), include_downstream, ...
        """
        body: dict[str, object] = {"dag_run_id": run_id, "dry_run": False, "only_failed": False, **options}
        if task_ids is not None:
            body["task_ids"] = list(task_ids)
        cleared = self.rest("POST", f"/dags/{dag_id}/clearTaskInstances", body)
        return list(cleared["task_instances"])

    def set_state(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> None:
        """Mark the task instance ``success``, ``failed`` or ``skipped``, as a person would."""
        self.rest("PATCH", _task(dag_id, run_id, task_id, map_index), {"new_state": state})

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """Return the try's log as lines of text; values beside a message are kept as key=value."""
        path = f"{_task(dag_id, run_id, task_id)}/logs/{try_number}"
        answer = self.rest("GET", path, map_index=map_index, full_content="true")
        return "\n".join(_line(each) for each in answer["content"])

    def task_tries(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> list[dict[str, Any]]:
        """Return every try Airflow has kept, the oldest first; its count may have skipped a number (seen on 3.3.2)."""
        found = self.rest("GET", f"{_task(dag_id, run_id, task_id, map_index)}/tries")["task_instances"]
        return sorted(found, key=lambda each: int(each["try_number"]))

    def entry(self, name: str) -> Any:
        """Return an entry of the ledger, wherever this Airflow keeps it, None if there is none."""
        found = self._found(self._entry(name))
        if found is None:
            return None
        return found["value"] if KEEPS_ASSET_STATE else json.loads(found["value"])

    def entries(self) -> dict[str, Any]:
        """Return every entry of the ledger by its name. Airflow 3.3 or later."""
        found: dict[str, Any] = {}
        while True:
            page = self.rest("GET", self._entry(""), limit=PAGE, offset=len(found))
            found |= {each["key"]: each["value"] for each in page["asset_state_store"]}
            if len(found) >= page["total_entries"] or not page["asset_state_store"]:
                return found

    def put_entry(self, name: str, value: object) -> None:
        """Write an entry."""
        if KEEPS_ASSET_STATE:
            self.rest("PUT", self._entry(name), {"value": value})
            return
        self.delete_entry(name)
        self.rest("POST", "/variables", {"key": VARIABLE_PREFIX + name, "value": json.dumps(value, sort_keys=True)})

    def delete_entry(self, name: str) -> None:
        """Delete an entry; no error if there is none."""
        if KEEPS_ASSET_STATE or self._found(self._entry(name)) is not None:
            self.rest("DELETE", self._entry(name))

    def _entry(self, name: str) -> str:
        if not KEEPS_ASSET_STATE:
            return f"/variables/{quote(VARIABLE_PREFIX + name, safe='')}"
        (found,) = self.rest("GET", "/assets", name_pattern=LEDGER_ASSET)["assets"]
        return f"/assets/{found['id']}/state-store/{quote(name, safe='')}".rstrip("/")

    def wait_until(self, condition: Callable[[], object], timeout_s: float, what: str) -> None:
        """Wait until ``condition`` returns something true."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.check_alive()
            if time.monotonic() > deadline:
                self.fail(f"waited {timeout_s:g} s for {what}")
            time.sleep(self.poll_s)

    def _wait_state(
        self,
        path: str,
        states: Collection[str],
        timeout_s: float,
        also: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> str:
        seen: dict[str, Any] = {}

        def reached() -> bool:
            if (now := self._found(path)) is not None:
                seen.update(now)
            return now is not None and seen["state"] in states and also(seen)

        try:
            self.wait_until(reached, timeout_s, f"{path} to be one of {list(states)}")
        except AirflowFailed as error:
            error.args = (f"{path} is {seen.get('state')}; {error}",)
            raise
        return str(seen["state"])

    def _found(self, path: str) -> dict[str, Any] | None:
        """Return what is at ``path``, None if there is nothing."""
        try:
            found: dict[str, Any] = self.rest("GET", path)
        except RestRefused as error:
            if error.status == NOT_FOUND:
                return None
            raise
        return found


def _run(dag_id: str, run_id: str) -> str:
    return f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"


def _task(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
    path = f"{_run(dag_id, run_id)}/taskInstances/{task_id}"
    return path if map_index < 0 else f"{path}/{map_index}"


def _line(entry: object) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    extras = {name: entry[name] for name in entry if name not in ("timestamp", "level", "event", "logger")}
    beside = " ".join(f"{name}={value}" for name, value in extras.items())
    return f"{entry.get('timestamp') or ''} {entry.get('level') or ''} {entry.get('event')} {beside}".strip()
