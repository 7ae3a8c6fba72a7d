"""Programs that measure, each in a process of its own: lines of JSON come out, single lines of JSON go in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

ROOT = Path(__file__).resolve().parents[2]
# Inherited settings would reach into what is measured; the last one doubles every start.
FOREIGN = ("AIRFLOW", "_AIRFLOW", "PACIFICA", "PYTHON")


class BenchFailed(RuntimeError):
    """A part of the bench could not measure what it should."""


class Child:
    """
    ``python -m MODULE ARGUMENTS`` while the ``with`` block runs; it ends when its input does.

    :param arguments: one JSON value, the program's only argument.
    :param python: another interpreter than ours; it finds this tree too.
    """

    def __init__(
        self, module: str, arguments: object, *, python: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self._command = [str(python or sys.executable), "-m", module, json.dumps(arguments)]
        self._env = dict(env or {})
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=environment(self._env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        process = self._running()
        process.communicate()  # closes its input and reads what is left
        if process.returncode and exc_info[0] is None:
            raise BenchFailed(f"{self._command[2]} ended with status {process.returncode}")

    def read(self) -> Any:
        """Wait for its next line."""
        output = self._running().stdout
        line = output.readline() if output else ""
        if not line:
            raise BenchFailed(f"{self._command[2]} ended too early")
        return json.loads(line)

    def tell(self, value: object) -> None:
        """Send it a line."""
        to = self._running().stdin
        if to:
            to.write(json.dumps(value) + "\n")
            to.flush()

    def ask(self, value: object) -> Any:
        """Send it a line and return its answer."""
        self.tell(value)
        return self.read()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("enter it first")
        return self._process


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of whatever is measured: nothing of the user's Airflow, and this tree importable."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    local = "127.0.0.1,localhost"
    # Unit-test mode: an Airflow without its database, as in a triggerer's or a worker's process.
    airflow = {"AIRFLOW__CORE__UNIT_TEST_MODE": "True", "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    return {**inherited, "PYTHONPATH": str(ROOT), "NO_PROXY": local, "no_proxy": local, **airflow, **(more or {})}


class Parent:
    """
    In the child: the way back to whoever started it.

    Whatever else is printed, such as Airflow's log lines, goes to standard error from then on.
    """

    def __init__(self) -> None:
        self.wish: Any = json.loads(sys.argv[1])
        self._lines = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def say(self, value: object) -> None:
        """Print one line."""
        self._lines.write(json.dumps(value) + "\n")
        self._lines.flush()
