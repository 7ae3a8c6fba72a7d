"""The desk of these tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.desk import Desk

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox


@pytest.fixture
def desk(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Return a task instance whose connection is the sandbox."""
    desk = Desk(sandbox, monkeypatch)
    desk.connect()
    return desk
