"""One real Airflow and one sandbox for the whole session, and tests that run side by side on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.cluster import DAGS, TestCluster, environment
from tests.lab.local_airflow import LocalAirflow
from tests.lab.local_sandbox import LocalSandbox
from tests.lab.side_by_side import SideBySide, telling

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

HERE = Path(__file__).parent
# Those of the first files run side by side; the next stop parts of Airflow; then every run that is older than the test
# is made to ask; the last looks at what all have left.
ORDER = ("test_waiting", "test_components", "test_local_airflow", "test_ledger", "test_no_leak")


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks of this folder."""
    config.addinivalue_line("markers", "side_by_side: runs in a thread beside the others of its kind")
    config.addinivalue_line("markers", "feature(name): a line of what `make matrix` tells of each Airflow")
    config.addinivalue_line("markers", "slow: waits so long that it is begun before the others")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Mark everything in this folder as a system test, none of which may hang for ever, and put it in order.

    In one process after all others, which fail sooner; one of several processes has nothing else to do, and begins.
    """
    ours = [item for item in items if item.path.is_relative_to(HERE)]
    for item in ours:
        item.add_marker(pytest.mark.system)
        item.user_properties += [("feature", mark.args[0]) for mark in item.iter_markers("feature")]
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(900))
    ours.sort(key=lambda item: ORDER.index(item.path.stem) if item.path.stem in ORDER else -1)
    others = [item for item in items if not item.path.is_relative_to(HERE)]
    items[:] = ours + others if hasattr(config, "workerinput") else others + ours


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Wait for a test that runs side by side with others; all of them begin with the first."""
    if pyfuncitem.get_closest_marker("side_by_side") is None:
        return None
    pyfuncitem.session.config.stash[SIDE_BY_SIDE].result(pyfuncitem)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Let a failing test tell what became of its runs; those that run side by side do it in their own threads."""
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if cluster is None or item.get_closest_marker("side_by_side") is not None:
        yield
        return
    with telling(cluster, item):
        yield


SIDE_BY_SIDE = pytest.StashKey[SideBySide]()


@pytest.fixture(scope="session")
def exchange() -> Iterator[LocalSandbox]:
    """Yield the sandbox that the ``airflow`` fixture's DAGs withdraw from. Nothing settles by itself."""
    with LocalSandbox() as running:
        running.control("POST", "/options", {"enforce_credits": False})
        yield running


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder through which tests and tasks talk."""
    return tmp_path_factory.mktemp("system")


@pytest.fixture(scope="session")
def airflow(exchange: LocalSandbox, folder: Path) -> Iterator[LocalAirflow]:
    """Yield an Airflow over the DAGs of these tests and the examples, that soon misses a killed task."""
    env = environment(exchange.info["airflow_connection"], folder)
    with LocalAirflow(DAGS, env=env, heartbeat_timeout_s=30, parallelism=12, execution_api_apart=True) as running:
        yield running


@pytest.fixture(scope="session")
def cluster(
    airflow: LocalAirflow, exchange: LocalSandbox, folder: Path, request: pytest.FixtureRequest
) -> Iterator[TestCluster]:
    """Yield what opens accounts and starts runs; the side-by-side tests begin as soon as it stands."""
    cluster = TestCluster(airflow, exchange, folder)
    with SideBySide(cluster, request.session.items) as running:
        request.session.config.stash[SIDE_BY_SIDE] = running
        yield cluster
