"""The bench itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.harness import ProtocolHarness


def test_a_lost_answer_is_settled_without_real_waiting(harness: ProtocolHarness) -> None:
    """A reset after the commit is waited out, posted again, answered 409 and adopted, in virtual time."""
    began = time.monotonic()
    harness.fault("reset", when="after_commit")

    receipt = harness.try_once()

    assert receipt.adopted
    assert [debit["batch_nonce"] for debit in harness.debits()] == [receipt.batch_nonce]
    assert len(harness.posts()) == 2
    assert time.monotonic() - began < 20  # the list lag alone is thirty seconds
