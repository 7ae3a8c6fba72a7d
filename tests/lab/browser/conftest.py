"""A real Airflow 3.3 over the examples, a sandbox exchange, and Debian's Chromium to look at the pages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

from tests.lab.browser.pages import Pages
from tests.lab.local_airflow import LocalAirflow
from tests.lab.local_sandbox import ROOT, LocalSandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"
CAP = {"SOL": "0.5"}


@pytest.fixture(scope="session")
def exchange() -> Iterator[LocalSandbox]:
    """Yield the sandbox that every connection leads to. Nothing settles by itself."""
    with LocalSandbox() as running:
        yield running


@pytest.fixture(scope="session")
def airflow(exchange: LocalSandbox) -> Iterator[LocalAirflow]:
    """Yield an Airflow as a user has it: schedules hold, and Test is enabled."""
    connection = json.loads(exchange.info["airflow_connection"])
    capped = {**connection, "extra": {**connection["extra"], "withdrawal_limits": CAP}}
    folders = {"examples": ROOT / "dags_examples", "browser": HERE / "dags"}
    bundles = [{"name": name, "classpath": BUNDLE, "kwargs": {"path": str(path)}} for name, path in folders.items()]
    env = {
        "AIRFLOW_CONN_PACIFICA_DEFAULT": json.dumps(connection),
        "AIRFLOW_CONN_CAPPED": json.dumps(capped),
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        "PYTHONPATH": str(ROOT),
    }
    with LocalAirflow(ROOT / "dags_examples", env=env, schedules=True, execution_api_apart=True) as running:
        yield running


@pytest.fixture
def pages(airflow: LocalAirflow) -> Iterator[Pages]:
    """Yield Airflow's pages in a browser of their own."""
    chromium = shutil.which("chromium")
    assert chromium is not None, "make test-browser installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        yield Pages(page, airflow)
        browser.close()
