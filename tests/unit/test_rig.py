"""The bench itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.rig import Rig


def test_a_lost_answer_is_settled_without_real_waiting(rig: Rig) -> None:
    """A reset after the commit is waited out, posted again, answered 409 and adopted, in virtual time."""
    began = time.monotonic()
    rig.fault("reset", when="after_commit")

    receipt = rig.try_once()

    assert receipt.adopted
    assert [debit["batch_nonce"] for debit in rig.debits()] == [receipt.batch_nonce]
    assert len(rig.posts()) == 2
    assert time.monotonic() - began < 20  # the list lag alone is thirty seconds
