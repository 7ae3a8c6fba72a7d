"""The sandbox exchange as a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil

from tests.lab import processes

if TYPE_CHECKING:
    import subprocess
    from typing import Self

READY_TIMEOUT_S = 30
ROOT = Path(__file__).resolve().parents[2]


class SandboxFailed(RuntimeError):
    """The sandbox did not get ready; the message ends with what it printed."""


class LocalSandbox:
    """Context manager: ``python -m pacifica_provider.sandbox``, ready when entered, gone when left.

    Entering raises SandboxFailed if it is not ready in time. ``info`` is its ready line: base_url, account,
    airflow_connection and so on. With ``settle_after_s`` None a withdrawal settles only by ``POST /settle``.
    """

    def __init__(self, settle_after_s: float | None = None) -> None:
        self._options = [] if settle_after_s is None else ["--settle-after", f"{settle_after_s:g}"]
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path()
        self.info: dict[str, Any] = {}

    def __enter__(self) -> Self:
        processes.INTERRUPTIONS.__enter__()
        try:
            with processes.INTERRUPTIONS.held():
                self._folder = Path(tempfile.mkdtemp(prefix="pacifica-sandbox-"))
            log = self._folder / "sandbox.log"
            command = [sys.executable, "-m", "pacifica_provider.sandbox", *self._options]
            self._process = processes.start(command, cwd=ROOT, env=os.environ, log=log)
            self._wait_until_ready(log)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            with processes.INTERRUPTIONS.held():
                if self._process is not None:
                    processes.end(self._still_running)
                    self._process.wait()
                if self._folder != Path():
                    shutil.rmtree(self._folder)
        finally:
            processes.INTERRUPTIONS.__exit__()

    def control(self, method: str, path: str, body: object = None) -> Any:
        """Call the control interface and return its JSON (None where the answer is empty)."""
        answer = httpx.request(method, self.info["control_url"] + path, json=body, timeout=10, trust_env=False)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def debits(self) -> list[dict[str, Any]]:
        """Return every withdrawal that really took money."""
        return list(self.control("GET", "/ledger")["debits"])

    def _still_running(self) -> list[psutil.Process]:
        process = self._process
        if process is None or process.poll() is not None:
            return []
        return [psutil.Process(process.pid), *processes.descendants(process.pid)]

    def _wait_until_ready(self, log: Path) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self.info:
            lines = log.read_text(errors="replace").splitlines(keepends=True)
            ready = [line for line in lines if line.startswith("{") and line.endswith("\n")]
            if ready:
                self.info = json.loads(ready[0])
            elif time.monotonic() > deadline or not self._still_running():
                raise SandboxFailed("the sandbox did not get ready:\n" + "".join(lines[-40:]))
            else:
                time.sleep(0.05)
