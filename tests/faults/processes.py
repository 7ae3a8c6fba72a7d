"""Tries of one task in processes of their own, on the sandbox of the test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults.worker import FileLedger, SharedClock
from tests.support.harness import ProtocolHarness
from tests.support.patience import PATIENCE_S

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox

ROOT = Path(__file__).parents[2]


@dataclass
class Task:
    """A task instance whose tries are processes; its ledger is a folder, and time is the sandbox's for all of them."""

    sandbox: Sandbox
    folder: Path
    fenced: bool = True
    fields: dict[str, Any] = field(default_factory=lambda: {"timeout_s": 5.0})
    try_number: int = 0
    children: list[subprocess.Popen[str]] = field(default_factory=list)

    def harness(self) -> ProtocolHarness:
        """Return the next try, to be run in this process; it replaces every try before it."""
        self.replace()
        ledger = FileLedger(self.folder, fenced=self.fenced, try_number=self.try_number)
        harness = ProtocolHarness(self.sandbox, store=ledger, try_number=self.try_number - 1, **self.fields)
        harness.clock = SharedClock(self.sandbox)
        return harness

    def start(self, at: dict[str, str]) -> subprocess.Popen[str]:
        """Start the next try in a process; it replaces every try before it."""
        self.replace()
        config = {
            "sandbox": {
                name: getattr(self.sandbox, name)
                for name in ("base_url", "control_url", "account", "agent_private_key")
            },
            "ledger": str(self.folder),
            "fenced": self.fenced,
            "try_number": self.try_number,
            "harness": self.fields,
            "run_after_ms": int(self.sandbox.control("GET", "/clock")["now_ms"]) - 1000,
            "at": at,
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.worker", json.dumps(config)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.children.append(child)
        return child

    def end(self) -> None:
        """Kill what is left, frozen or not."""
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signal.SIGCONT)
                child.kill()
            child.communicate()

    def replace(self) -> None:
        """Replace the try that runs, as Airflow does when it takes its worker for dead; the next one may come later."""
        self.try_number += 1
        (self.folder / "holder").write_text(str(self.try_number))


def reached(child: subprocess.Popen[str]) -> str:
    """Wait until the child comes to a failpoint, and return its name."""
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line, child.stderr.read() if child.stderr else ""
    return str(json.loads(line)["reached"])


def go(child: subprocess.Popen[str]) -> subprocess.Popen[str]:
    """Let a child go on that waits at a failpoint."""
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()
    return child


def result(child: subprocess.Popen[str]) -> dict[str, Any]:
    """Let the child end, and return what its try came to."""
    out, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0, err
    return dict(json.loads(out.splitlines()[-1]))


def killed_by(child: subprocess.Popen[str]) -> str:
    """Wait for the child's end and return the signal that ended it."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=PATIENCE_S)
    return signal.Signals(-(child.returncode or 0)).name
