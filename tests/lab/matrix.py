"""
The wheel on every Airflow line: an environment each, all of tests/unit and what tests/lab marks as a feature.

The tests run from a copy of the tree without the package, so that what they import is what the wheel has installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from packaging.version import Version

from tests.lab import processes
from tests.lab.local_sandbox import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Three numbers are that release, two the newest of that line: what constraints/airflow-LINE.txt pins.
LINES = ("3.1.3", "3.1", "3.2", "3.3.0", "3.3", "3.4")
# Asked for at each run: what is newest there may be a pre-release, which is reported and not counted.
UNRELEASED = "3.4"
EACH, ONE = "3.11", ("3.12", "3.13")
# What all Pythons are tried with.
COMMON = "3.3"
LEFT_OUT = (".*", "__pycache__", "*.egg-info", "build", "dist", "htmlcov")
SETUP_TIMEOUT_S, TESTS_TIMEOUT_S = 600, 2400
UNIT = "unit tests"
TAIL_LINES = 15


@dataclass
class Column:
    """What one environment has shown: by feature how many tests passed, and what failed or was not there."""

    line: str
    python: str
    airflow: str = ""
    absent: bool = False
    problem: str = ""
    passed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    failed: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    skipped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def title(self) -> str:
        """The Airflow, and the Python where it is not everybody's."""
        return (self.airflow or self.line) + ("" if self.python == EACH else f"/{self.python}")

    @property
    def counts(self) -> bool:
        """Whether this Airflow is a release and the machine has this Python, so that a failure is one of the matrix."""
        return not self.absent and (not self.airflow or not Version(self.airflow).is_prerelease)

    @property
    def good(self) -> bool:
        """Whether everything ran and nothing failed."""
        return not self.problem and not self.failed and bool(self.passed)

    def cell(self, feature: str) -> str:
        """Return what is said of a feature."""
        if self.failed.get(feature):
            return "failed"
        if self.passed.get(feature):
            return "ok"
        return "not there" if self.skipped.get(feature) else "not run"

    def read(self, report: Path) -> None:
        """Read a report of pytest's."""
        for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 - pytest has just written it
            feature = next((each.get("value", "") for each in case.iter("property")), UNIT)
            skipped = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                self.failed[feature].append(f"{case.get('classname')}::{case.get('name')}")
            elif skipped is not None:
                self.skipped[feature].append(str(skipped.get("message")))
            else:
                self.passed[feature] += 1


def columns(lines: Sequence[str]) -> list[Column]:
    """Return the environments: each line once, the common one on every Python."""
    return [Column(line, python) for line in lines for python in (EACH, *(ONE if line == COMMON else ()))]


def interpreter(python: str) -> str | None:
    """Return the path of such a Python, ``None`` if the machine has none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [shutil.which(f"python{python}"), *pyenv.glob(f"versions/{python}.*/bin/python")]
    # What pyenv puts into PATH is there also for a version that it does not let run.
    for each in found:
        if each and subprocess.run([each, "-c", ""], capture_output=True, check=False).returncode == 0:
            return str(each)
    return None


class Matrix:
    """A copy of the tree, the wheel built from it, and what the wheel does in one environment after another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tree = folder / "tree"
        self._wheel = Path()

    def prepare(self) -> None:
        """Copy the tree, build the wheel, and take the package out of the copy."""
        processes.adopt_orphans()
        shutil.copytree(ROOT, self._tree, ignore=shutil.ignore_patterns(*LEFT_OUT))
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(self._folder), "."]
        subprocess.run(command, cwd=self._tree, check=True, stdout=subprocess.DEVNULL)
        (self._wheel,) = self._folder.glob("*.whl")
        shutil.rmtree(self._tree / "pacifica_provider")
        shutil.rmtree(self._tree / "build", ignore_errors=True)
        for left in self._tree.glob("*.egg-info"):
            shutil.rmtree(left)

    def fill(self, column: Column) -> None:
        """Set the environment up and run the tests in it; whatever goes wrong is noted in the column."""
        venv = ROOT / f".venv-matrix-{column.line}-{column.python}"
        log = self._folder / f"{venv.name}.log"
        python = venv / "bin" / "python"
        found = interpreter(column.python)
        if found is None:
            column.absent = True
            return
        try:
            self._set_up(column, venv, log, found)
            where = self._say(python, "import pacifica_provider; print(pacifica_provider.__file__)")
            if not Path(where).is_relative_to(venv):
                raise MatrixFailed(f"the tests would import {where}")
            column.airflow = self._say(
                python, "from importlib import metadata; print(metadata.version('apache-airflow'))"
            )
            report = self._folder / f"{venv.name}.xml"
            selected = ["tests/unit", "tests/lab", "-m", "feature or not system"]
            # No exit status is looked at: a test that failed, or none, is in the report, or there is no report.
            command = [str(python), "-m", "pytest", "-q", "-n", "2", f"--junitxml={report}", *selected]
            self._run(command, log, TESTS_TIMEOUT_S, check=False)
            if not report.exists():
                raise MatrixFailed(f"pytest wrote no report:\n{_tail(log)}")
            column.read(report)
        except (MatrixFailed, subprocess.SubprocessError) as error:
            column.problem = str(error)

    def _set_up(self, column: Column, venv: Path, log: Path, found: str) -> None:
        constraints = f"constraints/airflow-{column.line}.txt"
        if column.line == UNRELEASED:
            uv = str(Path(sys.executable).parent / "uv")
            self._run(["dev/constraints.sh", uv, column.line], log, SETUP_TIMEOUT_S)
        self._run(["dev/setup.sh", str(venv), constraints, str(self._wheel)], log, SETUP_TIMEOUT_S, PYTHON=found)

    def _run(self, command: list[str], log: Path, timeout_s: float, *, check: bool = True, **env: str) -> None:
        env = {**os.environ, "TMPDIR": str(self._folder), **env}
        try:
            status = processes.start(command, cwd=self._tree, env=env, log=log).wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise MatrixFailed(f"{command[0]} was not done after {timeout_s:g} s:\n{_tail(log)}") from None
        finally:
            # Also what a run that is broken off has started, which may have outlived its parent.
            with processes.INTERRUPTIONS.held():
                processes.end(lambda: processes.descendants(os.getpid()))
        if check and status:
            raise MatrixFailed(f"{command[0]} ended with status {status}:\n{_tail(log)}")

    def _say(self, python: Path, program: str) -> str:
        done = subprocess.run(
            [str(python), "-c", program], cwd=self._tree, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout.strip()


class MatrixFailed(RuntimeError):
    """An environment could not be tried; the message says why."""


def table(filled: Sequence[Column]) -> Iterator[str]:
    """Yield the lines of the table, and below it why a feature is not there and which tests failed."""
    features = sorted({each for column in filled for each in (*column.passed, *column.failed, *column.skipped)})
    width = max(map(len, features), default=0)
    yield "  ".join([" " * width, *(f"{column.title:>11}" for column in filled)])
    for feature in features:
        yield "  ".join([feature.ljust(width), *(f"{column.cell(feature):>11}" for column in filled)])
    for column in filled:
        if column.problem:
            yield f"{column.title}: could not be tried: {column.problem}"
        for feature in features:
            if column.cell(feature) == "not there":
                yield f"{column.title}: {feature} is not there: {'; '.join(sorted(set(column.skipped[feature])))}"
            for test in column.failed.get(feature, ()):
                yield f"{column.title}: {feature} failed: {test}"
        if column.absent:
            yield f"{column.title}: not run, as this machine has no Python {column.python}"
        elif not column.good and not column.counts:
            yield f"{column.title} is a pre-release: it does not count"


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
