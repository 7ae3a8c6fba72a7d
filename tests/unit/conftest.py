"""What a worker has in these tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.task_context import TaskContext

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox


@pytest.fixture
def task_context(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> TaskContext:
    """Return a task instance whose connection is the sandbox."""
    task_context = TaskContext(sandbox, monkeypatch)
    task_context.connect()
    return task_context
