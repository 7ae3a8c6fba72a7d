"""What a DAG file pays for importing the operator and the sensor: modules, so that no machine matters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("pacifica_provider.operators.withdraw", "pacifica_provider.sensors.withdrawal")
# All that either may load of this package; everything else waits until a task runs.
ALLOWED = {
    "pacifica_provider",
    "pacifica_provider.assets",
    "pacifica_provider.exceptions",
    "pacifica_provider.links",
    "pacifica_provider.operators",
    "pacifica_provider.operators.withdraw",
    "pacifica_provider.sensors",
    "pacifica_provider.sensors.withdrawal",
}
# Libraries that cost milliseconds or more, and that `airflow.sdk` has not loaded already.
MOST_MODULES = 12
DEAR = ("airflow.triggers", "aiohttp", "base58", "nacl", "requests", "urllib3", "websockets")
PROGRAM = """
import importlib, json, sys
from airflow.sdk import BaseHook, BaseOperator, BaseOperatorLink, BaseSensorOperator
before = set(sys.modules)
importlib.import_module(sys.argv[1])
print(json.dumps([sorted(before), sorted(set(sys.modules) - before)]))
"""


def loaded(module: str) -> tuple[list[str], list[str]]:
    """Return what `airflow.sdk` loads in a fresh interpreter, and what the module adds to it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, module]
    output = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    before, added = json.loads(output.splitlines()[-1])
    return before, added


@pytest.fixture(scope="module", params=MODULES)
def added(request: pytest.FixtureRequest) -> list[str]:
    """Return the modules that importing the operator or the sensor adds to `airflow.sdk`."""
    return loaded(request.param)[1]


def test_importing_it_loads_no_more_of_this_package_than_the_error_tree(added: list[str]) -> None:
    """Hook, protocol, clients and triggers are imported when a task runs, not when a DAG file is parsed."""
    own = {name for name in added if name.partition(".")[0] == "pacifica_provider"}

    assert own <= ALLOWED


@pytest.mark.parametrize("library", DEAR)
def test_importing_it_loads_no_dear_library(added: list[str], library: str) -> None:
    """A library that costs milliseconds is imported by whoever first uses it."""
    found = [name for name in added if name == library or name.startswith(f"{library}.")]

    assert not found


def test_importing_it_adds_few_modules(added: list[str]) -> None:
    """Of Airflow and the standard library next to nothing is loaded that `airflow.sdk` had not loaded."""
    assert len(added) <= MOST_MODULES, added
