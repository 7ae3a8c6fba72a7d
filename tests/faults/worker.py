"""
One try of a task in a process of its own, to be killed, frozen or overtaken: ``python -m tests.faults.worker CONFIG``.

CONFIG is JSON: ``sandbox`` (base_url, control_url, account, agent_private_key), ``ledger`` (a folder), ``fenced``,
``try_number``, ``run_after_ms``, ``harness`` (its fields) and ``at`` (``kill``, ``stop`` or ``wait`` at a failpoint).
The last line of stdout is the receipt or the error, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.request
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pacifica_provider.exceptions import PacificaError
from pacifica_provider.withdrawals import failpoints
from pacifica_provider.withdrawals.ledger import LedgerUnavailableError
from tests.support.harness import BenchClock, MemoryLedger, ProtocolHarness

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pacifica_provider.sandbox import Sandbox


class RemoteSandbox:
    """The part of a sandbox that a harness needs, over HTTP."""

    def __init__(self, *, base_url: str, control_url: str, account: str, agent_private_key: str) -> None:
        self.base_url = base_url
        self.account = account
        self.agent_private_key = agent_private_key
        self._control_url = control_url

    def control(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Make a call of the control interface."""
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._control_url + path, data, method=method)  # noqa: S310 - loopback http
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - as above
            return dict(json.load(answer))


class SharedClock(BenchClock):
    """One wall clock for all processes: real time and what any of them has slept."""

    def now_ms(self) -> int:
        """Return the time that every process has."""
        return int(self._sandbox.control("GET", "/clock")["now_ms"]) + self.skew_ms

    def sleep_s(self, seconds: float) -> None:
        """Let time pass everywhere."""
        self.slept_s += seconds
        offset_ms = self._sandbox.control("GET", "/clock")["offset_ms"] + int(seconds * 1000)
        self._sandbox.control("POST", "/clock", {"offset_ms": offset_ms})


class FileLedger(MemoryLedger):
    """
    A ledger in a folder that outlives the process, one file an entry.

    With a fence, a try that is not the latest in ``holder`` is treated as Airflow treats a replaced one: its writes
    fail, and its reads do not.
    """

    def __init__(self, folder: Path, *, fenced: bool, try_number: int) -> None:
        super().__init__(fenced=fenced)
        self._folder = folder
        self._try_number = try_number
        self.load()

    def load(self) -> None:
        """Read every entry from the folder."""
        self.entries = {file.stem: file.read_text() for file in self._folder.glob("*.json")}

    def get(self, name: str, /) -> object | None:
        """Return the entry."""
        self.load()
        return super().get(name)

    def set(self, name: str, value: Mapping[str, Any], /) -> None:
        """Write the entry as one whole."""
        if self._replaced():
            raise LedgerUnavailableError("task instance not found")
        super().set(name, value)
        new = self._folder / f"{name}.{os.getpid()}"
        new.write_text(self.entries[name])
        new.replace(self._folder / f"{name}.json")

    def delete(self, name: str, /) -> None:
        """Remove the entry."""
        super().delete(name)
        (self._folder / f"{name}.json").unlink(missing_ok=True)

    def _replaced(self) -> bool:
        holder = self._folder / "holder"
        return self.fenced and holder.exists() and int(holder.read_text()) > self._try_number


def attached(config: Mapping[str, Any]) -> ProtocolHarness:
    """Return a harness on a sandbox of another process."""
    sandbox = RemoteSandbox(**config["sandbox"])
    ledger = FileLedger(Path(config["ledger"]), fenced=config["fenced"], try_number=config["try_number"])
    # It has all that a harness on the bench asks of the sandbox.
    harness = ProtocolHarness(
        cast("Sandbox", sandbox), store=ledger, try_number=config["try_number"] - 1, **config["harness"]
    )
    harness.clock = SharedClock(cast("Sandbox", sandbox))
    harness.run_after_ms = config["run_after_ms"]
    return harness


def handler(at: Mapping[str, str]) -> Callable[[str], None]:
    """Return what happens at the failpoints."""

    def reached(point: str) -> None:
        action = at.get(point)
        if action is not None:
            print(json.dumps({"reached": point}), flush=True)  # noqa: T201 - the parent process reads it
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        elif action == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif action == "wait":
            sys.stdin.readline()

    return reached


def main(config: Mapping[str, Any]) -> dict[str, Any]:
    """Run the try and return what it came to."""
    harness = attached(config)
    failpoints.install(handler(config["at"]))
    try:
        receipt = asdict(harness.try_once())
    except PacificaError as error:
        return {"error": type(error).__name__, "text": str(error), "key": error.idempotency_key}
    return {**receipt, "requested_amount": str(receipt["requested_amount"]), "fee_amount": str(receipt["fee_amount"])}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))), flush=True)  # noqa: T201 - the parent process reads it
