"""A real Redis from a script, as Celery's broker: the server is Debian's, its data are thrown away."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from typing import TYPE_CHECKING
from uuid import uuid4

from tests.lab.airflow_settings import HOST, free_port

if TYPE_CHECKING:
    from pathlib import Path

QUEUE = "default"  # [operators] default_queue
TASK_INSTANCE = re.compile(r'"id":"([0-9a-f-]{36})"')
# What was acknowledged survives a SIGKILL: it lies in the system's memory by then. Nothing has to outlive a power cut.
OPTIONS = ("--bind", HOST, "--save", "", "--appendonly", "yes", "--appendfsync", "everysec")


class RedisFailed(RuntimeError):
    """Redis did not answer, or not as expected; the message is what redis-cli printed."""


class LocalRedis:
    """
    One broker on a free port of loopback, its file in ``folder``.

    Whoever makes it starts ``command`` and ends it; ``url`` is what Airflow is told.
    """

    def __init__(self, folder: Path) -> None:
        self._port = str(free_port())
        self.url = f"redis://{HOST}:{self._port}/0"
        self.command = ["redis-server", "--port", self._port, "--dir", str(folder), *OPTIONS]

    def answers(self) -> bool:
        """Tell whether the server is up."""
        try:
            return self._ask("PING") == "PONG"
        except RedisFailed:
            return False

    def messages(self) -> list[str]:
        """Return every message that waits for a worker, or that one has and did not acknowledge yet."""
        waiting = self._ask("LRANGE", QUEUE, "0", "-1").splitlines()
        taken = [json.loads(line)[0] for line in self._ask("HVALS", "unacked").splitlines() if line]
        return [*filter(None, waiting), *(json.dumps(each) for each in taken)]

    def publish(self, message: str) -> None:
        """Put the message into the queue once more, to be delivered and acknowledged by itself."""
        copy = json.loads(message)
        copy["properties"]["delivery_tag"] = str(uuid4())
        self._ask("LPUSH", QUEUE, json.dumps(copy))

    def _ask(self, *words: str) -> str:
        command = ["redis-cli", "-h", HOST, "-p", self._port, "-e", *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except subprocess.TimeoutExpired as error:
            raise RedisFailed(str(error)) from error
        if done.returncode:
            raise RedisFailed(f"redis-cli ended with status {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout.rstrip("\n")


def task_instance_of(message: str) -> str:
    """Return the id of the task instance that a message orders to be run."""
    body = base64.b64decode(json.loads(message)["body"]).decode()
    ((workload, *_), *_rest) = json.loads(body)
    found = TASK_INSTANCE.search(workload)
    if found is None:
        raise RedisFailed(f"this message orders no task: {workload[:300]}")
    return found[1]
