"""
Tests that spend their time waiting, run at the same time.

A test marked ``side_by_side`` is an ordinary function of the ``cluster`` and its parameters, with no other fixture. All
that are collected begin, in threads, with the first one that pytest comes to; at its own turn each is waited for, and
passes or fails as if it had run just then.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.lab.airflow_rest import AirflowFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    from tests.lab.cluster import TestCluster

AT_ONCE = 20
# Twenty that ask three times a second keep the API server from its work.
POLL_S = 2.5


class SideBySide:
    """Runs the marked tests among ``items``; leaving waits for those that have begun and drops the rest."""

    def __init__(self, cluster: TestCluster, items: Sequence[pytest.Item]) -> None:
        self._cluster = cluster
        self._items = [item for item in items if item.get_closest_marker("side_by_side") is not None]
        self._items = [item for item in self._items if not any(mark.args[0] for mark in item.iter_markers("skipif"))]
        # The slow ones first, so that none of them is left for the end, and of those the slowest.
        self._items.sort(key=lambda item: (item.get_closest_marker("slow") is None, item.path.stem != "test_waiting"))
        self._threads = ThreadPoolExecutor(AT_ONCE, "test")
        self._running: dict[str, Future[None]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def result(self, item: pytest.Function) -> None:
        """Return when the test has passed, or raise what it raised."""
        if not self._running:
            self._cluster.airflow.poll_s = POLL_S
            self._running = {each.nodeid: self._threads.submit(self._run, each) for each in self._items}
        self._running[item.nodeid].result()

    def _run(self, item: pytest.Item) -> None:
        assert isinstance(item, pytest.Function)
        parameters: dict[str, Any] = dict(item.callspec.params) if hasattr(item, "callspec") else {}
        with telling(self._cluster, item):
            item.obj(cluster=self._cluster, **parameters)


@contextmanager
def telling(cluster: TestCluster, item: pytest.Item) -> Iterator[None]:
    """Where the test fails, print with its report what became of the runs it had started."""
    cluster.forget_runs()
    try:
        yield
    except BaseException:  # pytest.fail raises one as well; it goes on after the story
        try:
            story = cluster.story()
        except (httpx.HTTPError, AirflowFailed) as error:
            story = f"could not be read: {error}"
        item.add_report_section("call", "runs", story)
        raise
