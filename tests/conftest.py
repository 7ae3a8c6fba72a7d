"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests.support.harness import ProtocolHarness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdist.remote import Producer

    from pacifica_provider.sandbox import Sandbox as SandboxType

SYSTEM = "tests/lab/"
# Before anything imports Airflow: operators may be executed outside a task runner, and nothing of the user's is read
# or written.
for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[name]
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "True"
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-home-")
# Who starts the suite in the background may have ignored these; the programs that it starts must not inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# A slow machine is no finding; and CI's verdict on a commit must not depend on the draw.
settings.register_profile(
    "suite", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)


class SystemTestsTogether(LoadScopeScheduling):
    """Gives one process all the system tests, since they share an Airflow; the others are dealt out by file."""

    def _split_scope(self, nodeid: str) -> str:
        return SYSTEM if nodeid.startswith(SYSTEM) else nodeid.split("::", maxsplit=1)[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SystemTestsTogether:
    """Return what deals out the tests to several processes, in the order they are collected in."""
    config.option.loadscopereorder = False
    return SystemTestsTogether(config, log)


@pytest.fixture
def sandbox() -> Iterator[SandboxType]:
    """Yield a fresh sandbox exchange on a loopback port, without a request quota."""
    from pacifica_provider.sandbox import Sandbox

    with Sandbox(seed=7) as running:
        running.control("POST", "/options", {"enforce_credits": False})
        yield running


@pytest.fixture
def harness(sandbox: SandboxType) -> ProtocolHarness:
    """Return a task instance on the bench."""
    return ProtocolHarness(sandbox)
