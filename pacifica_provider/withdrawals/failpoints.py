"""
Named places where a test may stop, kill or freeze the process. In production each costs one comparison.

``before_record`` nothing read or written yet · ``after_attempt`` the attempt is written, the task's references are
not · ``before_post`` both are written, nothing sent · ``after_post`` answered, nothing noted · ``after_receipt`` the
receipt is written, not returned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

POINTS = ("before_record", "after_attempt", "before_post", "after_post", "after_receipt")

_handler: Callable[[str], None] | None = None


def install(handler: Callable[[str], None] | None) -> None:
    """Call ``handler`` with the name of every point reached from now on; ``None`` removes it."""
    global _handler  # noqa: PLW0603 - one process-wide switch is what a kill test needs
    _handler = handler


def reach(point: str) -> None:
    """Mark that execution has come to this point."""
    if _handler is not None:
        _handler(point)
