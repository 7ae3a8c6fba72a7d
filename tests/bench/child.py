"""Programs that measure, each in a process of its own: lines of JSON come out, single lines of JSON go in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tests.lab import processes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

ROOT = Path(__file__).resolve().parents[2]
# Inherited settings would reach into what is measured; the last one doubles every start.
FOREIGN = ("AIRFLOW", "_AIRFLOW", "PACIFICA", "PYTHON")
TAIL_LINES = 30


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
        # Whatever it logs; shown only if it fails.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> Self:
        # A `kill -9` of the bench ends it too.
        launcher = [sys.executable, "-S", "-E", "-c", processes.LAUNCHER, str(os.getpid())]
        self._process = subprocess.Popen(
            [*launcher, *self._command],
            cwd=ROOT,
            env=environment(self._env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        process = self._running()
        if exc_info[0] is not None:
            process.terminate()
        process.communicate()  # closes its input and reads what is left
        with self._errors:
            if process.returncode and exc_info[0] is None:
                self._fail(f"ended with status {process.returncode}")

    def read(self) -> Any:
        """Wait for its next line."""
        output = self._running().stdout
        line = output.readline() if output else ""
        if not line:
            self._fail("ended too early")
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

    def _fail(self, how: str) -> NoReturn:
        self._errors.seek(0)
        tail = "".join(self._errors.readlines()[-TAIL_LINES:])
        raise BenchFailed(f"{self._command[2]} {how}:\n{tail}")

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
